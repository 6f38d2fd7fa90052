//! Brings the schema of the database to that of this build: the files of `migrations/`, in order, each once.
//!
//! Each file is one transaction, and holds an advisory lock while it runs: of two providers that start at once one
//! migrates, the other waits and finds it done. The lock is of the transaction, not of the session, so it also works
//! through a pooler and cannot be left behind. No step waits longer than 5 s for a lock of somebody's open transaction.
//! A file that was edited after it was applied is an error. A schema that is newer than the build is accepted as it is:
//! never down. When all is applied nothing is written, so a user who may only read the list can start too.

use sha2::{Digest as _, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::OLDEST;

pub(super) struct File {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! files {
    ($($version:literal $name:literal)*) => {
        &[$(File { version: $version, name: $name, sql: include_str!(concat!("../../migrations/", $name, ".sql")) }),*]
    };
}

pub(super) static FILES: &[File] = files! {
    1 "0001_types_and_validators"
    2 "0002_source_of_truth"
    3 "0003_around_it"
    4 "0004_identity"
    5 "0005_history"
    6 "0006_idempotency"
    7 "0007_rights"
    8 "0008_instances"
    9 "0009_validators"
    10 "0010_sites"
    11 "0011_parts"
    12 "0012_history_pieces"
    13 "0013_actions"
    14 "0014_ddns"
    15 "0015_peers"
    16 "0016_rotations"
};

/// `charliehub` in ASCII, as the advisory lock of this database.
const LOCK: i64 = 0x63_68_61_72_6c_69_65_68;

/// What [`migrate`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The files applied by this call, by name; empty when there was nothing to do.
    pub now: Vec<&'static str>,
    /// The version that the schema has now.
    pub version: i32,
    /// True when the schema was made by a newer build than this one.
    pub newer: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("PostgreSQL is version {0}; {OLDEST} or newer is needed")]
    TooOld(String),
    #[error(
        "migration {0} was edited after it was applied; install the build that matches the database, or restore the file"
    )]
    Edited(String),
    #[error("migration {file} waits for a lock that another session holds; end long transactions and try again")]
    Locked { file: &'static str },
    #[error(
        "migration {file} may not be applied: {why}; log in as the owner of the database, or: GRANT CREATE ON DATABASE"
    )]
    Forbidden { file: &'static str, why: String },
    #[error("migration {file} failed: {why}")]
    Step { file: &'static str, why: String, source: tokio_postgres::Error },
    #[error(transparent)]
    Database(#[from] super::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Error {
    /// True when waiting can help: somebody holds a lock, or the database went away.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Database(error) => error.is_transient(),
            Self::TooOld(_) | Self::Edited(_) | Self::Forbidden { .. } | Self::Step { .. } => false,
        }
    }

    fn step(file: &'static str, error: tokio_postgres::Error) -> Self {
        let why = super::error::cause(&error);
        match error.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => Self::Locked { file },
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden { file, why },
            Some(_) => Self::Step { file, why, source: error },
            None => Self::Database(error.into()),
        }
    }
}

/// The version that this build brings a schema to.
pub fn newest() -> i32 {
    FILES.last().map_or(0, |last| last.version)
}

/// What this build would apply: version, name, and the hash that is kept of it.
pub fn files() -> impl Iterator<Item = (i32, &'static str, [u8; 32])> {
    FILES.iter().map(|file| (file.version, file.name, Sha256::digest(file.sql).into()))
}

/// Applies what is missing up to `version`, all in the caller's transaction: for a schema that nobody uses yet, or that comes
/// with what else the transaction does. Holds the lock of all who migrate to its end.
pub async fn within(transaction: &Transaction<'_>, version: i32) -> Result<(), Error> {
    let first = FILES.first().map_or("", |file| file.name);
    lock(transaction).await.map_err(|error| Error::step(first, error))?;
    for file in FILES.iter().filter(|file| file.version <= version) {
        if !is_applied(transaction, file).await? {
            step(transaction, file).await.map_err(|error| Error::step(file.name, error))?;
        }
    }
    Ok(())
}

/// Applies what is missing. `client` is a connection of the owner, on which no role was assumed.
pub async fn migrate(client: &mut Client) -> Result<Applied, Error> {
    check_version(client).await?;
    let mut now = Vec::new();
    for file in FILES {
        if !is_applied(client, file).await? && apply(client, file).await? {
            now.push(file.name);
        }
    }
    let newest = client.query_typed_one("SELECT max(version) FROM charliehub.schema_migrations", &[]).await?;
    let version: i32 = newest.try_get(0)?;
    Ok(Applied { now, version, newer: FILES.last().is_some_and(|last| version > last.version) })
}

async fn check_version(client: &Client) -> Result<(), Error> {
    let row = client
        .query_typed_one("SELECT current_setting('server_version_num')::int, current_setting('server_version')", &[])
        .await?;
    let number: i32 = row.try_get(0)?;
    if number / 10_000 < i32::try_from(OLDEST).unwrap_or(i32::MAX) {
        return Err(Error::TooOld(row.try_get(1)?));
    }
    Ok(())
}

async fn is_applied(client: &impl tokio_postgres::GenericClient, file: &File) -> Result<bool, Error> {
    // not to_regclass: after waiting for an advisory lock its cache still says that there is no such table
    let exists = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                                  WHERE s.nspname = 'charliehub' AND c.relname = 'schema_migrations')";
    let known = client.query_typed_one(exists, &[]).await?;
    if !known.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let row = client
        .query_typed_opt(
            "SELECT sha256 FROM charliehub.schema_migrations WHERE version = $1",
            &[(&file.version, Type::INT4)],
        )
        .await?;
    match row {
        None => Ok(false),
        Some(row) if row.try_get::<_, &[u8]>(0)? == Sha256::digest(file.sql).as_slice() => Ok(true),
        Some(_) => Err(Error::Edited(file.name.to_owned())),
    }
}

/// False when another provider was quicker.
async fn apply(client: &mut Client, file: &File) -> Result<bool, Error> {
    let failed = |error| Error::step(file.name, error);
    let transaction = client.transaction().await.map_err(failed)?;
    lock(&transaction).await.map_err(failed)?;
    if is_applied(&transaction, file).await? {
        return Ok(false);
    }
    step(&transaction, file).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(true)
}

async fn lock(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    // The role of the login, which `ALTER ROLE .. SET role` may have made the owner's: two logins that take turns.
    let lock =
        format!("SET LOCAL role TO DEFAULT; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock({LOCK})");
    transaction.batch_execute(&lock).await
}

async fn step(transaction: &Transaction<'_>, file: &File) -> Result<(), tokio_postgres::Error> {
    const APPLIED: &str = "INSERT INTO charliehub.schema_migrations (version, name, sha256) VALUES ($1, $2, $3)";
    prepare(transaction).await?;
    transaction.batch_execute(file.sql).await?;
    let hash = Sha256::digest(file.sql);
    let line: [(&(dyn ToSql + Sync), Type); 3] =
        [(&file.version, Type::INT4), (&file.name, Type::TEXT), (&hash.as_slice(), Type::BYTEA)];
    transaction.execute_typed(APPLIED, &line).await.map(drop)
}

/// The schema and the list of what was applied: not a migration, since it is where they are written down.
async fn prepare(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .batch_execute(
            "SET LOCAL lock_timeout = '5s';
             SET LOCAL client_min_messages = warning;
             DO $$ BEGIN
                 IF to_regnamespace('charliehub') IS NULL THEN
                     CREATE SCHEMA charliehub;
                 END IF;
             END $$;
             SET LOCAL search_path = charliehub, pg_temp;
             CREATE TABLE IF NOT EXISTS schema_migrations (
                 version     int PRIMARY KEY,
                 name        text NOT NULL,
                 sha256      bytea NOT NULL,
                 applied_at  timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await
}
