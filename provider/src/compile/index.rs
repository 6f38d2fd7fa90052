//! Which rows stand under the same name: a host, a claim, a fragment that they want.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
};

use crate::row::Key;

/// Nearly every name has one row: no set is made for it, and whether it has more is asked of a map that is small.
#[derive(Debug)]
pub(super) struct Index<K> {
    one: HashMap<K, Key>,
    many: HashMap<K, BTreeSet<Key>>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { one: HashMap::new(), many: HashMap::new() }
    }
}

impl<K: Hash + Eq> Index<K> {
    pub(super) fn insert(&mut self, name: K, key: Key) {
        if let Some(keys) = self.many.get_mut(&name) {
            keys.insert(key);
            return;
        }
        match self.one.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(key)),
            Entry::Occupied(entry) if *entry.get() == key => {}
            Entry::Occupied(entry) => {
                let (name, before) = entry.remove_entry();
                self.many.insert(name, [before, key].into());
            }
        }
    }

    pub(super) fn remove(&mut self, name: &K, key: &Key) {
        if self.one.get(name) == Some(key) {
            self.one.remove(name);
        }
        let Some(keys) = self.many.get_mut(name) else { return };
        keys.remove(key);
        if keys.len() < 2
            && let Some((name, keys)) = self.many.remove_entry(name)
        {
            self.one.extend(keys.first().map(|last| (name, *last)));
        }
    }

    pub(super) fn contains(&self, name: &K) -> bool {
        self.one.contains_key(name) || self.many.contains_key(name)
    }

    /// True when it has more than one row.
    pub(super) fn has_several(&self, name: &K) -> bool {
        self.many.contains_key(name)
    }

    /// In the order of the keys.
    pub(super) fn get(&self, name: &K) -> impl Iterator<Item = &Key> + use<'_, K> {
        let one = self.one.get(name);
        let many = if one.is_none() { self.many.get(name) } else { None };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
