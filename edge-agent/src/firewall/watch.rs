//! Tells at once that rules or saved files changed, so that nobody waits for the next look.
//!
//! The kernel tells of every change to nft's rules, by a netlink group that needs CAP_NET_ADMIN; of the legacy iptables it
//! tells nothing. Folders are watched by inotify. Without either, there is still the interval.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    fs::inotify,
    net::{AddressFamily, SocketFlags, SocketType, bind, netlink, socket_with},
};
use tokio::net::unix::pipe::Receiver;

/// `NFNLGRP_NFTABLES` is group 7 (linux/netfilter/nfnetlink.h).
const NFT_CHANGES: u32 = 1 << (7 - 1);

#[derive(Debug)]
pub(crate) struct Watch {
    // Neither is a pipe: tokio's reader of pipes is the one that takes any descriptor that can be waited for.
    rules: Option<Receiver>,
    files: Option<Receiver>,
    folders: Vec<PathBuf>,
}

impl Watch {
    /// Within a runtime.
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        let rules = changes_of_rules().and_then(Receiver::from_owned_fd_unchecked);
        if let Err(e) = &rules {
            tracing::info!(error = %e, "changes of firewall rules are seen at the next look only");
        }
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let files = inotify::init(flags).map_err(io::Error::from).and_then(Receiver::from_owned_fd_unchecked);
        Self { rules: rules.ok(), files: files.ok(), folders }
    }

    /// Watches the folders that are there by now.
    pub(crate) fn renew(&self) {
        use inotify::WatchFlags as On;
        let Some(files) = &self.files else { return };
        let changes = On::CLOSE_WRITE | On::MOVED_TO | On::MOVED_FROM | On::CREATE | On::DELETE | On::ONLYDIR;
        for folder in &self.folders {
            inotify::add_watch(files, folder.as_path(), changes).ok(); // not there: next time
        }
    }

    /// Returns when something changed.
    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = drained(self.rules.as_ref()) => {}
            () = drained(self.files.as_ref()) => {}
        }
    }
}

fn changes_of_rules() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, NFT_CHANGES))?;
    Ok(socket)
}

/// Waits for something to read, and takes all there is: what it says does not matter, also not that some was lost.
async fn drained(from: Option<&Receiver>) {
    let Some(from) = from else { return std::future::pending().await };
    if from.readable().await.is_err() {
        return std::future::pending().await;
    }
    let mut taken = [0; 1 << 13];
    for _ in 0..1_000 {
        match from.try_read(&mut taken) {
            Ok(0) => break,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_wakes() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(vec![dir.path().to_owned(), dir.path().join("absent")]);
        watch.renew();
        let quiet = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(quiet.is_err() || watch.rules.is_some(), "nothing changed");
        std::fs::write(dir.path().join("new"), "*raw\n").unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("rules.v4")).unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap();
    }
}
