//! Decides when a change was made too often: somebody else takes it back each time. Pure.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// So many times within [`WINDOW`], and the next one is an operator's.
pub(super) const MOST: usize = 3;
const WINDOW: Duration = Duration::from_mins(10);

/// What was made lately of one interface, and when, since the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made(Vec<(Duration, String)>);

impl Made {
    /// A part of the plan that was made too often.
    pub(super) fn too_often(&self, plan: &Plan, now: Duration) -> Option<String> {
        let lately = self.0.iter().filter(|(at, _)| now.saturating_sub(*at) < WINDOW);
        let outcomes: BTreeSet<String> = plan.outcomes().collect();
        outcomes.into_iter().find(|outcome| lately.clone().filter(|(_, made)| made == outcome).count() >= MOST)
    }

    /// It is made now.
    pub(super) fn add(&mut self, plan: &Plan, now: Duration) {
        self.0.retain(|(at, _)| now.saturating_sub(*at) < WINDOW);
        self.0.extend(plan.outcomes().map(|outcome| (now, outcome)));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::plan::{Diff, Step},
        *,
    };
    use crate::wireguard::facts::Key;

    #[test]
    fn the_fourth_time_within_ten_minutes_is_too_often() {
        let plan = |byte| Plan {
            steps: vec![Step { key: Key([byte; 32]), name: None, diff: Diff::Remove { allowed: [].into() } }],
            ..Plan::default()
        };
        let secs = Duration::from_secs;
        let mut made = Made::default();
        for at in [0, 10, 20] {
            assert_eq!(made.too_often(&plan(1), secs(at)), None, "{at}");
            made.add(&plan(1), secs(at));
        }
        assert!(made.too_often(&plan(1), secs(30)).is_some());
        assert_eq!(made.too_often(&plan(2), secs(30)), None, "another peer");
        assert_eq!(made.too_often(&plan(1), secs(600)), None, "the first is ten minutes old");
    }
}
