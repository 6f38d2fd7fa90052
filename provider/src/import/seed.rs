//! The table `domains` of the system that we succeed, to rows of ours.
//!
//! Its columns are found in the database and known by their names; one that is not known is kept as a label, and said.
//! Where a value is not understood the narrower reading is taken: a tier that is not known is internal, a status that is
//! not known a draft.

use std::{net::IpAddr, sync::Arc};

use charliehub_proto::domain::{AccessTier, Domain, Environment, Protocol, ServiceType, Status, TlsMode};
use ipnet::IpNet;
use serde_json::{Map, Value};
use tokio_postgres::Client;

use super::{Error, Left, recognise::blank};

/// What the table comes to: rows, each with what it was called and where.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(super) rows: Vec<(Domain, String, Arc<str>)>,
    pub(super) left_out: Vec<Left>,
    pub(super) warnings: Vec<String>,
}

/// What a column of theirs may be called; the first that is there counts.
const NAMES: &[&str] = &["domain", "domain_name", "fqdn"];
const PATH: &[&str] = &["path_prefix", "path"];
const HOST: &[&str] = &["backend_host", "backend_ip", "target_host", "upstream_host"];
const PORT: &[&str] = &["backend_port", "target_port", "upstream_port"];
const SCHEME: &[&str] = &["backend_scheme", "backend_protocol"];
const ENTRY_POINT: &[&str] = &["tcp_entrypoint", "tcp_entry_point"];
const AUTH: &[&str] = &["auth_required", "requires_auth", "auth_enabled"];
const TIER: &[&str] = &["access_tier", "access_level"];
const INTERNAL: &[&str] = &["internal_only", "is_internal"];
const LIST: &[&str] = &["ip_allowlist", "ip_whitelist", "allowed_ips"];
const ENABLED: &[&str] = &["enabled", "is_enabled", "is_active", "active"];
const RESOLVER: &[&str] = &["cert_resolver", "certresolver"];
const REDIRECT: &[&str] = &["redirect_to", "redirect_url", "redirect_target"];
const NOTES: &[&str] = &["notes", "description", "comment"];
const ONE: &[&[&str]] =
    &[&["protocol"], &["status"], &["environment"], &["service_type"], &["tls_mode"], &["middlewares"]];
/// Of the database's making.
const STAMPS: &[&str] = &["id", "created_at", "updated_at", "version"];

/// Reads the table that is not ours; the one in schema `public` where there are several.
pub(super) async fn read(client: &Client) -> Result<Table, Error> {
    const FIND: &str = "SELECT c.table_schema::text, array_agg(c.column_name::text ORDER BY c.ordinal_position)
          FROM information_schema.columns c
         WHERE c.table_name = 'domains' AND c.table_schema NOT IN ('charliehub', 'pg_catalog', 'information_schema')
         GROUP BY c.table_schema HAVING bool_or(c.column_name IN ('domain', 'domain_name', 'fqdn'))
         ORDER BY c.table_schema <> 'public', c.table_schema LIMIT 1";
    let found = client.query_opt(FIND, &[]).await?.ok_or(Error::NoTable)?;
    let (schema, columns): (String, Vec<String>) = (found.try_get(0)?, found.try_get(1)?);
    let sql = format!("SELECT to_jsonb(t)::text FROM \"{}\".domains t ORDER BY 1", schema.replace('"', "\"\""));
    let mut rows = Vec::new();
    for row in client.query(&sql, &[]).await? {
        let text: &str = row.try_get(0)?;
        if let Ok(Value::Object(row)) = serde_json::from_str(text) {
            rows.push(row);
        }
    }
    Ok(Table::of(&format!("{schema}.domains"), &columns, rows))
}

impl Table {
    fn of(name: &str, columns: &[String], rows: Vec<Map<String, Value>>) -> Self {
        let known =
            [NAMES, PATH, HOST, PORT, SCHEME, ENTRY_POINT, AUTH, TIER, INTERNAL, LIST, ENABLED, RESOLVER, REDIRECT];
        let is_known = |column: &str| {
            known.iter().chain(ONE).any(|names| names.contains(&column))
                || NOTES.contains(&column)
                || STAMPS.contains(&column)
        };
        let unknown: Vec<&str> = columns.iter().map(String::as_str).filter(|column| !is_known(column)).collect();
        let mut table = Self::default();
        for column in &unknown {
            table
                .warnings
                .push(format!("{name}: column {column} means nothing here; what it holds becomes label {column}"));
        }
        let file: Arc<str> = name.into();
        for row in rows {
            let theirs = Theirs { row: &row, unknown: &unknown };
            let called = theirs.text(NAMES).unwrap_or_default();
            let mut said = Vec::new();
            match theirs.domain(&mut said) {
                Ok(domain) => table.rows.push((domain, called.clone(), Arc::clone(&file))),
                Err(reason) => {
                    table.left_out.push(Left { kind: "row", name: called.clone(), file: Arc::clone(&file), reason });
                }
            }
            table.warnings.extend(said.into_iter().map(|said| format!("{called}: {said}")));
        }
        table
    }
}

/// One row of the table.
struct Theirs<'a> {
    row: &'a Map<String, Value>,
    unknown: &'a [&'a str],
}

impl Theirs<'_> {
    fn value(&self, names: &[&str]) -> Option<&Value> {
        names.iter().filter_map(|name| self.row.get(*name)).find(|value| !value.is_null())
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        self.value(names).and_then(plain).filter(|text| !text.is_empty())
    }

    fn flag(&self, names: &[&str]) -> Option<bool> {
        let text = self.text(names)?.to_lowercase();
        Some(matches!(text.as_str(), "true" | "t" | "yes" | "on" | "1"))
    }

    fn list(&self, names: &[&str]) -> Vec<String> {
        let split = |text: String| {
            let bare = text.trim_matches(['{', '}']);
            bare.split([',', ' ']).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        match self.value(names) {
            Some(Value::Array(items)) => items.iter().filter_map(plain).collect(),
            Some(value) => plain(value).map(split).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// The row of ours; why there is none. What was not understood goes to `said`.
    fn domain(&self, said: &mut Vec<String>) -> Result<Domain, String> {
        let name = self.text(NAMES).ok_or("has no name")?;
        let mut row = blank(name.trim_end_matches('.').to_lowercase().as_str());
        row.path_prefix = self.text(PATH).unwrap_or_else(|| "/".to_owned());
        row.protocol = match self.text(&["protocol"]).map(|text| text.to_lowercase()).as_deref() {
            None | Some("http" | "https") => Protocol::Http,
            Some("tcp") => Protocol::Tcp,
            Some(other) => return Err(format!("protocol {other} is neither http nor tcp")),
        };
        row.tcp_entrypoint = self.text(ENTRY_POINT).filter(|_| row.protocol == Protocol::Tcp);
        self.service(&mut row, said)?;
        self.access(&mut row, said)?;
        row.status = self.status(said);
        row.environment = self.environment(said);
        row.cert_resolver = self.text(RESOLVER);
        row.tls_mode = match self.text(&["tls_mode"]) {
            None => TlsMode::Acme,
            Some(text) => text.parse().map_err(|error| format!("tls_mode: {error}"))?,
        };
        row.middlewares = self.list(&["middlewares"]);
        let notes: Vec<String> = NOTES.iter().filter_map(|name| self.text(&[name])).collect();
        row.notes = (!notes.is_empty()).then(|| notes.join("\n"));
        let label = |name: &&str| Some(((*name).to_owned(), self.value(&[name]).and_then(plain)?));
        row.labels.extend(self.unknown.iter().filter_map(label));
        Ok(row)
    }

    fn service(&self, row: &mut Domain, said: &mut Vec<String>) -> Result<(), String> {
        if let Some(kind) = self.text(&["service_type"])
            && kind.parse::<ServiceType>().is_err()
        {
            said.push(format!("service_type {kind} means nothing here; kept as a label"));
            row.labels.insert("service_type".to_owned(), kind);
        }
        if let Some(target) = self.text(REDIRECT) {
            (row.service_type, row.redirect_to) = (ServiceType::Redirect, Some(target));
            return Ok(());
        }
        row.backend_host = Some(self.text(HOST).ok_or("has no backend host")?);
        let port = self.text(PORT).ok_or("has no backend port")?;
        row.backend_port = Some(port.parse().map_err(|_| format!("backend port {port} is none"))?);
        row.backend_scheme = self.text(SCHEME).filter(|scheme| scheme != "http" && row.protocol == Protocol::Http);
        Ok(())
    }

    fn access(&self, row: &mut Domain, said: &mut Vec<String>) -> Result<(), String> {
        row.auth_required = self.flag(AUTH).unwrap_or_default();
        let list = self.list(LIST);
        let one = |text: &String| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        row.ip_allowlist = list
            .iter()
            .map(|text| one(text).map(|net| net.trunc()).map_err(|_| format!("{text} in its list is no network")))
            .collect::<Result<_, _>>()?;
        let tier = self.text(TIER).map(|text| text.to_lowercase());
        row.access_tier = match tier.as_deref() {
            _ if self.flag(INTERNAL) == Some(true) => AccessTier::Internal,
            None | Some("public") if row.ip_allowlist.is_empty() => AccessTier::Public,
            None | Some("public" | "restricted") => AccessTier::Restricted,
            Some("internal") => AccessTier::Internal,
            Some(other) => {
                said.push(format!("access tier {other} is not known; taken as internal"));
                AccessTier::Internal
            }
        };
        if row.access_tier == AccessTier::Restricted && row.ip_allowlist.is_empty() {
            return Err("is restricted, but lists no network".to_owned());
        }
        Ok(())
    }

    fn status(&self, said: &mut Vec<String>) -> Status {
        if self.flag(ENABLED) == Some(false) {
            return Status::Disabled;
        }
        match self.text(&["status"]).map(|text| text.to_lowercase()).as_deref() {
            None | Some("active" | "enabled" | "live") => Status::Active,
            Some("maintenance") => Status::Maintenance,
            Some("disabled" | "inactive" | "archived" | "deleted") => Status::Disabled,
            Some("draft" | "pending" | "planned") => Status::Draft,
            Some(other) => {
                said.push(format!("status {other} is not known; taken as draft, so it is not served"));
                Status::Draft
            }
        }
    }

    fn environment(&self, said: &mut Vec<String>) -> Environment {
        let Some(text) = self.text(&["environment"]).map(|text| text.to_lowercase()) else {
            return Environment::default();
        };
        let long = match text.as_str() {
            "prod" => "production",
            "stage" => "staging",
            "dev" => "development",
            "test" => "testing",
            other => other,
        };
        long.parse().unwrap_or_else(|_| {
            said.push(format!("environment {text} is not known; taken as production"));
            Environment::default()
        })
    }
}

/// A scalar as text; what is more as JSON.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// The row that is there, with what the table says now; it has no word for the rest.
pub(super) fn merged(there: &Domain, new: Domain) -> Domain {
    let there = there.clone();
    Domain {
        id: there.id,
        maintenance_message: there.maintenance_message,
        rate_limit: there.rate_limit,
        health_check: there.health_check,
        sticky: there.sticky,
        priority: there.priority,
        dns_mode: there.dns_mode,
        site: there.site,
        owner: there.owner,
        notes: new.notes.or(there.notes),
        created_at: there.created_at,
        updated_at: there.updated_at,
        version: there.version,
        ..new
    }
}
