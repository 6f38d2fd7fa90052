//! Rotation of a tunnel's key: `rotate-keys SITE` exchanges the key of this end, and the agent of the other end follows. Both go back
//! to the old key by themselves when the new one does not prove itself. Off unless `[[act.rotate]]` names the site.
//!
//! ```text
//! plan     what must hold before it is begun
//! own      the end whose key it is: makes it, sets it, proves it, decides
//! follow   the other end: exchanges the peer, and goes by what it hears and by what works
//! machine  how it goes by that (p)
//! by_hand  the other end, where no agent is
//! conf     the file that a boot reads: the one place where private keys are kept
//! talk     what both say to each other, through the provider: public keys and how far they are
//! ground   the tunnel, as it is read, written and probed
//! ```
//!
//! The command does it in its own process. The agent follows, and ends what a process that died left in the middle.

mod by_hand;
mod conf;
mod follow;
mod ground;
mod machine;
mod own;
mod plan;
mod talk;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use charliehub_proto::{
    expected::Expected,
    finding::{Action, Outcome},
    rotation::{Phase, Rotation},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::plan::{Looked, Plan};
use self::{
    by_hand::prompt,
    follow::Follow,
    ground::{Ground, tunnel_of},
    own::Own,
    talk::Talk,
};
use super::{
    Board,
    deed::Deed,
    right::{self, Obstacle, may_set_networks},
};
use crate::{
    config::{self, Config, Mode},
    provider::Pause,
    rounds::Shared,
    sample::Sample,
};

pub(super) const ROTATE: &str = "key-rotation";

/// One rotation on a host at a time, by whichever process.
const LOCK: &str = "rotate";

/// Between two looks for what a process that died left.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for what was left, and follows, until `stop`.
pub(crate) async fn run(config: Arc<Config>, shared: Arc<Shared>, board: Arc<Board>, stop: CancellationToken) {
    let ground = match Ground::of(config.clone()) {
        Ok(ground) => ground,
        Err(error) => return tracing::error!(%error, "keys are not rotated"),
    };
    let Some(talk) = ground.talk.clone() else {
        let remedy = "both ends tell each other through it: name it in [provider]";
        let obstacle = Obstacle::unknown("no key can be rotated without a provider", remedy);
        let sample = obstacle.sample(ROTATE, "provider");
        let mut ticks = interval(LOOK);
        loop {
            tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => return }
            board.say(ROTATE, vec![sample.clone()]);
        }
    };
    let keeper = Keeper { ground, talk, config, shared, board, said: Mutex::default() };
    tokio::select! {
        ((), ()) = async { tokio::join!(keeper.mind(), keeper.follow()) } => {}
        () = stop.cancelled() => {}
    }
}

struct Keeper {
    ground: Ground,
    talk: Talk,
    config: Arc<Config>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    /// By target: an interface, for our own key, and `IF peer`.
    said: Mutex<BTreeMap<String, Sample>>,
}

impl Keeper {
    /// Ends what was begun here and is nobody's any more.
    async fn mind(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended: BTreeMap<String, Deed> = BTreeMap::new();
        loop {
            ticks.tick().await;
            for (site, interface) in self.interfaces() {
                let sample = self.look(&interface, &mut ended).await;
                self.put(&interface, Some(sample.site(site)));
            }
            self.say_all();
            let follow = Follow { ground: &self.ground, talk: &self.talk };
            if let Err(why) = follow.settle(&self.shared.expected.load()) {
                tracing::warn!(why, "what a rotation left is not removed yet");
            }
        }
    }

    /// Of the sites that are named.
    fn interfaces(&self) -> Vec<(String, String)> {
        let expected = self.shared.expected.load();
        let named = self.config.act.rotate.iter().filter(|one| one.mode != Mode::Off);
        let interface = |one: &config::Rotate| {
            let site = right::site(&expected, &one.site, LOCK).ok()?;
            let best = site.tunnels.iter().min_by_key(|tunnel| tunnel.rank)?;
            Some((site.name.clone(), best.interface.clone()))
        };
        named.filter_map(interface).collect()
    }

    async fn look(&self, interface: &str, ended: &mut BTreeMap<String, Deed>) -> Sample {
        let sample = match own::note(&self.ground.notes, interface) {
            None => self.at_rest(interface, ended.get(interface)),
            Some(note) => match self.ground.run_dir.lock(LOCK) {
                Ok(Some(_held)) => {
                    ended.insert(interface.to_owned(), self.resume(interface).await);
                    self.at_rest(interface, ended.get(interface))
                }
                Ok(None) => {
                    let text = format!("the key of {interface} is being exchanged: {:?}", note.step);
                    Sample::warning(ROTATE, interface, text).remedy("wait: it is over within a minute")
                }
                Err(error) => {
                    let dir = self.ground.run_dir.path().display();
                    let left = format!("a rotation of {interface} was left in the middle");
                    Sample::critical(ROTATE, interface, format!("{left}, and {dir} cannot be written: {error}"))
                        .remedy("give the agent its directories: the drop-in rotating.conf beside its manual")
                }
            },
        };
        let rotated = own::rotated(&self.ground.notes, interface).map(|last| Action {
            at: last.at,
            what: format!("the key of {interface} is exchanged: {} for {}", last.new, last.old),
            outcome: Outcome::Done,
            result: "it was proven, and the rows have it".to_owned(),
        });
        let ended = ended.get(interface).map(|deed| deed.action.clone());
        sample.did(ended.into_iter().chain(rotated).max_by_key(|action| action.at))
    }

    /// Ends what a process that died left.
    async fn resume(&self, interface: &str) -> Deed {
        let now = self.shared.clock.now();
        let own = Own { ground: &self.ground, talk: &self.talk, interface, told: &|_| {} };
        tracing::warn!(interface, "a rotation was left in the middle: it is ended");
        let what = format!("the rotation of {interface} that was left in the middle is ended");
        let result = own.resume().await.unwrap_or_else(|| Ok("there was nothing left of it".to_owned()));
        match &result {
            Ok(seen) => tracing::warn!(interface, seen, "a rotation is ended"),
            Err(why) => tracing::error!(interface, why, "a rotation is not ended"),
        }
        Deed::of(now, what, result, false)
    }

    fn at_rest(&self, interface: &str, last: Option<&Deed>) -> Sample {
        if let Some(why) = last.and_then(Deed::failure) {
            let text = format!("the key of {interface} is in the middle of a rotation: {why}");
            return Sample::critical(ROTATE, interface, text).remedy("mend that: it is tried again each second");
        }
        match own::rotated(&self.ground.notes, interface) {
            Some(last) => {
                Sample::ok(ROTATE, interface, format!("the key of {interface} was exchanged last at {}", last.at))
            }
            None => Sample::ok(ROTATE, interface, format!("the key of {interface} was not exchanged yet")),
        }
    }

    /// Follows what other ends offer, one after the other.
    async fn follow(&self) {
        let (mut pause, mut refused) = (Pause::default(), None);
        loop {
            let is_well = match self.left() {
                Some(note) => self.follow_on(note).await,
                None => self.next(&mut refused).await,
            };
            if is_well {
                pause = Pause::default();
            } else {
                sleep(pause.longer()).await;
            }
        }
    }

    /// Goes on where an agent before us began. False: it could not.
    async fn follow_on(&self, note: follow::Note) -> bool {
        let (site, interface) = (note.site.clone(), note.interface.clone());
        tracing::warn!(interface, "a rotation was left in the middle: it is followed on");
        let what = format!("the peer of {interface} follows the rotation of {}", note.agent);
        self.say(&site, &interface, &what);
        let result = Follow { ground: &self.ground, talk: &self.talk }.decide(note).await;
        let is_well = result.is_ok();
        self.told(&site, &interface, what, result);
        is_well
    }

    /// Waits for the next offer, and takes it. False: nobody told us of any. `refused`: the last one that was not taken.
    async fn next(&self, refused: &mut Option<Uuid>) -> bool {
        let rotations = match self.talk.offered().await {
            Ok(rotations) => rotations,
            Err(error) => {
                tracing::debug!(%error, "what is offered to us is not known");
                return false;
            }
        };
        // One that is further was left by an agent that knew less than its note, or is of a restored backup.
        let is_new = |one: &&Rotation| one.phase <= Phase::Ready && *refused != Some(one.id);
        let Some(rotation) = rotations.iter().find(is_new) else {
            // Where there is none the question was held.
            if !rotations.is_empty() {
                sleep(LOOK).await;
            }
            return true;
        };
        if let Err(why) = self.take(rotation).await {
            tracing::warn!(agent = rotation.agent, site = rotation.site, why, "a rotation is not followed");
            if let Err(error) = self.talk.undone(rotation.id, &why).await {
                tracing::debug!(%error, "the other end is not told");
            }
            *refused = Some(rotation.id);
        }
        true
    }

    /// Follows a rotation; or says why not, with nothing changed.
    async fn take(&self, rotation: &Rotation) -> Result<(), String> {
        let expected = self.shared.expected.load_full();
        let (site, tunnel) = tunnel_of(&expected, &rotation.old_key)
            .ok_or_else(|| format!("no site here has a tunnel to {}", rotation.old_key))?;
        let named = self.config.act.rotate.iter().find(|one| one.site == site && one.mode != Mode::Off);
        let settings = named.ok_or_else(|| format!("no [[act.rotate]] names site {site}"))?;
        let follow = Follow { ground: &self.ground, talk: &self.talk };
        let note = follow.ready(rotation, site, tunnel).await?;
        if settings.mode != Mode::Act {
            let what = format!("the peer of {} would follow the rotation of {}", note.interface, rotation.agent);
            let now = self.shared.clock.now();
            let deed = Deed::of(now, what.clone(), Ok("nothing was changed".to_owned()), true);
            let target = who(&note.interface);
            let sample = Sample::ok(ROTATE, &*target, format!("{what} (dry-run: nothing is done)"));
            self.put(&target, Some(sample.did(Some(deed.action)).site(note.site)));
            return Err("it is a dry run here: `mode = \"act\"` in [[act.rotate]] lets it follow".to_owned());
        }
        may_set_networks().map_err(|obstacle| obstacle.to_string())?;
        if let Some(hold) = self.ground.run_dir.hold(LOCK, &note.site) {
            return Err(format!("held: when it may go on, rm {}", hold.file.display()));
        }
        let lock = self.ground.run_dir.lock(LOCK);
        let Some(_held) = lock.map_err(|error| format!("the run directory cannot be written: {error}"))? else {
            return Err("another rotation goes on here".to_owned());
        };
        let (site, interface) = (note.site.clone(), note.interface.clone());
        let what = format!("the peer of {interface} follows the rotation of {}", rotation.agent);
        tracing::warn!(interface, what, "a rotation begins");
        self.say(&site, &interface, &what);
        let is_to_be_done = follow.wait(&note).await;
        if is_to_be_done == Ok(true) {
            let result = follow.go(note).await;
            self.told(&site, &interface, what, result);
            return Ok(());
        }
        self.put(&who(&interface), None);
        is_to_be_done.map(drop)
    }

    /// What an agent before us began to follow.
    fn left(&self) -> Option<follow::Note> {
        follow::notes(&self.ground.notes).into_iter().find(|note| !note.is_decided)
    }

    fn say(&self, site: &str, interface: &str, what: &str) {
        let sample = Sample::warning(ROTATE, who(interface), what).remedy("wait: it is over within a minute or two");
        self.put(&who(interface), Some(sample.site(site)));
    }

    fn told(&self, site: &str, interface: &str, what: String, result: Result<String, String>) {
        match &result {
            Ok(seen) => tracing::warn!(interface, what, seen, "a rotation is done"),
            Err(why) => tracing::error!(interface, what, why, "a rotation is not done"),
        }
        let deed = Deed::of(self.shared.clock.now(), what, result, false);
        let sample = match deed.failure() {
            Some(why) => {
                let text = format!("the peer of {interface} is in the middle of a rotation: {why}");
                Sample::critical(ROTATE, who(interface), text).remedy("mend that: it is tried again")
            }
            None => Sample::ok(ROTATE, who(interface), deed.action.result.clone()),
        };
        self.put(&who(interface), Some(sample.did(Some(deed.action.clone())).site(site)));
    }

    /// Says something else of a target, or nothing any more.
    fn put(&self, target: &str, sample: Option<Sample>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match sample {
            Some(sample) => drop(said.insert(target.to_owned(), sample.confirmed_by(1))),
            None => drop(said.remove(target)),
        }
        drop(said);
        self.say_all();
    }

    /// Who says nothing for a minute stands still.
    fn say_all(&self) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.board.say(ROTATE, said.values().cloned().collect());
    }
}

/// What is said of the peer, beside what is said of our own key.
fn who(interface: &str) -> String {
    format!("{interface} peer")
}

/// What is in the way of exchanging the key of the tunnel to a site, and what is not.
pub(crate) async fn plan(
    config: &Arc<Config>,
    expected: &Expected,
    site: &str,
) -> anyhow::Result<(Option<Plan>, Vec<Looked>)> {
    let ground = Ground::of(config.clone())?;
    let named = config.act.rotate.iter().find(|one| one.site == site && one.mode != Mode::Off).cloned();
    let settings = named.unwrap_or_else(|| config::Rotate { site: site.to_owned(), mode: Mode::Off, only_way: false });
    let (plan, mut looked) = plan::plan(&ground, expected, &settings).await;
    looked.push(match settings.mode {
        Mode::Off => Err(format!("no [[act.rotate]] names site {site}; name it there, with `mode = \"act\"`")),
        Mode::DryRun => Err(format!("[[act.rotate]] of site {site} says `mode = \"dry-run\"`; `act` lets it be done")),
        Mode::Act => Ok(format!("[[act.rotate]] of site {site} lets it be done")),
    });
    looked.push(match &ground.talk {
        Some(_) => Ok("there is a provider, through which both ends tell each other".to_owned()),
        None => Err("there is no provider; name it in [provider]: both ends tell each other through it".to_owned()),
    });
    Ok((plan, looked))
}

/// Exchanges it: what was seen, or why the old key stays.
pub(crate) async fn rotate(
    config: &Arc<Config>,
    plan: &Plan,
    told: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Result<String, String>> {
    let ground = Ground::of(config.clone())?;
    let talk = ground.talk.clone().ok_or_else(|| anyhow::anyhow!("there is no provider"))?;
    let lock = ground.run_dir.lock(LOCK)?;
    let Some(_held) = lock else {
        return Ok(Err("another rotation goes on here; one at a time".to_owned()));
    };
    let own = Own { ground: &ground, talk: &talk, interface: &plan.interface, told };
    Ok(own.rotate(plan, async |new| prompt(plan, new, told).await).await)
}

/// Until a rotation of this interface is at its end, and the rows know it, nobody else changes its peers.
pub(crate) fn is_over(config: &Config, interface: &str) -> Result<(), Obstacle> {
    let names = [own::name(interface), follow::name(interface)];
    if names.iter().any(|name| config.state_dir.join(format!("{name}.json")).exists()) {
        let text = format!("a key of {interface} is being exchanged: its peers stay as they are");
        return Err(Obstacle::warning(text, "wait until it is over, and the rows have it: see key-rotation"));
    }
    Ok(())
}
