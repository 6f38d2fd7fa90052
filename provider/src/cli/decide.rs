//! `withheld`, `approve`, `discard`: a person decides about a change that the guard did not let through.
//!
//! The decision is a row; the running provider hears of it by a notification on channel `charliehub_decision`.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::json;
use tokio_postgres::{Client, Transaction};

use super::{database, output, token::audit};
use crate::{author::Author, config::Config, restore, snapshot::disk::gunzip, store::read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Approve,
    Discard,
}

impl Decision {
    /// The state of a snapshot that was decided so.
    fn state(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Discard => "discarded",
        }
    }
}

/// Lists what waits.
pub(super) async fn withheld(config: &Config) -> anyhow::Result<()> {
    let rows = database::with(config, async |opened| opened.run(async |client| waiting(client).await).await).await?;
    if rows.is_empty() {
        output::hint("nothing waits for a decision");
        return Ok(());
    }
    let header = ["REVISION", "WHEN", "HELD BACK BY", "ROUTES", "QUARANTINED", "CHANGED BY", "THEIR REASON"];
    output::print(&output::table(&header, &rows))?;
    output::hint("decide with: charliehub-provider approve REVISION, or: discard REVISION");
    Ok(())
}

async fn waiting(client: &Client) -> anyhow::Result<Vec<Vec<String>>> {
    let sql = "SELECT s.revision::text, to_char(s.created_at, 'YYYY-MM-DD HH24:MI:SS'), s.reason, s.routes::text,
                      s.quarantined::text, coalesce(r.actor || ' (' || r.source || ')', '-'), coalesce(r.reason, '-')
                 FROM snapshots s LEFT JOIN revisions r ON r.revision = s.revision AND r.token = s.token
                WHERE s.state = 'withheld' ORDER BY s.id";
    let rows = client.query(sql, &[]).await.map_err(database::explain)?;
    Ok(rows.iter().map(|row| (0..7).map(|at| row.try_get(at).unwrap_or_default()).collect()).collect())
}

/// Decides about the withheld snapshot of a revision.
pub(super) async fn run(config: &Config, revision: i64, decision: Decision) -> anyhow::Result<()> {
    let work = async |client: &mut Client| decide(client, revision, decision).await;
    database::with(config, async |opened| opened.run(work).await).await?;
    Ok(output::print(&format!("revision {revision} is {}\n", decision.state()))?)
}

pub(super) async fn decide(client: &mut Client, revision: i64, decision: Decision) -> anyhow::Result<()> {
    let transaction = client.transaction().await.map_err(database::explain)?;
    if decision == Decision::Discard {
        discard(&transaction, revision).await?;
    }
    let sql = "UPDATE snapshots SET state = $2, decided_by = $3, decided_at = now()
                WHERE revision = $1 AND state = 'withheld'";
    let changed = transaction
        .execute(sql, &[&revision, &decision.state(), &database::actor()])
        .await
        .map_err(database::explain)?;
    if changed > 0 {
        audit(&transaction, &format!("snapshot.{}", decision.state()), json!({ "revision": revision })).await?;
        transaction.commit().await.map_err(database::explain)?;
        return Ok(());
    }
    drop(transaction);
    let waiting: Vec<String> = waiting(client).await?.into_iter().filter_map(|row| row.into_iter().next()).collect();
    if waiting.is_empty() {
        anyhow::bail!("revision {revision} does not wait for a decision; nothing does");
    }
    anyhow::bail!("revision {revision} does not wait for a decision; these do: {}", waiting.join(", "))
}

/// Makes a new revision with the rows that run, so that nothing waits any more.
async fn discard(transaction: &Transaction<'_>, revision: i64) -> anyhow::Result<()> {
    let newest: i64 = transaction
        .query_one("SELECT lock_revision()", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(database::explain)?;
    let is_withheld = "SELECT FROM snapshots WHERE revision = $1 AND state = 'withheld'";
    if transaction.query_opt(is_withheld, &[&revision]).await.map_err(database::explain)?.is_none() {
        return Ok(());
    }
    if newest != revision {
        anyhow::bail!(
            "revision {newest} came after {revision} and waits with it; discard {newest} to go back to what runs"
        );
    }
    let sql = "SELECT s.revision, b.body FROM snapshots s JOIN snapshot_bodies b USING (digest)
                WHERE s.state IN ('served', 'approved') ORDER BY s.id DESC LIMIT 1";
    let running = transaction.query_opt(sql, &[]).await.map_err(database::explain)?;
    let running = running.context("nothing was served yet, so there is nothing to go back to")?;
    let base: i64 = running.try_get(0)?;
    let body: serde_json::Value = serde_json::from_slice(&gunzip(running.try_get(1)?)?)?;
    let rows = read::by_key(read::as_of(transaction, base).await.map_err(database::explain)?);
    let now = read::all(transaction).await.map_err(database::explain)?;
    let target = restore::rows_that_run(&rows, &now, &routers(&body));
    let author = Author {
        actor: database::actor(),
        source: "discard",
        reason: format!("revision {revision} was discarded: back to the rows that run"),
        ..Author::default()
    };
    author.sign(transaction).await.map_err(database::explain)?;
    restore::write(transaction, &now, &target).await.map_err(database::explain)?;
    Ok(())
}

/// The names of all routers in a config.
fn routers(config: &serde_json::Value) -> BTreeSet<String> {
    let maps = ["http", "tcp", "udp"].into_iter().filter_map(|kind| config.get(kind)?.get("routers")?.as_object());
    maps.flat_map(|map| map.keys().cloned()).collect()
}
