//! Writes a backup: every table at one moment, and what proves later that it is whole.

use std::{io::Write, path::Path, pin::pin};

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};

use super::{
    Error, MANIFEST, Manifest, PROGRAM, SETTINGS,
    archive::Writer,
    fingerprint, list,
    manifest::{Migration, Sequence, Table},
    quoted,
};
use crate::{
    audit,
    compile::{Compiler, Settings},
    postgres::migrate,
    snapshot::encode::{Draft, hex},
    store::read,
};

/// An entry is cut at the first row behind this, in bytes.
const ENTRY: usize = 4 << 20;

const README: &str = "A backup of the database of charliehub-provider. It is as secret as the database itself.\n\
    To restore it:   charliehub-provider restore FILE\n\
    To look into it: manifest.json says what is in it; tables/ are rows as PostgreSQL's COPY writes them.\n";

/// What is backed up, and with what else it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// Hosts and database, for people.
    pub database: &'s str,
    pub settings: &'s std::sync::Arc<Settings>,
}

/// Writes a backup to `out`, in a transaction of its own that changes nothing and keeps nobody waiting but who changes the
/// schema. `path` is what `out` is, for an error.
pub async fn take<W: Write>(
    client: &mut Client,
    source: Source<'_>,
    out: W,
    path: &Path,
) -> Result<(Manifest, W, u64), Error> {
    // Outside: the transaction's first query decides the moment, and must come after the locks (TRUNCATE is not MVCC-safe).
    let tables = tables(client).await?;
    if tables.is_empty() {
        return Err(Error::Nothing(source.database.to_owned()));
    }
    let one_moment = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = one_moment.start().await?;
    transaction.batch_execute(SETTINGS).await?;
    let names: Vec<String> = tables.iter().map(|name| format!("charliehub.{}", quoted(name))).collect();
    transaction.batch_execute(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?;
    write(&transaction, source, out, path).await
}

/// The same in a transaction that sees one moment by its locks.
pub(super) async fn write<W: Write>(
    client: &Transaction<'_>,
    source: Source<'_>,
    out: W,
    path: &Path,
) -> Result<(Manifest, W, u64), Error> {
    let made_at = Timestamp::now();
    let mut writer = Writer::new(out, u64::try_from(made_at.as_second()).unwrap_or_default());
    writer.entry("README", README.as_bytes()).map_err(Error::io(path))?;
    let mut manifest = about(client, source, made_at).await?;
    for name in tables(client).await? {
        let columns = columns(client, &name).await?;
        let mut part = 0;
        let mut keep = |bytes: &[u8]| {
            part += 1;
            writer.entry(&format!("tables/{name}.{part:06}.copy"), bytes).map_err(Error::io(path))
        };
        let (rows, sha256) = copy_out(client, &name, &columns, &mut keep).await?;
        manifest.tables.push(Table { name, columns, rows, sha256 });
    }
    manifest.sequences = sequences(client).await?;
    if manifest.version() >= migrate::newest() {
        manifest.digest = Some(digest(client, source.settings).await?);
        manifest.broken = audit::broken(client).await?;
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::io(path)(error.into()))?;
    writer.entry(MANIFEST, &text).map_err(Error::io(path))?;
    let (out, length) = writer.finish().map_err(Error::io(path))?;
    Ok((manifest, out, length))
}

async fn about(client: &impl GenericClient, source: Source<'_>, made_at: Timestamp) -> Result<Manifest, Error> {
    const APPLIED: &str =
        "SELECT version, name, encode(sha256, 'hex') FROM charliehub.schema_migrations ORDER BY version";
    const SERVER: &str = "SELECT current_setting('server_version')";
    let applied = client.query_typed(APPLIED, &[]).await?;
    let one = |row: &tokio_postgres::Row| -> Result<Migration, tokio_postgres::Error> {
        Ok(Migration { version: row.try_get(0)?, name: row.try_get(1)?, sha256: row.try_get(2)? })
    };
    let held = read::newest_revision(client).await?;
    Ok(Manifest {
        made_at,
        made_by: PROGRAM.to_owned(),
        server: client.query_typed_one(SERVER, &[]).await?.try_get(0)?,
        database: source.database.to_owned(),
        migrations: applied.iter().map(one).collect::<Result<_, _>>()?,
        revision: held.revision,
        token: Some(held.token).filter(|token| !token.is_nil()),
        digest: None,
        settings: fingerprint(source.settings),
        tables: Vec::new(),
        sequences: Vec::new(),
        audit: audit::ends(client).await?,
        broken: Vec::new(),
    })
}

/// What the rows compile to.
pub(super) async fn digest(client: &impl GenericClient, settings: &std::sync::Arc<Settings>) -> Result<String, Error> {
    let rows = read::all(client).await?;
    Ok(Draft::new(Compiler::of(settings, rows).pieces()).digest())
}

/// The tables that are backed up: those that others refer to come first.
pub(super) async fn tables(client: &impl GenericClient) -> Result<Vec<String>, Error> {
    const TABLES: &str = "
        WITH RECURSIVE t AS (
            SELECT c.oid, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'charliehub' AND c.relkind = 'r' AND c.relname <> 'schema_migrations'),
        refers AS (
            SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid),
        depth AS (
            SELECT oid, name, 0 AS d FROM t
            UNION
            SELECT t.oid, t.name, depth.d + 1 FROM depth JOIN refers ON refers.confrelid = depth.oid
              JOIN t ON t.oid = refers.conrelid WHERE depth.d < 50)
        SELECT name FROM depth GROUP BY name ORDER BY max(d), name COLLATE \"C\"";
    let rows = client.query_typed(TABLES, &[]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn columns(client: &impl GenericClient, table: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relnamespace = 'charliehub'::regnamespace AND c.relname = $1
                  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum";
    let rows = client.query(sql, &[&table]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn sequences(client: &impl GenericClient) -> Result<Vec<Sequence>, Error> {
    const SEQUENCES: &str = "SELECT sequencename::text, last_value FROM pg_sequences
        WHERE schemaname = 'charliehub' AND last_value IS NOT NULL ORDER BY 1";
    let rows = client.query_typed(SEQUENCES, &[]).await?;
    let one = |row: &tokio_postgres::Row| -> Result<Sequence, tokio_postgres::Error> {
        Ok(Sequence { name: row.try_get(0)?, last_value: row.try_get(1)? })
    };
    Ok(rows.iter().map(one).collect::<Result<_, _>>()?)
}

/// The rows of a table in the order of its primary key, in pieces that end with a row; how many, and their hash.
pub(super) async fn copy_out(
    client: &Transaction<'_>,
    table: &str,
    columns: &[String],
    keep: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(u64, String), Error> {
    // Not by the database's own collation: another server may sort otherwise.
    let key = "SELECT quote_ident(a.attname) || CASE WHEN a.attcollation = 0 THEN '' ELSE ' COLLATE \"C\"' END
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
                 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                WHERE c.relnamespace = 'charliehub'::regnamespace AND c.relname = $1 AND i.indisprimary ORDER BY k.place";
    let key = client.query(key, &[&table]).await?;
    let key: Vec<String> = key.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let order = if key.is_empty() { String::new() } else { format!(" ORDER BY {}", key.join(", ")) };
    let sql = format!("COPY (SELECT {} FROM charliehub.{}{order}) TO STDOUT", list(columns), quoted(table));
    let mut stream = pin!(client.copy_out(&sql).await?);
    let (mut rows, mut sum, mut piece) = (0, Sha256::new(), Vec::new());
    while let Some(bytes) = stream.try_next().await? {
        // One message is one row.
        rows += 1;
        sum.update(&bytes);
        piece.extend_from_slice(&bytes);
        if piece.len() >= ENTRY {
            keep(&piece)?;
            piece.clear();
        }
    }
    if !piece.is_empty() {
        keep(&piece)?;
    }
    Ok((rows, hex(&sum.finalize())))
}
