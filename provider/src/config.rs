//! Turns a file, the environment and flags into a [`Config`] that cannot be wrong.
//!
//! In order: every source is read into `settings`, where an unknown key is refused and the nearest valid one named; a
//! flag beats the environment, which beats a systemd credential, which beats the file; then each value is read as its
//! type and held against its neighbours here. Whoever holds a [`Config`] checks nothing again.
//!
//! Every [`Error`] is one line: where, what, and how to mend it.

mod ddns;
mod selector;
mod settings;
#[cfg(test)]
mod tests;
mod traefik;
mod value;
mod webhook;

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use charliehub_proto::traefik::since::Version;
use charliehub_secret::Source;
use http::HeaderName;
use ipnet::IpNet;

pub use self::{
    ddns::{Ddns, Mode, Provider as DnsProvider, Zone},
    selector::{Selector, Share},
    webhook::{Key, Webhook},
};
use self::{settings::Settings, value::host_of};
use crate::compile::Coalesce;

/// Where the settings are on a host of its own.
pub const DEFAULT: &str = "/etc/charliehub/provider.toml";

/// The user's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub serve: Serve,
    pub database: Database,
    pub compile: Compile,
    pub access: Access,
    pub guard: Guard,
    pub history: History,
    pub agents: Agents,
    pub ddns: Ddns,
    pub audit: Audit,
    pub rehearse: Rehearse,
    /// The Traefiks whose APIs `check` asks.
    pub traefik: Vec<Traefik>,
    /// Who is told what happens.
    pub webhooks: Vec<Webhook>,
    pub log: Log,
}

/// Section `[serve]`.
#[derive(Clone, Debug)]
pub struct Serve {
    pub listen: SocketAddr,
    /// The longest that a poll is held.
    pub max_wait: Duration,
    /// Absolute. Not made yet.
    pub data_dir: PathBuf,
    /// Plain HTTP is wanted on an address that is not loopback.
    pub insecure: bool,
    /// Changes of rows must name the version that they are about.
    pub strict_locking: bool,
    /// Requests to the API that each token may send: a second, and at once.
    pub rate_limit: u32,
    pub rate_burst: u32,
    pub tls: Option<Tls>,
    /// Names beside our own that a `Host` header may hold, in lower case.
    pub allowed_hosts: BTreeSet<String>,
}

/// The certificate chain and key that we serve with, and who signs our clients, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities whose clients need no token. None: no certificate is asked for.
    pub client_ca: Option<PathBuf>,
}

/// Section `[database]`.
#[derive(Clone, Debug)]
pub struct Database {
    /// None: a private PostgreSQL below the data directory.
    pub url: Option<Secret>,
    /// Beside the URL, so that the URL can be shown.
    pub password: Option<Secret>,
    /// Where the two can be read again, for a password that changes while we run.
    pub url_source: Option<Source>,
    pub password_source: Option<Source>,
    /// The system user of the private PostgreSQL when we are root.
    pub run_as: String,
    /// Where `initdb` and `postgres` are, when not where we look.
    pub bin_dir: Option<PathBuf>,
    /// Migrate at start.
    pub migrate: bool,
}

impl Database {
    /// True when something of the login can change while we run.
    pub fn can_change(&self) -> bool {
        self.url_source.is_some() || self.password_source.is_some()
    }

    /// True when a command is asked for something of the login.
    pub fn is_asked_for(&self) -> bool {
        [&self.url_source, &self.password_source].iter().any(|source| matches!(source, Some(Source::Command(_))))
    }

    /// [`Database::connection_string`] as files and commands have it now. Blocks while it reads.
    pub fn read_again(&self) -> Result<Option<Secret>, charliehub_secret::Error> {
        let read = |source: &Option<Source>, known: &Option<Secret>| match source {
            Some(source) => source.read().map(|text| Some(Secret::new(text))),
            None => Ok(known.clone()),
        };
        let (url, password) = (read(&self.url_source, &self.url)?, read(&self.password_source, &self.password)?);
        Ok(Self { url, password, ..self.clone() }.connection_string())
    }

    /// The URL with the password that was given beside it. None: a private PostgreSQL.
    pub fn connection_string(&self) -> Option<Secret> {
        let url = self.url.as_ref()?.reveal();
        let Some(password) = &self.password else { return self.url.clone() };
        let password = password.reveal();
        if !url.contains("://") {
            let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
            return Some(Secret::new(format!("{url} password='{quoted}'")));
        }
        let mut joined = format!("{url}{}password=", if url.contains('?') { '&' } else { '?' });
        for byte in password.bytes() {
            let _ = write!(joined, "%{byte:02X}"); // a String takes all
        }
        Some(Secret::new(joined))
    }
}

/// Section `[compile]`. What is `None` is not checked.
#[derive(Clone, Debug)]
pub struct Compile {
    pub entry_points: Option<BTreeSet<String>>,
    pub cert_resolvers: Option<BTreeSet<String>>,
    pub default_resolver: Option<String>,
    /// Certificate and key as paths that Traefik sees.
    pub default_certificate: Option<(String, String)>,
    /// Us as Traefik sees us, without a slash at the end. Ask [`Config::self_url`], which knows the default.
    pub self_url: Option<String>,
    /// Whether rows that differ in their host alone share routers.
    pub coalesce: Coalesce,
}

/// Section `[access]`.
#[derive(Clone, Debug)]
pub struct Access {
    /// Who is internal. Empty: internal rows answer 503.
    pub internal_networks: Vec<IpNet>,
    pub forward_auth: Option<ForwardAuth>,
    /// Proxies whose word about a user is taken. None: nobody's.
    pub trusted: Option<TrustedProxies>,
}

/// Whom we believe that a user was let in, and what the user's groups may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    pub user_header: HeaderName,
    pub groups_header: HeaderName,
    /// A group and the name of its role.
    pub group_roles: Vec<(String, String)>,
}

/// The service that rows with `auth_required` ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    pub address: String,
    pub auth_response_headers: Vec<String>,
}

/// Section `[guard]`: the largest step that is taken without an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub max_removed: u32,
    pub max_removed_percent: u8,
    pub max_quarantined: u32,
    pub max_quarantined_percent: u8,
    /// What opens a protected place to the internet waits for an administrator.
    pub hold_opening: bool,
    /// What drops the login of a place waits for an administrator.
    pub hold_login_loss: bool,
    /// Steps within it count together.
    pub window: Duration,
    /// What an instance refuses is replaced by something that it takes: an earlier version, or 503 in its place.
    pub containment: bool,
    /// Of what an earlier version is served again, where it worked and the newest does not.
    pub rollback_on_regression: Regression,
}

/// Section `[history]`: what is kept of snapshots. Of `keep` and `age` whichever is more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub keep: u32,
    pub age: Duration,
    /// At most so many bytes of compressed bodies.
    pub max_bytes: u64,
}

/// Section `[agents]`: the agents on the edge hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agents {
    /// One that has not reported for longer is silent.
    pub silent_after: Duration,
}

/// Section `[rehearse]`: the Traefik that tries a configuration before it goes live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearse {
    /// Its binary. None: rehearsals are off.
    pub traefik: Option<PathBuf>,
    /// The longest that a rehearsal may take. None: as the last one suggests.
    pub timeout: Option<Duration>,
}

/// Of what an earlier version is served again to an instance on which the newest does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regression {
    Nothing,
    Fragments,
    /// Domains too.
    All,
}

const REGRESSION: &[(&str, Regression)] = &[
    ("fragments", Regression::Fragments),
    ("all", Regression::All),
    ("true", Regression::All),
    ("off", Regression::Nothing),
    ("false", Regression::Nothing),
];

/// One `[[traefik]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traefik {
    /// Its name in `?instance=`.
    pub instance: String,
    /// Base URL of its API, without a slash at the end. None: what it runs cannot be known.
    pub api: Option<String>,
    /// What its API wants to be shown, as the header `Authorization`.
    pub authorization: Option<Secret>,
    /// Who may have signed the certificate of an https API; none: the authorities of this machine.
    pub ca_file: Option<PathBuf>,
    /// Where its entry points are reached; none: at the host of its API.
    pub host: Option<String>,
    /// What it is taken for until its API tells its version.
    pub min_version: Option<Version>,
    /// Which rows it is given; none: all.
    pub selector: Option<Selector>,
}

/// Section `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Whose commits are in the report of the audit. Absolute.
    pub git_folders: Vec<PathBuf>,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: Format,
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    /// Where each change is a line; none when that is turned off.
    pub changes_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Text that must not be shown: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<String>,
    pub database_url: Option<String>,
    pub listen: Option<String>,
    pub insecure: bool,
    pub no_migrate: bool,
}

/// Which setting is wrong, what is wrong with it, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}; {remedy}")]
pub struct Error {
    /// A file and line, a variable, a flag.
    pub at: String,
    pub what: String,
    pub remedy: String,
}

impl Error {
    fn new(at: impl fmt::Display, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { at: at.to_string(), what: what.into(), remedy: remedy.into() }
    }
}

/// Headers that Authelia answers with about the user, which backends expect.
const AUTH_RESPONSE_HEADERS: [&str; 4] = ["Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name"];

impl Config {
    /// Reads this process's settings: the file that `--config` or `CHARLIEHUB_CONFIG` names, else [`DEFAULT`] where it is
    /// there; its environment; `flags`.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let named = flags.config.is_some()
            || environment.iter().any(|(name, path)| name == "CHARLIEHUB_CONFIG" && !path.is_empty());
        let config = if named || !Path::new(DEFAULT).exists() { flags.config.clone() } else { Some(DEFAULT.into()) };
        let flags = Flags { config, ..flags.clone() };
        Self::from_sources(&flags, &environment, rustix::process::geteuid().is_root())
    }

    /// [`Config::load`] with everything said: the environment, and whether we are root.
    pub fn from_sources(flags: &Flags, environment: &[(String, String)], root: bool) -> Result<Self, Error> {
        let variable = |name: &str| {
            environment.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
        };
        let mut settings = Settings::default();
        if let Some(path) = flags.config.as_deref().or(variable("CHARLIEHUB_CONFIG").map(Path::new)) {
            let text = fs::read_to_string(path).map_err(|error| {
                Error::new(
                    path.display(),
                    format!("cannot be read: {error}"),
                    "name a readable TOML file with --config",
                )
            })?;
            settings.add_file(path, &text)?;
        }
        if let Some(directory) = variable("CREDENTIALS_DIRECTORY") {
            settings.add_credentials(Path::new(directory));
        }
        settings.add_environment(environment)?;
        settings.add_flags(flags);

        let serve = serve(&settings, default_data_dir(&variable, root))?;
        Ok(Self {
            database: database(&settings)?,
            compile: compile(&settings)?,
            access: access(&settings)?,
            guard: Guard {
                max_removed: settings.number("guard.max_removed", 0..=u32::MAX)?.unwrap_or(10),
                max_removed_percent: settings.percent("guard.max_removed_percent")?.unwrap_or(30),
                max_quarantined: settings.number("guard.max_quarantined", 0..=u32::MAX)?.unwrap_or(10),
                max_quarantined_percent: settings.percent("guard.max_quarantined_percent")?.unwrap_or(10),
                hold_opening: settings.boolean("guard.hold_opening")?.unwrap_or(false),
                hold_login_loss: settings.boolean("guard.hold_login_loss")?.unwrap_or(false),
                window: settings.duration("guard.window")?.unwrap_or(Duration::from_mins(10)),
                containment: settings
                    .choice("guard.containment", &[("quarantine", true), ("off", false)])?
                    .unwrap_or(true),
                rollback_on_regression: settings
                    .choice("guard.rollback_on_regression", REGRESSION)?
                    .unwrap_or(Regression::Fragments),
            },
            history: History {
                keep: settings.number("history.keep", 1..=1_000_000)?.unwrap_or(100),
                age: settings.duration("history.age")?.unwrap_or(Duration::from_hours(30 * 24)),
                max_bytes: settings.bytes("history.max_bytes")?.unwrap_or(2 << 30),
            },
            agents: Agents {
                silent_after: settings.duration("agents.silent_after")?.unwrap_or(Duration::from_mins(2)),
            },
            ddns: settings.ddns()?,
            audit: audit(&settings)?,
            rehearse: rehearse(&settings)?,
            traefik: settings.traefik()?,
            webhooks: settings.webhooks()?,
            log: log(&settings, &serve.data_dir)?,
            serve,
        })
    }

    /// Us as Traefik sees us: as configured, else the address that we listen on. None when that is no address to call.
    pub fn self_url(&self, bound: SocketAddr) -> Option<String> {
        let scheme = if self.serve.tls.is_some() { "https" } else { "http" };
        let callable = !bound.ip().is_unspecified() && bound.port() != 0;
        self.compile.self_url.clone().or_else(|| callable.then(|| format!("{scheme}://{bound}")))
    }

    /// Names that a `Host` header may hold beside IP addresses and `localhost`.
    pub fn hosts(&self) -> BTreeSet<String> {
        let own = self.compile.self_url.as_deref().and_then(host_of).map(str::to_ascii_lowercase);
        self.serve.allowed_hosts.iter().cloned().chain(own).collect()
    }
}

fn serve(settings: &Settings, default_data_dir: PathBuf) -> Result<Serve, Error> {
    let listen = settings.listen("serve.listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8001)));
    let insecure = settings.boolean("serve.insecure")?.unwrap_or(false);
    let client_ca = settings.path("serve.client_ca")?;
    let tls = match (settings.path("serve.tls_certificate")?, settings.path("serve.tls_key")?) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key, client_ca }),
        (None, None) if client_ca.is_some() => {
            return Err(Error::new(
                settings.place("serve.client_ca"),
                "`serve.client_ca` is set and `serve.tls_certificate` is not: clients show a certificate over TLS only",
                "set `serve.tls_certificate` and `serve.tls_key` too",
            ));
        }
        (None, None) => None,
        (certificate, _) => {
            let (given, missing) =
                if certificate.is_some() { ("tls_certificate", "tls_key") } else { ("tls_key", "tls_certificate") };
            let what = format!("`serve.{given}` is set and `serve.{missing}` is not");
            return Err(Error::new(settings.place(&format!("serve.{given}")), what, "set both, or neither"));
        }
    };
    if !is_loopback(listen.ip()) && tls.is_none() && !insecure {
        return Err(Error::new(
            settings.place("serve.listen"),
            format!("{listen} is not loopback, and tokens would cross the network in the clear"),
            "set `serve.tls_certificate` and `serve.tls_key`, or listen on 127.0.0.1, or accept it with --insecure",
        ));
    }
    let max_wait = settings.duration("serve.max_wait")?.unwrap_or(Duration::from_mins(1));
    if max_wait > Duration::from_hours(1) {
        let at = settings.place("serve.max_wait");
        return Err(Error::new(at, "a poll held for more than an hour is cut by something between", "use 60s"));
    }
    let mut allowed_hosts = BTreeSet::new();
    for host in settings.list("serve.allowed_hosts")?.unwrap_or_default() {
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/:*@".contains(c)) {
            let what = format!("`{host}` is not a host name");
            return Err(Error::new(
                settings.place("serve.allowed_hosts"),
                what,
                "write it as `edge.example.org`, without scheme or port",
            ));
        }
        allowed_hosts.insert(host.to_ascii_lowercase());
    }
    let data_dir = settings.path("serve.data_dir")?.unwrap_or(default_data_dir);
    let data_dir = std::path::absolute(&data_dir)
        .map_err(|error| Error::new(settings.place("serve.data_dir"), error.to_string(), "write an absolute path"))?;
    Ok(Serve {
        listen,
        max_wait,
        data_dir,
        insecure,
        strict_locking: settings.boolean("serve.strict_locking")?.unwrap_or(false),
        rate_limit: settings.number("serve.rate_limit", 1..=1_000_000)?.unwrap_or(1000),
        rate_burst: settings.number("serve.rate_burst", 1..=1_000_000)?.unwrap_or(2000),
        tls,
        allowed_hosts,
    })
}

fn database(settings: &Settings) -> Result<Database, Error> {
    let url = settings.secret("database.url")?;
    if let Some(url) = &url
        && !["postgres://", "postgresql://"].iter().any(|scheme| url.reveal().starts_with(scheme))
        && !url.reveal().contains('=')
    {
        return Err(Error::new(
            settings.place("database.url"),
            "`database.url` is neither a URL of PostgreSQL nor `key=value` pairs",
            "write it as postgresql://USER@HOST:5432/DATABASE",
        ));
    }
    let password = settings.secret("database.password")?;
    if password.is_some() && url.is_none() {
        return Err(Error::new(
            settings.place("database.password"),
            "a password without `database.url` has no server to go to",
            "set `database.url` too, or neither for a private PostgreSQL",
        ));
    }
    Ok(Database {
        url,
        password,
        url_source: settings.source("database.url")?,
        password_source: settings.source("database.password")?,
        run_as: settings.text("database.run_as")?.unwrap_or_else(|| "postgres".to_owned()),
        bin_dir: settings.path("database.bin_dir")?,
        migrate: settings.boolean("database.migrate")?.unwrap_or(true),
    })
}

fn compile(settings: &Settings) -> Result<Compile, Error> {
    let names = |key| settings.list(key).map(|list| list.map(BTreeSet::from_iter));
    let cert_resolvers: Option<BTreeSet<String>> = names("compile.cert_resolvers")?;
    let default_resolver = settings.text("compile.default_resolver")?;
    if let (Some(known), Some(default)) = (&cert_resolvers, &default_resolver)
        && !known.contains(default)
    {
        return Err(Error::new(
            settings.place("compile.default_resolver"),
            format!("`{default}` is not in `compile.cert_resolvers`"),
            "add it there, or name one of those",
        ));
    }
    let certificate = settings.text("compile.default_certificate.cert_file")?;
    let key = settings.text("compile.default_certificate.key_file")?;
    let default_certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let given = if certificate.is_some() { "cert_file" } else { "key_file" };
            let at = settings.place(&format!("compile.default_certificate.{given}"));
            let what = format!("`default_certificate` has `{given}` alone");
            return Err(Error::new(at, what, "give `cert_file` and `key_file`, as paths that Traefik sees"));
        }
    };
    Ok(Compile {
        entry_points: names("compile.entry_points")?,
        cert_resolvers,
        default_resolver,
        default_certificate,
        self_url: settings.url("compile.self_url")?,
        coalesce: coalesce(settings)?,
    })
}

fn coalesce(settings: &Settings) -> Result<Coalesce, Error> {
    match settings.text("compile.coalesce")?.as_deref() {
        None | Some("auto") => Ok(Coalesce::Auto),
        Some("off") => Ok(Coalesce::Off),
        Some(other) => Err(Error::new(
            settings.place("compile.coalesce"),
            format!("`{other}` is not a way to put rows together"),
            "write `auto`, or `off` for a router for each row",
        )),
    }
}

fn access(settings: &Settings) -> Result<Access, Error> {
    let address = settings.url("access.forward_auth.address")?;
    let headers = settings.list("access.forward_auth.auth_response_headers")?;
    let forward_auth = match (address, headers) {
        (Some(address), headers) => Some(ForwardAuth {
            address,
            auth_response_headers: headers
                .unwrap_or_else(|| AUTH_RESPONSE_HEADERS.iter().map(ToString::to_string).collect()),
        }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Error::new(
                settings.place("access.forward_auth.auth_response_headers"),
                "`forward_auth` has no `address`",
                "write where Traefik asks, such as http://authelia:9091/api/authz/forward-auth",
            ));
        }
    };
    let internal_networks = settings.networks("access.internal_networks")?;
    Ok(Access { internal_networks, forward_auth, trusted: trusted(settings)? })
}

fn rehearse(settings: &Settings) -> Result<Rehearse, Error> {
    let traefik = settings.path("rehearse.traefik")?;
    if let Some(path) = traefik.as_ref().filter(|path| !path.is_absolute()) {
        let what = format!("`{}` depends on where we were started", path.display());
        return Err(Error::new(settings.place("rehearse.traefik"), what, "write the whole path, as /usr/bin/traefik"));
    }
    Ok(Rehearse { traefik, timeout: settings.duration("rehearse.timeout")? })
}

fn trusted(settings: &Settings) -> Result<Option<TrustedProxies>, Error> {
    let networks = settings.networks("access.trusted_proxies")?;
    let roles = settings.list("access.group_roles")?;
    let header = |key: &str, usual: &'static str| {
        let name = settings.text(key)?.unwrap_or_else(|| usual.to_owned());
        HeaderName::try_from(&name).map_err(|_| {
            Error::new(settings.place(key), format!("`{name}` is no name of a header"), format!("write it as {usual}"))
        })
    };
    let (user_header, groups_header) =
        (header("access.user_header", "Remote-User")?, header("access.groups_header", "Remote-Groups")?);
    let (given, missing) = match (networks.is_empty(), roles.as_ref().is_none_or(Vec::is_empty)) {
        (true, true) => return Ok(None),
        (false, false) => {
            let group_roles: Result<_, _> =
                roles.unwrap_or_default().iter().map(|text| group_role(settings, text)).collect();
            return Ok(Some(TrustedProxies { networks, user_header, groups_header, group_roles: group_roles? }));
        }
        (false, true) => ("access.trusted_proxies", "access.group_roles"),
        (true, false) => ("access.group_roles", "access.trusted_proxies"),
    };
    let what = format!("`{given}` is set and `{missing}` is not");
    Err(Error::new(settings.place(given), what, "set both: who is believed, and what its users' groups may do"))
}

fn group_role(settings: &Settings, text: &str) -> Result<(String, String), Error> {
    let pair = text.split_once('=').map(|(group, role)| (group.trim(), role.trim()));
    match pair {
        Some((group, role @ ("reader" | "editor" | "admin"))) if !group.is_empty() && !group.contains(',') => {
            Ok((group.to_owned(), role.to_owned()))
        }
        _ => Err(Error::new(
            settings.place("access.group_roles"),
            format!("`{text}` is not a group and its role"),
            "write it as ops=editor; the roles are reader, editor and admin",
        )),
    }
}

fn audit(settings: &Settings) -> Result<Audit, Error> {
    let git_folders: Vec<PathBuf> =
        settings.list("audit.git_folders")?.unwrap_or_default().into_iter().map(PathBuf::from).collect();
    if let Some(path) = git_folders.iter().find(|path| !path.is_absolute()) {
        let what = format!("`{}` depends on where we were started", path.display());
        return Err(Error::new(settings.place("audit.git_folders"), what, "write the whole path, as /opt/charliehub"));
    }
    Ok(Audit { git_folders })
}

fn log(settings: &Settings, data_dir: &Path) -> Result<Log, Error> {
    let format = match settings.text("log.format")?.as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            let what = format!("`{other}` is no log format");
            return Err(Error::new(settings.place("log.format"), what, "use text or json"));
        }
    };
    let filter = settings.text("log.filter")?.unwrap_or_else(|| "info".to_owned());
    tracing_subscriber::EnvFilter::try_new(&filter).map_err(|error| {
        Error::new(settings.place("log.filter"), format!("`{filter}`: {error}"), "use a level such as info or debug")
    })?;
    let changes_file = match settings.text("log.changes_file")?.as_deref() {
        None => Some(data_dir.join("changes.log")),
        Some("" | "off") => None,
        Some(path) => Some(PathBuf::from(path)),
    };
    Ok(Log { format, filter, changes_file })
}

/// Where state goes when nobody says: systemd's, the system's for root, the user's.
fn default_data_dir<'e>(variable: &impl Fn(&str) -> Option<&'e str>, root: bool) -> PathBuf {
    if let Some(first) = variable("STATE_DIRECTORY").and_then(|list| list.split(':').next()) {
        return PathBuf::from(first);
    }
    if root {
        return PathBuf::from("/var/lib/charliehub");
    }
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Path::new(variable("HOME").unwrap_or(".")).join(".local/state");
    state.unwrap_or_else(home).join("charliehub")
}

/// Loopback, in either family, also IPv4 within IPv6.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
