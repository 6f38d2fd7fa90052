//! `ack`: what knowing costs. How much later than a reader that asks every millisecond the provider knows what a real Traefik
//! runs, what that takes of a core, and how long `/debug` takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use charliehub_tests::{Traefik, secs};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{sleep, sleep_until};

use crate::{
    keepalive::{Connection, pause},
    processor::ticks,
    report::{Report, Samples},
    routes::{self, SWITCH},
    setup::Setup,
};

const CHANGES: i32 = 30;
/// So many rows are an edge on which reading everything is work.
const SOME: i32 = 10_000;
/// So many rows are still to be a page.
const MANY: i32 = 100_000;
const LOADS: u32 = 30;
/// Holds at least one reading of everything.
const QUIET: Duration = Duration::from_secs(45);

pub(crate) async fn run() -> anyhow::Result<Report> {
    let mut report = Report::default();
    let with = known(true, &mut report).await?;
    let without = known(false, &mut report).await?;
    report.value("% of a core with a change a second, acknowledged", with);
    report.value("% of a core with a change a second, polled only", without);
    report.at_most("of a core for knowing, a change a second", with - without, 1.0, "%");
    many(&mut report).await?;
    Ok(report)
}

/// A change a second; what of a core the provider took.
async fn known(acks: bool, report: &mut Report) -> anyhow::Result<f64> {
    let home = charliehub_tests::Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
    let insert = routes::insert(9);
    let setup = Setup::with(&insert, |provider| if acks { provider.traefik(&known) } else { provider }).await?;
    let _traefik = Traefik::start_at(&setup.home, "hub2", setup.address(), setup.token(), api).await;
    let database = setup.connect().await;
    let marker = format!("GET /api/http/middlewares/charliehub-revision@http HTTP/1.1\r\nHost: {api}\r\n\r\n");
    let mut reader = Connection::plain(api)?;
    until_runs(&mut reader, &marker, None)?;
    if acks {
        // Of the page, while there is an edge to show.
        report.at_most("/debug with 23 routes, p50", debug(&setup).await?.p50(), 10.0, "ms");
    }
    // What a start has to do is no part of it.
    sleep(secs(5)).await;
    let (mut later, mut live) = (Samples::default(), Samples::default());
    let (began, before) = (Instant::now(), ticks(setup.pid())?);
    for port in 1..=CHANGES {
        let next = tokio::time::Instant::now() + secs(1);
        let runs = reader.ask(marker.as_bytes())?.body;
        database
            .execute("UPDATE charliehub.domains SET backend_port = $1 WHERE domain = $2", &[&(port + 9), &SWITCH])
            .await?;
        if acks {
            let committed = Timestamp::now();
            let seen = tokio::task::block_in_place(|| until_runs(&mut reader, &marker, Some(&runs)))?;
            let known = until_known(&setup, committed).await?;
            later.push_ms(milliseconds(seen, known)?);
            live.push_ms(milliseconds(committed, known)?);
        }
        sleep_until(next).await;
    }
    let taken = ticks(setup.pid())? - before;
    if acks {
        report.samples("commit -> known to be live", live);
        report.at_most("known later than by asking every ms, p50", later.p50(), 5.0, "ms");
        report.samples("known later than by asking every ms", later);
    }
    Ok(share(taken, began.elapsed()))
}

/// Many routes, on an edge with nothing to do.
async fn many(report: &mut Report) -> anyhow::Result<()> {
    let home = charliehub_tests::Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
    let setup = Setup::with(&rows(1, SOME), |provider| provider.traefik(&known)).await?;
    let traefik = Traefik::start_at(&setup.home, "hub2", setup.address(), setup.token(), api).await;
    let marker = format!("GET /api/http/middlewares/charliehub-revision@http HTTP/1.1\r\nHost: {api}\r\n\r\n");
    let mut reader = Connection::plain(api)?;
    until_runs(&mut reader, &marker, None)?;
    sleep(secs(5)).await;
    let (began, before) = (Instant::now(), ticks(setup.pid())?);
    sleep(QUIET).await;
    let taken = share(ticks(setup.pid())? - before, began.elapsed());
    report.at_most("of a core with 10,000 routes and nothing to do", taken, 1.0, "%");
    drop(traefik);
    setup.postgres.sql(&rows(SOME + 1, MANY)).await;
    setup.served().await;
    report.at_most("/debug with 100,000 rows, p50", debug(&setup).await?.p50(), 100.0, "ms");
    Ok(())
}

fn rows(from: i32, to: i32) -> String {
    format!(
        "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
         SELECT 'h' || n || '.bench.test', 'default', '127.0.0.1', 9 FROM generate_series({from}, {to}) n"
    )
}

/// When Traefik runs another config than `before`.
fn until_runs<S: std::io::Read + std::io::Write>(
    reader: &mut Connection<S>,
    marker: &str,
    before: Option<&[u8]>,
) -> anyhow::Result<Timestamp> {
    let deadline = Instant::now() + secs(60);
    while Instant::now() < deadline {
        let answer = reader.ask(marker.as_bytes())?;
        if answer.status == 200 && Some(&*answer.body) != before {
            return Ok(Timestamp::now());
        }
        pause(Duration::from_millis(1));
    }
    anyhow::bail!("Traefik does not run the config")
}

/// When the provider says that the newest config was seen to run.
async fn until_known(setup: &Setup, committed: Timestamp) -> anyhow::Result<Timestamp> {
    let deadline = Instant::now() + secs(5);
    let mut connection = Connection::plain(setup.address())?;
    let request = request(setup, "/api/instances");
    while Instant::now() < deadline {
        let answer: Value = serde_json::from_slice(&connection.ask(&request)?.body)?;
        let at = answer.pointer("/0/running/at").and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok());
        if let Some(at) = at.filter(|at| *at > committed) {
            return Ok(at);
        }
        sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("the provider does not say that it is live")
}

async fn debug(setup: &Setup) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let mut connection = Connection::plain(setup.address())?;
    let request = request(setup, "/debug");
    for _ in 0..LOADS {
        let began = Instant::now();
        let answer = connection.ask(&request)?;
        samples.push(began.elapsed());
        anyhow::ensure!(answer.status == 200, "/debug answers {}", answer.status);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(samples)
}

fn request(setup: &Setup, path: &str) -> Vec<u8> {
    let (host, token) = (setup.address(), setup.admin_token());
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

fn milliseconds(from: Timestamp, to: Timestamp) -> anyhow::Result<f64> {
    Ok((to - from).total(jiff::Unit::Nanosecond)? / 1e6)
}

fn share(ticks: f64, of: Duration) -> f64 {
    ticks / of.as_secs_f64()
}
