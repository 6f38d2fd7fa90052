//! A write is tried on a throw-away real Traefik before it counts.
//!
//! What Traefik says of others than the changed objects keeps nobody from a change: it is told as a warning.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::change::Change;
use http::StatusCode;

use super::{Touched, Written};
use crate::{
    api::{Api, Problem},
    rehearse::{Report, Verdict},
    row::Row,
    store::read,
};

/// What Traefik says of all rows with the touched ones as they would be; refused when it would not run these.
pub(super) async fn rehearse(api: &Api, change: &Change, touched: &Touched) -> Result<Report, Problem> {
    let mut client = api.pool.get().await?;
    let mut rows = read::newest(&mut client).await?;
    drop(client); // others can have it meanwhile
    rows.retain(|key, _| !touched.before.contains_key(key));
    rows.extend(touched.after.iter().map(|(key, row)| (*key, Arc::clone(row))));
    let report = api.rehearsal.run(&api.rehearsal.candidate(rows)).await?;
    let fragments = touched.after.values().filter_map(|row| match &**row {
        Row::Fragment(fragment) => Some(fragment.name.as_str()),
        Row::Domain(_) | Row::Bad(_) => None,
    });
    let changed = change.diff.iter().map(|one| one.name.as_str()).chain(fragments).collect();
    match against(&report, &changed) {
        Some(words) => Err(refused(&words)),
        None => Ok(report),
    }
}

/// Traefik's words against all of it, or against what is changed.
fn against(report: &Report, changed: &BTreeSet<&str>) -> Option<String> {
    if report.verdict == Verdict::Refused {
        return Some(report.body_error.clone().unwrap_or_default());
    }
    complaints(report)
        .into_iter()
        .find(|(name, _)| changed.contains(name.as_str()))
        .map(|(name, words)| format!("{name}: {words}"))
}

/// Of whom Traefik complains, and how.
fn complaints(report: &Report) -> Vec<(String, String)> {
    let objects = report.routers.iter().chain(&report.services).chain(&report.middlewares);
    let objects = objects.map(|object| (object.name.clone(), object.errors.join("; ")));
    let lines = report.log.iter().filter(|line| line.level != "warn");
    let lines = lines.map(|line| (line.object.clone().unwrap_or_default(), line.message.clone()));
    objects.chain(lines).collect()
}

fn refused(words: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rehearsal", "Traefik would not run it", words).remedy(
        "mend what Traefik says; or, if the real one knows more than the one of the rehearsal, send rehearse=false",
    )
}

/// The answer, with what Traefik said.
pub(super) fn with_report(mut written: Written, report: Report) -> Written {
    let others = complaints(&report).into_iter().map(|(name, words)| format!("rehearsal: {name}: {words}"));
    written.change.warnings.extend(others);
    written.change.rehearsal = serde_json::to_value(report).ok();
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rehearse::report::{Line, Part};

    #[test]
    fn only_what_is_said_of_the_change_is_against_it() {
        let object = |name: &str| Part {
            protocol: "http",
            name: name.to_owned(),
            status: "disabled".to_owned(),
            errors: vec!["it is wrong".to_owned()],
        };
        let line = |object: Option<&str>| Line {
            level: "error".to_owned(),
            message: "no such resolver".to_owned(),
            object: object.map(str::to_owned),
        };
        let report = |routers: Vec<Part>, log: Vec<Line>| Report {
            verdict: Verdict::Errors,
            version: "3.7.15".to_owned(),
            took_ms: 1,
            loaded: 1,
            body_error: None,
            routers,
            services: vec![],
            middlewares: vec![],
            log,
        };
        let changed = BTreeSet::from(["a.test"]);
        for (report, words) in [
            (report(vec![object("a.test")], vec![]), Some("a.test: it is wrong")),
            (report(vec![object("b.test")], vec![line(Some("b.test")), line(None)]), None),
            (report(vec![], vec![line(Some("a.test"))]), Some("a.test: no such resolver")),
        ] {
            assert_eq!(against(&report, &changed).as_deref(), words, "{}", json!(report));
        }
    }
}
