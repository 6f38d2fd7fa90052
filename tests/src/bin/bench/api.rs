//! `api`: writes by HTTP beside the floor, which is the same INSERT by pgbench alone, in the same run, with fsync on; what
//! looks at all rows, at 10,000 and at 100,000; and an import.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use charliehub_tests::{Provider, Traefik};

use crate::{
    Options, import,
    keepalive::Connection,
    report::{Report, Samples},
    setup::Setup,
};

const ROWS: i32 = 10_000;
const MANY: i32 = 100_000;
/// Lists are measured this often.
const LISTS: u32 = 100;
/// Writes each way and round; the ways take turns.
const TURN: u32 = 20;
/// So often is asked what looks at all rows; so often does a real Traefik load them.
const VIEWS: u32 = 10;
const REHEARSALS: u32 = 3;

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let traefik = format!("\"{}\"", Traefik::program().display());
    let rehearsing =
        |provider: Provider| provider.set("rehearse", "traefik", &traefik).set("rehearse", "timeout", "\"100s\"");
    let bench = Setup::with(&insert(1, ROWS), rehearsing).await?;
    bench.with_fsync().await;
    let ask = Ask { bench: &bench };

    let (mut floor, mut dry) = (Samples::default(), Samples::default());
    let (mut served, mut committed) = (Samples::default(), Samples::default());
    let mut n = 0;
    for _ in 0..options.rounds.div_ceil(TURN).max(5) {
        bench.pgbench(TURN, &mut floor).await?;
        for (query, samples) in [("", &mut served), ("?wait=commit", &mut committed), ("?dry_run=true", &mut dry)] {
            for _ in 0..TURN {
                n += 1;
                let status = if query == "?dry_run=true" { 200 } else { 201 };
                samples.push(ask.once("POST", &format!("/api/domains{query}"), &row(&format!("w{n}")), status)?);
            }
        }
    }
    bench.served().await;
    ask.views(&mut report, "10,000", Some(100.0))?;
    let mut rehearsed = Samples::default();
    for _ in 0..REHEARSALS {
        rehearsed.push(ask.once("POST", "/api/rehearse", "", 200)?);
    }
    bench.postgres.sql(&insert(ROWS + 1, MANY)).await;
    bench.postgres.sql("VACUUM ANALYZE domains").await;
    bench.served().await;
    let (mut first, mut middle) = (Samples::default(), Samples::default());
    for _ in 0..LISTS {
        first.push(ask.once("GET", "/api/domains?limit=100", "", 200)?);
        middle.push(ask.once("GET", "/api/domains?limit=100&sort=-domain&environment=production", "", 200)?);
    }
    let mut tried = Samples::default();
    for n in 0..LISTS {
        tried.push(ask.once("POST", "/api/domains?dry_run=true", &row(&format!("d{n}")), 200)?);
    }
    ask.views(&mut report, "100,000", None)?;

    let (floor_p50, write_p50, write_p99) = (floor.p50(), served.p50(), served.p99());
    let (committed_p50, dry_p50) = (committed.p50(), dry.p50());
    let list_p50 = first.p50().max(middle.p50());
    report.samples("the floor: the same INSERT by pgbench", floor);
    report.samples("POST at 10,000 rows, answered when served", served);
    report.samples("the same with wait=commit", committed);
    report.samples("the same as a dry run", dry);
    report.samples("a rehearsal of 10,000 rows by a real Traefik", rehearsed);
    report.samples("list of 100 at 100,000 rows", first);
    report.samples("the same sorted the other way, and filtered", middle);
    report.samples("a dry run at 100,000 rows", tried);
    report.at_most("a write at 10,000 rows (p50)", write_p50, 5.0, "ms");
    report.at_most("a write at 10,000 rows (p99)", write_p99, 25.0, "ms");
    report.at_most("the same with wait=commit (p50)", committed_p50, 5.0, "ms");
    report.at_most("the same beside the floor (p50)", committed_p50 / floor_p50, 2.0, "times");
    report.at_most("a dry run beside that (p50)", dry_p50 / committed_p50, 2.0, "times");
    report.at_most("a list of 100 at 100,000 rows (p50)", list_p50, 5.0, "ms");
    drop(bench);
    import::run(&mut report).await?;
    Ok(report)
}

fn row(name: &str) -> String {
    format!(r#"{{"domain":"{name}.api.test","tls_mode":"default","backend_host":"10.9.0.1","backend_port":8000}}"#)
}

fn insert(from: i32, to: i32) -> String {
    format!(
        "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
         SELECT 'h' || n || '.rows.test', 'default', '10.' || n / 1000 || '.0.' || n % 250 + 1, 8000 + n % 1000
         FROM generate_series({from}, {to}) n"
    )
}

/// Asks the provider on one connection that is kept.
struct Ask<'a> {
    bench: &'a Setup,
}

impl Ask<'_> {
    /// What looks at every row. The first of each is told apart: it may have to compile them all.
    fn views(&self, report: &mut Report, rows: &str, goal: Option<f64>) -> anyhow::Result<()> {
        let asked = "/api/match?url=https://h5000.rows.test/&client_ip=127.0.0.1";
        for (what, path) in [("surface", "/api/surface"), ("routes", "/api/routes"), ("match", asked)] {
            report.value(
                &format!("{what} at {rows} rows, the first time, ms"),
                self.once("GET", path, "", 200)?.as_secs_f64() * 1e3,
            );
            let mut samples = Samples::default();
            for _ in 0..VIEWS {
                samples.push(self.once("GET", path, "", 200)?);
            }
            if let Some(goal) = goal {
                report.at_most(&format!("{what} at {rows} rows (p50)"), samples.p50(), goal, "ms");
            }
            report.samples(&format!("{what} at {rows} rows"), samples);
        }
        Ok(())
    }

    fn once(&self, method: &str, path: &str, body: &str, status: u16) -> anyhow::Result<Duration> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.bench.address(),
            self.bench.admin_token(),
            body.len()
        );
        tokio::task::block_in_place(|| {
            let mut connection = Connection::plain(self.bench.address())?;
            let began = Instant::now();
            let answer = connection.ask(request.as_bytes())?;
            let took = began.elapsed();
            ensure!(answer.status == status, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
            Ok(took)
        })
    }
}

impl Setup {
    /// So many single inserts by pgbench, each with the time that it took.
    async fn pgbench(&self, count: u32, samples: &mut Samples) -> anyhow::Result<()> {
        let (script, log) = (self.home.join("insert.sql"), self.home.join("pgbench"));
        let sql = "\\set n random(1, 1000000000000)\nINSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
                   VALUES ('p' || :n || '.api.test', 'default', '10.9.0.1', 8000);\n";
        fs::write(&script, sql.replace("\n                   ", " "))?;
        let (script, prefix, count) = (script.display().to_string(), log.display().to_string(), count.to_string());
        self.postgres
            .tool(
                "pgbench",
                &["-n", "-c", "1", "-t", &count, "-l", "--log-prefix", &prefix, "-f", &script, "charliehub"],
            )
            .await;
        for entry in fs::read_dir(self.home.path())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgbench.")) {
                for line in fs::read_to_string(&path)?.lines() {
                    let took: u64 = line.split(' ').nth(2).context("no time in the log of pgbench")?.parse()?;
                    samples.push(Duration::from_micros(took));
                }
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
