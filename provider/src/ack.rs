//! Knowing that it is live: reads back from each Traefik's API what it runs.
//!
//! One task for each instance that has an API. It sleeps until something was sent, looks often at first and then less, and
//! tells what it finds: to `instances`, which shows it; to the publisher by [`Heard`], which decides what the instance is
//! given next; to metrics, events and the log. It changes nothing itself, and nobody waits for it.

mod handshake;
mod found;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use charliehub_proto::event::EventKind;
use jiff::Timestamp;
use metrics::histogram;
use serde_json::json;
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Traefik,
    events::{Events, Told},
    heard::{Heard, What},
    instances::{Instance, Instances, News},
    metrics as name,
    running::{self, Api, Running},
    snapshot::Snapshot,
};

/// Everything is read this often when nothing changes; less often where that takes long.
const EVERYTHING: Duration = Duration::from_secs(30);
/// And this often where servers have health checks, or something is held back.
const CHECKED: Duration = Duration::from_secs(4);
/// Reading everything may take this share of the time.
const SHARE: u32 = 100;
/// An API that does not answer is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches one instance.
pub struct Watch {
    pub instance: Arc<Instance>,
    pub instances: Arc<Instances>,
    pub traefik: Traefik,
    pub heard: mpsc::Sender<Heard>,
    pub events: Arc<Events>,
}

/// What a watch remembers from look to look.
struct Memory {
    api: Api,
    knows_version: bool,
    /// The TLS settings with which a handshake was made last.
    shaken: Option<u64>,
    /// When everything was read, and how long that took.
    read: Option<(Instant, Duration)>,
    /// There are health checks in the config that runs.
    checked: bool,
    /// As Traefik told it last.
    overview: Option<Bytes>,
}

impl Watch {
    pub async fn run(self, stop: CancellationToken) {
        let Some(api) = Api::of(&self.traefik) else { return };
        let mut memory = Memory { api, knows_version: false, shaken: None, read: None, checked: false, overview: None };
        let mut not_before = Instant::now();
        loop {
            let at = self.instance.next_look().max(not_before);
            tokio::select! {
                () = sleep_until(at.into()) => {}
                () = self.instance.moved() => {
                    // Who polls is there: its API may be too.
                    not_before = Instant::now();
                    continue;
                }
                () = stop.cancelled() => return,
            }
            let looked = tokio::select! { looked = self.look(&mut memory) => looked, () = stop.cancelled() => return };
            if let Err(error) = looked {
                memory.knows_version = false;
                not_before = Instant::now() + AGAIN;
                if self.instance.troubled(format!("its API cannot be read: {error}")) {
                    tracing::warn!(instance = %self.instance.name, %error, "cannot read what this Traefik runs");
                    self.tell(EventKind::Instance, format!("what {} runs cannot be read: {error}", self.instance.name));
                }
            }
            self.instance.measure();
            self.instances.hear();
        }
    }

    async fn look(&self, memory: &mut Memory) -> Result<(), running::Error> {
        if !memory.knows_version {
            let version = memory.api.version().await?;
            memory.knows_version = true;
            self.hear(What::Version(version.clone())).await;
            if self.instance.version(version.clone()) {
                tracing::info!(instance = %self.instance.name, version, "this is Traefik");
                self.tell(EventKind::Instance, format!("{} is Traefik {version}", self.instance.name));
            }
        }
        if self.instance.is_idle() {
            return self.idle(memory).await;
        }
        let digest = memory.api.digest().await?;
        let Some((news, snapshot)) = self.instance.looked(digest.as_deref()) else { return Ok(()) };
        match (news, snapshot) {
            (News::Runs { after, .. }, Some(snapshot)) => {
                if let Some(why) = self.shake(memory, &snapshot).await {
                    self.refused(&snapshot, why, true).await;
                    return Ok(());
                }
                self.runs(&snapshot, after);
                self.read(memory, false).await
            }
            (News::Refused { .. }, Some(snapshot)) => {
                let why = "it did not take what it was sent: it went on running what it ran, and paused as Traefik does \
                           after a body that it cannot read; its log says why (`Cannot decode`, or `Error`)";
                self.refused(&snapshot, why.to_owned(), false).await;
                Ok(())
            }
            (News::Late { .. }, Some(snapshot)) => {
                let revision = snapshot.held.revision;
                let why =
                    format!("it was sent revision {revision} and does not run it; is it busy, or its API another's?");
                tracing::warn!(instance = %self.instance.name, revision, "late: this Traefik does not run what it was sent");
                self.instance.failed(why, false);
                let text = format!("{} does not run revision {revision} yet", self.instance.name);
                self.events.tell(self.about(EventKind::Late, &snapshot, text));
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    /// Nothing is expected: one small question, and everything where its answer is another or it is time.
    async fn idle(&self, memory: &mut Memory) -> Result<(), running::Error> {
        if !self.is_due(memory) {
            let overview = memory.api.overview().await?;
            self.instance.rested();
            if memory.overview.as_ref() == Some(&overview) {
                return Ok(());
            }
            memory.overview = Some(overview);
        }
        self.read(memory, true).await
    }

    /// True when everything is to be read: what is missing, or who is down, shows nowhere else.
    fn is_due(&self, memory: &Memory) -> bool {
        let often = memory.checked || self.instance.is_held_back();
        let every = if often { CHECKED } else { EVERYTHING };
        memory.read.is_none_or(|(at, took)| at.elapsed() >= every.max(took * SHARE))
    }

    /// It runs `snapshot`, `after` it was sent.
    fn runs(&self, snapshot: &Snapshot, after: Duration) {
        let (revision, name) = (snapshot.held.revision, &self.instance.name);
        let live = self.instance.acknowledged(snapshot, Timestamp::now()).map(|live| live.as_secs_f64());
        if let Some(live) = live {
            histogram!(name::COMMIT_TO_LIVE, "instance" => name.to_string()).record(live);
        }
        tracing::info!(instance = %name, revision, ?after, "live");
        let text = format!("{name} runs revision {revision}, {} ms after it was sent", after.as_millis());
        let detail = json!({ "time_to_live_seconds": live });
        self.events.tell(Told { detail, ..self.about(EventKind::Ack, snapshot, text) });
    }

    async fn refused(&self, snapshot: &Snapshot, why: String, unusable: bool) {
        let (revision, name) = (snapshot.held.revision, &self.instance.name);
        if !self.instance.failed(why.clone(), unusable) {
            // It was told already: a handshake is tried again and again.
            return;
        }
        tracing::error!(instance = %name, revision, why, "refused");
        let text = format!("{name} refuses revision {revision}: {why}");
        self.events.tell(self.about(EventKind::Refused, snapshot, text));
        self.hear(What::Refuses { digest: Arc::clone(snapshot.digest()), reason: why }).await;
    }

    /// Where TLS is set otherwise than before: does it speak TLS still? Why not.
    async fn shake(&self, memory: &mut Memory, snapshot: &Snapshot) -> Option<String> {
        if memory.shaken == Some(snapshot.tls) {
            return None;
        }
        let shaken = handshake::everywhere(&mut memory.api, &self.traefik, snapshot).await;
        if shaken.is_none() {
            memory.shaken = Some(snapshot.tls);
        }
        shaken
    }

    /// Reads everything that it runs, and tells what is wrong with it.
    async fn read(&self, memory: &mut Memory, idle: bool) -> Result<(), running::Error> {
        if !idle {
            // Before the rest: what changes meanwhile must show as a change.
            memory.overview = Some(memory.api.overview().await?);
        }
        let began = Instant::now();
        let at_once = if idle { memory.api.everything_at_once().await } else { memory.api.everything().await };
        let running = match at_once {
            // What only looks like Traefik may not have it.
            Err(running::Error::Status(..) | running::Error::Nonsense(..)) if idle => memory.api.everything().await?,
            running => running?,
        };
        memory.read = Some((Instant::now(), began.elapsed()));
        memory.checked = running.has_health_checks();
        if idle {
            // Unless it is another process with the same name, this is what it ran before.
            self.instance.looked(running.digest.as_deref());
        }
        self.told(&running);
        Ok(())
    }

    fn told(&self, running: &Running) {
        let Some(digest) = &running.digest else { return };
        let why = self.instance.sent(digest).and_then(|snapshot| found::pretence(&snapshot, running));
        if self.instance.pretends(why.clone())
            && let Some(why) = why
        {
            tracing::error!(instance = %self.instance.name, why, "not what it says");
            self.tell(EventKind::Late, format!("{}: {why}", self.instance.name));
        }
        let what = What::Runs { digest: digest.as_str().into(), found: found::found(running) };
        // It is read again and again: one that finds no room is not missed.
        drop(self.heard.try_send(Heard { instance: Arc::clone(&self.instance.name), what }));
    }

    async fn hear(&self, what: What) {
        let heard = Heard { instance: Arc::clone(&self.instance.name), what };
        // Nobody hears any more when everything stops.
        drop(self.heard.send(heard).await);
    }

    #[must_use]
    fn about(&self, kind: EventKind, snapshot: &Snapshot, text: String) -> Told {
        Told {
            instance: Some(self.instance.name.to_string()),
            revision: Some(snapshot.held.revision),
            digest: Some(snapshot.digest().to_string()),
            ..Told::new(kind, text)
        }
    }

    fn tell(&self, kind: EventKind, text: String) {
        let mut told = Told::new(kind, text);
        told.instance = Some(self.instance.name.to_string());
        self.events.tell(told);
    }
}
