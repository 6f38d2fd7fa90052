//! What the database says of the rows that are held, one number each, and of all of them: kept up with each change, so that
//! to compare costs the database a scan, and us nothing.

use std::collections::BTreeMap;

use super::{read::Sum, rows::Fetched};
use crate::row::Key;

#[derive(Debug, Default)]
pub(super) struct Hashes {
    of: BTreeMap<Key, i64>,
    /// The exclusive or of all.
    all: i64,
}

impl Hashes {
    /// Takes what was read: all rows, or those that changed.
    pub(super) fn remember(&mut self, everything: bool, rows: &[Fetched]) {
        if everything {
            let there = rows.iter().filter(|fetched| fetched.row.is_some());
            // All at once: one by one they would take a third more memory.
            self.of = there.map(|fetched| (fetched.key, fetched.hash)).collect();
            self.all = self.of.values().fold(0, |all, hash| all ^ hash);
            return;
        }
        for fetched in rows {
            let was = match fetched.row {
                Some(_) => self.of.insert(fetched.key, fetched.hash),
                None => self.of.remove(&fetched.key),
            };
            self.all ^= was.unwrap_or_default() ^ fetched.row.as_ref().map_or(0, |_| fetched.hash);
        }
    }

    /// How many rows are held.
    pub(super) fn rows(&self) -> usize {
        self.of.len()
    }

    /// True when the database says the same of as many rows.
    pub(super) fn agree(&self, sum: &Sum) -> bool {
        i64::try_from(self.rows()) == Ok(sum.rows) && self.all == sum.hash
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::{
        row::{BadRow, Row},
        store::sync::Held,
    };

    #[test]
    fn what_is_kept_up_is_what_all_rows_come_to() {
        let fetched = |n: u128, hash: Option<i64>| Fetched {
            key: Key::domain(Uuid::from_u128(n)),
            row: hash.map(|_| Arc::new(Row::Bad(BadRow { raw: serde_json::Value::Null, reason: String::new() }))),
            hash: hash.unwrap_or_default(),
        };
        let held = Held { revision: 1, token: Uuid::nil() };
        let mut hashes = Hashes::default();
        hashes.remember(true, &[fetched(1, Some(5)), fetched(2, Some(9))]);
        assert!(hashes.agree(&Sum { held, rows: 2, hash: 5 ^ 9 }));
        hashes.remember(false, &[fetched(1, Some(6)), fetched(2, None), fetched(3, Some(-4)), fetched(4, None)]);
        assert!(hashes.agree(&Sum { held, rows: 2, hash: 6 ^ -4 }));
        assert!(!hashes.agree(&Sum { held, rows: 2, hash: 6 }));
        assert!(!hashes.agree(&Sum { held, rows: 3, hash: 6 ^ -4 }));
        hashes.remember(true, &[fetched(7, Some(7))]);
        assert!(hashes.agree(&Sum { held, rows: 1, hash: 7 }));
    }
}
