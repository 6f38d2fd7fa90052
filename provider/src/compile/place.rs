//! Where a row stands: the requests that are its own, whatever else is wrong with it.
//!
//! Judged from the row alone, before anything is compiled, because a row that does not compile must still hold its
//! place: left out, its requests would fall through to a neighbour and be answered without its protection.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::domain::{Domain, Protocol, Status, TlsMode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    Settings,
    path::Path,
    rule::{Host, Named, PRIORITIES, router_name},
    syntax,
};
use crate::row::{BadRow, Row};

/// Traefik's decoder gives up on a key of more than 1000 bytes (3.7); ours get suffixes.
const LONGEST_NAME: usize = 900;
/// Where http rows stand behind TLS.
const SECURE: &str = "websecure";

/// What can be said of a row's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Draft or disabled: it has none.
    Off {
        protocol: Protocol,
    },
    /// No router can hold them, so none can be for it.
    Nowhere {
        protocol: Protocol,
        reason: String,
    },
    /// Of this host, but which ones cannot be written: all of the host is closed.
    Somewhere {
        spot: Spot,
        reason: String,
    },
    At(Spot),
}

/// The requests of a row: what a router needs to take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) protocol: Protocol,
    pub(super) host: Host,
    /// `None`: all of the host.
    pub(super) path: Option<Path>,
    /// Its router, and its service.
    pub(super) name: Arc<str>,
    pub(super) priority: u32,
    /// `None`: cannot be read.
    pub(super) tls: Option<TlsMode>,
    /// The entry points that Traefik has of those that the requests can come by. Never empty.
    pub(super) entry_points: Vec<EntryPoint>,
    /// Why the row is closed, whatever the rest of it says.
    pub(super) fault: Option<String>,
}

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryPoint {
    pub(super) name: Arc<str>,
    pub(super) tls: bool,
}

/// What no two rows may both claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Claim {
    /// The name of an http router without a path, which is its host: nearly all there are, so [`Claims`] notes none of them.
    ///
    /// [`Claims`]: super::claims::Claims
    Host(Arc<str>),
    /// A router's name, which is its host and path; tcp: its host and entry point.
    Name(Protocol, Arc<str>),
    /// All connections without TLS of an entry point.
    Plain(Arc<str>),
}

impl Claim {
    /// That of a router's name.
    pub(super) fn of(protocol: Protocol, name: Arc<str>) -> Self {
        if protocol == Protocol::Http && !name.contains(['/', '[']) {
            Self::Host(name)
        } else {
            Self::Name(protocol, name)
        }
    }
}

impl Place {
    pub(super) fn of(id: Uuid, row: &Row, settings: &Settings) -> Self {
        match row {
            Row::Domain(row) => of_domain(id, row, settings),
            Row::Bad(row) => of_bad(id, row, settings),
            Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => {
                nowhere(Protocol::Http, "another row in the place of a domain".to_owned())
            }
        }
    }

    pub(super) fn spot(&self) -> Option<&Spot> {
        match self {
            Self::Somewhere { spot, .. } | Self::At(spot) => Some(spot),
            Self::Off { .. } | Self::Nowhere { .. } => None,
        }
    }

    /// What the row claims for itself.
    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> + use<> {
        let at = if let Self::At(spot) = self { Some(spot) } else { None };
        let name = at.map(|spot| Claim::of(spot.protocol, Arc::clone(&spot.name)));
        let entry = at.filter(|spot| spot.takes_all_plain()).and_then(|spot| spot.entry_points.first());
        name.into_iter().chain(entry.map(|entry| Claim::Plain(Arc::clone(&entry.name))))
    }
}

impl Spot {
    /// True for a tcp row without TLS: without a name in the connection it has all of the entry point.
    fn takes_all_plain(&self) -> bool {
        self.protocol == Protocol::Tcp && self.tls == Some(TlsMode::None)
    }

    /// True for a tcp row behind TLS on an entry point that http rows have too.
    pub(super) fn meets_http(&self) -> bool {
        let secure = |entry: &EntryPoint| entry.tls && &*entry.name == SECURE;
        self.protocol == Protocol::Tcp && self.entry_points.iter().any(secure)
    }

    /// True for an http row of which nothing but the host makes it other than its like.
    pub(super) fn may_share(&self) -> bool {
        let plain = self.fault.is_none() && self.entry_points.len() == 1 && self.name.len() < LONGEST_NAME;
        self.protocol == Protocol::Http && plain
    }

    pub(super) fn rule(&self) -> String {
        match self.protocol {
            Protocol::Http => self.host.http_rule(self.path.as_ref()),
            Protocol::Tcp if self.takes_all_plain() => "HostSNI(`*`)".to_owned(),
            Protocol::Tcp => self.host.sni_rule(),
        }
    }
}

fn nowhere(protocol: Protocol, reason: String) -> Place {
    Place::Nowhere { protocol, reason }
}

/// The columns that make the place, as far as they could be read.
struct Columns<'a> {
    id: Uuid,
    protocol: Protocol,
    domain: Option<&'a str>,
    path: Option<&'a str>,
    tls: Option<TlsMode>,
    entry_point: Option<&'a str>,
    priority: Option<i64>,
    fault: Option<String>,
}

fn of_domain(id: Uuid, row: &Domain, settings: &Settings) -> Place {
    if !row.is_served() {
        return Place::Off { protocol: row.protocol };
    }
    Columns {
        id,
        protocol: row.protocol,
        domain: Some(&row.domain),
        path: Some(&row.path_prefix),
        tls: Some(row.tls_mode),
        entry_point: row.tcp_entrypoint.as_deref(),
        priority: row.priority.map(i64::from),
        fault: None,
    }
    .place(settings)
}

fn of_bad(id: Uuid, row: &BadRow, settings: &Settings) -> Place {
    let text = |column: &str| row.raw.get(column).and_then(Value::as_str);
    let entry_point = text("tcp_entrypoint");
    let guessed = if entry_point.is_some() { Protocol::Tcp } else { Protocol::Http };
    let protocol = text("protocol").and_then(|text| text.parse().ok()).unwrap_or(guessed);
    if matches!(text("status").and_then(|text| text.parse().ok()), Some(Status::Draft | Status::Disabled)) {
        return Place::Off { protocol };
    }
    Columns {
        id,
        protocol,
        domain: text("domain"),
        path: text("path_prefix"),
        tls: text("tls_mode").and_then(|text| text.parse().ok()),
        entry_point,
        priority: row.raw.get("priority").and_then(Value::as_i64),
        fault: Some(row.reason.clone()),
    }
    .place(settings)
}

impl Columns<'_> {
    fn place(mut self, settings: &Settings) -> Place {
        let host = match self.domain.map(Host::parse) {
            Some(Named::Valid(host)) => host,
            Some(Named::Odd(host)) => {
                self.blame("domain: not a name such as a.example.org or *.example.org in lower case; correct it");
                host
            }
            Some(Named::Nothing) | None => {
                self.blame("domain: not a name that a rule can hold; correct it");
                return nowhere(self.protocol, self.fault.unwrap_or_default());
            }
        };
        let entry_points = match self.entry_points(settings) {
            Ok(entry_points) => entry_points,
            Err(reason) => return nowhere(self.protocol, self.fault.unwrap_or(reason)),
        };
        let path = self.path.map_or_else(|| Err("path_prefix: cannot be read".to_owned()), Path::parse);
        let explicit = self.priority.and_then(|n| u32::try_from(n).ok()).filter(|n| PRIORITIES.contains(n));
        if self.priority.is_some() && explicit.is_none() {
            self.blame("priority: not from 1 to 1000000; correct it, or empty it");
        }
        let entry = entry_points.first().map(|entry| Arc::clone(&entry.name)).unwrap_or_default();
        let (protocol, tls) = (self.protocol, self.tls);
        let spot = |path: Option<Path>, name, priority, fault| Spot {
            protocol,
            host: host.clone(),
            path,
            name,
            priority,
            tls,
            entry_points,
            fault,
        };
        match (path, protocol) {
            (Err(reason), Protocol::Http) => {
                let reason = self.fault.unwrap_or(reason);
                let name = format!("{}[{}]", host.as_str(), self.id).into();
                let mut spot = spot(None, name, host.priority_of_all(), Some(reason.clone()));
                // The row may have stood on either, but Traefik cannot have it on one that it lacks.
                spot.entry_points = http_entry_points(None, settings);
                Place::Somewhere { spot, reason }
            }
            (path, protocol) => {
                let path = match (path, protocol) {
                    (Ok(path), Protocol::Http) => path,
                    (Ok(path), Protocol::Tcp) if path.is_root() => path,
                    _ => {
                        self.blame("path_prefix: a tcp row has none; set it to /");
                        Path::root()
                    }
                };
                let mut name = router_name(protocol, &host, &path, &entry);
                if name.len() > LONGEST_NAME {
                    let (start, digest) =
                        (name.get(..LONGEST_NAME).unwrap_or_default(), Sha256::digest(name.as_bytes()));
                    let digest = digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                    name = format!("{start}[{digest:016x}]").into();
                }
                let plain = protocol == Protocol::Tcp && tls == Some(TlsMode::None);
                let priority = explicit.unwrap_or_else(|| if plain { 1 } else { host.priority(&path) });
                Place::At(spot(Some(path), name, priority, self.fault))
            }
        }
    }

    /// The first fault is the one that is told.
    fn blame(&mut self, reason: &str) {
        self.fault.get_or_insert_with(|| reason.to_owned());
    }

    fn entry_points(&self, settings: &Settings) -> Result<Vec<EntryPoint>, String> {
        if self.protocol == Protocol::Http {
            let tls = self.tls.filter(|mode| *mode != TlsMode::Passthrough).map(|mode| mode != TlsMode::None);
            let known = http_entry_points(tls, settings);
            return if known.is_empty() {
                let name = if tls == Some(false) { "web" } else { "websecure" };
                Err(format!("tls_mode: needs entry point `{name}`, which is not in [compile] entry_points; add it"))
            } else {
                Ok(known)
            };
        }
        match self.entry_point {
            Some(name) if !syntax::is_label(name) => {
                Err("tcp_entrypoint: not the name of an entry point; letters, digits, _ and -".to_owned())
            }
            Some(name) if !is_known(name, settings) => Err(format!(
                "tcp_entrypoint: `{name}` is not in [compile] entry_points; add it there, or name one of them"
            )),
            Some(name) => Ok(vec![EntryPoint { name: name.into(), tls: self.tls != Some(TlsMode::None) }]),
            None => Err("tcp_entrypoint: is missing on a tcp row; name one".to_owned()),
        }
    }
}

/// The known ones of those that an http row stands on; `tls` unknown: of both.
fn http_entry_points(tls: Option<bool>, settings: &Settings) -> Vec<EntryPoint> {
    [(SECURE, true), ("web", false)]
        .into_iter()
        .filter(|(name, secure)| tls.is_none_or(|tls| tls == *secure) && is_known(name, settings))
        .map(|(name, tls)| EntryPoint { name: name.into(), tls })
        .collect()
}

fn is_known(entry_point: &str, settings: &Settings) -> bool {
    settings.entry_points.as_ref().is_none_or(|known: &BTreeSet<String>| known.contains(entry_point))
}
