//! Decides when a tunnel that is gone is started again: not at once, not often, and not when it was in vain. Pure.
//!
//! ```text
//! There -- gone for `after` --> start it --> There
//!                                  `-- at most one in 10 min; a fourth within a day --> Held, until an operator lets go
//! ```

use std::{collections::VecDeque, time::Duration};

/// So many starts within a [`DAY`], and the next one is an operator's.
pub(super) const MOST: usize = 3;
pub(super) const DAY: Duration = Duration::from_hours(24);
/// Two starts are so far apart.
pub(super) const APART: Duration = Duration::from_mins(10);

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    There,
    /// The interface, or the process behind it.
    Gone,
    /// It could not be looked at: how long it was gone does not count any more.
    Unclear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Start,
    /// Say, where it outlasts us, that nothing is done until an operator lets go.
    Hold,
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    gone_since: Option<Duration>,
    /// When it was started, since the boot, within the last day.
    starts: VecDeque<Duration>,
    was_held: bool,
}

impl Machine {
    /// After a restart of the agent: what it had noted.
    pub(super) fn after(starts: impl IntoIterator<Item = Duration>) -> Self {
        Self { starts: starts.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn on(mut self, seen: Seen, is_held: bool, after: Duration, now: Duration) -> (Self, Action) {
        self.starts.retain(|at| now.saturating_sub(*at) < DAY);
        if self.was_held && !is_held {
            self.starts.clear();
        }
        self.was_held = is_held;
        self.gone_since = match seen {
            Seen::Gone => self.gone_since.or(Some(now)),
            Seen::There | Seen::Unclear => None,
        };
        let is_due = self.gone_since.is_some_and(|since| now.saturating_sub(since) >= after) && !is_held;
        let action = match self.rest(now) {
            None if is_due && self.starts.len() >= MOST => Action::Hold,
            None if is_due => Action::Start,
            None | Some(_) => Action::Nothing,
        };
        (self, action)
    }

    /// It is started now.
    pub(super) fn started(&mut self, now: Duration) {
        self.starts.push_back(now);
        self.gone_since = None;
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = Duration> {
        self.starts.iter().copied()
    }

    /// How long it is still too soon after the last start.
    pub(super) fn rest(&self, now: Duration) -> Option<Duration> {
        let last = self.starts.back()?;
        APART.checked_sub(now.saturating_sub(*last)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_secs(15);

    fn secs(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    /// Looks, each so many seconds after the one before; when it was started, and when held.
    fn run(looks: &[(u64, Seen)]) -> (Vec<u64>, Vec<u64>) {
        let (mut machine, mut now, mut is_held) = (Machine::default(), 0, false);
        let (mut starts, mut holds) = (Vec::new(), Vec::new());
        for (later, seen) in looks {
            now += later;
            let (next, action) = machine.on(*seen, is_held, AFTER, secs(now));
            machine = next;
            match action {
                Action::Nothing => {}
                Action::Start => {
                    machine.started(secs(now));
                    starts.push(now);
                }
                Action::Hold => {
                    is_held = true;
                    holds.push(now);
                }
            }
        }
        (starts, holds)
    }

    #[test]
    fn it_comes_back_by_itself_or_is_started() {
        assert_eq!(run(&[(1, Seen::Gone), (10, Seen::Gone), (4, Seen::There), (1, Seen::Gone)]), (vec![], vec![]));
        assert_eq!(run(&[(1, Seen::Gone), (10, Seen::Unclear), (10, Seen::Gone)]), (vec![], vec![]));
        assert_eq!(run(&[(1, Seen::Gone), (14, Seen::Gone), (1, Seen::Gone)]), (vec![16], vec![]));
    }

    #[test]
    fn what_does_not_help_is_done_three_times_ten_minutes_apart_and_then_held() {
        let (starts, holds) = run(&vec![(5, Seen::Gone); 10_000]);
        assert_eq!(starts, [20, 620, 1_220]);
        assert_eq!(holds, [1_820], "and once held nothing more");
    }

    #[test]
    fn an_operator_who_lets_go_gives_it_three_more() {
        let machine = Machine::after([secs(100), secs(800), secs(1_500)]);
        let (machine, action) = machine.on(Seen::Gone, true, AFTER, secs(3_000));
        assert_eq!(action, Action::Nothing);
        let (machine, action) = machine.on(Seen::Gone, false, AFTER, secs(3_020));
        assert_eq!((action, machine.starts().count()), (Action::Start, 0));
    }

    proptest! {
        #[test]
        fn never_too_often_and_only_when_it_is_gone(
            looks in proptest::collection::vec((1..400_u64, prop_oneof![
                4 => Just(Seen::Gone), 1 => Just(Seen::There), 1 => Just(Seen::Unclear)
            ]), 1..600)
        ) {
            let (starts, holds) = run(&looks);
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] >= APART.as_secs());
            }
            for four in starts.windows(MOST + 1) {
                prop_assert!(four[MOST] - four[0] >= DAY.as_secs());
            }
            prop_assert!(holds.len() <= 1 && holds.iter().all(|hold| starts.iter().all(|start| start < hold)));
            let mut now = 0;
            let at: std::collections::BTreeMap<u64, Seen> =
                looks.iter().map(|(later, seen)| { now += later; (now, *seen) }).collect();
            for start in starts {
                // Only gone for all of the time before.
                let last_other = at.range(..start).rev().find(|(_, seen)| **seen != Seen::Gone).map_or(0, |(at, _)| *at);
                prop_assert!(at[&start] == Seen::Gone && start - last_other >= AFTER.as_secs());
            }
        }
    }
}
