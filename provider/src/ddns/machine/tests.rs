use proptest::{collection::vec, prelude::*};

use super::*;

const LIMITS: Limits = Limits { stable: Duration::from_mins(1), interval: Duration::from_mins(5) };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn answer(addresses: &[&str]) -> Answer {
    Answer::Addresses { addresses: addresses.iter().map(|one| ip(one)).collect(), ttl: 60 }
}

/// Seen for this long, with this answer.
fn after(seconds: u64, seen: &str, answer: Answer) -> Decision {
    let began = Instant::now();
    let mut follow = Follow::default();
    follow.see(Some(ip(seen)), began);
    follow.answered(answer);
    follow.decide(&LIMITS, began + Duration::from_secs(seconds))
}

#[test]
fn what_is_decided() {
    let change = |old: Option<&str>, new| Decision::Change(Change { old: old.map(|old| (ip(old), 60)), new: ip(new) });
    let wait = |seconds| Decision::Wait(Wait::Stable(Duration::from_secs(seconds)));
    for (seconds, seen, answer, decision) in [
        (0, "5.6.7.8", answer(&["5.6.7.8"]), Decision::Right),
        (0, "5.6.7.8", answer(&["1.2.3.4"]), wait(60)),
        (59, "5.6.7.8", answer(&["1.2.3.4"]), wait(1)),
        (60, "5.6.7.8", answer(&["1.2.3.4"]), change(Some("1.2.3.4"), "5.6.7.8")),
        (60, "5.6.7.8", answer(&[]), change(None, "5.6.7.8")),
        (60, "2a01::7", answer(&["2a01::8"]), change(Some("2a01::8"), "2a01::7")),
        (60, "5.6.7.8", answer(&["1.2.3.4", "5.6.7.8"]), Decision::Refuse(Refusal::Several)),
        (60, "5.6.7.8", Answer::Alias, Decision::Refuse(Refusal::Alias)),
        (60, "10.6.7.8", answer(&["1.2.3.4"]), Decision::Refuse(Refusal::NotPublic(ip("10.6.7.8")))),
        (60, "100.64.7.8", answer(&[]), Decision::Refuse(Refusal::NotPublic(ip("100.64.7.8")))),
        (60, "fd00::1", answer(&[]), Decision::Refuse(Refusal::NotPublic(ip("fd00::1")))),
        (60, "5.6.7.8", Answer::Unasked, Decision::Nothing),
    ] {
        assert_eq!(after(seconds, seen, answer.clone()), decision, "{seen} for {seconds} s, {answer}");
    }
}

#[test]
fn an_address_that_was_gone_begins_anew() {
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let mut follow = Follow::default();
    follow.answered(answer(&["1.2.3.4"]));
    follow.see(Some(ip("5.6.7.8")), began);
    follow.see(None, at(50));
    assert_eq!(follow.decide(&LIMITS, at(60)), Decision::Nothing);
    follow.see(Some(ip("5.6.7.8")), at(61));
    assert_eq!(follow.decide(&LIMITS, at(70)), Decision::Wait(Wait::Stable(Duration::from_secs(51))));
}

#[test]
fn what_failed_is_tried_again_later_and_later_and_not_before_the_server_wants_it() {
    let began = Instant::now();
    let mut follow = Follow::default();
    follow.answered(answer(&["1.2.3.4"]));
    follow.see(Some(ip("5.6.7.8")), began);
    let mut now = began + LIMITS.stable;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert!(matches!(follow.decide(&LIMITS, now), Decision::Change(_)));
        follow.begun(now);
        follow.failed(now, None);
        let Decision::Wait(Wait::Interval(pause)) = follow.decide(&LIMITS, now) else { panic!("at once") };
        pauses.push(pause.as_secs() / 60);
        now += pause;
    }
    assert_eq!(pauses, [5, 10, 20, 30, 30, 30]);
    follow.begun(now);
    follow.failed(now, Some(now + Duration::from_hours(2)));
    let wait = |minutes| Decision::Wait(Wait::Interval(Duration::from_mins(minutes)));
    assert_eq!(follow.decide(&LIMITS, now), wait(120));
    follow.succeeded();
    assert_eq!(follow.decide(&LIMITS, now), wait(5));
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    See(Option<usize>),
    /// Somebody changes it by hand.
    Hand(Vec<usize>),
    /// We are started again.
    Restart,
    Lost,
}

const ADDRESSES: [&str; 5] = ["1.2.3.4", "5.6.7.8", "9.9.9.9", "192.168.1.7", "100.70.0.1"];

fn step() -> impl Strategy<Value = Step> {
    let address = 0..ADDRESSES.len();
    prop_oneof![
        4 => (0..120_u64).prop_map(Step::Pass),
        2 => proptest::option::of(address.clone()).prop_map(Step::See),
        1 => vec(address, 0..3).prop_map(Step::Hand),
        1 => Just(Step::Restart),
        1 => Just(Step::Lost),
    ]
}

proptest! {
    /// Against a log of all that happened: only a public address that was seen all the time, never two changes within the
    /// interval, and what differs is changed once nothing speaks against it.
    #[test]
    fn a_change_is_made_exactly_when_the_log_says_so(steps in vec(step(), 1..80)) {
        let began = Instant::now();
        let mut now = 0_u64;
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut follow = Follow::default();
        let mut dns: BTreeSet<IpAddr> = [ip(ADDRESSES[0])].into();
        let mut sights: Vec<(u64, Option<IpAddr>)> = vec![(0, None)];
        let mut changes: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(seconds) => now += seconds,
                Step::See(address) => {
                    let address = address.map(|index| ip(ADDRESSES[index]));
                    follow.see(address, at(now));
                    sights.push((now, address));
                }
                Step::Hand(addresses) => dns = addresses.into_iter().map(|index| ip(ADDRESSES[index])).collect(),
                // The database knows when the last change was begun.
                Step::Restart => {
                    follow = Follow::default();
                    if let Some(last) = changes.last() {
                        follow.begun(at(*last));
                    }
                    sights.push((now, None));
                }
                Step::Lost => {
                    follow.see(None, at(now));
                    sights.push((now, None));
                }
            }
            follow.answered(Answer::Addresses { addresses: dns.clone(), ttl: 60 });
            let last = sights.last().unwrap().1;
            let unbroken = sights.iter().rev().take_while(|(_, address)| *address == last).last().unwrap().0;
            let is_stable = now - unbroken >= 60;
            let is_late = changes.last().is_none_or(|last| now - last >= 300);
            let may = last.is_some_and(|last| {
                is_public(last) && !(dns.len() == 1 && dns.contains(&last)) && dns.len() <= 1 && is_stable && is_late
            });
            match follow.decide(&LIMITS, at(now)) {
                Decision::Change(change) => {
                    prop_assert!(may);
                    prop_assert_eq!(Some(change.new), last);
                    prop_assert_eq!(change.old.map(|(old, _)| old), dns.first().copied());
                    changes.push(now);
                    follow.begun(at(now));
                    follow.succeeded();
                    dns = [change.new].into();
                }
                Decision::Nothing | Decision::Right | Decision::Wait(_) | Decision::Refuse(_) => prop_assert!(!may),
            }
        }
    }
}
