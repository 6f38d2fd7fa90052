//! Rows that differ in their host alone, in few routers: Traefik tries its routers one by one, and takes long to sort them.
//!
//! Each row that may share has a [`ShapeId`]: all of it but its host. The rows of a shape are a [`Class`]; from some number
//! on they are together, with one service and a router for each of their groups. All of it is told by the rows, never by how
//! they came to be, and costs what changed.

mod apart;
mod class;
pub(super) mod listed;
mod shape;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::class::{Change, Class};
pub(super) use self::{
    apart::{Apart, forgets},
    class::{Edits, Size},
    shape::{Shape, ShapeId},
};
use crate::row::Key;

/// When rows share, and how many a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Up to so many places Traefik is fast with a router for each.
    pub(super) few: usize,
    /// As many rows of a shape share; fewer keep their own.
    pub(super) alike: usize,
    pub(super) plain: Size,
    /// Where a resolver is asked.
    pub(super) resolved: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self { few: 500, alike: 8, plain: class::PLAIN, resolved: class::RESOLVED }
    }
}

/// The rows that may share, by what they share.
#[derive(Debug, Default)]
pub(super) struct Coalesced {
    pub(super) limits: Limits,
    /// There are enough places for it.
    on: bool,
    shapes: BTreeMap<Key, ShapeId>,
    classes: BTreeMap<ShapeId, Class>,
    /// Of all groups.
    routers: usize,
    /// In all groups.
    together: usize,
    resolved: usize,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    /// What classes have from now on.
    changes: BTreeMap<ShapeId, Vec<Change>>,
    /// Rows that came to a class.
    came: BTreeMap<ShapeId, BTreeSet<Key>>,
    /// Rows that left one that is together.
    left: Vec<(Key, Arc<Shape>)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Rows that are this no more.
    pub(super) left: Vec<(Key, Arc<Shape>)>,
    /// Rows that are this now.
    pub(super) joined: Vec<(Key, Arc<Shape>)>,
    /// Rows that may share and do not, as far as they were touched.
    pub(super) alone: Vec<Key>,
    pub(super) gone: Vec<Arc<Shape>>,
    pub(super) come: Vec<Arc<Shape>>,
    pub(super) edits: Edits,
}

impl Coalesced {
    /// Of rows that share nothing but a parent.
    pub(super) fn nested() -> Self {
        Self { limits: Limits { plain: class::NESTED, ..Limits::default() }, ..Self::default() }
    }

    /// Packs what is known of all rows.
    pub(super) fn pack(&mut self) {
        self.shapes = std::mem::take(&mut self.shapes).into_iter().collect();
    }

    /// Whether rows are together, or would be if they might.
    pub(super) fn would(&self) -> bool {
        self.on && self.classes.values().any(|class| class.len() >= self.limits.alike)
    }

    /// What the row is compiled to together with others.
    pub(super) fn shape(&self, key: &Key) -> Option<&Arc<Shape>> {
        self.classes.get(self.shapes.get(key)?)?.shape.as_ref()
    }

    /// The router of the row of this host, where it has one together with others.
    pub(super) fn router(&self, key: &Key, host: &str) -> Option<Arc<str>> {
        self.classes.get(self.shapes.get(key)?)?.router(host)
    }

    /// True when the row may share.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.shapes.contains_key(key)
    }

    /// How many rows have their router together with others.
    pub(super) fn rows_together(&self) -> usize {
        self.together
    }

    /// For how many rows a router of several asks a resolver.
    pub(super) fn resolved(&self) -> usize {
        self.resolved
    }

    /// How many routers are those of groups.
    pub(super) fn routers(&self) -> usize {
        self.routers
    }

    /// The rows behind a name of a shape or a group.
    pub(super) fn rows(&self, name: &str) -> Vec<Key> {
        let Some((shape, first)) = listed::parts(name) else { return Vec::new() };
        let Some(class) = ShapeId::named(shape).and_then(|id| self.classes.get(&id)) else { return Vec::new() };
        match first {
            Some(first) => class.keys_of(first.split('/').next().unwrap_or_default()).collect(),
            None => class.keys().collect(),
        }
    }

    /// Takes what a row may share now: its shape and host. `was` is the host that it had.
    pub(super) fn put(
        &mut self,
        key: Key,
        now: Option<(ShapeId, &Arc<str>)>,
        was: Option<&Arc<str>>,
        stirred: &mut Stirred,
    ) {
        let before = self.shapes.get(&key).copied().zip(was);
        if before == now {
            return;
        }
        if let Some((id, host)) = before {
            self.shapes.remove(&key);
            let came = stirred.came.get_mut(&id).is_some_and(|came| came.remove(&key));
            stirred.changes.entry(id).or_default().push((Arc::clone(host), None));
            let shape = self.classes.get(&id).and_then(|class| class.shape.clone());
            stirred.left.extend(shape.filter(|_| !came).map(|shape| (key, shape)));
        }
        if let Some((id, host)) = now {
            self.shapes.insert(key, id);
            stirred.changes.entry(id).or_default().push((Arc::clone(host), Some(key.id)));
            // Where rows are not together yet, all of them will be looked at.
            if self.classes.get(&id).is_some_and(|class| class.shape.is_some()) {
                stirred.came.entry(id).or_default().insert(key);
            }
        }
    }

    /// Brings the groups up to their rows. `again`: what the shapes of the rows that were `touched` compile to may be
    /// something else. `places` is how many there are in all.
    pub(super) fn settle(
        &mut self,
        stirred: Stirred,
        touched: &BTreeSet<Key>,
        again: bool,
        places: usize,
        compile: &dyn Fn(&Key, ShapeId) -> Option<Shape>,
    ) -> Settled {
        let Stirred { mut changes, mut came, left } = stirred;
        let mut settled = Settled { left, ..Settled::default() };
        let on = places > self.limits.few;
        if std::mem::replace(&mut self.on, on) != on {
            for id in self.classes.keys() {
                changes.entry(*id).or_default();
            }
        }
        let mut of_class: BTreeMap<ShapeId, Vec<Key>> = BTreeMap::new();
        for (key, id) in touched.iter().filter_map(|key| Some((key, self.shapes.get(key)?))) {
            of_class.entry(*id).or_default().push(*key);
            changes.entry(*id).or_default();
        }
        for (id, changes) in changes {
            let class = self.classes.entry(id).or_default();
            let (came, touched) = (came.remove(&id).unwrap_or_default(), of_class.remove(&id).unwrap_or_default());
            let again = again && !touched.is_empty();
            self.routers -= class.routers();
            self.resolved -= class.resolved;
            let recut = class.take(changes, &self.limits);
            let together = on && class.len() >= self.limits.alike;
            let next = match (&class.shape, class.keys().next()) {
                (Some(shape), _) if together && !again => Some(Arc::clone(shape)),
                (_, Some(key)) if together => compile(&key, id).map(Arc::new),
                _ => None,
            };
            if next.is_some() && next == class.shape {
                settled.joined.extend(came.into_iter().zip(next.into_iter().cycle()));
                class.stay(&recut, &mut settled.edits);
            } else {
                if next.is_none() && class.shape.is_none() {
                    settled.alone.extend(touched);
                } else if next.is_none() {
                    settled.alone.extend(class.keys());
                }
                if let Some(was) = &class.shape {
                    let stayed = class.keys().filter(|key| !came.contains(key));
                    settled.left.extend(stayed.map(|key| (key, Arc::clone(was))));
                }
                if let Some(next) = &next {
                    settled.joined.extend(class.keys().map(|key| (key, Arc::clone(next))));
                }
                settled.come.extend(next.clone());
                settled.gone.extend(class.turn(next, &recut, &self.limits, &mut settled.edits));
            }
            self.routers += class.routers();
            class.resolved =
                if class.shape.as_ref().is_some_and(|shape| shape.is_resolved()) { class.len() } else { 0 };
            self.resolved += class.resolved;
            if class.len() == 0 {
                self.classes.remove(&id);
            }
        }
        self.together = self.together + settled.joined.len() - settled.left.len();
        settled
    }
}
