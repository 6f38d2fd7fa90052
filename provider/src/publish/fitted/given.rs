//! What one instance is given that is not given what all get.

use std::{collections::BTreeMap, sync::Arc};

use super::super::{Change, encoded};
use crate::{
    compile::{Compiler, Settings},
    row::{Key, Row, Rows},
    snapshot::{
        Snapshot,
        encode::{Draft, Encoded},
    },
};

#[derive(Debug)]
pub(in crate::publish) struct Given {
    compiler: Compiler,
    draft: Draft,
    /// It holds the rows as they are, none in the place of another.
    whole: bool,
}

impl Given {
    pub(super) fn new(settings: &Arc<Settings>) -> Self {
        Self { compiler: Compiler::new(Arc::clone(settings)), draft: Draft::default(), whole: false }
    }

    pub(in crate::publish) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Gives the rows as they are. `changed` are those that are not as they were given last; `None`: not known.
    pub(super) fn all(&mut self, rows: &Rows, changed: Option<&[Change]>) {
        match changed.filter(|_| self.whole) {
            Some(changed) => {
                let now = changed.iter().map(|(key, _)| (*key, rows.get(key).cloned())).collect();
                self.compiler.apply(now);
            }
            None => self.instead(rows, BTreeMap::new()),
        }
        self.whole = true;
    }

    /// Gives these rows, and those in `closed` as closed.
    pub(super) fn instead(&mut self, rows: &Rows, closed: BTreeMap<Key, String>) {
        let holds = self.compiler.rows();
        let differ = |(key, row): (&Key, &Arc<Row>)| {
            let same = holds.get(key).is_some_and(|has| Arc::ptr_eq(has, row) || has == row);
            (!same).then(|| (*key, Some(Arc::clone(row))))
        };
        let mut changes: Vec<Change> = rows.iter().filter_map(differ).collect();
        changes.extend(holds.keys().filter(|key| !rows.contains_key(key)).map(|key| (*key, None)));
        self.compiler.apply(changes);
        self.compiler.shut(closed);
        self.whole = false;
    }

    /// As bytes: those of `served` when they are the same.
    pub(in crate::publish) fn encode(&mut self, served: Option<&Snapshot>) -> Arc<Encoded> {
        let changes = self.compiler.take_changes();
        self.draft.update(self.compiler.pieces(), &changes);
        encoded(&self.draft, served)
    }
}
