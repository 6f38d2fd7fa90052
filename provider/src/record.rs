//! Keeps what was decided: the last known good config on disk, and configs in the database's history.
//!
//! Both are behind the swap, not between a commit and Traefik, and coalesced: while one write runs, only the newest config
//! waits for the next. A failed write stops nothing; it is counted, said, and tried again.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::counter;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Selector,
    metrics as name,
    postgres::Pool,
    publish::{Behind, Served},
    row::Rows,
    snapshot::{
        Snapshot, disk,
        disk::Good,
        history::{
            self, Candidate,
            prune::{Retention, prune},
        },
    },
};

/// Records wait this long after a change: Traefik's reload needs the processor first, and changes come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two writes of a large config, and before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// A large config is written for one part of the time of so many and one more: to write a million rows takes seconds, and
/// Traefik and the next change need the processor too.
const PAUSES: u32 = 4;
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// Configs that wait for their line in the history; older ones were overtaken.
const WAITING: usize = 16;

#[derive(Debug, Default)]
struct Pending {
    disk: Option<Arc<Snapshot>>,
    /// Of the rows behind it, what the disk's keeper does not know.
    rows: Option<Behind>,
    served: Option<Arc<Snapshot>>,
    withheld: Vec<Candidate>,
}

/// Takes what is to be kept, at once, and keeps it in its own time.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What it keeps; none: all.
    part: Option<Selector>,
    pending: Mutex<Pending>,
    disk: Notify,
    history: Notify,
    /// Somebody may be about to decide about it.
    withheld: Notify,
}

impl Recorder {
    /// One that keeps what is served of a part.
    pub fn of(part: Selector) -> Self {
        Self { part: Some(part), ..Self::default() }
    }

    pub fn served(&self, served: Served) {
        let Served { snapshot, rows } = served;
        self.with(|pending| {
            match &mut pending.rows {
                Some(waiting) => waiting.add(rows),
                waiting @ None => *waiting = Some(rows),
            }
            pending.disk = Some(Arc::clone(&snapshot));
            pending.served = Some(snapshot);
        });
        self.disk.notify_one();
        self.history.notify_one();
    }

    pub fn withheld(&self, candidate: Candidate) {
        self.with(|pending| {
            if pending.withheld.len() == WAITING {
                pending.withheld.remove(0);
            }
            pending.withheld.push(candidate);
        });
        self.withheld.notify_one();
    }

    fn with<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the last known good config in `dir` until `stop`; what is pending then is still written.
    pub async fn keep_on_disk(self: Arc<Self>, dir: PathBuf, stop: CancellationToken) {
        let mut failing = false;
        let mut rows = Rows::new();
        loop {
            let stopped = tokio::select! {
                () = async { self.disk.notified().await; sleep(SETTLE).await } => false,
                () = stop.cancelled() => true,
            };
            let (served, news) = self.with(|pending| (pending.disk.take(), pending.rows.take()));
            if let Some(news) = news {
                news.bring(&mut rows);
            }
            let Some(served) = served else {
                if stopped {
                    return;
                }
                continue;
            };
            let began = tokio::time::Instant::now();
            let large = served.encoded.is_large();
            let good = Arc::new(Good {
                held: served.held,
                size: served.size,
                encoded: Arc::clone(&served.encoded),
                rows: std::mem::take(&mut rows),
            });
            let written = spawn_blocking({
                let (dir, good) = (dir.clone(), Arc::clone(&good));
                move || disk::write(&dir, &good)
            })
            .await;
            rows = Arc::try_unwrap(good).map_or_else(|good| good.rows.clone(), |good| good.rows);
            match written {
                Ok(Ok(())) if failing => {
                    failing = false;
                    tracing::info!("the last known good config is kept on disk again");
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    counter!(name::LKG_WRITE_ERRORS).increment(1);
                    if !failing {
                        tracing::error!(%error, "cannot keep the last known good config on disk; serving goes on");
                    }
                    failing = true;
                    self.with(|pending| {
                        pending.disk.get_or_insert(served);
                    });
                    self.disk.notify_one();
                }
                Err(error) => tracing::error!(%error, "writing the last known good config failed"),
            }
            if stopped {
                return;
            }
            if large || failing {
                let pause = AGAIN.max(began.elapsed() * PAUSES);
                tokio::select! { () = sleep(pause) => {}, () = stop.cancelled() => {} }
            }
        }
    }

    /// Keeps configs in the database's history until `stop`; whoever has a `retention` forgets what is older.
    pub async fn keep_in_history(self: Arc<Self>, pool: Pool, retention: Option<Retention>, stop: CancellationToken) {
        let mut prune_at = tokio::time::Instant::now();
        let mut not_before = prune_at;
        let mut reason = "start";
        let mut failing = false;
        loop {
            tokio::select! {
                () = async { self.history.notified().await; sleep(SETTLE).await; sleep_until(not_before).await } => {}
                () = self.withheld.notified() => {}
                () = sleep_until(prune_at), if retention.is_some() => {}
                () = stop.cancelled() => return,
            }
            let (served, withheld) =
                self.with(|pending| (pending.served.take(), std::mem::take(&mut pending.withheld)));
            let now = tokio::time::Instant::now();
            let due = retention.filter(|_| now >= prune_at);
            let news = News { part: self.part.as_ref(), served: served.as_deref(), reason, withheld: &withheld };
            match write(&pool, &news, due).await {
                Ok(more) => {
                    if let Some(served) = &served {
                        reason = "change";
                        if served.encoded.is_large() {
                            not_before = now + AGAIN;
                        }
                    }
                    if due.is_some() {
                        prune_at = now + if more { AGAIN } else { PRUNE_EVERY };
                    }
                    failing = false;
                }
                Err(error) => {
                    counter!(name::HISTORY_WRITE_ERRORS).increment(1);
                    if !failing {
                        tracing::warn!(%error, "cannot write the history of configs; trying again");
                    }
                    failing = true;
                    self.with(|pending| {
                        if pending.served.is_none() {
                            pending.served = served;
                        }
                        pending.withheld.splice(0..0, withheld);
                    });
                    self.history.notify_one();
                    tokio::select! { () = sleep(AGAIN) => {}, () = stop.cancelled() => return }
                }
            }
        }
    }
}

/// What is to be written.
struct News<'a> {
    part: Option<&'a Selector>,
    served: Option<&'a Snapshot>,
    reason: &'static str,
    withheld: &'a [Candidate],
}

/// Writes what there is, and forgets a step; true when there is more to forget.
async fn write(pool: &Pool, news: &News<'_>, retention: Option<Retention>) -> Result<bool, crate::postgres::Error> {
    if news.served.is_none() && news.withheld.is_empty() && retention.is_none() {
        return Ok(false);
    }
    let mut client = pool.get().await?;
    if let Some(served) = news.served {
        history::served(&mut client, news.part, served, news.reason).await?;
    }
    for candidate in news.withheld {
        history::withheld(&mut client, news.part, candidate).await?;
    }
    match retention {
        Some(retention) => Ok(prune(&mut client, retention).await?),
        None => Ok(false),
    }
}
