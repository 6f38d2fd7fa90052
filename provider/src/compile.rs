//! Turns rows into pieces of Traefik's dynamic configuration, each row on its own.
//!
//! Between `store`, which knows what changed, and `guard`, which judges what comes out. In order: each changed row gets
//! its [`place`]; rows that claim the same name, or stand on a host of which a row cannot be written, are closed;
//! [`fragments`] are judged together; then the rows that any of this touched become a [`router`] with what it needs.
//! What is left alone is not looked at: the cost is that of the change and of the other rows of the touched hosts. The
//! networks of the sites are internal, beside those that are configured: a change of these touches the rows of that tier.
//!
//! Pure, and a function of the rows alone: whatever the order of the changes, the same rows give the same pieces. No
//! row takes another host with it, and none that is closed is ever absent while a router could hold its place.
//! Constraints of the database are not trusted: they may have been dropped.

mod access;
mod answer;
mod changes;
mod fragments;
mod index;
mod middleware;
mod output;
mod path;
mod piece;
mod place;
mod route;
mod router;
mod rule;
mod section;
mod served;
mod service;
mod settings;
mod shared;
mod syntax;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use charliehub_proto::domain::{AccessTier, Protocol, ServiceType, Status};
use uuid::Uuid;

pub use self::{
    answer::{Answer, Door, Reach},
    changes::Changes,
    middleware::owner,
    route::{Counts, Route, State, StateKind},
    section::{Pieces, Section},
    settings::{ForwardAuth, Settings},
};
use self::{
    fragments::{DEFAULT, Fragments, Taken},
    index::Index,
    output::{Name, Output},
    place::{Claim, Place, Spot},
    shared::{Shared, Uses},
};
use crate::row::{Key, Row, Rows, Table};

/// All that is known of one host.
type HostOf = (Protocol, Arc<str>);

/// All rows, and what they compile to.
#[derive(Debug)]
pub struct Compiler {
    /// As they were given.
    configured: Arc<Settings>,
    /// With the networks of the sites.
    settings: Arc<Settings>,
    rows: Rows,
    /// Of rows only.
    places: HashMap<Key, Place>,
    hosts: Index<HostOf>,
    /// Rows that close all of their host.
    poison: Index<HostOf>,
    claims: Index<Claim>,
    /// Which rows ask for a fragment.
    wants: Index<Name>,
    fragments: Fragments,
    outputs: BTreeMap<Key, Output>,
    uses: Uses,
    pieces: Pieces,
    /// Nobody who asks for none pays for it.
    changes: Changes,
    /// Rows that are in maintenance.
    maintained: BTreeSet<Key>,
    /// Rows and fragments that are closed.
    closed: BTreeSet<Key>,
    counts: Counts,
    /// Rows and fragments that are closed whatever they say, and why.
    shut: BTreeMap<Key, String>,
}

/// What a change touched, to be compiled again.
#[derive(Default)]
struct Touched {
    keys: BTreeSet<Key>,
    hosts: BTreeSet<HostOf>,
    claims: BTreeSet<Claim>,
    fragments: BTreeSet<Key>,
    judge: bool,
    sites: bool,
}

impl Compiler {
    pub fn new(settings: Arc<Settings>) -> Self {
        let mut new = Self {
            configured: Arc::clone(&settings),
            settings,
            rows: Rows::new(),
            places: HashMap::new(),
            hosts: Index::default(),
            poison: Index::default(),
            claims: Index::default(),
            wants: Index::default(),
            fragments: Fragments::default(),
            outputs: BTreeMap::new(),
            uses: Uses::default(),
            pieces: Pieces::new(),
            changes: Changes::All,
            maintained: BTreeSet::new(),
            closed: BTreeSet::new(),
            counts: Counts::default(),
            shut: BTreeMap::new(),
        };
        new.refresh_store();
        new
    }

    /// One that holds these rows.
    pub fn of(settings: &Arc<Settings>, rows: impl IntoIterator<Item = (Key, Arc<Row>)>) -> Self {
        let mut compiler = Self::new(Arc::clone(settings));
        compiler.apply(rows.into_iter().map(|(key, row)| (key, Some(row))).collect());
        compiler
    }

    /// Takes changed rows (`None`: deleted) and returns what each key held before; applied in reverse, that undoes it.
    pub fn apply(&mut self, changes: Vec<(Key, Option<Arc<Row>>)>) -> Vec<(Key, Option<Arc<Row>>)> {
        let mut touched = Touched::default();
        let mut before = Vec::with_capacity(changes.len());
        for (key, row) in changes {
            match key.table {
                Table::Domains => {
                    self.displace(key, &mut touched);
                    if let Some(row) = &row {
                        self.place(key, row, &mut touched);
                    }
                    touched.keys.insert(key);
                }
                Table::Fragments => {
                    self.fragments.put(key, row.as_deref(), &self.settings);
                    touched.judge = true;
                    touched.fragments.insert(key);
                }
                Table::Sites => touched.sites = true,
                Table::Policies => {}
            }
            match row.as_deref() {
                Some(Row::Domain(row)) if row.status == Status::Maintenance => self.maintained.insert(key),
                _ => self.maintained.remove(&key),
            };
            let old = match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
            before.push((key, old));
        }
        if touched.sites {
            self.take_sites(&mut touched);
        }
        self.compile(touched);
        before
    }

    /// Closes these and no others in their places, whatever they say.
    pub fn shut(&mut self, shut: BTreeMap<Key, String>) {
        let mut touched = Touched::default();
        for key in self.shut.keys().chain(shut.keys()).filter(|key| self.shut.get(key) != shut.get(key)) {
            match key.table {
                Table::Domains => touched.keys.insert(*key),
                Table::Fragments => {
                    touched.judge = true;
                    touched.fragments.insert(*key)
                }
                Table::Sites | Table::Policies => continue,
            };
        }
        self.shut = shut;
        self.compile(touched);
    }

    /// As they were given, without what the rows add.
    pub fn configured(&self) -> &Arc<Settings> {
        &self.configured
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn route(&self, key: &Key) -> Option<&Route> {
        self.outputs.get(key).map(|output| &output.route)
    }

    /// In the order of the keys.
    pub fn routes(&self) -> impl Iterator<Item = (&Key, &Route)> {
        self.outputs.iter().map(|(key, output)| (key, &output.route))
    }

    /// The row or fragment that an object of the configuration came from, by the words of Traefik's API: `http`, `routers`.
    pub fn who_has(&self, protocol: &str, kind: &str, name: &str) -> Option<Key> {
        self.behind(Section::ALL.into_iter().find(|section| section.path() == (protocol, kind))?, name)
    }

    /// The row or fragment that an object of the configuration came from.
    pub fn behind(&self, section: Section, name: &str) -> Option<Key> {
        let protocol = [Protocol::Http, Protocol::Tcp].into_iter().find(|known| known.as_str() == section.path().0);
        let row = |name: &str| self.claims.get(&Claim::Name(protocol?, name.into())).next().copied();
        let of_row = || row(name).or_else(|| row(owner(name)?));
        self.fragments.named(&(section, name.into())).or_else(of_row)
    }

    /// Those that do not run as they say, in the order of the keys.
    pub fn closed(&self) -> impl Iterator<Item = &Key> {
        self.closed.iter()
    }

    /// The rows that are in maintenance, whether they run or not.
    pub fn maintained(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.maintained.iter().filter_map(|key| self.rows.get(key))
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every object of the configuration.
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Which pieces are others than when this was called last.
    pub fn take_changes(&mut self) -> Changes {
        self.changes.take()
    }

    /// Makes the networks of the sites internal, and touches the rows that this concerns.
    fn take_sites(&mut self, touched: &mut Touched) {
        let first = Key { table: Table::Sites, id: Uuid::nil() };
        let sites = self.rows.range(first..).filter_map(|(_, row)| match &**row {
            Row::Site(row) => Some(&row.site.networks),
            Row::Domain(_) | Row::Fragment(_) | Row::Policy(_) | Row::Bad(_) => None,
        });
        let networks = self.configured.internal_networks.iter().chain(sites.flatten()).copied().collect();
        if self.settings.internal_networks == networks {
            return;
        }
        self.settings = Arc::new(Settings { internal_networks: networks, ..(*self.configured).clone() });
        let is_internal =
            |row: &Row| matches!(row, Row::Domain(row) if row.access_tier == AccessTier::Internal && row.is_served());
        touched.keys.extend(self.rows.iter().filter(|(_, row)| is_internal(row)).map(|(key, _)| *key));
        for shared in [Shared::HttpInternal, Shared::TcpInternal] {
            if !self.uses.any(shared) {
                continue;
            }
            let piece = shared.piece(&self.settings);
            self.put_in(piece.section, &piece.name, &piece.text);
        }
    }

    /// Forgets the place of a row.
    fn displace(&mut self, key: Key, touched: &mut Touched) {
        let Some(place) = self.places.remove(&key) else { return };
        if let Some(spot) = place.spot() {
            let host = host_of(spot);
            self.hosts.remove(&host, &key);
            touched.judge |= self.fragments.concerned_by(spot.protocol, &spot.name);
            if matches!(place, Place::Somewhere { .. }) {
                self.poison.remove(&host, &key);
                touched.hosts.insert(host);
            }
        }
        for claim in place.claims() {
            self.claims.remove(&claim, &key);
            if self.claims.contains(&claim) {
                touched.claims.insert(claim);
            }
        }
    }

    fn place(&mut self, key: Key, row: &Row, touched: &mut Touched) {
        let place = Place::of(key.id, row, &self.settings);
        if let Some(spot) = place.spot() {
            let host = host_of(spot);
            touched.judge |= self.fragments.concerned_by(spot.protocol, &spot.name);
            if matches!(place, Place::Somewhere { .. }) {
                self.poison.insert(host.clone(), key);
                touched.hosts.insert(host.clone());
            }
            self.hosts.insert(host, key);
        }
        for claim in place.claims() {
            self.claims.insert(claim.clone(), key);
            if self.claims.get(&claim).nth(1).is_some() {
                touched.claims.insert(claim);
            }
        }
        self.places.insert(key, place);
    }

    /// Compiles what was touched, and swaps it in.
    fn compile(&mut self, mut touched: Touched) {
        for host in &touched.hosts {
            touched.keys.extend(self.hosts.get(host));
        }
        for claim in &touched.claims {
            touched.keys.extend(self.claims.get(claim));
            // Whether its name is one service or none.
            if let Claim::Name(protocol, name) = claim {
                touched.judge |= self.fragments.concerned_by(*protocol, name);
            }
        }
        if touched.judge {
            let (claims, rows) = (&self.claims, &self.rows);
            let taken = |protocol, name: &str| taken(claims, rows, protocol, name);
            let changes = self.fragments.judge(&self.settings, &self.shut, &taken);
            for name in &changes.names {
                touched.keys.extend(self.wants.get(name));
            }
            touched.fragments.extend(changes.fragments);
            self.refresh_store();
        }
        let mut swaps: Vec<(Key, Option<Output>)> = Vec::with_capacity(touched.keys.len() + touched.fragments.len());
        for key in touched.keys {
            swaps.push((key, self.output(key)));
        }
        for key in touched.fragments {
            swaps.push((key, self.fragments.output(&key, &self.settings)));
        }
        self.swap(swaps);
    }

    /// What the row comes to as things are.
    fn output(&self, key: Key) -> Option<Output> {
        let closed = |protocol, state| Output {
            route: Route { protocol: Some(protocol), routers: Vec::new(), state, warnings: Vec::new() },
            pieces: Vec::new(),
            shared: Vec::new(),
            wants: Vec::new(),
        };
        let place = self.places.get(&key)?;
        let (spot, reason) = match place {
            Place::Off { protocol } => return Some(closed(*protocol, State::Off)),
            Place::Nowhere { protocol, reason } => {
                return Some(closed(*protocol, State::Closed { reason: reason.clone() }));
            }
            Place::Somewhere { spot, reason } => (spot, Some(reason.clone())),
            Place::At(spot) => (spot, None),
        };
        let mut spot = std::borrow::Cow::Borrowed(spot);
        let mut trouble = reason.or_else(|| spot.fault.clone()).or_else(|| self.shut.get(&key).cloned());
        for claim in place.claims() {
            let Some(other) = self.claims.get(&claim).find(|other| **other != key) else { continue };
            match claim {
                Claim::Name(..) => {
                    spot.to_mut().name = format!("{}[{}]", spot.name, key.id).into();
                    trouble.get_or_insert_with(|| {
                        format!(
                            "domain: row {} has the same place; change domain, path_prefix or tcp_entrypoint",
                            other.id
                        )
                    });
                }
                Claim::Plain(entry_point) => {
                    trouble.get_or_insert_with(|| {
                        format!(
                            "tls_mode: none, as in row {}, but without TLS a connection names no host: one such row for \
                             entry point `{entry_point}`",
                            other.id
                        )
                    });
                }
            }
        }
        if let Some(other) = self.poison.get(&host_of(&spot)).find(|other| **other != key) {
            trouble.get_or_insert_with(|| {
                format!(
                    "path_prefix: that of row {} cannot be written, so all of its host is closed; correct it",
                    other.id
                )
            });
        }
        let row = match self.rows.get(&key).map(|row| &**row) {
            Some(Row::Domain(row)) => Some(row),
            _ => None,
        };
        Some(router::compile(key.id, row, &spot, trouble, &self.settings, &|name| self.fragments.is_live(name)))
    }

    /// Takes out all that goes before it puts in what comes, since a name may pass from one row to another.
    fn swap(&mut self, swaps: Vec<(Key, Option<Output>)>) {
        let mut coming = Vec::with_capacity(swaps.len());
        for (key, output) in swaps {
            if self.outputs.get(&key) == output.as_ref() {
                continue;
            }
            if let Some(old) = self.outputs.remove(&key) {
                for piece in &old.pieces {
                    self.take_out(piece.section, &piece.name);
                }
                for shared in &old.shared {
                    if self.uses.remove(*shared) {
                        let piece = shared.piece(&self.settings);
                        self.take_out(piece.section, &piece.name);
                    }
                }
                for name in &old.wants {
                    self.wants.remove(name, &key);
                }
                self.count(key, &old.route, false);
            }
            coming.extend(output.map(|output| (key, output)));
        }
        for (key, output) in coming {
            for piece in &output.pieces {
                self.put_in(piece.section, &piece.name, &piece.text);
            }
            for shared in &output.shared {
                if self.uses.add(*shared) {
                    let piece = shared.piece(&self.settings);
                    self.put_in(piece.section, &piece.name, &piece.text);
                }
            }
            for name in &output.wants {
                self.wants.insert(name.clone(), key);
            }
            self.count(key, &output.route, true);
            self.outputs.insert(key, output);
        }
        let routers = [Section::HttpRouters, Section::TcpRouters, Section::UdpRouters];
        self.counts.routers = routers.iter().filter_map(|section| self.pieces.get(section)).map(BTreeMap::len).sum();
    }

    fn count(&mut self, key: Key, route: &Route, plus: bool) {
        let step = |n: &mut usize| *n = if plus { *n + 1 } else { n.saturating_sub(1) };
        let kind = route.state.kind();
        if kind == StateKind::Closed {
            let _ = if plus { self.closed.insert(key) } else { self.closed.remove(&key) };
            self.counts.quarantined = self.closed.len();
        }
        if let Some(protocol) = route.protocol {
            let count = self.counts.routes.entry((protocol, kind)).or_default();
            step(count);
            if *count == 0 {
                self.counts.routes.remove(&(protocol, kind));
            }
        }
    }

    fn refresh_store(&mut self) {
        let name = DEFAULT.into();
        self.take_out(Section::TlsStores, &name);
        if let Some(text) = self.fragments.default_store(&self.settings) {
            self.put_in(Section::TlsStores, &name, &text);
        }
    }

    fn put_in(&mut self, section: Section, name: &Arc<str>, text: &Arc<str>) {
        self.changes.add(section, name);
        self.pieces.entry(section).or_default().insert(Arc::clone(name), Arc::clone(text));
    }

    fn take_out(&mut self, section: Section, name: &Arc<str>) {
        self.changes.add(section, name);
        if let Some(inner) = self.pieces.get_mut(&section) {
            inner.remove(name);
            if inner.is_empty() {
                self.pieces.remove(&section);
            }
        }
    }
}

fn host_of(spot: &Spot) -> HostOf {
    (spot.protocol, Arc::clone(spot.host.shared()))
}

/// Which row has a name, and whether it gives a service that others can use.
fn taken(claims: &Index<Claim>, rows: &Rows, protocol: Protocol, name: &str) -> Option<Taken> {
    let claim = Claim::Name(protocol, name.into());
    let mut keys = claims.get(&claim);
    let by = *keys.next()?;
    let proxy =
        matches!(rows.get(&by).map(|row| &**row), Some(Row::Domain(row)) if row.service_type == ServiceType::Proxy);
    Some(Taken { by, service: proxy && keys.next().is_none() })
}
