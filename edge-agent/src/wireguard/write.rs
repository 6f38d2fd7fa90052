//! Changes a tunnel, by whoever runs it: all of one that is ever written.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, path::Path};

use ipnet::IpNet;
use rand::RngExt as _;

use super::{facts::Key, netlink, uapi};

/// A private or preshared key, which is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub [u8; 32]);

impl Secret {
    /// A new private key, as `wg genkey` makes one.
    pub(crate) fn random() -> Self {
        let mut key: [u8; 32] = rand::rng().random();
        // As <https://cr.yp.to/ecdh.html> has it; whoever uses the key does that anyway.
        key[0] &= 0b1111_1000;
        key[31] = key[31] & 0b0111_1111 | 0b0100_0000;
        Self(key)
    }

    /// As `wg genkey` writes it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        Key::read(text).map(|Key(key)| Self(key))
    }

    /// As a file of wg-quick has it: the one place that it is written to.
    pub(crate) fn reveal(&self) -> String {
        Key(self.0).to_string()
    }

    /// Of a private key.
    pub(crate) fn public(&self) -> Key {
        Key(x25519_dalek::x25519(self.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A part of what is written at once.
#[derive(Clone, Debug)]
pub(crate) enum Order<'a> {
    /// This end's private key from now on: each peer shakes hands anew.
    OwnKey(Secret),
    /// A peer that is there; where it is not, nothing.
    Change(Key, Vec<Change<'a>>),
    /// A peer that is made where it is not there.
    Make(Key, Vec<Change<'a>>),
    Remove(Key),
}

/// What a peer is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Beside the allowed IPs that it has, or in their place. Another peer that has one of them loses it.
    AllowedIps {
        networks: &'a BTreeSet<IpNet>,
        is_replacing: bool,
    },
    /// Where it is called from now on.
    Endpoint(SocketAddr),
    /// Seconds; 0 is off.
    Keepalive(u16),
    PresharedKey(Secret),
}

/// In this order, in one go. A peer that is not there is no error: read it back.
pub(crate) async fn device(sockets: &Path, interface: &str, orders: &[Order<'_>]) -> io::Result<()> {
    let socket = sockets.join(format!("{interface}.sock"));
    match uapi::set(&socket, orders).await {
        // As in `read`: the kernel's own tunnel has no socket, or one that a process left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            netlink::set(interface, orders).await
        }
        written => written,
    }
}
