//! Rows by themselves and rows together: which may share, what they share, and who stands behind a router.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::domain::{Domain, Protocol, Status};
use serde::Serialize;

use super::{
    Coalesce, Compiler, MOST_RESOLVED, Section, Touched,
    coalesce::{Coalesced, Edits, Settled, Shape, ShapeId, Stirred},
    host_of,
    middleware::owner,
    output::Name,
    place::{Claim, Place, Spot},
    router, shared,
};
use crate::row::{Key, Row};

impl Compiler {
    /// The routers that stand for a row or fragment in Traefik, of which one may stand for other rows too. Empty when it is
    /// off, is a fragment of another kind, or cannot be held by any router.
    pub fn routers(&self, key: &Key) -> Vec<(Section, Arc<str>)> {
        if let Some(output) = self.outputs.get(key) {
            return output.route.routers.clone();
        }
        let spot = self.places.get(key).and_then(Place::spot);
        let shared = spot.and_then(|spot| self.coalesced.router(key, spot.host.as_str()));
        shared.map(|name| (Section::HttpRouters, name)).into_iter().collect()
    }

    /// What is served all the same, but hardly meant so.
    pub fn warnings(&self, key: &Key) -> Vec<String> {
        let mut warnings = self.route(key).map(|route| route.warnings.clone()).unwrap_or_default();
        if self.counts.resolved > MOST_RESOLVED && self.coalesced.shape(key).is_some_and(|shape| shape.is_resolved()) {
            warnings.push(format!(
                "tls_mode: acme, as {} rows that share routers have it; from {MOST_RESOLVED} on each change takes Traefik long, \
                 so give them a wildcard or the default certificate, or certificates by tls.certificate fragments",
                self.counts.resolved
            ));
        }
        warnings
    }

    /// The rows or fragments that an object of the configuration came from, by the words of Traefik's API: `http`,
    /// `routers`. Several for what rows share.
    pub fn who_has(&self, protocol: &str, kind: &str, name: &str) -> Vec<Key> {
        let section = Section::ALL.into_iter().find(|section| section.path() == (protocol, kind));
        section.map(|section| self.behind(section, name)).unwrap_or_default()
    }

    /// The rows or fragments that an object of the configuration came from.
    pub fn behind(&self, section: Section, name: &str) -> Vec<Key> {
        let of_shape = owner(name).filter(|_| section == Section::HttpMiddlewares).unwrap_or(name);
        let together = [&self.coalesced, &self.nested].into_iter().flat_map(|all| all.rows(of_shape));
        let together: Vec<Key> = together.collect();
        if together.is_empty() { self.behind_one(section, name).into_iter().collect() } else { together }
    }

    fn behind_one(&self, section: Section, name: &str) -> Option<Key> {
        let protocol = [Protocol::Http, Protocol::Tcp].into_iter().find(|known| known.as_str() == section.path().0);
        let row = |name: &str| self.claims.get(&Claim::of(protocol?, name.into()), &self.places).next().copied();
        let of_row = || row(name).or_else(|| row(owner(name)?));
        self.fragments.named(&(section, name.into())).or_else(of_row)
    }

    /// Touches the http rows on the host of a tcp row that comes or goes: whether they share depends on it.
    pub(super) fn neighbours(&self, spot: &Spot, touched: &mut Touched) {
        if spot.meets_http() {
            touched.keys.extend(self.claims.hosts.get(&(Protocol::Http, Arc::clone(spot.host.shared()))));
        }
    }

    /// Brings up to date what rows share. The touched rows that are left are those that stand alone.
    pub(super) fn gather(&mut self, touched: &mut Touched) -> Settled {
        let mut coalesced = std::mem::take(&mut self.coalesced);
        let stirred = {
            let mut last = None;
            let shape = |key: &Key, spot| Some(ShapeId::of(self.parts(key, spot)?, &mut last));
            self.stir(&mut coalesced, &touched.keys, touched, shape)
        };
        let again = touched.judge || touched.sites;
        let together =
            coalesced.settle(stirred, &touched.keys, again, self.standing, &|key, id| self.compile_shape(key, id));
        self.coalesced = coalesced;
        touched.keys.extend(&together.alone);
        touched.keys.retain(|key| self.coalesced.shape(key).is_none());
        together
    }

    /// Takes what these rows may share now, as `shape` tells it.
    pub(super) fn stir<'a, 'k>(
        &'a self,
        coalesced: &mut Coalesced,
        keys: impl IntoIterator<Item = &'k Key>,
        touched: &Touched,
        mut shape: impl FnMut(&Key, &'a Spot) -> Option<ShapeId>,
    ) -> Stirred {
        let mut stirred = Stirred::default();
        for key in keys {
            let spot = self.places.get(key).and_then(Place::spot);
            let now = spot.and_then(|spot| Some((shape(key, spot)?, spot.host.shared())));
            let was = touched.was.get(key).or_else(|| spot.map(|spot| spot.host.shared()));
            coalesced.put(*key, now, was, &mut stirred);
        }
        stirred
    }

    /// What makes the shape of a row that may share its router with others.
    fn parts<'a>(&'a self, key: &Key, spot: &'a Spot) -> Option<impl Serialize + PartialEq + use<'a>> {
        let row = self.plain(key, spot)?;
        let forgets = |name: &String| {
            router::own_name(name).is_some_and(|bare| {
                bare == shared::AUTHELIA || self.fragments.forgets(&(Section::HttpMiddlewares, bare.into()))
            })
        };
        let may = row.status == Status::Active
            // What one counts, others must not.
            && row.rate_limit.is_none()
            && row.middlewares.iter().all(forgets)
            && !self.fragments.wants_service(&spot.name);
        may.then(|| ShapeId::parts(row, spot))
    }

    /// The row, if its place is its own, and nothing but its host makes the place another than those of its like.
    pub(super) fn plain(&self, key: &Key, spot: &Spot) -> Option<&Domain> {
        let (Some(Place::At(_)), Row::Domain(row)) = (self.places.get(key), &**self.rows.get(key)?) else {
            return None;
        };
        let plain = self.settings.coalesce == Coalesce::Auto
            && spot.may_share()
            && !self.shut.contains_key(key)
            && !self.poison.contains(&host_of(spot))
            && !self.claims.has_several(&Claim::of(Protocol::Http, Arc::clone(&spot.name)), &self.places)
            && !self.is_apart(spot);
        plain.then_some(row)
    }

    /// Whether a connection to this host may be for somebody else if Traefik does not find the host in a rule.
    fn is_apart(&self, spot: &Spot) -> bool {
        let secure = spot.entry_points.iter().any(|entry| entry.tls);
        let meets = || !self.astride.is_empty() || self.meeting.contains(spot.host.shared());
        self.fragments.keeps_apart(spot.host.as_str(), secure) || secure && meets()
    }

    /// What the rows of a shape share, of which this is one.
    fn compile_shape(&self, key: &Key, id: ShapeId) -> Option<Shape> {
        let spot = self.places.get(key)?.spot()?;
        let Row::Domain(row) = &**self.rows.get(key)? else { return None };
        let under = Spot { name: id.name(), ..spot.clone() };
        let live = |name: &Name| self.fragments.is_live(name);
        let (output, heads) = router::compile(key.id, Some(row), &under, None, &self.settings, &live);
        Some(Shape::new(id, spot, output, heads.into_iter().next()?))
    }

    /// Changes routers of groups, and leaves alone those that come as they were.
    pub(super) fn edit(&mut self, edits: &Edits) {
        let coming: BTreeMap<&Arc<str>, &Arc<str>> = edits.put.iter().map(|piece| (&piece.name, &piece.text)).collect();
        for (section, name) in edits.out.iter().filter(|(_, name)| !coming.contains_key(name)) {
            self.take_out(*section, name);
        }
        for piece in &edits.put {
            let there = self.pieces.get(&piece.section).and_then(|inner| inner.get(&piece.name));
            if there != Some(&piece.text) {
                self.put_in(piece.section, &piece.name, &piece.text);
            }
        }
    }
}
