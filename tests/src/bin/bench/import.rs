//! 10,000 routers out of a file of Traefik's, beside the floor: the same rows by one COPY of psql. The ways take turns, each
//! into a table with one row, and fsync is on.

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::ensure;
use charliehub_tests::unguarded;

use crate::{
    report::{Report, Samples},
    setup::Setup,
};

const ROUTERS: u32 = 10_000;
const ROUNDS: u32 = 3;
const AWAY: &str = "DELETE FROM charliehub.domains WHERE domain <> 'first.test'";

pub(crate) async fn run(report: &mut Report) -> anyhow::Result<()> {
    // Nothing at all would not be served.
    let first = "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
                 VALUES ('first.test', 'default', '10.0.0.1', 80)";
    let bench = Setup::with(first, unguarded).await?;
    bench.with_fsync().await;
    let (file, rows) = (bench.home.join("many.yml"), bench.home.join("many.csv"));
    fs::write(&file, yaml()?)?;
    let columns = "(domain, tls_mode, backend_host, backend_port)";
    let file = file.display().to_string();
    let export = format!(
        "\\copy (SELECT domain, tls_mode, backend_host, backend_port FROM charliehub.domains WHERE domain <> 'first.test') TO '{}' CSV",
        rows.display()
    );
    let copy = format!("\\copy charliehub.domains {columns} FROM '{}' CSV", rows.display());
    let (mut imported, mut tried, mut copied) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        bench.command(&["import", &file, "--dry-run"]).await;
        tried.push(began.elapsed());
        let began = Instant::now();
        bench.command(&["import", &file]).await;
        imported.push(began.elapsed());
        let count = bench.postgres.value("SELECT count(*) - 1 FROM charliehub.domains").await;
        ensure!(count == ROUTERS.to_string(), "{count} rows were imported, not {ROUTERS}");
        bench.served().await;
        bench.postgres.tool("psql", &["-q", "-d", "charliehub", "-c", &export]).await;
        bench.postgres.sql(AWAY).await;
        let began = Instant::now();
        bench.postgres.tool("psql", &["-q", "-d", "charliehub", "-c", &copy]).await;
        copied.push(began.elapsed());
        bench.postgres.sql(AWAY).await;
    }
    let took = imported.p50();
    report.samples("import of 10,000 routers", imported);
    report.samples("the import as a dry run", tried);
    report.samples("the floor: the same rows by one COPY of psql", copied);
    report.at_most("import of 10,000 routers (p50)", took, 5_000.0, "ms");
    Ok(())
}

fn yaml() -> anyhow::Result<String> {
    let (mut routers, mut services) = (String::new(), String::new());
    for n in 0..ROUTERS {
        let (a, b) = (n / 250, n % 250);
        writeln!(
            routers,
            "    r{n}: {{rule: 'Host(`h{n}.bulk.test`)', entryPoints: [websecure], service: s{n}, tls: {{}}}}"
        )?;
        writeln!(services, "    s{n}: {{loadBalancer: {{servers: [{{url: 'http://10.0.{a}.{b}:80'}}]}}}}")?;
    }
    Ok(format!("http:\n  routers:\n{routers}  services:\n{services}"))
}
