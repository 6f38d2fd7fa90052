//! Which of several changed rows makes a Traefik refuse a whole config: found by giving it some of them at a time.
//!
//! All suspects are held back at first. Once the instance runs what is left, half of them are tried; a half that is taken
//! is innocent, one that is refused is halved again. Each refusal costs Traefik a pause, and nobody a route.

use std::collections::BTreeSet;

use crate::row::Key;

#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Groups with at least one guilty among them, or not tried yet.
    groups: Vec<Vec<Key>>,
    trying: Option<Vec<Key>>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Give it these again, and see.
    Try(Vec<Key>),
    /// These are tried, and hold them back again.
    HoldBack(Vec<Key>),
    Nothing,
}

impl Suspects {
    /// Begins with all that are held back.
    pub(super) fn of(keys: &[Key]) -> Self {
        let mut suspects = Self::default();
        suspects.split(keys);
        suspects
    }

    fn split(&mut self, keys: &[Key]) {
        // A single one that was refused is guilty: it stays held back, and is tried no more.
        if keys.len() > 1 {
            let (left, right) = keys.split_at(keys.len() / 2);
            self.groups.extend([right.to_vec(), left.to_vec()]);
        }
    }

    /// It runs what it was given last.
    pub(super) fn runs(&mut self) -> Next {
        self.trying = None;
        match self.groups.pop() {
            Some(group) => {
                self.trying = Some(group.clone());
                Next::Try(group)
            }
            None => Next::Nothing,
        }
    }

    /// It refuses what it was given last.
    pub(super) fn refuses(&mut self) -> Next {
        match self.trying.take() {
            Some(tried) => {
                self.split(&tried);
                Next::HoldBack(tried)
            }
            None => Next::Nothing,
        }
    }

    /// These changed meanwhile, and are suspects no more.
    pub(super) fn forget(&mut self, keys: &BTreeSet<Key>) {
        for group in self.groups.iter_mut().chain(&mut self.trying) {
            group.retain(|key| !keys.contains(key));
        }
        self.groups.retain(|group| !group.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn every_guilty_one_is_found_and_no_other_stays_held_back(
            guilty in proptest::collection::vec(any::<bool>(), 1..12),
        ) {
            let keys: Vec<Key> = (0..guilty.len()).map(|n| Key::fragment(Uuid::from_u128(n as u128))).collect();
            let guilty: BTreeSet<Key> = keys.iter().zip(&guilty).filter(|(_, guilty)| **guilty).map(|(key, _)| *key).collect();
            let mut held: BTreeSet<Key> = keys.iter().copied().collect();
            let mut suspects = Suspects::of(&keys);
            for step in 0..100 {
                prop_assert!(step < 99, "it ends");
                let refused = guilty.iter().any(|key| !held.contains(key));
                match if refused { suspects.refuses() } else { suspects.runs() } {
                    Next::Try(keys) => held.retain(|key| !keys.contains(key)),
                    Next::HoldBack(keys) => held.extend(keys),
                    Next::Nothing => break,
                }
            }
            if guilty.is_empty() {
                // The refusal was not theirs: who is alone is not tried again.
                prop_assert!(held.len() <= 1);
            } else {
                prop_assert!(held.is_superset(&guilty));
                prop_assert!(keys.len() == 1 || held == guilty);
            }
        }
    }
}
