//! Runs one group of checks: looks, believes, waits, and looks again.
//!
//! A look that hangs or panics is given up: its targets are unknown, the group begins anew, and no other group notices.

use std::{
    any::Any,
    collections::BTreeMap,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use charliehub_proto::{expected::Expected, report::Endpoint};
use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Clock},
    findings::Findings,
    look::Look,
    metrics,
    sample::Sample,
    steady::{Rules, Steady},
};

/// A look may take so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// After looks that failed in a row, the pause grows up to so many times the interval.
const LONGEST_PAUSE: u32 = 8;

/// What the groups share.
#[derive(Debug, Default)]
pub struct Shared {
    pub clock: Clock,
    pub findings: Findings,
    pub beats: Beats,
    /// What reality is held against; empty before the first is known.
    pub expected: ArcSwap<Expected>,
    /// Moves when that changed.
    pub expects: watch::Sender<u64>,
    /// Where the sites' packets come from.
    pub endpoints: watch::Sender<Vec<Endpoint>>,
    /// Where the provider was connected to last.
    pub provider: ArcSwapOption<IpAddr>,
}

impl Shared {
    /// From now on this is expected; every group looks at once.
    pub fn expect(&self, expected: Expected) {
        self.expected.store(Arc::new(expected));
        self.expects.send_modify(|count| *count += 1);
    }
}

/// When each group ended a look last, so that who watches us knows that they do.
#[derive(Debug, Default)]
pub struct Beats(Mutex<BTreeMap<&'static str, Beat>>);

#[derive(Clone, Copy, Debug)]
struct Beat {
    last: Duration,
    /// Without one for so long it stands still.
    allowed: Duration,
}

impl Beats {
    fn beat(&self, group: &'static str, every: Duration) {
        let allowed = PATIENCE + every * LONGEST_PAUSE;
        self.lock().insert(group, Beat { last: clock::boot(), allowed });
    }

    fn end(&self, group: &'static str) {
        self.lock().remove(group);
    }

    /// The groups that stand still, though each look has a deadline.
    pub fn still(&self) -> Vec<&'static str> {
        let now = clock::boot();
        let beats = self.lock();
        let still = beats.iter().filter(|(_, beat)| now.saturating_sub(beat.last) > beat.allowed);
        still.map(|(group, _)| *group).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Beat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a group looks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub every: Duration,
    /// While a look was worse than what is believed; also the shortest time between two looks.
    pub doubt: Duration,
    pub rules: Rules,
}

/// Runs a group until `stop`. `make` makes it, and makes it again after a look that failed.
pub async fn run<L: Look>(make: impl Fn() -> L + Send, pace: Pace, shared: Arc<Shared>, stop: CancellationToken) {
    let mut group = make();
    let mut steady = Steady::new(pace.rules, shared.findings.of(L::NAME));
    let mut expects = shared.expects.subscribe();
    let mut failures = 0;
    while !stop.is_cancelled() {
        expects.mark_unchanged();
        let began = Instant::now();
        let expected = shared.expected.load_full();
        let now = shared.clock.now();
        let looked = tokio::select! {
            looked = look(&mut group, &expected, now) => looked,
            () = stop.cancelled() => break,
        };
        metrics::looked(L::NAME, began.elapsed());
        match looked {
            Ok(samples) => {
                failures = 0;
                steady.take(samples, now);
            }
            Err(why) => {
                failures += 1;
                tracing::error!(group = L::NAME, why, "a look failed; its targets are unknown");
                steady.failed(L::NAME, &why, now);
                group = make();
            }
        }
        shared.findings.replace(L::NAME, steady.findings());
        shared.beats.beat(L::NAME, pace.every);
        let pause = match failures {
            0 if steady.is_in_doubt() => pace.doubt.min(pace.every),
            0 => pace.every,
            _ => pace.every * 2_u32.pow(failures).min(LONGEST_PAUSE),
        };
        tokio::select! {
            () = sleep_until(began + pause) => {}
            () = stop.cancelled() => break,
            () = async { tokio::select! { () = group.wake() => {}, _ = expects.changed() => {} } } => {
                // Nobody makes us look more often than a doubt would.
                tokio::select! { () = sleep_until(began + pace.doubt.min(pause)) => {}, () = stop.cancelled() => break }
            }
        }
    }
    shared.beats.end(L::NAME);
}

/// One look, within its deadline.
pub async fn look<L: Look>(group: &mut L, expected: &Arc<Expected>, now: clock::Now) -> Result<Vec<Sample>, String> {
    let look = AssertUnwindSafe(group.look(expected, now)).catch_unwind();
    match timeout(PATIENCE, look).await {
        Ok(Ok(samples)) => Ok(samples),
        Ok(Err(panic)) => Err(format!("it panicked: {}", message(&*panic))),
        Err(_) => Err(format!("it did not end within {} s", PATIENCE.as_secs())),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;

    use super::*;
    use crate::clock::Now;

    /// Panics, then hangs, then is well.
    struct Moody(Arc<Mutex<u32>>);

    impl Look for Moody {
        const NAME: &'static str = "moody";

        async fn look(&mut self, _: &Arc<Expected>, _: Now) -> Vec<Sample> {
            let look = {
                let mut looks = self.0.lock().unwrap();
                *looks += 1;
                *looks
            };
            match look {
                1 => panic!("the first time"),
                2 => std::future::pending().await,
                _ => vec![Sample::ok("moody", "it", "well")],
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_panics_or_hangs_is_unknown_and_does_not_end_the_group() {
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let looks = Arc::new(Mutex::new(0));
        let rules = Rules { clear: Duration::ZERO, flapping: Duration::from_mins(1) };
        let pace = Pace { every: Duration::from_secs(5), doubt: Duration::from_secs(1), rules };
        let group = run(|| Moody(looks.clone()), pace, shared.clone(), stop.clone());
        let mut changes = shared.findings.changes();
        let story = async {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                changes.changed().await.unwrap();
                let all = shared.findings.all();
                seen.push(all.first().map(|one| (one.status, one.text.clone())).unwrap());
            }
            assert_eq!(seen[0], (Status::Unknown, "could not be looked at: it panicked: the first time".to_owned()));
            assert_eq!(seen[1], (Status::Ok, "well".to_owned()));
            assert!(*looks.lock().unwrap() >= 3);
            assert_eq!(shared.beats.still(), Vec::<&str>::new());
            stop.cancel();
        };
        tokio::join!(group, story);
    }
}
