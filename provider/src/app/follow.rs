//! What the loop that follows the database tells becomes snapshots, records, status, metrics and lines of the log.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::Notify;

use crate::{
    auth::Auth,
    metrics as name,
    postgres::Pool,
    publish::{Outcome, Publisher, quarantined},
    record::Recorder,
    row::Key,
    serve::health::Status,
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
    pub(super) publisher: Publisher,
    pub(super) recorder: Arc<Recorder>,
    pub(super) status: Arc<Status>,
    pub(super) auth: Arc<Auth>,
    pub(super) pool: Pool,
    /// Told of each reading, for the log of changes.
    pub(super) changes: Arc<Notify>,
    pub(super) told: BTreeSet<Key>,
    /// What runs already and is not kept yet.
    pub(super) outcomes: Vec<Outcome>,
}

impl Follow {
    /// Hears one piece of news; answers which revisions wait for an operator.
    pub(super) fn hear(&mut self, news: News) -> Vec<Held> {
        match news {
            News::Connected => {}
            News::Disconnected => {
                self.status.disconnected();
                self.pool.clear();
            }
            News::Tokens => self.auth.changed(),
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
                let outcome = self.publisher.approve(held, by_key(rows), Instant::now());
                self.outcomes.push(outcome);
            }
            News::Quiet => {
                for outcome in std::mem::take(&mut self.outcomes) {
                    self.keep(outcome);
                }
            }
        }
        self.publisher.withheld().to_vec()
    }

    fn read(&mut self, reading: Reading) {
        let started = Instant::now();
        let (held, forked, changed) = (reading.held, reading.forked, reading.rows.len());
        if forked {
            counter!(name::FORKS).increment(1);
            tracing::error!(
                revision = held.revision,
                "what was held is not in this database's history: commits were lost in a failover, or a backup was \
                 restored. Everything was read again"
            );
        }
        let outcome = self.publisher.take(reading, started);
        self.status.read(forked);
        self.changes.notify_one();
        let took = started.elapsed();
        if !matches!(outcome, Outcome::Nothing) {
            histogram!(name::COMPILE).record(took.as_secs_f64());
            tracing::debug!(revision = held.revision, changed, ?took, "compiled");
        }
        self.outcomes.push(outcome);
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
                gauge!(name::WITHHELD).set(0.0);
                self.recorder.served(served);
            }
            Outcome::Withheld { served, candidate } => {
                gauge!(name::REVISION).set(to_f64(served.snapshot.held.revision));
                gauge!(name::WITHHELD).set(1.0);
                tracing::error!(
                    revision = candidate.held.revision,
                    serving = served.snapshot.held.revision,
                    reason = %candidate.reason,
                    "withheld: run `charliehub-provider approve {0}` or `discard {0}`", candidate.held.revision
                );
                self.recorder.served(served);
                self.recorder.withheld(candidate);
            }
        }
        self.tell();
    }

    /// Counts the rows by state, and names those that are newly quarantined.
    fn tell(&mut self) {
        let compiler = self.publisher.newest();
        let counts = compiler.counts();
        gauge!(name::QUARANTINED).set(to_f64(i64::try_from(counts.quarantined).unwrap_or(i64::MAX)));
        for protocol in ["http", "tcp"] {
            for state in ["live", "maintenance", "closed", "off"] {
                let found = counts.routes.iter().find(|((p, s), _)| p.as_str() == protocol && s.as_str() == state);
                let count = found.map_or(0, |(_, count)| i64::try_from(*count).unwrap_or(i64::MAX));
                gauge!(name::ROUTES, "protocol" => protocol, "state" => state).set(to_f64(count));
            }
        }
        let now: BTreeSet<Key> = quarantined(compiler).map(|(key, _)| *key).collect();
        for (key, reason) in quarantined(compiler).filter(|(key, _)| !self.told.contains(key)).take(REASONS) {
            let name = compiler.rows().get(key).map(|row| row.name());
            tracing::warn!(table = ?key.table, id = %key.id, row = name, reason, "quarantined: its place answers 503");
        }
        self.told = now;
    }
}

/// Metrics are floating point; revisions and counts are far from where that loses a digit.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn to_f64(n: i64) -> f64 {
    n as f64
}
