//! The benchmarks, each against its peer in the same run: `tests/bench.sh` builds all they need and starts them.
//!
//! A bench prints a table and holds its numbers against the goals; a missed goal is said, not hidden, and not an error.

#![allow(clippy::print_stdout, reason = "the table is the product")]

mod ack;
mod agent;
mod api;
mod edge;
mod fanout;
mod import;
mod keepalive;
mod live;
mod memory;
mod nginx;
mod plot;
mod processor;
mod report;
mod routes;
mod rows;
mod scale;
mod serve;
mod setup;
mod watch;
mod way;
mod wrk;

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use crate::report::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// Commit to live in a real Traefik, beside its file provider and plain polling
    Live,
    /// GET /traefik, beside nginx serving the same bytes
    Serve,
    /// Resident memory with 23 routes
    Memory,
    /// 10,000 rows: start, and one changed row
    Rows,
    /// Writes, lists and imports, beside the same INSERT by pgbench and the same COPY by psql
    Api,
    /// What knowing that it is live costs, and how long /debug takes
    Ack,
    /// Up to 1,000,000 hosts: what they cost us, and Traefik beside the same Traefik with 23 routers
    Scale,
    /// One commit answers 10,000 held polls, beside a bare epoll broadcaster
    Fanout,
    /// What the agent costs, with 50 tunnels and at rest, beside a script of the usual programs
    Edge,
}

/// Runs the benches named, or all of them.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Writes every sample, value and goal to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Changes measured each way
    #[arg(long, default_value_t = 60)]
    rounds: u32,
    /// Of `scale`: no more rows than these
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let names = if options.names.is_empty() { Name::value_variants() } else { &options.names };
    let mut reports = BTreeMap::new();
    println!("{}", machine()?);
    for name in names {
        let word = format!("{name:?}").to_lowercase();
        eprintln!("-- {word}");
        let report = run(*name, &options).await.with_context(|| format!("bench {word}"))?;
        println!("{}", report.table(&word));
        reports.insert(word, report);
        if let Some(path) = &options.json {
            fs::write(path, serde_json::to_vec_pretty(&reports)?)?;
        }
    }
    let misses: usize = reports.values().map(Report::misses).sum();
    println!("{}", if misses == 0 { "every goal is met".to_owned() } else { format!("goals missed: {misses}") });
    Ok(())
}

/// How much of it others use now: numbers of a busy machine are worth less.
fn machine() -> anyhow::Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!("{cores} cores, load {} before the start", load.split(' ').next().unwrap_or_default()))
}

async fn run(name: Name, options: &Options) -> anyhow::Result<Report> {
    match name {
        Name::Live => live::run(options).await,
        Name::Serve => serve::run(options).await,
        Name::Memory => memory::run().await,
        Name::Rows => rows::run(options).await,
        Name::Api => api::run(options).await,
        Name::Ack => ack::run().await,
        Name::Scale => Box::pin(scale::run(options)).await,
        Name::Fanout => fanout::run(options).await,
        Name::Edge => Box::pin(agent::run()).await,
    }
}
