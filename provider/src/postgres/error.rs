//! What can go wrong between us and PostgreSQL, in words that say how to mend it.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::{OLDEST, address, database, tls};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`database.url` cannot be used: {0}")]
    Url(String),
    #[error("`database.url` cannot be used: {0}")]
    TlsSetup(#[from] tls::Error),
    #[error("no answer from PostgreSQL at {at}: {why}; is it running there, and is the address right?")]
    Unreachable { at: String, why: String },
    #[error("no answer from PostgreSQL at {at} within {after:?}; is it stopped, or a firewall between?")]
    Silent { at: String, after: Duration },
    #[error("PostgreSQL at {at} is not ready: {why}; it is tried again")]
    NotReady { at: String, why: String },
    #[error("PostgreSQL at {at} is a standby, or read-only; name the primary too: postgres://host1,host2/{database}")]
    ReadOnly { at: String, database: String },
    #[error(
        "PostgreSQL at {at} refuses user {user}: {why}; check user and password in `database.url`, and pg_hba.conf"
    )]
    Refused { at: String, user: String, why: String },
    #[error("PostgreSQL at {at} has no database {name}; make it with: createdb {name}")]
    NoDatabase { at: String, name: String },
    #[error("PostgreSQL at {at} is version {version}; {OLDEST} or newer is needed")]
    TooOld { at: String, version: String },
    #[error("no TLS with PostgreSQL at {at}: {why}; check sslmode and sslrootcert in `database.url`")]
    Tls { at: String, why: String },
    #[error("all connections of the pool are in use and none came free within {0:?}")]
    Exhausted(Duration),
    #[error("PostgreSQL: {}", cause(.0))]
    Query(#[from] tokio_postgres::Error),
}

impl Error {
    /// True when waiting can help: the caller tries again, and serves what it has.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::NotReady { .. }
            | Self::ReadOnly { .. }
            | Self::Exhausted(_) => true,
            Self::Query(error) => error.code().map_or_else(
                || error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>),
                // connection, resources, locks and deadlocks, serialization, shutdown, read-only after a failover
                |code| {
                    ["08", "53", "55P03", "40", "57P", "25006", "25P03"]
                        .iter()
                        .any(|class| code.code().starts_with(class))
                },
            ),
            Self::Url(_)
            | Self::TlsSetup(_)
            | Self::Refused { .. }
            | Self::NoDatabase { .. }
            | Self::TooOld { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// The SQLSTATE, when PostgreSQL itself said no to what was asked.
    pub fn code(&self) -> Option<&SqlState> {
        if let Self::Query(error) = self { error.code() } else { None }
    }

    /// What an attempt to connect ended with, sorted by what mends it.
    pub(super) fn connecting(config: &tokio_postgres::Config, error: tokio_postgres::Error) -> Self {
        let at = address(config);
        let why = cause(&error);
        let name = database(config).to_owned();
        let Some(code) = error.code().map(SqlState::code) else {
            return match error.to_string().as_str() {
                "error performing TLS handshake" => Self::Tls { at, why },
                "invalid configuration" | "authentication error" => {
                    Self::Refused { at, user: config.get_user().unwrap_or_default().to_owned(), why }
                }
                _ if is_read_only(&error) => Self::ReadOnly { at, database: name },
                _ => Self::Unreachable { at, why },
            };
        };
        match code {
            "3D000" => Self::NoDatabase { at, name },
            "25006" => Self::ReadOnly { at, database: name },
            code if code.starts_with("28") => {
                Self::Refused { at, user: config.get_user().unwrap_or_default().to_owned(), why }
            }
            code if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                Self::NotReady { at, why }
            }
            _ => Self::Query(error),
        }
    }

    /// Of two hosts that failed, the one whose failure somebody can mend: an answer tells more than silence.
    pub(super) fn or_more_telling(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.rank() >= self.rank() => other,
            _ => self,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => 0,
            Self::ReadOnly { .. } => 1,
            Self::NotReady { .. } => 2,
            Self::Url(_)
            | Self::TlsSetup(_)
            | Self::Refused { .. }
            | Self::NoDatabase { .. }
            | Self::TooOld { .. }
            | Self::Tls { .. }
            | Self::Exhausted(_)
            | Self::Query(_) => 3,
        }
    }
}

/// tokio-postgres finds a server that does not write by asking, and says so with an error of its own.
fn is_read_only(error: &tokio_postgres::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none())
}

/// The innermost reason on one line: tokio-postgres itself says only "db error".
pub(super) fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail}", db.message()).replace('\n', " ");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().replace('\n', " ")
}
