//! Gives peers allowed IPs, by whoever runs their tunnel: all of a tunnel that is ever written.

use std::{collections::BTreeSet, io, path::Path};

use ipnet::IpNet;

use super::{facts::Key, netlink, uapi};

/// To a peer that is there. `is_replacing` takes from it those that it had. A peer that is not there is no error: read it back.
pub(crate) async fn allowed_ips(
    sockets: &Path,
    interface: &str,
    peer: Key,
    allowed: &BTreeSet<IpNet>,
    is_replacing: bool,
) -> io::Result<()> {
    let socket = sockets.join(format!("{interface}.sock"));
    match uapi::set(&socket, peer, allowed, is_replacing).await {
        // As in `read`: the kernel's own tunnel has no socket, or one that a process left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            netlink::set(interface, peer, allowed, is_replacing).await
        }
        written => written,
    }
}
