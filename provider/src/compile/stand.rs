//! Which requests a row could take, as far as it matters for who has to stay together with whom.

use std::sync::Arc;

use charliehub_proto::domain::{Domain, Protocol, Status, TlsMode};
use serde_json::Value;

use super::rule::{Host, Named};
use crate::row::{BadRow, Row};

/// Where a row that takes requests stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// As a rule has it: in lower case, `*.` before the parent of a wildcard.
    pub host: Arc<str>,
    /// Of a tcp row: where its connections come in.
    pub entry_point: Option<Arc<str>>,
    /// Takes all connections without TLS of its entry point, whatever its host.
    pub plain: bool,
    /// Has a priority of its own: a wildcard may beat an exact host.
    pub ranked: bool,
}

impl Stand {
    /// `None`: it takes no requests.
    pub fn of(row: &Row) -> Option<Self> {
        match row {
            Row::Domain(row) => of_domain(row),
            Row::Bad(row) => of_bad(row),
            Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => None,
        }
    }

    /// The wildcard that takes requests for this host too.
    pub fn parent(&self) -> Option<&str> {
        self.host.split_once('.').map(|(_, parent)| parent)
    }

    pub fn is_wildcard(&self) -> bool {
        self.host.starts_with("*.")
    }
}

fn host(text: &str) -> Option<Arc<str>> {
    match Host::parse(text) {
        Named::Valid(host) | Named::Odd(host) => Some(Arc::clone(host.shared())),
        Named::Nothing => None,
    }
}

fn of_domain(row: &Domain) -> Option<Stand> {
    let tcp = row.protocol == Protocol::Tcp;
    Some(Stand {
        host: host(&row.domain).filter(|_| row.is_served())?,
        entry_point: row.tcp_entrypoint.as_deref().filter(|_| tcp).map(Arc::from),
        plain: tcp && row.tls_mode == TlsMode::None,
        ranked: row.priority.is_some(),
    })
}

/// As far as it can be read: it is closed, but where it stands.
fn of_bad(row: &BadRow) -> Option<Stand> {
    let text = |column: &str| row.raw.get(column).and_then(Value::as_str);
    if matches!(text("status").and_then(|text| text.parse().ok()), Some(Status::Draft | Status::Disabled)) {
        return None;
    }
    let entry_point = text("tcp_entrypoint").filter(|_| text("protocol") != Some(Protocol::Http.as_str()));
    Some(Stand {
        host: host(text("domain")?)?,
        plain: entry_point.is_some() && text("tls_mode") == Some(TlsMode::None.as_str()),
        entry_point: entry_point.map(Arc::from),
        ranked: row.raw.get("priority").is_some_and(|priority| !priority.is_null()),
    })
}
