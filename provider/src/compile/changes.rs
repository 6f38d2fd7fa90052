//! Which pieces changed, for who keeps something that was made of them.

use std::{collections::BTreeSet, mem, sync::Arc};

use super::Section;

/// With more changes than this, all is made again: to know each one would cost more than it saves.
const MOST: usize = 10_000;

/// The pieces that were changed, added or removed since they were asked for.
#[derive(Debug)]
pub enum Changes {
    All,
    These(BTreeSet<(Section, Arc<str>)>),
}

impl Changes {
    pub(super) fn add(&mut self, section: Section, name: &Arc<str>) {
        if let Self::These(names) = self {
            names.insert((section, Arc::clone(name)));
            if names.len() > MOST {
                *self = Self::All;
            }
        }
    }

    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::These(BTreeSet::new()))
    }
}
