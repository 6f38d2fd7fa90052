//! What the loop that follows the database tells becomes snapshots, records, status, metrics and lines of the log.

use std::{path::PathBuf, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use charliehub_proto::{
    event::EventKind,
    instance::{RefusedRoute, ServerHealth},
};
use jiff::Timestamp;
use metrics::{counter, gauge, histogram};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    auth::Auth,
    compile::MOST_RESOLVED,
    events::{Events, Told},
    expected::{Changed, Expectations},
    heard::{Found, Heard, What},
    instances::Instances,
    metrics as name,
    postgres::Pool,
    publish::{Decided, Holds, Outcome, Overview, Parts, Served, kept},
    record::Recorder,
    rotations::Rotations,
    snapshot::Current,
    status::Status,
    store::{
        listen::News,
        read::{Reading, by_key},
        reread::Reread,
        sync::Held,
    },
};

/// More reasons than this are not worth a line each.
const REASONS: usize = 20;

pub(super) struct Follow {
    pub(super) publisher: Parts,
    pub(super) recorder: Arc<Recorder>,
    /// Those of the parts, in their order.
    pub(super) recorders: Vec<Arc<Recorder>>,
    pub(super) current: Arc<Current>,
    pub(super) status: Arc<Status>,
    pub(super) auth: Arc<Auth>,
    pub(super) pool: Pool,
    /// Told of each reading, for the log of changes.
    pub(super) changes: Arc<Notify>,
    pub(super) data_dir: PathBuf,
    /// What instances do not take, as it is kept on disk.
    pub(super) holds: Holds,
    pub(super) instances: Arc<Instances>,
    pub(super) events: Arc<Events>,
    /// What was told last; `/debug` shows it.
    pub(super) overview: Arc<ArcSwap<Overview>>,
    /// What runs already and is not kept yet.
    pub(super) outcomes: Vec<Decided>,
    /// What the agents expect.
    pub(super) expectations: Arc<Expectations>,
    /// Who waits for a step of a rotation.
    pub(super) rotations: Arc<Rotations>,
    /// What was read, and not told there yet.
    pub(super) changed: Vec<(Changed, i64)>,
}

impl Follow {
    /// Hears one piece of news; answers which revisions wait for an operator.
    pub(super) fn hear(&mut self, news: News<Heard>) -> Vec<Held> {
        match news {
            News::Connected => self.events.tell(Told::new(EventKind::Database, "the database is followed")),
            News::Disconnected => {
                self.events.tell(Told::new(EventKind::Database, "the connection to the database was lost"));
                self.status.disconnected();
                self.pool.clear();
            }
            News::Tokens => self.auth.changed(),
            News::Rotations => self.rotations.changed(),
            News::Heard(heard) => self.heard(&heard),
            News::Read { reading, wishes } => {
                let revision = reading.held.revision;
                self.read(reading);
                let found = Reread { revision, rows: self.publisher.changed() };
                for wish in wishes {
                    if wish.send(found).is_err() {
                        tracing::debug!("who wanted everything read again did not wait for it");
                    }
                }
            }
            News::TooLarge(error) => {
                if self.status.too_large(error) {
                    tracing::error!(%error, "what the database holds is not read; what is served stays");
                }
            }
            News::Approved { held, rows } => {
                tracing::info!(revision = held.revision, "approved");
                self.outcomes.extend(self.publisher.approve(held, &by_key(rows), Instant::now()));
            }
            News::Quiet => {
                if !self.outcomes.is_empty() {
                    self.tell_parts();
                }
                for (part, outcome) in std::mem::take(&mut self.outcomes) {
                    match part {
                        None => self.keep(outcome),
                        Some(at) => self.keep_part(at, outcome),
                    }
                }
                for (changed, revision) in std::mem::take(&mut self.changed) {
                    self.expectations.take(self.publisher.newest(), changed, revision);
                }
            }
        }
        self.publisher.withheld()
    }

    /// An instance did something with what it was given.
    fn heard(&mut self, heard: &Heard) {
        let Some(instance) = self.instances.find(&heard.instance) else { return };
        if let What::Runs { found, .. } = &heard.what {
            let (refused, servers) = (refused(&self.publisher, found), servers(&self.publisher, found));
            if instance.found(refused.clone(), servers) {
                self.tell_refused(&heard.instance, &refused);
            }
        }
        self.publisher.hear(heard, Timestamp::now());
        if matches!(heard.what, What::Version(_)) {
            instance.is_known();
        }
        self.tell_held_back();
        self.instances.hear();
    }

    fn tell_refused(&self, instance: &Arc<str>, refused: &[RefusedRoute]) {
        let text = match refused {
            [] => format!("{instance} has no complaints any more"),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
                format!("{instance} complains of {}: {}{more}", first.name, first.errors.join("; "))
            }
        };
        for one in refused.iter().take(REASONS) {
            let (name, errors) = (&one.name, one.errors.join("; "));
            tracing::error!(%instance, name, status = one.status, errors, "refused by Traefik");
        }
        let mut told = Told::new(EventKind::RefusedRoutes, text);
        told.instance = Some(instance.to_string());
        told.detail = json!(refused);
        self.events.tell(told);
    }

    /// Says which rows an instance is given otherwise, where that is new, and keeps it for the next start.
    fn tell_held_back(&mut self) {
        let holds = self.publisher.holds();
        if holds != self.holds {
            if let Err(error) = kept::write(&self.data_dir, &holds) {
                tracing::error!(%error, "cannot keep on disk what Traefiks do not take; a start would find it out again");
            }
            self.holds = holds;
        }
        for instance in self.instances.all() {
            let now = self.publisher.held_back(&instance.name);
            let before = instance.holds_back(now.clone());
            if before != now {
                instance.measure();
            }
            let new = now.iter().filter(|one| !before.contains(one));
            let again = before.iter().filter(|one| now.iter().all(|held| held.owner != one.owner));
            for (held, text) in new
                .map(|one| {
                    (
                        one,
                        format!("{} is not given {} {}: {}", instance.name, one.owner.kind, one.owner.name, one.reason),
                    )
                })
                .chain(again.map(|one| {
                    (one, format!("{} is given {} {} again", instance.name, one.owner.kind, one.owner.name))
                }))
            {
                tracing::warn!(instance = %instance.name, row = held.owner.name, "{text}");
                let mut told = Told::new(EventKind::HeldBack, text);
                told.instance = Some(instance.name.to_string());
                told.revision = Some(held.revision);
                told.detail = json!(held);
                self.events.tell(told);
            }
        }
    }

    fn read(&mut self, reading: Reading) {
        let started = Instant::now();
        let (held, forked, changed) = (reading.held, reading.forked, reading.rows.len());
        if forked {
            tracing::error!(
                revision = held.revision,
                "what was held is not in this database's history: commits were lost in a failover, or a backup was \
                 restored. Everything was read again"
            );
        }
        let which = if reading.everything {
            Changed::Everything
        } else {
            Changed::These(reading.rows.iter().map(|fetched| fetched.key).collect())
        };
        self.changed.push((which, held.revision));
        let outcomes = self.publisher.take(reading, started);
        if forked {
            counter!(name::FORKS).increment(1); // who reads it finds what was read again
        }
        self.status.read(forked);
        self.changes.notify_one();
        let took = started.elapsed();
        if outcomes.iter().any(|(_, outcome)| !matches!(outcome, Outcome::Nothing)) {
            histogram!(name::COMPILE).record(took.as_secs_f64());
            tracing::debug!(revision = held.revision, changed, ?took, "compiled");
        }
        self.outcomes.extend(outcomes);
    }

    fn keep(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => return,
            Outcome::Served(served) => {
                tracing::info!(
                    revision = served.snapshot.held.revision,
                    digest = served.snapshot.digest().get(..12),
                    routes = served.snapshot.size.routes,
                    "serving"
                );
                gauge!(name::REVISION).set(to_f64(served.snapshot.held.revision));
                self.events.tell(served_event(&served));
                self.recorder.served(served);
            }
            Outcome::Withheld { served, candidate } => {
                gauge!(name::REVISION).set(to_f64(served.snapshot.held.revision));
                tracing::error!(
                    revision = candidate.held.revision,
                    serving = served.snapshot.held.revision,
                    reason = %candidate.reason,
                    "withheld: run `charliehub-provider approve {0}` or `discard {0}`", candidate.held.revision
                );
                let revision = candidate.held.revision;
                let mut told = Told::new(
                    EventKind::Withheld,
                    format!("revision {revision} waits for an operator: {}", candidate.reason),
                );
                told.revision = Some(revision);
                self.events.tell(told);
                self.recorder.served(served);
                self.recorder.withheld(candidate);
            }
        }
        self.tell();
        self.tell_held_back();
    }

    /// Keeps what was decided about a part, and says so.
    fn keep_part(&self, at: usize, outcome: Outcome) {
        let Some((part, recorder)) = self.current.parts().get(at).zip(self.recorders.get(at)) else { return };
        let selector = &part.selector;
        match outcome {
            Outcome::Nothing => {}
            Outcome::Served(served) => {
                let (digest, routes) = (served.snapshot.digest().get(..12), served.snapshot.size.routes);
                tracing::info!(part = %selector, revision = served.snapshot.held.revision, digest, routes, "serving a part");
                recorder.served(served);
            }
            Outcome::Withheld { served, candidate } => {
                let revision = candidate.held.revision;
                tracing::error!(
                    part = %selector, revision, serving = served.snapshot.held.revision, reason = %candidate.reason,
                    "withheld in a part: run `charliehub-provider approve {revision}` or `discard {revision}`"
                );
                let text = format!("revision {revision} waits for an operator in {selector}: {}", candidate.reason);
                let mut told = Told::new(EventKind::Withheld, text);
                told.revision = Some(revision);
                self.events.tell(told);
                recorder.served(served);
                recorder.withheld(candidate);
            }
        }
    }

    /// Says of each part what is served of it, and what waits.
    fn tell_parts(&self) {
        let waits = !self.publisher.withheld().is_empty();
        gauge!(name::WITHHELD).set(f64::from(u8::from(waits)));
        let mut reasons = Vec::new();
        for part in self.current.parts() {
            let selector = part.selector.to_string();
            let served = part.current.load();
            let withheld = served.as_ref().and_then(|snapshot| snapshot.withheld);
            let routes = served.as_ref().map_or(0, |snapshot| i64::try_from(snapshot.size.routes).unwrap_or(i64::MAX));
            gauge!(name::PART_ROUTES, "part" => selector.clone()).set(to_f64(routes));
            gauge!(name::PART_WITHHELD, "part" => selector.clone()).set(f64::from(u8::from(withheld.is_some())));
            if let Some(revision) = withheld {
                reasons.push(format!(
                    "withheld: revision {revision} waits in {selector} for `approve {revision}` or `discard {revision}`"
                ));
            } else if served.is_none() {
                reasons.push(format!("no route is in {selector} yet: polls are held until its first row"));
            }
        }
        self.status.parts(reasons);
    }

    /// Counts the rows by state, and names those that are newly quarantined.
    fn tell(&mut self) {
        let overview = Overview::of(self.publisher.newest());
        let Overview { counts, quarantined } = &overview;
        gauge!(name::QUARANTINED).set(to_f64(i64::try_from(counts.quarantined).unwrap_or(i64::MAX)));
        for protocol in ["http", "tcp"] {
            for state in ["live", "maintenance", "closed", "off"] {
                let found = counts.routes.iter().find(|((p, s), _)| p.as_str() == protocol && s.as_str() == state);
                let count = found.map_or(0, |(_, count)| i64::try_from(*count).unwrap_or(i64::MAX));
                gauge!(name::ROUTES, "protocol" => protocol, "state" => state).set(to_f64(count));
            }
        }
        let before = self.overview.load();
        if counts.resolved > MOST_RESOLVED && before.counts.resolved <= MOST_RESOLVED {
            tracing::warn!(
                names = counts.resolved,
                "so many rows with tls_mode acme share routers that each change takes Traefik long; use a wildcard, the default \
                 certificate, or tls.certificate fragments"
            );
        }
        let new = quarantined.iter().filter(|(key, _)| !before.quarantined.contains_key(key));
        for (key, (name, reason)) in new.take(REASONS) {
            tracing::warn!(table = ?key.table, id = %key.id, row = name, reason, "quarantined: its place answers 503");
            let mut told = Told::new(EventKind::Quarantined, format!("{name} is closed: {reason}"));
            told.detail = json!({ "id": key.id, "table": key.table, "name": name, "reason": reason });
            self.events.tell(told);
        }
        self.overview.store(Arc::new(overview));
    }
}

/// What an instance complains of, with the rows that it came from.
fn refused(publisher: &Parts, found: &Found) -> Vec<RefusedRoute> {
    let told = found.faulty.iter().map(|one| RefusedRoute {
        protocol: one.protocol.to_owned(),
        object: one.kind.trim_end_matches('s').to_owned(),
        name: one.name.clone(),
        status: one.status.clone(),
        errors: one.errors.clone(),
        owner: one.name.strip_suffix("@http").and_then(|name| publisher.owner(one.protocol, one.kind, name)),
    });
    told.collect()
}

fn servers(publisher: &Parts, found: &Found) -> Vec<ServerHealth> {
    let told = found.servers.iter().map(|one| ServerHealth {
        protocol: one.protocol.to_owned(),
        service: one.service.clone(),
        url: one.url.clone(),
        up: one.up,
        owner: one.service.strip_suffix("@http").and_then(|name| publisher.owner(one.protocol, "services", name)),
    });
    told.collect()
}

fn served_event(served: &Served) -> Told {
    let (revision, routes) = (served.snapshot.held.revision, served.snapshot.size.routes);
    let mut told = Told::new(EventKind::Revision, format!("revision {revision} is served, with {routes} routes"));
    told.revision = Some(revision);
    told.digest = Some(served.snapshot.digest().to_string());
    told
}

/// Metrics are floating point; revisions and counts are far from where that loses a digit.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn to_f64(n: i64) -> f64 {
    n as f64
}
