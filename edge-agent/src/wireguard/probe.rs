//! One probe of one host: does it answer, and how fast.
//!
//! An echo request by a raw socket (CAP_NET_RAW); else by a datagram socket, where `net.ipv4.ping_group_range` lets our group
//! have one; else a TCP connection to a port that the host accepts them on, or refuses: both are an answer. A probe that
//! is given an interface leaves by it, whatever the routes say.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, UdpSocket},
    time::{Instant, timeout},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub address: IpAddr,
    /// Leave by this interface; none: as the routes say.
    pub interface: Option<String>,
    /// Where connections are accepted, asked when no echo request may be sent.
    pub port: Option<u16>,
    /// Of the whole IP packet, in bytes. Above the least, it must not be cut on its way.
    pub size: Option<u32>,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// After so long.
    Answered(Duration),
    /// No answer in time; or it could not even leave, and why.
    Lost(Option<String>),
    /// We have no means to probe.
    NoMeans,
}

impl Outcome {
    pub(crate) const fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(_))
    }
}

/// What lets us probe.
pub(crate) const MEANS: &str =
    "run the agent with CAP_NET_RAW, or let its group ping: sysctl -w net.ipv4.ping_group_range='0 2147483647'";

/// Sends one, and waits for its answer no longer than `patience`.
pub(crate) async fn send(probe: &Probe, patience: Duration) -> Outcome {
    let began = Instant::now();
    let sent = match open(probe) {
        Ok((socket, kind)) => timeout(patience, echo(probe, socket, kind)).await,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match probe.port.filter(|_| probe.size.is_none()) {
                Some(port) => timeout(patience, connect(probe, port)).await,
                None => return Outcome::NoMeans,
            }
        }
        Err(error) => Ok(Err(error)),
    };
    match sent {
        Ok(Ok(())) => Outcome::Answered(began.elapsed()),
        Ok(Err(error)) => Outcome::Lost(Some(error.to_string())),
        Err(_) => Outcome::Lost(None),
    }
}

/// A socket for echo requests, connected to the host: the kernel passes only what comes from there.
fn open(probe: &Probe) -> io::Result<(Socket, Type)> {
    let (domain, protocol) = match probe.address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, kind) = match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => (socket, Type::RAW),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            (Socket::new(domain, Type::DGRAM, Some(protocol))?, Type::DGRAM)
        }
        Err(error) => return Err(error),
    };
    socket.set_nonblocking(true)?;
    if let Some(interface) = &probe.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if probe.size.is_some() {
        // The packet is not cut, and what the kernel remembers of the path does not shorten it.
        match probe.address {
            IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::PROBE)?,
            IpAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::PROBE)?,
        }
    }
    socket.connect(&SocketAddr::new(probe.address, 0).into())?;
    Ok((socket, kind))
}

/// The least that is sent, in bytes behind the IP header.
const LEAST: usize = 64;

/// Bytes of the header of an echo request.
const HEADER: usize = 8;

async fn echo(probe: &Probe, socket: Socket, kind: Type) -> io::Result<()> {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let header = if probe.address.is_ipv4() { 20 } else { 40 };
    let length =
        probe.size.and_then(|size| usize::try_from(size).ok()).map_or(LEAST, |size| size.saturating_sub(header));
    let request = request(probe.address, number, length);
    // To tokio, a datagram socket is a datagram socket, whatever the protocol.
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&request).await?;
    let mut packet = vec![0; length + 128]; // an IPv4 header has at most 60 bytes
    loop {
        let received = socket.recv(&mut packet).await?;
        let packet = packet.get(..received).unwrap_or_default();
        if is_answer(packet, &request, probe.address, kind == Type::RAW) {
            return Ok(());
        }
    }
}

/// An echo request of so many bytes. Its payload is its number, so that it is known again where the kernel writes the
/// identifier.
fn request(to: IpAddr, number: u16, length: usize) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let [id_high, id_low] = u16::try_from(std::process::id() & 0xffff).unwrap_or_default().to_be_bytes();
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut request = vec![kind, 0, 0, 0, id_high, id_low, high, low];
    request.extend([high, low].into_iter().cycle().take(length.saturating_sub(HEADER)));
    // The kernel writes the checksum of ICMPv6, and that of datagram sockets.
    let [sum_high, sum_low] = checksum(&request).to_be_bytes();
    if let Some(sum) = request.get_mut(2..4) {
        sum.copy_from_slice(&[sum_high, sum_low]);
    }
    request
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let sum: u32 = words.fold(0_u32, u32::wrapping_add);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum & 0xffff).unwrap_or_default()
}

/// Is this packet the answer to that request? A raw socket of IPv4 has the IP header before it, and our own identifier in it;
/// a datagram socket is given its own answers alone.
fn is_answer(packet: &[u8], request: &[u8], from: IpAddr, is_raw: bool) -> bool {
    let header =
        if from.is_ipv4() && is_raw { usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4 } else { 0 };
    let kind = if from.is_ipv4() { 0 } else { 129 };
    let (Some(answer), Some(sent)) = (packet.get(header..), request.get(HEADER..)) else { return false };
    answer.first() == Some(&kind)
        && (!is_raw || answer.get(4..6) == request.get(4..6))
        && answer.get(6..8) == request.get(6..8)
        && answer.get(HEADER..) == Some(sent)
}

/// A refusal is an answer too: the host is there.
async fn connect(probe: &Probe, port: u16) -> io::Result<()> {
    let socket = if probe.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(interface) = &probe.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    match socket.connect(SocketAddr::new(probe.address, port)).await {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_told_from_other_packets() {
        let to: IpAddr = "10.44.0.1".parse().unwrap();
        let request = request(to, 258, 64);
        assert_eq!((request.len(), checksum(&request)), (64, 0), "with its own sum in it, the sum is 0");
        let mut answer = [vec![0x45; 20], request.clone()].concat();
        answer[20] = 0;
        assert!(is_answer(&answer, &request, to, true));
        assert!(is_answer(&answer[20..], &request, to, false));
        let other = |at: usize| {
            let mut other = answer.clone();
            other[at] ^= 1;
            is_answer(&other, &request, to, true)
        };
        for at in [20, 24, 27, 40] {
            assert!(!other(at), "byte {at} differs");
        }
        assert!(!is_answer(&answer[..60], &request, to, true), "cut short");
    }

    #[tokio::test]
    async fn a_host_that_is_there_answers_and_one_that_is_not_does_not() {
        let probe = |address: &str, size| Probe {
            address: address.parse().unwrap(),
            interface: Some("lo".to_owned()),
            port: None,
            size,
        };
        for (address, size) in [("127.0.0.1", None), ("127.0.0.1", Some(9_000)), ("::1", None), ("::1", Some(1_280))] {
            let outcome = send(&probe(address, size), Duration::from_secs(2)).await;
            assert!(outcome.is_answered() || outcome == Outcome::NoMeans, "{address} {size:?}: {outcome:?}");
        }
        let outcome = send(&probe("192.0.2.1", None), Duration::from_millis(100)).await;
        assert!(!outcome.is_answered(), "nobody is there by this interface: {outcome:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_answer() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let probe = Probe { address: "127.0.0.1".parse().unwrap(), interface: None, port: Some(port), size: None };
        connect(&probe, port).await.unwrap();
        drop(free);
        connect(&probe, port).await.unwrap();
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..200), is_raw: bool, v4: bool) {
            let from: IpAddr = if v4 { "10.0.0.1" } else { "fd00::1" }.parse().unwrap();
            is_answer(&packet, &request(from, 1, 64), from, is_raw);
        }
    }
}
