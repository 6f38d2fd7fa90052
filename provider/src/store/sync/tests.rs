use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn held(revision: i64) -> Held {
    Held { revision, token: Uuid::nil() }
}

fn actions(sync: &mut Sync, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| sync.next(now)).collect()
}

/// Connected, and holding revision 1.
fn following(now: Instant) -> Sync {
    let mut sync = Sync::new(now, || 0.5);
    assert_eq!(actions(&mut sync, now), [Action::Connect]);
    sync.on(Event::Listening, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: true }]);
    sync.on(Event::Read(held(1)), now);
    sync.on(Event::ProbeBack, now);
    assert_eq!(actions(&mut sync, now), []);
    sync
}

#[test]
fn hints_during_a_read_are_one_more_read() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Hint, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: false }]);
    for _ in 0..1000 {
        sync.on(Event::Hint, now);
        assert_eq!(actions(&mut sync, now), []);
    }
    sync.on(Event::Read(held(900)), now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: false }]);
    sync.on(Event::Read(held(1001)), now);
    assert_eq!(actions(&mut sync, now), []);
}

#[test]
fn a_long_read_goes_on_while_rows_arrive() {
    let now = Instant::now();
    let mut sync = Sync::new(now, || 0.5);
    sync.next(now);
    sync.on(Event::Listening, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: true }]);
    let mut at = now;
    for _ in 0..10 {
        at += FULL_DEADLINE / 2;
        sync.on(Event::Progress, at);
        sync.on(Event::Beat { newest: held(1), in_recovery: false }, at);
        assert!(!actions(&mut sync, at).contains(&Action::Hangup(Cause::ReadTooSlow)));
        sync.on(Event::Beat { newest: held(1), in_recovery: false }, at);
    }
    assert_eq!(sync.next(at + FULL_DEADLINE), Some(Action::Hangup(Cause::ReadTooSlow)));
}

#[test]
fn a_beat_that_came_back_while_rows_were_compiled_is_not_missed() {
    let now = Instant::now();
    let mut sync = following(now);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Beat]);
    sync.on(Event::Hint, now + BEAT_EVERY);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Read { everything: false }]);
    let late = now + BEAT_EVERY + BEAT_DEADLINE * 3;
    sync.on(Event::Read(held(2)), late);
    assert_eq!(actions(&mut sync, late), []);
}

#[test]
fn another_login_is_used_at_once_and_what_was_committed_meanwhile_is_read() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Renewed, now);
    assert_eq!(actions(&mut sync, now), [Action::Hangup(Cause::LoginRenewed), Action::Connect]);
    sync.on(Event::Listening, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: false }]);
}

#[test]
fn a_wish_reads_everything_once_and_a_lost_connection_does_not_forget_it() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Wish, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: true }]);
    sync.on(Event::Lost, now);
    assert_eq!(actions(&mut sync, now), [Action::Hangup(Cause::Lost), Action::Connect]);
    sync.on(Event::Listening, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: true }]);
    sync.on(Event::Read(held(1)), now);
    sync.on(Event::Hint, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: false }]);
}

#[test]
fn a_lost_notification_is_found_by_the_heartbeat() {
    let now = Instant::now();
    let mut sync = following(now);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Beat]);
    sync.on(Event::Beat { newest: held(2), in_recovery: false }, now + BEAT_EVERY + MS);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY + MS), [Action::Read { everything: false }]);
}

#[test]
fn the_same_number_on_another_branch_is_a_change() {
    let now = Instant::now();
    let mut sync = following(now);
    let newest = Held { revision: 1, token: Uuid::max() };
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Beat]);
    sync.on(Event::Beat { newest, in_recovery: false }, now + BEAT_EVERY);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Read { everything: false }]);
}

#[test]
fn silence_past_the_deadline_hangs_up_and_connects_again_at_once() {
    let now = Instant::now();
    let mut sync = following(now);
    assert_eq!(actions(&mut sync, now + BEAT_EVERY), [Action::Beat]);
    let late = now + BEAT_EVERY + BEAT_DEADLINE;
    assert_eq!(sync.wake_at(), Some(late));
    assert_eq!(actions(&mut sync, now + BEAT_EVERY + MS), []);
    assert_eq!(actions(&mut sync, late), [Action::Hangup(Cause::HeartbeatMissed), Action::Connect]);
    assert_eq!(sync.held(), Some(held(1)), "what is held is kept for a delta");
}

#[test]
fn waits_between_attempts_double_up_to_a_bound_and_are_forgotten_after_health() {
    let mut now = Instant::now();
    let mut sync = following(now);
    for wait in [0, 25, 50, 100, 200, 400, 800, 1600, 2500, 2500] {
        sync.on(Event::Lost, now);
        let wait = Duration::from_millis(wait);
        let mut done = actions(&mut sync, now);
        assert_eq!(done.remove(0), Action::Hangup(Cause::Lost));
        if !wait.is_zero() {
            assert_eq!((done, sync.wake_at()), (vec![], Some(now + wait)));
            now += wait;
            done = actions(&mut sync, now);
        }
        assert_eq!(done, [Action::Connect]);
    }
    sync.on(Event::Listening, now);
    actions(&mut sync, now);
    sync.on(Event::Read(held(2)), now);
    now += HEALTHY_AFTER + MS;
    sync.on(Event::Beat { newest: held(2), in_recovery: false }, now);
    sync.on(Event::Lost, now);
    assert_eq!(actions(&mut sync, now), [Action::Hangup(Cause::Lost), Action::Connect]);
}

#[test]
fn a_standby_is_left() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Beat { newest: held(1), in_recovery: true }, now);
    assert_eq!(actions(&mut sync, now), [Action::Hangup(Cause::InRecovery), Action::Connect]);
}

#[test]
fn a_probe_that_does_not_come_back_tells_of_a_pooler_once() {
    let now = Instant::now();
    let mut sync = Sync::new(now, || 0.5);
    actions(&mut sync, now);
    sync.on(Event::Listening, now);
    actions(&mut sync, now);
    sync.on(Event::Read(held(1)), now);
    let done = actions(&mut sync, now + PROBE_DEADLINE);
    assert!(done.contains(&Action::Pooled), "{done:?}");
    sync.on(Event::Beat { newest: held(1), in_recovery: false }, now + PROBE_DEADLINE);
    assert_eq!(actions(&mut sync, now + PROBE_DEADLINE), []);
}

#[test]
fn a_difference_is_read_again_in_full_even_when_the_connection_breaks_meanwhile() {
    let now = Instant::now();
    let mut sync = following(now);
    let at = now + COMPARE_EVERY;
    assert!(actions(&mut sync, at).contains(&Action::Compare));
    sync.on(Event::Beat { newest: held(1), in_recovery: false }, at);
    sync.on(Event::Compared(false), at);
    assert_eq!(actions(&mut sync, at), [Action::Read { everything: true }]);
    sync.on(Event::Lost, at);
    assert_eq!(actions(&mut sync, at), [Action::Hangup(Cause::Lost), Action::Connect]);
    sync.on(Event::Listening, at);
    assert_eq!(actions(&mut sync, at), [Action::Read { everything: true }]);
}

#[test]
fn a_read_that_hangs_is_given_up() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Hint, now);
    actions(&mut sync, now);
    let mut at = now;
    while at < now + DELTA_DEADLINE {
        at = sync.wake_at().unwrap();
        match sync.next(at) {
            Some(Action::Beat) => sync.on(Event::Beat { newest: held(2), in_recovery: false }, at),
            Some(Action::Hangup(cause)) => assert_eq!(cause, Cause::ReadTooSlow),
            other => assert_eq!(other, None),
        }
    }
    assert_eq!(at, now + DELTA_DEADLINE);
}

/// What there is to do beside the heartbeat, which is answered.
fn reads(sync: &mut Sync, now: Instant) -> Vec<Action> {
    let mut done = actions(sync, now);
    if done.contains(&Action::Beat) {
        sync.on(Event::Beat { newest: held(2), in_recovery: false }, now);
        done.retain(|action| *action != Action::Beat);
    }
    done
}

#[test]
fn what_has_no_room_is_tried_again_with_growing_waits_whatever_is_committed_meanwhile() {
    let mut now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Hint, now);
    for wait in [1, 2, 4, 8, 15, 15] {
        assert_eq!(reads(&mut sync, now), [Action::Read { everything: false }]);
        sync.on(Event::TooLarge, now);
        let again = now + Duration::from_secs(wait);
        while now < again {
            sync.on(Event::Hint, now);
            assert_eq!(reads(&mut sync, now), []);
            now = sync.wake_at().unwrap();
        }
        assert_eq!(now, again);
    }
    assert_eq!(reads(&mut sync, now), [Action::Read { everything: false }]);
    sync.on(Event::Read(held(2)), now);
    sync.on(Event::Hint, now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: false }], "it had room: no wait is left");
}

#[test]
fn a_reread_that_has_no_room_leaves_small_changes_alone() {
    let now = Instant::now();
    let mut sync = following(now);
    sync.on(Event::Compared(false), now);
    assert_eq!(actions(&mut sync, now), [Action::Read { everything: true }]);
    sync.on(Event::TooLarge, now);
    let later = now + FIRST_PAUSE;
    assert_eq!(actions(&mut sync, later), [Action::Beat, Action::Read { everything: false }]);
    let mut fresh = Sync::new(now, || 0.5);
    fresh.next(now);
    fresh.on(Event::Listening, now);
    fresh.next(now);
    fresh.on(Event::TooLarge, now);
    assert_eq!(actions(&mut fresh, later), [Action::Beat, Action::Read { everything: true }], "nothing is held yet");
}

/// A database in miniature: what the machine must follow, whatever is lost on the way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Commit { notified: bool },
    Time(u16),
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        any::<bool>().prop_map(|notified| Fate::Commit { notified }),
        (1..2000u16).prop_map(Fate::Time),
        Just(Fate::Lost),
    ]
}

proptest! {
    /// Whatever is lost, after ten quiet seconds the newest revision is held, and never two reads run at once.
    #[test]
    fn the_newest_revision_is_held_in_the_end(fates in proptest::collection::vec(fate(), 0..60)) {
        let mut now = Instant::now();
        let mut sync = Sync::new(now, || 0.9);
        let (mut newest, mut reading) = (1, None);
        let quiet = std::iter::repeat_n(Fate::Time(500), 20);
        for fate in fates.into_iter().chain(quiet) {
            match fate {
                Fate::Commit { notified } => {
                    newest += 1;
                    if notified { sync.on(Event::Hint, now) }
                }
                Fate::Time(ms) => {
                    // A read takes until the next step, and sees what was committed when it began.
                    if let Some(seen) = reading.take() { sync.on(Event::Read(held(seen)), now) }
                    now += MS * u32::from(ms);
                }
                Fate::Lost => { reading = None; sync.on(Event::Lost, now) }
            }
            while let Some(action) = sync.next(now) {
                match action {
                    Action::Connect => sync.on(Event::Listening, now),
                    Action::Beat => sync.on(Event::Beat { newest: held(newest), in_recovery: false }, now),
                    Action::Read { .. } => { prop_assert_eq!(reading, None); reading = Some(newest) }
                    Action::Compare => sync.on(Event::Compared(true), now),
                    Action::Hangup(_) => reading = None,
                    Action::Pooled => {}
                }
            }
        }
        prop_assert_eq!(sync.held(), Some(held(newest)));
    }
}
