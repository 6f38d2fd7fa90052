//! Asks the kernel, in one question and its answers at a time: interfaces, their addresses, where packets would go, and
//! its own WireGuard tunnels. Routes are [`routes`](super::routes).
//!
//! rtnetlink and genetlink have the same frame; [`ask`] is that. The crates that wrap it bring a task that runs beside its
//! owner; we wait for one answer.

#![expect(clippy::wildcard_enum_match_arm, reason = "of a kernel's many attributes we want these")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io,
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteMessage},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};

use super::{
    facts::{Device, Key, Link, Peer},
    write::{Change, Order},
};

/// The kernel fills at most so much of a buffer with one part of a dump.
const PART: usize = 64 << 10;

/// More answers than this are no host with tunnels.
const MOST: usize = 100_000;

/// Every interface, by name.
pub(crate) async fn links() -> io::Result<BTreeMap<String, Link>> {
    let mut socket = Socket::open(NETLINK_ROUTE)?;
    let links = socket.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP).await?;
    let addresses = socket.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP).await?;
    let mut named: BTreeMap<String, Link> = links.into_iter().filter_map(link).collect();
    for (index, address) in addresses.into_iter().filter_map(address) {
        if let Some(link) = named.values_mut().find(|link| link.index == index) {
            link.addresses.insert(address);
        }
    }
    Ok(named)
}

/// The index of the interface that a packet to `destination` would leave by. None: there is no route.
pub(crate) async fn route(destination: IpAddr) -> io::Result<Option<u32>> {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    match Socket::open(NETLINK_ROUTE)?.ask(RouteNetlinkMessage::GetRoute(message), 0).await {
        Ok(answers) => Ok(answers.into_iter().find_map(oif)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
            Ok(None)
        }
        // What an `unreachable`, `prohibit` or `blackhole` route answers.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel's own tunnel of this name. Needs CAP_NET_ADMIN.
pub(super) async fn device(interface: &str) -> io::Result<Device> {
    let mut socket = Socket::open(NETLINK_GENERIC)?;
    let name = vec![WireguardAttribute::IfName(interface.to_owned())];
    let question = question(&mut socket, WireguardCmd::GetDevice, name).await?;
    let parts = socket.ask(question, NLM_F_DUMP).await?;
    Ok(join(parts.into_iter().map(|part: GenlMessage<WireguardMessage>| part.payload.attributes)))
}

/// Changes the tunnel. Needs CAP_NET_ADMIN.
pub(super) async fn set(interface: &str, orders: &[Order<'_>]) -> io::Result<()> {
    let mut socket = Socket::open(NETLINK_GENERIC)?;
    for orders in parts(orders) {
        let mut attributes = vec![WireguardAttribute::IfName(interface.to_owned())];
        let mut peers = Vec::new();
        for order in orders {
            match order {
                Order::OwnKey(private) => attributes.push(WireguardAttribute::PrivateKey(private.0)),
                Order::Remove(peer) => peers.push(ordered(*peer, WireguardPeerFlags::RemoveMe, &[])),
                Order::Change(peer, changes) => peers.push(ordered(*peer, WireguardPeerFlags::UpdateOnly, changes)),
                Order::Make(peer, changes) => peers.push(ordered(*peer, WireguardPeerFlags::empty(), changes)),
            }
        }
        attributes.push(WireguardAttribute::Peers(peers));
        let order = question(&mut socket, WireguardCmd::SetDevice, attributes).await?;
        socket.ask(order, NLM_F_ACK).await?;
    }
    Ok(())
}

/// The orders in messages, in their order: all peers of one are an attribute, which has 64 KiB at most.
fn parts<'a, 'o>(orders: &'a [Order<'o>]) -> Vec<&'a [Order<'o>]> {
    let (mut parts, mut rest, mut size) = (Vec::new(), orders, 0);
    let mut taken = 0;
    while let Some(next) = rest.get(taken) {
        let more = size_of(next);
        if taken > 0 && size + more > FITS {
            let (part, left) = rest.split_at(taken);
            parts.push(part);
            (rest, taken, size) = (left, 0, 0);
        }
        (taken, size) = (taken + 1, size + more);
    }
    parts.push(rest);
    parts
}

/// Bytes of a message's orders.
const FITS: usize = 48 << 10;

/// Bytes, or somewhat more: of a peer, and of each of its allowed IPs.
fn size_of(order: &Order<'_>) -> usize {
    let (Order::Change(_, changes) | Order::Make(_, changes)) = order else { return 128 };
    let networks = changes.iter().map(|change| match change {
        Change::AllowedIps { networks, .. } => networks.len(),
        _ => 0,
    });
    256 + 44 * networks.sum::<usize>()
}

fn ordered(peer: Key, mut flags: WireguardPeerFlags, changes: &[Change<'_>]) -> WireguardPeer {
    let mut attributes = vec![WireguardPeerAttribute::PublicKey(peer.0)];
    for change in changes {
        attributes.push(match *change {
            Change::AllowedIps { networks, is_replacing } => {
                flags.set(WireguardPeerFlags::ReplaceAllowedIps, is_replacing);
                WireguardPeerAttribute::AllowedIps(networks.iter().map(told).collect())
            }
            Change::Endpoint(endpoint) => WireguardPeerAttribute::Endpoint(endpoint),
            Change::Keepalive(seconds) => WireguardPeerAttribute::PersistentKeepalive(seconds),
            Change::PresharedKey(key) => WireguardPeerAttribute::PresharedKey(key.0),
        });
    }
    attributes.push(WireguardPeerAttribute::Flags(flags));
    WireguardPeer(attributes)
}

fn told(network: &IpNet) -> WireguardAllowedIp {
    let family = match network {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(network.addr()),
        WireguardAllowedIpAttr::Cidr(network.prefix_len()),
    ])
}

/// What the kernel's WireGuard is told or asked: its number is another one in each kernel.
async fn question(
    socket: &mut Socket,
    cmd: WireguardCmd,
    attributes: Vec<WireguardAttribute>,
) -> io::Result<GenlMessage<WireguardMessage>> {
    let question = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".to_owned())],
    });
    let families = socket.ask(question, 0).await?;
    let of_family = families.into_iter().flat_map(|family: GenlMessage<GenlCtrl>| family.payload.nlas);
    let mut ids = of_family.filter_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(id),
        _ => None,
    });
    let id = ids.next().ok_or_else(|| io::Error::other("the kernel has no WireGuard"))?;
    let mut question = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
    question.set_resolved_family_id(id);
    Ok(question)
}

/// A device with many peers comes in parts; a peer with many allowed IPs goes on in the next part under the same key.
fn join(parts: impl Iterator<Item = Vec<WireguardAttribute>>) -> Device {
    let mut device = Device { source: "netlink".to_owned(), ..Device::default() };
    for attribute in parts.flatten() {
        match attribute {
            WireguardAttribute::PublicKey(key) => device.own_key = Some(Key(key)),
            WireguardAttribute::ListenPort(port) => device.port = port,
            WireguardAttribute::Peers(peers) => {
                for peer in peers.iter().filter_map(peer) {
                    match device.peers.last_mut() {
                        Some(last) if last.key == peer.key => last.allowed_ips.extend(peer.allowed_ips),
                        _ => device.peers.push(peer),
                    }
                }
            }
            _ => {} // the private key among them
        }
    }
    device
}

fn peer(attributes: &WireguardPeer) -> Option<Peer> {
    let key = attributes.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(Key(*key)),
        _ => None,
    });
    let mut peer = Peer::new(key?);
    for attribute in attributes.iter() {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = *seconds,
            WireguardPeerAttribute::LastHandshake(at) => {
                let seconds = u64::try_from(at.seconds).ok().filter(|seconds| *seconds > 0);
                let rest = u64::try_from(at.nano_seconds).map_or(Duration::ZERO, Duration::from_nanos);
                peer.handshake = seconds.map(|seconds| Duration::from_secs(seconds).saturating_add(rest));
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.received = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.sent = *bytes,
            WireguardPeerAttribute::AllowedIps(allowed) => {
                peer.allowed_ips.extend(allowed.iter().filter_map(|one| allowed_ip(one)));
            }
            _ => {} // the preshared key among them
        }
    }
    Some(peer)
}

fn allowed_ip(attributes: &[WireguardAllowedIpAttr]) -> Option<IpNet> {
    let (mut address, mut length) = (None, None);
    for attribute in attributes {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(is) => address = Some(*is),
            WireguardAllowedIpAttr::Cidr(is) => length = Some(*is),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok().map(|network| network.trunc())
}

fn link(message: RouteNetlinkMessage) -> Option<(String, Link)> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, kind: String::new(), is_up, mtu: 0, addresses: BTreeSet::new() };
    let mut name = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(is) => name = Some(is),
            LinkAttribute::Mtu(is) => link.mtu = is,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    Some((name?, link))
}

fn address(message: RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let (mut address, mut local) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(is) => address = Some(is),
            AddressAttribute::Local(is) => local = Some(is),
            _ => {}
        }
    }
    // On a point-to-point interface `Address` is the far end.
    Some((message.header.index, IpNet::new(local.or(address)?, message.header.prefix_len).ok()?))
}

fn oif(message: RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    message.attributes.into_iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(index),
        _ => None,
    })
}

pub(super) struct Socket {
    socket: TokioSocket,
    sequence: u32,
}

impl Socket {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// One question, and all that is answered to it.
    pub(super) async fn ask<M>(&mut self, question: impl Into<NetlinkPayload<M>>, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        self.sequence += 1;
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), question.into());
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes).await?;
        let mut answers = Vec::new();
        loop {
            let mut part = Vec::with_capacity(PART);
            self.socket.recv(&mut part).await?;
            let mut rest = part.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<M>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX).max(1).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
                // Of an order, the same bits mean other things.
                if flags & NLM_F_DUMP != NLM_F_DUMP {
                    return Ok(answers);
                }
            }
            if answers.len() > MOST {
                return Err(io::Error::other("the kernel answers without end"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
