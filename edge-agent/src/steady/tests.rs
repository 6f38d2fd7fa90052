use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const RULES: Rules = Rules { clear: Duration::from_secs(15), flapping: Duration::from_mins(10) };

fn at(second: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap();
    Now { boot: Duration::from_secs(second), wall, is_trusted: true }
}

fn steady() -> Steady {
    Steady::new(RULES, [])
}

fn look(steady: &mut Steady, second: u64, status: Status) {
    steady.take(vec![Sample::new("wg-peer", "wg-uk", status, "it")], at(second));
}

fn status(steady: &Steady) -> Option<Status> {
    steady.findings().find(|finding| finding.check == "wg-peer").map(|finding| finding.status)
}

#[test]
fn worse_is_believed_when_it_was_seen_twice_and_from_the_first_time_on() {
    let mut steady = steady();
    look(&mut steady, 0, Status::Ok);
    look(&mut steady, 5, Status::Critical);
    assert_eq!(status(&steady), Some(Status::Ok));
    assert!(steady.is_in_doubt());
    look(&mut steady, 6, Status::Critical);
    let found = steady.findings().next().unwrap();
    assert_eq!((found.status, found.since, found.seen), (Status::Critical, at(5).wall, at(6).wall));
    assert!(!steady.is_in_doubt());
}

#[test]
fn one_lost_look_is_nothing_and_a_first_bad_one_is_not_shown() {
    let mut one = steady();
    for second in 0..100 {
        look(&mut one, second, if second % 2 == 0 { Status::Ok } else { Status::Critical });
        assert_eq!(status(&one), Some(Status::Ok));
    }
    let mut first = steady();
    look(&mut first, 0, Status::Critical);
    assert_eq!(status(&first), None);
    assert_eq!(first.unconfirmed().count(), 1);
    look(&mut first, 1, Status::Critical);
    assert_eq!(status(&first), Some(Status::Critical));
}

#[test]
fn better_is_believed_when_two_looks_span_the_time() {
    let mut steady = steady();
    look(&mut steady, 0, Status::Critical);
    look(&mut steady, 1, Status::Critical);
    for second in [5, 10, 15] {
        look(&mut steady, second, Status::Ok);
        assert_eq!(status(&steady), Some(Status::Critical));
    }
    look(&mut steady, 16, Status::Critical);
    for second in [20, 25, 30] {
        look(&mut steady, second, Status::Ok);
    }
    assert_eq!(status(&steady), Some(Status::Critical), "a bad look in between began it anew");
    look(&mut steady, 35, Status::Ok);
    let found = steady.findings().next().unwrap();
    assert_eq!((found.status, found.since), (Status::Ok, at(20).wall));
}

#[test]
fn what_comes_and_goes_is_held_at_its_worst() {
    let mut steady = Steady::new(Rules { clear: Duration::ZERO, ..RULES }, []);
    look(&mut steady, 0, Status::Ok);
    for round in 0..3 {
        for (second, status) in [(1, Status::Critical), (2, Status::Critical), (3, Status::Ok), (4, Status::Ok)] {
            look(&mut steady, round * 10 + second, status);
        }
    }
    assert_eq!(status(&steady), Some(Status::Critical));
    let flapping = steady.findings().find(|finding| finding.check == FLAPPING).unwrap();
    assert_eq!((flapping.status, &*flapping.target), (Status::Warning, "wg-peer wg-uk"));
    look(&mut steady, 24 + 600, Status::Ok);
    assert_eq!(steady.findings().map(|finding| finding.status).collect::<Vec<_>>(), [Status::Ok]);
}

#[test]
fn what_is_ill_and_restarts_did_not_come_and_go() {
    let mut steady = Steady::new(Rules { clear: Duration::ZERO, ..RULES }, []);
    look(&mut steady, 0, Status::Ok);
    for round in 0..6 {
        for (second, status) in
            [(1, Status::Unknown), (2, Status::Unknown), (3, Status::Critical), (4, Status::Critical)]
        {
            look(&mut steady, round * 10 + second, status);
        }
    }
    look(&mut steady, 64, Status::Ok);
    look(&mut steady, 65, Status::Ok);
    assert_eq!(steady.findings().map(|finding| finding.status).collect::<Vec<_>>(), [Status::Ok]);
}

#[test]
fn a_look_that_failed_makes_unknown_what_is_known_and_a_good_one_mends_it() {
    let mut steady = steady();
    steady.failed("wireguard", "it hung", at(0));
    let first = steady.findings().next().unwrap();
    assert_eq!((&*first.check, &*first.target, first.status), (LOOK, "wireguard", Status::Unknown));
    look(&mut steady, 1, Status::Ok);
    assert_eq!(steady.findings().count(), 1, "the target is known now");
    steady.failed("wireguard", "it hung", at(2));
    assert_eq!(status(&steady), Some(Status::Unknown));
    look(&mut steady, 20, Status::Ok);
    look(&mut steady, 40, Status::Ok);
    assert_eq!(status(&steady), Some(Status::Ok));
}

#[test]
fn what_was_believed_before_a_reload_still_is() {
    let mut before = steady();
    look(&mut before, 0, Status::Critical);
    look(&mut before, 1, Status::Critical);
    let mut after = Steady::new(RULES, before.findings());
    look(&mut after, 2, Status::Critical);
    assert_eq!(after.findings().next().map(|finding| finding.since), Some(at(0).wall));
}

proptest! {
    /// Whatever the looks say, a finding never is worse than the worst look, and after long calm it is what the looks say.
    #[test]
    fn findings_follow_the_looks(looks in vec((select(&Status::ALL[..]), 1..20_u64), 0..60)) {
        let mut steady = steady();
        let mut second = 0;
        let mut worst = Status::Ok;
        for (status_now, step) in looks {
            second += step;
            worst = worst.max(status_now);
            look(&mut steady, second, status_now);
            prop_assert!(status(&steady).is_none_or(|status| status <= worst.max(Status::Warning)));
        }
        for _ in 0..50 {
            second += 20;
            look(&mut steady, second, Status::Ok);
        }
        prop_assert_eq!(status(&steady), Some(Status::Ok));
        prop_assert_eq!(steady.findings().count(), 1);
    }
}
