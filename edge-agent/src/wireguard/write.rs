//! Changes a tunnel, by whoever runs it: all of one that is ever written.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, path::Path};

use ipnet::IpNet;

use super::{facts::Key, netlink, uapi};

/// A key that is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub [u8; 32]);

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
