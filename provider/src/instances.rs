//! The Traefiks that poll us, by the name in `?instance=`: what each was sent last, and how it behaves.
//!
//! Names come from outside, so there is a bound on how many are told apart, and a lower one on how many have metrics of
//! their own; metrics are made once, not per request.

mod progress;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use charliehub_proto::instance::{
    ConfigAt, HeldBack, InstancePart, InstanceState, InstanceStatus, RefusedRoute, ServerHealth,
};
use jiff::Timestamp;
use metrics::{Counter, counter, gauge};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

pub use self::progress::News;
use self::progress::{Progress, Stage};
use crate::{
    config::Traefik,
    hold::Manners,
    metrics as name,
    postgres::Pool,
    snapshot::{Current, Part, Snapshot},
};

/// More names than this are one: of 2 KiB each.
const MOST: usize = 20_000;
/// More than this are counted as one, or who reads the metrics would read little else.
const MEASURED: usize = 1_000;
const OTHERS: &str = "others";
/// Rows that are written at once.
const BATCH: usize = 1_000;
/// Without a change, the time of the last poll is written this often.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// Snapshots that were sent and may still be told to run.
const KNOWN: usize = 32;
/// Without a poll for this long, and none held, it is gone: Traefik's own back-off is some 20 s at most.
const GONE: Duration = Duration::from_mins(1);
/// Two polls of one name at a time, for this long, are two Traefiks.
const DOUBLED: Duration = Duration::from_secs(3);

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

/// What was sent last. Not the snapshot itself: one that is gone would keep it.
#[derive(Debug)]
struct Sent {
    digest: Arc<str>,
    revision: i64,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct Seen {
    manners: Manners,
    sent: Option<Sent>,
    /// Its first poll.
    since: Option<Timestamp>,
    polled_at: Option<Timestamp>,
    written_at: Option<Instant>,
    dirty: bool,
    /// Polls that are held now, and since when there are several.
    polls: usize,
    several: Option<Instant>,
    progress: Progress,
    /// What was sent of late, to tell of which revision a digest is; nothing where no API tells one.
    known: VecDeque<Arc<Snapshot>>,
    /// What its API tells.
    told: Told,
}

/// What is known of an instance by its API.
#[derive(Debug, Default)]
struct Told {
    version: Option<String>,
    running: Option<ConfigAt>,
    /// The newest revision that it was seen to run.
    acknowledged: Option<i64>,
    time_to_live: Option<Duration>,
    /// What keeps us from knowing more.
    trouble: Option<String>,
    /// Why it is refused or late, or not what it says.
    why: Option<String>,
    /// It says that it runs our config, and does not.
    pretends: bool,
    refused_routes: Vec<RefusedRoute>,
    held_back: Vec<HeldBack>,
    servers: Vec<ServerHealth>,
}

pub struct Instance {
    pub name: Arc<str>,
    /// The address of its API, where one is configured.
    api: Option<String>,
    /// What it is given; none: all.
    part: Option<Arc<Part>>,
    seen: Mutex<Seen>,
    /// Wakes who watches it.
    moved: Notify,
    /// It is known what it takes, or that this cannot be known.
    known: watch::Sender<bool>,
    outcomes: Outcomes,
}

/// How often polls ended so, by [`Outcome`].
type Outcomes = [Counter; 5];

fn outcomes(instance: &str) -> Outcomes {
    let labels = ["immediate", "changed", "unchanged", "hung_up", "unavailable"];
    labels.map(|outcome| counter!(name::POLLS, "instance" => instance.to_owned(), "outcome" => outcome))
}

/// One poll, as long as it is held.
pub struct Held<'i>(&'i Instance);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.with(|seen| {
            seen.polls = seen.polls.saturating_sub(1);
            if seen.polls < 2 {
                seen.several = None;
            }
        });
    }
}

impl Instance {
    fn new(name: &str, api: Option<String>, part: Option<Arc<Part>>, outcomes: Outcomes) -> Self {
        let known = watch::Sender::new(api.is_none());
        Self { name: name.into(), api, part, seen: Mutex::default(), moved: Notify::new(), known, outcomes }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A poll came that asks for `wait`. Returns how long it is held.
    pub fn polled(&self, wait: Duration) -> Duration {
        let (now, at) = (Instant::now(), Timestamp::now());
        let (hold, advice) = self.with(|seen| {
            seen.since.get_or_insert(at);
            let advice = seen.manners.polled(now);
            seen.dirty |= advice;
            if self.api.is_some() {
                seen.progress.polled(now);
            }
            (seen.manners.hold(wait, now), advice)
        });
        if self.api.is_some() {
            self.moved.notify_one();
        }
        if advice {
            tracing::warn!(
                instance = %self.name, advice = crate::hold::ADVICE_INTERVAL,
                "this Traefik leaves a gap after each answer, in which changes wait; set this in its static configuration"
            );
        }
        hold
    }

    /// A poll is held until what this returns is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.with(|seen| {
            seen.polls += 1;
            if seen.polls > 1 {
                seen.several.get_or_insert_with(Instant::now);
            }
        });
        Held(self)
    }

    /// A poll was answered with `snapshot` after it had been held for `held`. `fresh`: the first on its connection.
    pub fn answered(&self, snapshot: &Arc<Snapshot>, outcome: Outcome, held: Duration, wait: Duration, fresh: bool) {
        self.count(outcome);
        let (now, at) = (Instant::now(), Timestamp::now());
        self.with(|seen| {
            seen.manners.answered(now);
            if outcome == Outcome::Unchanged {
                seen.manners.held(held, wait);
            }
            seen.polled_at = Some(at);
            let (digest, revision) = (snapshot.digest(), snapshot.held.revision);
            let other = seen.sent.as_ref().is_none_or(|sent| (&sent.digest, sent.revision) != (digest, revision));
            if !other && !fresh {
                return;
            }
            seen.dirty |= other;
            seen.sent = Some(Sent { digest: Arc::clone(digest), revision, at });
            if self.api.is_none() {
                return;
            }
            if other {
                if seen.known.len() == KNOWN {
                    seen.known.pop_front();
                }
                seen.known.push_back(Arc::clone(snapshot));
            }
            seen.progress.sent(digest, snapshot.encoded.length, fresh, now);
        });
        if self.api.is_some() {
            self.moved.notify_one();
        }
    }

    /// The instance hung up after it had been held for `held`.
    pub fn hung_up(&self, held: Duration) {
        self.count(Outcome::HungUp);
        let now = Instant::now();
        let shorter = self.with(|seen| {
            seen.dirty = true;
            seen.manners.hung_up(held, now);
            seen.progress.doubt();
            seen.manners.hold(Duration::MAX, now)
        });
        if self.api.is_some() {
            self.moved.notify_one();
        }
        tracing::warn!(
            instance = %self.name, after = ?held, held_from_now_on = ?shorter, advice = crate::hold::ADVICE_TIMEOUT,
            "this Traefik hung up while held; unless it was restarted, set this in its static configuration"
        );
    }

    /// It is given what it takes from now on, or what is right for the oldest.
    pub fn is_known(&self) {
        self.known.send_if_modified(|known| !std::mem::replace(known, true));
    }

    /// Waits until it is known what it takes.
    pub async fn known(&self) {
        if !*self.known.borrow() {
            drop(self.known.subscribe().wait_for(|known| *known).await);
        }
    }

    /// Waits until it polls or is answered.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// When to look what it runs.
    pub fn next_look(&self) -> Instant {
        self.with(|seen| seen.progress.next_look(Instant::now()))
    }

    /// True when it runs what it was sent last, as far as is known, and nothing is expected.
    pub fn is_idle(&self) -> bool {
        self.with(|seen| seen.progress.stage() == Stage::Current && !seen.progress.is_in_doubt())
    }

    /// True when it is given something in place of what it does not take.
    pub fn is_held_back(&self) -> bool {
        self.with(|seen| !seen.told.held_back.is_empty())
    }

    /// A look found nothing new.
    pub fn rested(&self) {
        self.with(|seen| seen.progress.rested(Instant::now()));
    }

    /// A look found that it runs `digest`. What is new, with the snapshot that it is about.
    pub fn looked(&self, digest: Option<&str>) -> Option<(News, Option<Arc<Snapshot>>)> {
        let now = Instant::now();
        self.with(|seen| {
            let before = seen.progress.stage();
            let news = seen.progress.looked(digest, now);
            seen.dirty |= before != seen.progress.stage();
            seen.told.trouble = None;
            let (News::Runs { digest, .. } | News::Refused { digest } | News::Late { digest }) = news.as_ref()?;
            let snapshot = seen.known.iter().rev().find(|known| known.digest() == digest).cloned();
            Some((news?, snapshot))
        })
    }

    /// Its API did not tell, and why.
    pub fn troubled(&self, trouble: String) -> bool {
        self.is_known();
        self.with(|seen| {
            let new = seen.told.trouble.as_ref() != Some(&trouble);
            seen.told.trouble = Some(trouble);
            seen.dirty |= new;
            new
        })
    }

    /// It runs `snapshot`. The time from its writing to now, where it was not seen to run this revision before.
    pub fn acknowledged(&self, snapshot: &Snapshot, at: Timestamp) -> Option<Duration> {
        self.with(|seen| {
            let revision = snapshot.held.revision;
            let digest = snapshot.digest().to_string();
            seen.told.running = Some(ConfigAt { digest, revision: Some(revision), at });
            seen.told.why = None;
            seen.dirty = true;
            if seen.told.acknowledged >= Some(revision) {
                return None;
            }
            seen.told.acknowledged = Some(revision);
            // What was written before it polled for the first time waited for nobody.
            let written = snapshot.written_at.filter(|written| seen.since.is_some_and(|since| since < *written))?;
            let live = Duration::try_from(at - written).ok()?;
            seen.told.time_to_live = Some(live);
            Some(live)
        })
    }

    /// It does not run what it was sent, or cannot be used since, and why. True when that is new.
    pub fn failed(&self, why: String, unusable: bool) -> bool {
        self.with(|seen| {
            let new = seen.told.why.as_ref() != Some(&why);
            seen.told.why = Some(why);
            seen.dirty |= new;
            if unusable {
                seen.progress.unusable();
            }
            new
        })
    }

    /// Whether what it runs is what its marker says. True when that is new.
    pub fn pretends(&self, why: Option<String>) -> bool {
        self.with(|seen| {
            let new = seen.told.pretends != why.is_some();
            seen.told.pretends = why.is_some();
            if new {
                seen.told.why = why;
            }
            seen.dirty |= new;
            new
        })
    }

    /// What it was sent of this digest.
    pub fn sent(&self, digest: &str) -> Option<Arc<Snapshot>> {
        self.with(|seen| seen.known.iter().rev().find(|known| **known.digest() == *digest).cloned())
    }

    pub fn version(&self, version: String) -> bool {
        self.with(|seen| {
            let new = seen.told.version.as_ref() != Some(&version);
            seen.told.version = Some(version);
            seen.dirty |= new;
            new
        })
    }

    /// What it runs with errors, and who is behind it. True when that is new.
    pub fn found(&self, refused_routes: Vec<RefusedRoute>, servers: Vec<ServerHealth>) -> bool {
        self.with(|seen| {
            let new = seen.told.refused_routes != refused_routes;
            (seen.told.refused_routes, seen.told.servers) = (refused_routes, servers);
            seen.dirty |= new;
            new
        })
    }

    /// What it is not given as the rows say; those before.
    pub fn holds_back(&self, held_back: Vec<HeldBack>) -> Vec<HeldBack> {
        self.with(|seen| std::mem::replace(&mut seen.told.held_back, held_back))
    }

    /// True when it has acknowledged `revision`, or what it is given since is what it ran already.
    pub fn runs(&self, revision: i64, digest: &str) -> bool {
        self.with(|seen| {
            seen.told.acknowledged >= Some(revision)
                || (seen.progress.stage() == Stage::Current
                    && seen.progress.running().is_some_and(|runs| **runs == *digest))
        })
    }

    pub fn status(&self) -> InstanceStatus {
        let now = Instant::now();
        self.with(|seen| InstanceStatus {
            name: self.name.to_string(),
            state: self.state(seen),
            api: self.api.clone(),
            part: self.part.as_deref().map(given),
            version: seen.told.version.clone(),
            last_poll: seen.polled_at,
            sent: seen.sent.as_ref().map(|sent| ConfigAt {
                digest: sent.digest.to_string(),
                revision: Some(sent.revision),
                at: sent.at,
            }),
            running: seen.told.running.clone(),
            lag_seconds: if self.api.is_some() { seen.progress.lag(now).as_secs_f64() } else { 0.0 },
            time_to_live_seconds: seen.told.time_to_live.map(|time| time.as_secs_f64()),
            trouble: self.trouble(seen),
            refused_routes: seen.told.refused_routes.clone(),
            held_back: seen.told.held_back.clone(),
            servers: seen.told.servers.clone(),
            advice: seen.manners.advice().into_iter().map(str::to_owned).collect(),
        })
    }

    /// Brings its metrics up to what is known.
    pub fn measure(&self) {
        let status = self.status();
        let labels = [("instance", status.name.clone())];
        let yes = |truth: bool| f64::from(u8::from(truth));
        gauge!(name::INSTANCE_LAG, &labels).set(status.lag_seconds);
        gauge!(name::INSTANCE_CURRENT, &labels).set(yes(status.state == InstanceState::Current));
        gauge!(name::REFUSED, &labels).set(yes(status.state == InstanceState::Refused));
        gauge!(name::LATE, &labels).set(yes(status.state == InstanceState::Late));
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        gauge!(name::REFUSED_ROUTES, &labels).set(count(status.refused_routes.len()));
        gauge!(name::HELD_BACK, &labels).set(count(status.held_back.len()));
        gauge!(name::SERVERS_DOWN, &labels).set(count(status.servers.iter().filter(|server| !server.up).count()));
    }

    fn state(&self, seen: &Seen) -> InstanceState {
        let age = seen.polled_at.map(|at| Duration::try_from(Timestamp::now() - at).unwrap_or_default());
        if seen.polls == 0 && age.is_none_or(|age| age > GONE) {
            return InstanceState::Gone;
        }
        if self.api.is_none() {
            return InstanceState::Unverified;
        }
        let stage = seen.progress.stage();
        if seen.told.trouble.is_some() || is_doubled(seen) {
            // What was known before its API fell silent.
            return if stage == Stage::Refused { InstanceState::Refused } else { InstanceState::Unknown };
        }
        match stage {
            Stage::Current if seen.told.pretends => InstanceState::Behind,
            Stage::Current => InstanceState::Current,
            Stage::Nothing | Stage::Behind => InstanceState::Behind,
            Stage::Late => InstanceState::Late,
            Stage::Refused => InstanceState::Refused,
        }
    }

    fn trouble(&self, seen: &Seen) -> Option<String> {
        if is_doubled(seen) {
            return Some(format!(
                "two Traefiks poll as `{}`; give each a name of its own in ?instance=, and a [[traefik]] of its own",
                self.name
            ));
        }
        if let Some(part) = self.part.as_ref().filter(|part| part.current.load().is_none()) {
            return Some(format!(
                "no row is in {} yet, so it is given nothing; give it rows, or correct its [[traefik]]",
                part.selector
            ));
        }
        if self.api.is_some() && seen.polled_at.is_none() {
            let never = "it has not polled since we started; charliehub-provider check says the lines that it needs";
            return Some(seen.told.trouble.clone().unwrap_or_else(|| never.to_owned()));
        }
        let unverified = || {
            let remedy = format!("set `api` in a [[traefik]] with instance = \"{}\"", self.name);
            self.api.is_none().then(|| format!("nobody knows what it runs; {remedy}"))
        };
        seen.told.trouble.clone().or_else(|| seen.told.why.clone()).or_else(unverified)
    }

    /// True when its row is to be written now; whoever asks does that.
    fn is_due(&self) -> bool {
        self.with(|seen| {
            let old = seen.written_at.is_none_or(|at| at.elapsed() > WRITE_EVERY);
            let due = seen.dirty || (old && seen.sent.is_some());
            (seen.dirty, seen.written_at) = (false, if due { Some(Instant::now()) } else { seen.written_at });
            due
        })
    }

    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.increment(1);
        }
    }
}

/// Long enough for two Traefiks of one name: a restarted one may find its old connection still there.
fn is_doubled(seen: &Seen) -> bool {
    seen.several.is_some_and(|since| since.elapsed() > DOUBLED)
}

/// What is served of a part.
fn given(part: &Part) -> InstancePart {
    let served = part.current.load();
    InstancePart {
        selector: part.selector.to_string(),
        routes: served.as_ref().map_or(0, |snapshot| snapshot.size.routes),
        digest: served.as_ref().map(|snapshot| snapshot.digest().to_string()),
        revision: served.as_ref().map(|snapshot| snapshot.held.revision),
        withheld: served.and_then(|snapshot| snapshot.withheld),
    }
}

/// All instances that are configured or have polled since we started.
pub struct Instances {
    known: RwLock<BTreeMap<Arc<str>, Arc<Instance>>>,
    /// Of those that have no metrics of their own.
    others: Outcomes,
    /// Counts what was heard of them.
    heard: watch::Sender<u64>,
}

impl Instances {
    /// Knows the configured ones from the start.
    pub fn configured(traefiks: &[Traefik], current: &Current) -> Self {
        let one = |traefik: &Traefik| {
            let part = current.part_of(&traefik.instance).map(Arc::clone);
            let outcomes = outcomes(&traefik.instance);
            let instance = Instance::new(&traefik.instance, traefik.api.clone(), part, outcomes);
            (Arc::clone(&instance.name), Arc::new(instance))
        };
        let known = RwLock::new(traefiks.iter().map(one).collect());
        Self { known, others: outcomes(OTHERS), heard: watch::Sender::default() }
    }

    /// All that are known, by name.
    pub fn all(&self) -> Vec<Arc<Instance>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Something was heard of one.
    pub fn hear(&self) {
        self.heard.send_modify(|n| *n += 1);
    }

    /// Wakes up when something was heard of one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }

    /// One that is known by this name.
    pub fn find(&self, name: &str) -> Option<Arc<Instance>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    pub fn get(&self, name: &str) -> Arc<Instance> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = known.get(name) {
            return Arc::clone(instance);
        }
        let name = if known.len() < MOST { name } else { OTHERS };
        let measured = known.len() < MEASURED;
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let outcomes = if measured { outcomes(name) } else { self.others.clone() };
            Arc::new(Instance::new(name, None, None, outcomes))
        };
        Arc::clone(known.entry(name.into()).or_insert_with(new))
    }

    /// All that are known, by name.
    pub fn statuses(&self) -> Vec<InstanceStatus> {
        self.all().iter().map(|instance| instance.status()).collect()
    }

    /// Writes what changed to table `instances`, once a second at most, until `stop`.
    pub async fn keep(self: Arc<Self>, pool: Pool, stop: CancellationToken) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = tick.tick() => {}, () = stop.cancelled() => return }
            let due: Vec<Arc<Instance>> = self.all().into_iter().filter(|instance| instance.is_due()).collect();
            let mut batches = due.chunks(BATCH);
            for batch in batches.by_ref() {
                if let Err(error) = write(&pool, batch).await {
                    tracing::debug!(%error, "cannot write the instances; trying again");
                    batch.iter().chain(batches.flatten()).for_each(|instance| instance.with(|seen| seen.dirty = true));
                    break;
                }
            }
        }
    }
}

/// Thousands are answered by one commit: they are written by one statement.
async fn write(pool: &Pool, instances: &[Arc<Instance>]) -> Result<(), crate::postgres::Error> {
    const UPSERT: &str = "INSERT INTO charliehub.instances AS i
        (name, last_poll_at, sent_digest, sent_revision, advice, running_digest, running_since, state, refused, version)
        SELECT * FROM jsonb_to_recordset($1) AS r (name text, last_poll_at timestamptz, sent_digest text,
        sent_revision bigint, advice text[], running_digest text, running_since timestamptz, state text, refused jsonb,
        version text) ORDER BY name ON CONFLICT (name) DO UPDATE SET
        last_poll_at = coalesce(excluded.last_poll_at, i.last_poll_at),
        sent_digest = coalesce(excluded.sent_digest, i.sent_digest),
        sent_revision = coalesce(excluded.sent_revision, i.sent_revision), advice = excluded.advice,
        running_digest = coalesce(excluded.running_digest, i.running_digest),
        running_since = coalesce(excluded.running_since, i.running_since), state = excluded.state,
        refused = excluded.refused, version = coalesce(excluded.version, i.version)";
    let rows: Value = instances.iter().map(|instance| row(&instance.status())).collect();
    let client = pool.get().await?;
    client.execute_typed(UPSERT, &[(&rows, Type::JSONB)]).await?;
    Ok(())
}

/// A row of table `instances`, by its columns.
fn row(status: &InstanceStatus) -> Value {
    let (sent, running) = (status.sent.as_ref(), status.running.as_ref());
    json!({
        "name": status.name,
        "last_poll_at": status.last_poll,
        "sent_digest": sent.map(|sent| &sent.digest),
        "sent_revision": sent.and_then(|sent| sent.revision),
        "advice": status.advice,
        "running_digest": running.map(|running| &running.digest),
        "running_since": running.map(|running| running.at),
        "state": status.state,
        "refused": status.refused_routes,
        "version": status.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_up_to_a_bound_and_then_they_are_one() {
        let instances = Instances::configured(&[], &Current::default());
        let names: Vec<String> = (0..MOST + 2).map(|n| format!("traefik-{n}")).collect();
        let got: Vec<Arc<Instance>> = names.iter().map(|name| instances.get(name)).collect();
        assert!(got.iter().zip(&names).take(MOST).all(|(instance, name)| *instance.name == **name));
        assert!(got.iter().skip(MOST).all(|instance| *instance.name == *OTHERS));
        assert!(Arc::ptr_eq(&got[0], &instances.get(&names[0])), "one that is known stays");
        assert_eq!(instances.all().len(), MOST + 1);
    }
}
