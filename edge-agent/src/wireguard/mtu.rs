//! Judges probes as large as a tunnel takes: small packets pass, and large ones vanish. Pure.
//!
//! Handshakes and pings are small, so a path that drops large packets looks well, while transfers hang. Only a large probe
//! lost between two small ones that were answered says so, three times in a row.

use std::collections::BTreeMap;

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
    /// None when the large one was answered.
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

/// How many looks in a row said the same of each target.
#[derive(Debug, Default)]
pub(super) struct Memory {
    runs: BTreeMap<String, (Verdict, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    Vanishes,
    Silent,
}

impl Memory {
    pub(super) fn judge(&mut self, probed: Vec<(Aim, Option<Outcomes>)>) -> Vec<Sample> {
        let mut before = std::mem::take(&mut self.runs);
        let mut samples = Vec::new();
        for (aim, outcomes) in probed {
            let sample = match (&aim.obstacle, &outcomes) {
                (Some(why), _) => because(MTU, &aim.target, why),
                (None, None | Some(Outcomes { small: Outcome::NoMeans, .. })) => {
                    Sample::unknown(MTU, &aim.target, "no means to send large probes").remedy(probe::MEANS)
                }
                (None, Some(outcomes)) => {
                    let verdict = verdict(outcomes);
                    let earlier = before.remove(&aim.target).filter(|(earlier, _)| *earlier == verdict);
                    let looks = earlier.map_or(1, |(_, looks)| looks.saturating_add(1));
                    self.runs.insert(aim.target.clone(), (verdict, looks));
                    say(&aim, verdict).confirmed_by(if looks >= LOOKS { 1 } else { u32::MAX })
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
            let sample = memory.judge(vec![(aim(), Some(outcomes.clone()))]).remove(0);
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
}
