//! What one look saw of the tunnels: plain data, whether a kernel or a process runs them, and never a private key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ipnet::IpNet;

/// Of everything that is expected, by the name of the interface and by network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub interfaces: BTreeMap<String, Interface>,
    /// The interface that packets to a network leave by; none when no route leads there.
    pub routes: BTreeMap<IpNet, Result<Option<String>, Unseen>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Interface {
    /// None: there is no such interface.
    pub link: Result<Option<Link>, Unseen>,
    pub device: Result<Device, NoDevice>,
}

/// An interface, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub kind: String,
    pub is_up: bool,
    /// Bytes.
    pub mtu: u32,
    pub addresses: BTreeSet<IpNet>,
}

/// The WireGuard part of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// None: it has no private key, or nobody asked.
    pub own_key: Option<Key>,
    pub port: u16,
    pub peers: Vec<Peer>,
    /// Where this was read.
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub key: Key,
    pub endpoint: Option<SocketAddr>,
    /// Since 1970, by the clock of the machine at that time. None: never.
    pub handshake: Option<Duration>,
    /// Bytes since the interface was made.
    pub received: u64,
    pub sent: u64,
    /// Seconds; 0 is off.
    pub keepalive: u16,
    pub allowed_ips: BTreeSet<IpNet>,
}

impl Peer {
    pub(crate) const fn new(key: Key) -> Self {
        Self { key, endpoint: None, handshake: None, received: 0, sent: 0, keepalive: 0, allowed_ips: BTreeSet::new() }
    }
}

/// Why there is no WireGuard part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoDevice {
    /// Neither has a process a socket for it nor has the kernel a tunnel of this name.
    Absent,
    /// There is a socket, and nobody behind it.
    Refused,
    Unseen(Unseen),
}

/// It could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unseen {
    pub why: String,
    /// What would let us.
    pub remedy: String,
}

impl Unseen {
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// A public key; written as `wg show` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub [u8; 32]);

impl Key {
    /// As `wg show` writes it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
