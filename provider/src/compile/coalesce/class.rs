//! The rows of one shape, cut into the groups that have a router each.
//!
//! Hosts are in order. Where a group ends is told by the name of its last host and by how many it has, so that the same
//! rows are the same groups, and a row that comes or goes changes its own group, hardly ever another.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::{self, Peekable},
    ops::Bound::{Excluded, Included, Unbounded},
    slice,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    super::{Section, piece::Piece},
    Limits,
    shape::Shape,
};
use crate::{lot, row::Key};

/// How many hosts a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) struct Size {
    pub(in crate::compile) least: usize,
    /// Beyond the least one name in so many ends a group.
    pub(in crate::compile) one_in: u32,
    pub(in crate::compile) most: usize,
}

/// Traefik tries ten routers for 100,000 hosts, which a request does not notice; a changed row is a quarter of a megabyte.
pub(super) const PLAIN: Size = Size { least: 4_000, one_in: 4_000, most: 12_000 };
/// Some 300 on average: of 10,000 rows Traefik tries dozens of parents, then the hundreds below one.
pub(super) const NESTED: Size = Size { least: 150, one_in: 150, most: 600 };
/// Where a resolver is asked for each name, Traefik compares all of a router's with each other on every change.
pub(super) const RESOLVED: Size = Size { least: 20, one_in: 40, most: 100 };

/// What a class has at a host from now on: the row of this id, or none.
pub(super) type Change = (Arc<str>, Option<Uuid>);

#[derive(Debug, Default)]
pub(super) struct Class {
    /// What they compile to, while they are together.
    pub(super) shape: Option<Arc<Shape>>,
    /// For how many of them a resolver is asked.
    pub(super) resolved: usize,
    /// By the first host of each.
    groups: BTreeMap<Arc<str>, Group>,
    rows: usize,
}

/// Hosts in order, and the rows that have them: in one place of memory, since a change goes through all of them.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// With a `|` between two, which no host has.
    hosts: Box<str>,
    ids: Box<[Uuid]>,
}

impl Group {
    /// The hosts, with a `|` between two.
    pub(super) fn text(&self) -> &str {
        &self.hosts
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.rows().map(|(host, _)| host)
    }

    fn rows(&self) -> impl Iterator<Item = (&str, Uuid)> {
        self.hosts.split('|').zip(self.ids.iter().copied())
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        self.ids.iter().map(|id| Key::domain(*id))
    }
}

/// One that is made.
#[derive(Debug, Default)]
struct Open {
    hosts: String,
    ids: Vec<Uuid>,
}

impl Open {
    /// With room for all of `group`, and little more.
    fn like(group: Option<&Group>) -> Self {
        let (text, rows) = group.map_or((0, 0), |group| (group.hosts.len(), group.ids.len()));
        Self { hosts: String::with_capacity(text + 64), ids: Vec::with_capacity(rows + 1) }
    }

    /// Takes one more row; the group, where it ends with that.
    fn push(&mut self, host: &str, id: Uuid, size: Size) -> Option<(Arc<str>, Group)> {
        if !self.ids.is_empty() {
            self.hosts.push('|');
        }
        self.hosts.push_str(host);
        self.ids.push(id);
        if ends(host, self.ids.len(), size) { self.close() } else { None }
    }

    /// The group of what was taken, if anything was.
    fn close(&mut self) -> Option<(Arc<str>, Group)> {
        let Self { hosts, ids } = std::mem::take(self);
        let first = hosts.split('|').next().filter(|_| !ids.is_empty())?.into();
        Some((first, Group { hosts: hosts.into(), ids: ids.into() }))
    }
}

/// The first hosts of groups that are no more as they were, and of those that came for them.
#[derive(Debug, Default)]
pub(super) struct Recut {
    gone: Vec<Arc<str>>,
    fresh: BTreeSet<Arc<str>>,
}

/// What the configuration gets and loses.
#[derive(Debug, Default)]
pub(in crate::compile) struct Edits {
    pub(in crate::compile) out: Vec<(Section, Arc<str>)>,
    pub(in crate::compile) put: Vec<Piece>,
}

impl Class {
    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// How many routers it has.
    pub(super) fn routers(&self) -> usize {
        if self.shape.is_some() { self.groups.len() } else { 0 }
    }

    /// The router of the row of this host.
    pub(super) fn router(&self, host: &str) -> Option<Arc<str>> {
        let (first, _) = self.groups.range::<str, _>((Unbounded, Included(host))).next_back()?;
        Some(self.shape.as_ref()?.router(first))
    }

    /// All rows, in the order of their hosts.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.groups.values().flat_map(Group::keys)
    }

    /// The rows of the group that begins with this host.
    pub(super) fn keys_of(&self, first: &str) -> impl Iterator<Item = Key> {
        self.groups.get(first).into_iter().flat_map(Group::keys)
    }

    fn size(&self, limits: &Limits) -> Size {
        if self.shape.as_ref().is_some_and(|shape| shape.is_resolved()) { limits.resolved } else { limits.plain }
    }

    /// Takes what it has from now on, and cuts those groups again in which a host came or went.
    pub(super) fn take(&mut self, mut changes: Vec<Change>, limits: &Limits) -> Recut {
        // By the first bytes, which are compared where they are; hardly ever by all, which are somewhere in memory. Who
        // comes to a host that somebody leaves is there.
        changes.sort_by_cached_key(|(host, id)| (start(host), Arc::clone(host), id.is_none()));
        changes.dedup_by(|later, earlier| later.0 == earlier.0);
        let size = self.size(limits);
        let mut recut = Recut::default();
        let mut changes = changes.iter().peekable();
        while let Some((host, _)) = changes.peek() {
            let before = self.groups.range::<str, _>((Unbounded, Included(&**host))).next_back();
            let mut at = before.or_else(|| self.groups.first_key_value()).map(|(first, _)| Arc::clone(first));
            let mut open = Open::like(at.as_ref().and_then(|first| self.groups.get(first)));
            let mut fresh = Vec::new();
            loop {
                let old = at.and_then(|first| self.groups.remove_entry(&first));
                let next = old
                    .as_ref()
                    .and_then(|(first, _)| self.groups.range::<str, _>((Excluded(&**first), Unbounded)).next());
                let next = next.map(|(first, _)| Arc::clone(first));
                self.rows -= old.as_ref().map_or(0, |(_, old)| old.ids.len());
                for (host, id) in merged(old.as_ref().map(|(_, old)| old), &mut changes, next.as_deref()) {
                    self.rows += 1;
                    fresh.extend(open.push(host, id, size));
                }
                recut.gone.extend(old.map(|(first, _)| first));
                if open.ids.is_empty() || next.is_none() {
                    // What follows is as it was, up to the next that was changed.
                    break;
                }
                at = next;
            }
            fresh.extend(open.close());
            recut.fresh.extend(fresh.iter().map(|(first, _)| Arc::clone(first)));
            self.groups.extend(fresh);
        }
        recut
    }

    /// Tells the configuration which groups are others.
    pub(super) fn stay(&self, recut: &Recut, edits: &mut Edits) {
        let Some(shape) = &self.shape else { return };
        edits.out.extend(recut.gone.iter().map(|first| (Section::HttpRouters, shape.router(first))));
        let fresh = recut.fresh.iter().filter_map(|first| self.groups.get_key_value(first));
        edits.put.extend(fresh.map(|(first, group)| shape.group(first, group)));
    }

    /// Makes all of it anew, for rows that are together as `next`, or not at all. Returns what they were.
    pub(super) fn turn(
        &mut self,
        next: Option<Arc<Shape>>,
        recut: &Recut,
        limits: &Limits,
        edits: &mut Edits,
    ) -> Option<Arc<Shape>> {
        let size = self.size(limits);
        let was = std::mem::replace(&mut self.shape, next);
        if let Some(was) = &was {
            let stayed = self.groups.keys().filter(|first| !recut.fresh.contains(*first));
            edits.out.extend(stayed.chain(&recut.gone).map(|first| (Section::HttpRouters, was.router(first))));
        }
        if self.size(limits) != size {
            self.cut(self.size(limits));
        }
        if let Some(shape) = &self.shape {
            edits.put.extend(self.groups.iter().map(|(first, group)| shape.group(first, group)));
        }
        was
    }

    /// Cuts all of it again.
    fn cut(&mut self, size: Size) {
        let mut open = Open::default();
        let old = std::mem::take(&mut self.groups);
        for (host, id) in old.values().flat_map(Group::rows) {
            self.groups.extend(open.push(host, id, size));
        }
        self.groups.extend(open.close());
    }
}

/// The rows of a group as they are from now on; `next` is the first host of the one behind it.
fn merged<'a, 'e: 'a>(
    group: Option<&'a Group>,
    changes: &'a mut Peekable<slice::Iter<'e, Change>>,
    next: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, Uuid)> {
    let mut rows = group.into_iter().flat_map(Group::rows).peekable();
    iter::from_fn(move || {
        let mut due = |rows: Option<&(&str, Uuid)>| {
            changes.next_if(|(host, _)| match rows {
                Some((there, _)) => **host <= **there,
                None => next.is_none_or(|next| &**host < next),
            })
        };
        while let Some((host, id)) = due(rows.peek()) {
            rows.next_if(|(there, _)| **host == **there);
            if let Some(id) = id {
                return Some((&**host, *id));
            }
        }
        rows.next()
    })
}

/// The first bytes, in the order of texts.
fn start(host: &str) -> u128 {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(host.bytes()).for_each(|(to, from)| *to = from);
    u128::from_be_bytes(bytes)
}

/// Whether a group of so many ends with this host.
fn ends(host: &str, length: usize, size: Size) -> bool {
    length >= size.least && (length >= size.most || lot::is_drawn(host, size.one_in))
}
