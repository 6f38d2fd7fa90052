//! Holds what was read against what is wanted: interfaces, peers, routes. Pure.
//!
//! No cascade: what cannot be said because of something that has its own finding is unknown "because" of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use charliehub_proto::finding::Status;
use ipnet::IpNet;

use super::{
    facts::{self, Device, Facts, Link, NoDevice, Unseen},
    wanted::{self, Wanted},
};
use crate::sample::Sample;

/// One thing that is not as it should be.
#[derive(Clone)]
struct Fault {
    status: Status,
    text: String,
    observed: String,
    expected: String,
    remedy: String,
}

/// All faults of a target in one sample: the worst says how it is, all say what mends it.
fn sum(check: &'static str, target: &str, good: String, mut faults: Vec<Fault>) -> Sample {
    faults.sort_by_key(|fault| std::cmp::Reverse(fault.status));
    let Some(worst) = faults.first() else { return Sample::ok(check, target, good) };
    let all = |part: fn(&Fault) -> &str, between: &str| faults.iter().map(part).collect::<Vec<_>>().join(between);
    Sample::new(check, target, worst.status, all(|fault| &fault.text, "; "))
        .observed(all(|fault| &fault.observed, "; "))
        .expected(all(|fault| &fault.expected, "; "))
        .remedy(all(|fault| &fault.remedy, " && "))
}

/// Why what lies behind an interface cannot be judged; none when it can.
pub(super) fn obstacle(name: &str, facts: &Facts) -> Option<String> {
    let Some(interface) = facts.interfaces.get(name) else { return Some(format!("{name} was not looked at")) };
    match &interface.link {
        Err(unseen) => Some(unseen.why.clone()),
        Ok(None) => Some(format!("{name} is absent")),
        Ok(Some(link)) if !link.is_up => Some(format!("{name} is down")),
        Ok(Some(_)) => None,
    }
}

/// The tunnel of an interface, or why nothing can be said of its peers.
pub(super) fn device<'f>(name: &str, facts: &'f Facts) -> Result<&'f Device, String> {
    let Some(interface) = facts.interfaces.get(name) else { return Err(format!("{name} was not looked at")) };
    match (&interface.link, &interface.device) {
        (Ok(None), _) => Err(format!("{name} is absent")),
        (Ok(Some(_)), Ok(device)) => Ok(device),
        (Err(unseen), _) | (_, Err(NoDevice::Unseen(unseen))) => Err(unseen.why.clone()),
        (_, Err(NoDevice::Refused)) => Err(format!("nobody is behind the socket of {name}")),
        (_, Err(NoDevice::Absent)) => Err(format!("{name} has no tunnel")),
    }
}

/// A sample that says why nothing can be said.
pub(super) fn because(check: &'static str, target: &str, why: &str) -> Sample {
    Sample::unknown(check, target, format!("cannot be judged, because {why}")).remedy(format!("mend that first: {why}"))
}

pub(super) fn samples(wanted: &Wanted, facts: &Facts) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (name, interface) in &wanted.interfaces {
        samples.push(self::interface(name, interface, facts));
        peers(name, interface, facts, &mut samples);
    }
    samples.extend(wanted.strays.iter().map(|(name, client)| {
        let text = format!("client {client} is let in by {name}, which the policy of this host does not have");
        Sample::unknown(PEER, format!("{name} {client}"), text)
            .remedy(format!("give the policy a `vpn` of interface {name}"))
    }));
    samples.extend(wanted.routes.iter().map(|(network, route)| self::route(network, route, facts)));
    samples
}

const INTERFACE: &str = "wg-interface";

fn interface(name: &str, wanted: &wanted::Interface, facts: &Facts) -> Sample {
    let site = wanted.peers.first().map(|peer| peer.site.clone());
    let Some(interface) = facts.interfaces.get(name) else {
        return Sample { site, ..because(INTERFACE, name, "it was not looked at") };
    };
    let unknown =
        |Unseen { why, remedy }: &Unseen| Sample::unknown(INTERFACE, name, why.clone()).remedy(remedy.clone());
    let start = format!("wg-quick up {name}");
    let sample = match (&interface.link, &interface.device) {
        (Err(unseen), _) | (Ok(Some(_)), Err(NoDevice::Unseen(unseen))) => unknown(unseen),
        (Ok(None), device) => {
            let stale =
                if *device == Err(NoDevice::Refused) { "; its socket is left, its process is gone" } else { "" };
            Sample::critical(INTERFACE, name, format!("{name} is absent{stale}")).remedy(start)
        }
        (Ok(Some(_)), Err(NoDevice::Refused)) => {
            Sample::critical(INTERFACE, name, "the socket refuses: the tunnel's process is gone")
                .remedy(format!("ip link delete {name}; {start}"))
        }
        (Ok(Some(link)), Err(NoDevice::Absent)) if link.kind == "tun" => unknown(&Unseen::new(
            format!("{name} is run by a process, and has no socket where the agent looks"),
            "set `wireguard.sockets` to the directory that holds the sockets",
        )),
        (Ok(Some(link)), Err(NoDevice::Absent)) => {
            let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
            Sample::critical(INTERFACE, name, format!("{name} is no tunnel of WireGuard")).observed(kind).remedy(start)
        }
        (Ok(Some(link)), Ok(device)) => {
            let good = format!("{name} is up");
            sum(INTERFACE, name, good, differences(name, wanted, link, device)).source(device.source.clone())
        }
    };
    Sample { site, ..sample }
}

fn differences(name: &str, wanted: &wanted::Interface, link: &Link, device: &Device) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !link.is_up {
        faults.push(Fault {
            status: Status::Critical,
            text: format!("{name} is down"),
            observed: "down".to_owned(),
            expected: "up".to_owned(),
            remedy: format!("ip link set {name} up"),
        });
    }
    let own_key = device.own_key.map_or_else(|| "none".to_owned(), |key| key.to_string());
    if let Some(wanted) = wanted.own_key.as_ref().filter(|wanted| **wanted != own_key) {
        faults.push(Fault {
            status: Status::Critical,
            text: "it has another key of its own, which its peers do not know".to_owned(),
            observed: format!("own public key {own_key}"),
            expected: format!("own public key {wanted}"),
            remedy: format!("wg set {name} private-key FILE, with the key of {wanted}"),
        });
    }
    if let Some(port) = wanted.port.filter(|port| *port != device.port) {
        faults.push(Fault {
            status: Status::Warning,
            text: "it listens on another port".to_owned(),
            observed: format!("UDP port {}", device.port),
            expected: format!("UDP port {port}"),
            remedy: format!("wg set {name} listen-port {port}"),
        });
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != link.mtu) {
        faults.push(Fault {
            status: Status::Warning,
            text: "it has another MTU".to_owned(),
            observed: format!("MTU {}", link.mtu),
            expected: format!("MTU {mtu}"),
            remedy: format!("ip link set {name} mtu {mtu}"),
        });
    }
    for address in wanted.addresses.difference(&link.addresses) {
        faults.push(Fault {
            status: Status::Warning,
            text: "it lacks an address".to_owned(),
            observed: list(&link.addresses),
            expected: address.to_string(),
            remedy: format!("ip address add {address} dev {name}"),
        });
    }
    faults
}

const PEER: &str = "wg-peer";

fn peers(name: &str, interface: &wanted::Interface, facts: &Facts, samples: &mut Vec<Sample>) {
    let of_site = |peer: &wanted::Peer, sample: Sample| match &*peer.site {
        "" => sample,
        site => sample.site(site),
    };
    let device = match device(name, facts) {
        Ok(device) => device,
        Err(why) => {
            samples.extend(interface.all().map(|peer| of_site(peer, because(PEER, &peer.target, &why))));
            return;
        }
    };
    let there = by_key(device);
    let known: BTreeSet<&str> = interface.all().map(|wanted| &*wanted.key).collect();
    let strangers: Vec<&facts::Peer> =
        device.peers.iter().filter(|peer| !known.contains(&*peer.key.to_string())).collect();
    let is_of_one = interface.is_of_one();
    // Where clients are let in, whoever was revoked must be gone.
    let status = if interface.is_vpn { Status::Critical } else { Status::Warning };
    let foreign = foreign(name, &strangers, status);
    for peer in interface.all() {
        let seen = there.get(&*peer.key).copied();
        let mut faults = peer_faults(name, peer, seen, device);
        if is_of_one {
            faults.extend(foreign.clone());
        }
        let endpoint = seen.and_then(|seen| seen.endpoint).map(|endpoint| format!("endpoint {endpoint}"));
        let mut sample = sum(PEER, &peer.target, format!("peer {} is as it should be", peer.key), faults);
        sample.observed = sample.observed.or(endpoint);
        samples.push(of_site(peer, sample).source(device.source.clone()));
    }
    if !is_of_one {
        let good = format!("{name} has no other peers");
        samples.push(sum(PEER, name, good, foreign.into_iter().collect()).source(device.source.clone()));
    }
}

/// Peers by their key, as rows have it.
pub(super) fn by_key(device: &Device) -> BTreeMap<String, &facts::Peer> {
    device.peers.iter().map(|peer| (peer.key.to_string(), peer)).collect()
}

/// So many of them are named.
const NAMED: usize = 3;

fn foreign(name: &str, strangers: &[&facts::Peer], status: Status) -> Option<Fault> {
    let named = strangers.iter().take(NAMED);
    let part = |say: fn(&facts::Peer) -> String, between: &str| {
        named.clone().map(|one| say(one)).collect::<Vec<_>>().join(between)
    };
    let more = if strangers.len() > NAMED { ", and more" } else { "" };
    let remove = |stranger: &facts::Peer| format!("wg set {name} peer {} remove", stranger.key);
    (!strangers.is_empty()).then(|| Fault {
        status,
        text: format!("{} peers are not expected: {}{more}", strangers.len(), part(|one| one.key.to_string(), ", ")),
        observed: part(|one| format!("peer {} with {}", one.key, list(&one.allowed_ips)), "; ") + more,
        expected: "no such peer".to_owned(),
        remedy: named.clone().map(|one| remove(one)).collect::<Vec<_>>().join(" && "),
    })
}

fn peer_faults(name: &str, wanted: &wanted::Peer, seen: Option<&facts::Peer>, device: &Device) -> Vec<Fault> {
    let Some(peer) = seen else {
        let endpoint = wanted.endpoint.as_ref().map(|to| format!(" endpoint {to}")).unwrap_or_default();
        return vec![Fault {
            status: Status::Critical,
            text: match &*wanted.site {
                "" => "the peer of the client is absent".to_owned(),
                site => format!("the peer of site {site} is absent"),
            },
            observed: format!("{} other peers", device.peers.len()),
            expected: format!("peer {}", wanted.key),
            remedy: format!(
                "wg set {name} peer {}{endpoint} persistent-keepalive {} allowed-ips {}",
                wanted.key,
                wanted.keepalive,
                list(&wanted.allowed_ips)
            ),
        }];
    };
    let mut faults = Vec::new();
    // What it took over is not taken from it by the remedy.
    let kept = peer.allowed_ips.iter().filter(|network| wanted.may_have.contains(network));
    let all: BTreeSet<IpNet> = wanted.allowed_ips.iter().chain(kept).copied().collect();
    let set = format!("wg set {name} peer {} allowed-ips {}", wanted.key, list(&all));
    let missing: BTreeSet<IpNet> = wanted.allowed_ips.difference(&peer.allowed_ips).copied().collect();
    let extra: BTreeSet<IpNet> = peer.allowed_ips.difference(&all).copied().collect();
    if !missing.is_empty() {
        let thief = device.peers.iter().find(|other| missing.iter().any(|one| other.allowed_ips.contains(one)));
        let elsewhere = thief.map(|thief| format!(": peer {} has it", thief.key)).unwrap_or_default();
        faults.push(Fault {
            status: Status::Critical,
            text: format!("{} is not among its allowed IPs{elsewhere}", list(&missing)),
            observed: format!("allowed IPs {}", list(&peer.allowed_ips)),
            expected: format!("allowed IPs {}", list(&wanted.allowed_ips)),
            remedy: set,
        });
    } else if !extra.is_empty() {
        faults.push(Fault {
            status: Status::Warning,
            text: format!("{} is among its allowed IPs and not expected", list(&extra)),
            observed: format!("allowed IPs {}", list(&peer.allowed_ips)),
            expected: format!("allowed IPs {}", list(&wanted.allowed_ips)),
            remedy: set,
        });
    }
    if peer.keepalive != wanted.keepalive {
        faults.push(Fault {
            status: Status::Warning,
            text: "its keepalive differs".to_owned(),
            observed: format!("keepalive {} s", peer.keepalive),
            expected: format!("keepalive {} s", wanted.keepalive),
            remedy: format!("wg set {name} peer {} persistent-keepalive {}", wanted.key, wanted.keepalive),
        });
    }
    faults
}

const ROUTE: &str = "wg-route";

fn route(network: &IpNet, wanted: &wanted::Route, facts: &Facts) -> Sample {
    let target = network.to_string();
    let through = |interface: &str| format!("through {interface}");
    let sample = match (facts.routes.get(network), obstacle(&wanted.interface, facts)) {
        (Some(Ok(Some(by))), None) if *by == wanted.interface => {
            Sample::ok(ROUTE, target, format!("{network} is reached through {by}"))
        }
        (Some(Ok(Some(by))), _) if wanted.standby.contains(by) => {
            Sample::warning(ROUTE, target, format!("{network} is reached through {by}, which stands by"))
                .observed(through(by))
                .remedy(format!("when {0} works again: ip route del {network} dev {by}", wanted.interface))
        }
        (_, Some(why)) => because(ROUTE, &target, &why),
        (None, _) => because(ROUTE, &target, "it was not looked at"),
        (Some(Err(unseen)), _) => Sample::unknown(ROUTE, target, unseen.why.clone()).remedy(unseen.remedy.clone()),
        (Some(Ok(by)), None) => {
            let text = match by {
                Some(by) => format!("{network} is not reached through {}, but {by}", wanted.interface),
                None => format!("no route leads to {network}"),
            };
            Sample::critical(ROUTE, target, text)
                .observed(by.as_ref().map_or_else(|| "no route".to_owned(), |by| through(by)))
                .remedy(format!("ip route replace {network} dev {}", wanted.interface))
        }
    };
    sample.site(wanted.site.clone()).expected(through(&wanted.interface)).source("the kernel's routes")
}

/// As `wg set ... allowed-ips` takes them.
fn list<T: Display>(all: &BTreeSet<T>) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
