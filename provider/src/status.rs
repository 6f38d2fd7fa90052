//! How what is served relates to the database: told by the loop that follows it, asked by whoever shows it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{memory::TooLarge, snapshot::Snapshot};

#[derive(Clone, Copy, Debug)]
enum Link {
    Followed,
    Lost { since: Instant },
}

/// How what is served relates to the database.
#[derive(Debug)]
pub struct Status(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    /// The database was read at least once since we started.
    read: bool,
    forked: bool,
    /// Why the newest rows could not be read since the last reading.
    too_large: Option<TooLarge>,
    /// What is not right with our certificate.
    tls: Option<String>,
    /// What is not as it should be in parts of the rows.
    parts: Vec<String>,
}

impl Default for Status {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            link: Link::Lost { since: Instant::now() },
            read: false,
            forked: false,
            too_large: None,
            tls: None,
            parts: Vec::new(),
        }))
    }
}

/// What `/readyz` says.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// What is not as it should be, though it may be served.
    pub reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

impl Status {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A reading was taken: what is served is what the database says.
    pub fn read(&self, forked: bool) {
        self.with(|inner| {
            inner.read = true;
            inner.forked |= forked;
            inner.too_large = None;
            inner.link = Link::Followed;
        });
    }

    /// The newest rows have no room in memory. True when that was not so before.
    pub fn too_large(&self, error: TooLarge) -> bool {
        self.disconnected();
        self.with(|inner| inner.too_large.replace(error).is_none())
    }

    /// What is not right with our certificate; none when all is.
    pub fn tls(&self, trouble: Option<String>) {
        self.with(|inner| inner.tls = trouble);
    }

    /// What is not as it should be in parts of the rows.
    pub fn parts(&self, reasons: Vec<String>) {
        self.with(|inner| inner.parts = reasons);
    }

    pub fn disconnected(&self) {
        self.with(|inner| {
            if let Link::Followed = inner.link {
                inner.link = Link::Lost { since: Instant::now() };
            }
        });
    }

    /// Time since what is served was last known to be the newest.
    pub fn age(&self) -> Duration {
        match self.with(|inner| inner.link) {
            Link::Followed => Duration::ZERO,
            Link::Lost { since } => since.elapsed(),
        }
    }

    pub fn readiness(&self, snapshot: Option<&Snapshot>) -> Readiness {
        let (link, read, forked, too_large) =
            self.with(|inner| (inner.link, inner.read, inner.forked, inner.too_large));
        let (tls, parts) = self.with(|inner| (inner.tls.clone(), inner.parts.clone()));
        let mut reasons = Vec::new();
        if let Link::Lost { since } = link {
            let age = since.elapsed().as_secs();
            reasons.push(match (snapshot, read, too_large) {
                (None, _, Some(error)) => error.to_string(),
                (Some(_), _, Some(error)) => format!("stale: {error}"),
                (None, _, None) => {
                    "the database could not be read yet, and there is no last known good config".to_owned()
                }
                (Some(_), false, None) => {
                    format!("stale: the last known good config is served; no database since the start {age} s ago")
                }
                (Some(_), true, None) => format!("stale: no connection to the database for {age} s"),
            });
        }
        if snapshot.is_none() && read {
            reasons.push("no routes yet: polls are held until the first row".to_owned());
        }
        if let Some(revision) = snapshot.and_then(|snapshot| snapshot.withheld) {
            reasons
                .push(format!("withheld: revision {revision} waits for `approve {revision}` or `discard {revision}`"));
        }
        if forked {
            reasons.push("forked: the database lost commits that were served, or a backup was restored".to_owned());
        }
        reasons.extend(parts);
        reasons.extend(tls);
        Readiness {
            ready: snapshot.is_some() || read,
            reasons,
            revision: snapshot.map(|snapshot| snapshot.held.revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_something_right_can_be_answered() {
        let status = Status::default();
        assert!(!status.readiness(None).ready, "neither a config nor a database");
        status.read(false);
        let empty = status.readiness(None);
        assert!(empty.ready && empty.reasons[0].starts_with("no routes yet"), "{empty:?}");
        assert_eq!(status.age(), Duration::ZERO);
        status.disconnected();
        assert!(status.readiness(None).ready, "it was read once: polls are held");
        let error = TooLarge { rows: 100_000, needed: 600 << 20, left: 30 << 20, limit: 64 << 20 };
        assert!(status.too_large(error));
        assert!(!status.too_large(error), "once is enough for the log");
        assert!(status.readiness(None).reasons[0].contains("too large for the memory limit"));
        status.read(false);
        assert_eq!(status.readiness(None).reasons, empty.reasons);
    }
}
