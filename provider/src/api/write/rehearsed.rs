//! A write is tried on a throw-away real Traefik before it counts.
//!
//! What Traefik says of others than the changed objects keeps nobody from a change: it is told as a warning.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::change::Change;
use http::StatusCode;

use super::{Touched, Written};
use crate::{
    api::{Api, Problem},
    rehearse::Report,
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
        Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    });
    let changed: BTreeSet<&str> = change.diff.iter().map(|one| one.name.as_str()).chain(fragments).collect();
    match report.against(|name| changed.contains(name)) {
        Some(complaint) => Err(refused(&complaint.to_string())),
        None => Ok(report),
    }
}

fn refused(words: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rehearsal", "Traefik would not run it", words).remedy(
        "mend what Traefik says; or, if the real one knows more than the one of the rehearsal, send rehearse=false",
    )
}

/// The answer, with what Traefik said.
pub(super) fn with_report(mut written: Written, report: Report) -> Written {
    written.change.warnings.extend(report.warnings());
    written.change.rehearsal = serde_json::to_value(report).ok();
    written
}
