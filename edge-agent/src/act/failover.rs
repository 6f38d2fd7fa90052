//! Failover: when the tunnel of a site is silent, its networks move to the tunnel that stands by, and back when it has proven
//! itself again. Off unless `[[act.failover]]` names the site.
//!
//! ```text
//! pair     the site's row: by which tunnel, which stands by, who proves it (p)
//! kernel   where the networks go now: our routes, other people's (judged: p)
//! machine  this, the probes and the time -> what to do (p)
//! steps    does it, step by step, each read back
//! files    what outlasts us: a move that began, a hold
//! told     the finding (p)
//! ```
//!
//! The primary is asked at its address inside the tunnel, by its own interface: a strict rp_filter drops what the site's network
//! sends by it while our route leads elsewhere.

mod files;
mod kernel;
mod machine;
mod pair;
mod steps;
mod told;

use std::{fs, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub(super) use self::told::FAILOVER;
use self::{
    files::Files,
    kernel::Kernel,
    machine::{Action, Event, Machine, Move, Place, Rules, Seen},
    pair::{End, Pair},
    steps::Hands,
};
use super::{
    Board,
    deed::Deed,
    right::{Alone, Obstacle, may_set_networks},
    run_dir::{Hold, RunDir},
};
use crate::{
    clock::Now,
    config::{self, Config, Mode, Profile},
    rounds::Shared,
    sample::Sample,
    wireguard::probe::{self, Outcome, Probe},
};

/// A session older than this was not renewed when it should have been: 120 s, a keepalive of 25 s, and a margin.
const STALE: Duration = Duration::from_secs(155);

/// Probes lost in a row that are an outage.
const LOST: u32 = 8;

fn rules(settings: &config::Failover) -> Rules {
    let (every, confirm) = match settings.profile {
        Profile::Normal => (Duration::from_secs(1), Duration::from_secs(30)),
        Profile::Fast => (Duration::from_millis(500), Duration::from_secs(3)),
    };
    Rules { every, lost: LOST, confirm, back_after: settings.return_after, trial: settings.trial }
}

/// Watches one site until `stop`. A move that has begun is finished first.
pub async fn run(
    settings: config::Failover,
    config: Arc<Config>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    stop: CancellationToken,
) {
    let rules = rules(&settings);
    let mut ticks = interval(rules.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let files = Files::of(&config.act.run_dir, &settings.site);
    let alone = Alone::with(&RunDir::new(&config.act.run_dir), format!("failover-{}", settings.site));
    let machine = Machine::new(rules);
    let mut pilot = Pilot {
        // So that a look ends before the next one is due.
        patience: rules.every * 4 / 5,
        settings,
        config,
        shared,
        board,
        files,
        machine,
        alone,
        pretended: Place::Primary,
        is_hold_unwritten: false,
        last: None,
    };
    loop {
        tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => return }
        let sample = pilot.turn().await;
        pilot.say(sample);
    }
}

/// One site, and all that is known of it.
struct Pilot {
    patience: Duration,
    settings: config::Failover,
    config: Arc<Config>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    files: Files,
    machine: Machine,
    alone: Alone,
    /// Where the networks would be, if this were no dry-run.
    pretended: Place,
    /// It moved too often, and the file that says so could not be written.
    is_hold_unwritten: bool,
    last: Option<Deed>,
}

/// What a turn begins with.
struct View {
    pair: Pair,
    kernel: Kernel,
    seen: Seen,
    hold: Option<Hold>,
}

impl Pilot {
    /// Looks, decides, does it, and says how it stands.
    async fn turn(&mut self) -> Sample {
        let now = self.shared.clock.now();
        let mut view = match self.view(now).await {
            Ok(view) => view,
            Err((target, obstacle)) => {
                self.on(Event::Blind, now);
                return obstacle.sample(FAILOVER, target).site(&*self.settings.site);
            }
        };
        let before = self.machine.state();
        match self.on(Event::Seen(view.seen), now) {
            Action::Nothing => {}
            Action::Hold => self.hold(&mut view),
            Action::Move(which) => self.act(which, &mut view, now).await,
        }
        let after = self.machine.state();
        if std::mem::discriminant(&before) != std::mem::discriminant(&after) {
            tracing::info!(site = self.settings.site, ?before, ?after, "failover");
        }
        let strict = if view.seen.place == Place::Fallback { strict(&view.pair.primary) } else { Vec::new() };
        told::sample_of(&told::Look {
            pair: &view.pair,
            machine: &self.machine,
            kernel: &view.kernel,
            place: view.seen.place,
            hold: view.hold.as_ref(),
            is_dry: !self.acts(),
            last: self.last.as_ref(),
            strict: &strict,
        })
    }

    fn say(&self, sample: Sample) {
        self.board.say(&format!("failover {}", self.settings.site), vec![sample]);
    }

    fn acts(&self) -> bool {
        self.settings.mode == Mode::Act
    }

    fn on(&mut self, event: Event, now: Now) -> Action {
        let (machine, action) = self.machine.clone().on(event, now.boot);
        self.machine = machine;
        action
    }

    /// Probes both ends, and reads the kernel. Where it cannot: of what target, and why.
    async fn view(&mut self, now: Now) -> Result<View, (String, Obstacle)> {
        let site = &self.settings.site;
        let pair = Pair::of(&self.shared.expected.load(), site).map_err(|obstacle| (site.clone(), obstacle))?;
        self.look(pair.clone(), now).await.map_err(|obstacle| (pair.target(), obstacle))
    }

    async fn look(&mut self, pair: Pair, now: Now) -> Result<View, Obstacle> {
        if self.acts() {
            self.may_act()?;
        }
        let (primary, fallback, kernel) =
            tokio::join!(self.answers(&pair.primary), self.answers(&pair.fallback), self.kernel(&pair));
        let (primary, fallback, kernel) = (primary?, fallback?, kernel?);
        let hold = self.files.hold();
        let place = if !self.acts() && kernel.place == Place::Primary { self.pretended } else { kernel.place };
        let seen = Seen {
            primary,
            fallback: fallback && is_fresh(kernel.handshake, now),
            place,
            can_return: kernel.can_return,
            is_held: hold.is_some() || self.is_hold_unwritten,
        };
        Ok(View { pair, kernel, seen, hold })
    }

    async fn kernel(&self, pair: &Pair) -> Result<Kernel, Obstacle> {
        kernel::read(pair, &self.config.wireguard.sockets, self.files.remembered().as_ref()).await
    }

    async fn answers(&self, end: &End) -> Result<bool, Obstacle> {
        let probe = Probe { address: end.address, interface: Some(end.interface.clone()), port: None, size: None };
        match probe::send(&probe, self.patience).await {
            Outcome::Answered(_) => Ok(true),
            Outcome::Lost(_) => Ok(false),
            Outcome::NoMeans => Err(Obstacle::unknown("no means to ask whether the tunnels answer", probe::MEANS)),
        }
    }

    /// Everything that a whole move needs, so that none is begun that could not end.
    fn may_act(&mut self) -> Result<(), Obstacle> {
        may_set_networks()?;
        self.alone.is_so()
    }

    fn hold(&mut self, view: &mut View) {
        let why = format!(
            "{} moved {} times within an hour; remove this file when the tunnels can be relied on",
            view.pair.networks(),
            machine::MOST_MOVES
        );
        tracing::error!(site = self.settings.site, why, "failover is held");
        if self.acts() {
            self.is_hold_unwritten = !self.files.write_held(&why);
            view.hold = self.files.hold();
        }
    }

    async fn act(&mut self, which: Move, view: &mut View, now: Now) {
        let what = told::intent(&view.pair, which, &self.machine);
        let site = &self.settings.site;
        let is_dry = !self.acts();
        tracing::warn!(site, what, is_dry, "failover begins");
        self.say(told::moving(&view.pair, &what));
        let result = if is_dry { pretend(which) } else { self.done(which, &view.pair).await };
        match &result {
            Ok(seen) => tracing::warn!(site, what, seen, is_dry, "failover is done"),
            Err(why) => tracing::error!(site, what, why, is_dry, "failover is not done"),
        }
        self.on(Event::Done(which, result.is_ok()), now);
        if result.is_ok() && is_dry {
            self.pretended = if which == Move::Over { Place::Fallback } else { Place::Primary };
            view.seen.place = self.pretended;
        }
        if !is_dry && let Ok(kernel) = self.kernel(&view.pair).await {
            view.seen.place = kernel.place;
            view.kernel = kernel;
        }
        self.last = Some(Deed::of(now, what, result, is_dry));
    }

    async fn done(&self, which: Move, pair: &Pair) -> Result<String, String> {
        let sockets = &self.config.wireguard.sockets;
        let hands = Hands { pair, sockets, files: &self.files, patience: self.patience };
        match which {
            Move::Over => hands.over().await,
            Move::Back => hands.back().await,
            Move::Undo => hands.home().await.map(|()| "nothing of it is left".to_owned()),
        }
    }
}

fn pretend(which: Move) -> Result<String, String> {
    match which {
        Move::Over | Move::Back => Ok("nothing was changed".to_owned()),
        Move::Undo => Err("it is a dry run, so it stays".to_owned()),
    }
}

/// Where the hour cannot be believed, the probe alone decides.
fn is_fresh(handshake: Option<Duration>, now: Now) -> bool {
    !now.is_trusted || handshake.is_none_or(|at| now.hour().saturating_sub(at) < STALE)
}

/// The interface, where the kernel drops what comes by another way than it would answer.
fn strict(end: &End) -> Vec<String> {
    let filter = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let levels = ["all", &end.interface].into_iter().filter_map(|name| filter(name).ok()?.trim().parse::<u8>().ok());
    if levels.max() == Some(1) { vec![end.interface.clone()] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn an_old_session_proves_nothing_and_a_clock_that_was_set_decides_nothing() {
        let now = |is_trusted| Now { boot: Duration::ZERO, wall: Timestamp::from_second(10_000).unwrap(), is_trusted };
        for (handshake, is_trusted, fresh) in [
            (Some(9_900), true, true),
            (Some(9_845), true, false),
            (Some(10_100), true, true),
            (Some(1), false, true),
            (None, true, true),
        ] {
            assert_eq!(
                is_fresh(handshake.map(Duration::from_secs), now(is_trusted)),
                fresh,
                "{handshake:?} {is_trusted}"
            );
        }
    }
}
