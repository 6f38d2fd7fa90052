use proptest::{prelude::*, sample::select};

use super::*;

const RULES: Rules = Rules {
    every: Duration::from_secs(1),
    lost: 8,
    confirm: Duration::from_secs(30),
    back_after: Duration::from_mins(5),
    trial: Duration::from_secs(30),
};

/// Both answer, the networks go by the primary.
const WELL: Seen = Seen { primary: true, fallback: true, place: Place::Primary, can_return: true, is_held: false };

/// A host that does what it is told, a look a second.
struct Host {
    machine: Machine,
    now: u64,
    place: Place,
    /// Moves fail.
    is_stuck: bool,
}

impl Host {
    fn new() -> Self {
        Self { machine: Machine::new(RULES), now: 1_000, place: Place::Primary, is_stuck: false }
    }

    /// Looks once; what is to be done is done.
    fn look(&mut self, seen: Seen) -> Action {
        self.now += 1;
        let now = Duration::from_secs(self.now);
        let (machine, action) = self.machine.clone().on(Event::Seen(Seen { place: self.place, ..seen }), now);
        self.machine = machine;
        if let Action::Move(which) = action {
            if !self.is_stuck {
                self.place = if which == Move::Over { Place::Fallback } else { Place::Primary };
            }
            let done = Event::Done(which, !self.is_stuck);
            self.machine = self.machine.clone().on(done, now).0;
        }
        action
    }

    /// Looks until something is to be done; what, and after how many looks.
    fn until(&mut self, seen: Seen, most: u64) -> Option<(Action, u64)> {
        (1..=most).find_map(|looks| Some(self.look(seen)).filter(|it| *it != Action::Nothing).map(|it| (it, looks)))
    }
}

const DEAD: Seen = Seen { primary: false, ..WELL };

#[test]
fn a_silent_primary_is_left_after_eight_probes_and_the_confirmation() {
    let mut host = Host::new();
    assert_eq!(host.until(WELL, 100), None);
    assert_eq!(host.until(DEAD, 7), None);
    assert_eq!(host.machine.state(), State::Primary);
    host.look(DEAD);
    assert!(matches!(host.machine.state(), State::Suspect { .. }));
    assert_eq!(host.until(DEAD, 100), Some((Action::Move(Move::Over), 30)));
    assert!(matches!(host.machine.state(), State::Fallback { .. }));
    assert_eq!(host.until(DEAD, 10_000), None, "it stays while the primary is silent");
}

#[test]
fn one_answer_ends_the_suspicion() {
    let mut host = Host::new();
    assert_eq!(host.until(DEAD, 37), None);
    host.look(WELL);
    assert_eq!(host.machine.state(), State::Primary);
    assert_eq!(host.until(DEAD, 37), None);
}

#[test]
fn both_dead_nothing_moves_until_the_fallback_has_proven_itself() {
    let mut host = Host::new();
    assert_eq!(host.until(Seen { fallback: false, ..DEAD }, 1_000), None);
    assert!(host.machine.is_primary_dead() && host.machine.is_fallback_dead());
    assert_eq!(host.until(DEAD, 10), Some((Action::Move(Move::Over), 3)));
}

#[test]
fn it_returns_after_five_good_minutes_and_a_trial() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    assert_eq!(host.until(WELL, 1_000), Some((Action::Move(Move::Back), 301)));
    assert!(matches!(host.machine.state(), State::Returning { .. }));
    assert_eq!(host.until(WELL, 30), None);
    assert_eq!(host.machine.state(), State::Primary);
}

#[test]
fn a_lost_probe_in_sixty_is_forgiven_and_two_are_not() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    assert_eq!(host.until(WELL, 20), None);
    host.look(DEAD);
    assert_eq!(host.until(WELL, 1_000), Some((Action::Move(Move::Back), 280)), "301 looks in all");
    let mut host = Host::new();
    host.until(DEAD, 100);
    host.until(WELL, 20);
    host.look(DEAD);
    host.look(DEAD);
    assert_eq!(host.until(WELL, 1_000), Some((Action::Move(Move::Back), 301)), "from the beginning");
}

#[test]
fn it_does_not_return_where_the_primary_has_no_route() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    assert_eq!(host.until(Seen { can_return: false, ..WELL }, 1_000), None);
    assert_eq!(host.until(WELL, 10), Some((Action::Move(Move::Back), 1)));
}

#[test]
fn silent_on_trial_it_goes_over_at_once_and_the_next_return_takes_twice_as_long() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    host.until(WELL, 1_000);
    assert_eq!(host.until(DEAD, 100), Some((Action::Move(Move::Over), 8)));
    assert_eq!(host.machine.back_after(), Duration::from_mins(10));
}

#[test]
fn a_fourth_move_within_an_hour_is_an_operators() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    host.until(WELL, 1_000);
    host.until(DEAD, 100);
    assert_eq!(host.until(WELL, 1_000), Some((Action::Hold, 601)), "over, back, over, and not back");
    assert_eq!(host.machine.state(), State::Held);
    let held = Seen { is_held: true, ..WELL };
    assert_eq!(host.until(held, 10_000), None);
    assert_eq!(host.machine.state(), State::Held);
    // Let go, it goes on from where it is, with a clean record.
    assert_eq!(host.until(WELL, 1_000), Some((Action::Move(Move::Back), 601)));
}

#[test]
fn after_a_quiet_hour_returns_are_quick_again() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    host.until(WELL, 1_000);
    host.until(DEAD, 100);
    host.now += 3_600;
    host.until(WELL, 1_000);
    assert_eq!(host.until(WELL, 3_700), None);
    host.until(DEAD, 100);
    assert_eq!(host.machine.back_after(), RULES.back_after);
}

#[test]
fn a_dead_fallback_is_left_at_once_for_a_primary_that_answers() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    assert_eq!(host.until(Seen { fallback: false, ..WELL }, 100), Some((Action::Move(Move::Back), 8)));
}

#[test]
fn a_move_that_failed_is_tried_again_after_longer_and_longer() {
    let mut host = Host::new();
    host.is_stuck = true;
    let tries: Vec<u64> = (0..6).map(|_| host.until(DEAD, 1_000).unwrap().1).collect();
    assert_eq!(tries, [38, 60, 120, 240, 300, 300]);
    host.is_stuck = false;
    assert!(host.until(DEAD, 1_000).is_some(), "failed ones do not count as moves");
}

#[test]
fn a_return_that_failed_stays_and_must_be_earned_anew() {
    let mut host = Host::new();
    host.until(DEAD, 100);
    host.is_stuck = true;
    host.until(WELL, 1_000);
    assert!(matches!(host.machine.state(), State::Fallback { .. }));
    assert_eq!(host.until(WELL, 1_000), Some((Action::Move(Move::Back), 601)));
}

#[test]
fn what_the_kernel_has_wins() {
    let mut host = Host::new();
    host.place = Place::Fallback;
    host.look(DEAD);
    assert!(matches!(host.machine.state(), State::Fallback { .. }), "after a restart");
    host.place = Place::Primary;
    host.look(WELL);
    assert_eq!(host.machine.state(), State::Primary, "somebody took our route");
    host.place = Place::Foreign;
    assert_eq!(host.until(DEAD, 1_000), None, "a route by hand is not ours");
    host.place = Place::Half;
    assert_eq!(host.look(DEAD), Action::Move(Move::Undo), "a move that was cut off");
    assert_eq!(host.place, Place::Primary);
    host.place = Place::Half;
    host.is_stuck = true;
    assert_eq!(host.look(DEAD), Action::Move(Move::Undo));
    assert_eq!(host.until(DEAD, 100), Some((Action::Move(Move::Undo), 30)), "not at each look");
}

#[test]
fn held_nothing_is_done_and_blind_nothing_counts() {
    let mut host = Host::new();
    assert_eq!(host.until(Seen { is_held: true, ..DEAD }, 1_000), None);
    let mut host = Host::new();
    assert_eq!(host.until(DEAD, 7), None);
    host.machine = host.machine.clone().on(Event::Blind, Duration::from_secs(host.now)).0;
    assert_eq!(host.until(DEAD, 37), None);
    assert_eq!(host.until(DEAD, 37), Some((Action::Move(Move::Over), 1)));
}

/// The same, told from the whole history of looks, as slowly and plainly as it can be said.
struct Model {
    looks: Vec<(u64, Seen)>,
    /// When traffic moved.
    moves: Vec<u64>,
    /// Where looks begin to count for what is next: since the last thing that happened.
    since: u64,
    suspect: Option<(u64, u64)>,
    returned: Option<u64>,
    is_held: bool,
    back_after: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            looks: Vec::new(),
            moves: Vec::new(),
            since: 0,
            suspect: None,
            returned: None,
            is_held: false,
            back_after: 300,
        }
    }

    fn in_a_row(&self, is_so: impl Fn(&Seen) -> bool) -> usize {
        self.looks.iter().rev().take_while(|(_, seen)| is_so(seen)).count()
    }

    /// The primary has proven itself: from some answered look since then, looks enough, few of them lost at any time.
    fn is_proven(&self, now: u64) -> bool {
        let looks: Vec<_> = self.looks.iter().filter(|(at, _)| *at > self.since).collect();
        let mut begins = None;
        for (at, seen) in looks {
            let (from, total, lost) = match begins {
                None if !seen.primary || seen.is_held => continue,
                None => (*at, 1_u32, 0),
                Some((from, total, lost)) => (from, total + 1, lost + u32::from(!seen.primary)),
            };
            let is_spoilt = seen.is_held || lost > total.div_ceil(60);
            begins = (!is_spoilt).then_some((from, total, lost));
        }
        begins.is_some_and(|(from, ..)| now >= from + self.back_after)
    }

    fn expects(&mut self, seen: Seen, now: u64) -> Action {
        self.looks.push((now, seen));
        self.moves.retain(|at| now - at < 3_600);
        if seen.is_held {
            return Action::Nothing;
        }
        if std::mem::take(&mut self.is_held) {
            self.moves.clear();
            (self.suspect, self.returned) = (None, None);
            self.since = now - 1;
        }
        let is_dead = self.in_a_row(|look| !look.primary) >= 8;
        let is_fit = self.in_a_row(|look| look.fallback) >= 3;
        let wanted = if seen.place == Place::Fallback {
            let is_lost = self.in_a_row(|look| !look.fallback) >= 8 && self.in_a_row(|look| look.primary) >= 8;
            (seen.primary && (self.is_proven(now) || is_lost)).then_some(Move::Back)
        } else if let Some(at) = self.returned {
            if !is_dead && seen.primary && now >= at + 30 {
                self.returned = None;
            }
            (is_dead && is_fit).then_some(Move::Over)
        } else if let Some((at, pause)) = self.suspect {
            if seen.primary {
                self.suspect = None;
            }
            (!seen.primary && is_fit && now >= at + pause).then_some(Move::Over)
        } else {
            if is_dead {
                self.suspect = Some((now, 30));
            }
            None
        };
        match wanted {
            None => Action::Nothing,
            Some(_) if self.moves.len() >= 3 => {
                self.is_held = true;
                Action::Hold
            }
            Some(which) => Action::Move(which),
        }
    }

    fn done(&mut self, which: Move, is_done: bool, now: u64) {
        let longer = (self.back_after * 2).min(3_600);
        match (which, is_done) {
            (Move::Over, true) => {
                if self.returned.take().is_some() {
                    self.back_after = longer;
                } else if self.moves.is_empty() {
                    self.back_after = 300;
                }
                self.suspect = None;
                self.moves.push(now);
            }
            (Move::Over, false) => {
                let pause = self.suspect.map_or(30, |(_, pause)| pause);
                (self.suspect, self.returned) = (Some((now, (pause * 2).min(300))), None);
            }
            (Move::Back, true) => {
                self.returned = Some(now);
                self.moves.push(now);
            }
            (Move::Back, false) => self.back_after = longer,
            (Move::Undo, _) => {}
        }
        self.since = now;
    }
}

/// So many looks of one kind: who answers, whether an operator holds, whether a move would fail.
fn spells() -> impl Strategy<Value = Vec<(bool, bool, bool, bool, usize)>> {
    let length = prop_oneof![1..10_usize, 25..45_usize, 290..320_usize, 500..700_usize];
    let mostly = |often: u32| prop::bool::weighted(f64::from(often) / 100.0);
    prop::collection::vec((any::<bool>(), mostly(85), mostly(5), mostly(10), length), 1..12)
}

proptest! {
    // The model reads all of its history at each of some thousand looks.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, it is what the model says; and both dead, held, or by hand, nothing moves.
    #[test]
    fn it_does_what_the_model_does(spells in spells()) {
        let (mut host, mut model) = (Host::new(), Model::new());
        let mut held = false;
        for (primary, fallback, is_held, is_stuck, looks) in spells {
            host.is_stuck = is_stuck;
            for _ in 0..looks {
                // What we hold ourselves, an operator lets go after some time.
                held = held && !host.now.is_multiple_of(1_000);
                let seen = Seen { primary, fallback, is_held: is_held || held, ..WELL };
                let place = host.place;
                let expected = model.expects(Seen { place, ..seen }, host.now + 1);
                let action = host.look(seen);
                prop_assert_eq!(action, expected, "at {}: {:?}", host.now, host.machine);
                if let Action::Move(which) = action {
                    model.done(which, !is_stuck, host.now);
                    prop_assert!(which != Move::Over || fallback && !primary);
                    prop_assert!(which != Move::Back || primary);
                }
                held |= action == Action::Hold;
            }
        }
    }

    /// However it is treated, it never moves more than three times an hour, nor while it is held or a route is somebody's.
    #[test]
    fn it_never_moves_too_often(
        looks in prop::collection::vec((
            any::<bool>(), any::<bool>(), prop::bool::weighted(0.05), 0..120_u64,
            select(vec![Place::Primary, Place::Primary, Place::Fallback, Place::Fallback, Place::Half, Place::Foreign]),
        ), 1..1_000),
    ) {
        let mut machine = Machine::new(RULES);
        let mut now = Duration::from_secs(10);
        let mut moves: Vec<Duration> = Vec::new();
        let mut held = false;
        for (primary, fallback, is_held, passed, place) in looks {
            now += Duration::from_secs(passed);
            let is_held = is_held || held;
            let (next, action) = machine.on(Event::Seen(Seen { primary, fallback, place, can_return: true, is_held }), now);
            machine = next;
            held |= action == Action::Hold;
            let Action::Move(which) = action else { continue };
            prop_assert!(!is_held && place != Place::Foreign);
            prop_assert_eq!(which == Move::Undo, place == Place::Half);
            machine = machine.on(Event::Done(which, true), now).0;
            if which != Move::Undo {
                moves.push(now);
                prop_assert!(moves.iter().filter(|at| now.saturating_sub(**at) < HOUR).count() <= MOST_MOVES);
            }
        }
    }
}
