//! What is expected of the tunnels of this host: the rows of sites and of the VPN's clients, put together by interface, peer and
//! network. Pure.
//!
//! Several sites may share a tunnel (the same interface and key): it carries the networks of those whose best rank it is,
//! and stands by for the others. Clients come and go: whether they answer is not judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use charliehub_proto::{
    expected::Expected,
    peer,
    policy::Vpn,
    site::{Host, Site, Tunnel},
};
use ipnet::IpNet;

#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub interfaces: BTreeMap<String, Interface>,
    pub routes: BTreeMap<IpNet, Route>,
    /// Clients, by interface and name, of an interface that the policy does not know: nobody lets them in.
    pub strays: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    pub own_key: Option<String>,
    pub port: Option<u16>,
    pub mtu: Option<u32>,
    pub addresses: BTreeSet<IpNet>,
    /// Those of sites.
    pub peers: Vec<Peer>,
    /// The policy's `vpn` has it: whoever is a peer of it is let in.
    pub is_vpn: bool,
    /// Of the VPN. Their `site` is empty.
    pub clients: Vec<Peer>,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// What it is called in findings: the interface, and the site where the interface has several peers, or the client.
    pub target: String,
    pub site: String,
    /// Those whose best tunnel it is.
    pub sites: BTreeSet<String>,
    /// As `wg show` writes it.
    pub key: String,
    pub endpoint: Option<String>,
    /// Seconds; 0 is off.
    pub keepalive: u16,
    pub allowed_ips: BTreeSet<IpNet>,
    /// Networks of sites that it stands by for: it may have them while it takes over.
    pub may_have: BTreeSet<IpNet>,
    /// The far end, inside the tunnel.
    pub address: Option<IpAddr>,
    /// At the sites whose best tunnel it is.
    pub hosts: Vec<Host>,
}

/// Where a network should be reached through.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub site: String,
    pub interface: String,
    /// The interfaces that take over.
    pub standby: BTreeSet<String>,
}

impl Wanted {
    pub(crate) fn of(expected: &Expected) -> Self {
        let mut wanted = Self::default();
        for site in expected.sites.iter().filter(|site| site.agent == expected.agent) {
            wanted.add(site);
        }
        for vpn in &expected.policy.vpn {
            wanted.add_vpn(vpn, expected.peers.iter().filter(|peer| peer.interface == vpn.interface));
        }
        let is_known = |name: &str| expected.policy.vpn.iter().any(|vpn| vpn.interface == name);
        let strays = expected.peers.iter().filter(|peer| !is_known(&peer.interface));
        wanted.strays = strays.map(|peer| (peer.interface.clone(), peer.name.clone())).collect();
        for (name, interface) in &mut wanted.interfaces {
            let is_one = interface.is_of_one();
            for peer in &mut interface.peers {
                peer.target = if is_one { name.clone() } else { format!("{name} {}", peer.site) };
            }
        }
        wanted
    }

    /// Every peer that is a site's, with its interface.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&String, &Peer)> {
        self.interfaces.iter().flat_map(|(name, interface)| interface.peers.iter().map(move |peer| (name, peer)))
    }

    fn add_vpn<'r>(&mut self, vpn: &Vpn, rows: impl Iterator<Item = &'r peer::Peer>) {
        let interface = self.interfaces.entry(vpn.interface.clone()).or_default();
        let called = vpn.endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        interface.is_vpn = true;
        interface.own_key = Some(vpn.public_key.clone());
        interface.port = vpn.listen_port.or(called);
        interface.mtu = vpn.mtu.or(interface.mtu);
        interface.addresses.extend(&vpn.addresses);
        interface.clients.extend(rows.map(|row| Peer {
            target: format!("{} {}", vpn.interface, row.name),
            allowed_ips: row.addresses.iter().map(IpNet::trunc).collect(),
            ..Peer::new(&row.public_key)
        }));
    }

    fn add(&mut self, site: &Site) {
        let mut tunnels: Vec<&Tunnel> = site.tunnels.iter().collect();
        tunnels.sort_by_key(|tunnel| tunnel.rank);
        for (place, tunnel) in tunnels.iter().enumerate() {
            let is_best = place == 0;
            let interface = self.interfaces.entry(tunnel.interface.clone()).or_default();
            interface.own_key = interface.own_key.take().or_else(|| tunnel.own_public_key.clone());
            interface.port = interface.port.or(tunnel.listen_port);
            interface.mtu = interface.mtu.or(tunnel.mtu);
            interface.addresses.extend(&tunnel.addresses);
            let peer = interface.peer(tunnel, site);
            peer.allowed_ips.extend(tunnel.allowed_ips.iter().map(IpNet::trunc));
            peer.endpoint = peer.endpoint.take().or_else(|| tunnel.endpoint.clone());
            peer.address = peer.address.or(tunnel.peer_address);
            peer.keepalive = peer.keepalive.max(tunnel.keepalive);
            if is_best {
                peer.site.clone_from(&site.name);
                peer.sites.insert(site.name.clone());
                peer.hosts.extend(site.hosts.iter().cloned());
            } else {
                peer.may_have.extend(site.networks.iter().map(IpNet::trunc));
            }
        }
        let Some((best, others)) = tunnels.split_first() else { return };
        for network in &site.networks {
            self.routes.entry(network.trunc()).or_insert_with(|| Route {
                site: site.name.clone(),
                interface: best.interface.clone(),
                standby: others.iter().map(|tunnel| tunnel.interface.clone()).collect(),
            });
        }
    }
}

impl Interface {
    /// Sites' and clients'.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().chain(&self.clients)
    }

    /// The peer of one site and no other: what is said of the interface's peers is said with it.
    pub(super) fn is_of_one(&self) -> bool {
        self.peers.len() == 1 && !self.is_vpn
    }

    fn peer(&mut self, tunnel: &Tunnel, site: &Site) -> &mut Peer {
        let place = self.peers.iter().position(|peer| peer.key == tunnel.public_key).unwrap_or_else(|| {
            self.peers.push(Peer { site: site.name.clone(), ..Peer::new(&tunnel.public_key) });
            self.peers.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found, or just pushed")]
        &mut self.peers[place]
    }
}

impl Peer {
    /// Of the site, or of the client.
    pub(crate) fn name(&self) -> &str {
        if self.site.is_empty() { self.target.split_once(' ').map_or("", |(_, client)| client) } else { &self.site }
    }

    fn new(key: &str) -> Self {
        Self {
            target: String::new(),
            site: String::new(),
            sites: BTreeSet::new(),
            key: key.to_owned(),
            endpoint: None,
            keepalive: 0,
            allowed_ips: BTreeSet::new(),
            may_have: BTreeSet::new(),
            address: None,
            hosts: Vec::new(),
        }
    }
}
