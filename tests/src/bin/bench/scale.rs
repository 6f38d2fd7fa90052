//! `scale`: 10 to 1,000,000 hosts. What a start, a change and memory cost us, and what the routes cost Traefik, whose peer is
//! the same Traefik with 23 routers of its file provider.

mod ours;
mod own;
mod resolver;
mod rows;
mod traefik;

use std::collections::BTreeMap;

use crate::{
    Options,
    edge::backend,
    nginx::Nginx,
    plot::{Curve, Plot},
    report::Report,
    routes::SWITCH,
    setup::Setup,
};

use self::{ours::Ours, traefik::Edge};

/// Hosts: the curve, and the yardstick on it.
const SIZES: [u32; 7] = [10, 23, 100, 1_000, 10_000, 100_000, 1_000_000];
const ANSWER: &str = "location / { return 200 first; }";

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut setup = Setup::start(&rows::switch()).await?;
    let nginx = Nginx::start(&setup.home, ANSWER).await?;
    let answers = [("first", backend(&setup.home, "first").await?), ("second", backend(&setup.home, "second").await?)];
    let update = format!("UPDATE charliehub.domains SET backend_port = {} WHERE domain = '{SWITCH}'", answers[0].1);
    setup.postgres.sql(&update).await;
    setup.postgres.sql(rows::NAMES).await;

    let mut measured: BTreeMap<u32, (Ours, Edge)> = BTreeMap::new();
    let mut have = 0;
    for rows in SIZES.into_iter().filter(|rows| *rows <= options.rows) {
        eprintln!("   {rows} rows");
        setup.stop();
        setup.postgres.sql(&rows::insert(have + 1, rows, nginx.port)).await;
        setup.postgres.sql("VACUUM ANALYZE").await;
        have = rows;
        let ours = ours::measure(&mut setup, rows, nginx.port, options, &mut report).await?;
        let edge = traefik::measure(&setup, rows, &nginx, answers, options).await?;
        measured.insert(rows, (ours, edge));
    }
    judge(&measured, &mut report);
    drop((setup, nginx));
    if options.rows >= resolver::ROWS {
        resolver::run(&mut report).await?;
    }
    if options.rows >= own::ROWS {
        own::run(options, &mut report).await?;
    }
    draw(&measured)?;
    Ok(report)
}

/// Holds what was measured against the goals.
fn judge(measured: &BTreeMap<u32, (Ours, Edge)>, report: &mut Report) {
    for (rows, (ours, edge)) in measured {
        report.value(&format!("{rows}: ms of a start"), ours.start);
        report.value(&format!("{rows}: ms of COPY to psql, the peer of a start"), ours.copy);
        report.value(&format!("{rows}: MiB resident after 20 changes"), ours.resident);
        report.value(&format!("{rows}: MiB of the configuration, gzipped"), ours.body);
        report.value(&format!("{rows}: us a row to compile and encode all"), ours.per_row);
        report.value(&format!("{rows}: ms from commit to live"), edge.live);
        report.value(&format!("{rows}: requests/s"), edge.per_second);
        report.value(&format!("{rows}: requests/s with 23 routers of a file"), edge.peer);
    }
    for (rows, start, change, memory) in [
        (23, None, 2.0, None),
        (100_000, Some(1_500.0), 5.0, Some(150.0)),
        (1_000_000, Some(12_000.0), 10.0, Some(1_228.8)),
    ] {
        let Some((ours, edge)) = measured.get(&rows) else { continue };
        if let Some(goal) = start {
            report.at_most(&format!("{rows} rows, start to first configuration"), ours.start, goal, "ms");
        }
        report.at_most(&format!("{rows} rows, one changed: commit to answer (p50)"), ours.answer, change, "ms");
        if let Some(goal) = memory {
            report.at_most(&format!("{rows} rows, resident"), ours.resident, goal, "MiB");
            let reload = if rows == 100_000 { 1_000.0 } else { 6_000.0 };
            report.at_most(&format!("{rows} hosts, Traefik's reload (commit to live)"), edge.live, reload, "ms");
            let ratio = edge.per_second / edge.peer;
            report.at_least(&format!("{rows} hosts, requests/s to those with 23 routers"), ratio, 0.9, "times");
        }
        if rows == 100_000 {
            report.at_most("100,000 rows, all compiled and encoded, each", ours.per_row, 3.0, "us");
        }
    }
}

fn draw(measured: &BTreeMap<u32, (Ours, Edge)>) -> anyhow::Result<()> {
    let curve = |name: &str, of: &dyn Fn(&Ours, &Edge) -> f64| Curve {
        name: name.to_owned(),
        points: measured.iter().map(|(rows, (ours, edge))| (f64::from(*rows), of(ours, edge))).collect(),
    };
    let plots = [
        (
            "scale-start",
            "Start of the process to the first configuration served",
            "milliseconds",
            vec![curve("ours", &|ours, _| ours.start), curve("COPY to psql", &|ours, _| ours.copy)],
        ),
        (
            "scale-change",
            "One changed row",
            "milliseconds after COMMIT (p50)",
            vec![
                curve("answer begins", &|ours, _| ours.answer),
                curve("answer received", &|ours, _| ours.whole),
                curve("live in Traefik", &|_, edge| edge.live),
            ],
        ),
        ("scale-memory", "Resident memory", "MiB", vec![curve("ours", &|ours, _| ours.resident)]),
        (
            "scale-requests",
            "Requests per second through Traefik",
            "requests/s",
            vec![curve("ours", &|_, edge| edge.per_second), curve("23 routers, a file", &|_, edge| edge.peer)],
        ),
    ];
    for (name, title, y, curves) in plots {
        Plot { title: title.to_owned(), x: "rows".to_owned(), y: y.to_owned(), curves }.save(name)?;
    }
    Ok(())
}
