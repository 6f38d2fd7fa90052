//! Which of the routers become rows, and what stays raw beside them.
//!
//! Rows are guessed, compiled together with the rest, and given up one by one until each that is left comes to what its
//! router came to. Giving one up brings back what it names, which may change a name that another one has: so it is done
//! until nothing changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use charliehub_proto::{
    domain::{Domain, Protocol, TlsMode},
    fragment::Fragment,
    traefik::{self, Kind, Piece},
};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Left, Name, Renamed, expand,
    rank::{Priority, Ranked, priorities},
    read::Found,
    recognise,
    rename::Names,
};
use crate::{
    certificate,
    compile::{Compiler, Section, Settings, State},
    row::{Key, Row, Rows, Table},
    snapshot::encode::MARKER,
};

/// What no operator wrote, by its name in our own export.
const OURS: [&str; 4] = [MARKER, "charliehub-internal", "charliehub-self", "charliehub-closed"];

/// What the files come to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// By the router that each stands for.
    pub(super) rows: BTreeMap<Name, Domain>,
    /// Under the names that they have here; why a router is no row.
    pub(super) fragments: Vec<(Fragment, Arc<str>, Option<String>)>,
    pub(super) renamed: Vec<Renamed>,
    pub(super) left_out: Vec<Left>,
    pub(super) files: BTreeMap<Name, Arc<str>>,
}

/// The choice that is being made.
struct Choice<'a> {
    pieces: BTreeMap<Name, Piece>,
    existing: &'a Rows,
    settings: &'a Arc<Settings>,
    /// What is there: as it is served, but fragments as they were written.
    there: BTreeMap<Name, Piece>,
    /// Routers that are served already, with all that they name.
    present: BTreeSet<Name>,
    rows: BTreeMap<Name, Domain>,
    because: BTreeMap<Name, String>,
    /// The routers that rows compile to.
    routers: BTreeSet<Name>,
}

pub(super) fn settle(found: Found, existing: &Rows, settings: &Arc<Settings>) -> Settled {
    let Found { mut pieces, files, left_out } = found;
    own_references(&mut pieces);
    let mut settled = Settled { left_out, files, ..Settled::default() };
    let ours: Vec<(Name, &str)> =
        pieces.iter().filter_map(|(name, piece)| Some((name.clone(), ours(name, piece, settings)?))).collect();
    for (name, reason) in ours {
        pieces.remove(&name);
        settled.leave(&name, reason);
    }
    let mut choice = Choice {
        pieces,
        existing,
        settings,
        there: BTreeMap::new(),
        present: BTreeSet::new(),
        rows: BTreeMap::new(),
        because: BTreeMap::new(),
        routers: BTreeSet::new(),
    };
    choice.find_present();
    choice.guess();
    choice.verify();
    choice.write_down(&mut settled);
    settled
}

/// A [`Choice`] under the names that it has here; each by the name that it had.
struct Written {
    rows: BTreeMap<Name, Domain>,
    fragments: Vec<(Name, Fragment)>,
    renamed: Vec<(Name, String, &'static str)>,
}

impl Settled {
    fn leave(&mut self, (kind, name): &Name, reason: &str) {
        let file = self.files.get(&(*kind, name.clone())).cloned().unwrap_or_default();
        self.left_out.push(Left { kind: kind.name(), name: name.clone(), file, reason: reason.to_owned() });
    }
}

/// `x@file` and `x@http` mean what is imported, where that has an `x`; all others stay.
fn own_references(pieces: &mut BTreeMap<Name, Piece>) {
    let names: BTreeSet<Name> = pieces.keys().cloned().collect();
    for ((kind, _), piece) in pieces.iter_mut() {
        let own = piece.references().into_iter().filter_map(|reference| {
            let bare =
                reference.name.strip_suffix("@file").or_else(|| reference.name.strip_suffix("@http"))?.to_owned();
            names.contains(&(reference.kind, bare.clone())).then_some((reference.path, bare))
        });
        let own: Vec<(String, String)> = own.collect();
        if let Some(changed) = renamed(*kind, piece, &own) {
            *piece = changed;
        }
    }
}

fn renamed(kind: Kind, piece: &Piece, changes: &[(String, String)]) -> Option<Piece> {
    if changes.is_empty() {
        return None;
    }
    let mut body = serde_json::to_value(piece).ok()?;
    for (path, name) in changes {
        expand::set(&mut body, path, Value::String(name.clone()));
    }
    traefik::piece(kind, &body).ok()
}

/// Why a piece is left to us, whoever names it.
fn ours((kind, name): &Name, piece: &Piece, settings: &Settings) -> Option<&'static str> {
    if *kind == Kind::HttpMiddleware && name == MARKER {
        return Some("is our marker");
    }
    let Piece::TlsStore(store) = piece else { return None };
    let certificate = store.default_certificate.as_ref()?;
    let body = serde_json::to_value(store).ok()?;
    let configured = settings.default_certificate.as_ref();
    if name != "default" || store.default_generated_cert.is_some() {
        None
    } else if certificate::is_ours(&body) {
        Some("holds the default certificate that we make")
    } else if configured.is_some_and(|(cert, key)| *cert == certificate.cert_file && *key == certificate.key_file) {
        Some("is what [compile] default_certificate says")
    } else {
        None
    }
}

/// All pieces of a compiled configuration that the model can say.
fn compiled(compiler: &Compiler) -> BTreeMap<Name, Piece> {
    let mut pieces = BTreeMap::new();
    for kind in Kind::ALL {
        for (name, text) in compiler.pieces().get(&Section::from(*kind)).into_iter().flatten() {
            let piece = serde_json::from_str(text).ok().and_then(|body| traefik::piece(*kind, &body).ok());
            pieces.extend(piece.map(|piece| ((*kind, name.to_string()), piece)));
        }
    }
    pieces
}

fn priority(piece: &Piece) -> Option<i64> {
    if let Piece::HttpRouter(router) = piece {
        router.priority
    } else if let Piece::TcpRouter(router) = piece {
        router.priority
    } else {
        None
    }
}

fn is_router(kind: Kind) -> bool {
    matches!(kind, Kind::HttpRouter | Kind::TcpRouter | Kind::UdpRouter)
}

impl Choice<'_> {
    fn find_present(&mut self) {
        let compiler = Compiler::apart(self.settings, self.existing.clone());
        let running = compiled(&compiler);
        let same = |name: &Name, piece: &Piece| {
            running.get(name).is_some_and(|other| priority(other) == priority(piece))
                && expand::expanded(&running, name) == expand::expanded(&self.pieces, name)
        };
        let present = self.pieces.iter().filter(|(name, piece)| is_router(name.0) && same(name, piece));
        self.present = present.map(|(name, _)| name.clone()).collect();
        self.there = running;
        self.there.extend(self.existing.values().filter_map(|row| match &**row {
            Row::Fragment(fragment) => {
                let kind = fragment.kind.parse().ok()?;
                Some(((kind, fragment.name.clone()), traefik::piece(kind, &fragment.body).ok()?))
            }
            Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
        }));
    }

    fn guess(&mut self) {
        let mut places = BTreeSet::new();
        // With TLS first: where a host is on both entry points, that one is the row.
        for tls in [true, false] {
            for name in self.pieces.keys() {
                if !is_router(name.0) || self.present.contains(name) || self.rows.contains_key(name) {
                    continue;
                }
                match recognise::row(&self.pieces, name, self.settings) {
                    Ok(row) if (row.tls_mode != TlsMode::None) == tls => {
                        let place =
                            (row.domain.clone(), row.path_prefix.clone(), row.protocol, row.tcp_entrypoint.clone());
                        if places.insert(place) {
                            self.rows.insert(name.clone(), row);
                        } else {
                            self.because
                                .insert(name.clone(), "another router is the row of this host and path".to_owned());
                        }
                    }
                    Ok(_) => {}
                    Err(reason) => drop(self.because.insert(name.clone(), reason.to_owned())),
                }
            }
        }
    }

    /// Gives up rows until each that is left says what its router said.
    fn verify(&mut self) {
        loop {
            self.routers = self.names_of_rows();
            let Written { rows, fragments, .. } = self.written();
            let rows = rows.into_values().map(|row| (Key::domain(row.id), Arc::new(Row::Domain(row))));
            let raw = fragments
                .into_iter()
                .map(|(_, fragment)| (Key::fragment(fragment.id), Arc::new(Row::Fragment(fragment))));
            let compiler = Compiler::apart(self.settings, rows.chain(raw));
            let running = compiled(&compiler);
            let mut ranked = BTreeMap::new();
            let mut given_up = BTreeMap::new();
            for (name, row) in &self.rows {
                let route = compiler.route(&Key::domain(row.id));
                let own = route.and_then(|route| route.routers.first());
                let own = own.map(|(_, own)| (name.0, own.to_string()));
                if let Some(State::Closed { reason }) = route.map(|route| &route.state) {
                    given_up.insert(name.clone(), format!("as a row it would be closed: {reason}"));
                    continue;
                }
                let Some(own) = own else {
                    given_up.insert(name.clone(), "as a row it would have no router".to_owned());
                    continue;
                };
                if expand::expanded(&running, &own) != expand::expanded(&self.pieces, name) {
                    given_up.insert(name.clone(), "the row would not mean the same".to_owned());
                    continue;
                }
                let default = running.get(&own).and_then(priority).and_then(|priority| u32::try_from(priority).ok());
                ranked
                    .extend(self.pieces.get(name).and_then(|piece| Some((name.clone(), Ranked::of(piece, default)?))));
            }
            if given_up.is_empty() {
                let rest = self.pieces.iter().filter(|(name, _)| !self.rows.contains_key(*name));
                ranked.extend(rest.filter_map(|(name, piece)| Some((name.clone(), Ranked::of(piece, None)?))));
                for (name, priority) in priorities(&ranked) {
                    match (priority, self.rows.get_mut(&name)) {
                        (Priority::Explicit(priority), Some(row)) => row.priority = Some(priority),
                        (Priority::OutOfRange, _) => {
                            given_up.insert(name, "its priority is not from 1 to 1000000, and has to stay".to_owned());
                        }
                        (Priority::Own | Priority::Explicit(_), _) => {}
                    }
                }
            }
            if given_up.is_empty() {
                return;
            }
            for (name, reason) in given_up {
                self.rows.remove(&name);
                self.because.insert(name, reason);
            }
            self.rows.values_mut().for_each(|row| row.priority = None);
        }
    }

    /// The routers that the rows compile to, and those that are there.
    fn names_of_rows(&self) -> BTreeSet<Name> {
        let there = self.existing.iter().filter(|(key, _)| key.table == Table::Domains);
        let rows = self.rows.values().map(|row| (Key::domain(row.id), Arc::new(Row::Domain(row.clone()))));
        [there.map(|(key, row)| (*key, Arc::clone(row))).collect::<Vec<_>>(), rows.collect()]
            .into_iter()
            .flat_map(|rows| {
                let compiler = Compiler::apart(self.settings, rows);
                let routers = compiler.routes().flat_map(|(_, route)| &route.routers);
                routers
                    .map(|(section, name)| {
                        let tcp = *section == Section::TcpRouters;
                        (if tcp { Kind::TcpRouter } else { Kind::HttpRouter }, name.to_string())
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// What stays raw: all that no row says, and what that and the rows name.
    fn rest(&self) -> BTreeSet<Name> {
        let named: BTreeSet<Name> = self
            .pieces
            .values()
            .flat_map(|piece| piece.references().into_iter().map(|reference| (reference.kind, reference.name)))
            .collect();
        let is_root = |name: &&Name| {
            let (kind, text) = name;
            let spoken_for = self.rows.contains_key(*name) || self.present.contains(*name);
            if is_router(*kind) { !spoken_for } else { !named.contains(*name) && !OURS.contains(&text.as_str()) }
        };
        let mut open: Vec<Name> = self.pieces.keys().filter(is_root).cloned().collect();
        for row in self.rows.values() {
            let (middleware, service) = match row.protocol {
                Protocol::Http => (Kind::HttpMiddleware, Kind::HttpService),
                Protocol::Tcp => (Kind::TcpMiddleware, Kind::TcpService),
            };
            open.extend(row.middlewares.iter().map(|name| (middleware, name.clone())));
            open.extend(row.service_ref.iter().map(|name| (service, name.clone())));
        }
        let mut rest = BTreeSet::new();
        while let Some(name) = open.pop() {
            let Some(piece) = self.pieces.get(&name).filter(|piece| !self.is_auth(piece)) else { continue };
            if rest.insert(name) {
                open.extend(piece.references().into_iter().map(|reference| (reference.kind, reference.name)));
            }
        }
        rest
    }

    /// What `[access] forward_auth` makes anyway.
    fn is_auth(&self, piece: &Piece) -> bool {
        matches!(piece, Piece::HttpMiddleware(middleware)
            if middleware.forward_auth.as_ref().is_some_and(|auth| recognise::is_ours(auth, self.settings)))
    }

    /// Rows and fragments as they would be written, under names that we can hold.
    fn written(&self) -> Written {
        let rest = self.rest();
        let foreign = |new: &Name, old: &Name| {
            self.there.contains_key(new) && expand::expanded(&self.there, new) != expand::expanded(&self.pieces, old)
        };
        let names = Names { settings: self.settings, rows: &self.routers, foreign: &foreign };
        let changes = names.changes(&rest);
        let called = |kind: Kind, name: &str| -> Option<String> {
            let key = (kind, name.to_owned());
            if let Some((new, _)) = changes.get(&key) {
                return Some(new.clone());
            }
            match self.pieces.get(&key) {
                Some(piece) if self.is_auth(piece) => Some("authelia".to_owned()),
                // It leads nowhere, and must not come to lead to a row.
                None if names.is_of_a_row(kind, name) => Some(format!("missing-{name}")),
                Some(_) | None => None,
            }
        };
        let mut fragments = Vec::with_capacity(rest.len());
        for name in &rest {
            let Some(piece) = self.pieces.get(name) else { continue };
            let paths = piece.references().into_iter().filter_map(|reference| {
                let new = called(reference.kind, &reference.name)?;
                Some((reference.path, new))
            });
            let paths: Vec<(String, String)> = paths.collect();
            let piece = renamed(name.0, piece, &paths).unwrap_or_else(|| piece.clone());
            let text = changes.get(name).map_or(&name.1, |(new, _)| new);
            fragments.push((name.clone(), fragment(name.0, text, &piece)));
        }
        let mut rows = BTreeMap::new();
        for (name, row) in &self.rows {
            let mut row = row.clone();
            let middleware = match row.protocol {
                Protocol::Http => Kind::HttpMiddleware,
                Protocol::Tcp => Kind::TcpMiddleware,
            };
            for name in &mut row.middlewares {
                if let Some(new) = called(middleware, name) {
                    *name = new;
                }
            }
            if let Some(new) = row.service_ref.as_ref().and_then(|name| called(Kind::HttpService, name)) {
                row.service_ref = Some(new);
            }
            rows.insert(name.clone(), row);
        }
        let renamed = changes.into_iter().map(|(name, (new, reason))| (name, new, reason)).collect();
        Written { rows, fragments, renamed }
    }

    fn write_down(self, settled: &mut Settled) {
        let Written { rows, fragments, renamed } = self.written();
        let kept: BTreeSet<&Name> = fragments.iter().map(|(name, _)| name).collect();
        for name in self.pieces.keys() {
            if OURS.contains(&name.1.as_str()) && !kept.contains(name) {
                settled.left_out.push(Left {
                    kind: name.0.name(),
                    name: name.1.clone(),
                    file: settled.files.get(name).cloned().unwrap_or_default(),
                    reason: "is made by us where a row needs it".to_owned(),
                });
            }
        }
        for (name, new, reason) in renamed {
            let file = settled.files.get(&name).cloned().unwrap_or_default();
            settled.renamed.push(Renamed { kind: name.0, from: name.1, to: new, file, reason: reason.to_owned() });
        }
        for (name, fragment) in fragments {
            let file = settled.files.get(&name).cloned().unwrap_or_default();
            settled.fragments.push((fragment, file, self.because.get(&name).cloned()));
        }
        settled.rows = rows;
    }
}

fn fragment(kind: Kind, name: &str, piece: &Piece) -> Fragment {
    Fragment {
        id: Uuid::new_v4(),
        kind: kind.name().to_owned(),
        name: name.to_owned(),
        body: serde_json::to_value(piece).unwrap_or_default(),
        enabled: true,
        notes: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        version: 0,
    }
}
