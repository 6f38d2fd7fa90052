//! Keeps configs in the database: the exact bytes that were served, and those that wait for an operator.
//!
//! Bodies are stored once per digest. Several providers may write the same revision; the first one does.
//! [`prune`] forgets.

pub mod prune;

use std::sync::Arc;

use tokio_postgres::{Client, types::Type};
use uuid::Uuid;

use crate::{
    guard::{Reason, Size},
    row::Rows,
    snapshot::{Snapshot, disk::Good, encode::Encoded},
    store::sync::Held,
};

const COMPILER: &str = concat!("charliehub-provider ", env!("CARGO_PKG_VERSION"));

const BODY: &str =
    "INSERT INTO charliehub.snapshot_bodies (digest, body, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const SNAPSHOT: &str =
    "INSERT INTO charliehub.snapshots (revision, token, digest, state, reason, routes, quarantined, compiler)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (
     SELECT FROM charliehub.snapshots WHERE revision = $1 AND token = $2 AND digest = $3
       AND (state = $4 OR (state IN ('approved', 'discarded') AND $4 = 'withheld')))";
/// What waits is overtaken by a later config that runs, unless an operator decided.
const OVERTAKEN: &str =
    "UPDATE charliehub.snapshots SET state = 'discarded', decided_by = 'overtaken', decided_at = now()
    WHERE state = 'withheld' AND id < (SELECT max(id) FROM charliehub.snapshots)";

/// A config that waits for an operator.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub held: Held,
    pub encoded: Arc<Encoded>,
    pub size: Size,
    pub reason: Reason,
}

/// One line of the history of configs.
struct Line<'a> {
    held: Held,
    digest: &'a str,
    gzip: &'a [u8],
    bytes: usize,
    size: Size,
    state: &'static str,
    reason: &'static str,
}

/// Records what runs, and that nothing waits any more.
pub async fn served(
    client: &mut Client,
    snapshot: &Snapshot,
    reason: &'static str,
) -> Result<(), tokio_postgres::Error> {
    let line = Line {
        held: snapshot.held,
        digest: snapshot.digest(),
        gzip: &snapshot.encoded.gzip,
        bytes: snapshot.encoded.length,
        size: snapshot.size,
        state: "served",
        reason,
    };
    write(client, &line, snapshot.withheld.is_none()).await
}

/// Records a config that waits for an operator.
pub async fn withheld(client: &mut Client, candidate: &Candidate) -> Result<(), tokio_postgres::Error> {
    let line = Line {
        held: candidate.held,
        digest: &candidate.encoded.digest,
        gzip: &candidate.encoded.gzip,
        bytes: candidate.encoded.length,
        size: candidate.size,
        state: "withheld",
        reason: candidate.reason.code(),
    };
    write(client, &line, false).await
}

async fn write(client: &mut Client, line: &Line<'_>, overtakes: bool) -> Result<(), tokio_postgres::Error> {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let transaction = client.transaction().await?;
    let bytes = i64::try_from(line.bytes).unwrap_or(i64::MAX);
    transaction
        .execute_typed(BODY, &[(&line.digest, Type::TEXT), (&line.gzip, Type::BYTEA), (&bytes, Type::INT8)])
        .await?;
    transaction
        .execute_typed(
            SNAPSHOT,
            &[
                (&line.held.revision, Type::INT8),
                (&line.held.token, Type::UUID),
                (&line.digest, Type::TEXT),
                (&line.state, Type::TEXT),
                (&line.reason, Type::TEXT),
                (&count(line.size.routes), Type::INT4),
                (&count(line.size.quarantined), Type::INT4),
                (&COMPILER, Type::TEXT),
            ],
        )
        .await?;
    if overtakes {
        transaction.execute_typed(OVERTAKEN, &[]).await?;
    }
    transaction.commit().await
}

/// The newest config that ran, for a start whose disk has none. Its rows are read from the history of rows.
pub async fn newest_served(client: &Client) -> Result<Option<Good>, tokio_postgres::Error> {
    const NEWEST: &str = "SELECT s.revision, s.token, s.digest, s.routes, s.quarantined, b.body
        FROM charliehub.snapshots s JOIN charliehub.snapshot_bodies b USING (digest)
        WHERE s.state IN ('served', 'approved') ORDER BY s.id DESC LIMIT 1";
    let found = client.query_typed(NEWEST, &[]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (revision, token): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
    let (digest, gzip): (&str, &[u8]) = (row.try_get(2)?, row.try_get(5)?);
    let (routes, quarantined): (i32, i32) = (row.try_get(3)?, row.try_get(4)?);
    let Ok(identity) = super::disk::gunzip(gzip) else { return Ok(None) };
    let number = |n: i32| usize::try_from(n).unwrap_or_default();
    Ok(Some(Good {
        held: Held { revision, token },
        size: Size { routes: number(routes), quarantined: number(quarantined) },
        encoded: Arc::new(Encoded::of(digest.into(), identity.into(), bytes::Bytes::copy_from_slice(gzip))),
        rows: Rows::new(),
    }))
}
