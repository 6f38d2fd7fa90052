//! Brings a Traefik's dynamic configuration in: what a row can say becomes a row, all else a fragment.
//!
//! Between the files of an edge that is run by hand (or the table of another system) and our tables. In order: [`read`]
//! reads and merges files as Traefik's file provider does; [`recognise`] guesses the row of each router; the rows are
//! compiled, and each stays only when it comes to what its router came to ([`expand`]); [`rank`] keeps the order in which
//! routers are tried; what no row says is kept as fragments, under names that we can hold ([`rename`]). [`settle`] does
//! that until nothing changes. [`plan`] holds it against the rows that are there, so that a second import changes nothing; [`write`] writes it in one signed
//! transaction.

mod expand;
mod lenient;
mod plan;
mod rank;
mod read;
mod recognise;
mod rename;
mod rule;
mod seed;
mod settle;
#[cfg(test)]
mod tests;
mod write;

use std::{io, path::PathBuf, sync::Arc};

use charliehub_proto::traefik::{Invalid, Kind};
use serde::Serialize;
use tokio_postgres::{Client, GenericClient};

pub use self::{
    plan::{Action, FragmentLine, Plan, RowLine},
    read::BRACES,
    write::write,
};
use crate::{compile::Settings, postgres, row::Rows};

/// What names a piece of Traefik's configuration.
type Name = (Kind, String);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: cannot be read: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: has no file that ends with .yml, .yaml, .toml or .json; name one", path.display())]
    NoFiles { path: PathBuf },
    #[error("{}: is called neither .yml, .yaml, .toml nor .json; rename it", path.display())]
    Extension { path: PathBuf },
    #[error("{}: has no http, tcp, udp or tls in it; name a file of Traefik's dynamic configuration", path.display())]
    NoConfiguration { path: PathBuf },
    #[error(
        "{}:{line}: has a template ({{{{ .. }}}}), which only Traefik can fill in; import what it comes to",
        path.display()
    )]
    Template { path: PathBuf, line: usize },
    #[error("{file}: {at}{colon}{reason}", file = file.display(), colon = if at.is_empty() { "" } else { ": " })]
    Invalid { file: PathBuf, at: String, reason: String },
    #[error("{file}: {kind} {name}: {invalid}; correct it", file = file.display())]
    Piece { file: PathBuf, kind: Kind, name: String, invalid: Invalid },
    #[error("{}: {kind} {name}: has an @, which names a provider; rename it, and what names it", file.display())]
    At { file: PathBuf, kind: Kind, name: String },
    #[error("{kind} {name} is in {} and in {}; rename or remove one of them", files[0], files[1])]
    Twice { kind: Kind, name: String, files: [String; 2] },
    #[error("{row} (router {router} of {file}): the database refuses it: {reason}; correct it, or remove it")]
    Refused { row: String, router: String, file: String, reason: String },
    #[error("there is no table `domains` with a column domain, domain_name or fqdn beside ours; name another database")]
    NoTable,
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Something that is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// That of a fragment, or `row`.
    pub kind: &'static str,
    pub name: String,
    pub file: Arc<str>,
    pub reason: String,
}

/// A name that we cannot hold, and what it is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renamed {
    pub kind: Kind,
    pub from: String,
    pub to: String,
    pub file: Arc<str>,
    pub reason: String,
}

/// What was read, before it is held against what is there.
#[derive(Clone)]
pub enum Source {
    Files(Box<Files>),
    Seed(seed::Table),
}

/// Traefik's configuration as it was found in files.
#[derive(Clone)]
pub struct Files(read::Found);

impl Source {
    /// Files, and directories with all below them.
    pub fn files(paths: &[PathBuf]) -> Result<Self, Error> {
        read::read(paths).map(|found| Self::Files(Box::new(Files(found))))
    }

    /// The table `domains` of the system that we succeed.
    pub async fn seed(client: &Client) -> Result<Self, Error> {
        seed::read(client).await.map(Self::Seed)
    }

    /// What has to be done so that the `existing` rows say it too.
    pub fn plan(self, existing: &Rows, settings: &Arc<Settings>) -> Plan {
        match self {
            Self::Files(files) => plan::of_files(files.0, existing, settings),
            Self::Seed(table) => plan::of_table(table, existing, settings),
        }
    }
}

/// All rows, with the lock that keeps others from writing until the transaction of `client` ends.
pub async fn existing(client: &impl GenericClient) -> Result<Rows, Error> {
    client.query_one("SELECT charliehub.lock_revision()", &[]).await?;
    Ok(crate::store::read::all(client).await?)
}
