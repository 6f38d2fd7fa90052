//! Reads the rows of one revision: what changed since the one that is held, or everything.
//!
//! Each read is one transaction that locks the tables first (TRUNCATE is not MVCC-safe: an older snapshot would see no rows
//! at the old revision) and finds out in it whether the revision that we hold is still on the database's branch. Statements
//! go out together, in one round trip; unnamed and with their types, so that they pass a transaction pooler too, or
//! prepared where there is none.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::{
    TryStreamExt as _,
    future::{try_join_all, try_join3, try_join4},
};
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio_postgres::{
    Client, GenericClient, IsolationLevel, Row, Statement,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    rows::{Fetched, decode, name, select, select_as_of},
    sync::Held,
};
use crate::{
    memory::{self, TooLarge},
    row::{Rows, Table},
};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    LOCK TABLE charliehub.domains, charliehub.fragments, charliehub.sites, charliehub.policies, charliehub.peers
    IN ACCESS SHARE MODE";

/// For the delta, whose plan must follow the change, not the size of the tables: by index, whatever the statistics say.
const PLANS: &str =
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off;
    SET max_parallel_workers_per_gather = 0; SET jit = off; SET plan_cache_mode = force_generic_plan";

const REVISION: &str = "SELECT r.n, r.token, r.floor, s.token, n.at FROM charliehub.revision r
    LEFT JOIN charliehub.revisions s ON s.revision = $1 LEFT JOIN charliehub.revisions n ON n.revision = r.n";

/// The rows of one revision.
#[derive(Debug)]
pub struct Reading {
    pub held: Held,
    /// True when `rows` are all there are; else those that changed since what was held.
    pub everything: bool,
    /// What was held is not on the database's branch any more: commits were lost, or a backup was restored.
    pub forked: bool,
    /// When it was written, by the database's clock.
    pub at: Option<Timestamp>,
    pub rows: Vec<Fetched>,
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    /// The connection is well, and waiting may help.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The connection that reads.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    /// True once a notification came back: no transaction pooler is in between, so a statement may be prepared.
    direct: AtomicBool,
    /// Rows that the read of everything which is under way has so far.
    so_far: AtomicU64,
    delta: OnceCell<(Statement, Vec<Statement>)>,
}

enum Delta {
    Read(Reading),
    /// History does not go back so far.
    Forgotten,
    Forked,
    /// More rows than were asked for.
    TooMany,
}

impl Reader {
    pub fn new(client: Client) -> Self {
        Self { client, direct: AtomicBool::new(false), so_far: AtomicU64::new(0), delta: OnceCell::new() }
    }

    /// No transaction pooler is between this connection and PostgreSQL.
    pub fn is_direct(&self) {
        self.direct.store(true, Ordering::Relaxed);
    }

    /// How many rows the read of everything has so far that is under way.
    pub fn so_far(&self) -> u64 {
        self.so_far.load(Ordering::Relaxed)
    }

    /// Reads what changed since `held`; everything when that cannot be told, or is asked for. `known` rows are held.
    ///
    /// Nothing is read that would not fit into memory. How much that is, is asked only when there are many rows: a small
    /// change takes one round trip and no more.
    pub async fn read(&self, held: Option<Held>, everything: bool, known: u64) -> Result<Reading, Error> {
        let Some(since) = held.filter(|_| !everything) else { return self.full(held, false, known).await };
        let mut found = self.delta(since, Some(memory::ALWAYS)).await?;
        if let Delta::TooMany = found {
            found = self.delta(since, memory::room().map(|room| room.rows())).await?;
        }
        match found {
            Delta::Read(reading) => Ok(reading),
            Delta::Forgotten | Delta::TooMany => self.full(held, false, known).await,
            Delta::Forked => self.full(held, true, known).await,
        }
    }

    /// What `delta` needs: the revision, and at most `limit` rows of each table (NULL is no limit), in the order of
    /// [`Table::ALL`]. Planning takes longer than running it, so it is prepared where that is possible.
    async fn changed_since(
        &self,
        revision: i64,
        limit: Option<i64>,
    ) -> Result<(Vec<Row>, Vec<Vec<Row>>), tokio_postgres::Error> {
        let client = &self.client;
        let rows: [&(dyn ToSql + Sync); 2] = [&revision, &limit];
        let [since, limit] = rows;
        if !self.direct.load(Ordering::Relaxed) {
            let texts = Table::ALL.map(changed);
            let some = [(since, Type::INT8), (limit, Type::INT8)];
            let only = [(since, Type::INT8)];
            let changed = texts.each_ref().map(|text| client.query_typed(text, &some));
            return in_one_transaction(client, client.query_typed(REVISION, &only), changed).await;
        }
        let prepare = async || {
            let texts = Table::ALL.map(changed);
            let some = [Type::INT8, Type::INT8];
            let changed = try_join_all(texts.each_ref().map(|text| client.prepare_typed(text, &some)));
            let revision = client.prepare_typed(REVISION, &[Type::INT8]);
            try_join3(client.batch_execute(PLANS), revision, changed).await.map(|((), r, changed)| (r, changed))
        };
        let (revision, changed) = self.delta.get_or_try_init(prepare).await?;
        let only = [since];
        let changed = changed.iter().map(|statement| client.query(statement, &rows));
        in_one_transaction(client, client.query(revision, &only), changed).await
    }

    /// What changed since `held`, if those are at most so many rows.
    async fn delta(&self, held: Held, most: Option<u64>) -> Result<Delta, tokio_postgres::Error> {
        // One more tells that there are too many.
        let limit = most.map(|most| i64::try_from(most.saturating_add(1)).unwrap_or(i64::MAX));
        let (revision, changed) = self.changed_since(held.revision, limit).await?;
        let Some(revision) = revision.first() else { return Ok(Delta::Forgotten) };
        let newest = Held { revision: revision.try_get(0)?, token: revision.try_get(1)? };
        let floor: i64 = revision.try_get(2)?;
        // Revision 0 is the beginning of every branch and leaves no line in `revisions`.
        let ours: Option<Uuid> = if held.revision == 0 { Some(held.token) } else { revision.try_get(3)? };
        if newest.revision < held.revision || (newest != held && ours != Some(held.token)) {
            return Ok(Delta::Forked);
        }
        if held.revision < floor {
            return Ok(Delta::Forgotten);
        }
        let count: usize = changed.iter().map(Vec::len).sum();
        if most.is_some_and(|most| u64::try_from(count).is_ok_and(|found| found > most)) {
            return Ok(Delta::TooMany);
        }
        let mut rows = Vec::with_capacity(count);
        for (table, found) in Table::ALL.into_iter().zip(changed) {
            for row in &found {
                let key = crate::row::Key { table, id: row.try_get(0)? };
                rows.push(decode(table, row, 1).unwrap_or(Fetched { key, row: None, hash: 0 }));
            }
        }
        Ok(Delta::Read(Reading { held: newest, everything: false, forked: false, at: revision.try_get(4)?, rows }))
    }

    /// Reads everything, row by row: what is in memory are rows, not what came of them from the database.
    async fn full(&self, held: Option<Held>, forked: bool, known: u64) -> Result<Reading, Error> {
        let client = &self.client;
        self.so_far.store(0, Ordering::Relaxed);
        let before = held.map_or(0, |held| held.revision);
        let ((), revision) = futures_util::future::try_join(
            client.batch_execute(BEGIN),
            client.query_typed(REVISION, &[(&before, Type::INT8)]),
        )
        .await?;
        if let Some(room) = memory::room()
            && let Err(error) = room.fits(count(client).await?, known)
        {
            client.batch_execute("COMMIT").await?;
            return Err(error.into());
        }
        let mut rows = Vec::new();
        for table in Table::ALL {
            each(client, &everything(table), &[], table, |fetched| {
                rows.push(fetched);
                self.so_far.store(rows.len() as u64, Ordering::Relaxed);
            })
            .await?;
        }
        client.batch_execute("COMMIT").await?;
        let Some(revision) = revision.first() else {
            // A trigger refuses every write without that row, so this is an empty schema.
            return Ok(Reading {
                held: Held { revision: 0, token: Uuid::nil() },
                everything: true,
                forked,
                at: None,
                rows,
            });
        };
        let newest = Held { revision: revision.try_get(0)?, token: revision.try_get(1)? };
        let ours: Option<Uuid> = revision.try_get(3)?;
        let lost = held.is_some_and(|held| held.revision > 0 && ours != Some(held.token));
        Ok(Reading { held: newest, everything: true, forked: forked || lost, at: revision.try_get(4)?, rows })
    }

    /// The newest of the `waiting` revisions that an operator approved, with its rows; those of `newest` are held anyway.
    pub async fn approved(
        &self,
        waiting: &[Held],
        newest: Held,
    ) -> Result<Option<(Held, Vec<Fetched>)>, tokio_postgres::Error> {
        const APPROVED: &str = "SELECT revision, token FROM charliehub.snapshots
            WHERE state = 'approved' AND (revision, token) IN (SELECT * FROM unnest($1::int8[], $2::uuid[]))
            ORDER BY revision DESC LIMIT 1";
        if waiting.is_empty() {
            return Ok(None);
        }
        let (revisions, tokens): (Vec<i64>, Vec<Uuid>) = waiting.iter().map(|held| (held.revision, held.token)).unzip();
        let found =
            self.client.query_typed(APPROVED, &[(&revisions, Type::INT8_ARRAY), (&tokens, Type::UUID_ARRAY)]).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let held = Held { revision: row.try_get(0)?, token: row.try_get(1)? };
        let rows = if held == newest { Vec::new() } else { as_of(&self.client, held.revision).await? };
        Ok(Some((held, rows)))
    }

    /// What the database says of its rows now.
    pub async fn sum(&self) -> Result<Option<Sum>, tokio_postgres::Error> {
        const SUM: &str =
            "SELECT r.n, r.token, count(t.hash), coalesce(bit_xor(t.hash), 0) FROM charliehub.revision r LEFT JOIN (
            SELECT charliehub.row_hash(id, version, xmin) AS hash FROM charliehub.domains UNION ALL
            SELECT charliehub.row_hash(id, version, xmin) FROM charliehub.fragments UNION ALL
            SELECT charliehub.row_hash(id, version, xmin) FROM charliehub.sites UNION ALL
            SELECT charliehub.row_hash(id, version, xmin) FROM charliehub.policies UNION ALL
            SELECT charliehub.row_hash(id, version, xmin) FROM charliehub.peers) t ON true GROUP BY r.n, r.token";
        let client = &self.client;
        let ((), rows, ()) =
            try_join3(client.batch_execute(BEGIN), client.query_typed(SUM, &[]), client.batch_execute("COMMIT"))
                .await?;
        rows.first()
            .map(|row| {
                let held = Held { revision: row.try_get(0)?, token: row.try_get(1)? };
                Ok(Sum { held, rows: row.try_get(2)?, hash: row.try_get(3)? })
            })
            .transpose()
    }
}

/// Sends everything at once, so that it is one round trip.
async fn in_one_transaction(
    client: &Client,
    revision: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>,
    changed: impl IntoIterator<Item = impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>>,
) -> Result<(Vec<Row>, Vec<Vec<Row>>), tokio_postgres::Error> {
    let ((), revision, changed, ()) =
        try_join4(client.batch_execute(BEGIN), revision, try_join_all(changed), client.batch_execute("COMMIT")).await?;
    Ok((revision, changed))
}

/// The rows of `table` that changed since revision `$1`; all columns are null for one that is gone.
///
/// The order leads to the index that begins with the revision: of the other one, by table and key, all entries of the table
/// would be looked at. The upper bound says only that these are few, which the planner cannot know.
fn changed(table: Table) -> String {
    let (name, list) = (name(table), select(table));
    format!(
        "SELECT h.key::uuid, {list} FROM (SELECT DISTINCT key FROM (
            SELECT tbl, key FROM charliehub.history WHERE revision > $1 AND revision < $1 + 1000000000000
             ORDER BY revision, seq OFFSET 0) n WHERE tbl = '{name}') h LEFT JOIN charliehub.{name} t ON t.id = h.key::uuid LIMIT $2"
    )
}

/// How many rows there are.
async fn count(client: &Client) -> Result<u64, tokio_postgres::Error> {
    const COUNT: &str = "SELECT (SELECT count(*) FROM charliehub.domains) + (SELECT count(*) FROM charliehub.fragments)
            + (SELECT count(*) FROM charliehub.sites) + (SELECT count(*) FROM charliehub.policies)
            + (SELECT count(*) FROM charliehub.peers)";
    let counted = client.query_typed(COUNT, &[]).await?;
    let rows: i64 = counted.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// All rows of a table.
fn everything(table: Table) -> String {
    format!("SELECT {} FROM charliehub.{} t", select(table), name(table))
}

/// Hands over each row of a statement as it arrives.
async fn each(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[(i64, Type)],
    table: Table,
    mut take: impl FnMut(Fetched),
) -> Result<(), tokio_postgres::Error> {
    let mut stream = pin!(client.query_typed_raw(sql, parameters.iter().cloned()).await?);
    while let Some(row) = stream.try_next().await? {
        if let Some(fetched) = decode(table, &row, 0) {
            take(fetched);
        }
    }
    Ok(())
}

/// All rows, inside a transaction of the caller's.
pub async fn all(client: &impl GenericClient) -> Result<Rows, tokio_postgres::Error> {
    let mut rows = Rows::new();
    for table in Table::ALL {
        each(client, &everything(table), &[], table, |fetched| {
            rows.extend(fetched.row.map(|row| (fetched.key, row)));
        })
        .await?;
    }
    Ok(rows)
}

/// The newest revision, without its rows.
pub async fn newest_revision(client: &impl GenericClient) -> Result<Held, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT n, token FROM charliehub.revision", &[]).await?;
    match rows.first() {
        Some(row) => Ok(Held { revision: row.try_get(0)?, token: row.try_get(1)? }),
        None => Ok(Held { revision: 0, token: Uuid::nil() }),
    }
}

/// The rows of the newest revision.
pub async fn newest(client: &mut Client) -> Result<Rows, tokio_postgres::Error> {
    let one_snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = one_snapshot.start().await?;
    transaction
        .batch_execute(
            "LOCK TABLE charliehub.domains, charliehub.fragments, charliehub.sites, charliehub.policies, charliehub.peers
                 IN ACCESS SHARE MODE",
        )
        .await?;
    let rows = all(&transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// Rows that are there, by their keys.
pub fn by_key(rows: impl IntoIterator<Item = Fetched>) -> Rows {
    rows.into_iter().filter_map(|fetched| Some((fetched.key, fetched.row?))).collect()
}

/// The rows as they were at `revision`, which must not be older than history's floor.
pub async fn as_of(client: &impl GenericClient, revision: i64) -> Result<Vec<Fetched>, tokio_postgres::Error> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        let at = format!("SELECT {} FROM charliehub.{}_as_of($1) t", select_as_of(table), name(table));
        each(client, &at, &[(revision, Type::INT8)], table, |fetched| rows.push(fetched)).await?;
    }
    Ok(rows)
}

/// What the database says of its rows: revision, how many rows there are, and the exclusive or of their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub held: Held,
    pub rows: i64,
    pub hash: i64,
}
