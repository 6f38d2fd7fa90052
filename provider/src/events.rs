//! What happened: told once, kept in one bounded buffer, read by whoever listens in his own time.
//!
//! There is no queue for each reader, so that a slow one costs nobody anything: it finds that older events are gone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use charliehub_proto::event::{Event, EventKind};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

/// Events kept; older ones are gone.
const KEPT: usize = 1024;

/// An event before it has a number and a time.
#[derive(Debug)]
pub struct Told {
    pub kind: EventKind,
    pub text: String,
    pub revision: Option<i64>,
    pub instance: Option<String>,
    pub digest: Option<String>,
    pub detail: Value,
}

impl Told {
    pub fn new(kind: EventKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), revision: None, instance: None, digest: None, detail: Value::Null }
    }
}

/// The newest events, for all.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

/// What a reader gets.
#[derive(Debug)]
pub struct Since {
    pub events: Vec<Arc<Event>>,
    /// Events between what the reader had and the first of these are gone.
    pub missed: bool,
}

impl Events {
    pub fn tell(&self, told: Told) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.newest.borrow() + 1;
        let Told { kind, text, revision, instance, digest, detail } = told;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Event { id, at: Timestamp::now(), kind, text, revision, instance, digest, detail }));
        // Under the lock, so that who wakes up finds it there.
        self.newest.send_replace(id);
    }

    /// The events after `id`, oldest first; 0: all that are kept.
    pub fn since(&self, id: u64) -> Since {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.front().map_or(0, |event| event.id);
        let from = kept.partition_point(|event| event.id <= id);
        Since { events: kept.range(from..).cloned().collect(), missed: id > 0 && id + 1 < first }
    }

    /// Wakes up with each new event.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_came_since_and_hears_when_it_missed_some() {
        let events = Events::default();
        assert!(events.since(0).events.is_empty());
        for n in 0..3 {
            events.tell(Told::new(EventKind::Revision, format!("{n}")));
        }
        let since = events.since(1);
        assert_eq!(since.events.iter().map(|event| (event.id, &*event.text)).collect::<Vec<_>>(), [(2, "1"), (3, "2")]);
        assert!(!since.missed && events.since(3).events.is_empty());
        for n in 0..KEPT {
            events.tell(Told::new(EventKind::Ack, format!("{n}")));
        }
        let since = events.since(2);
        assert!(since.missed && since.events.len() == KEPT);
        assert!(!events.since(3).missed, "3 was the last that is gone");
    }
}
