//! Polls as Traefik does, keeps every body, and at the end compares each with the rows of its revision.
//!
//! What it insists on: never an error while the provider lives, never an empty configuration after there has been one,
//! never a revision backwards on one connection, and in every body exactly the routes and backends that `domains_as_of` gives for the
//! revision that its header names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::Method;
use tokio_util::sync::CancellationToken;

use crate::{Connection, Home, Postgres, ms, until};

const COMPARED: usize = 400;

/// A body as it was served.
#[derive(Clone, Debug)]
pub struct Served {
    pub at: Instant,
    /// Counts up when the poller had to connect again.
    pub connection: u32,
    pub revision: u64,
    /// `X-Charliehub-Withheld`, empty when nothing is.
    pub withheld: String,
    pub body: Bytes,
}

impl Served {
    /// Router name to the URL of its first server, http only; a router that answers 503 has none.
    pub fn routes(&self) -> BTreeMap<String, String> {
        routes(&self.body)
    }
}

pub struct Watch {
    seen: Arc<Mutex<Record>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Record {
    served: Vec<Served>,
    errors: Vec<String>,
}

impl Watch {
    pub(crate) fn start(home: &Home, provider: SocketAddr, token: &str) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Record::default())), CancellationToken::new());
        let (home2, record, stopped) = (home.clone(), seen.clone(), stop.clone());
        let authorization = format!("Bearer {token}");
        home.tasks().spawn(async move {
            stopped.run_until_cancelled(follow(&home2, provider, &authorization, &record)).await;
        });
        Self { seen, stop }
    }

    pub fn last(&self) -> Option<Served> {
        self.seen.lock().unwrap().served.last().cloned()
    }

    pub fn served(&self) -> Vec<Served> {
        self.seen.lock().unwrap().served.clone()
    }

    /// Polls that failed or were not answered with 200.
    pub fn errors(&self) -> Vec<String> {
        self.seen.lock().unwrap().errors.clone()
    }

    /// Waits until this poller has been given the revision; tells how long that took.
    pub async fn until(&self, revision: u64, deadline: Duration) -> Duration {
        let latest = async || {
            let seen = self.last().map_or(0, |s| s.revision);
            if seen >= revision { Ok(()) } else { Err(seen) }
        };
        until(&format!("the poller is given revision {revision}"), deadline, latest).await.1
    }

    /// Ends the polling and checks all that was served; every poll must have succeeded.
    pub async fn audit(self, postgres: &Postgres) -> usize {
        assert_eq!(self.errors(), Vec::<String>::new(), "polls failed");
        self.audit_bodies(postgres, |_| true).await
    }

    /// The same without looking at errors, for the bodies that `which` chooses; how many revisions were compared.
    pub async fn audit_bodies(self, postgres: &Postgres, which: impl Fn(&Served) -> bool) -> usize {
        self.stop.cancel();
        let served: Vec<Served> = self.served().into_iter().filter(|s| which(s)).collect();
        assert!(!served.is_empty(), "nothing was served");
        for pair in served.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let went_back = before.connection == after.connection && before.revision > after.revision;
            assert!(!went_back, "went back from revision {} to {}", before.revision, after.revision);
        }
        // What a few clients see in a storm is thousands of bodies: then some of them, evenly, and the last.
        let step = served.len().div_ceil(COMPARED);
        let chosen = served.iter().rev().step_by(step);
        let mut compared = BTreeSet::new();
        for one in chosen {
            if !compared.insert((one.revision, one.body.clone())) {
                continue;
            }
            let sql = format!(
                "SELECT domain || CASE path_prefix WHEN '/' THEN '' ELSE path_prefix END, \
                 coalesce(backend_scheme, 'http') || '://' || backend_host || ':' || backend_port \
                 FROM domains_as_of({}) WHERE protocol = 'http' AND service_type = 'proxy' AND status = 'active'",
                one.revision
            );
            let rows = postgres.sql(&sql).await;
            let expected: BTreeMap<String, String> = rows.into_iter().map(|r| (r[0].clone(), r[1].clone())).collect();
            assert_eq!(one.routes(), expected, "revision {} was served with other routes than its rows", one.revision);
        }
        compared.len()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn follow(home: &Home, provider: SocketAddr, authorization: &str, record: &Mutex<Record>) {
    let headers = [("authorization", authorization)];
    for count in 0.. {
        let error = match Connection::open(home, provider).await {
            Err(error) => error,
            Ok(mut connection) => loop {
                let path = "/traefik?wait=5s&instance=watch";
                match connection.send(Method::GET, path, &headers, "").await {
                    Ok(answer) if answer.status == 200 => {
                        let withheld = answer.header("x-charliehub-withheld").to_owned();
                        let (at, revision) = (Instant::now(), answer.revision());
                        let served = Served { at, connection: count, revision, withheld, body: answer.body };
                        record.lock().unwrap().served.push(served);
                    }
                    Ok(answer) => break anyhow::anyhow!("{} {}", answer.status, answer.text()),
                    Err(error) => break error,
                }
            },
        };
        record.lock().unwrap().errors.push(format!("{error:#}"));
        tokio::time::sleep(ms(20)).await;
    }
}

fn routes(body: &[u8]) -> BTreeMap<String, String> {
    let config: serde_json::Value = serde_json::from_slice(body).expect("a body is JSON");
    let empty = serde_json::Map::new();
    let routers = config["http"]["routers"].as_object().unwrap_or(&empty);
    routers
        .iter()
        .filter_map(|(name, router)| {
            let service = router["service"].as_str()?;
            let url = config["http"]["services"][service]["loadBalancer"]["servers"][0]["url"].as_str()?;
            Some(rows(name, router["rule"].as_str()?).into_iter().map(|row| (row, url.to_owned())))
        })
        .flatten()
        .collect()
}

/// What a router stands for: its row, or each of the rows that share it.
fn rows(router: &str, rule: &str) -> Vec<String> {
    let Some(first) = router.strip_prefix("group:").and_then(|rest| rest.split_once(':')).map(|(_, first)| first)
    else {
        return vec![router.to_owned()];
    };
    let path = first.split_once('/').map(|(_, path)| format!("/{path}")).unwrap_or_default();
    let any = if rule.starts_with("HostRegexp(`^[^.]+") { "*." } else { "" };
    let listed = rule.split_once("(?:").and_then(|(_, rest)| rest.split_once(')')).expect("a list of names").0;
    listed.split('|').map(|name| format!("{any}{}{path}", name.replace(r"\.", "."))).collect()
}
