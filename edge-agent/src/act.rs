//! What the agent does to its host, where its settings let it: nothing unless they do. What it does is logged and told before and
//! after, read back, undone when a step fails, and stopped by a file of the operator's.
//!
//! Each actor runs beside the checks and says on the [`Board`] how it is; the group [`Acting`] makes findings of that.

mod deed;
pub mod failover;
pub mod peers;
pub mod re_resolve;
pub mod restart;
pub(crate) mod right;
pub(crate) mod rotate;
mod run_dir;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use charliehub_proto::expected::Expected;
use metrics::gauge;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::Notify;

use crate::{
    catalogue::Check,
    clock::{self, Now},
    look::Look,
    metrics::LAST_ACTION,
    sample::Sample,
};

pub const CHECKS: &[Check] = &[
    Check {
        name: failover::FAILOVER,
        what: "a site's networks go by their own tunnel, or have moved to the one that stands by",
        why: "Where [[act.failover]] names the site. Warning: they go by the other tunnel, are about to, or a file or a route that \
          somebody made keeps us from it. Critical: neither tunnel answers, a move failed, or they moved three times within an \
          hour and the next move is an operator's. Unknown: it could not act, and the remedy says what lets it. `hold` in the \
          run directory stops all of it; `ip route show proto 235` is what it did.",
    },
    Check {
        name: restart::RESTART,
        what: "a tunnel whose interface or process is gone is started again",
        why: "Where [[act.restart]] names the site, by restarting wg-quick@IF.service. Warning: it is about to, the unit is one \
              that somebody stopped, or `hold` keeps us from it. Critical: it was started lately and is gone again, or three times \
              within a day, and the next start is an operator's. Unknown: it could not act. A tunnel that is only silent is never \
              restarted.",
    },
    Check {
        name: re_resolve::RE_RESOLVE,
        what: "a site that is called by a name is called where the name leads to now",
        why: "Where [[act.re_resolve]] names the site. WireGuard asks for a name once, when a tunnel is made; when the last handshake \
              is older than 155 s the name is asked for again. Warning: it is called at a new address and does not answer yet, or the \
              name cannot be resolved. Critical: the new address could not be set.",
    },
    Check {
        name: rotate::ROTATE,
        what: "a rotation of a tunnel's key is at its end, with one key at both ends",
        why: "Where [[act.rotate]] names the site. `rotate-keys SITE` begins one; the agent of the other end follows. Warning: it goes \
              on. Critical: it was left in the middle and cannot be ended; until it is, both ends try what works.",
    },
];

/// What the actors say of themselves.
#[derive(Debug, Default)]
pub struct Board {
    said: Mutex<BTreeMap<String, Said>>,
    news: Notify,
}

#[derive(Clone, Debug)]
struct Said {
    samples: Vec<Sample>,
    at: Duration,
}

/// Who said nothing for so long stands still.
const STILL: Duration = Duration::from_mins(1);

impl Board {
    /// Replaces all that `who` said before.
    pub fn say(&self, who: &str, samples: Vec<Sample>) {
        let mut said = self.lock();
        let is_news = said.get(who).is_none_or(|last| last.samples != samples);
        said.insert(who.to_owned(), Said { samples, at: clock::boot() });
        drop(said);
        if is_news {
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group that tells of the actors.
#[derive(Debug)]
pub struct Acting(pub Arc<Board>);

impl Look for Acting {
    const NAME: &'static str = "act";

    async fn look(&mut self, _: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let said: Vec<Said> = self.0.lock().values().cloned().collect();
        let told = |said: Said| {
            let is_still = now.boot.saturating_sub(said.at) >= STILL;
            said.samples.into_iter().map(move |sample| if is_still { still(&sample) } else { sample })
        };
        let samples: Vec<Sample> = said.into_iter().flat_map(told).collect();
        for sample in &samples {
            let Some(action) = &sample.action else { continue };
            let labels = [
                ("check", sample.check.to_owned()),
                ("target", sample.target.clone()),
                ("outcome", action.outcome.as_str().to_owned()),
            ];
            gauge!(LAST_ACTION, &labels).set(action.at.as_duration().as_secs_f64());
        }
        samples
    }

    async fn wake(&mut self) {
        self.0.news.notified().await;
    }
}

fn still(last: &Sample) -> Sample {
    Sample::unknown(last.check, &last.target, format!("it stands still since it said: {}", last.text))
        .remedy("systemctl restart charliehub-edge-agent; what it did is found again")
        .confirmed_by(1)
}

/// Where a test has us die, to see what a start makes of it; in no build that is shipped.
fn crash_at(step: &str) {
    if cfg!(debug_assertions) && std::env::var_os("CHARLIEHUB_CRASH_AT").is_some_and(|at| at == step) {
        kill_process(getpid(), Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn what_is_said_is_found_until_nothing_is_said_any_more() {
        let board = Arc::new(Board::default());
        board.say("fr", vec![Sample::warning("failover", "wg-fr->wg-uk", "it moves")]);
        let mut group = Acting(board);
        group.wake().await;
        let now = |late| Now { boot: clock::boot() + late, wall: Timestamp::now(), is_trusted: true };
        let fresh = group.look(&Arc::default(), now(Duration::ZERO)).await;
        let late = group.look(&Arc::default(), now(STILL)).await;
        assert_eq!((fresh[0].status, late[0].status), (Status::Warning, Status::Unknown));
    }
}
