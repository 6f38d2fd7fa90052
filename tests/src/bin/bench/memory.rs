//! `memory`: what the provider keeps resident with 23 routes, after polls and changes; its database is another process.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::{
    keepalive::Connection,
    report::Report,
    routes::{self, SWITCH},
    setup::Setup,
    watch::{HeldPoll, request},
};

const POLLS: u32 = 1_000;
const CHANGES: i32 = 100;

pub(crate) async fn run() -> anyhow::Result<Report> {
    let bench = Setup::start(&routes::insert(9)).await?;
    let mut connection = Connection::plain(bench.address())?;
    let poll = request(bench.address(), bench.token(), "");
    for _ in 0..POLLS {
        ensure!(connection.ask(&poll)?.status == 200, "a poll was refused");
    }
    let mut report = Report::default();
    report.value("MiB after 1,000 polls", mebibytes(bench.pid(), "VmRSS")?);

    let database = bench.connect().await;
    let mut held = HeldPoll::start(bench.address(), bench.token())?;
    for port in 1..=CHANGES {
        database
            .execute("UPDATE charliehub.domains SET backend_port = $1 WHERE domain = $2", &[&(port + 9), &SWITCH])
            .await?;
        held.next().await?;
    }
    let resident = mebibytes(bench.pid(), "VmRSS")?;
    report.value("MiB after 100 changes too, of its own", mebibytes(bench.pid(), "RssAnon")?);
    report.value("MiB after 100 changes too, of files", mebibytes(bench.pid(), "RssFile")?);
    report.at_most("resident with 23 routes", resident, 20.0, "MiB");
    Ok(report)
}

pub(crate) fn mebibytes(pid: u32, what: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kibibytes: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such line")?.parse()?;
    Ok(kibibytes / 1_024.0)
}
