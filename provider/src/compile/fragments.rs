//! The fragments: typed, then judged together, since one may name another or a row.
//!
//! A fragment joins only when Traefik would take it, and all that it names is there. A router that names something
//! missing keeps its rule and answers 503; every other fragment is left out, and what names it is judged likewise. A
//! row always wins over a fragment of its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use charliehub_proto::{
    domain::Protocol,
    fragment::Fragment,
    traefik::{self, Kind, tls::CertAndKey},
};

use super::{
    Section, Settings, State,
    coalesce::{Apart, forgets},
    index::Index,
    middleware,
    output::{Name, Output},
    piece::Piece,
    router::own_name,
    shared::{AUTHELIA, CLOSED, Shared},
    syntax,
};
use crate::row::{Key, Row};

#[derive(Debug, Default)]
pub(super) struct Fragments {
    all: BTreeMap<Key, Entry>,
    /// The enabled ones.
    names: Index<Name>,
    /// Who names what.
    wanted: Index<Name>,
    /// The routers of rows that compile to something which a fragment has or names.
    concerned: Index<Name>,
    live: BTreeSet<Name>,
    /// The middlewares that treat each request by itself.
    forgetful: BTreeSet<Name>,
    apart: Apart,
}

#[derive(Debug)]
struct Entry {
    name: Option<Name>,
    parsed: Parsed,
    verdict: Verdict,
}

#[derive(Debug)]
enum Parsed {
    Off,
    Bad(String),
    Fine { piece: Box<traefik::Piece>, references: Vec<Reference> },
}

/// Something that a fragment names, and where.
#[derive(Debug)]
struct Reference {
    name: Name,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Off,
    Live,
    /// `held`: it is a router, and can hold its place.
    Closed {
        reason: String,
        held: bool,
    },
}

/// What the rows say about a name: who has it.
pub(super) struct Taken {
    pub(super) by: Key,
    /// True when it is a service that fragments can use.
    pub(super) service: bool,
}

/// What is different after judging again.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) fragments: BTreeSet<Key>,
    /// Came or went, or are other than they were for rows that share.
    pub(super) names: BTreeSet<Name>,
    /// Hosts of rows that may share a router now, or not any more.
    pub(super) hosts: BTreeSet<Arc<str>>,
    /// The same of all rows.
    pub(super) all: bool,
}

impl Fragments {
    /// Takes a changed fragment; judge afterwards.
    pub(super) fn put(&mut self, key: Key, row: Option<&Row>, settings: &Settings) {
        if let Some(old) = self.all.remove(&key) {
            self.index(key, &old, |index, name, key| index.remove(name, &key));
        }
        let Some(row) = row else { return };
        let mut entry = match row {
            Row::Fragment(fragment) => parse(fragment),
            Row::Bad(row) => bad(row.reason.clone()),
            Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => {
                bad("another row in the place of a fragment".to_owned())
            }
        };
        if let Some(name) = &entry.name
            && let Err(reason) = reserved(name, settings)
        {
            entry.parsed = Parsed::Bad(reason);
        }
        self.index(key, &entry, |index, name, key| index.insert(name.clone(), key));
        self.all.insert(key, entry);
    }

    fn index(&mut self, key: Key, entry: &Entry, change: fn(&mut Index<Name>, &Name, Key)) {
        if let (Some(name), Parsed::Fine { .. } | Parsed::Bad(_)) = (&entry.name, &entry.parsed) {
            change(&mut self.names, name, key);
            if let Some(router) = router_of(name) {
                change(&mut self.concerned, &router, key);
            }
        }
        if let Parsed::Fine { references, .. } = &entry.parsed {
            for Reference { name, .. } in references {
                change(&mut self.wanted, name, key);
                if matches!(name.0, Section::HttpServices | Section::TcpServices)
                    && let Some(router) = router_of(name)
                {
                    change(&mut self.concerned, &router, key);
                }
            }
        }
    }

    /// The enabled fragment of a name.
    pub(super) fn named(&self, name: &Name) -> Option<Key> {
        self.names.get(name).next().copied()
    }

    pub(super) fn is_live(&self, name: &Name) -> bool {
        self.live.contains(name)
    }

    /// True when a fragment has, or names, something that the row of this name may compile to.
    pub(super) fn concerned_by(&self, protocol: Protocol, name: &Arc<str>) -> bool {
        let section = match protocol {
            Protocol::Http => Section::HttpRouters,
            Protocol::Tcp => Section::TcpRouters,
        };
        self.concerned.contains(&(section, Arc::clone(name)))
    }

    /// Decides anew which fragments join. `shut` are closed whatever they say; `taken` tells who of the rows has a name.
    pub(super) fn judge(
        &mut self,
        settings: &Settings,
        shut: &BTreeMap<Key, String>,
        taken: &dyn Fn(Protocol, &str) -> Option<Taken>,
    ) -> Changes {
        let mut verdicts: BTreeMap<Key, Verdict> = BTreeMap::new();
        let mut open: Vec<(Key, &Name, &Vec<Reference>)> = Vec::new();
        for (key, entry) in &self.all {
            let verdict = match (&entry.parsed, &entry.name) {
                (Parsed::Off, _) => Verdict::Off,
                (Parsed::Bad(reason), _) => left_out(reason.clone()),
                (Parsed::Fine { .. }, None) => left_out("name: is missing; give it one".to_owned()),
                (Parsed::Fine { piece, references }, Some(name)) => {
                    if let Some(row) = clash(name, taken) {
                        left_out(format!("name: belongs to what row {} compiles to; rename the fragment", row.id))
                    } else if let Some(other) = self.names.get(name).find(|other| *other != key) {
                        left_out(format!("name: fragment {} of this kind has it too; rename one of them", other.id))
                    } else if let Some(reason) = shut.get(key) {
                        Verdict::Closed { reason: reason.clone(), held: true }
                    } else if let Err(reason) = unknown(piece, settings) {
                        Verdict::Closed { reason, held: true }
                    } else {
                        open.push((*key, name, references));
                        continue;
                    }
                }
            };
            verdicts.insert(*key, verdict);
        }
        // From those that name nothing upwards: a circle never joins, and Traefik would refuse it.
        let mut live: BTreeSet<Name> = BTreeSet::new();
        loop {
            let before = open.len();
            open.retain(|(key, name, references)| {
                let missing = references.iter().find(|reference| !is_there(&reference.name, &live, settings, taken));
                if missing.is_none() {
                    live.insert((*name).clone());
                    verdicts.insert(*key, Verdict::Live);
                }
                missing.is_some()
            });
            if open.len() == before {
                break;
            }
        }
        for (key, _, references) in &open {
            let missing = references.iter().find(|reference| !is_there(&reference.name, &live, settings, taken));
            let reason = missing.map_or_else(String::new, |Reference { path, name: (section, name) }| {
                let (protocol, kind) = section.path();
                format!("body.{path}: there is no `{name}` among {protocol}.{kind} that is enabled and valid; add it")
            });
            verdicts.insert(*key, Verdict::Closed { reason, held: true });
        }
        let mut changes =
            Changes { names: live.symmetric_difference(&self.live).cloned().collect(), ..Changes::default() };
        for (key, verdict) in verdicts {
            if let Some(entry) = self.all.get_mut(&key)
                && entry.verdict != verdict
            {
                entry.verdict = verdict;
                changes.fragments.insert(key);
            }
        }
        self.live = live;
        self.weigh(settings, &mut changes);
        changes
    }

    /// Finds out what is to be known of the fragments where rows share routers.
    fn weigh(&mut self, settings: &Settings, changes: &mut Changes) {
        let fine = self.all.values().filter_map(|entry| match &entry.parsed {
            Parsed::Fine { piece, .. } => Some((entry.name.clone()?, &**piece)),
            Parsed::Off | Parsed::Bad(_) => None,
        });
        let pieces: BTreeMap<Name, &traefik::Piece> = fine.collect();
        let mut apart = Apart::default();
        for piece in pieces.values() {
            apart.add(piece);
        }
        changes.hosts = apart.hosts.symmetric_difference(&self.apart.hosts).cloned().collect();
        changes.all = (apart.all, apart.secure) != (self.apart.all, self.apart.secure);
        self.apart = apart;
        let mut forgetful: BTreeSet<Name> = BTreeSet::new();
        loop {
            let before = forgetful.len();
            for name in &self.live {
                let Some(traefik::Piece::HttpMiddleware(middleware)) = pieces.get(name) else { continue };
                let inner = middleware.chain.iter().flat_map(|chain| &chain.middlewares);
                let forgets_too = |inner: &String| {
                    let bare = own_name(inner).map(|bare| (Section::HttpMiddlewares, Arc::from(bare)));
                    bare.is_some_and(|name| forgetful.contains(&name) || shared(&name, settings).is_some())
                };
                if forgets(middleware) && inner.into_iter().all(forgets_too) {
                    forgetful.insert(name.clone());
                }
            }
            if forgetful.len() == before {
                break;
            }
        }
        changes.names.extend(forgetful.symmetric_difference(&self.forgetful).cloned());
        self.forgetful = forgetful;
    }

    /// True when each request that goes through this middleware of ours is treated by itself, or none goes.
    pub(super) fn forgets(&self, name: &Name) -> bool {
        self.forgetful.contains(name) || !self.live.contains(name)
    }

    /// True when a row of this host cannot share its router.
    pub(super) fn keeps_apart(&self, host: &str, secure: bool) -> bool {
        self.apart.holds(host, secure)
    }

    /// True when a fragment names the service of this http row.
    pub(super) fn wants_service(&self, name: &Arc<str>) -> bool {
        !self.all.is_empty() && self.wanted.contains(&(Section::HttpServices, Arc::clone(name)))
    }

    /// The http services that a fragment names.
    pub(super) fn services(&self, key: &Key) -> impl Iterator<Item = &Arc<str>> {
        let references = match self.all.get(key).map(|entry| &entry.parsed) {
            Some(Parsed::Fine { references, .. }) => references.as_slice(),
            Some(Parsed::Off | Parsed::Bad(_)) | None => &[],
        };
        references.iter().filter(|one| one.name.0 == Section::HttpServices).map(|one| &one.name.1)
    }

    /// What the fragment contributes. The default store is not among it: see [`Self::default_store`].
    pub(super) fn output(&self, key: &Key, settings: &Settings) -> Option<Output> {
        let entry = self.all.get(key)?;
        let mut output = Output::nothing(None, State::Off);
        let fine = match (&entry.parsed, &entry.name) {
            (Parsed::Fine { piece, references }, Some(name)) => Some((piece, references, name)),
            _ => None,
        };
        match (&entry.verdict, fine) {
            (Verdict::Off, _) => {}
            (Verdict::Live, Some((piece, references, name))) => {
                output.route.state = State::Live;
                output.shared.extend(references.iter().filter_map(|reference| shared(&reference.name, settings)));
                output.shared.sort_unstable();
                output.shared.dedup();
                output.route.warnings = warnings(piece, name, settings);
                if !is_default_store(name) {
                    output.pieces.push(Piece {
                        section: name.0,
                        name: Arc::clone(&name.1),
                        text: piece.to_json().into(),
                    });
                }
            }
            (Verdict::Closed { reason, held }, fine) => {
                output.route.state = State::Closed { reason: reason.clone() };
                if let (true, Some((piece, _, name))) = (held, fine)
                    && let Some((closed, shared)) = closed(piece, settings)
                {
                    output.shared.push(shared);
                    output.pieces.push(Piece {
                        section: name.0,
                        name: Arc::clone(&name.1),
                        text: closed.to_json().into(),
                    });
                }
            }
            (Verdict::Live, None) => output.route.state = State::Closed { reason: "body: cannot be read".to_owned() },
        }
        output.route.routers = output
            .pieces
            .iter()
            .filter(|piece| piece.section.is_router())
            .map(|piece| (piece.section, Arc::clone(&piece.name)))
            .collect();
        Some(output)
    }

    /// The default store: that of the settings over that of a fragment.
    pub(super) fn default_store(&self, settings: &Settings) -> Option<Arc<str>> {
        let name: Name = (Section::TlsStores, DEFAULT.into());
        let mut store = traefik::tls::Store::default();
        if self.live.contains(&name)
            && let Some(entry) = self.names.get(&name).find_map(|key| self.all.get(key))
            && let Parsed::Fine { piece, .. } = &entry.parsed
            && let traefik::Piece::TlsStore(given) = &**piece
        {
            store = given.clone();
        }
        if let Some((certificate, key)) = &settings.default_certificate {
            store.default_certificate = Some(CertAndKey { cert_file: certificate.clone(), key_file: key.clone() });
        }
        (store != traefik::tls::Store::default()).then(|| traefik::to_json(&store).into())
    }
}

pub(super) const DEFAULT: &str = "default";

fn is_default_store((section, name): &Name) -> bool {
    *section == Section::TlsStores && &**name == DEFAULT
}

fn bad(reason: String) -> Entry {
    Entry { name: None, parsed: Parsed::Bad(reason), verdict: Verdict::Off }
}

fn left_out(reason: String) -> Verdict {
    Verdict::Closed { reason, held: false }
}

fn parse(fragment: &Fragment) -> Entry {
    let kind = match fragment.kind.parse::<Kind>() {
        Ok(kind) => kind,
        Err(_) if !fragment.enabled => return Entry { name: None, parsed: Parsed::Off, verdict: Verdict::Live },
        Err(error) => return bad(format!("kind: {error}")),
    };
    let name = Some((Section::from(kind), Arc::from(fragment.name.as_str())));
    let parsed = if !fragment.enabled {
        Parsed::Off
    } else if !syntax::is_bare_name(&fragment.name) {
        Parsed::Bad("name: not a name of letters, digits, . _ and -; correct it".to_owned())
    } else {
        match traefik::piece(kind, &fragment.body) {
            Ok(piece) => {
                let references = piece.references().into_iter().filter_map(|reference| {
                    let name = (Section::from(reference.kind), Arc::from(own_name(&reference.name)?));
                    Some(Reference { name, path: reference.path })
                });
                Parsed::Fine { references: references.collect(), piece: Box::new(piece) }
            }
            Err(invalid) if invalid.path.is_empty() => Parsed::Bad(format!("body: {}", invalid.reason)),
            Err(invalid) => Parsed::Bad(format!("body.{}: {}", invalid.path, invalid.reason)),
        }
    };
    Entry { name, parsed, verdict: Verdict::Off }
}

/// Names that are ours whatever the rows say.
fn reserved((section, name): &Name, settings: &Settings) -> Result<(), String> {
    if name.starts_with("charliehub-") {
        return Err("name: begins with charliehub-, which is kept for ours; rename it".to_owned());
    }
    if *section == Section::HttpMiddlewares && &**name == AUTHELIA && settings.forward_auth.is_some() {
        return Err(
            "name: is that of the middleware of [access] forward_auth; rename it, or unset forward_auth".to_owned()
        );
    }
    Ok(())
}

/// The router of the row that would compile to something of this name.
fn router_of((section, name): &Name) -> Option<Name> {
    match section {
        Section::HttpRouters | Section::HttpServices => Some((Section::HttpRouters, Arc::clone(name))),
        Section::TcpRouters | Section::TcpServices => Some((Section::TcpRouters, Arc::clone(name))),
        Section::HttpMiddlewares => Some((Section::HttpRouters, middleware::owner(name)?.into())),
        Section::TcpMiddlewares => Some((Section::TcpRouters, middleware::owner(name)?.into())),
        Section::HttpServersTransports
        | Section::HttpModels
        | Section::TcpServersTransports
        | Section::UdpRouters
        | Section::UdpServices
        | Section::TlsCertificates
        | Section::TlsOptions
        | Section::TlsStores => None,
    }
}

/// The row that compiles to something of this name.
fn clash(name: &Name, taken: &dyn Fn(Protocol, &str) -> Option<Taken>) -> Option<Key> {
    let (section, router) = router_of(name)?;
    let protocol = if section == Section::TcpRouters { Protocol::Tcp } else { Protocol::Http };
    taken(protocol, &router).map(|taken| taken.by)
}

fn shared((section, name): &Name, settings: &Settings) -> Option<Shared> {
    let auth = *section == Section::HttpMiddlewares && &**name == AUTHELIA && settings.forward_auth.is_some();
    auth.then_some(Shared::Authelia)
}

fn is_there(
    name: &Name,
    live: &BTreeSet<Name>,
    settings: &Settings,
    taken: &dyn Fn(Protocol, &str) -> Option<Taken>,
) -> bool {
    let service_of = |protocol| taken(protocol, &name.1).is_some_and(|taken| taken.service);
    live.contains(name)
        || shared(name, settings).is_some()
        || match name.0 {
            Section::HttpServices => service_of(Protocol::Http),
            Section::TcpServices => service_of(Protocol::Tcp),
            Section::TlsOptions => &*name.1 == DEFAULT,
            Section::HttpRouters
            | Section::HttpMiddlewares
            | Section::HttpServersTransports
            | Section::HttpModels
            | Section::TcpRouters
            | Section::TcpMiddlewares
            | Section::TcpServersTransports
            | Section::UdpRouters
            | Section::UdpServices
            | Section::TlsCertificates
            | Section::TlsStores => false,
        }
}

/// What a router names that is not in the configuration that we write.
fn unknown(piece: &traefik::Piece, settings: &Settings) -> Result<(), String> {
    let (entry_points, resolver) = ways(piece);
    if let Some(name) = entry_points.iter().find(|name| !knows(settings.entry_points.as_ref(), name)) {
        return Err(format!(
            "body.entryPoints: `{name}` is not in [compile] entry_points; add it there, or correct it"
        ));
    }
    match resolver {
        Some(name) if !knows(settings.cert_resolvers.as_ref(), name) => Err(format!(
            "body.tls.certResolver: `{name}` is not in [compile] cert_resolvers; add it there, or correct it"
        )),
        _ => Ok(()),
    }
}

fn knows(known: Option<&BTreeSet<String>>, name: &str) -> bool {
    known.is_none_or(|known| known.contains(name))
}

/// The entry points and the resolver of a router.
fn ways(piece: &traefik::Piece) -> (&[String], Option<&str>) {
    let (entry_points, resolver) = if let traefik::Piece::HttpRouter(router) = piece {
        (&router.entry_points, router.tls.as_ref().map(|tls| tls.cert_resolver.as_str()))
    } else if let traefik::Piece::TcpRouter(router) = piece {
        (&router.entry_points, router.tls.as_ref().map(|tls| tls.cert_resolver.as_str()))
    } else if let traefik::Piece::UdpRouter(router) = piece {
        (&router.entry_points, None)
    } else {
        return (&[], None);
    };
    (entry_points, resolver.filter(|name| !name.is_empty()))
}

/// The router with nothing behind it; `None` for what cannot be one.
fn closed(piece: &traefik::Piece, settings: &Settings) -> Option<(traefik::Piece, Shared)> {
    let known = |names: &[String]| -> Option<Vec<String>> {
        let known: Vec<_> = names.iter().filter(|name| knows(settings.entry_points.as_ref(), name)).cloned().collect();
        (names.is_empty() || !known.is_empty()).then_some(known)
    };
    if let traefik::Piece::HttpRouter(router) = piece {
        if !router.parent_refs.is_empty() || router.service.is_empty() {
            return None;
        }
        let mut router = router.clone();
        router.entry_points = known(&router.entry_points)?;
        router.middlewares.clear();
        CLOSED.clone_into(&mut router.service);
        if let Some(tls) = &mut router.tls {
            tls.options.clear();
            tls.cert_resolver.clear();
        }
        return Some((traefik::Piece::HttpRouter(router), Shared::HttpClosed));
    }
    let traefik::Piece::TcpRouter(router) = piece else { return None };
    let mut router = router.clone();
    router.entry_points = known(&router.entry_points)?;
    router.middlewares.clear();
    CLOSED.clone_into(&mut router.service);
    if let Some(tls) = &mut router.tls {
        tls.options.clear();
        tls.cert_resolver.clear();
    }
    Some((traefik::Piece::TcpRouter(router), Shared::TcpClosed))
}

fn warnings(piece: &traefik::Piece, name: &Name, settings: &Settings) -> Vec<String> {
    let traefik::Piece::TlsStore(store) = piece else { return Vec::new() };
    let warning = if !is_default_store(name) {
        "name: Traefik uses the store `default` only; rename it"
    } else if store.default_certificate.is_none() && settings.default_certificate.is_none() {
        "body.defaultCertificate: is missing, so Traefik makes a key on every change, which takes longer than all else; \
         add it, or set [compile] default_certificate"
    } else {
        return Vec::new();
    };
    vec![warning.to_owned()]
}
