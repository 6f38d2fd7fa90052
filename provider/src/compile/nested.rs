//! Rows that differ in more than their host, below parents: Traefik asks a few of those, and then only the children of one.
//!
//! A parent has entry point, TLS and a rule for all hosts of its group; a child its own rule, middlewares and service. The
//! children of a parent have path and priority in common, so that it takes what they take and nothing else, and ranks as
//! they do: whoever is asked before or after them is the same as without it.
//!
//! A row for which a resolver is asked keeps a router of its own, whose `Host` says for which name.

use charliehub_proto::domain::{Domain, TlsMode};
use serde::Serialize;

use super::{
    Compiler, Touched,
    coalesce::{Edits, Settled, Shape, ShapeId},
    place::Spot,
    tls::resolver,
};
use crate::row::Key;

impl Compiler {
    /// Whether rows are below parents, or would be where Traefik has them.
    pub fn would_nest(&self) -> bool {
        self.nested.would()
    }

    /// Brings the parents up to the touched rows that stand alone, and touches those whose parent is another one now.
    pub(super) fn nest(&mut self, touched: &mut Touched, together: &Settled) -> Edits {
        let mut nested = std::mem::take(&mut self.nested);
        let leaving: Vec<Key> = together.joined.iter().map(|(key, _)| *key).filter(|key| nested.holds(key)).collect();
        let keys = touched.keys.iter().chain(&leaving);
        let stirred = {
            let mut last = None;
            let parent = |key: &Key, spot| Some(ShapeId::of(self.above(key, spot)?, &mut last));
            self.stir(&mut nested, keys, touched, parent)
        };
        let settled = nested.settle(stirred, &touched.keys, false, self.standing, &|key, id| self.parent(key, id));
        self.nested = nested;
        touched.keys.extend(settled.left.iter().chain(&settled.joined).map(|(key, _)| *key));
        for piece in &settled.edits.put {
            let parent_of = |key: &Key| self.outputs.get(key).and_then(|output| output.parent.as_ref());
            let rows = self.nested.rows(&piece.name).into_iter();
            touched.keys.extend(rows.filter(|key| parent_of(key) != Some(&piece.name)));
        }
        touched.keys.retain(|key| self.coalesced.shape(key).is_none());
        settled.edits
    }

    /// What makes the parent of a row that may have one.
    fn above<'a>(&self, key: &Key, spot: &'a Spot) -> Option<impl Serialize + PartialEq + use<'a>> {
        if self.coalesced.shape(key).is_some() {
            return None;
        }
        let row = self.plain(key, spot)?;
        (!self.is_resolved(row)).then(|| ShapeId::above(spot))
    }

    fn is_resolved(&self, row: &Domain) -> bool {
        row.tls_mode == TlsMode::Acme && resolver(row, &self.settings).is_some()
    }

    fn parent(&self, key: &Key, id: ShapeId) -> Option<Shape> {
        let spot = self.places.get(key)?.spot()?;
        Shape::parent(id, spot).filter(|_| self.settings.nested)
    }
}

#[cfg(test)]
mod tests;
