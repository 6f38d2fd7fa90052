//! Are the tunnels really up: WireGuard's interfaces, peers, routes and handshakes, and whether the sites answer.
//!
//! Between the sites' rows (what should be) and the kernel or the process that runs a tunnel (what is). Three groups that
//! look side by side: [`WireGuard`] at facts, [`Reach`] at probes, [`Mtu`] at large probes. Each look goes the same way:
//!
//! ```text
//! wanted   the sites' rows, by interface, peer and network
//! read     the facts: netlink (links, addresses, routes, the kernel's tunnels), uapi (those of processes)
//! probe    does a host answer
//! judge, age, reach, mtu    facts and answers x wanted x what earlier looks said -> samples
//! ```
//!
//! A probe decides whether a tunnel works, the age of its handshakes explains. What has its own finding is not told again:
//! behind an interface that is absent, all is unknown.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use charliehub_proto::{expected::Expected, report::Endpoint};
use futures_util::future::join_all;
use metrics::{counter, gauge};
use tokio::sync::watch;

use self::{
    facts::{Facts, Key},
    mtu::Outcomes,
    probe::Outcome,
    wanted::Wanted,
};
use crate::{
    catalogue::Check,
    clock::Now,
    config,
    look::Look,
    metrics::{HANDSHAKE, REACHABLE, RTT, TRANSFER},
    sample::Sample,
};

mod age;
pub(crate) mod facts;
mod judge;
mod mtu;
pub(crate) mod netlink;
pub(crate) mod probe;
mod reach;
#[cfg(test)]
mod quiet_hour;
pub(crate) mod read;
pub(crate) mod routes;
#[cfg(test)]
mod samples;
mod uapi;
pub(crate) mod wanted;
pub(crate) mod write;

pub const CHECKS: &[Check] = &[
    Check {
        name: "wg-interface",
        what: "the interface of a tunnel is there and up, with its own key, port, MTU and addresses",
        why: "Critical: it is absent or down, the process behind it is gone, or it has another key of its own: nothing \
              passes. Warning: port, MTU or an address differ. `wg-quick up IF` makes it from /etc/wireguard/IF.conf.",
    },
    Check {
        name: "wg-peer",
        what: "the peer of a site or of a client is there, with its allowed IPs and its keepalive, and no other peer is",
        why: "Critical: the peer or one of its allowed IPs is absent; packets to these addresses vanish without an error. An \
              allowed IP given to a second peer silently leaves the first. A peer that is no row, where clients are let in, is \
              critical too: somebody who was revoked still comes in. Warning: a peer or an allowed IP too many, another keepalive. \
              Mend it with `wg set`, and in /etc/wireguard/IF.conf, or it is back after the next reboot.",
    },
    Check {
        name: "wg-route",
        what: "packets to a site's networks leave by its tunnel",
        why: "Critical: no route leads there, or one through something else. Warning: they go through the tunnel that stands \
              by. `ip route replace NETWORK dev IF`.",
    },
    Check {
        name: "wg-handshake",
        what: "handshakes are as fresh as the protocol makes them, by the keepalive and what was sent",
        why: "A session is renewed after 120 s once there is something to send, and refused after 180 s. Warning: 120 s, the \
              keepalive and a margin are over, or three requests in a row had no answer. Critical: over 185 s, or none at all. \
              An idle tunnel without a keepalive may be of any age. Unknown while the clock cannot be believed.",
    },
    Check {
        name: "wg-reachable",
        what: "the far end of a tunnel answers, and so do the site's hosts",
        why: "Critical: eight probes in a row to the far end were lost. Warning: to a host behind it, or more than 10% of the \
              probes of a minute were lost. Only this tells whether a tunnel works; see wg-handshake and wg-peer for why not.",
    },
    Check {
        name: "wg-mtu",
        what: "packets as large as the tunnel's MTU pass it",
        why: "Warning: small packets pass and large ones vanish, so that logins work and transfers hang. Lower the MTU of both \
              ends, or mend the path that drops large packets.",
    },
];

/// Facts: interfaces, peers, routes, handshakes.
#[derive(Debug)]
pub struct WireGuard {
    settings: config::WireGuard,
    handshakes: age::Memory,
    /// Told where the sites' packets come from.
    endpoints: watch::Sender<Vec<Endpoint>>,
    /// Bytes received and sent, as they were counted last.
    counted: BTreeMap<(String, Key), (u64, u64)>,
}

impl WireGuard {
    pub fn new(settings: &config::WireGuard, endpoints: watch::Sender<Vec<Endpoint>>) -> Self {
        Self { settings: settings.clone(), handshakes: age::Memory::default(), endpoints, counted: BTreeMap::new() }
    }

    fn count(&mut self, wanted: &Wanted, facts: &Facts) {
        for (name, peer) in wanted.peers() {
            let Ok(device) = judge::device(name, facts) else { continue };
            let Some(seen) = device.peers.iter().find(|seen| seen.key.to_string() == peer.key) else { continue };
            let labels = [("interface", name.clone()), ("public_key", peer.key.clone()), ("site", peer.site.clone())];
            gauge!(HANDSHAKE, &labels).set(seen.handshake.unwrap_or_default().as_secs_f64());
            self.transferred(name, seen, &labels);
        }
        // Of clients no age of a handshake: they sleep.
        for (name, interface) in wanted.interfaces.iter().filter(|(_, interface)| !interface.clients.is_empty()) {
            let Ok(device) = judge::device(name, facts) else { continue };
            let there = judge::by_key(device);
            for (peer, seen) in interface.clients.iter().filter_map(|peer| Some((peer, *there.get(&*peer.key)?))) {
                self.transferred(name, seen, &[("interface", name.clone()), ("client", peer.name().to_owned())]);
            }
        }
    }

    fn transferred(&mut self, interface: &str, seen: &facts::Peer, labels: &[(&'static str, String)]) {
        let before = self.counted.insert((interface.to_owned(), seen.key), (seen.received, seen.sent));
        let before = before.unwrap_or_default();
        for (direction, now, before) in [("received", seen.received, before.0), ("sent", seen.sent, before.1)] {
            let mut labels = labels.to_vec();
            labels.push(("direction", direction.to_owned()));
            // After a restart it counts from 0 again.
            counter!(TRANSFER, &labels).increment(now.checked_sub(before).unwrap_or(now));
        }
    }
}

impl Look for WireGuard {
    const NAME: &'static str = "wireguard";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let wanted = Wanted::of(expected);
        let facts = read::facts(&self.settings.sockets, &wanted).await;
        self.count(&wanted, &facts);
        let (handshakes, news) = self.handshakes.judge(&wanted, &facts, now, &self.settings);
        for news in news {
            tracing::info!(tunnel = news.target, site = news.site, news = news.text, "a tunnel changed");
        }
        let endpoints = self.handshakes.endpoints(&wanted, now);
        self.endpoints.send_if_modified(|told| std::mem::replace(told, endpoints.clone()) != endpoints);
        let mut samples = judge::samples(&wanted, &facts);
        self.handshakes.tell(&wanted, &mut samples);
        samples.extend(handshakes);
        samples
    }
}

/// Probes of the far ends and of hosts.
#[derive(Debug)]
pub struct Reach {
    settings: config::WireGuard,
    memory: reach::Memory,
}

impl Reach {
    pub fn new(settings: &config::WireGuard) -> Self {
        Self { settings: settings.clone(), memory: reach::Memory::default() }
    }
}

impl Look for Reach {
    const NAME: &'static str = "reach";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let wanted = Wanted::of(expected);
        let facts = read::facts(&self.settings.sockets, &wanted).await;
        let patience = self.settings.probe_timeout;
        let probed = join_all(reach::aims(&wanted, &facts).into_iter().map(async |aim| {
            let outcome = match aim.obstacle {
                None => Some(probe::send(&aim.probe, patience).await),
                Some(_) => None,
            };
            (aim, outcome)
        }));
        let probed = probed.await;
        let ends: Vec<_> = probed.iter().filter(|(aim, _)| aim.is_end).cloned().collect();
        let samples = self.memory.judge(probed, &facts, now, &self.settings);
        for (aim, outcome) in ends {
            let labels = [("interface", aim.interface), ("site", aim.site)];
            if let Some(Outcome::Answered(rtt)) = outcome {
                gauge!(RTT, &labels).set(rtt.as_secs_f64());
            }
            if outcome != Some(Outcome::NoMeans) {
                let is_reachable = outcome.is_some() && self.memory.is_reachable(&aim.target, &self.settings);
                gauge!(REACHABLE, &labels).set(if is_reachable { 1.0 } else { 0.0 });
            }
        }
        samples
    }
}

/// Probes as large as the tunnels take.
#[derive(Debug)]
pub struct Mtu {
    settings: config::WireGuard,
    /// Between two probes of a tunnel that passes them.
    every: Duration,
    memory: mtu::Memory,
}

impl Mtu {
    pub fn new(settings: &config::WireGuard, every: Duration) -> Self {
        Self { settings: settings.clone(), every, memory: mtu::Memory::default() }
    }
}

impl Look for Mtu {
    const NAME: &'static str = "mtu";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let wanted = Wanted::of(expected);
        let facts = read::facts(&self.settings.sockets, &wanted).await;
        let patience = self.settings.probe_timeout;
        let memory = &self.memory;
        let probed = join_all(mtu::aims(&wanted, &facts).into_iter().map(async |aim| {
            if aim.obstacle.is_some() || !memory.is_due(&aim.target, now.boot, self.every) {
                return (aim, None);
            }
            let small = probe::send(&aim.small, patience);
            let (small, large) = tokio::join!(small, probe::send(&aim.large, patience));
            let is_odd = small.is_answered() && !large.is_answered();
            let again = if is_odd { Some(probe::send(&aim.small, patience).await) } else { None };
            (aim, Some(Outcomes { small, large, again }))
        }));
        let probed = probed.await;
        self.memory.judge(probed, now.boot)
    }
}
