//! Moves a site's networks, step by step: each is read back, and all are undone in reverse when one fails.
//!
//! ```text
//! over  remember what the fallback's peer lacks; allow it; route it; a host of the site answers by it
//! home  take our routes away; take what was added from the peer; forget
//! ```
//!
//! Killed between two steps, a start finds what was remembered and goes home. What is allowed is added, so that no allowed IP
//! of the peer is ever missing in between.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr, path::Path, time::Duration};

use ipnet::IpNet;
use tokio::time::timeout;

use super::{
    super::crash_at,
    files::{Files, Memory},
    kernel::{self, Kernel, METRIC, PROTOCOL},
    machine::Place,
    pair::{End, Pair},
};
use crate::{
    firewall::run,
    wireguard::{
        netlink,
        probe::{self, Outcome, Probe},
        read,
        routes::{self, Route},
        write::{self, Change, Order},
    },
};

/// So many probes of the site's hosts, of which [`ENOUGH`] must be answered.
const PROBES: usize = 5;
const ENOUGH: usize = 3;

/// What tells the kernel's tracked connections may take so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is needed to move one site.
#[derive(Debug)]
pub(super) struct Hands<'a> {
    pub pair: &'a Pair,
    pub sockets: &'a Path,
    pub files: &'a Files,
    /// A probe without an answer for so long is lost.
    pub patience: Duration,
}

impl Hands<'_> {
    /// To the fallback. What was seen of it, or why it was undone.
    pub(super) async fn over(&self) -> Result<String, String> {
        let Err(why) = self.forth().await else { return Ok(self.arrived(&self.pair.fallback).await) };
        match self.home().await {
            Ok(()) => Err(format!("{why}; undone")),
            Err(again) => Err(format!("{why}; and not undone: {again}")),
        }
    }

    /// To the primary, where the site's hosts must answer too.
    pub(super) async fn back(&self) -> Result<String, String> {
        self.home().await?;
        let Err(why) = self.prove(&self.pair.primary).await else { return Ok(self.arrived(&self.pair.primary).await) };
        match self.forth().await {
            Ok(()) => Err(format!("{why}; undone")),
            Err(again) => Err(format!("{why}; and not undone: {again}")),
        }
    }

    /// Takes back all that we did, or began to.
    pub(super) async fn home(&self) -> Result<(), String> {
        let Pair { networks, fallback, .. } = self.pair;
        let kernel = self.look().await?;
        for route in &kernel.ours {
            routes::remove(route).await.map_err(|error| failed("take our route away", &error))?;
        }
        crash_at("unrouted");
        let memory = self.files.remembered();
        let added = memory.map_or_else(|| networks - &fallback.allowed, |memory| memory.added);
        if let Some(allowed) = kernel.allowed.filter(|allowed| !allowed.is_disjoint(&added)) {
            self.allow(&(&allowed - &added), true).await?;
        }
        let kernel = self.look().await?;
        let has_left = kernel.allowed.is_none_or(|allowed| allowed.is_disjoint(&added));
        if !kernel.ours.is_empty() || !has_left {
            return Err(format!("{} keeps what it was given: somebody gives it again", fallback.interface));
        }
        crash_at("disallowed");
        self.files.forget().map_err(|error| failed("forget the move", &error))
    }

    async fn forth(&self) -> Result<(), String> {
        let Pair { networks, fallback, .. } = self.pair;
        let kernel = self.look().await?;
        let (Some(interface), Some(before)) = (kernel.fallback, kernel.allowed) else {
            return Err(format!("{} or its peer is absent", fallback.interface));
        };
        let added: BTreeSet<IpNet> = networks - &before;
        let memory = Memory { networks: networks.clone(), added: added.clone() };
        self.files.remember(&memory).map_err(|error| failed("write down that the move begins", &error))?;
        crash_at("remembered");
        self.allow(&added, false).await?;
        let kernel = self.look().await?;
        if kernel.allowed != Some(&before | networks) {
            return Err(format!("the allowed IPs of {} are not what was set", fallback.interface));
        }
        crash_at("allowed");
        for network in networks {
            let route = Route { network: *network, interface, metric: METRIC, protocol: PROTOCOL };
            if !kernel.ours.contains(&route) {
                routes::add(&route).await.map_err(|error| failed("add our route", &error))?;
            }
        }
        crash_at("routed");
        self.is_routed(interface).await?;
        crash_at("checked");
        self.prove(fallback).await
    }

    /// All of it leaves by the fallback, whatever other routes and rules there are.
    async fn is_routed(&self, interface: u32) -> Result<(), String> {
        if self.look().await?.place != Place::Fallback {
            return Err("our route is not there".to_owned());
        }
        for network in &self.pair.networks {
            let host = read::somebody(network);
            let way = netlink::route(host).await.map_err(|error| failed("ask for the way", &error))?;
            if way != Some(interface) {
                return Err(format!("packets to {host} do not leave by {}", self.pair.fallback.interface));
            }
        }
        Ok(())
    }

    async fn allow(&self, allowed: &BTreeSet<IpNet>, is_replacing: bool) -> Result<(), String> {
        let End { interface, key, .. } = &self.pair.fallback;
        let change = Change::AllowedIps { networks: allowed, is_replacing };
        let set = write::device(self.sockets, interface, &[Order::Change(*key, vec![change])]).await;
        set.map_err(|error| failed("set the allowed IPs", &error))
    }

    /// Each network that has hosts is reached by this tunnel.
    async fn prove(&self, end: &End) -> Result<(), String> {
        for network in &self.pair.networks {
            let hosts = self.pair.hosts.iter().filter(|host| network.contains(*host));
            self.prove_by(end, hosts).await?;
        }
        Ok(())
    }

    /// Three of five probes of these hosts are answered by this tunnel; where there are none, nothing is to be proven.
    async fn prove_by(&self, end: &End, hosts: impl Iterator<Item = &IpAddr> + Clone) -> Result<(), String> {
        let (mut answered, mut lost) = (0, 0);
        for host in hosts.cycle().take(PROBES) {
            let probe = Probe { address: *host, interface: Some(end.interface.clone()), port: None, size: None };
            match probe::send(&probe, self.patience).await {
                Outcome::Answered(_) => answered += 1,
                Outcome::Lost(_) | Outcome::NoMeans => lost += 1,
            }
            if answered == ENOUGH {
                return Ok(());
            }
            if lost > PROBES - ENOUGH {
                break;
            }
        }
        if answered + lost == 0 {
            return Ok(());
        }
        Err(format!("no host of the site answers by {} ({answered} of {} probes)", end.interface, answered + lost))
    }

    async fn look(&self) -> Result<Kernel, String> {
        let kernel = kernel::read(self.pair, self.sockets, self.files.remembered().as_ref()).await;
        kernel.map_err(|obstacle| obstacle.text)
    }

    /// What a move says of itself. Connections that the kernel tracks keep the way and the address they began with: they are
    /// made to begin anew, where there is a program for it.
    async fn arrived(&self, end: &End) -> String {
        let proof = format!("{ENOUGH} probes of the site's hosts were answered by {}", end.interface);
        let Some(program) = run::find("conntrack") else {
            return format!(
                "{proof}; masqueraded connections from before may hang: there is no `conntrack` to end them"
            );
        };
        for network in &self.pair.networks {
            let network = network.to_string();
            // It fails where there was none to end.
            drop(timeout(PATIENCE, run::run(&program, &["-D", "-d", &network], b"")).await);
        }
        format!("{proof}; tracked connections begin anew")
    }
}

fn failed(what: &str, error: &dyn Display) -> String {
    format!("cannot {what}: {error}")
}
