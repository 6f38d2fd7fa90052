//! Peers: an interface is brought to what the rows of sites and of the VPN's clients say, by the fewest orders: who is right is
//! not touched. At once with each new expectation, so that who is revoked is out within a second, and every few seconds in case
//! somebody else changed something. Off unless `[[act.peers]]` names the interface.
//!
//! ```text
//! rows      what the rows say of one interface (p)
//! managers  who must not be cut off
//! plan      rows x what is there x managers -> steps, their orders, and what takes them back (p)
//! told      a plan as people read it (p)
//! often     what is taken back by somebody each time (p)
//! hands     looks; writes, reads back
//! ```

pub(crate) mod hands;
pub(crate) mod managers;
mod often;
pub(crate) mod plan;
pub(crate) mod rows;
pub(crate) mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use charliehub_proto::finding::Status;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    hands::{Failed, carry_out, count},
    often::{MOST, Made},
    plan::{Plan, plan},
    rows::Rows,
    told::list,
};
use super::{
    Board, crash_at,
    deed::Deed,
    re_resolve,
    right::{Alone, Obstacle, may_set_networks},
    rotate,
    run_dir::{Hold, RunDir},
};
use crate::{
    clock::Now,
    config::{self, Config, Mode},
    provider::look_up,
    rounds::Shared,
    sample::Sample,
    wireguard::facts::{Device, Peer},
};

pub(super) const VPN_PEERS: &str = "vpn-peers";

/// It is looked at that often, or more.
const OFTEN: Duration = Duration::from_secs(10);

/// A name server that takes longer does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions for a name that was not found.
const AGAIN: Duration = Duration::from_secs(5);

/// What a name led to is true for so long.
const TRUE_FOR: Duration = Duration::from_mins(1);

/// The provider's address is waited for so long.
const SOON: Duration = Duration::from_secs(1);

/// No session is older.
const OVER: Duration = Duration::from_secs(185);

/// Keeps all named interfaces until `stop`.
pub async fn run(config: Arc<Config>, shared: Arc<Shared>, board: Arc<Board>, stop: CancellationToken) {
    let mut ticks = interval(config.timing.wireguard.min(OFTEN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let run_dir = RunDir::new(&config.act.run_dir);
    let alone = Alone::with(&run_dir, VPN_PEERS);
    let mut expects = shared.expects.subscribe();
    let mut keeper = Keeper { config, shared, board, run_dir, alone, names: Names::default(), kept: BTreeMap::new() };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = expects.changed() => {}
            Some(Ok((name, found))) = keeper.names.asked.join_next() => keeper.names.learn(name, found),
            () = stop.cancelled() => return,
        }
        keeper.turn().await;
    }
}

struct Keeper {
    config: Arc<Config>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    run_dir: RunDir,
    alone: Alone,
    names: Names,
    kept: BTreeMap<String, Kept>,
}

/// What is known of an interface.
#[derive(Default)]
struct Kept {
    made: Made,
    last: Option<Deed>,
    /// We held it, by a file, when we looked last.
    was_held: bool,
    /// It is held, and the file that says so could not be written.
    is_hold_unwritten: bool,
    /// What was told last of a dry run or of a failure, which is told once.
    told: Option<String>,
}

/// Names that peers are called by. Nobody waits for them.
#[derive(Default)]
struct Names {
    asked: JoinSet<(String, io::Result<SocketAddr>)>,
    since: BTreeMap<String, Duration>,
    found: BTreeMap<String, SocketAddr>,
    lost: BTreeMap<String, String>,
}

impl Names {
    fn ask(&mut self, wanted: &BTreeSet<String>, now: Duration) {
        self.found.retain(|name, _| self.since.get(name).is_some_and(|since| now.saturating_sub(*since) < TRUE_FOR));
        for name in wanted.iter().filter(|name| !self.found.contains_key(*name)) {
            let is_soon = self.since.get(name).is_some_and(|since| now.saturating_sub(*since) < AGAIN);
            if !is_soon {
                self.since.insert(name.clone(), now);
                let name = name.clone();
                self.asked.spawn(async move {
                    let found = resolve(&name).await;
                    (name, found)
                });
            }
        }
    }

    fn learn(&mut self, name: String, found: io::Result<SocketAddr>) {
        match found {
            Ok(found) => {
                self.lost.remove(&name);
                self.found.insert(name, found);
            }
            Err(error) => drop(self.lost.insert(name, error.to_string())),
        }
    }
}

/// The first address that host and port have.
pub(crate) async fn resolve(endpoint: &str) -> io::Result<SocketAddr> {
    let found = re_resolve::resolve(endpoint).await?;
    found.first().copied().ok_or_else(|| io::Error::other("it has no address"))
}

/// A peer whose session is over. While the hour cannot be believed none is.
pub(crate) fn is_silent(peer: &Peer, now: Now) -> bool {
    now.is_trusted && peer.handshake.is_none_or(|at| now.hour().saturating_sub(at) > OVER)
}

/// One look at an interface.
struct Look<'a> {
    name: &'a str,
    rows: &'a Rows,
    device: &'a Device,
    plan: &'a Plan,
    /// Names that were not found, and why.
    lost: Vec<(&'a String, &'a String)>,
    is_dry: bool,
}

impl Keeper {
    async fn turn(&mut self) {
        let now = self.shared.clock.now();
        let config = self.config.clone();
        for settings in config.act.peers.iter().filter(|one| one.mode != Mode::Off) {
            let sample = match self.keep(settings, now).await {
                Ok(sample) => sample,
                Err(obstacle) => obstacle.sample(VPN_PEERS, &*settings.interface),
            };
            self.board.say(&format!("{VPN_PEERS} {}", settings.interface), vec![sample.confirmed_by(1)]);
        }
    }

    async fn keep(&mut self, settings: &config::Peers, now: Now) -> Result<Sample, Obstacle> {
        let name = &*settings.interface;
        let is_dry = settings.mode != Mode::Act;
        if !is_dry {
            may_set_networks().and_then(|()| self.alone.is_so())?;
        }
        rotate::is_over(&self.config, name)?;
        let expected = self.shared.expected.load_full();
        let mut rows = rows::of(&expected, self.config.provider.is_some(), name)?;
        let sockets = self.config.wireguard.sockets.clone();
        let device = hands::look(&sockets, name).await?;
        let names: BTreeSet<String> = rows.wanted_names(&device).into_iter().cloned().collect();
        self.names.ask(&names, now.boot);
        rows.resolve(&self.names.found);
        let planned =
            |device: &Device, managers: &[_]| plan(&rows.wants, device, managers, |peer| is_silent(peer, now));
        let mut managers = Vec::new();
        let mut steps = planned(&device, &managers);
        if !steps.steps.is_empty() {
            managers = managers::managers(&self.config.act, &self.provider().await).await?;
            steps = planned(&device, &managers);
        }
        let lost = names.iter().filter_map(|name| Some((name, self.names.lost.get(name)?))).collect();
        let look = Look { name, rows: &rows, device: &device, plan: &steps, lost, is_dry };
        let what = format!("{VPN_PEERS}-{name}");
        let kept = self.kept.entry(name.to_owned()).or_insert_with(|| {
            let made = self.run_dir.remembered(&what).unwrap_or_default();
            Kept { made, ..Kept::default() }
        });
        let hold = hold(&self.run_dir, &what, name, &rows);
        let is_ours = hold.as_ref().is_some_and(|hold| hold.is_ours);
        if kept.was_held && !is_ours {
            // An operator let go: it is counted anew.
            kept.made = Made::default();
        }
        kept.was_held = is_ours;
        if hold.is_some() || kept.is_hold_unwritten {
            return Ok(held(&look, hold.as_ref(), kept));
        }
        if rows.would_empty(&device) {
            return Ok(emptied(&look).did(kept.last.as_ref().map(|deed| deed.action.clone())));
        }
        if steps.steps.is_empty() {
            kept.told = None;
            return Ok(calm(&look).did(kept.last.as_ref().map(|deed| deed.action.clone())));
        }
        let brief = steps.brief();
        let intent = format!("{name}: {brief}");
        if is_dry {
            if kept.told.as_ref() != Some(&intent) {
                tracing::warn!(interface = name, diff = brief, "its peers would be changed: dry-run");
                kept.last = Some(Deed::of(now, intent.clone(), Ok("nothing was changed".to_owned()), true));
                kept.told = Some(intent);
            }
            return Ok(differs(&look, &brief).did(kept.last.as_ref().map(|deed| deed.action.clone())));
        }
        if let Some(often) = kept.made.too_often(&steps, now.boot) {
            let why = format!(
                "{often} {MOST} times within ten minutes, and somebody takes it back; find who, and remove this file"
            );
            tracing::error!(interface = name, why, "its peers are held");
            kept.was_held = self.run_dir.write_held(&what, &why);
            kept.is_hold_unwritten = !kept.was_held;
            return Ok(held(&look, self::hold(&self.run_dir, &what, name, &rows).as_ref(), kept));
        }
        let is_news = kept.told.as_ref() != Some(&intent);
        if is_news {
            tracing::warn!(interface = name, diff = brief, "its peers change");
        }
        let before = kept.made.clone();
        kept.made.add(&steps, now.boot);
        self.run_dir.remember(&what, &kept.made).map_err(|error| {
            Obstacle::warning(
                format!("what is done cannot be noted, so it is not begun: {error}"),
                "give the agent its run directory: the drop-in acting.conf beside its manual",
            )
        })?;
        crash_at("peers-noted");
        let done = carry_out(&sockets, name, &steps, |device| planned(device, &managers)).await;
        if done.as_ref().is_err_and(|failed| !failed.is_written) {
            // It was not made: nobody took it back.
            kept.made = before;
        }
        let result = done.map_err(|Failed { why, .. }| why);
        match &result {
            Ok(seen) => {
                tracing::warn!(interface = name, seen, "its peers are changed");
                kept.told = None;
            }
            Err(why) => {
                if is_news {
                    tracing::error!(interface = name, why, "its peers are not changed");
                }
                kept.told = Some(intent.clone());
            }
        }
        let sample = match &result {
            Ok(_) => calm(&look),
            Err(why) => Sample::critical(VPN_PEERS, name, format!("its peers could not be changed: {why}"))
                .observed(brief)
                .remedy(format!("it is tried again; by hand: charliehub-edge-agent apply {name}")),
        };
        let deed = Deed::of(now, intent, result, false);
        let sample = sample.did(Some(deed.action.clone()));
        kept.last = Some(deed);
        Ok(sample)
    }

    /// Where the provider is: where it was connected to, else where its name leads to.
    async fn provider(&self) -> Vec<IpAddr> {
        match (self.shared.provider.load_full(), &self.config.provider) {
            (Some(address), _) => vec![*address],
            (None, Some(settings)) => look_up(&settings.url, SOON).await,
            (None, None) => Vec::new(),
        }
    }
}

/// An operator's file for all, for the interface or one of its sites; or ours.
fn hold(run_dir: &RunDir, what: &str, interface: &str, rows: &Rows) -> Option<Hold> {
    run_dir.hold(what, interface).or_else(|| rows.sites.iter().find_map(|site| run_dir.hold(what, site)))
}

/// The operator's file that stops this, for a command.
pub(crate) fn held_by_operator(settings: &config::Act, interface: &str, rows: &Rows) -> Option<String> {
    let run_dir = RunDir::new(&settings.run_dir);
    // `held-...` is what this command may mend.
    let all = [interface].into_iter().chain(rows.sites.iter().map(String::as_str));
    let mut files = all.filter_map(|one| run_dir.hold("", one)).filter(|hold| !hold.is_ours);
    files.next().map(|hold| hold.file.display().to_string())
}

/// The finding of an interface that nothing is to be done about, or nothing more.
fn calm(look: &Look<'_>) -> Sample {
    let Look { name, rows, plan, lost, .. } = look;
    let (mut texts, mut remedies) = (Vec::new(), Vec::new());
    if !plan.guarded.is_empty() {
        texts.extend(plan.guarded.iter().cloned());
        remedies.push(format!("when there is another way in: charliehub-edge-agent apply {name} --force"));
    }
    if !plan.disputed.is_empty() {
        texts.push(format!("the rows give {} to several peers", list(&plan.disputed)));
        remedies.push("give each network to one row".to_owned());
    }
    for (endpoint, why) in lost {
        texts.push(format!("{endpoint} cannot be resolved: {why}"));
        let host = endpoint.rsplit_once(':').map_or(&***endpoint, |(host, _)| host);
        remedies.push(format!("getent ahosts {host}"));
    }
    if texts.is_empty() {
        let text = format!("{name} has the peers that its rows name: {}", count(rows.wants.len()));
        return sample(look, Status::Ok, &text);
    }
    sample(look, Status::Warning, &texts.join("; ")).remedy(remedies.join(" && "))
}

/// The finding where a dry run would do something.
fn differs(look: &Look<'_>, brief: &str) -> Sample {
    let text = format!("{} of {} differ from the rows: {brief}", count(look.plan.steps.len()), look.name);
    let remedy = format!("charliehub-edge-agent apply {}; or mode = \"act\"", look.name);
    let guarded: Vec<&str> = look.plan.guarded.iter().map(String::as_str).collect();
    let text = if guarded.is_empty() { text } else { format!("{text}; {}", guarded.join("; ")) };
    sample(look, Status::Warning, &text).remedy(remedy)
}

/// The finding where all peers would go at once.
fn emptied(look: &Look<'_>) -> Sample {
    let there = count(look.device.peers.len());
    let text = format!("{} has {there} and no row: so many do not go at once by themselves", look.name);
    let remedy = format!(
        "bring the rows back; or, when nobody is to be let in: charliehub-edge-agent apply {} --force",
        look.name
    );
    sample(look, Status::Warning, &text).remedy(remedy)
}

/// The finding while a file keeps us from it.
fn held(look: &Look<'_>, hold: Option<&Hold>, kept: &Kept) -> Sample {
    let is_ours = hold.is_none_or(|hold| hold.is_ours);
    let why =
        if is_ours { format!(" after a change that was made {MOST} times and taken back") } else { String::new() };
    let is = match look.plan.steps.as_slice() {
        [] => "is as the rows say, and would not be kept so".to_owned(),
        _ => format!("stays as it is: {}", look.plan.brief()),
    };
    let status = if is_ours && !look.plan.steps.is_empty() { Status::Critical } else { Status::Warning };
    let remedy = hold.map_or_else(
        || "systemctl restart charliehub-edge-agent".to_owned(),
        |hold| format!("when it may go on: rm {}", hold.file.display()),
    );
    let text = format!("held{why}: {} {is}", look.name);
    sample(look, status, &text).remedy(remedy).did(kept.last.as_ref().map(|deed| deed.action.clone()))
}

fn sample(look: &Look<'_>, status: Status, text: &str) -> Sample {
    let dry = if look.is_dry { " (dry-run: nothing is done)" } else { "" };
    let sample = Sample::new(VPN_PEERS, look.name, status, format!("{text}{dry}")).source(look.device.source.clone());
    let mut sites = look.rows.sites.iter();
    match (sites.next(), sites.next()) {
        (Some(site), None) => sample.site(site),
        _ => sample,
    }
}
