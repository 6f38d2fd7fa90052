//! How the database is reached: from a connection string to a connection on which our rights and limits are set.
//!
//! A `Database` is an address that was checked, with its TLS set-up. Hosts are tried in the order given,
//! each with a deadline of its own over the whole exchange (a stopped postmaster accepts connections and says nothing),
//! and one that cannot write is skipped. Dead peers are found by keepalives within 11 s even where a deadline has a bug.
//!
//! A login that changes while we run is taken by [`Database::renew`]: whoever connects from then on uses it.
//!
//! [`migrate`] makes our tables; [`private`] runs a PostgreSQL of our own when none is configured.

mod error;
pub mod migrate;
mod pool;
pub mod private;
pub mod tls;
mod url;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::error::Error;
pub use self::pool::{Pool, Pooled};

/// The half of a connection that does the I/O. Whoever opened it drives it: the listener by `poll_message`.
pub type Connection = tokio_postgres::Connection<Socket, tls::Stream>;

/// The oldest PostgreSQL that has what our schema needs (`UNIQUE NULLS NOT DISTINCT`).
pub const OLDEST: u32 = 15;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const USER_TIMEOUT: Duration = Duration::from_secs(6);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// What every session of ours has. The role is taken only where it may be and has rights in this database.
const SESSION: &str = "
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '30s';
    SET search_path = charliehub, public;
    SELECT set_config('role', rolname, false) FROM pg_roles
     WHERE rolname = 'charliehub_app'
       AND pg_has_role(session_user, oid,
                       CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
       AND has_schema_privilege(oid, to_regnamespace('charliehub')::oid, 'USAGE');";

/// Where the database is and how to get in. Cheap to clone; prints without secrets.
#[derive(Clone)]
pub struct Database {
    inner: Arc<ArcSwap<Inner>>,
    login: Arc<Login>,
}

/// What happens to the login while we run.
struct Login {
    /// Since when the one that is used now is used.
    since: watch::Sender<Instant>,
    /// The server did not take it.
    refused: Notify,
}

#[derive(Clone)]
struct Inner {
    /// One configuration for each host, in the order in which they are tried.
    hosts: Vec<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
    /// `sslmode` and `sslrootcert` as they were given.
    ssl: [(&'static str, Option<String>); 2],
    /// For each host, over the whole exchange; none waits for ever.
    timeout: Option<Duration>,
}

impl Database {
    /// Reads `postgres://user:password@host,host/database?options` or `host=.. user=..`, with libpq's names.
    ///
    /// Defaults: `connect_timeout=3` for each host, `target_session_attrs=read-write`, `sslmode=prefer`, keepalives.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (ours, rest) = url::split(url.trim()).map_err(Error::Url)?;
        let (mode, connector) = tls::connector(ours.ssl_mode.as_deref(), ours.ssl_root.as_deref())?;
        let mut config: tokio_postgres::Config = rest.parse().map_err(|error| Error::Url(error::cause(&error)))?;
        config.ssl_mode(mode);
        config.target_session_attrs(ours.session.unwrap_or(TargetSessionAttrs::ReadWrite));
        config.tcp_user_timeout(ours.user_timeout.unwrap_or(USER_TIMEOUT));
        if config.get_keepalives_idle() == tokio_postgres::Config::new().get_keepalives_idle() {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVE_RETRIES);
        }
        let timeout = match ours.connect_timeout {
            None => Some(CONNECT_TIMEOUT),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
        };
        let hosts = each_host(&config)?;
        let ssl = [("PGSSLMODE", ours.ssl_mode), ("PGSSLROOTCERT", ours.ssl_root)];
        Ok(Self::new(Inner { hosts, tls: connector, ssl, timeout }))
    }

    /// A server on this machine: the socket in `directory`, as `user`, who needs no password.
    pub fn local(directory: &Path, user: &str, database: &str) -> Result<Self, Error> {
        let (mode, connector) = tls::connector(Some("disable"), None)?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(directory).port(5432).user(user).dbname(database).ssl_mode(mode);
        let ssl = [("PGSSLMODE", None), ("PGSSLROOTCERT", None)];
        let timeout = Some(CONNECT_TIMEOUT);
        Ok(Self::new(Inner { hosts: vec![config], tls: connector, ssl, timeout }))
    }

    fn new(inner: Inner) -> Self {
        let login = Login { since: watch::Sender::new(Instant::now()), refused: Notify::new() };
        Self { inner: Arc::new(ArcSwap::from_pointee(inner)), login: Arc::new(login) }
    }

    /// From now on connects as this URL says; for all clones. What is connected stays so: see [`Database::renewed`].
    pub fn renew(&self, url: &str) -> Result<(), Error> {
        self.inner.store(Self::parse(url)?.inner.load_full());
        self.login.since.send_replace(Instant::now());
        Ok(())
    }

    /// Tells when another login is used. Connections that are older should be given up.
    pub fn renewed(&self) -> watch::Receiver<Instant> {
        self.login.since.subscribe()
    }

    /// Ends when the server has refused the login.
    pub async fn refused(&self) {
        self.login.refused.notified().await;
    }

    /// As [`Error::connecting`]; who looks after the login hears of it.
    fn connecting(&self, config: &tokio_postgres::Config, error: tokio_postgres::Error) -> Error {
        let error = Error::connecting(config, error);
        if matches!(error, Error::Refused { .. }) {
            self.login.refused.notify_one();
        }
        error
    }

    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut inner = Inner::clone(&self.inner.load());
        for host in &mut inner.hosts {
            host.dbname(name);
        }
        Self::new(inner)
    }

    /// Connects to the first host that lets us write. What is returned has the rights of the user who logged in: call
    /// [`assume_role`] next, unless it is to migrate.
    pub async fn connect(&self, application_name: &str) -> Result<(Client, Connection), Error> {
        let mut worst: Option<Error> = None;
        let inner = self.inner.load_full();
        for config in &inner.hosts {
            match self.connect_host(&inner, config, application_name).await {
                Ok(connected) => return Ok(connected),
                Err(error) => worst = Some(error.or_more_telling(worst)),
            }
        }
        Err(worst.unwrap_or_else(|| Error::Url("it names no host".to_owned())))
    }

    async fn connect_host(
        &self,
        inner: &Inner,
        config: &tokio_postgres::Config,
        application_name: &str,
    ) -> Result<(Client, Connection), Error> {
        let mut config = config.clone();
        config.application_name(application_name);
        let connecting = config.connect(inner.tls.clone());
        let connected = match inner.timeout {
            Some(limit) => {
                timeout(limit, connecting).await.map_err(|_| Error::Silent { at: address(&config), after: limit })?
            }
            None => connecting.await,
        };
        let (client, connection) = connected.map_err(|error| self.connecting(&config, error))?;
        let version = connection.parameter("server_version").unwrap_or_default();
        match major(version) {
            Some(major) if major < OLDEST => Err(Error::TooOld { at: address(&config), version: version.to_owned() }),
            _ => Ok((client, connection)),
        }
    }

    /// A pool of at most `max` connections, each as [`assume_role`] leaves it. Opens none before it is asked.
    pub fn pool(&self, max: usize) -> Pool {
        Pool::new(self.clone(), max)
    }

    /// `host:port,host:port/database`: for logs and people, without user and password.
    pub fn display(&self) -> String {
        let inner = self.inner.load();
        let hosts: Vec<_> = inner.hosts.iter().map(address).collect();
        format!("{}/{}", hosts.join(","), inner.hosts.first().map(database).unwrap_or_default())
    }

    /// What `psql` needs to get to the same place: variables of libpq. Holds the password; for a child process only.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let inner = self.inner.load();
        let Some(first) = inner.hosts.first() else { return Vec::new() };
        let list = |of: fn(&tokio_postgres::Config) -> String| -> String {
            inner.hosts.iter().map(of).collect::<Vec<_>>().join(",")
        };
        let mut variables = vec![
            ("PGHOST", list(host)),
            ("PGPORT", list(|config| port(config).to_string())),
            ("PGDATABASE", database(first).to_owned()),
            ("PGTARGETSESSIONATTRS", "read-write".to_owned()),
            ("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT.as_secs().to_string()),
        ];
        variables.extend(inner.ssl.iter().filter_map(|(name, value)| Some((*name, value.clone()?))));
        variables.extend(first.get_user().map(|user| ("PGUSER", user.to_owned())));
        let password = first.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        variables.extend(password.map(|password| ("PGPASSWORD", password)));
        variables
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.display()).finish()
    }
}

/// Gives up what we do not need: role `charliehub_app` where it may be taken, and limits on locks and idle transactions,
/// so that no mistake of ours stops other writers for long.
pub async fn assume_role(client: &Client) -> Result<(), Error> {
    client.batch_execute(SESSION).await.map_err(Error::from)
}

/// One configuration for each host, so that each gets its own deadline and its own rules: a socket has no TLS.
fn each_host(config: &tokio_postgres::Config) -> Result<Vec<tokio_postgres::Config>, Error> {
    let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = names.len().max(addresses.len());
    if count == 0 {
        return Err(Error::Url("it names no host; write postgres://user@host/database".to_owned()));
    }
    if (!addresses.is_empty() && !names.is_empty() && names.len() != addresses.len())
        || (ports.len() > 1 && ports.len() != count)
    {
        return Err(Error::Url("host, hostaddr and port name different numbers of servers".to_owned()));
    }
    let hosts = (0..count).map(|at| {
        let mut one = tokio_postgres::Config::new();
        one.port(ports.get(at).or(ports.first()).copied().unwrap_or(5432))
            .ssl_mode(config.get_ssl_mode())
            .ssl_negotiation(config.get_ssl_negotiation())
            .channel_binding(config.get_channel_binding())
            .target_session_attrs(config.get_target_session_attrs())
            .keepalives(config.get_keepalives())
            .keepalives_idle(config.get_keepalives_idle());
        match (names.get(at), addresses.get(at)) {
            (Some(Host::Unix(directory)), _) => {
                one.host_path(directory).ssl_mode(SslMode::Disable);
            }
            (Some(Host::Tcp(name)), _) => {
                one.host(name);
            }
            (None, Some(address)) => {
                one.host(address.to_string()); // a name is needed for TLS
            }
            (None, None) => {}
        }
        addresses.get(at).map(|address| one.hostaddr(*address));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_tcp_user_timeout().map(|limit| one.tcp_user_timeout(*limit));
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        one
    });
    Ok(hosts.collect())
}

fn host(config: &tokio_postgres::Config) -> String {
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(directory)) => directory.display().to_string(),
        None => String::new(),
    }
}

fn port(config: &tokio_postgres::Config) -> u16 {
    config.get_ports().first().copied().unwrap_or(5432)
}

fn database(config: &tokio_postgres::Config) -> &str {
    config.get_dbname().or(config.get_user()).unwrap_or_default()
}

fn address(config: &tokio_postgres::Config) -> String {
    let host = host(config);
    if host.starts_with('/') { host } else { format!("{host}:{}", port(config)) }
}

/// `15.18 (Debian 15.18-1)`, `17beta1` -> 15, 17.
fn major(version: &str) -> Option<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests;
