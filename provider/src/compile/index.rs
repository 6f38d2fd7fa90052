//! Which rows stand under the same name: a host, a claim, a fragment that they want.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
};

use crate::row::Key;

#[derive(Debug)]
pub(super) struct Index<K>(HashMap<K, Keys>);

/// Nearly every name has one row: no set is made for it.
#[derive(Debug)]
enum Keys {
    One(Key),
    Many(BTreeSet<Key>),
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Index<K> {
    pub(super) fn insert(&mut self, name: K, key: Key) {
        match self.0.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(Keys::One(key));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Keys::Many(keys) => {
                    keys.insert(key);
                }
                Keys::One(one) if *one == key => {}
                Keys::One(one) => {
                    let keys = Keys::Many([*one, key].into());
                    entry.insert(keys);
                }
            },
        }
    }

    pub(super) fn remove(&mut self, name: &K, key: &Key) {
        let gone = match self.0.get_mut(name) {
            None => false,
            Some(Keys::One(one)) => one == key,
            Some(Keys::Many(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if gone {
            self.0.remove(name);
        }
    }

    pub(super) fn contains(&self, name: &K) -> bool {
        self.0.contains_key(name)
    }

    /// In the order of the keys.
    pub(super) fn get(&self, name: &K) -> impl Iterator<Item = &Key> + use<'_, K> {
        let (one, many) = match self.0.get(name) {
            None => (None, None),
            Some(Keys::One(key)) => (Some(key), None),
            Some(Keys::Many(keys)) => (None, Some(keys)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
