//! `fanout`: one commit answers 10,000 held polls, beside a bare epoll broadcaster that hears the same notification.
//!
//! The same clients hold both, in turn: each polls again as soon as it was answered, as Traefiks do, and has a name of its
//! own. Measured is from COMMIT returned to the last byte of the last answer.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, ensure};
use charliehub_tests::{Crowd, Home, Process, raise_open_files, secs, until};
use tokio_postgres::Client;

use crate::{
    Options,
    keepalive::Connection,
    memory::mebibytes,
    plot::{Curve, Plot},
    report::{Report, Samples},
    routes::{self, SWITCH},
    setup::Setup,
    watch::request,
};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Each size is held twice by each, in turn, so that a busy moment of the machine hits both.
const PASSES: u32 = 2;
/// Files that are no client's.
const SPARE: u64 = 200;

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let files = raise_open_files();
    let most = u64::try_from(SIZES.into_iter().max().unwrap_or_default())?;
    ensure!(files >= most + SPARE, "{files} open files are allowed (ulimit -Hn), and {most} polls need more");
    let setup = Setup::start(&routes::insert(1)).await?;
    let database = setup.connect().await;
    let poll = request(setup.address(), setup.token(), "");
    let mut warm = Connection::plain(setup.address())?;
    let mut answer = warm.ask(&poll)?;
    for _ in 0..1_000 {
        answer = warm.ask(&poll)?;
    }
    let bytes = answer.whole();
    let broadcaster = Broadcaster::start(&setup, &bytes).await?;

    let mut report = Report::default();
    report.value("bytes of an answer, head and body", f64::from(u32::try_from(bytes.len())?));
    let [mut ours_by_size, mut bare_by_size] = [Vec::new(), Vec::new()];
    let rounds = options.rounds.div_ceil(10).max(3);
    let before = mebibytes(setup.pid(), "VmRSS")?;
    let (mut port, mut largest) = (1, (f64::NAN, f64::NAN, f64::NAN));
    for size in SIZES {
        eprintln!("   {size} held polls");
        let [mut ours, mut bare]: [Samples; 2] = Default::default();
        let mut each = f64::NAN;
        for pass in 0..PASSES {
            let mut crowd = gather(setup.address(), setup.token(), size);
            crowd.until(setup.postgres.revision().await, secs(60)).await;
            for _ in 0..rounds {
                port = port % 60_000 + 1;
                let next = setup.postgres.revision().await + 1;
                let committed = change(&database, port).await?;
                ours.push(crowd.until(next, secs(30)).await.saturating_duration_since(committed));
            }
            if pass == 0 {
                let polls = f64::from(u32::try_from(size)?);
                each = (mebibytes(setup.pid(), "VmRSS")? - before) * 1_024.0 / polls;
            }
            ensure!(crowd.lost() == 0, "{} connections to the provider ended", crowd.lost());
            drop(crowd);

            let mut crowd = gather(broadcaster.address, setup.token(), size);
            crowd.until(1, secs(60)).await;
            for _ in 0..rounds {
                let next = crowd.oldest() + 1;
                database.batch_execute("NOTIFY charliehub_revision").await?;
                let committed = Instant::now();
                bare.push(crowd.until(next, secs(30)).await.saturating_duration_since(committed));
            }
        }
        let at = f64::from(u32::try_from(size)?);
        ours_by_size.push((at, ours.p50()));
        bare_by_size.push((at, bare.p50()));
        largest = (ours.p50(), bare.p50(), each);
        report.samples(&format!("{size} polls: ours, commit -> last byte"), ours);
        report.samples(&format!("{size} polls: bare broadcaster, commit -> last byte"), bare);
    }
    let (ours, bare, each) = largest;
    report.at_most("10,000 held polls: commit to last byte, ours to a bare broadcaster", ours / bare, 2.0, "times");
    report.at_most("10,000 held polls: resident memory of each", each, 20.0, "KiB");
    let plot = Plot {
        title: "One commit answers every held poll".to_owned(),
        x: "held polls".to_owned(),
        y: "ms from commit to the last byte (p50)".to_owned(),
        curves: vec![
            Curve { name: "CharlieHub".to_owned(), points: ours_by_size },
            Curve { name: "bare broadcaster".to_owned(), points: bare_by_size },
        ],
    };
    eprintln!("   {} is drawn", plot.save("fanout")?.display());
    Ok(report)
}

fn gather(address: SocketAddr, token: &str, size: usize) -> Crowd {
    Crowd::gather(address, (0..size).map(|n| request(address, token, &format!("?wait=55s&instance=traefik-{n}"))))
}

/// Returns when COMMIT had.
async fn change(database: &Client, port: i32) -> anyhow::Result<Instant> {
    let update = "UPDATE charliehub.domains SET backend_port = $1 WHERE domain = $2";
    database.execute(update, &[&port, &SWITCH]).await?;
    Ok(Instant::now())
}

struct Broadcaster {
    address: SocketAddr,
    _process: Process,
}

impl Broadcaster {
    async fn start(setup: &Setup, answer: &[u8]) -> anyhow::Result<Self> {
        let home: &Home = &setup.home;
        let file = home.join("answer");
        std::fs::write(&file, answer)?;
        let address = SocketAddr::from(([127, 0, 0, 1], home.port()));
        let mut command = Command::new(program()?);
        command.arg(address.to_string()).arg(file).arg(setup.postgres.url());
        let process = Process::start(home, "broadcaster", command);
        until("the broadcaster listens", secs(10), async || tokio::net::TcpStream::connect(address).await.map(drop))
            .await;
        Ok(Self { address, _process: process })
    }
}

/// It is built beside this one.
fn program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a program is in a directory")?.join("broadcaster"))
}
