//! Clocks one change: from COMMIT to the first right answer through Traefik over HTTPS.
//!
//! psql runs already when the clock starts, and the HTTPS connection is open and has answered, so neither the start of a
//! process nor a handshake is in the number. The clock starts when psql, told of the commit, has said so.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use charliehub_tests::open_tls;

const POLL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
const COMMITTED: &str = "committed";

/// Runs one statement, waits until `--host` answers `--expect`, prints `live in N ms`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Traefik's HTTPS entry point
    #[arg(long)]
    connect: SocketAddr,
    /// The host that the change brings to life
    #[arg(long)]
    host: String,
    /// First line of the right answer
    #[arg(long)]
    expect: String,
    /// The statement, without a semicolon
    #[arg(long)]
    sql: String,
    /// How to start psql
    #[arg(last = true, required = true)]
    psql: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut psql = Psql::start(&args.psql)?;
    psql.execute("SELECT 1").await?;
    let mut client = Client::open(args.connect, &args.host).await?;
    if client.answers(&args.expect).await? {
        bail!("{} answers before the change: nothing to clock", args.host);
    }
    psql.execute(&args.sql).await?;
    let committed = Instant::now();
    timeout(PATIENCE, client.until_answers(&args.expect))
        .await
        .with_context(|| format!("{} does not answer {:?} after {PATIENCE:?}", args.host, args.expect))??;
    let took = committed.elapsed();
    println!("live in {:.0} ms", took.as_secs_f64() * 1e3);
    psql.stop().await
}

/// A psql that stays open, fed one statement at a time.
struct Psql {
    process: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Psql {
    fn start(command: &[String]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("no psql command")?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdin = process.stdin.take().context("psql has no stdin")?;
        let stdout = BufReader::new(process.stdout.take().context("psql has no stdout")?).lines();
        Ok(Self { process, stdin, stdout })
    }

    /// Returns when the statement is committed.
    async fn execute(&mut self, sql: &str) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{sql};\n\\echo {COMMITTED}\n").as_bytes()).await?;
        loop {
            match self.stdout.next_line().await?.as_deref() {
                Some(COMMITTED) => return Ok(()),
                Some(_) => {}
                None => bail!("psql ended at: {sql}"),
            }
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        let status = self.process.wait().await?;
        anyhow::ensure!(status.success(), "psql ended with {status}");
        Ok(())
    }
}

/// One HTTPS connection, kept alive.
struct Client {
    requests: SendRequest<Empty<Bytes>>,
    host: String,
}

impl Client {
    async fn open(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let (requests, connection) = handshake(TokioIo::new(open_tls(address, host).await?)).await?;
        tokio_util::task::TaskTracker::new().spawn(connection);
        Ok(Self { requests, host: host.to_owned() })
    }

    async fn answers(&mut self, expected: &str) -> anyhow::Result<bool> {
        let request = Request::get("/").header(HOST, &self.host).body(Empty::new())?;
        self.requests.ready().await.context("Traefik closed the connection")?;
        let answer = self.requests.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(status == StatusCode::OK && body.split(|byte| *byte == b'\n').next() == Some(expected.as_bytes()))
    }

    async fn until_answers(&mut self, expected: &str) -> anyhow::Result<()> {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.answers(expected).await? {
            ticks.tick().await;
        }
        Ok(())
    }
}
