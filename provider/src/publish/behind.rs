//! The rows behind what runs, for who keeps them: all, or what is others than those told last.

use std::{collections::BTreeMap, sync::Arc};

use crate::row::{Key, Row, Rows};

#[derive(Debug)]
pub enum Behind {
    All(Rows),
    /// `None` is a row that is gone.
    Since(BTreeMap<Key, Option<Arc<Row>>>),
}

impl Behind {
    /// Takes what was told next.
    pub fn add(&mut self, next: Self) {
        match (self, next) {
            (all, next @ Self::All(_)) => *all = next,
            (Self::All(rows), next) => next.bring(rows),
            (Self::Since(changes), Self::Since(next)) => changes.extend(next),
        }
    }

    /// Brings rows that were kept up to this.
    pub fn bring(self, rows: &mut Rows) {
        let changes = match self {
            Self::All(all) => return *rows = all,
            Self::Since(changes) => changes,
        };
        for (key, row) in changes {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
    }
}
