//! Judges probes as large as a tunnel takes: small packets pass, and large ones vanish. Pure.
//!
//! Handshakes and pings are small, so a path that drops large packets looks well, while transfers hang. Only a large probe
//! lost between two small ones that were answered says so, three times in a row. A tunnel that passes them is asked now and
//! then, any other with each look, so that a hole is found, and found mended, as soon as the rest.

use std::{collections::BTreeMap, time::Duration};

use super::{
    facts::Facts,
    judge::because,
    probe::{self, Outcome, Probe},
    reach::behind,
    wanted::Wanted,
};
use crate::sample::Sample;

const MTU: &str = "wg-mtu";

/// So many looks must agree.
const LOOKS: u32 = 3;

/// A tunnel to probe.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub target: String,
    pub site: String,
    pub interface: String,
    /// Of the interface, in bytes.
    pub mtu: u32,
    pub small: Probe,
    pub large: Probe,
    pub obstacle: Option<String>,
}

/// What became of the probes of one tunnel, in their order.
#[derive(Clone, Debug)]
pub(super) struct Outcomes {
    pub small: Outcome,
    pub large: Outcome,
    /// Only where the small one was answered and the large one was not.
    pub again: Option<Outcome>,
}

/// Every tunnel of which the far end's address is known.
pub(super) fn aims(wanted: &Wanted, facts: &Facts) -> Vec<Aim> {
    let mut aims = Vec::new();
    for (interface, wanted_interface) in &wanted.interfaces {
        let link = facts.interfaces.get(interface).and_then(|facts| facts.link.as_ref().ok()?.as_ref());
        let mtu = link.map_or(0, |link| link.mtu);
        for peer in &wanted_interface.peers {
            let Some(address) = peer.address else { continue };
            let probe = |size| Probe { address, interface: Some(interface.clone()), port: None, size: Some(size) };
            aims.push(Aim {
                target: peer.target.clone(),
                site: peer.site.clone(),
                interface: interface.clone(),
                mtu,
                small: probe(84),
                large: probe(mtu),
                obstacle: behind(interface, peer, &address, facts),
            });
        }
    }
    aims
}

/// What the latest probes said of each target.
#[derive(Debug, Default)]
pub(super) struct Memory {
    runs: BTreeMap<String, Run>,
}

/// Looks in a row that probed a target and said the same.
#[derive(Clone, Copy, Debug)]
struct Run {
    verdict: Verdict,
    looks: u32,
    /// When it was probed last, since the boot.
    at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    Vanishes,
    Silent,
}

impl Memory {
    /// True when it is time to probe a target: `every` is over, or what is known of it is not certain or not well.
    pub(super) fn is_due(&self, target: &str, now: Duration, every: Duration) -> bool {
        self.runs.get(target).is_none_or(|run| {
            let is_well = run.verdict == Verdict::Passes && run.looks >= LOOKS;
            !is_well || now.saturating_sub(run.at) >= every
        })
    }

    /// `None` beside a tunnel without an obstacle: it was not due, and what was said of it holds. Behind an obstacle all is
    /// forgotten, so that it is due as soon as that is gone.
    pub(super) fn judge(&mut self, probed: Vec<(Aim, Option<Outcomes>)>, now: Duration) -> Vec<Sample> {
        let mut before = std::mem::take(&mut self.runs);
        let mut samples = Vec::new();
        for (aim, outcomes) in probed {
            let earlier = before.remove(&aim.target);
            let run = match &outcomes {
                Some(Outcomes { small: Outcome::NoMeans, .. }) => None,
                Some(outcomes) => {
                    let verdict = verdict(outcomes);
                    let looks = earlier.filter(|earlier| earlier.verdict == verdict).map_or(0, |earlier| earlier.looks);
                    Some(Run { verdict, looks: looks.saturating_add(1), at: now })
                }
                None => earlier,
            };
            let sample = match (&aim.obstacle, run) {
                (Some(why), _) => because(MTU, &aim.target, why).confirmed_by(1),
                (None, None) => Sample::unknown(MTU, &aim.target, "no means to send large probes").remedy(probe::MEANS),
                (None, Some(run)) => {
                    self.runs.insert(aim.target.clone(), run);
                    say(&aim, run.verdict).confirmed_by(if run.looks >= LOOKS { 1 } else { u32::MAX })
                }
            };
            samples.push(sample.site(aim.site));
        }
        samples
    }
}

fn verdict(outcomes: &Outcomes) -> Verdict {
    if outcomes.large.is_answered() {
        Verdict::Passes
    } else if outcomes.small.is_answered() && outcomes.again.as_ref().is_some_and(Outcome::is_answered) {
        Verdict::Vanishes
    } else {
        Verdict::Silent
    }
}

fn say(aim: &Aim, verdict: Verdict) -> Sample {
    let Aim { target, interface, mtu, .. } = aim;
    match verdict {
        Verdict::Passes => Sample::ok(MTU, target, format!("packets of {mtu} bytes pass {interface}")),
        Verdict::Vanishes => Sample::warning(MTU, target, format!("small packets pass {interface}, large ones vanish"))
            .observed(format!("packets of {mtu} bytes are lost, of 84 bytes answered"))
            .expected(format!("packets of {mtu} bytes pass, as its MTU says"))
            .remedy(format!(
                "ip link set {interface} mtu 1280, at both ends; then find who drops large packets on the way"
            )),
        Verdict::Silent => because(MTU, target, &format!("the far end of {interface} does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const YES: Outcome = Outcome::Answered(Duration::from_millis(1));
    const NO: Outcome = Outcome::Lost(None);

    fn aim() -> Aim {
        let probe = Probe { address: [10, 254, 44, 2].into(), interface: None, port: None, size: None };
        Aim {
            target: "wg-uk".to_owned(),
            site: "uk".to_owned(),
            interface: "wg-uk".to_owned(),
            mtu: 1420,
            small: probe.clone(),
            large: probe,
            obstacle: None,
        }
    }

    #[test]
    fn only_a_large_probe_lost_between_small_ones_three_times_is_a_hole() {
        let hole = Outcomes { small: YES, large: NO, again: Some(YES) };
        let chance = Outcomes { small: YES, large: NO, again: Some(NO) };
        let good = Outcomes { small: NO, large: YES, again: None };
        let mut memory = Memory::default();
        let mut say = |outcomes: &Outcomes| {
            let sample = memory.judge(vec![(aim(), Some(outcomes.clone()))], Duration::ZERO).remove(0);
            (sample.status.as_str(), sample.confirm == 1)
        };
        assert_eq!(say(&good), ("ok", false));
        assert_eq!(say(&hole), ("warning", false));
        assert_eq!(say(&chance), ("unknown", false));
        assert_eq!(say(&hole), ("warning", false));
        assert_eq!(say(&hole), ("warning", false));
        assert_eq!(say(&hole), ("warning", true));
        assert_eq!(say(&good), ("ok", false));
    }

    #[test]
    fn what_passes_is_asked_now_and_then_and_all_else_with_each_look() {
        let every = Duration::from_mins(5);
        let hole = Outcomes { small: YES, large: NO, again: Some(YES) };
        let good = Outcomes { small: YES, large: YES, again: None };
        let at = Duration::from_secs;
        let mut memory = Memory::default();
        for look in 0..3 {
            assert!(memory.is_due("wg-uk", at(look), every), "look {look}");
            memory.judge(vec![(aim(), Some(good.clone()))], at(look));
        }
        assert!(!memory.is_due("wg-uk", at(301), every));
        let held = memory.judge(vec![(aim(), None)], at(301)).remove(0);
        assert_eq!(held.text, "packets of 1420 bytes pass wg-uk");
        assert!(memory.is_due("wg-uk", at(302), every), "what was held is not a probe");
        for look in 302..310 {
            memory.judge(vec![(aim(), Some(hole.clone()))], at(look));
            assert!(memory.is_due("wg-uk", at(look), every), "look {look}");
        }
        // A tunnel that was gone is asked as soon as it is there again.
        for look in 310..313 {
            memory.judge(vec![(aim(), Some(good.clone()))], at(look));
        }
        let gone = Aim { obstacle: Some("wg-uk is absent".to_owned()), ..aim() };
        let told = memory.judge(vec![(gone, None)], at(313)).remove(0);
        assert_eq!(told.text, "cannot be judged, because wg-uk is absent");
        assert!(memory.is_due("wg-uk", at(314), every));
    }
}
