//! A row as it was read, and the set of all rows of one revision.
//!
//! Between `store`, which fetches rows, and `compile`, which turns each into a route. A row that does not decode is a
//! row all the same: its place must be closed, so it carries what could be read of it.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::{domain::Domain, fragment::Fragment, peer::PeerRow, policy::PolicyRow, site::SiteRow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tables of the source of truth. Domains and fragments compile; the networks of the sites say who is internal; policies
/// and peers are for the agents alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Table {
    Domains,
    Fragments,
    Sites,
    Policies,
    Peers,
}

impl Table {
    pub const ALL: [Self; 5] = [Self::Domains, Self::Fragments, Self::Sites, Self::Policies, Self::Peers];

    /// True when its rows can have routers, services or other objects of Traefik's configuration.
    pub fn compiles(self) -> bool {
        matches!(self, Self::Domains | Self::Fragments)
    }
}

/// What names a row in all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub table: Table,
    pub id: Uuid,
}

impl Key {
    pub fn domain(id: Uuid) -> Self {
        Self { table: Table::Domains, id }
    }

    pub fn fragment(id: Uuid) -> Self {
        Self { table: Table::Fragments, id }
    }
}

/// A row that does not decode: a newer schema, or a constraint that was dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BadRow {
    /// `to_jsonb` of the row, as far as it could be had; `null` when it could not.
    pub raw: serde_json::Value,
    /// Names the column and what is wrong with it.
    pub reason: String,
}

/// A row of one of the tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Domain(Domain),
    Fragment(Fragment),
    Site(SiteRow),
    Policy(PolicyRow),
    Peer(PeerRow),
    Bad(BadRow),
}

/// All rows of one revision, in the same order on every machine.
pub type Rows = BTreeMap<Key, Arc<Row>>;

impl Row {
    /// What people call it: `a.example.org/path`, or the name of the fragment.
    pub fn name(&self) -> String {
        let text = |raw: &serde_json::Value, key: &str| raw.get(key)?.as_str().map(str::to_owned);
        match self {
            Self::Domain(row) if row.path_prefix == "/" => row.domain.clone(),
            Self::Domain(row) => format!("{}{}", row.domain, row.path_prefix),
            Self::Fragment(row) => format!("{} {}", row.kind, row.name),
            Self::Site(row) => format!("site {}", row.site.name),
            Self::Policy(row) => format!("policy of {}", row.agent),
            Self::Peer(row) => format!("peer {}", row.peer.name),
            Self::Bad(row) => {
                ["domain", "name", "agent"].iter().find_map(|key| text(&row.raw, key)).unwrap_or_default()
            }
        }
    }
}
