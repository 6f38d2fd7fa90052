//! `match`: which router answers a request, for people and for programs.

use std::{net::IpAddr, sync::Arc};

use charliehub_proto::matching::{Answering, Matched, MiddlewareVerdict};
use clap::Args;
use tokio_postgres::Client;

use super::{database, export, output};
use crate::{
    app::settings,
    config::Config,
    matching::{self, Request},
};

#[derive(Debug, Args)]
pub(super) struct Match {
    /// As https://host/path, http://host/path or tcp://host:port
    url: String,
    /// Whom lists of addresses are judged for
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<IpAddr>,
    /// The method of the request [default: GET]
    #[arg(long)]
    method: Option<String>,
    /// A header of the request, as "Name: value"; again for each one
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The entry point, where it is not web (http) or websecure (https)
    #[arg(long, value_name = "NAME")]
    entry_point: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, wanted: &Match) -> anyhow::Result<()> {
    let asked = Request::parse(&wanted.url)?.method(wanted.method.as_deref()).from(wanted.client_ip);
    let asked = asked.entry_point(wanted.entry_point.clone());
    let asked = wanted.header.iter().try_fold(asked, |asked, line| asked.header(line))?;
    let settings = Arc::new(settings(config, config.serve.listen));
    let work = async |client: &mut Client| {
        let bytes = export::bytes(client, config, None).await?;
        let mut matched = matching::answer(&matching::Config::read(&bytes)?, &asked)?;
        if let Some(answering) = &mut matched.answer {
            matching::owner::find(client, &settings, &matched.request.host, answering)
                .await
                .map_err(database::explain)?;
        }
        Ok(matched)
    };
    let matched = database::with(config, async |opened| opened.run(work).await).await?;
    let text = if wanted.json { serde_json::to_string_pretty(&matched)? + "\n" } else { for_people(&matched) };
    Ok(output::print(&text)?)
}

fn for_people(matched: &Matched) -> String {
    let Some(answering) = &matched.answer else {
        return format!("no router takes {}: Traefik answers 404 (tcp: closes the connection)\n", matched.request.url);
    };
    let mut rows = vec![
        vec!["outcome".to_owned(), answering.outcome.as_str().to_owned()],
        vec!["router".to_owned(), answering.router.clone()],
        vec!["stands for".to_owned(), stands_for(answering)],
        vec!["rule".to_owned(), answering.rule.clone()],
        vec!["priority".to_owned(), answering.priority.to_string()],
    ];
    rows.extend(answering.middlewares.iter().map(|one| {
        let says = one.verdict.map(|verdict| match verdict {
            MiddlewareVerdict::Refuses => "refuses",
            MiddlewareVerdict::Passes => "passes",
            MiddlewareVerdict::Asks => "asks",
        });
        let parts = [Some(one.name.as_str()), says, one.detail.as_deref()];
        vec!["middleware".to_owned(), parts.into_iter().flatten().collect::<Vec<_>>().join(" ")]
    }));
    rows.push(vec!["service".to_owned(), answering.service.clone()]);
    rows.extend(
        matched
            .also
            .iter()
            .map(|other| vec!["also".to_owned(), format!("{} (priority {})", other.router, other.priority)]),
    );
    output::table(&["WHAT", matched.request.url.as_str()], &rows)
}

fn stands_for(answering: &Answering) -> String {
    match (&answering.row, &answering.fragment) {
        (Some(row), _) => format!("row {} ({}{})", row.id, row.domain, row.path_prefix),
        (None, Some(fragment)) => format!("fragment {}/{}", fragment.kind, fragment.name),
        (None, None) => "-".to_owned(),
    }
}
