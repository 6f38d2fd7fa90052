//! One row of a result to one [`Row`].
//!
//! Each row decodes on its own: what this build cannot understand (a newer label, a constraint that was dropped) is a bad
//! row with a reason, and takes no other with it. Enums, networks and JSON come as text, so that it is our own parser that
//! judges them, and so that nothing depends on the type that a column happens to have.

use std::{fmt::Display, str::FromStr, sync::Arc};

use charliehub_proto::{
    domain::Domain,
    fragment::Fragment,
    peer::{Peer, PeerRow},
    policy::PolicyRow,
    site::{Site, SiteRow},
};
use serde::de::DeserializeOwned;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::row::{BadRow, Key, Row, Table};

/// The columns of a table, as they are read: name and expression. Behind them comes the row's hash.
pub type Columns = &'static [(&'static str, &'static str)];

const DOMAIN: Columns = &[
    ("domain", "domain"),
    ("path_prefix", "path_prefix"),
    ("protocol", "protocol::text"),
    ("service_type", "service_type::text"),
    ("environment", "environment::text"),
    ("status", "status::text"),
    ("access_tier", "access_tier::text"),
    ("tls_mode", "tls_mode::text"),
    ("cert_resolver", "cert_resolver"),
    ("backend_scheme", "backend_scheme"),
    ("backend_host", "backend_host"),
    ("backend_port", "backend_port::int8"),
    ("backends", "backends::text"),
    ("tcp_entrypoint", "tcp_entrypoint"),
    ("auth_required", "auth_required"),
    ("ip_allowlist", "ip_allowlist::text[]"),
    ("middlewares", "middlewares::text[]"),
    ("service_ref", "service_ref"),
    ("redirect_to", "redirect_to"),
    ("redirect_permanent", "redirect_permanent"),
    ("redirect_keep_path", "redirect_keep_path"),
    ("maintenance_message", "maintenance_message"),
    ("rate_limit", "rate_limit::text"),
    ("health_check", "health_check::text"),
    ("sticky", "sticky::text"),
    ("priority", "priority::int8"),
    ("dns_mode", "dns_mode::text"),
    ("site", "site"),
    ("owner", "owner"),
    ("notes", "notes"),
    ("labels", "labels::text"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("version", "version"),
];

const FRAGMENT: Columns = &[
    ("kind", "kind"),
    ("name", "name"),
    ("body", "body::text"),
    ("enabled", "enabled"),
    ("notes", "notes"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("version", "version"),
];

const SITE: Columns = &[
    ("name", "name"),
    ("agent", "agent"),
    ("networks", "networks::text[]"),
    ("tunnels", "tunnels::text"),
    ("hosts", "hosts::text"),
    ("wan_name", "wan_name"),
    ("notes", "notes"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("version", "version"),
];

const POLICY: Columns = &[
    ("agent", "agent"),
    ("body", "body::text"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("version", "version"),
];

const PEER: Columns = &[
    ("name", "name"),
    ("agents", "agents::text[]"),
    ("interface", "interface"),
    ("public_key", "public_key"),
    ("addresses", "addresses::text[]"),
    ("notes", "notes"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("version", "version"),
];

/// A row as it was fetched; `None` when it is gone.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub key: Key,
    pub row: Option<Arc<Row>>,
    /// What the database's `row_hash` says of it, for the comparison.
    pub hash: i64,
}

/// The list of a SELECT for `table`, named `t` in it: id, columns, hash.
pub fn select(table: Table) -> String {
    let columns: Vec<String> = columns(table).iter().map(|(_, expression)| format!("t.{expression}")).collect();
    format!("t.id, {}, {HASH}", columns.join(", "))
}

/// The same for the rows of a function, which have no physical version.
pub fn select_as_of(table: Table) -> String {
    select(table).replace(HASH, "0::int8")
}

const HASH: &str = "charliehub.row_hash(t.id, t.version, t.xmin)";

/// The table's name in schema `charliehub`.
pub fn name(table: Table) -> &'static str {
    match table {
        Table::Domains => "domains",
        Table::Fragments => "fragments",
        Table::Sites => "sites",
        Table::Policies => "policies",
        Table::Peers => "peers",
    }
}

pub fn columns(table: Table) -> Columns {
    match table {
        Table::Domains => DOMAIN,
        Table::Fragments => FRAGMENT,
        Table::Sites => SITE,
        Table::Policies => POLICY,
        Table::Peers => PEER,
    }
}

/// Decodes one row of [`select`], whose first column is `skip`. Without an id there is nothing to name it by.
pub fn decode(table: Table, row: &tokio_postgres::Row, skip: usize) -> Option<Fetched> {
    let id: Uuid = row.try_get(skip).ok()?;
    let columns = columns(table);
    let mut fields = Fields { row, columns, first: skip + 1, next: 0 };
    let decoded = match table {
        Table::Domains => domain(id, &mut fields).map(Row::Domain),
        Table::Fragments => fragment(id, &mut fields).map(Row::Fragment),
        Table::Sites => site(id, &mut fields).map(Row::Site),
        Table::Policies => policy(id, &mut fields).map(Row::Policy),
        Table::Peers => peer(id, &mut fields).map(Row::Peer),
    };
    let row = decoded.unwrap_or_else(|reason| Row::Bad(BadRow { raw: fields.raw(id), reason }));
    let hash = fields.row.try_get(skip + 1 + columns.len()).unwrap_or_default();
    Some(Fetched { key: Key { table, id }, row: Some(Arc::new(row)), hash })
}

fn domain(id: Uuid, fields: &mut Fields<'_>) -> Result<Domain, String> {
    // In the order of the columns.
    Ok(Domain {
        id,
        domain: fields.take()?,
        path_prefix: fields.take()?,
        protocol: fields.parse()?,
        service_type: fields.parse()?,
        environment: fields.parse()?,
        status: fields.parse()?,
        access_tier: fields.parse()?,
        tls_mode: fields.parse()?,
        cert_resolver: fields.take()?,
        backend_scheme: fields.take()?,
        backend_host: fields.take()?,
        backend_port: fields.number()?,
        backends: fields.objects()?,
        tcp_entrypoint: fields.take()?,
        auth_required: fields.take()?,
        ip_allowlist: fields.parse_all()?,
        middlewares: fields.take()?,
        service_ref: fields.take()?,
        redirect_to: fields.take()?,
        redirect_permanent: fields.take()?,
        redirect_keep_path: fields.take()?,
        maintenance_message: fields.take()?,
        rate_limit: fields.object()?,
        health_check: fields.object()?,
        sticky: fields.object()?,
        priority: fields.number()?,
        dns_mode: fields.parse()?,
        site: fields.take()?,
        owner: fields.take()?,
        notes: fields.take()?,
        labels: fields.json()?,
        created_at: fields.take()?,
        updated_at: fields.take()?,
        version: fields.take()?,
    })
}

fn fragment(id: Uuid, fields: &mut Fields<'_>) -> Result<Fragment, String> {
    Ok(Fragment {
        id,
        kind: fields.take()?,
        name: fields.take()?,
        body: fields.json()?,
        enabled: fields.take()?,
        notes: fields.take()?,
        created_at: fields.take()?,
        updated_at: fields.take()?,
        version: fields.take()?,
    })
}

fn site(id: Uuid, fields: &mut Fields<'_>) -> Result<SiteRow, String> {
    let site = Site {
        name: fields.take()?,
        agent: fields.take()?,
        networks: fields.parse_all()?,
        tunnels: fields.objects()?,
        hosts: fields.objects()?,
        wan_name: fields.take()?,
        notes: fields.take()?,
    };
    Ok(SiteRow { id, site, created_at: fields.take()?, updated_at: fields.take()?, version: fields.take()? })
}

fn policy(id: Uuid, fields: &mut Fields<'_>) -> Result<PolicyRow, String> {
    Ok(PolicyRow {
        id,
        agent: fields.take()?,
        body: fields.json()?,
        created_at: fields.take()?,
        updated_at: fields.take()?,
        version: fields.take()?,
    })
}

fn peer(id: Uuid, fields: &mut Fields<'_>) -> Result<PeerRow, String> {
    let peer = Peer {
        name: fields.take()?,
        agents: fields.take()?,
        interface: fields.take()?,
        public_key: fields.take()?,
        addresses: fields.parse_all()?,
        notes: fields.take()?,
    };
    Ok(PeerRow { id, peer, created_at: fields.take()?, updated_at: fields.take()?, version: fields.take()? })
}

/// Takes the columns of a row one after the other, and names the one that fails.
struct Fields<'a> {
    row: &'a tokio_postgres::Row,
    columns: Columns,
    first: usize,
    next: usize,
}

impl<'a> Fields<'a> {
    fn take<T: FromSql<'a>>(&mut self) -> Result<T, String> {
        let at = self.next;
        self.next += 1;
        self.row.try_get(self.first + at).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            self.named(at, cause)
        })
    }

    fn named(&self, at: usize, what: impl Display) -> String {
        format!("{}: {what}", self.columns.get(at).map_or("?", |(name, _)| name))
    }

    fn parse<T: FromStr<Err: Display>>(&mut self) -> Result<T, String> {
        let text: &str = self.take()?;
        text.parse().map_err(|error| self.named(self.next - 1, error))
    }

    fn parse_all<T: FromStr<Err: Display>>(&mut self) -> Result<Vec<T>, String> {
        let texts: Vec<&str> = self.take()?;
        texts.into_iter().map(|text| text.parse().map_err(|error| self.named(self.next - 1, error))).collect()
    }

    fn number<T: TryFrom<i64, Error: Display>>(&mut self) -> Result<Option<T>, String> {
        let number: Option<i64> = self.take()?;
        number
            .map(|n| T::try_from(n).map_err(|_| self.named(self.next - 1, format!("{n} is out of range"))))
            .transpose()
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let text: &str = self.take()?;
        serde_json::from_str(text).map_err(|error| self.named(self.next - 1, error))
    }

    /// An object, or null. An array is not taken for one, as serde would: what the database refuses must mean nothing.
    fn object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        let object: Option<serde_json::Map<String, serde_json::Value>> = self
            .take::<Option<&str>>()?
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| self.named(self.next - 1, error))?;
        object.map(|object| T::deserialize(object).map_err(|error| self.named(self.next - 1, error))).transpose()
    }

    fn objects<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, String> {
        let objects: Vec<serde_json::Map<String, serde_json::Value>> = self.json()?;
        objects
            .into_iter()
            .map(|object| T::deserialize(object).map_err(|error| self.named(self.next - 1, error)))
            .collect()
    }

    /// What can be read of a row that does not decode: enough to close its place.
    fn raw(&self, id: Uuid) -> serde_json::Value {
        let texts = self.columns.iter().enumerate().filter_map(|(at, (name, _))| {
            let text = self.row.try_get::<_, Option<String>>(self.first + at).map(serde_json::Value::from);
            let number = || self.row.try_get::<_, Option<i64>>(self.first + at).map(serde_json::Value::from);
            let flag = || self.row.try_get::<_, Option<bool>>(self.first + at).map(serde_json::Value::from);
            Some(((*name).to_owned(), text.or_else(|_| number()).or_else(|_| flag()).ok()?))
        });
        std::iter::once(("id".to_owned(), id.to_string().into())).chain(texts).collect::<serde_json::Map<_, _>>().into()
    }
}
