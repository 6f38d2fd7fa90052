//! How often something restarted by itself lately, from a counter that is read at each look.

use std::{collections::BTreeMap, time::Duration};

/// So many restarts within the window are a warning; one may happen.
pub(super) const TOO_MANY: u64 = 2;

/// The counter of each, as it was when it moved.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    seen: BTreeMap<String, Vec<(Duration, u64)>>,
}

impl Restarts {
    /// Notes a counter, and tells by how much it grew within the window. One that fell began anew.
    pub(super) fn note(&mut self, name: &str, count: u64, boot: Duration, window: Duration) -> u64 {
        let seen = self.seen.entry(name.to_owned()).or_default();
        if seen.last().is_some_and(|(_, last)| *last > count) {
            seen.clear();
        }
        if seen.last().is_none_or(|(_, last)| *last != count) {
            seen.push((boot, count));
        }
        // The last one before the window is where it started from.
        let old = seen.iter().take_while(|(at, _)| boot.saturating_sub(*at) > window).count();
        seen.drain(..old.saturating_sub(1));
        if seen.len() == 1 && old == 1 {
            return 0;
        }
        seen.first().map_or(0, |(_, first)| count - first)
    }

    /// Forgets those that are not among `names`.
    pub(super) fn keep<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let mut kept = BTreeMap::new();
        for name in names {
            if let Some((name, seen)) = self.seen.remove_entry(name) {
                kept.insert(name, seen);
            }
        }
        self.seen = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_count_within_the_window_and_from_where_we_came_in() {
        let mut restarts = Restarts::default();
        for (at, count, lately) in [
            (0, 7, 0),
            (60, 7, 0),
            (120, 8, 1),
            (180, 10, 3),
            (700, 10, 3),
            (750, 10, 2),
            (800, 10, 0),
            (900, 11, 1),
            (960, 0, 0),
        ] {
            let seconds = Duration::from_secs;
            assert_eq!(restarts.note("it", count, seconds(at), seconds(600)), lately, "at {at} s");
        }
    }
}
