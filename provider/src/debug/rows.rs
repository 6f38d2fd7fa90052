//! Reads a page of rows and fragments, and tells the state of each from what the compiler has said already.
//!
//! Nothing is compiled for it: the closed ones are known, and the others are what their status says. A page begins behind
//! the last line of the one before, by the index on names.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use charliehub_proto::{debug::RouteLine, route::RouteState};
use serde::{Deserialize, Serialize};
use tokio_postgres::{
    GenericClient, Row as Found,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::row::{Key, Table};

const USUAL: usize = 50;
/// Longer texts are cut: a page is not where they are read.
const LETTERS: usize = 300;

/// Which lines are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// To be found in name, backend, owner or site; in lower case.
    pub filter: Option<String>,
    pub state: Option<RouteState>,
    pub after: Option<After>,
    pub limit: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { filter: None, state: None, after: None, limit: USUAL }
    }
}

/// The last line of the page before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    Domain(String, String, Uuid),
    Fragment(String, String),
}

impl After {
    /// As a parameter.
    pub fn cursor(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub fn read(cursor: &str) -> Option<Self> {
        let after = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (Self::Domain(one, two, _) | Self::Fragment(one, two)) = &after;
        (!one.contains('\0') && !two.contains('\0')).then_some(after)
    }
}

/// A page of lines, and where the next one begins.
#[derive(Debug, Default)]
pub struct Page {
    pub lines: Vec<RouteLine>,
    pub next: Option<After>,
}

/// What the compiler has closed, with the name and the reason.
type Closed = BTreeMap<Key, (String, String)>;

/// The lines that are asked for: domains first, then fragments.
pub async fn page(
    client: &impl GenericClient,
    wanted: &Wanted,
    closed: &Closed,
) -> Result<Page, tokio_postgres::Error> {
    let mut page = Page::default();
    if !matches!(wanted.after, Some(After::Fragment(..))) {
        let query = Query::domains(wanted, closed);
        let found = client.query_typed(&query.sql, &query.parameters()).await?;
        let more = found.len() > wanted.limit;
        for row in found.iter().take(wanted.limit) {
            page.lines.push(domain(row, closed)?);
        }
        if let Some(last) = found.get(wanted.limit.saturating_sub(1)).filter(|_| more) {
            page.next = Some(After::Domain(last.try_get("domain")?, last.try_get("path_prefix")?, last.try_get("id")?));
            return Ok(page);
        }
    }
    let left = wanted.limit - page.lines.len();
    let query = Query::fragments(wanted, closed, left);
    let found = client.query_typed(&query.sql, &query.parameters()).await?;
    let more = found.len() > left;
    for row in found.iter().take(left) {
        page.lines.push(fragment(row, closed)?);
    }
    if more {
        let last = page.lines.last().filter(|line| line.kind != "domain");
        page.next = Some(last.map_or_else(
            || After::Fragment(String::new(), String::new()),
            |line| After::Fragment(line.kind.clone(), line.name.clone()),
        ));
    }
    Ok(page)
}

/// The sites of rows.
pub async fn sites(client: &impl GenericClient, ids: &[Uuid]) -> Result<BTreeMap<Uuid, String>, tokio_postgres::Error> {
    let sql = "SELECT id, site FROM charliehub.domains WHERE id = ANY($1) AND site IS NOT NULL";
    let found = client.query_typed(sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// A statement being put together: only texts of ours are in it.
struct Query {
    sql: String,
    texts: Vec<String>,
    ids: Vec<Uuid>,
}

impl Query {
    fn domains(wanted: &Wanted, closed: &Closed) -> Self {
        const LINES: &str = "SELECT id, domain, path_prefix, protocol::text, status::text, service_type::text,
            access_tier::text, auth_required, backend_scheme, backend_host, backend_port::int8,
            jsonb_array_length(backends)::int8 AS backends, service_ref, redirect_to, site, owner,
            left(notes, 301) AS notes, left(maintenance_message, 301) AS maintenance_message FROM charliehub.domains";
        let mut query = Self::of(closed, Table::Domains);
        let mut conditions = Vec::new();
        if let Some(filter) = &wanted.filter {
            // Each by itself, since most are in the C collation, in which that costs half.
            let f = query.parameter(filter);
            conditions.push(format!(
                "(strpos(domain || lower(path_prefix), {f}) > 0 OR strpos(lower(backend_host), {f}) > 0
                  OR strpos(lower(owner), {f}) > 0 OR strpos(site, {f}) > 0)"
            ));
        }
        match wanted.state {
            Some(RouteState::Closed) => conditions.push("id = ANY($1)".to_owned()),
            Some(RouteState::Live) => conditions.push("status = 'active' AND NOT id = ANY($1)".to_owned()),
            Some(RouteState::Maintenance) => conditions.push("status = 'maintenance' AND NOT id = ANY($1)".to_owned()),
            Some(RouteState::Off) => {
                conditions.push("status IN ('draft', 'disabled') AND NOT id = ANY($1)".to_owned());
            }
            None => {}
        }
        if let Some(After::Domain(host, path, id)) = &wanted.after {
            let (host, path) = (query.parameter(host), query.parameter(path));
            let id = query.parameter(&id.to_string());
            conditions.push(format!("(domain, path_prefix, id) > ({host}, {path}, {id}::uuid)"));
        }
        query.finish(LINES, &conditions, "domain, path_prefix, id", wanted.limit)
    }

    fn fragments(wanted: &Wanted, closed: &Closed, limit: usize) -> Self {
        const LINES: &str = "SELECT id, kind, name, enabled, left(notes, 301) AS notes FROM charliehub.fragments";
        let mut query = Self::of(closed, Table::Fragments);
        let mut conditions = Vec::new();
        if let Some(filter) = &wanted.filter {
            let filter = query.parameter(filter);
            conditions.push(format!("strpos(lower(kind || ' ' || name), {filter}) > 0"));
        }
        match wanted.state {
            Some(RouteState::Closed) => conditions.push("id = ANY($1)".to_owned()),
            Some(RouteState::Live) => conditions.push("enabled AND NOT id = ANY($1)".to_owned()),
            Some(RouteState::Maintenance) => conditions.push("false".to_owned()),
            Some(RouteState::Off) => conditions.push("NOT enabled AND NOT id = ANY($1)".to_owned()),
            None => {}
        }
        if let Some(After::Fragment(kind, name)) = &wanted.after {
            let (kind, name) = (query.parameter(kind), query.parameter(name));
            conditions.push(format!("(kind, name) > ({kind}, {name})"));
        }
        query.finish(LINES, &conditions, "kind, name", limit)
    }

    fn of(closed: &Closed, table: Table) -> Self {
        let ids = closed.keys().filter(|key| key.table == table).map(|key| key.id).collect();
        Self { sql: String::new(), texts: Vec::new(), ids }
    }

    fn parameter(&mut self, text: &str) -> String {
        self.texts.push(text.to_owned());
        format!("${}", self.texts.len() + 1)
    }

    fn finish(mut self, lines: &str, conditions: &[String], order: &str, limit: usize) -> Self {
        // The closed ones are always a parameter, whether they are asked for or not.
        self.sql = format!("{lines} WHERE $1::uuid[] IS NOT NULL");
        for condition in conditions {
            let _ = write!(self.sql, " AND {condition}");
        }
        let _ = write!(self.sql, " ORDER BY {order} LIMIT {}", limit + 1);
        self
    }

    fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let ids = (&self.ids as &(dyn ToSql + Sync), Type::UUID_ARRAY);
        let texts = self.texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT));
        [ids].into_iter().chain(texts).collect()
    }
}

fn domain(row: &Found, closed: &Closed) -> Result<RouteLine, tokio_postgres::Error> {
    let text = |column: &str| row.try_get::<_, Option<String>>(column);
    let id: Uuid = row.try_get("id")?;
    let (host, path): (String, String) = (row.try_get("domain")?, row.try_get("path_prefix")?);
    let reason = closed.get(&Key::domain(id)).map(|(_, reason)| reason.clone());
    let status = text("status")?.unwrap_or_default();
    let state = match (&reason, status.as_str()) {
        (Some(_), _) => RouteState::Closed,
        (None, "active") => RouteState::Live,
        (None, "maintenance") => RouteState::Maintenance,
        (None, _) => RouteState::Off,
    };
    let protocol = text("protocol")?.unwrap_or_default();
    let (backend, port) = (text("backend_host")?, row.try_get::<_, Option<i64>>("backend_port")?);
    let several: i64 = row.try_get("backends")?;
    let to = match (backend, port, text("redirect_to")?, text("service_ref")?) {
        (Some(host), Some(port), ..) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            let scheme = text("backend_scheme")?.unwrap_or(protocol.clone());
            format!("{scheme}://{host}:{port}")
        }
        (_, _, Some(to), _) => format!("redirects to {to}"),
        (_, _, _, Some(service)) => format!("service {service}"),
        _ => format!("{several} backends"),
    };
    let login = if row.try_get("auth_required")? { ", login" } else { "" };
    Ok(RouteLine {
        id,
        kind: "domain".to_owned(),
        name: if path == "/" { host } else { format!("{host}{path}") },
        protocol: Some(protocol),
        state,
        reason,
        to,
        access: text("access_tier")?.map(|tier| format!("{tier}{login}")),
        site: text("site")?,
        owner: text("owner")?,
        notes: text("notes")?.map(cut),
        maintenance_message: text("maintenance_message")?.map(cut),
        servers: Vec::new(),
        troubles: Vec::new(),
    })
}

fn fragment(row: &Found, closed: &Closed) -> Result<RouteLine, tokio_postgres::Error> {
    let id: Uuid = row.try_get("id")?;
    let kind: String = row.try_get("kind")?;
    let reason = closed.get(&Key::fragment(id)).map(|(_, reason)| reason.clone());
    let state = match (&reason, row.try_get("enabled")?) {
        (Some(_), _) => RouteState::Closed,
        (None, true) => RouteState::Live,
        (None, false) => RouteState::Off,
    };
    let protocol = kind.split_once('.').map(|(protocol, _)| protocol).filter(|protocol| *protocol != "tls");
    Ok(RouteLine {
        id,
        name: row.try_get("name")?,
        protocol: protocol.map(str::to_owned),
        state,
        reason,
        to: String::new(),
        access: None,
        site: None,
        owner: None,
        notes: row.try_get::<_, Option<String>>("notes")?.map(cut),
        maintenance_message: None,
        servers: Vec::new(),
        troubles: Vec::new(),
        kind,
    })
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
