//! Where a site's networks go, as the kernel has it: our routes, other people's, and what the fallback's peer may have.
//!
//! Our routes are known by their number ([`PROTOCOL`]) and nothing else, so that a restart finds them and no other is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;

use super::{super::right::Obstacle, files::Memory, machine::Place, pair::Pair};
use crate::wireguard::{
    facts::{Device, Link, NoDevice},
    netlink, read,
    routes::{self, Route},
};

/// Who made our routes: `ip route show proto 235`.
pub(super) const PROTOCOL: u8 = 235;

/// Of our routes; the primary's own, of 100, stay where they are.
pub(super) const METRIC: u32 = 50;

/// What one look saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub place: Place,
    /// The primary has a route to each network, to return to.
    pub can_return: bool,
    /// The index of the fallback's interface. None: there is none.
    pub fallback: Option<u32>,
    /// All that the fallback's peer may have now. None: it is not there.
    pub allowed: Option<BTreeSet<IpNet>>,
    /// Of the fallback's latest handshake, since 1970.
    pub handshake: Option<Duration>,
    /// Ours, also those that lead elsewhere than they should by now.
    pub ours: Vec<Route>,
    /// Somebody else's that win over ours.
    pub foreign: Option<Route>,
}

/// Looks once. `memory` is of a move that began and was not taken back.
pub(super) async fn read(pair: &Pair, sockets: &Path, memory: Option<&Memory>) -> Result<Kernel, Obstacle> {
    let failed = |what: &str, error: std::io::Error| {
        Obstacle::unknown(format!("{what} cannot be listed: {error}"), "let the agent have AF_NETLINK sockets")
    };
    let links = netlink::links().await.map_err(|error| failed("interfaces", error))?;
    let routes = routes::all().await.map_err(|error| failed("routes", error))?;
    let name = &pair.fallback.interface;
    let kind = links.get(name).map(|link| link.kind.as_str());
    let device = read::device(sockets, name, kind, false).await;
    judge(pair, &links, &routes, device, memory)
}

fn judge(
    pair: &Pair,
    links: &BTreeMap<String, Link>,
    routes: &[Route],
    device: Result<Device, NoDevice>,
    memory: Option<&Memory>,
) -> Result<Kernel, Obstacle> {
    let index = |name: &str| links.get(name).map(|link| link.index);
    let (primary, fallback) = (index(&pair.primary.interface), index(&pair.fallback.interface));
    let is_moved = |network| memory.is_some_and(|memory| memory.networks.contains(network));
    let (ours, others): (Vec<&Route>, Vec<&Route>) = routes
        .iter()
        .filter(|route| {
            pair.networks.contains(&route.network) || is_moved(&route.network) && route.protocol == PROTOCOL
        })
        .partition(|route| route.protocol == PROTOCOL);
    let winning = others.iter().filter(|route| route.metric <= METRIC);
    let foreign = winning.clone().find(|route| Some(route.interface) != primary).map(|route| **route);
    if let Some(route) = winning.clone().find(|route| Some(route.interface) == primary) {
        return Err(Obstacle::warning(
            format!(
                "{} goes by {} with metric {}: no other route could win",
                route.network, pair.primary.interface, route.metric
            ),
            format!(
                "give it 100: ip route add {0} dev {1} metric 100 && ip route del {0} dev {1} metric {2}; in {1}.conf: Table = off, \
                 PostUp = ip route add {0} dev %i metric 100",
                route.network, pair.primary.interface, route.metric
            ),
        ));
    }
    let all_through = |of: &[&Route], interface: Option<u32>| {
        pair.networks
            .iter()
            .all(|network| of.iter().any(|route| route.network == *network && Some(route.interface) == interface))
    };
    let device = match device {
        Ok(device) => Some(device),
        Err(NoDevice::Absent | NoDevice::Refused) => None,
        Err(NoDevice::Unseen(unseen)) => return Err(Obstacle::unknown(unseen.why, unseen.remedy)),
    };
    let peers = device.as_ref().map(|device| device.peers.as_slice()).unwrap_or_default();
    let peer = peers.iter().find(|peer| peer.key == pair.fallback.key);
    let thief = peers.iter().filter(|peer| peer.key != pair.fallback.key);
    if let Some(thief) = thief.into_iter().find(|peer| !peer.allowed_ips.is_disjoint(&pair.networks)) {
        return Err(Obstacle::warning(
            format!("{} has {} among its allowed IPs: they would be taken from it", thief.key, pair.networks()),
            format!(
                "two peers of {} cannot have one network: give one of them an interface of its own",
                pair.fallback.interface
            ),
        ));
    }
    let is_allowed = peer.is_some_and(|peer| pair.networks.is_subset(&peer.allowed_ips));
    let place = if foreign.is_some() {
        Place::Foreign
    } else if ours.len() == pair.networks.len() && all_through(&ours, fallback) && is_allowed {
        Place::Fallback
    } else if ours.is_empty() && memory.is_none() {
        Place::Primary
    } else {
        Place::Half
    };
    Ok(Kernel {
        place,
        can_return: all_through(&others, primary),
        fallback,
        allowed: peer.map(|peer| peer.allowed_ips.clone()),
        handshake: peer.and_then(|peer| peer.handshake),
        ours: ours.into_iter().copied().collect(),
        foreign,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::pair::tests::{FR, UK, pair},
        *,
    };
    use crate::wireguard::facts::{Key, Peer};

    const NETWORK: &str = "10.35.0.0/16";
    /// The site had it when the move began.
    const OLD: &str = "10.36.0.0/16";

    fn route(interface: u32, metric: u32, protocol: u8) -> Route {
        Route { network: NETWORK.parse().unwrap(), interface, metric, protocol }
    }

    fn peer(key: Key, allowed: &[&str]) -> Peer {
        Peer { allowed_ips: allowed.iter().map(|network| network.parse().unwrap()).collect(), ..Peer::new(key) }
    }

    /// wg-fr has index 6, wg-uk 5.
    fn look(routes: &[Route], peers: Vec<Peer>, has_begun: bool) -> Result<Kernel, Obstacle> {
        let link = |index| Link { index, kind: "tun".to_owned(), is_up: true, mtu: 1420, addresses: BTreeSet::new() };
        let links = [("wg-fr".to_owned(), link(6)), ("wg-uk".to_owned(), link(5))].into();
        let memory = has_begun.then(|| Memory { networks: [OLD.parse().unwrap()].into(), ..Memory::default() });
        judge(&pair(), &links, routes, Ok(Device { peers, ..Device::default() }), memory.as_ref())
    }

    #[test]
    fn where_the_networks_go() {
        let own = ["10.44.0.0/16", "10.254.44.2/32"];
        let more = [own.as_slice(), &[NETWORK]].concat();
        let (primary, ours, by_hand) = (route(6, 100, 3), route(5, METRIC, PROTOCOL), route(5, METRIC, 3));
        for (what, routes, allowed, has_begun, place) in [
            ("at rest", vec![primary], own.as_slice(), false, Place::Primary),
            ("allowed by hand", vec![primary], &more, false, Place::Primary),
            ("moved", vec![primary, ours], &more, false, Place::Fallback),
            ("moved, and its primary gone", vec![ours], &more, true, Place::Fallback),
            ("begun", vec![primary], &own, true, Place::Half),
            ("allowed and not routed", vec![primary], &more, true, Place::Half),
            ("routed and not allowed", vec![primary, ours], &own, false, Place::Half),
            ("ours through another", vec![primary, route(9, METRIC, PROTOCOL)], &more, false, Place::Half),
            (
                "moved, when the site had more",
                vec![primary, ours, Route { network: OLD.parse().unwrap(), ..ours }],
                &more,
                true,
                Place::Half,
            ),
            ("by hand", vec![primary, by_hand], &more, false, Place::Foreign),
            ("by hand, with a smaller metric", vec![primary, ours, route(5, 10, 3)], &more, true, Place::Foreign),
            ("by hand, and no harm", vec![primary, route(5, 200, 3)], &own, false, Place::Primary),
        ] {
            let kernel = look(&routes, vec![peer(UK, allowed)], has_begun).unwrap();
            assert_eq!(kernel.place, place, "{what}");
            assert_eq!(kernel.can_return, routes.contains(&primary), "{what}");
        }
    }

    #[test]
    fn what_could_not_work_is_told_before_it_is_needed() {
        let said = |routes: &[Route], peers| look(routes, peers, false).unwrap_err().text;
        let won = said(&[route(6, 0, 3)], vec![peer(UK, &[])]);
        assert_eq!(won, "10.35.0.0/16 goes by wg-fr with metric 0: no other route could win");
        let second = said(&[route(6, 100, 3)], vec![peer(UK, &[]), peer(FR, &[NETWORK])]);
        assert!(second.contains("they would be taken from it"), "{second}");
    }
}
