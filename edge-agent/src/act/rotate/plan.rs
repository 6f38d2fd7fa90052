//! Whether the key of this end of a site's tunnel can be exchanged now: all that must hold, each looked at, so that an operator
//! reads at once what is in the way.

use std::{net::IpAddr, time::Duration};

use charliehub_proto::{expected::Expected, site::Tunnel};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::right::{self, may_set_networks},
    conf::Conf,
    ground::Ground,
    own,
};
use crate::{
    clock::Clock,
    config,
    wireguard::{facts::Key, netlink},
};

/// A session that is in use is renewed after 120 s.
const FRESH: Duration = Duration::from_secs(155);

/// Of one tunnel, two rotations are so far apart.
const APART: Duration = Duration::from_mins(10);

/// The far end answers within so long.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub site: String,
    pub interface: String,
    /// Of this end, as it is.
    pub old: Key,
    /// Of the far end.
    pub peer: Key,
    /// The far end inside the tunnel, and ours.
    pub end: IpAddr,
    pub own_address: Option<IpAddr>,
}

/// What was looked at: it holds, or it is in the way, and what to do.
pub(crate) type Looked = Result<String, String>;

/// None: there is nothing that could be planned for.
pub(super) async fn plan(
    ground: &Ground,
    expected: &Expected,
    settings: &config::Rotate,
) -> (Option<Plan>, Vec<Looked>) {
    let mut looked = Vec::new();
    let plan = match look(ground, expected, settings, &mut looked).await {
        Ok(plan) => Some(plan),
        Err(why) => {
            looked.push(Err(why));
            None
        }
    };
    (plan, looked)
}

async fn look(
    ground: &Ground,
    expected: &Expected,
    settings: &config::Rotate,
    looked: &mut Vec<Looked>,
) -> Result<Plan, String> {
    let site = right::site(expected, &settings.site, "rotate");
    let site = site.map_err(|obstacle| obstacle.to_string())?;
    let mut tunnels: Vec<&Tunnel> = site.tunnels.iter().collect();
    tunnels.sort_by_key(|tunnel| tunnel.rank);
    let (tunnel, others) =
        tunnels.split_first().ok_or_else(|| format!("site {} has no tunnel; give its row one", settings.site))?;
    let interface = &tunnel.interface;
    let (peer, end) = right::far_end(tunnel, &site.name).map_err(|obstacle| obstacle.to_string())?;
    let device = ground.device(interface).await?;
    let device = device.ok_or_else(|| format!("{interface} is absent; wg-quick up {interface}"))?;
    let old = device.own_key.ok_or_else(|| format!("{interface} has no private key; see `wg show {interface}`"))?;
    let [seen] = device.peers.as_slice() else {
        return Err(format!(
            "{interface} has {} peers, and its key is the same to all; give the site an interface of its own",
            device.peers.len()
        ));
    };
    if seen.key != peer {
        return Err(format!(
            "{interface} has peer {}, and its row says {peer}; mend that first: see wg-peer",
            seen.key
        ));
    }
    let answers = ground.answers_by(interface, end, Instant::now() + PATIENCE).await?;
    looked.push(match &tunnel.own_public_key {
        Some(own) if *own == old.to_string() => Ok(format!("the row of site {} has the key", site.name)),
        Some(own) => Err(format!("the row of site {} says {own}; mend that first: see wg-interface", site.name)),
        None => Err(format!(
            "the row of site {} does not say which key is ours; give the tunnel `own_public_key`: {old}",
            site.name
        )),
    });
    let hour = Clock::default().now().hour();
    // Of an idle tunnel the probe may have made it.
    let handshake = ground.peer(interface, peer).await?.and_then(|peer| peer.handshake);
    let age = handshake.map(|at| hour.saturating_sub(at));
    looked.push(match age.filter(|age| answers && *age < FRESH) {
        Some(age) => Ok(format!("{interface} works: {end} answers, and the last handshake is {} s old", age.as_secs())),
        None => Err(format!("{interface} does not work: {end} does not answer; see wg-reachable and wg-handshake")),
    });
    looked.push(conf(ground, interface, old));
    looked.push(alone(ground, &site.name, interface));
    looked.push(match other_way(ground, others).await? {
        Some(way) => Ok(format!("if all fails, {way} leads to the site")),
        None if settings.only_way => Ok("no other way leads to the site, and `only_way` has it so".to_owned()),
        None => {
            Err("no other way leads to the site; give it a tunnel of rank 2 that answers, or set `only_way = true` in \
                     [[act.rotate]]: both ends go back to the old key by themselves"
                .to_owned())
        }
    });
    looked.push(match may_set_networks() {
        Ok(()) => Ok("this process may change tunnels".to_owned()),
        Err(_) => Err("this process may not change tunnels; run it as root, or with CAP_NET_ADMIN".to_owned()),
    });
    let own_address = netlink::links().await.ok().and_then(|links| {
        let addresses = &links.get(interface)?.addresses;
        addresses.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv4() == end.is_ipv4())
    });
    Ok(Plan { site: site.name.clone(), interface: interface.clone(), old, peer, end, own_address })
}

fn conf(ground: &Ground, interface: &str, old: Key) -> Looked {
    let dir = &ground.config.act.conf_dir;
    let shown = Conf::path(dir, interface);
    let shown = shown.display();
    let conf = Conf::read(dir, interface)?;
    match conf.own_key().map(|key| key.public()) {
        Some(saved) if saved == old => Ok(format!("{shown} has the key, and none but its owner reads it")),
        Some(_) => Err(format!("{shown} has another key than {interface}; wg-quick save {interface}, or restart it")),
        None => Err(format!("{shown} has no PrivateKey; write it there, where a reboot finds it")),
    }
}

/// Nothing else is being done to the tunnel, or was just now.
fn alone(ground: &Ground, site: &str, interface: &str) -> Looked {
    if let Some(hold) = ground.run_dir.hold("rotate", site) {
        return Err(format!("held: when it may go on, rm {}", hold.file.display()));
    }
    if ground.run_dir.remembered::<serde_json::Value>(&format!("failover-{site}")).is_some() {
        return Err("its networks go by the tunnel that stands by; wait until they returned".to_owned());
    }
    if own::note(&ground.notes, interface).is_some() {
        return Err(format!(
            "a rotation of {interface} is not at its end; the agent ends it within seconds, if it may act"
        ));
    }
    match own::rotated(&ground.notes, interface) {
        Some(last) if Timestamp::now().duration_since(last.at).unsigned_abs() < APART => {
            Err(format!("its key was exchanged at {}; wait until ten minutes after that", last.at))
        }
        Some(last) => Ok(format!("nothing else is done to it; its key was exchanged last at {}", last.at)),
        None => Ok("nothing else is done to it".to_owned()),
    }
}

async fn other_way(ground: &Ground, others: &[&Tunnel]) -> Result<Option<String>, String> {
    for other in others {
        let Some(end) = other.peer_address else { continue };
        if ground.answers_by(&other.interface, end, Instant::now() + PATIENCE).await? {
            return Ok(Some(other.interface.clone()));
        }
    }
    Ok(None)
}
