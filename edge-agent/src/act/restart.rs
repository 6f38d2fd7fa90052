//! Restart: a tunnel whose interface or process is gone is started again, by `wg-quick@IF.service`. Never one that is only silent:
//! that is the far end's, or the way's. Off unless `[[act.restart]]` names its site.
//!
//! ```text
//! machine  there or gone, and the time -> what to do (p)
//! unit     systemd's word on it, and its restart
//! ```

mod machine;
mod unit;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use charliehub_proto::{expected::Expected, finding::Status};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use self::machine::{Action, MOST, Machine, Seen};
use super::{
    Board, crash_at,
    deed::Deed,
    right::{self, Alone, Obstacle},
    run_dir::{Hold, RunDir},
};
use crate::{
    clock::Now,
    config::{self, Config, Mode},
    rounds::Shared,
    sample::Sample,
    wireguard::{
        facts::{Device, Link, NoDevice, Unseen},
        netlink, read,
    },
};

pub(super) const RESTART: &str = "restart";

/// What was started is there within so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the tunnels of all named sites until `stop`.
pub async fn run(config: Arc<Config>, shared: Arc<Shared>, board: Arc<Board>, stop: CancellationToken) {
    let mut ticks = interval(config.timing.wireguard);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let run_dir = RunDir::new(&config.act.run_dir);
    let alone = Alone::with(&run_dir, RESTART);
    let mut keeper = Keeper { config, shared, board, run_dir, alone, kept: BTreeMap::new() };
    loop {
        tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => return }
        keeper.turn().await;
    }
}

struct Keeper {
    config: Arc<Config>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    run_dir: RunDir,
    alone: Alone,
    kept: BTreeMap<String, Kept>,
}

/// What is known of an interface.
#[derive(Default)]
struct Kept {
    machine: Machine,
    last: Option<Deed>,
    /// It was started too often, and the file that says so could not be written.
    is_hold_unwritten: bool,
}

/// An interface, as it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    site: String,
    mode: Mode,
    after: Duration,
}

impl Keeper {
    async fn turn(&mut self) {
        let now = self.shared.clock.now();
        let (wanted, absent) = wanted(&self.config.act.restart, &self.shared.expected.load());
        self.board.say(RESTART, absent);
        for (name, _) in self.kept.extract_if(.., |name, _| !wanted.contains_key(name)) {
            self.board.say(&who(&name), Vec::new());
        }
        for (name, wanted) in wanted {
            let there = look(&self.config, &name).await;
            let sample = self.keep(&name, &wanted, there, now).await;
            self.board.say(&who(&name), vec![sample.site(wanted.site)]);
        }
    }

    async fn keep(&mut self, name: &str, wanted: &Wanted, there: Result<(), Lack>, now: Now) -> Sample {
        let what = format!("{RESTART}-{name}");
        if wanted.mode == Mode::Act
            && let Err(obstacle) = self.alone.is_so()
        {
            return obstacle.sample(RESTART, name);
        }
        let kept = match self.kept.entry(name.to_owned()) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => {
                let starts: Vec<Duration> = self.run_dir.remembered(&what).unwrap_or_default();
                place.insert(Kept { machine: Machine::after(starts), ..Kept::default() })
            }
        };
        let mut hold = self.run_dir.hold(&what, &wanted.site);
        let seen = match &there {
            Ok(()) => Seen::There,
            Err(Lack::Gone(_)) => Seen::Gone,
            Err(Lack::Unclear(_)) => Seen::Unclear,
        };
        let is_held = hold.is_some() || kept.is_hold_unwritten;
        let (machine, action) = std::mem::take(&mut kept.machine).on(seen, is_held, wanted.after, now.boot);
        kept.machine = machine;
        let is_dry = wanted.mode != Mode::Act;
        match (action, &there) {
            (Action::Hold, _) => {
                let why =
                    format!("{name} was started {MOST} times within a day; remove this file when it can be relied on");
                tracing::error!(interface = name, why, is_dry, "its restart is held");
                if !is_dry {
                    kept.is_hold_unwritten = !self.run_dir.write_held(&what, &why);
                    hold = self.run_dir.hold(&what, &wanted.site);
                }
            }
            (Action::Start, Err(Lack::Gone(why))) => {
                let unit = unit::of(name);
                if let Err(obstacle) = unit::may_restart(&unit).await {
                    return obstacle.sample(RESTART, name);
                }
                let intent = format!("{why}: {unit} is restarted");
                tracing::warn!(interface = name, intent, is_dry, "a restart begins");
                let sample =
                    Sample::warning(RESTART, name, &*intent).remedy("wait: it says what came of it within a minute");
                self.board.say(&who(name), vec![sample.site(&*wanted.site).confirmed_by(1)]);
                kept.machine.started(now.boot);
                let result = if is_dry {
                    Ok("nothing was changed".to_owned())
                } else {
                    let starts: Vec<Duration> = kept.machine.starts().collect();
                    start(&self.run_dir, &what, &starts, &unit, name, &self.config).await
                };
                match &result {
                    Ok(seen) => tracing::warn!(interface = name, seen, is_dry, "a restart is done"),
                    Err(why) => tracing::error!(interface = name, why, is_dry, "a restart is not done"),
                }
                kept.last = Some(Deed::of(now, intent, result, is_dry));
            }
            (Action::Start | Action::Nothing, _) => {}
        }
        told(&Look { name, there: &there, hold: hold.as_ref(), kept, is_dry, now: now.boot })
    }
}

fn who(interface: &str) -> String {
    format!("{RESTART} {interface}")
}

/// Noted first, so that who dies in the middle knows that it was done.
async fn start(
    run_dir: &RunDir,
    what: &str,
    starts: &[Duration],
    unit: &str,
    name: &str,
    config: &Config,
) -> Result<String, String> {
    run_dir.remember(what, &starts).map_err(|error| format!("it cannot be noted, so it is not begun: {error}"))?;
    crash_at("restart-noted");
    unit::restart(unit).await?;
    crash_at("restart-done");
    let began = Instant::now();
    loop {
        match look(config, name).await {
            Ok(()) => return Ok(format!("{name} is there again")),
            Err(lack) if began.elapsed() > PATIENCE => return Err(format!("{unit} was restarted, and {}", lack.why())),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The interfaces of the named sites, and what there is to say of sites that are not expected here. One that several sites
/// share is acted on where one of them lets us.
fn wanted(settings: &[config::Restart], expected: &Expected) -> (BTreeMap<String, Wanted>, Vec<Sample>) {
    let (mut wanted, mut samples) = (BTreeMap::new(), Vec::new());
    for one in settings.iter().filter(|one| one.mode != Mode::Off) {
        let site = match right::site(expected, &one.site, RESTART) {
            Ok(site) => site,
            Err(obstacle) => {
                samples.push(obstacle.sample(RESTART, &*one.site).site(&*one.site));
                continue;
            }
        };
        for tunnel in &site.tunnels {
            let new = Wanted { site: site.name.clone(), mode: one.mode, after: one.after };
            match wanted.entry(tunnel.interface.clone()) {
                Entry::Vacant(place) => drop(place.insert(new)),
                Entry::Occupied(mut old) if old.get().mode != Mode::Act => drop(old.insert(new)),
                Entry::Occupied(_) => {}
            }
        }
    }
    (wanted, samples)
}

/// What is missing of a tunnel.
#[derive(Clone, Debug)]
enum Lack {
    Gone(String),
    Unclear(Obstacle),
}

impl Lack {
    fn why(&self) -> &str {
        match self {
            Self::Gone(why) => why,
            Self::Unclear(obstacle) => &obstacle.text,
        }
    }
}

async fn look(config: &Config, name: &str) -> Result<(), Lack> {
    let links = netlink::links().await.map_err(|error| {
        Unseen::new(format!("interfaces cannot be listed: {error}"), "let the agent have AF_NETLINK sockets")
    });
    let link = links.map(|mut links| links.remove(name));
    let kind = link.as_ref().ok().and_then(Option::as_ref).map(|link| link.kind.as_str());
    let device = read::device(&config.wireguard.sockets, name, kind, false).await;
    is_there(name, &link, &device)
}

fn is_there(name: &str, link: &Result<Option<Link>, Unseen>, device: &Result<Device, NoDevice>) -> Result<(), Lack> {
    match (link, device) {
        (Ok(Some(_)), Ok(_)) => Ok(()),
        (Ok(None), _) => Err(Lack::Gone(format!("{name} is absent"))),
        (Ok(Some(_)), Err(NoDevice::Refused)) => Err(Lack::Gone(format!("the process behind {name} is gone"))),
        (Err(Unseen { why, remedy }), _) | (_, Err(NoDevice::Unseen(Unseen { why, remedy }))) => {
            Err(Lack::Unclear(Obstacle::unknown(why, remedy)))
        }
        (Ok(Some(_)), Err(NoDevice::Absent)) => Err(Lack::Unclear(Obstacle::unknown(
            format!("{name} is no tunnel that can be asked"),
            "see wg-interface: it says what it is, or where the agent looks for its socket",
        ))),
    }
}

struct Look<'a> {
    name: &'a str,
    there: &'a Result<(), Lack>,
    hold: Option<&'a Hold>,
    kept: &'a Kept,
    is_dry: bool,
    now: Duration,
}

/// The finding after a look.
fn told(look: &Look<'_>) -> Sample {
    let Look { name, there, hold, kept, is_dry, now } = *look;
    let dry = if is_dry { " (dry-run: nothing is done)" } else { "" };
    let starts = kept.machine.starts().count();
    let sample = |status, text: String| Sample::new(RESTART, name, status, format!("{text}{dry}"));
    let made = match (there, hold) {
        (Err(Lack::Unclear(obstacle)), _) => obstacle.clone().sample(RESTART, name),
        (_, Some(Hold { file, is_ours })) => {
            let (status, is) = match there {
                Ok(()) => (Status::Warning, "is there, and would stay away"),
                Err(_) => (Status::Critical, "is gone, and stays so"),
            };
            let why = if *is_ours { format!(" after {MOST} starts within a day") } else { String::new() };
            sample(status, format!("held{why}: {name} {is}"))
                .remedy(format!("when it can be relied on: rm {}", file.display()))
        }
        (Err(Lack::Gone(why)), None) => match kept.machine.rest(now) {
            Some(rest) => sample(
                Status::Critical,
                format!("{why}; it was started lately, and is again after {} min", rest.as_secs().div_ceil(60)),
            )
            .remedy(format!("journalctl -u {}", unit::of(name))),
            None => sample(Status::Warning, format!("{why}; it is started unless it comes back")).remedy("wait"),
        },
        (Ok(()), None) if starts > 0 => {
            sample(Status::Ok, format!("{name} is there; it was started {starts} of {MOST} times within a day"))
        }
        (Ok(()), None) => sample(Status::Ok, format!("{name} is there")),
    };
    made.confirmed_by(1).did(kept.last.as_ref().map(|deed| deed.action.clone()))
}
