//! What a person asks on the command line: how names stand and what would be done; to stop all changes, and to go on.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;

use super::{
    findings::{fault_of, held, refused},
    machine::{Decision, Follow, Limits},
    rows,
    survey::{sources, survey},
};
use crate::{author::Author, config::Config};

/// Names with where their site is seen, what DNS says, and what would be done once that has lasted.
pub async fn print(client: &Client, config: &Config) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    let endpoints = rows::endpoints(client, config.agents.silent_after).await?;
    let (wishes, sites) = (rows::wishes(client).await?, rows::sites(client).await?);
    let found = survey(&config.ddns, &wishes, sites, &endpoints, &sources(&config.ddns).await).await;
    let mut lines: Vec<[String; 6]> = Vec::new();
    let none = || "-".to_owned();
    for (name, fault) in &found.faults {
        lines.push([name.clone(), none(), none(), none(), none(), fault_of(name, fault).text]);
    }
    for sight in &found.names {
        let (name, site) = (&sight.named.name, &sight.named.site);
        if let Some(trouble) = &sight.trouble {
            lines.push([name.clone(), none(), site.clone(), none(), none(), trouble.why.clone()]);
        }
        for (family, seen, answer) in &sight.families {
            let (says, plan) = match answer {
                Err(failure) => (none(), failure.why.clone()),
                Ok(answer) => {
                    let (mut follow, now) = (Follow::default(), Instant::now());
                    follow.see(Some(*seen), now);
                    follow.answered(answer.clone());
                    (
                        answer.to_string(),
                        plan(&follow.decide(&Limits { stable: Duration::ZERO, interval: Duration::ZERO }, now)),
                    )
                }
            };
            lines.push([name.clone(), family.to_string(), site.clone(), seen.to_string(), says, plan]);
        }
    }
    if let Some((who, why)) = rows::hold(client).await? {
        lines.push([none(), none(), none(), none(), none(), held(&who, &why).text]);
    }
    Ok(lines.into_iter().map(Vec::from).collect())
}

fn plan(decision: &Decision) -> String {
    match decision {
        Decision::Right => "nothing: it is right".to_owned(),
        Decision::Change(change) => format!("change to {}", change.new),
        Decision::Refuse(refusal) => format!("nothing: {}", refused(refusal).0),
        Decision::Nothing | Decision::Wait(_) => "nothing".to_owned(),
    }
}

/// Stops all providers of this database from changing DNS.
pub async fn hold(client: &Client, author: &Author, reason: &str) -> Result<(), tokio_postgres::Error> {
    author.note(client, "ddns.hold", &json!({ "reason": reason })).await
}

/// Lets them go on.
pub async fn release(client: &Client, author: &Author) -> Result<(), tokio_postgres::Error> {
    author.note(client, "ddns.release", &json!({})).await
}
