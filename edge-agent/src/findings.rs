//! What all groups believe now, in one table: written by each after its looks, read by reports, metrics and `check`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use charliehub_proto::finding::{Finding, Status};
use tokio::sync::watch;

use crate::steady::{Key, key_of};

/// The table.
#[derive(Debug)]
pub struct Findings {
    groups: Mutex<BTreeMap<&'static str, BTreeMap<Key, Finding>>>,
    /// Moves when a status changes, a target comes or goes.
    changes: watch::Sender<u64>,
}

impl Default for Findings {
    fn default() -> Self {
        Self { groups: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Findings {
    /// Replaces what a group believes. Each target whose status is another than before is told in the log.
    pub fn replace(&self, group: &'static str, findings: impl IntoIterator<Item = Finding>) {
        let next: BTreeMap<Key, Finding> = findings.into_iter().map(|one| (key_of(&one), one)).collect();
        let mut groups = self.lock();
        let last = groups.entry(group).or_default();
        let mut has_changed = last.keys().any(|key| !next.contains_key(key));
        for (key, finding) in &next {
            let before = last.get(key).map(|before| before.status);
            if before != Some(finding.status) {
                has_changed = true;
                tell(before, finding);
            }
        }
        *last = next;
        drop(groups);
        if has_changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Of one group.
    pub fn of(&self, group: &'static str) -> Vec<Finding> {
        self.lock().get(group).map(|findings| findings.values().cloned().collect()).unwrap_or_default()
    }

    /// Of all groups, by check and target.
    pub fn all(&self) -> Vec<Finding> {
        let groups = self.lock();
        let mut all: Vec<Finding> = groups.values().flat_map(BTreeMap::values).cloned().collect();
        drop(groups);
        all.sort_by(|a, b| (&a.check, &a.target).cmp(&(&b.check, &b.target)));
        all
    }

    /// Tells when a status changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, BTreeMap<Key, Finding>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(before: Option<Status>, finding: &Finding) {
    let Finding { check, target, status, text, .. } = finding;
    let remedy = finding.remedy.as_deref().unwrap_or_default();
    let was = before.map_or("new", Status::as_str);
    match status {
        Status::Ok if before.is_none() => tracing::debug!(check, target, %status, text, "finding"),
        Status::Ok => tracing::info!(check, target, %status, was, text, "finding"),
        Status::Unknown | Status::Warning => tracing::warn!(check, target, %status, was, text, remedy, "finding"),
        Status::Critical => tracing::error!(check, target, %status, was, text, remedy, "finding"),
    }
}
