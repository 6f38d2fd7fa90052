//! The Traefiks that poll us, by the name in `?instance=`: what each was sent last, and how it behaves.
//!
//! Names come from outside, so there is a bound on how many are told apart; their metrics are made once, not per request.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use charliehub_proto::instance::{ConfigAt, InstanceState, InstanceStatus};
use jiff::Timestamp;
use metrics::{Counter, counter};
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::{hold::Manners, metrics as name, postgres::Pool, snapshot::Snapshot};

/// More names than this are one.
const MOST: usize = 1000;
const OTHERS: &str = "others";
/// Without a change, the time of the last poll is written this often.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered at once: the first on its connection, or one that did not ask to wait.
    Immediate,
    /// Held until there was something new.
    Changed,
    /// Held until the time was over.
    Unchanged,
    /// The instance hung up while held.
    HungUp,
    /// There has never been a config.
    Unavailable,
}

#[derive(Debug, Default)]
struct Seen {
    manners: Manners,
    sent: Option<Arc<Snapshot>>,
    polled_at: Option<Timestamp>,
    written_at: Option<Instant>,
    dirty: bool,
}

pub struct Instance {
    pub name: Arc<str>,
    seen: Mutex<Seen>,
    outcomes: [Counter; 5],
}

impl Instance {
    fn new(name: &str) -> Self {
        let labels = ["immediate", "changed", "unchanged", "hung_up", "unavailable"];
        let outcomes = labels.map(|outcome| counter!(name::POLLS, "instance" => name.to_owned(), "outcome" => outcome));
        Self { name: name.into(), seen: Mutex::default(), outcomes }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A poll came that asks for `wait`. Returns how long it is held.
    pub fn polled(&self, wait: Duration) -> Duration {
        let now = Instant::now();
        let (hold, advice) = self.with(|seen| {
            let advice = seen.manners.polled(now);
            seen.dirty |= advice;
            (seen.manners.hold(wait, now), advice)
        });
        if advice {
            tracing::warn!(
                instance = %self.name, advice = crate::hold::ADVICE_INTERVAL,
                "this Traefik leaves a gap after each answer, in which changes wait; set this in its static configuration"
            );
        }
        hold
    }

    /// A poll was answered with `snapshot` after it had been held for `held`.
    pub fn answered(&self, snapshot: &Arc<Snapshot>, outcome: Outcome, held: Duration, wait: Duration) {
        self.count(outcome);
        self.with(|seen| {
            seen.manners.answered(Instant::now());
            if outcome == Outcome::Unchanged {
                seen.manners.held(held, wait);
            }
            seen.polled_at = Some(Timestamp::now());
            if seen.sent.as_ref().is_none_or(|sent| !Arc::ptr_eq(sent, snapshot)) {
                seen.sent = Some(Arc::clone(snapshot));
                seen.dirty = true;
            }
        });
    }

    /// The instance hung up after it had been held for `held`.
    pub fn hung_up(&self, held: Duration) {
        self.count(Outcome::HungUp);
        let now = Instant::now();
        let shorter = self.with(|seen| {
            seen.dirty = true;
            seen.manners.hung_up(held, now);
            seen.manners.hold(Duration::MAX, now)
        });
        tracing::warn!(
            instance = %self.name, after = ?held, held_from_now_on = ?shorter, advice = crate::hold::ADVICE_TIMEOUT,
            "this Traefik hung up while held; unless it was restarted, set this in its static configuration"
        );
    }

    fn status(&self) -> InstanceStatus {
        self.with(|seen| InstanceStatus {
            name: self.name.to_string(),
            state: InstanceState::Unverified,
            api: None,
            version: None,
            last_poll: seen.polled_at,
            sent: seen.sent.as_ref().zip(seen.polled_at).map(|(sent, at)| ConfigAt {
                digest: sent.digest().to_string(),
                revision: Some(sent.held.revision),
                at,
            }),
            running: None,
            lag_seconds: 0.0,
            time_to_live_seconds: None,
            trouble: None,
            refused_routes: Vec::new(),
            held_back: Vec::new(),
            servers: Vec::new(),
            advice: seen.manners.advice().into_iter().map(str::to_owned).collect(),
        })
    }

    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.increment(1);
        }
    }
}

/// All instances that have polled since we started.
#[derive(Default)]
pub struct Instances(RwLock<BTreeMap<Arc<str>, Arc<Instance>>>);

impl Instances {
    pub fn get(&self, name: &str) -> Arc<Instance> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = known.get(name) {
            return Arc::clone(instance);
        }
        let name = if known.len() < MOST { name } else { OTHERS };
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(name.into()).or_insert_with(|| Arc::new(Instance::new(name))))
    }

    /// All that are known, by name.
    pub fn statuses(&self) -> Vec<InstanceStatus> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|instance| instance.status()).collect()
    }

    /// Writes what changed to table `instances`, once a second at most, until `stop`.
    pub async fn keep(self: Arc<Self>, pool: Pool, stop: CancellationToken) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = tick.tick() => {}, () = stop.cancelled() => return }
            let known: Vec<_> =
                self.0.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
            for instance in known {
                let due = instance.with(|seen| {
                    let old = seen.written_at.is_none_or(|at| at.elapsed() > WRITE_EVERY);
                    let due = seen.sent.is_some() && (seen.dirty || old);
                    (seen.dirty, seen.written_at) = (false, if due { Some(Instant::now()) } else { seen.written_at });
                    due.then(|| (seen.sent.clone(), seen.polled_at, seen.manners.advice()))
                });
                let Some((Some(sent), polled_at, advice)) = due else { continue };
                if let Err(error) = write(&pool, &instance.name, &sent, polled_at, &advice).await {
                    tracing::debug!(%error, "cannot write the instances; trying again");
                    instance.with(|seen| seen.dirty = true);
                    break;
                }
            }
        }
    }
}

async fn write(
    pool: &Pool,
    instance: &str,
    sent: &Snapshot,
    polled_at: Option<Timestamp>,
    advice: &[&str],
) -> Result<(), crate::postgres::Error> {
    const UPSERT: &str =
        "INSERT INTO charliehub.instances AS i (name, last_poll_at, sent_digest, sent_revision, advice)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET last_poll_at = excluded.last_poll_at,
        sent_digest = excluded.sent_digest, sent_revision = excluded.sent_revision, advice = excluded.advice";
    let client = pool.get().await?;
    let digest: &str = sent.digest();
    client
        .execute_typed(
            UPSERT,
            &[
                (&instance, Type::TEXT),
                (&polled_at, Type::TIMESTAMPTZ),
                (&digest, Type::TEXT),
                (&sent.held.revision, Type::INT8),
                (&advice, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(())
}
