//! Decides by which of two tunnels a site is reached: when its networks move to the one that stands by, and when back. Pure: what
//! was seen and the time go in, what to do comes out.
//!
//! ```text
//! Primary -- 8 probes lost --> Suspect -- still so after `confirm`, and the fallback answers --> Fallback
//!    ^  ^                         |                                                              |    ^
//!    |  `---- it answers ---------'                        the primary answers for `back_after`  |    | silent again:
//!    |                                                                                           v    | `back_after` doubled
//!    `------------------------ well for `trial` ---------------------------------------------- Returning
//!
//! a fourth move within an hour --> Held, until an operator lets go
//! ```
//!
//! What the kernel has wins over what we thought: after a restart, and when somebody moved the networks by hand.

use std::{collections::VecDeque, time::Duration};

/// How long something must last. A look comes every `every`, and what is nearer than half of that is the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub every: Duration,
    /// So many probes lost in a row are an outage.
    pub lost: u32,
    /// An outage of the primary lasts so long before anything moves.
    pub confirm: Duration,
    /// The primary answers so long before anything moves back; doubled each time it was not true.
    pub back_after: Duration,
    /// So long after a return the primary is on trial.
    pub trial: Duration,
}

/// So many moves within an hour, and the next one is an operator's.
pub(super) const MOST_MOVES: usize = 3;
const HOUR: Duration = Duration::from_hours(1);
const LONGEST_BACK: Duration = Duration::from_hours(1);

/// So many answers in a row prove the fallback.
const PROOF: u32 = 3;

/// Of so many probes one may be lost while the primary proves itself.
const ONE_IN: u32 = 60;

/// Where the networks go, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Primary,
    Fallback,
    /// A move was cut off: some of its steps are done.
    Half,
    /// By a route that somebody made.
    Foreign,
}

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(super) struct Seen {
    /// The far end of the tunnel answered.
    pub primary: bool,
    pub fallback: bool,
    pub place: Place,
    /// The primary has its own routes, to return to.
    pub can_return: bool,
    /// A file says that nothing is to be done.
    pub is_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Seen(Seen),
    /// It could not be looked at: what was counted does not count any more.
    Blind,
    /// What became of a move.
    Done(Move, bool),
}

/// What is done to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Over,
    Back,
    /// Takes back what a move that was cut off has left.
    Undo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Move(Move),
    /// Say, where it outlasts us, that nothing is done until an operator lets go.
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Primary,
    /// The primary is silent. A move that failed makes the pause longer.
    Suspect {
        since: Duration,
        pause: Duration,
    },
    Fallback {
        since: Duration,
    },
    /// Back on the primary, on trial.
    Returning {
        since: Duration,
    },
    /// It moved too often.
    Held,
}

/// Probes in a row, up to now; one of both is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    answered: u32,
    lost: u32,
}

impl Run {
    fn count(&mut self, is_answered: bool) {
        *self = if is_answered {
            Self { answered: self.answered.saturating_add(1), lost: 0 }
        } else {
            Self { answered: 0, lost: self.lost.saturating_add(1) }
        };
    }
}

/// The primary proves itself while the fallback carries.
#[derive(Clone, Copy, Debug)]
struct Proof {
    since: Duration,
    probes: u32,
    lost: u32,
}

/// One site.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    rules: Rules,
    state: State,
    primary: Run,
    fallback: Run,
    proof: Option<Proof>,
    /// When traffic moved, within the last hour.
    moves: VecDeque<Duration>,
    back_after: Duration,
    /// What was cut off is not undone sooner.
    undo_at: Duration,
}

impl Machine {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Primary,
            primary: Run::default(),
            fallback: Run::default(),
            proof: None,
            moves: VecDeque::new(),
            back_after: rules.back_after,
            undo_at: Duration::ZERO,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// So many probes of the primary in a row were lost.
    pub(super) fn lost(&self) -> u32 {
        self.primary.lost
    }

    pub(super) fn is_primary_dead(&self) -> bool {
        self.primary.lost >= self.rules.lost
    }

    pub(super) fn is_fallback_dead(&self) -> bool {
        self.fallback.lost >= self.rules.lost
    }

    /// How long the primary must answer before a return, by now.
    pub(super) fn back_after(&self) -> Duration {
        self.back_after
    }

    /// Takes in what happened at `now`, which never goes back.
    pub(super) fn on(mut self, event: Event, now: Duration) -> (Self, Action) {
        let action = match event {
            Event::Seen(seen) => self.seen(seen, now),
            Event::Blind => {
                (self.primary, self.fallback, self.proof) = (Run::default(), Run::default(), None);
                Action::Nothing
            }
            Event::Done(which, is_done) => {
                self.done(which, is_done, now);
                Action::Nothing
            }
        };
        (self, action)
    }

    fn seen(&mut self, seen: Seen, now: Duration) -> Action {
        self.primary.count(seen.primary);
        self.fallback.count(seen.fallback);
        self.moves.retain(|at| now.saturating_sub(*at) < HOUR);
        if seen.is_held {
            self.proof = None;
            return Action::Nothing;
        }
        self.agree(seen.place, now);
        match (seen.place, self.state) {
            (Place::Foreign, _) | (_, State::Held) => Action::Nothing,
            (Place::Half, _) if now < self.undo_at => Action::Nothing,
            (Place::Half, _) => Action::Move(Move::Undo),
            (_, State::Primary) => {
                if self.is_primary_dead() {
                    self.state = State::Suspect { since: now, pause: self.rules.confirm };
                }
                Action::Nothing
            }
            (_, State::Suspect { since, pause }) => self.suspect(since, pause, now),
            (_, State::Fallback { .. }) => self.fallback(seen, now),
            (_, State::Returning { since }) => self.returning(since, now),
        }
    }

    /// What the kernel has wins. Nobody holds us any more, so that what held us is over.
    fn agree(&mut self, place: Place, now: Duration) {
        if self.state == State::Held {
            self.moves.clear();
            self.proof = None;
        }
        self.state = match (place, self.state) {
            (Place::Fallback, State::Fallback { since }) => State::Fallback { since },
            (Place::Fallback, _) => State::Fallback { since: now },
            (Place::Primary, state @ (State::Primary | State::Suspect { .. } | State::Returning { .. })) => state,
            (Place::Primary | Place::Half | Place::Foreign, _) => State::Primary,
        };
        if !matches!(self.state, State::Fallback { .. }) {
            self.proof = None;
        }
    }

    fn suspect(&mut self, since: Duration, pause: Duration, now: Duration) -> Action {
        if self.primary.lost == 0 {
            self.state = State::Primary;
        } else if self.is_over(since, pause, now) && self.fallback.answered >= PROOF {
            return self.moving(Move::Over);
        }
        Action::Nothing
    }

    fn fallback(&mut self, seen: Seen, now: Duration) -> Action {
        self.proof = match (self.proof, seen.primary) {
            (None, false) => None,
            (None, true) => Some(Proof { since: now, probes: 1, lost: 0 }),
            (Some(proof), is_answered) => {
                let proof = Proof { probes: proof.probes + 1, lost: proof.lost + u32::from(!is_answered), ..proof };
                (proof.lost <= proof.probes.div_ceil(ONE_IN)).then_some(proof)
            }
        };
        let is_proven = self.proof.is_some_and(|proof| self.is_over(proof.since, self.back_after, now));
        // With the fallback dead there is nothing to wait for.
        let is_better = self.is_fallback_dead() && self.primary.answered >= self.rules.lost;
        if seen.primary && seen.can_return && (is_proven || is_better) {
            return self.moving(Move::Back);
        }
        Action::Nothing
    }

    fn returning(&mut self, since: Duration, now: Duration) -> Action {
        if self.is_primary_dead() {
            if self.fallback.answered >= PROOF {
                return self.moving(Move::Over);
            }
        } else if self.primary.lost == 0 && self.is_over(since, self.rules.trial, now) {
            self.state = State::Primary;
        }
        Action::Nothing
    }

    fn moving(&mut self, which: Move) -> Action {
        if self.moves.len() < MOST_MOVES {
            return Action::Move(which);
        }
        self.state = State::Held;
        Action::Hold
    }

    fn done(&mut self, which: Move, is_done: bool, now: Duration) {
        let longer = (self.back_after * 2).min(LONGEST_BACK.max(self.rules.back_after));
        match (which, is_done) {
            (Move::Over, true) => {
                match self.state {
                    State::Returning { .. } => self.back_after = longer,
                    _ if self.moves.is_empty() => self.back_after = self.rules.back_after,
                    State::Primary | State::Suspect { .. } | State::Fallback { .. } | State::Held => {}
                }
                self.state = State::Fallback { since: now };
                self.moves.push_back(now);
            }
            (Move::Over, false) => {
                let pause = match self.state {
                    State::Suspect { pause, .. } => pause,
                    State::Primary | State::Fallback { .. } | State::Returning { .. } | State::Held => {
                        self.rules.confirm
                    }
                };
                let pause = (pause * 2).min(self.rules.back_after.max(self.rules.confirm));
                self.state = State::Suspect { since: now, pause };
            }
            (Move::Back, true) => {
                self.state = State::Returning { since: now };
                self.moves.push_back(now);
            }
            (Move::Back, false) => self.back_after = longer,
            (Move::Undo, is_done) => {
                self.state = State::Primary;
                self.undo_at = if is_done { now } else { now + self.rules.confirm };
            }
        }
        self.proof = None;
    }

    fn is_over(&self, since: Duration, lasted: Duration, now: Duration) -> bool {
        now + self.rules.every / 2 >= since + lasted
    }
}

#[cfg(test)]
mod tests;
