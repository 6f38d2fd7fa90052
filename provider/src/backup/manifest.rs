//! What a backup says of itself, in its last entry: by that it is judged before a byte is written.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::audit::{Broken, Ends};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub made_at: Timestamp,
    /// The program and its version.
    pub made_by: String,
    /// PostgreSQL's version.
    pub server: String,
    /// Where it was: hosts and database, without user and password.
    pub database: String,
    /// The migrations that were applied, in order.
    pub migrations: Vec<Migration>,
    /// The newest revision in it, with its token; none in a database that never had one.
    pub revision: i64,
    pub token: Option<Uuid>,
    /// What its rows compile to; none where the schema was older than the program.
    pub digest: Option<String>,
    /// A hash of what else decides that: `[compile]` and `[access]`.
    pub settings: String,
    /// In an order in which they can be filled.
    pub tables: Vec<Table>,
    pub sequences: Vec<Sequence>,
    /// Where the audit ended.
    pub audit: Ends,
    /// What of the audit was not whole then.
    pub broken: Vec<Broken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    pub version: i32,
    pub name: String,
    pub sha256: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
    pub rows: u64,
    /// Of its rows in COPY's text format, in the order of the primary key.
    pub sha256: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sequence {
    pub name: String,
    pub last_value: i64,
}

impl Manifest {
    /// The version of the schema.
    pub fn version(&self) -> i32 {
        self.migrations.iter().map(|one| one.version).max().unwrap_or_default()
    }

    /// The rows of a table; 0 when it has none such.
    pub fn rows(&self, table: &str) -> u64 {
        self.tables.iter().find(|one| one.name == table).map_or(0, |one| one.rows)
    }
}
