//! What rows cost us: a start, one changed row, memory. The peer of a start is psql, which reads the same table by COPY.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;

use crate::{
    Options,
    memory::mebibytes,
    report::{Report, Samples, milliseconds},
    rows::first_config,
    setup::Setup,
    watch::{HeldPoll, Listening},
};

const DEADLINE: Duration = Duration::from_mins(5);
/// The memory is looked at after so many.
const CHANGES: u32 = 20;

pub(super) struct Ours {
    /// Milliseconds, the median.
    pub(super) start: f64,
    /// Milliseconds of psql for the same rows.
    pub(super) copy: f64,
    /// Microseconds a row, to compile and encode all.
    pub(super) per_row: f64,
    /// Milliseconds from commit until the answer begins, and until all of it was received: the medians.
    pub(super) answer: f64,
    pub(super) whole: f64,
    pub(super) resident: f64,
    /// MiB of the configuration, gzipped.
    pub(super) body: f64,
}

/// Starts the provider, which does not run, and changes rows; they are left as they were.
pub(super) async fn measure(
    setup: &mut Setup,
    rows: u32,
    port: u16,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<Ours> {
    let [mut starts, mut notified, mut began, mut whole]: [Samples; 4] = Default::default();
    let mut body = 0.0;
    for _ in 0..if rows > 100_000 { 1 } else { 3 } {
        setup.stop();
        // Else it serves at once what history has, and is not seen to read.
        setup.postgres.sql("DELETE FROM snapshots").await;
        let at = setup.restart_with_nothing_on_disk().await?;
        let (address, token) = (setup.address(), setup.token().to_owned());
        let (answer, served) = tokio::task::block_in_place(|| first_config(address, &token, DEADLINE))?;
        starts.push(served - at);
        body = answer.header("content-length").unwrap_or_default().parse::<f64>()? / 1_048_576.0;
    }
    let compiled = setup.metric("compile_seconds_sum").await / setup.metric("compile_seconds_count").await;
    let database = setup.connect().await;
    let mut listening = Listening::start(&setup.postgres).await?;
    let mut held = HeldPoll::start(setup.address(), setup.token())?;
    let mut resident = 0.0;
    for round in 0..options.rounds.max(50) {
        // Longer than what is kept of the change before, behind it.
        sleep(Duration::from_millis(if rows > 100_000 { 400 } else { 150 })).await;
        let n = i64::from(round) * 997 % i64::from(rows) + 1;
        let update = "UPDATE charliehub.domains SET backend_port = backend_port % 60000 + 1
                       WHERE domain = public.bench_name($1)";
        ensure!(database.execute(update, &[&n]).await? == 1, "no row {n}");
        let committed = Instant::now();
        let seen = held.next_seen().await?;
        notified.push_ms(milliseconds(committed, listening.next().await?));
        began.push_ms(milliseconds(committed, seen.began));
        whole.push_ms(milliseconds(committed, seen.whole));
        if round + 1 == CHANGES {
            resident = mebibytes(setup.pid(), "VmRSS")?;
        }
    }
    let back = format!(
        "UPDATE charliehub.domains SET backend_port = {port}
         WHERE backend_port <> {port} AND domain NOT LIKE '%.bench.test'"
    );
    setup.postgres.sql(&back).await;
    setup.served().await;
    let copy = Instant::now();
    setup.postgres.tool("psql", &["-d", "charliehub", "-qc", r"\copy charliehub.domains TO /dev/null"]).await;
    let ours = Ours {
        start: starts.p50(),
        copy: copy.elapsed().as_secs_f64() * 1e3,
        per_row: compiled * 1e6 / f64::from(rows),
        answer: began.p50(),
        whole: whole.p50(),
        resident,
        body,
    };
    report.samples(&format!("{rows}: start to first configuration"), starts);
    report.samples(&format!("{rows}: commit -> notification, the peer"), notified);
    report.samples(&format!("{rows}: commit -> answer begins"), began);
    report.samples(&format!("{rows}: commit -> answer received"), whole);
    Ok(ours)
}
