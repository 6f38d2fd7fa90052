//! Changes a peer, by whoever runs its tunnel: all of a tunnel that is ever written.

use std::{collections::BTreeSet, io, net::SocketAddr, path::Path};

use ipnet::IpNet;

use super::{facts::Key, netlink, uapi};

/// What a peer is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Beside the allowed IPs that it has, or in their place.
    AllowedIps { networks: &'a BTreeSet<IpNet>, is_replacing: bool },
    /// Where it is called from now on.
    Endpoint(SocketAddr),
}

/// A peer that is not there is no error: read it back.
pub(crate) async fn peer(sockets: &Path, interface: &str, peer: Key, change: Change<'_>) -> io::Result<()> {
    let socket = sockets.join(format!("{interface}.sock"));
    match uapi::set(&socket, peer, change).await {
        // As in `read`: the kernel's own tunnel has no socket, or one that a process left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            netlink::set(interface, peer, change).await
        }
        written => written,
    }
}
