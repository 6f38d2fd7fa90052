//! Judges probes: a host that answers no more, and one that loses too many. Pure; the probes themselves are [`probe`](super::probe).
//!
//! A lost probe is asked again a second later, until eight in a row are an outage. Loss is counted over a window that holds
//! no outage, and is not judged before twenty probes are in it: two lost ones in a minute are no loss.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use charliehub_proto::finding::Status;

use super::{
    facts::Facts,
    judge::{because, device, obstacle},
    probe::{self, Outcome, Probe},
    wanted::{Peer, Wanted},
};
use crate::{clock::Now, config, sample::Sample};

pub(super) const REACHABLE: &str = "wg-reachable";

/// Fewer probes say nothing of loss.
const ENOUGH: usize = 20;

/// A sample that makes us look again at once, and is never believed by itself.
const NEVER: u32 = u32::MAX;

/// Somebody who must answer.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub target: String,
    pub site: String,
    pub interface: String,
    /// The site's key.
    pub key: String,
    /// What it is called in a sentence.
    pub name: String,
    /// The far end of the tunnel, not a host behind it.
    pub is_end: bool,
    pub probe: Probe,
    /// Why it makes no sense to probe.
    pub obstacle: Option<String>,
}

/// Everybody who must answer: the far ends of tunnels, by their tunnel; hosts, as the routes go.
pub(super) fn aims(wanted: &Wanted, facts: &Facts) -> Vec<Aim> {
    let mut aims = Vec::new();
    for (interface, wanted_interface) in &wanted.interfaces {
        for peer in &wanted_interface.peers {
            let aim = |target: String, name: String, probe: Probe, obstacle: Option<String>| Aim {
                target,
                site: peer.site.clone(),
                interface: interface.clone(),
                key: peer.key.clone(),
                name,
                is_end: probe.interface.is_some(),
                probe,
                obstacle,
            };
            if let Some(address) = peer.address {
                let probe = Probe { address, interface: Some(interface.clone()), port: None, size: None };
                let name = format!("the far end of {interface}, {address},");
                aims.push(aim(peer.target.clone(), name, probe, behind(interface, peer, &address, facts)));
            }
            for host in &peer.hosts {
                let address = host.address;
                let name = host.name.clone().unwrap_or_else(|| address.to_string());
                let probe = Probe { address, interface: None, port: host.port, size: None };
                let obstacle = off_route(&address, wanted, facts, interface, peer);
                aims.push(aim(format!("{} {name}", peer.target), format!("{name} ({address})"), probe, obstacle));
            }
        }
    }
    aims
}

/// What has its own finding and keeps a probe from its host: the interface, the peer, its allowed IPs.
pub(super) fn behind(interface: &str, peer: &Peer, address: &IpAddr, facts: &Facts) -> Option<String> {
    if let Some(why) = obstacle(interface, facts) {
        return Some(why);
    }
    let device = device(interface, facts).ok()?; // not readable, but it is up: the probe will tell
    let Some(seen) = device.peers.iter().find(|seen| seen.key.to_string() == peer.key) else {
        return Some("the peer is absent".to_owned());
    };
    let is_allowed = seen.allowed_ips.iter().any(|network| network.contains(address));
    (!is_allowed).then(|| format!("{address} is not among the peer's allowed IPs"))
}

/// The same for a host: its route, and the tunnel that it leads through.
fn off_route(address: &IpAddr, wanted: &Wanted, facts: &Facts, interface: &str, peer: &Peer) -> Option<String> {
    let route = wanted.routes.iter().find(|(network, _)| network.contains(address));
    let Some((network, route)) = route else { return behind(interface, peer, address, facts) };
    match facts.routes.get(network) {
        Some(Ok(Some(through))) if route.standby.contains(through) => None,
        Some(Ok(Some(through))) if *through == route.interface => behind(interface, peer, address, facts),
        Some(Ok(_)) => {
            obstacle(interface, facts).or_else(|| Some(format!("{network} is not reached through its tunnel")))
        }
        _ => behind(interface, peer, address, facts),
    }
}

/// What earlier probes of one target said.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// When, and was it answered; newest last, no older than the window.
    probes: VecDeque<(Duration, bool)>,
    /// Lost in a row, up to now.
    lost: u32,
    /// Bytes received from the peer when the first of them was lost.
    received: u64,
}

impl Past {
    fn add(&mut self, is_answered: bool, received: u64, now: Now, settings: &config::WireGuard) {
        if is_answered {
            // An outage had its finding; it is no loss on top.
            if self.lost >= settings.probes_lost {
                let kept = self.probes.len().saturating_sub(usize::try_from(self.lost).unwrap_or(usize::MAX));
                self.probes.truncate(kept);
            }
            self.lost = 0;
        } else {
            if self.lost == 0 {
                self.received = received;
            }
            self.lost = self.lost.saturating_add(1);
        }
        self.probes.push_back((now.boot, is_answered));
        while self.probes.front().is_some_and(|(at, _)| now.boot.saturating_sub(*at) > settings.loss_window) {
            self.probes.pop_front();
        }
    }

    /// Lost ones and all of the window.
    fn loss(&self) -> (usize, usize) {
        (self.probes.iter().filter(|(_, is_answered)| !is_answered).count(), self.probes.len())
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    targets: BTreeMap<String, Past>,
}

impl Memory {
    /// Takes in what became of the probes of one look (none where there was an obstacle), and judges each target.
    pub(super) fn judge(
        &mut self,
        probed: Vec<(Aim, Option<Outcome>)>,
        facts: &Facts,
        now: Now,
        settings: &config::WireGuard,
    ) -> Vec<Sample> {
        // Hosts behind an end that is silent are no news of their own.
        let silent: Vec<(String, String)> = probed
            .iter()
            .filter(|(aim, outcome)| aim.is_end && matches!(outcome, Some(Outcome::Lost(_))))
            .map(|(aim, _)| (aim.interface.clone(), aim.key.clone()))
            .collect();
        let mut before = std::mem::take(&mut self.targets);
        let mut samples = Vec::new();
        for (aim, outcome) in probed {
            let mut past = before.remove(&aim.target).unwrap_or_default();
            let is_cut = !aim.is_end && silent.contains(&(aim.interface.clone(), aim.key.clone()));
            let received = received(&aim, facts);
            let sample = match (&outcome, &aim.obstacle) {
                (_, Some(why)) => {
                    past = Past::default();
                    because(REACHABLE, &aim.target, why).confirmed_by(1)
                }
                (None, None) | (Some(Outcome::NoMeans), _) => {
                    Sample::unknown(REACHABLE, &aim.target, "no means to ask whether it answers").remedy(probe::MEANS)
                }
                (Some(Outcome::Lost(_)), None) if is_cut => {
                    past.add(false, received, now, settings);
                    let enough = past.lost >= settings.probes_lost;
                    because(REACHABLE, &aim.target, &format!("the far end of {} does not answer", aim.interface))
                        .confirmed_by(if enough { 1 } else { NEVER })
                }
                (Some(Outcome::Lost(why)), None) => {
                    past.add(false, received, now, settings);
                    lost(&aim, &past, why.as_deref(), received, settings)
                }
                (Some(Outcome::Answered(rtt)), None) => {
                    past.add(true, received, now, settings);
                    answered(&aim, &past, *rtt, settings)
                }
            };
            samples.push(sample.site(aim.site));
            self.targets.insert(aim.target, past);
        }
        samples
    }

    /// False when the target is in an outage.
    pub(super) fn is_reachable(&self, target: &str, settings: &config::WireGuard) -> bool {
        self.targets.get(target).is_some_and(|past| past.lost < settings.probes_lost)
    }
}

fn received(aim: &Aim, facts: &Facts) -> u64 {
    let peers = device(&aim.interface, facts).map(|device| device.peers.as_slice()).unwrap_or_default();
    peers.iter().find(|peer| peer.key.to_string() == aim.key).map_or(0, |peer| peer.received)
}

fn lost(aim: &Aim, past: &Past, why: Option<&str>, received: u64, settings: &config::WireGuard) -> Sample {
    let Aim { site, interface, probe: Probe { address, .. }, .. } = aim;
    let status = if aim.is_end { Status::Critical } else { Status::Warning };
    let (hint, remedy) = if let Some(why) = why {
        (format!(": {why}"), format!("ip route get {address}; wg show {interface}"))
    } else if !aim.is_end {
        (
            ", though the tunnel works".to_owned(),
            format!("see whether {address} has power at site {site}, and whether the site forwards to it"),
        )
    } else if received > past.received {
        (
            ", though packets of the peer arrive".to_owned(),
            format!(
                "`wg show {interface} public-key` must be the peer at site {site}, its firewall must let echo requests in, \
                 and UDP must pass from here to there"
            ),
        )
    } else {
        (
            ", and nothing arrives from the peer".to_owned(),
            format!(
                "see whether site {site} has power and its WAN, and whether UDP passes both ways; `wg show {interface}`"
            ),
        )
    };
    let enough = past.lost >= settings.probes_lost;
    Sample::new(REACHABLE, &aim.target, status, format!("{} does not answer{hint}", aim.name))
        .observed(format!("{} probes lost in a row", past.lost))
        .expected(format!("fewer than {}", settings.probes_lost))
        .remedy(remedy)
        .confirmed_by(if enough { 1 } else { NEVER })
}

fn answered(aim: &Aim, past: &Past, rtt: Duration, settings: &config::WireGuard) -> Sample {
    let (lost, all) = past.loss();
    let milliseconds = format!("{:.1} ms", rtt.as_secs_f64() * 1e3);
    if lost < 2 || lost * 100 <= all * usize::from(settings.loss_percent) {
        return Sample::ok(REACHABLE, &aim.target, format!("{} answers", aim.name)).observed(milliseconds);
    }
    let window = settings.loss_window.as_secs_f64();
    Sample::warning(REACHABLE, &aim.target, format!("{} loses probes", aim.name))
        .observed(format!("{lost} of {all} lost in {window} s"))
        .expected(format!("at most {}%", settings.loss_percent))
        .remedy(format!(
            "see the WAN of site {0}: `mtr` to the peer's endpoint, `wg show {1}`",
            aim.site, aim.interface
        ))
        .confirmed_by(if all >= ENOUGH { 1 } else { NEVER })
}

#[cfg(test)]
mod tests;
