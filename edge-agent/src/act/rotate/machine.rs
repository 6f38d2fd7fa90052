//! What the end that follows does: it exchanges the other end's key when it is told to, and goes by what it hears of the decision.
//! While it hears nothing it goes by what works, so that both ends come to have the same key whoever dies meanwhile. Pure.

use std::time::Duration;

use charliehub_proto::rotation::Phase;
use serde::{Deserialize, Serialize};

/// A key that is silent for so long is exchanged for the other. Longer than the new one has to prove itself.
pub(super) const WINDOW: Duration = Duration::from_secs(40);

/// Which of the other end's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Which {
    #[default]
    Old,
    New,
}

impl Which {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }
}

/// What is heard of the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The provider does not answer.
    Nothing,
    Phase(Phase),
    /// The provider knows nothing of it.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Exchange the key for this one.
    Swap(Which),
    /// The key that we have stays, and all is over.
    Finish,
}

/// What was done, and when the key that we have last worked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub has: Which,
    /// The new key was here once.
    pub has_tried: bool,
    /// When the other end answered last, or the key came; since the boot.
    since: Duration,
}

impl Machine {
    pub(super) const fn new(has: Which, has_tried: bool, now: Duration) -> Self {
        Self { has, has_tried, since: now }
    }

    pub(super) fn on(&mut self, heard: Heard, answers: bool, now: Duration) -> Action {
        if answers {
            self.since = now;
        }
        let wanted = match heard {
            Heard::Phase(Phase::Committed) => Some(Which::New),
            Heard::Phase(Phase::Undone) => Some(Which::Old),
            // It was told to us just before we died.
            Heard::Phase(Phase::Going) if !self.has_tried => return Action::Swap(Which::New),
            Heard::Phase(Phase::Offered | Phase::Ready | Phase::Switching | Phase::Going) | Heard::Nothing => None,
            Heard::Unknown => answers.then_some(self.has),
        };
        match wanted {
            Some(which) if which == self.has => Action::Finish,
            Some(which) => Action::Swap(which),
            None if now.saturating_sub(self.since) >= WINDOW => Action::Swap(self.has.other()),
            None => Action::Nothing,
        }
    }

    /// The key was exchanged.
    pub(super) fn swapped(&mut self, has: Which, now: Duration) {
        self.has_tried |= has == Which::New;
        (self.has, self.since) = (has, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The other end, as `own` has it: it is killed and comes again whenever the story wants, goes back before its decision and
    /// forward behind it.
    #[derive(Clone, Copy, Debug)]
    struct Decider {
        has: Which,
        phase: Phase,
        /// It decided, which it told the provider or will.
        decision: Option<Which>,
        since: Duration,
        proofs: u32,
    }

    impl Decider {
        fn on(&mut self, is_alive: bool, is_going: bool, answers: bool, now: Duration) {
            if !is_alive {
                // Who comes again after this begins with an undo, unless it had decided.
                if self.decision.is_none() {
                    self.decision = Some(Which::Old);
                }
                return;
            }
            match self.decision {
                Some(which) => self.has = which,
                None if self.phase < Phase::Switching => (self.phase, self.since) = (Phase::Switching, now),
                None if self.has == Which::Old && is_going => {
                    (self.has, self.since, self.proofs) = (Which::New, now, 0);
                }
                None if self.has == Which::New => {
                    self.proofs = if answers { self.proofs + 1 } else { 0 };
                    if self.proofs >= 2 {
                        self.decision = Some(Which::New);
                    } else if now.saturating_sub(self.since) >= SECOND * 30 {
                        (self.decision, self.has) = (Some(Which::Old), Which::Old);
                    }
                }
                None if now.saturating_sub(self.since) >= SECOND * 10 => self.decision = Some(Which::Old),
                None => {}
            }
        }

        /// What the provider hears of it.
        fn told(&self) -> Phase {
            match self.decision {
                Some(Which::New) => Phase::Committed,
                Some(Which::Old) => Phase::Undone,
                None => self.phase,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Each second one of both may be dead, and the provider away for both or one. When all is well again, both have the
        /// same key soon, and it is the one that was decided.
        #[test]
        fn whoever_dies_both_come_to_have_the_same_key(
            seconds in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..200),
            is_heard_at_the_end in any::<bool>(),
        ) {
            let mut one = Decider { has: Which::Old, phase: Phase::Offered, decision: None, since: Duration::ZERO, proofs: 0 };
            let mut two = Machine::new(Which::Old, false, Duration::ZERO);
            let (mut is_going, mut has_finished, mut at_provider) = (false, false, Phase::Offered);
            let troubles = seconds.len();
            let rest = std::iter::repeat_n((true, true, true, is_heard_at_the_end), 200);
            for (second, (one_lives, two_lives, one_is_heard, two_hears)) in (0_u32..).zip(seconds.into_iter().chain(rest)) {
                let now = SECOND * second;
                let answers = one.has == two.has;
                one.on(one_lives, is_going, answers, now);
                if one_lives && one_is_heard {
                    at_provider = one.told().max(at_provider);
                }
                if !two_lives || has_finished {
                    continue;
                }
                if two_hears && at_provider == Phase::Switching {
                    (is_going, at_provider) = (true, Phase::Going);
                }
                let heard = if two_hears { Heard::Phase(at_provider) } else { Heard::Nothing };
                match two.on(heard, one.has == two.has, now) {
                    Action::Swap(which) => two.swapped(which, now),
                    Action::Finish => has_finished = true,
                    Action::Nothing => {}
                }
            }
            prop_assert!(one.decision.is_some(), "{one:?} after {troubles} s of trouble");
            prop_assert_eq!(one.decision, Some(one.has));
            prop_assert_eq!(two.has, one.has);
            prop_assert!(has_finished || !is_heard_at_the_end);
        }
    }

    #[test]
    fn it_goes_once_and_back_when_the_new_key_is_silent() {
        let mut machine = Machine::new(Which::Old, false, Duration::ZERO);
        let going = Heard::Phase(Phase::Going);
        assert_eq!(machine.on(going, true, SECOND), Action::Swap(Which::New));
        machine.swapped(Which::New, SECOND);
        assert_eq!(machine.on(going, false, WINDOW), Action::Nothing);
        assert_eq!(machine.on(Heard::Nothing, false, WINDOW + SECOND), Action::Swap(Which::Old));
        machine.swapped(Which::Old, WINDOW + SECOND);
        assert_eq!(machine.on(going, true, WINDOW + SECOND * 2), Action::Nothing, "not again");
        assert_eq!(machine.on(Heard::Phase(Phase::Undone), true, WINDOW * 2), Action::Finish);
        assert_eq!(machine.on(Heard::Unknown, false, WINDOW * 2), Action::Nothing);
        assert_eq!(machine.on(Heard::Unknown, true, WINDOW * 2), Action::Finish);
    }
}
