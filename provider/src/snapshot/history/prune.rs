//! Forgets the past that nobody keeps: configs first, then the history of rows that no kept config needs.
//!
//! What stays is decided in the database (migration 0006). Each call is one transaction and one step, since forgetting
//! rows keeps writers out while it runs; what was forgotten is a line of the audit, in that transaction. Of several
//! providers one does it.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::author::Author;

/// How long the history is kept: the newest `keep` configs or those of `age`, whichever is more, and of these at most
/// `max_bytes` of bodies.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub keep: i32,
    pub age: Duration,
    pub max_bytes: i64,
}

/// So many rows of history are looked at in one step.
const STEP: i64 = 10_000;

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtext('charliehub prune'))";
const SNAPSHOTS: &str = "SELECT snapshots, bytes FROM charliehub.prune_snapshots($1, make_interval(secs => $2), $3)";
const FLOOR: &str = "SELECT r.floor, charliehub.history_floor(make_interval(secs => $1)),
    (SELECT max(s.revision) FROM (SELECT h.revision FROM charliehub.history h WHERE h.revision > r.floor
      ORDER BY h.revision, h.seq LIMIT $2) s)
    FROM charliehub.revision r";
const ROWS: &str = "SELECT charliehub.prune_history($1)";

/// Forgets a step's worth; true when there is more.
pub async fn prune(client: &mut Client, retention: Retention) -> Result<bool, tokio_postgres::Error> {
    prune_step(client, retention, STEP).await
}

async fn prune_step(client: &mut Client, retention: Retention, step: i64) -> Result<bool, tokio_postgres::Error> {
    let age = retention.age.as_secs_f64();
    let transaction = client.transaction().await?;
    let ours: bool = transaction.query_one(LOCK, &[]).await?.try_get(0)?;
    if !ours {
        return Ok(false);
    }
    let found = transaction.query_one(SNAPSHOTS, &[&retention.keep, &age, &retention.max_bytes]).await?;
    let (snapshots, bytes): (i64, i64) = (found.try_get(0)?, found.try_get(1)?);
    let found = transaction.query_one(FLOOR, &[&age, &step]).await?;
    let (floor, goal, reached): (i64, i64, Option<i64>) = (found.try_get(0)?, found.try_get(1)?, found.try_get(2)?);
    let next = reached.map_or(goal, |reached| reached.min(goal));
    let rows: i64 = if next > floor { transaction.query_one(ROWS, &[&next]).await?.try_get(0)? } else { 0 };
    if snapshots > 0 || rows > 0 {
        let detail = json!({ "snapshots": snapshots, "bytes": bytes, "rows": rows, "floor": next });
        let author = Author { actor: "charliehub-provider".to_owned(), source: "history", ..Author::default() };
        author.note(&transaction, "history.pruned", &detail).await?;
        tracing::info!(snapshots, bytes, rows, floor = next, "history was pruned");
    }
    transaction.commit().await?;
    Ok(next < goal)
}

#[cfg(test)]
mod tests;
