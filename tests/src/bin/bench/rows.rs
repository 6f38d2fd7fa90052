//! `rows`: 10,000 rows. From the start of the process to the first configuration served, and one changed row.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use tokio::time::sleep;

use crate::{
    Options,
    keepalive::{Answer, Connection, pause},
    report::{Report, Samples, milliseconds},
    setup::Setup,
    watch::{HeldPoll, request},
};

/// A start with as many rows takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);

const ROWS: i32 = 10_000;
const STARTS: u32 = 5;

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut starts = Samples::default();
    let mut bench = Setup::start(&insert()).await?;
    for _ in 0..STARTS {
        let began = bench.restart_with_nothing_on_disk().await?;
        let (address, token) = (bench.address(), bench.token().to_owned());
        let (answer, at) = tokio::task::block_in_place(|| first_config(address, &token, DEADLINE))?;
        starts.push(at - began);
        let length: f64 = answer.header("content-length").unwrap_or_default().parse()?;
        report.value("KiB of the configuration, gzipped", length / 1_024.0);
    }
    let start_p50 = starts.p50();
    report.samples("start of the process -> first configuration served", starts);

    let database = bench.connect().await;
    let mut held = HeldPoll::start(bench.address(), bench.token())?;
    let swaps = bench.swaps().await;
    let mut answered = Samples::default();
    for round in 0..options.rounds {
        sleep(Duration::from_millis(100)).await;
        let name = format!("h{}.rows.test", i64::from(round) * 997 % i64::from(ROWS) + 1);
        let update = "UPDATE charliehub.domains SET backend_port = backend_port + 1 WHERE domain = $1";
        ensure!(database.execute(update, &[&name]).await? == 1, "no row {name}");
        let committed = Instant::now();
        answered.push_ms(milliseconds(committed, held.next().await?));
    }
    let answered_p50 = answered.p50();
    report.samples("one changed row: commit -> answer received, whole", answered);
    let swap = bench.swaps().await.mean_ms_since(&swaps);
    report.value("one changed row: notification -> swap, mean ms", swap);

    report.at_most("start to first configuration", start_p50, 1_000.0, "ms");
    report.at_most("one changed row, notification to swap (mean)", swap, 20.0, "ms");
    report.at_most("one changed row, commit to answer received (p50)", answered_p50, 20.0, "ms");
    Ok(report)
}

fn insert() -> String {
    format!(
        "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
         SELECT 'h' || n || '.rows.test', 'default', '10.' || n / 250 || '.0.' || n % 250 + 1, 8000 + n % 1000
         FROM generate_series(1, {ROWS}) n"
    )
}

/// Asks until there is a configuration.
pub(crate) fn first_config(provider: SocketAddr, token: &str, deadline: Duration) -> anyhow::Result<(Answer, Instant)> {
    let begin = Instant::now();
    let request = request(provider, token, "");
    let mut last = String::from("no answer");
    while begin.elapsed() < deadline {
        match Connection::plain(provider).and_then(|mut connection| connection.ask(&request)) {
            Ok(answer) if answer.status == 200 => return Ok((answer, Instant::now())),
            Ok(answer) => last = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(error) => last = error.to_string(),
        }
        pause(Duration::from_millis(1));
    }
    bail!("no configuration {} s after the start; last: {last}", deadline.as_secs())
}
