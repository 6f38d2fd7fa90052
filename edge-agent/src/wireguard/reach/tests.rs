use super::{super::samples::*, *};

const YES: Outcome = Outcome::Answered(Duration::from_millis(20));
const NO: Outcome = Outcome::Lost(None);

/// Probes the far ends and the hosts of both sites, and says how uk's are.
struct Story {
    memory: Memory,
    facts: Facts,
    second: u64,
}

impl Story {
    fn new() -> Self {
        Self { memory: Memory::default(), facts: facts(), second: 0 }
    }

    /// A second later; what is not ok, with `?` where it is not believed yet.
    fn look(&mut self, end: &Outcome, host: &Outcome) -> Vec<String> {
        self.second += 1;
        let probed = aims(&wanted(), &self.facts).into_iter().map(|aim| {
            let outcome = if aim.site == "fr" {
                &YES
            } else if aim.is_end {
                end
            } else {
                host
            };
            let outcome = aim.obstacle.is_none().then(|| outcome.clone());
            (aim, outcome)
        });
        let samples =
            self.memory.judge(probed.collect(), &self.facts, after(self.second), &config::WireGuard::default());
        assert_eq!(samples.len(), 4);
        let bad = samples.iter().filter(|sample| sample.status != Status::Ok);
        let mark = |sample: &Sample| if sample.confirm == NEVER { "?" } else { "" };
        bad.map(|sample| format!("{} {}{}", sample.target, sample.status, mark(sample))).collect()
    }
}

#[test]
fn eight_lost_probes_in_a_row_are_an_outage_and_fewer_are_nothing() {
    let mut story = Story::new();
    for _ in 0..3 {
        assert_eq!(story.look(&YES, &YES), Vec::<String>::new());
    }
    for _ in 0..7 {
        assert_eq!(story.look(&NO, &NO), ["wg-uk critical?", "wg-uk 10.44.0.10 unknown?"]);
    }
    for _ in 0..20 {
        assert_eq!(story.look(&NO, &NO), ["wg-uk critical", "wg-uk 10.44.0.10 unknown"]);
    }
    assert!(!story.memory.is_reachable("wg-uk", &config::WireGuard::default()));
    for _ in 0..20 {
        assert_eq!(story.look(&YES, &YES), Vec::<String>::new(), "an outage that is over is no loss");
    }
}

#[test]
fn a_host_alone_is_a_warning() {
    let mut story = Story::new();
    for lost in 1..20 {
        let mark = if lost < 8 { "?" } else { "" };
        assert_eq!(story.look(&YES, &NO), [format!("wg-uk 10.44.0.10 warning{mark}")]);
    }
}

#[test]
fn loss_is_judged_over_a_minute_and_two_lost_probes_are_none() {
    let mut story = Story::new();
    for second in 0..120 {
        let end = if second % 30 == 29 { &NO } else { &YES };
        let bad = story.look(end, &YES);
        assert!(bad.iter().all(|bad| bad.ends_with('?')), "{second} s: {bad:?}");
    }
    let mut story = Story::new();
    let mut believed = None;
    for second in 0..60 {
        let end = if second % 2 == 0 { &NO } else { &YES };
        if story.look(end, &YES).first().is_some_and(|bad| bad == "wg-uk warning") {
            believed = believed.or(Some(second));
        }
    }
    assert_eq!(believed, Some(19), "every second one lost: as soon as there are twenty");
}

#[test]
fn what_has_its_own_finding_is_not_told_again() {
    let mut story = Story::new();
    uk_link(&mut story.facts).is_up = false;
    assert_eq!(story.look(&NO, &NO), ["wg-uk unknown", "wg-uk 10.44.0.10 unknown"]);
    let mut story = Story::new();
    uk_device(&mut story.facts).peers.clear();
    assert_eq!(story.look(&NO, &NO), ["wg-uk unknown", "wg-uk 10.44.0.10 unknown"]);
    let mut story = Story::new();
    uk_peer(&mut story.facts).allowed_ips.remove(&"10.44.0.0/16".parse().unwrap());
    assert_eq!(story.look(&YES, &NO), ["wg-uk 10.44.0.10 unknown"]);
    let mut story = Story::new();
    story.facts.routes.insert("10.44.0.0/16".parse().unwrap(), Ok(None));
    assert_eq!(story.look(&YES, &NO), ["wg-uk 10.44.0.10 unknown"]);
    let mut story = Story::new();
    assert_eq!(story.look(&Outcome::NoMeans, &YES), ["wg-uk unknown"]);
}
