//! A person decides about a change that the guard did not let through: it goes live, or what runs goes on.
//!
//! Between the snapshots that wait and the rows. To approve is one word in `snapshots`; the running providers hear of it by
//! a notification on channel `charliehub_decision`. To discard makes a new revision with the rows that run, never more
//! open than the newest say, so that nothing waits any more. Either is a line of the audit, in the same transaction.

use std::{collections::BTreeSet, io, sync::Arc};

use serde_json::{Value, json};
use tokio_postgres::{Client, GenericClient, Transaction};

use crate::{
    author::Author,
    compile::rows_of,
    config::Selector,
    postgres,
    publish::{Division, restricted},
    restore,
    row::{Rows, Table},
    snapshot::disk::gunzip,
    store::read,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Discard,
}

impl Decision {
    /// The state of a snapshot that was decided so.
    pub fn state(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Discard => "discarded",
        }
    }
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("revision {revision} does not wait for a decision; {}", these(waiting))]
    NotWaiting {
        revision: i64,
        waiting: Vec<i64>,
        /// Somebody decided about it before, or it was never withheld; else there is no such revision.
        known: bool,
    },
    #[error("revision {newest} came after {revision} and waits with it; discard {newest} to go back to what runs")]
    NotNewest { revision: i64, newest: i64 },
    #[error("nothing was served yet, so there is nothing to go back to")]
    NothingRuns,
    #[error("the kept snapshot of what runs is damaged: {0}")]
    Damaged(#[from] io::Error),
    #[error(transparent)]
    Restore(restore::Error),
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<restore::Error> for Error {
    fn from(error: restore::Error) -> Self {
        match error {
            restore::Error::Database(error) => error.into(),
            refused @ restore::Error::Refused(_) => Self::Restore(refused),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

fn these(waiting: &[i64]) -> String {
    if waiting.is_empty() {
        return "nothing does".to_owned();
    }
    format!("these do: {}", waiting.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
}

/// Decides about the withheld snapshot of `revision`.
pub async fn decide(client: &mut Client, revision: i64, decision: Decision, author: &Author) -> Result<(), Error> {
    const DECIDE: &str = "UPDATE charliehub.snapshots SET state = $2, decided_by = $3, decided_at = now()
        WHERE revision = $1 AND state = 'withheld'";
    let transaction = client.transaction().await?;
    if decision == Decision::Discard {
        discard(&transaction, revision, author).await?;
    }
    let changed = transaction.execute(DECIDE, &[&revision, &decision.state(), &author.actor]).await?;
    if changed == 0 {
        return Err(not_waiting(&transaction, revision).await?);
    }
    let kind = format!("snapshot.{}", decision.state());
    author.note(&transaction, &kind, &json!({ "revision": revision, "reason": author.reason })).await?;
    transaction.commit().await?;
    Ok(())
}

async fn not_waiting(client: &impl GenericClient, revision: i64) -> Result<Error, tokio_postgres::Error> {
    const WAITING: &str =
        "SELECT DISTINCT revision FROM charliehub.snapshots WHERE state = 'withheld' ORDER BY revision";
    const KNOWN: &str = "SELECT FROM charliehub.snapshots WHERE revision = $1
        UNION ALL SELECT FROM charliehub.revisions WHERE revision = $1 LIMIT 1";
    let waiting = client.query(WAITING, &[]).await?;
    let waiting = waiting.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let known = client.query_opt(KNOWN, &[&revision]).await?.is_some();
    Ok(Error::NotWaiting { revision, waiting, known })
}

/// Makes a new revision with the rows that run, so that nothing waits any more.
async fn discard(transaction: &Transaction<'_>, revision: i64, author: &Author) -> Result<(), Error> {
    const WAITS: &str = "SELECT DISTINCT part FROM charliehub.snapshots WHERE revision = $1 AND state = 'withheld'";
    const RUNS: &str = "SELECT s.revision, charliehub.snapshot_body(b) FROM charliehub.snapshots s
        JOIN charliehub.snapshot_bodies b USING (digest)
        WHERE s.state IN ('served', 'approved') AND s.part IS NOT DISTINCT FROM $1 ORDER BY s.id DESC LIMIT 1";
    let newest: i64 = transaction.query_one("SELECT charliehub.lock_revision()", &[]).await?.try_get(0)?;
    let waits = transaction.query(WAITS, &[&revision]).await?;
    let mut waits = waits.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Option<Value>>, _>>()?;
    if waits.contains(&None) {
        // Whatever waits in a part is in this too.
        waits = vec![None];
    }
    if waits.is_empty() {
        return Ok(());
    }
    if newest != revision {
        return Err(Error::NotNewest { revision, newest });
    }
    let now = read::all(transaction).await?;
    let mut target = now.clone();
    for part in waits {
        let running = transaction.query_opt(RUNS, &[&part]).await?.ok_or(Error::NothingRuns)?;
        let base: i64 = running.try_get(0)?;
        let body: Value = serde_json::from_slice(&gunzip(running.try_get(1)?)?).map_err(io::Error::from)?;
        let rows = read::by_key(read::as_of(transaction, base).await?);
        let part = part.map(serde_json::from_value::<Selector>).transpose().map_err(io::Error::from)?;
        match part {
            None => target = restore::rows_that_run(&rows, &now, &routers(&body)),
            Some(part) => restore_part(&part, &mut target, &rows, &now, &routers(&body)),
        }
    }
    let reason = format!("revision {revision} was discarded: back to the rows that run");
    let reason = if author.reason.is_empty() { reason } else { format!("{reason}; {}", author.reason) };
    Author { source: "discard", reason, ..author.clone() }.sign(transaction).await?;
    restore::write(transaction, &now, &target).await?;
    Ok(())
}

/// Makes the rows of a part in `target` what runs there; `base` is what all rows were then.
fn restore_part(part: &Selector, target: &mut Rows, base: &Rows, now: &Rows, running: &BTreeSet<String>) {
    let domains = |rows: &Rows| -> Rows {
        let selected = Division::select(part, rows).into_iter();
        selected.filter(|(key, _)| key.table == Table::Domains).collect()
    };
    let (was, is) = (domains(base), domains(now));
    // What came into the part since goes back to where it was, if it was anywhere.
    let came = || is.keys().filter(|key| !was.contains_key(key));
    let elsewhere: Rows = came().filter_map(|key| Some((*key, Arc::clone(base.get(key)?)))).collect();
    let mut back = restricted(&elsewhere, now);
    restore::make_writable(&mut back, now);
    for key in came() {
        target.remove(key);
    }
    target.extend(back);
    target.extend(restore::rows_that_run(&was, now, running));
}

/// The names of all routers in a config; for one that several rows share, what theirs would be called.
fn routers(config: &Value) -> BTreeSet<String> {
    let maps = ["http", "tcp", "udp"].into_iter().filter_map(|kind| config.get(kind)?.get("routers")?.as_object());
    let of_rows = |(name, router): (&String, &Value)| -> Vec<String> {
        let rule = router.get("rule").and_then(Value::as_str).unwrap_or_default();
        rows_of(name, rule).unwrap_or_else(|| vec![name.clone()])
    };
    maps.flat_map(|map| map.iter().flat_map(of_rows)).collect()
}
