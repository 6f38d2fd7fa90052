//! The source of truth in one file, and back out of it.
//!
//! A backup is every table of schema `charliehub` but the list of migrations, as they were at one moment: rows, history and
//! revisions with their tokens, the audit with its chain, tokens (their hashes), decisions and the bodies that were served,
//! and what agents told. It needs no program of PostgreSQL's and no matching version: tables go through COPY's text format.
//!
//! [`take`] writes it, within one transaction. [`archive`] is the file, sealed; [`manifest`] what it says of itself.
//! [`load`] judges the file first, and then brings everything back in one transaction: the schema of then, the rows, and the
//! proof that they are the same, the steps to the schema of now, the same digest, a whole audit. [`files`] keeps
//! what is on disk in order.

pub mod archive;
pub mod files;
pub mod load;
pub mod manifest;
pub mod take;

use std::{io, path::PathBuf};

use sha2::{Digest as _, Sha256};

pub use self::manifest::Manifest;
use crate::{compile::Settings, postgres, postgres::migrate, snapshot::encode::hex};

/// The manifest's name in the archive.
const MANIFEST: &str = "manifest.json";
/// The program that makes backups, with its version.
const PROGRAM: &str = concat!("charliehub-provider ", env!("CARGO_PKG_VERSION"));

/// What both directions do first. Text must not depend on who reads it, and a large database is no mistake.
const SETTINGS: &str = "SET LOCAL search_path = charliehub, pg_temp; SET LOCAL timezone = 'UTC';
    SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex';
    SET LOCAL extra_float_digits = 3; SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '10s';
    SET LOCAL client_min_messages = warning";

/// Why there is no backup, or why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is nothing to back up: {0} has no schema charliehub; is it the right database? A start makes it")]
    Nothing(String),
    #[error("the schema was being changed; try again")]
    Changing,
    #[error("{name}: {source}")]
    Archive { name: String, source: archive::Error },
    #[error("{name} is no whole backup: {what}")]
    Odd { name: String, what: String },
    #[error("{}: {source}{}", path.display(), hint(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is there and is no backup; name another file")]
    Occupied(PathBuf),
    #[error(
        "it was made at schema version {made}, and this build knows {known}; install the newer charliehub-provider, {by} or later"
    )]
    Newer { made: i32, known: i32, by: String },
    #[error(
        "its migration {0} is not the one of this build; restore it with the charliehub-provider that made it: {1}"
    )]
    OtherMigration(String, String),
    #[error(
        "{database} is not empty: {what}; say --replace to put the backup in its place (what is there is backed up first)"
    )]
    NotEmpty { database: String, what: String },
    #[error("table {0} came back otherwise than it was backed up; nothing was changed")]
    Differs(String),
    #[error("the rows compile to digest {found}, and did to {wanted}; nothing was changed")]
    OtherDigest { found: String, wanted: String },
    #[error("the audit is not whole any more: {0}; nothing was changed")]
    Broken(String),
    #[error("a session holds a lock that is needed; end long transactions, or stop what writes, and try again")]
    Locked,
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
    #[error(transparent)]
    Database(postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => Self::Locked,
            _ => Self::Database(error.into()),
        }
    }
}

impl Error {
    fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

const FULL: &str = "; free some space, keep fewer (--keep), or name another directory";

/// What mends it.
fn hint(error: &io::Error) -> &'static str {
    let kinds: [(io::ErrorKind, &str); 5] = [
        (io::ErrorKind::StorageFull, FULL),
        (io::ErrorKind::QuotaExceeded, FULL),
        (
            io::ErrorKind::PermissionDenied,
            "; backups are for their owner only: run this as the user of charliehub-provider, or as root",
        ),
        (io::ErrorKind::NotFound, "; is the path right?"),
        (
            io::ErrorKind::ReadOnlyFilesystem,
            "; in a unit, name the directory in ReadWritePaths= or use that of StateDirectory=",
        ),
    ];
    kinds.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, hint)| hint)
}

/// A hash of what decides the digest beside the rows. It says no more than whether two are the same.
fn fingerprint(settings: &Settings) -> String {
    hex(&Sha256::digest(format!("{settings:?}")))
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
