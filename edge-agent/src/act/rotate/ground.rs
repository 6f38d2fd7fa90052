//! What a rotation stands on: where things are noted, who is talked to, and the tunnel as it is.

use std::{sync::Arc, time::Duration};

use charliehub_proto::expected::Expected;
use tokio::time::{Instant, sleep};

use super::{super::run_dir::RunDir, talk::Talk};
use crate::{
    config::Config,
    provider::Provider,
    wireguard::{
        facts::{Device, Key, NoDevice, Peer, Unseen},
        probe::{self, Outcome, Probe},
        read,
        write::{self, Order},
    },
};

/// A probe without an answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Ground {
    pub config: Arc<Config>,
    pub talk: Option<Talk>,
    /// What outlasts a reboot.
    pub notes: RunDir,
    /// Holds and locks.
    pub run_dir: RunDir,
}

impl Ground {
    pub(super) fn of(config: Arc<Config>) -> Result<Self, crate::provider::Error> {
        let talk = match &config.provider {
            Some(settings) => Some(Talk { provider: Provider::new(settings)?, agent: config.name.clone() }),
            None => None,
        };
        let (notes, run_dir) = (RunDir::new(&config.state_dir), RunDir::new(&config.act.run_dir));
        Ok(Self { config, talk, notes, run_dir })
    }

    /// None: there is no such interface now.
    pub(super) async fn device(&self, interface: &str) -> Result<Option<Device>, String> {
        match read::named(&self.config.wireguard.sockets, interface, true).await {
            Ok(device) => Ok(Some(device)),
            Err(NoDevice::Absent | NoDevice::Refused) => Ok(None),
            Err(NoDevice::Unseen(Unseen { why, remedy })) => Err(format!("{why}; {remedy}")),
        }
    }

    pub(super) async fn peer(&self, interface: &str, key: Key) -> Result<Option<Peer>, String> {
        let device = self.device(interface).await?;
        Ok(device.and_then(|device| device.peers.into_iter().find(|peer| peer.key == key)))
    }

    pub(super) async fn write(&self, interface: &str, orders: &[Order<'_>]) -> Result<(), String> {
        let written = write::device(&self.config.wireguard.sockets, interface, orders).await;
        written.map_err(|error| format!("{interface} cannot be changed: {error}"))
    }

    /// Whether the far end answers through this tunnel, whatever the routes say.
    pub(super) async fn answers(&self, interface: &str, end: std::net::IpAddr) -> Result<bool, String> {
        let probe = Probe { address: end, interface: Some(interface.to_owned()), port: None, size: None };
        match probe::send(&probe, PATIENCE).await {
            Outcome::Answered(_) => Ok(true),
            Outcome::Lost(_) => Ok(false),
            Outcome::NoMeans => Err(format!("no means to ask whether the tunnel answers; {}", probe::MEANS)),
        }
    }

    /// As soon as one of its probes is answered, until then.
    pub(super) async fn answers_by(&self, interface: &str, end: std::net::IpAddr, by: Instant) -> Result<bool, String> {
        loop {
            if self.answers(interface, end).await? {
                return Ok(true);
            }
            if Instant::now() >= by {
                return Ok(false);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The tunnel of our sites by which a peer of this key is reached, and where its far end is.
pub(super) fn tunnel_of(expected: &Expected, key: &str) -> Option<(String, charliehub_proto::site::Tunnel)> {
    let ours = expected.sites.iter().filter(|site| site.agent == expected.agent);
    let mut tunnels = ours.flat_map(|site| site.tunnels.iter().map(|tunnel| (site.name.clone(), tunnel.clone())));
    tunnels.find(|(_, tunnel)| tunnel.public_key == key)
}
