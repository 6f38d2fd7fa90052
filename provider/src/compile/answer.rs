//! Who answers at a place: which row takes its requests, whom it lets in, and what is behind it.
//!
//! Only rows are asked, not fragments: what a router of a fragment lets in is in middlewares of any kind.

use std::sync::Arc;

use charliehub_proto::domain::{AccessTier, Domain, Protocol, ServiceType};
use ipnet::IpNet;

use super::{
    Compiler, StateKind,
    access::{Access, access, internal},
    place::{Place, Spot},
    rule::Host,
    shared::Shared,
};
use crate::row::{Key, Row};

/// Where requests come in: a host and path behind an entry point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    protocol: Protocol,
    host: Host,
    path: String,
    entry_point: Arc<str>,
    /// As people write it: that of the row's router.
    pub name: Arc<str>,
}

/// Whom a row lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Nobody,
    /// Sorted, without overlaps.
    Networks(Vec<IpNet>),
    Internet,
}

impl Reach {
    /// True when everybody whom `self` lets in is let in by `other` too.
    pub fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nobody, _) | (_, Self::Internet) => true,
            (Self::Internet, _) | (_, Self::Nobody) => false,
            (Self::Networks(ours), Self::Networks(theirs)) => {
                ours.iter().all(|net| theirs.iter().any(|other| other.contains(net)))
            }
        }
    }
}

/// What requests at a door meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub key: Key,
    pub state: StateKind,
    pub reach: Reach,
    /// Its tier is not for everybody, whether it compiles or not.
    pub protected: bool,
    /// A login is asked for.
    pub login: bool,
    /// Where it leads, in the row's words.
    pub backend: String,
}

impl Compiler {
    /// The doors that a row stands at, whether it compiles or not.
    pub fn doors(&self, key: &Key) -> Vec<Door> {
        self.places.get(key).map(doors).unwrap_or_default()
    }

    /// The doors that it would stand at as `row`.
    pub fn doors_of(&self, key: &Key, row: &Row) -> Vec<Door> {
        doors(&Place::of(key.id, row, &self.settings))
    }

    /// What the requests at a door meet; `None`: no row's router takes them.
    pub fn answer(&self, door: &Door) -> Option<Answer> {
        let exact = Arc::clone(door.host.shared());
        let wildcard = exact.split_once('.').map(|(_, parent)| Arc::from(format!("*.{parent}")));
        let hosts = [Some(exact), wildcard.filter(|_| door.host.wildcard().is_none())];
        let takes = |spot: &Spot| {
            spot.entry_points.iter().any(|entry| entry.name == door.entry_point) && door.path.starts_with(path(spot))
        };
        let keys = hosts.into_iter().flatten().flat_map(|host| self.claims.hosts.get(&(door.protocol, host)));
        let spots = keys.filter_map(|key| Some((key, self.places.get(key)?.spot().filter(|spot| takes(spot))?)));
        let (key, _) = spots.max_by_key(|(_, spot)| spot.priority)?;
        let output = self.compiled(key)?;
        let row = match self.rows.get(key).map(|row| &**row) {
            Some(Row::Domain(row)) => Some(row),
            Some(Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_)) | None => None,
        };
        let state = output.route.state.kind();
        let open = matches!(state, StateKind::Live | StateKind::Maintenance);
        let reach = match row.filter(|_| open).map(|row| access(row, &self.settings)) {
            Some(Ok(Access::Everybody)) => Reach::Internet,
            Some(Ok(Access::Internal)) => Reach::Networks(internal(&self.settings)),
            Some(Ok(Access::Listed(networks))) => Reach::Networks(networks),
            Some(Err(_)) | None => Reach::Nobody,
        };
        let protected = row.is_none_or(|row| row.access_tier != AccessTier::Public);
        let login = output.shared.contains(&Shared::Authelia);
        Some(Answer { key: *key, state, reach, protected, login, backend: row.map_or_else(String::new, backend) })
    }
}

fn doors(place: &Place) -> Vec<Door> {
    let Some(spot) = place.spot() else { return Vec::new() };
    let door = |entry_point: &Arc<str>| Door {
        protocol: spot.protocol,
        host: spot.host.clone(),
        path: path(spot).to_owned(),
        entry_point: Arc::clone(entry_point),
        name: Arc::clone(&spot.name),
    };
    spot.entry_points.iter().map(|entry| door(&entry.name)).collect()
}

/// The start of the paths that a row takes, in canonical form.
fn path(spot: &Spot) -> &str {
    spot.path.as_ref().map_or("/", |path| path.as_str())
}

fn backend(row: &Domain) -> String {
    let scheme = |scheme: &Option<String>| scheme.as_deref().unwrap_or("http").to_owned();
    match row.service_type {
        ServiceType::Redirect => format!("redirect to {}", row.redirect_to.as_deref().unwrap_or_default()),
        ServiceType::Reference => format!("service {}", row.service_ref.as_deref().unwrap_or_default()),
        ServiceType::Proxy => {
            let one = row.backend_host.as_ref().zip(row.backend_port);
            let one = one.map(|(host, port)| format!("{}://{host}:{port}", scheme(&row.backend_scheme)));
            let several = row.backends.iter().map(|backend| {
                let weight = backend.weight.map_or_else(String::new, |weight| format!(" x{weight}"));
                format!("{}://{}:{}{weight}", scheme(&backend.scheme), backend.host, backend.port)
            });
            one.into_iter().chain(several).collect::<Vec<_>>().join(", ")
        }
    }
}
