//! Re-resolve: a site that the hub calls by a name is called at the name's new address, when the old one is silent. The kernel and
//! wireguard-go ask for a name once, when a tunnel is made. Off unless `[[act.re_resolve]]` names the site.
//!
//! ```text
//! decide   age of the handshake, the endpoint, what the name says now -> what to do (p)
//! ```

mod decide;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use charliehub_proto::{
    expected::Expected,
    finding::Status,
    site::{Site, Tunnel},
};
use futures_util::future::join_all;
use tokio::{
    net::lookup_host,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Seen, decide};
use super::{
    Board, crash_at,
    deed::Deed,
    right::{self, Alone, Obstacle, may_set_networks},
    run_dir::RunDir,
};
use crate::{
    clock::Now,
    config::{self, Config, Mode},
    rounds::Shared,
    sample::Sample,
    wireguard::{
        facts::{Key, NoDevice, Peer, Unseen},
        read,
        write::{self, Change, Order},
    },
};

pub(super) const RE_RESOLVE: &str = "re-resolve";

/// A name server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watches the tunnels of all named sites until `stop`.
pub async fn run(config: Arc<Config>, shared: Arc<Shared>, board: Arc<Board>, stop: CancellationToken) {
    let mut ticks = interval(config.timing.wireguard);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let run_dir = RunDir::new(&config.act.run_dir);
    let alone = Alone::with(&run_dir, RE_RESOLVE);
    let mut caller = Caller { config, shared, run_dir, alone, called: BTreeMap::new() };
    loop {
        tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => return }
        let samples = caller.turn().await;
        board.say(RE_RESOLVE, samples);
    }
}

struct Caller {
    config: Arc<Config>,
    shared: Arc<Shared>,
    run_dir: RunDir,
    alone: Alone,
    called: BTreeMap<Target, Called>,
}

/// A peer, by its interface and key.
type Target = (String, Key);

/// What is known of a peer that is called by a name.
#[derive(Clone, Debug)]
struct Called {
    /// Watched since then.
    since: Duration,
    last: Option<Deed>,
}

/// A peer that is called by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    site: String,
    /// As findings call it.
    target: String,
    /// `fr.example.org:51820`.
    endpoint: String,
    mode: Mode,
    after: Duration,
}

impl Caller {
    async fn turn(&mut self) -> Vec<Sample> {
        let now = self.shared.clock.now();
        let (wanted, mut samples) = wanted(&self.config.act.re_resolve, &self.shared.expected.load());
        self.called.retain(|target, _| wanted.contains_key(target));
        let may = if wanted.values().any(|one| one.mode == Mode::Act) {
            may_set_networks().and_then(|()| self.alone.is_so())
        } else {
            Ok(())
        };
        let this = &*self;
        let turns = join_all(wanted.into_iter().map(async |(target, wanted)| {
            let called = this.called.get(&target).cloned().unwrap_or(Called { since: now.boot, last: None });
            let may = if wanted.mode == Mode::Act { may.clone() } else { Ok(()) };
            let (called, sample) = match may {
                Ok(()) => this.call(&target, &wanted, called, now).await,
                Err(obstacle) => (called, obstacle.sample(RE_RESOLVE, &*wanted.target)),
            };
            (target, called, sample.site(wanted.site).confirmed_by(1))
        }));
        for (target, called, sample) in turns.await {
            self.called.insert(target, called);
            samples.push(sample);
        }
        samples
    }

    async fn call(&self, target: &Target, wanted: &Wanted, mut called: Called, now: Now) -> (Called, Sample) {
        let name = &*wanted.target;
        let peer = match self.peer(target).await {
            Ok(peer) => peer,
            Err(obstacle) => return (called, obstacle.sample(RE_RESOLVE, name)),
        };
        let is_dry = wanted.mode != Mode::Act;
        if let Some(hold) = self.run_dir.hold(RE_RESOLVE, &wanted.site) {
            let remedy = format!("when it may go on: rm {}", hold.file.display());
            let text = format!("held: {name} is not called elsewhere");
            return (called, Sample::warning(RE_RESOLVE, name, text).remedy(remedy));
        }
        let hour = now.hour();
        let seen = Seen {
            // While the hour cannot be believed the age cannot either, and nothing is done.
            age: now
                .is_trusted
                .then(|| peer.handshake.map_or(now.boot.saturating_sub(called.since), |at| hour.saturating_sub(at))),
            endpoint: peer.endpoint,
            changed: called.last.as_ref().map(|last| now.boot.saturating_sub(last.boot)),
        };
        let decision = decide(&seen, wanted.after, || resolve(&wanted.endpoint)).await;
        if let Decision::Call(endpoint) = decision {
            let old = peer.endpoint.map_or_else(|| "nowhere".to_owned(), |old| old.to_string());
            let what =
                format!("{name} is called at {endpoint} in place of {old}: its name {} leads there", wanted.endpoint);
            tracing::warn!(target = name, what, is_dry, "a re-resolve begins");
            let result =
                if is_dry { Ok("nothing was changed".to_owned()) } else { self.set(target, &peer, endpoint).await };
            match &result {
                Ok(seen) => tracing::warn!(target = name, seen, is_dry, "a re-resolve is done"),
                Err(why) => tracing::error!(target = name, why, is_dry, "a re-resolve is not done"),
            }
            called.last = Some(Deed::of(now, what, result, is_dry));
        }
        let sample = told(wanted, &decision, called.last.as_ref(), is_dry);
        (called, sample)
    }

    async fn peer(&self, (interface, key): &Target) -> Result<Peer, Obstacle> {
        let absent = |what: String| Obstacle::unknown(what, "mend that first: see wg-interface and wg-peer");
        match read::named(&self.config.wireguard.sockets, interface, false).await {
            Ok(device) => device
                .peers
                .into_iter()
                .find(|peer| peer.key == *key)
                .ok_or_else(|| absent(format!("{interface} has not the peer"))),
            Err(NoDevice::Unseen(Unseen { why, remedy })) => Err(Obstacle::unknown(why, remedy)),
            Err(NoDevice::Absent | NoDevice::Refused) => Err(absent(format!("{interface} is absent"))),
        }
    }

    /// What was seen of it.
    async fn set(&self, target: &Target, before: &Peer, endpoint: SocketAddr) -> Result<String, String> {
        let (interface, key) = target;
        let order = Order::Change(*key, vec![Change::Endpoint(endpoint)]);
        write::device(&self.config.wireguard.sockets, interface, &[order]).await.map_err(|error| error.to_string())?;
        crash_at("re-resolved");
        let after = self.peer(target).await.map_err(|obstacle| obstacle.text)?;
        match after.endpoint {
            Some(now) if now == endpoint => Ok("it was read back".to_owned()),
            // Whoever is heard is answered where that came from, as WireGuard has it.
            Some(now) if after.received > before.received => Ok(format!("the site was heard from {now} just then")),
            Some(_) | None => Err(format!("{interface} has another endpoint than was set")),
        }
    }
}

/// All addresses that host and port have, of a host that is named.
pub(super) async fn resolve(endpoint: &str) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(PATIENCE, lookup_host(endpoint)).await;
    Ok(found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.collect())
}

/// The peers of the named sites that are called by a name, and what there is to say of sites without one.
fn wanted(settings: &[config::ReResolve], expected: &Expected) -> (BTreeMap<Target, Wanted>, Vec<Sample>) {
    let (mut wanted, mut samples) = (BTreeMap::new(), Vec::new());
    for one in settings.iter().filter(|one| one.mode != Mode::Off) {
        match right::site(expected, &one.site, "re_resolve").and_then(|site| called(one, site)) {
            Ok(peers) if peers.is_empty() => {
                let text = format!("site {} is called by no name, so it has no new address to be called at", one.site);
                samples.push(Sample::ok(RE_RESOLVE, &*one.site, text).site(&*one.site));
            }
            Ok(peers) => wanted.extend(peers),
            Err(obstacle) => samples.push(obstacle.sample(RE_RESOLVE, &*one.site).site(&*one.site)),
        }
    }
    (wanted, samples)
}

fn called(settings: &config::ReResolve, site: &Site) -> Result<Vec<(Target, Wanted)>, Obstacle> {
    let named: Vec<(&Tunnel, &String)> = site
        .tunnels
        .iter()
        .filter_map(|tunnel| Some((tunnel, tunnel.endpoint.as_ref().filter(|to| is_named(to))?)))
        .collect();
    let interfaces: BTreeSet<&String> = named.iter().map(|(tunnel, _)| &tunnel.interface).collect();
    named
        .iter()
        .map(|(tunnel, endpoint)| {
            let key = Key::read(&tunnel.public_key);
            let key = key.ok_or_else(|| {
                Obstacle::unknown(
                    format!("the public key of site {} on {} is none", site.name, tunnel.interface),
                    "give the tunnel the site's `public_key`, as `wg show` writes it",
                )
            })?;
            let is_one = interfaces.len() == named.len();
            let target = if is_one { tunnel.interface.clone() } else { format!("{} {key}", tunnel.interface) };
            let wanted = Wanted {
                site: site.name.clone(),
                target,
                endpoint: (*endpoint).clone(),
                mode: settings.mode,
                after: settings.after,
            };
            Ok(((tunnel.interface.clone(), key), wanted))
        })
        .collect()
}

/// By a name and not by an address, which never is another one.
fn is_named(endpoint: &str) -> bool {
    endpoint.parse::<SocketAddr>().is_err()
}

/// The finding after a look.
fn told(wanted: &Wanted, decision: &Decision, last: Option<&Deed>, is_dry: bool) -> Sample {
    let Wanted { target, endpoint, .. } = wanted;
    let dry = if is_dry { " (dry-run: nothing is done)" } else { "" };
    let sample = |status, text: String| Sample::new(RE_RESOLVE, &**target, status, format!("{text}{dry}"));
    let made = match (decision, last.and_then(Deed::failure)) {
        (_, Some(why)) if *decision != Decision::Fresh => {
            sample(Status::Critical, format!("{target} could not be called at the new address of {endpoint}: {why}"))
                .remedy(format!("wg set {} peer KEY endpoint {endpoint}", target.split(' ').next().unwrap_or_default()))
        }
        (Decision::Fresh, _) => sample(Status::Ok, format!("{target} answers where {endpoint} led to")),
        (Decision::Same, _) => {
            sample(Status::Ok, format!("{target} is silent, and {endpoint} leads nowhere else: see wg-handshake"))
        }
        (Decision::Unresolved(why), _) => {
            sample(Status::Warning, format!("{target} is silent, and {endpoint} cannot be resolved: {why}"))
                .remedy(format!("getent ahosts {}", endpoint.rsplit_once(':').map_or(&**endpoint, |(host, _)| host)))
        }
        (Decision::Blind, _) => {
            sample(Status::Unknown, format!("whether {target} is silent cannot be said: the clock was set"))
                .remedy("wait until the clock is calm")
        }
        (Decision::Call(_) | Decision::Wait, _) => sample(
            Status::Warning,
            format!("{target} is called at the new address of {endpoint}, and does not answer yet"),
        )
        .remedy("wait; then see that the name leads to the site, and wg-handshake"),
    };
    made.did(last.map(|deed| deed.action.clone()))
}
