//! From arguments to requests. Pure.
//!
//! What may stand in a field is said by the API alone; here is only how people write it.

use charliehub_proto::domain::{AccessTier, Domain, Environment, Protocol, Status, TlsMode};
use clap::{Args, ValueEnum};
use http::{HeaderValue, Method};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Rows of one page.
const PAGE: usize = 1000;

/// A request, as far as arguments decide it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Ask {
    pub(super) method: Method,
    /// With its query.
    pub(in crate::cli) path: String,
    /// For `If-Match`.
    pub(super) version: Option<i64>,
    /// For `X-Change-Reason`.
    pub(super) reason: Option<HeaderValue>,
    pub(super) body: Option<Map<String, Value>>,
}

impl Ask {
    pub(in crate::cli) fn get(path: String) -> Self {
        Self { method: Method::GET, path, version: None, reason: None, body: None }
    }

    pub(in crate::cli) fn write(
        method: Method,
        path: String,
        reason: Option<HeaderValue>,
        body: Option<Map<String, Value>>,
    ) -> Self {
        Self { method, path, version: None, reason, body }
    }
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only these; several are several flags
    #[arg(long, value_name = "STATUS")]
    status: Vec<Status>,
    #[arg(long)]
    environment: Vec<Environment>,
    #[arg(long)]
    protocol: Vec<Protocol>,
    #[arg(long)]
    tier: Vec<AccessTier>,
    #[arg(long)]
    site: Vec<String>,
    #[arg(long)]
    owner: Vec<String>,
    /// Words to be found in name, backend, owner or notes
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Such as -updated_at,domain
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
    /// At most so many; all when left out
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) limit: Option<usize>,
}

impl List {
    /// The first page.
    pub(super) fn ask(&self) -> Ask {
        let mut query = Query::default();
        query.all("status", &self.status);
        query.all("environment", &self.environment);
        query.all("protocol", &self.protocol);
        query.all("access_tier", &self.tier);
        query.all("site", &self.site);
        query.all("owner", &self.owner);
        query.all("q", &self.q);
        query.all("sort", &self.sort);
        query.all("limit", [self.limit.unwrap_or(PAGE).min(PAGE)].iter());
        Ask::get(query.on("/api/domains"))
    }
}

/// How a write is to be done.
#[derive(Debug, Args)]
struct Writing {
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// live: answer when it is served, ten seconds at most; commit: as soon as it is written
    #[arg(long, value_enum)]
    wait: Option<Wait>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    Live,
    Commit,
}

impl Writing {
    fn ask(&self, method: Method, path: &str, version: Option<i64>, body: Option<Map<String, Value>>) -> Ask {
        let mut query = Query::default();
        query.all("dry_run", self.dry_run.then_some("true").iter());
        let wait = self.wait.map(|wait| match wait {
            Wait::Live => "live",
            Wait::Commit => "commit",
        });
        query.all("wait", wait.iter());
        Ask { method, path: query.on(path), version, reason: self.reason.clone(), body }
    }
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The public name: a.example.org, or *.example.org for one label more
    #[arg(value_name = "NAME")]
    name: String,
    /// Where requests go
    #[arg(long, value_name = "HOST:PORT", value_parser = backend, conflicts_with_all = ["redirect_to", "service"],
          required_unless_present_any = ["redirect_to", "service", "fields"])]
    backend: Option<Backend>,
    /// Where clients are sent instead
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    redirect_to: Option<String>,
    /// What answers: a service of a fragment, or api@internal
    #[arg(long, value_name = "REF")]
    service: Option<String>,
    /// Only this path and what is below it
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Who may reach it: public, internal or restricted
    #[arg(long)]
    tier: Option<AccessTier>,
    /// Networks that may reach it
    #[arg(long, value_name = "NETWORK", num_args = 1..)]
    allow: Vec<IpNet>,
    /// Where its certificate comes from: acme, default, passthrough or none
    #[arg(long)]
    tls: Option<TlsMode>,
    /// A login is needed
    #[arg(long)]
    auth: bool,
    /// Any other field, as JSON or plain text
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = field)]
    fields: Vec<(String, Value)>,
    #[command(flatten)]
    writing: Writing,
}

impl Add {
    pub(super) fn ask(&self) -> Ask {
        let mut body = Map::new();
        let mut put = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(field.to_owned(), value);
            }
        };
        let service_type = self.redirect_to.as_ref().map(|_| "redirect").or(self.service.as_ref().map(|_| "reference"));
        put("domain", Some(json!(self.name)));
        put("service_type", service_type.map(Value::from));
        put("backend_host", self.backend.as_ref().map(|backend| json!(backend.host)));
        put("backend_port", self.backend.as_ref().map(|backend| json!(backend.port)));
        put("redirect_to", self.redirect_to.as_ref().map(|url| json!(url)));
        put("service_ref", self.service.as_ref().map(|name| json!(name)));
        put("path_prefix", self.path.as_ref().map(|path| json!(path)));
        put("access_tier", self.tier.map(|tier| json!(tier)));
        put("ip_allowlist", (!self.allow.is_empty()).then(|| json!(self.allow)));
        put("tls_mode", self.tls.map(|tls| json!(tls)));
        put("auth_required", self.auth.then_some(Value::Bool(true)));
        for (field, value) in &self.fields {
            put(field, Some(value.clone()));
        }
        self.writing.ask(Method::POST, "/api/domains", None, Some(body))
    }
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The row: its name, its name and path, or its id
    #[arg(value_name = "NAME|ID", value_parser = wanted)]
    pub(super) wanted: Wanted,
    /// A field and its new value, as JSON or plain text; without a value: none
    #[arg(required = true, value_name = "FIELD=VALUE", value_parser = field)]
    fields: Vec<(String, Value)>,
    /// Only if it is still this version; when left out, the one that is read
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    #[command(flatten)]
    writing: Writing,
}

impl Set {
    pub(super) fn ask(&self, row: &Domain) -> Ask {
        let version = self.if_version.unwrap_or(row.version);
        let body = self.fields.iter().cloned().collect();
        self.writing.ask(Method::PATCH, &format!("/api/domains/{}", row.id), Some(version), Some(body))
    }
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The row: its name, its name and path, or its id
    #[arg(value_name = "NAME|ID", value_parser = wanted)]
    pub(super) wanted: Wanted,
    /// Only if it is still this version; when left out, the one that is read
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    #[command(flatten)]
    writing: Writing,
}

impl Remove {
    pub(super) fn ask(&self, row: &Domain) -> Ask {
        let version = self.if_version.unwrap_or(row.version);
        self.writing.ask(Method::DELETE, &format!("/api/domains/{}", row.id), Some(version), None)
    }
}

/// Which row is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Id(Uuid),
    Named { domain: String, path: Option<String> },
}

impl Wanted {
    pub(super) fn ask(&self) -> Ask {
        match self {
            Self::Id(id) => Ask::get(format!("/api/domains/{id}")),
            Self::Named { domain, .. } => {
                let mut query = Query::default();
                query.all("domain", [domain].iter());
                Ask::get(query.on("/api/domains"))
            }
        }
    }

    /// The only one of the rows that were found by name.
    pub(super) fn only(&self, mut found: Vec<Domain>) -> anyhow::Result<Domain> {
        let Self::Named { domain, path } = self else { anyhow::bail!("it was found by its id") };
        found.retain(|row| path.as_ref().is_none_or(|path| row.path_prefix == *path));
        let name = format!("{domain}{}", path.as_deref().unwrap_or_default());
        let rows: Vec<String> = found.iter().map(|row| format!("{} ({})", super::text::name(row), row.id)).collect();
        match (found.pop(), rows.as_slice()) {
            (Some(row), [_]) => Ok(row),
            (None, _) => anyhow::bail!("no row is named {name}; see: charliehub-provider domains list"),
            (Some(_), rows) => {
                let (number, rows) = (rows.len(), rows.join(", "));
                anyhow::bail!("{number} rows are named {name}; name one by its path or its id: {rows}")
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Backend {
    host: String,
    port: u16,
}

fn backend(text: &str) -> Result<Backend, String> {
    let wrong = || "write it as HOST:PORT, such as 10.0.0.7:8080".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port.parse() {
        Ok(port) if port > 0 && !host.is_empty() => Ok(Backend { host: host.to_owned(), port }),
        _ => Err(wrong()),
    }
}

/// `field=value`: JSON when it is, else text; nothing is null.
fn field(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let plain = || Value::String(value.to_owned());
            let value =
                if value.is_empty() { Value::Null } else { serde_json::from_str(value).unwrap_or_else(|_| plain()) };
            Ok((name.to_owned(), value))
        }
        _ => Err("write it as FIELD=VALUE, such as status=maintenance".to_owned()),
    }
}

fn wanted(text: &str) -> Result<Wanted, String> {
    if let Ok(id) = text.parse() {
        return Ok(Wanted::Id(id));
    }
    let (domain, path) = match text.find('/') {
        Some(at) => {
            let (domain, path) = text.split_at(at);
            (domain, Some(path.to_owned()))
        }
        None => (text, None),
    };
    if domain.is_empty() {
        return Err("write the name of a row, such as a.example.org or a.example.org/admin, or its id".to_owned());
    }
    Ok(Wanted::Named { domain: domain.to_ascii_lowercase(), path })
}

fn reason(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "write it in one line".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number from 1 on".to_owned())
}

/// What stands behind the `?`.
#[derive(Default)]
struct Query(Vec<String>);

impl Query {
    fn all<'a, T: ToString + 'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a T>) {
        self.0.extend(values.into_iter().map(|value| format!("{name}={}", encoded(&value.to_string()))));
    }

    fn on(&self, path: &str) -> String {
        if self.0.is_empty() { path.to_owned() } else { format!("{path}?{}", self.0.join("&")) }
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~,/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests;
