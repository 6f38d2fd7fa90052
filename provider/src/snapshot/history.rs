//! Keeps configs in the database: the exact bytes that were served, and those that wait for an operator.
//!
//! Bodies are stored once per digest, and what large ones have in common once for all: as a list of pieces, which are those
//! that the body is sent in. Several providers may write the same revision; the first one does. What only some instances are
//! given has its lines too, each with the selector of that part.
//! [`prune`] forgets.

pub mod prune;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::task::yield_now;
use tokio_postgres::{Client, Transaction, types::Type};
use uuid::Uuid;

use crate::{
    config::Selector,
    guard::{Reason, Size},
    row::Rows,
    snapshot::{
        Snapshot,
        disk::Good,
        encode::{Encoded, Joined},
    },
    store::sync::Held,
};

const COMPILER: &str = concat!("charliehub-provider ", env!("CARGO_PKG_VERSION"));

const BODY: &str = "INSERT INTO charliehub.snapshot_bodies (digest, body, bytes, in_pieces) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";
const KNOWN: &str = "SELECT FROM charliehub.snapshot_bodies WHERE digest = $1";
const LOCK: &str = "SELECT pg_advisory_xact_lock_shared(charliehub.pieces_lock())";
const MISSING: &str = "SELECT w.hash FROM (SELECT DISTINCT unnest($1::bytea[]) AS hash) w
    WHERE NOT EXISTS (SELECT FROM charliehub.snapshot_pieces p WHERE p.hash = w.hash)";
const PIECES: &str =
    "INSERT INTO charliehub.snapshot_pieces (hash, bytes) SELECT * FROM unnest($1::bytea[], $2::bytea[])
    ON CONFLICT DO NOTHING";
const SNAPSHOT: &str =
    "INSERT INTO charliehub.snapshots (revision, token, digest, state, reason, routes, quarantined, compiler, part)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE NOT EXISTS (
     SELECT FROM charliehub.snapshots WHERE revision = $1 AND token = $2 AND digest = $3 AND part IS NOT DISTINCT FROM $9
       AND (state = $4 OR (state IN ('approved', 'discarded') AND $4 = 'withheld')))";
/// What waits is overtaken by a later config that runs, unless an operator decided.
const OVERTAKEN: &str =
    "UPDATE charliehub.snapshots SET state = 'discarded', decided_by = 'overtaken', decided_at = now()
    WHERE state = 'withheld' AND part IS NOT DISTINCT FROM $1 AND id < (SELECT max(id) FROM charliehub.snapshots)";
/// What waits in a part that nobody is given any more waits for nothing.
const ABANDONED: &str =
    "UPDATE charliehub.snapshots SET state = 'discarded', decided_by = 'overtaken', decided_at = now()
    WHERE state = 'withheld' AND part IS NOT NULL AND part <> ALL ($1)";

/// Pieces that are hashed, or sent in a statement, at once.
const AT_ONCE: usize = 500;

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
    /// None: all.
    part: Option<&'a Selector>,
    digest: &'a str,
    gzip: &'a Joined,
    bytes: usize,
    size: Size,
    state: &'static str,
    reason: &'static str,
}

/// Records what runs, and that nothing waits any more.
pub async fn served(
    client: &mut Client,
    part: Option<&Selector>,
    snapshot: &Snapshot,
    reason: &'static str,
) -> Result<(), tokio_postgres::Error> {
    let line = Line {
        held: snapshot.held,
        part,
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
pub async fn withheld(
    client: &mut Client,
    part: Option<&Selector>,
    candidate: &Candidate,
) -> Result<(), tokio_postgres::Error> {
    let line = Line {
        held: candidate.held,
        part,
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
    body(&transaction, line).await?;
    let part = line.part.map(json);
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
                (&part, Type::JSONB),
            ],
        )
        .await?;
    if overtakes {
        transaction.execute_typed(OVERTAKEN, &[(&part, Type::JSONB)]).await?;
    }
    transaction.commit().await
}

async fn body(transaction: &Transaction<'_>, line: &Line<'_>) -> Result<(), tokio_postgres::Error> {
    let bytes = i64::try_from(line.bytes).unwrap_or(i64::MAX);
    let list = match line.gzip.single() {
        Some(_) => None,
        None if transaction.query_typed_opt(KNOWN, &[(&line.digest, Type::TEXT)]).await?.is_some() => return Ok(()),
        None => Some(pieces(transaction, line.gzip).await?),
    };
    let whole = line.gzip.single().map(AsRef::as_ref).or(list.as_deref()).unwrap_or_default();
    transaction
        .execute_typed(
            BODY,
            &[(&line.digest, Type::TEXT), (&whole, Type::BYTEA), (&bytes, Type::INT8), (&list.is_some(), Type::BOOL)],
        )
        .await?;
    Ok(())
}

/// Stores those pieces that are not there yet; the list of all.
async fn pieces(transaction: &Transaction<'_>, gzip: &Joined) -> Result<Vec<u8>, tokio_postgres::Error> {
    transaction.query_typed(LOCK, &[]).await?;
    let mut hashes: Vec<Vec<u8>> = Vec::with_capacity(gzip.pieces().len());
    for some in gzip.pieces().chunks(AT_ONCE) {
        hashes.extend(some.iter().map(|piece| Sha256::digest(piece).to_vec()));
        yield_now().await;
    }
    let missing = transaction.query_typed(MISSING, &[(&hashes, Type::BYTEA_ARRAY)]).await?;
    let mut missing: BTreeSet<&[u8]> = missing.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut fresh: Vec<(&[u8], &[u8])> = Vec::with_capacity(missing.len());
    for (hash, piece) in hashes.iter().zip(gzip.pieces()) {
        if missing.remove(hash.as_slice()) {
            fresh.push((hash, piece));
        }
    }
    for some in fresh.chunks(AT_ONCE) {
        let (hashes, bytes): (Vec<&[u8]>, Vec<&[u8]>) = some.iter().copied().unzip();
        transaction.execute_typed(PIECES, &[(&hashes, Type::BYTEA_ARRAY), (&bytes, Type::BYTEA_ARRAY)]).await?;
    }
    Ok(hashes.concat())
}

/// Nothing waits in other parts than `parts` any more.
pub async fn only_parts(client: &Client, parts: &[&Selector]) -> Result<(), tokio_postgres::Error> {
    let parts: Vec<Value> = parts.iter().map(|part| json(part)).collect();
    client.execute_typed(ABANDONED, &[(&parts, Type::JSONB_ARRAY)]).await.map(drop)
}

/// A part, as its lines name it.
fn json(part: &Selector) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// The newest config that ran, of all or of a part, for a start whose disk has none. Its rows are read from the history of
/// rows.
pub async fn newest_served(client: &Client, part: Option<&Selector>) -> Result<Option<Good>, tokio_postgres::Error> {
    const NEWEST: &str = "SELECT s.revision, s.token, s.digest, s.routes, s.quarantined, charliehub.snapshot_body(b)
        FROM charliehub.snapshots s JOIN charliehub.snapshot_bodies b USING (digest)
        WHERE s.state IN ('served', 'approved') AND s.part IS NOT DISTINCT FROM $1 ORDER BY s.id DESC LIMIT 1";
    let found = client.query_typed(NEWEST, &[(&part.map(json), Type::JSONB)]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (revision, token): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
    let (digest, gzip): (&str, &[u8]) = (row.try_get(2)?, row.try_get(5)?);
    let (routes, quarantined): (i32, i32) = (row.try_get(3)?, row.try_get(4)?);
    let Ok(length) = super::disk::length_of(gzip) else { return Ok(None) };
    let number = |n: i32| usize::try_from(n).unwrap_or_default();
    Ok(Some(Good {
        held: Held { revision, token },
        size: Size { routes: number(routes), quarantined: number(quarantined) },
        encoded: Arc::new(Encoded::compressed(digest.into(), Bytes::copy_from_slice(gzip), length)),
        rows: Rows::new(),
    }))
}
