//! `rehearse`: a throw-away real Traefik loads a configuration, and a person reads what it says.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use tokio_postgres::Client;

use super::{Rehearse, database, export, output};
use crate::{
    app::settings,
    config::Config,
    rehearse::{
        Rehearsal, Report, Verdict,
        report::{Line, Part},
    },
    store::read,
};

pub(super) async fn run(config: &Config, wanted: &Rehearse) -> anyhow::Result<ExitCode> {
    let rehearsal = Rehearsal::configured(&config.rehearse, Arc::new(settings(config, config.serve.listen)));
    let candidate = match (&wanted.file, wanted.revision) {
        (Some(path), _) => file(path)?,
        (None, revision) => of_rows(config, &rehearsal, revision).await?,
    };
    let report = rehearsal.run(&candidate).await.map_err(|error| {
        let remedy = error.remedy();
        anyhow::anyhow!("{:#}; {remedy}", anyhow::Error::from(error))
    })?;
    let text = if wanted.json { serde_json::to_string_pretty(&report)? + "\n" } else { for_people(&report) };
    output::print(&text)?;
    Ok(if report.verdict == Verdict::Fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}; name a file with Traefik's JSON", path.display()))
}

/// What a revision was compiled to, or what the newest rows compile to.
async fn of_rows(config: &Config, rehearsal: &Rehearsal, revision: Option<i64>) -> anyhow::Result<Vec<u8>> {
    let work = async |client: &mut Client| match revision {
        Some(_) => export::bytes(client, config, revision).await,
        None => Ok(rehearsal.candidate(read::newest(client).await.map_err(database::explain)?).into()),
    };
    database::with(config, async |opened| opened.run(work).await).await
}

/// What is wrong as a table, then the verdict.
fn for_people(report: &Report) -> String {
    let kinds = [("router", &report.routers), ("service", &report.services), ("middleware", &report.middlewares)];
    let objects = kinds.into_iter().flat_map(|(kind, objects)| objects.iter().flat_map(move |object| of(kind, object)));
    let rows: Vec<Vec<String>> = objects.chain(report.log.iter().map(line)).collect();
    let text =
        if rows.is_empty() { String::new() } else { output::table(&["WHAT", "NAME", "STATUS", "TRAEFIK SAYS"], &rows) };
    let said = match (report.verdict, &report.body_error) {
        (Verdict::Fine, _) => format!("all of it would run; it has {}", routers(report.loaded)),
        (Verdict::Refused, error) => format!("nothing of it would run: {}", error.as_deref().unwrap_or_default()),
        (Verdict::Errors, _) => format!("it has {}, and not all would run as written", routers(report.loaded)),
    };
    let Report { verdict, version, took_ms, .. } = report;
    let said = one_line(&said);
    text + &format!("{}: {said} (Traefik {version}, {took_ms} ms)\n", verdict.as_str())
}

fn routers(number: usize) -> String {
    format!("{number} router{}", if number == 1 { "" } else { "s" })
}

fn of(kind: &str, object: &Part) -> Vec<Vec<String>> {
    let what = format!("{} {kind}", object.protocol);
    let row = |error: &str| vec![what.clone(), object.name.clone(), object.status.clone(), one_line(error)];
    if object.errors.is_empty() { vec![row("")] } else { object.errors.iter().map(|error| row(error)).collect() }
}

fn line(line: &Line) -> Vec<String> {
    vec!["log".to_owned(), line.object.clone().unwrap_or_default(), line.level.clone(), one_line(&line.message)]
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_a_verdict() {
        let router = Part {
            protocol: "http",
            name: "a.test".to_owned(),
            status: "disabled".to_owned(),
            errors: vec!["it is\nbad".to_owned()],
        };
        let log = Line { level: "error".to_owned(), message: "no PEM".to_owned(), object: None };
        let mut report = Report {
            verdict: Verdict::Errors,
            version: "3.7.15".to_owned(),
            took_ms: 7,
            loaded: 2,
            body_error: None,
            routers: vec![router],
            services: Vec::new(),
            middlewares: Vec::new(),
            log: vec![log],
        };
        let text = for_people(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "http router  a.test  disabled  it is bad");
        assert_eq!(lines[2], "log                  error     no PEM");
        assert_eq!(lines[3], "errors: it has 2 routers, and not all would run as written (Traefik 3.7.15, 7 ms)");
        (report.routers, report.log, report.verdict) = (Vec::new(), Vec::new(), Verdict::Fine);
        assert_eq!(for_people(&report), "fine: all of it would run; it has 2 routers (Traefik 3.7.15, 7 ms)\n");
    }
}
