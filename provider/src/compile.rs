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
mod claims;
mod coalesce;
mod fragments;
mod index;
mod middleware;
mod nested;
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
mod stand;
mod syntax;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod together;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use charliehub_proto::domain::{AccessTier, Protocol, ServiceType, Status};
use uuid::Uuid;

pub use self::{
    answer::{Answer, Door, Reach},
    changes::Changes,
    coalesce::listed::{Listed, is_of_several, row_of, rows_of},
    middleware::owner,
    route::{Counts, Route, State, StateKind},
    section::{Pieces, Section},
    settings::{Coalesce, ForwardAuth, Settings},
    stand::Stand,
};
use self::{
    claims::{Claims, HostOf, Places},
    coalesce::{Coalesced, Edits, Settled},
    fragments::{DEFAULT, Fragments, Taken},
    index::Index,
    output::{Name, Output},
    place::{Claim, Place, Spot},
    shared::{Shared, Uses},
};
use crate::row::{Key, Row, Rows, Table};

/// With so many names of resolvers in routers of several rows, Traefik takes a second for a change.
pub const MOST_RESOLVED: usize = 2_000;

/// All rows, and what they compile to.
#[derive(Debug)]
pub struct Compiler {
    /// As they were given.
    configured: Arc<Settings>,
    /// With the networks of the sites.
    settings: Arc<Settings>,
    rows: Rows,
    places: Places,
    claims: Claims,
    /// The hosts of tcp rows that are reached by TLS where http rows are.
    meeting: Index<Arc<str>>,
    /// Rows that close all of their host.
    poison: Index<HostOf>,
    /// Which rows ask for a fragment.
    wants: Index<Name>,
    fragments: Fragments,
    /// Of what is compiled by itself.
    outputs: BTreeMap<Key, Output>,
    /// What is compiled together.
    coalesced: Coalesced,
    /// What has parents together.
    nested: Coalesced,
    /// How many http rows have a place.
    standing: usize,
    /// Tcp rows of a wildcard that are reached by TLS where http rows are.
    astride: BTreeSet<Key>,
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
    /// All rows, as far as they may share.
    all: bool,
    /// The hosts that rows had which shared.
    was: BTreeMap<Key, Arc<str>>,
}

impl Compiler {
    pub fn new(settings: Arc<Settings>) -> Self {
        let mut new = Self {
            configured: Arc::clone(&settings),
            settings,
            rows: Rows::new(),
            places: Places::new(),
            claims: Claims::default(),
            meeting: Index::default(),
            poison: Index::default(),
            wants: Index::default(),
            fragments: Fragments::default(),
            outputs: BTreeMap::new(),
            coalesced: Coalesced::default(),
            nested: Coalesced::nested(),
            standing: 0,
            astride: BTreeSet::new(),
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

    /// One that holds these rows, each with a router of its own whatever the settings say.
    pub fn apart(settings: &Arc<Settings>, rows: impl IntoIterator<Item = (Key, Arc<Row>)>) -> Self {
        Self::of(&Arc::new(Settings { coalesce: Coalesce::Off, ..(**settings).clone() }), rows)
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
                    if !touched.was.contains_key(&key)
                        && (self.coalesced.holds(&key) || self.nested.holds(&key))
                        && let Some(spot) = self.places.get(&key).and_then(Place::spot)
                    {
                        touched.was.insert(key, Arc::clone(spot.host.shared()));
                    }
                    self.displace(key, &mut touched);
                    if let Some(row) = &row {
                        self.place(key, row, &mut touched);
                    }
                    touched.keys.insert(key);
                }
                Table::Fragments => {
                    // A row whose service is named has one of its own.
                    let named =
                        |fragments: &Fragments| -> Vec<Arc<str>> { fragments.services(&key).cloned().collect() };
                    let before = named(&self.fragments);
                    self.fragments.put(key, row.as_deref(), &self.settings);
                    let named = before.into_iter().chain(named(&self.fragments));
                    touched.claims.extend(named.map(|name| Claim::of(Protocol::Http, name)));
                    touched.judge = true;
                    touched.fragments.insert(key);
                }
                Table::Sites => touched.sites = true,
                Table::Policies | Table::Peers => {}
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

    /// Packs what is known of all rows: maps that were filled in order are half empty.
    pub fn pack(&mut self) {
        self.rows = std::mem::take(&mut self.rows).into_iter().collect();
        self.places = std::mem::take(&mut self.places).into_iter().collect();
        self.outputs = std::mem::take(&mut self.outputs).into_iter().collect();
        self.coalesced.pack();
        self.nested.pack();
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
                Table::Sites | Table::Policies | Table::Peers => continue,
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
        self.compiled(key).map(|output| &output.route)
    }

    /// In the order of the keys.
    pub fn routes(&self) -> impl Iterator<Item = (&Key, &Route)> {
        self.rows.keys().filter_map(|key| Some((key, self.route(key)?)))
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
            Row::Domain(_) | Row::Fragment(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
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
            self.neighbours(spot, touched);
            self.standing -= usize::from(spot.protocol == Protocol::Http);
            if self.astride.remove(&key) {
                touched.all |= self.astride.is_empty();
            }
            self.claims.hosts.remove(&host, &key);
            if spot.meets_http() {
                self.meeting.remove(&host.1, &key);
            }
            touched.judge |= self.fragments.concerned_by(spot.protocol, &spot.name);
            if matches!(place, Place::Somewhere { .. }) {
                self.poison.remove(&host, &key);
                touched.hosts.insert(host);
            }
        }
        for claim in place.claims() {
            self.claims.remove(&claim, &key);
            if self.claims.get(&claim, &self.places).next().is_some() {
                touched.claims.insert(claim);
            }
        }
    }

    fn place(&mut self, key: Key, row: &Row, touched: &mut Touched) {
        let place = Place::of(key.id, row, &self.settings);
        if let Some(spot) = place.spot() {
            let host = host_of(spot);
            self.neighbours(spot, touched);
            self.standing += usize::from(spot.protocol == Protocol::Http);
            if spot.meets_http() {
                self.meeting.insert(Arc::clone(&host.1), key);
                if spot.host.wildcard().is_some() {
                    touched.all |= self.astride.is_empty();
                    self.astride.insert(key);
                }
            }
            touched.judge |= self.fragments.concerned_by(spot.protocol, &spot.name);
            if matches!(place, Place::Somewhere { .. }) {
                self.poison.insert(host.clone(), key);
                touched.hosts.insert(host.clone());
            }
            self.claims.hosts.insert(host, key);
        }
        let claims = place.claims();
        self.places.insert(key, place);
        for claim in claims {
            self.claims.insert(&claim, key);
            if self.claims.has_several(&claim, &self.places) {
                touched.claims.insert(claim);
            }
        }
    }

    /// Compiles what was touched, and swaps it in.
    fn compile(&mut self, mut touched: Touched) {
        for host in &touched.hosts {
            touched.keys.extend(self.claims.hosts.get(host));
        }
        for claim in &touched.claims {
            touched.keys.extend(self.claims.get(claim, &self.places));
            // Whether its name is one service or none.
            touched.judge |= match claim {
                Claim::Host(name) => self.fragments.concerned_by(Protocol::Http, name),
                Claim::Name(protocol, name) => self.fragments.concerned_by(*protocol, name),
                Claim::Plain(_) => false,
            };
        }
        if touched.judge {
            let (claims, places, rows) = (&self.claims, &self.places, &self.rows);
            let taken = |protocol, name: &str| taken(claims, places, rows, protocol, name);
            let changes = self.fragments.judge(&self.settings, &self.shut, &taken);
            for name in &changes.names {
                touched.keys.extend(self.wants.get(name));
            }
            touched.fragments.extend(changes.fragments);
            for host in changes.hosts {
                touched.keys.extend(self.claims.hosts.get(&(Protocol::Http, host)));
            }
            touched.all |= changes.all;
            self.refresh_store();
        }
        if touched.all {
            touched.keys.extend(self.places.keys());
        }
        let together = self.gather(&mut touched);
        let parents = self.nest(&mut touched, &together);
        let mut swaps: Vec<(Key, Option<Output>)> = Vec::with_capacity(touched.keys.len() + touched.fragments.len());
        for key in touched.keys {
            swaps.push((key, self.output(key)));
        }
        for key in touched.fragments {
            swaps.push((key, self.fragments.output(&key, &self.settings)));
        }
        self.swap(swaps, &together, &parents);
    }

    /// What it is compiled to, alone or together with others.
    fn compiled(&self, key: &Key) -> Option<&Output> {
        self.outputs.get(key).or_else(|| self.coalesced.shape(key).map(|shape| &shape.output))
    }

    /// What the row comes to as things are.
    fn output(&self, key: Key) -> Option<Output> {
        let place = self.places.get(&key)?;
        let (spot, reason) = match place {
            Place::Off { protocol } => return Some(Output::nothing(Some(*protocol), State::Off)),
            Place::Nowhere { protocol, reason } => {
                return Some(Output::nothing(Some(*protocol), State::Closed { reason: reason.clone() }));
            }
            Place::Somewhere { spot, reason } => (spot, Some(reason.clone())),
            Place::At(spot) => (spot, None),
        };
        let mut spot = std::borrow::Cow::Borrowed(spot);
        let mut trouble = reason.or_else(|| spot.fault.clone()).or_else(|| self.shut.get(&key).cloned());
        for claim in place.claims() {
            let Some(other) = self.claims.get(&claim, &self.places).find(|other| **other != key) else { continue };
            match claim {
                Claim::Host(_) | Claim::Name(..) => {
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
        let parent = self.nested.router(&key, spot.host.as_str());
        let live = |name: &Name| self.fragments.is_live(name);
        let (output, heads) = router::compile(key.id, row, &spot, trouble, &self.settings, &live);
        Some(output.with_routers(&heads, &spot.rule(), parent))
    }

    /// Takes out all that goes before it puts in what comes, since a name may pass from one row to another.
    fn swap(&mut self, swaps: Vec<(Key, Option<Output>)>, together: &Settled, parents: &Edits) {
        let mut coming = Vec::with_capacity(swaps.len());
        let joined = together.joined.iter().map(|(key, _)| (*key, None));
        for (key, output) in swaps.into_iter().chain(joined) {
            if self.outputs.get(&key) == output.as_ref() {
                continue;
            }
            if let Some(old) = self.outputs.remove(&key) {
                self.take_out_all(&old);
                self.enter(key, &old, false);
            }
            coming.extend(output.map(|output| (key, output)));
        }
        for (key, shape) in &together.left {
            self.enter(*key, &shape.output, false);
        }
        together.gone.iter().for_each(|shape| self.take_out_all(&shape.output));
        self.edit(&together.edits);
        self.edit(parents);
        together.come.iter().for_each(|shape| self.put_in_all(&shape.output));
        for (key, shape) in &together.joined {
            self.enter(*key, &shape.output, true);
        }
        for (key, output) in coming {
            self.put_in_all(&output);
            self.enter(key, &output, true);
            self.outputs.insert(key, output);
        }
        let routers = [Section::HttpRouters, Section::TcpRouters, Section::UdpRouters];
        let all: usize = routers.iter().filter_map(|section| self.pieces.get(section)).map(BTreeMap::len).sum();
        self.counts.resolved = self.coalesced.resolved();
        let of_several = self.coalesced.routers() + self.nested.routers();
        self.counts.routers = all - of_several + self.coalesced.rows_together();
    }

    /// Notes or forgets what is known of a row by what it is compiled to.
    fn enter(&mut self, key: Key, output: &Output, plus: bool) {
        for name in &output.wants {
            if plus {
                self.wants.insert(name.clone(), key);
            } else {
                self.wants.remove(name, &key);
            }
        }
        self.count(key, &output.route, plus);
    }

    fn put_in_all(&mut self, output: &Output) {
        for piece in &output.pieces {
            self.put_in(piece.section, &piece.name, &piece.text);
        }
        for shared in &output.shared {
            if self.uses.add(*shared) {
                let piece = shared.piece(&self.settings);
                self.put_in(piece.section, &piece.name, &piece.text);
            }
        }
    }

    fn take_out_all(&mut self, output: &Output) {
        for piece in &output.pieces {
            self.take_out(piece.section, &piece.name);
        }
        for shared in &output.shared {
            if self.uses.remove(*shared) {
                let piece = shared.piece(&self.settings);
                self.take_out(piece.section, &piece.name);
            }
        }
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
fn taken(claims: &Claims, places: &Places, rows: &Rows, protocol: Protocol, name: &str) -> Option<Taken> {
    let mut keys = claims.get(&Claim::of(protocol, name.into()), places);
    let by = *keys.next()?;
    let proxy =
        matches!(rows.get(&by).map(|row| &**row), Some(Row::Domain(row)) if row.service_type == ServiceType::Proxy);
    Some(Taken { by, service: proxy && keys.next().is_none() })
}
