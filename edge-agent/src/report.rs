//! Tells the provider what was found, and what that was held against: changes at once, everything each `timing.report`,
//! through the [`Spool`].
//!
//! [`make`] makes reports, [`deliver`] posts them one by one in their order. A report that the provider will never take is
//! put aside; whatever else goes wrong, it waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use charliehub_proto::{
    finding::{Finding, Status},
    report::Report,
};
use jiff::Timestamp;
use metrics::gauge;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    expect,
    metrics::{LAST_REPORT, SPOOL_ENTRIES, reported},
    provider::{Pause, Provider},
    rounds::Shared,
    spool::Spool,
    state::State,
    steady::{Key, key_of},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Changes within it travel together.
const TOGETHER: Duration = Duration::from_millis(50);

/// A spool that two tasks share, and how one wakes the other.
#[derive(Debug)]
pub struct Post {
    spool: Mutex<Spool>,
    pushed: Notify,
}

impl Post {
    pub fn new(spool: Spool) -> Self {
        Self { spool: Mutex::new(spool), pushed: Notify::new() }
    }

    /// Its disk may be slow: this is off the runtime.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> Option<T> {
        let this = Arc::clone(self);
        spawn_blocking(move || work(&mut this.spool.lock().unwrap_or_else(PoisonError::into_inner))).await.ok()
    }

    async fn counts(self: &Arc<Self>) -> (usize, u64) {
        self.with(|spool| (spool.len(), spool.lost())).await.unwrap_or_default()
    }
}

/// Makes reports until `stop`; then a last one of what is not told yet.
pub async fn make(shared: Arc<Shared>, post: Arc<Post>, every: Duration, stop: CancellationToken) {
    let mut changes = shared.findings.changes();
    let mut endpoints = shared.endpoints.subscribe();
    let mut told: BTreeMap<Key, Status> = BTreeMap::new();
    let mut expects = shared.expects.subscribe();
    let mut came_from = Vec::new();
    let mut held = String::new();
    let boot = boot();
    let mut next = Instant::now();
    loop {
        let is_due = tokio::select! {
            () = sleep_until(next) => true,
            _ = changes.changed() => { sleep(TOGETHER).await; false }
            _ = endpoints.changed() => { sleep(TOGETHER).await; false }
            _ = expects.changed() => { sleep(TOGETHER).await; false }
            () = stop.cancelled() => false,
        };
        changes.mark_unchanged();
        expects.mark_unchanged();
        let digest = shared.expected.load().digest.clone();
        let all = shared.findings.all();
        let now: BTreeMap<Key, Status> = all.iter().map(|one| (key_of(one), one.status)).collect();
        let from = endpoints.borrow_and_update().clone();
        let is_news = now != told || from != came_from || digest != held;
        if is_due || is_news {
            let has_gone = told.keys().any(|key| !now.contains_key(key));
            let is_complete = is_due || has_gone;
            let is_new = |one: &Finding| told.get(&key_of(one)) != Some(&one.status);
            let report = Report {
                install: Uuid::nil(),
                seq: 0,
                at: Timestamp::now(),
                boot,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                expected: Some(digest.clone()).filter(|digest| !digest.is_empty()),
                complete: is_complete,
                findings: all.into_iter().filter(|one| is_complete || is_new(one)).collect(),
                endpoints: from.clone(),
                lost: 0,
            };
            post.with(move |spool| spool.push(report, is_news)).await;
            post.pushed.notify_one();
            (told, came_from, held) = (now, from, digest);
            if is_complete {
                next = Instant::now() + every;
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Posts what waits until `stop`.
pub async fn deliver(provider: Provider, agent: String, post: Arc<Post>, state: Arc<State>, stop: CancellationToken) {
    let path = format!("/api/agents/{agent}/report");
    let mut pause = Pause::default();
    loop {
        let front = post.with(Spool::front).await.flatten();
        let (waiting, _) = post.counts().await;
        gauge!(SPOOL_ENTRIES).set(f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)));
        let Some(json) = front else {
            tokio::select! { () = post.pushed.notified() => continue, () = stop.cancelled() => return }
        };
        let sent = tokio::select! {
            sent = provider.post(&path, Bytes::from(json), PATIENCE) => sent,
            () = stop.cancelled() => return,
        };
        let result = match sent {
            Err(error) => Err(error.to_string()),
            Ok(answer) if answer.status().is_success() => {
                post.with(Spool::pop).await;
                reported("delivered");
                gauge!(LAST_REPORT).set(Timestamp::now().as_duration().as_secs_f64());
                Ok(())
            }
            Ok(answer) => {
                let status = answer.status().as_u16();
                let why = expect::refused(status, answer.body());
                if matches!(status, 400..500) && !matches!(status, 401 | 403 | 404 | 408 | 429) {
                    tracing::error!(why, "the provider will never take a report; it is put aside in rejected/");
                    post.with(Spool::reject).await;
                    reported("rejected");
                }
                Err(why)
            }
        };
        let failed = result.is_err();
        let (waiting, lost) = post.counts().await;
        state.reported(result, waiting, lost);
        if failed {
            reported("put_off");
            tokio::select! {
                () = sleep(pause.longer()) => {}
                () = stop.cancelled() => return,
            }
        } else {
            pause = Pause::default();
        }
    }
}

/// Of this boot; nil where the kernel does not tell.
fn boot() -> Uuid {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
