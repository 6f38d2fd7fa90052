//! What happened: told once, kept in one bounded buffer, read by whoever listens in his own time.
//!
//! There is no queue for each reader, so that a slow one costs nobody anything: it finds that older events are gone, and
//! is told so by one of kind `missed`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use charliehub_proto::event::{Event, EventKind};
use jiff::Timestamp;
use metrics::counter;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics as name;

/// Events kept; older ones are gone.
const KEPT: usize = 1024;
/// Streams at once. Each holds a connection and some buffers.
const STREAMS: usize = 256;

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
    /// What ids begin with. An id of another life says nothing about this one.
    life: String,
    kept: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the newest, so of how many there were.
    newest: watch::Sender<u64>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Default for Events {
    fn default() -> Self {
        Self::until(CancellationToken::new())
    }
}

/// What a reader gets.
#[derive(Debug)]
pub struct Since {
    pub events: Vec<Arc<Event>>,
    /// Events between what the reader had and the first of these are gone.
    pub missed: bool,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what is told from now on.
    Now,
    /// With the oldest that is kept.
    Oldest,
    /// Behind the event of this id.
    After(String),
}

impl Events {
    /// Whose streams end with `stop`.
    pub fn until(stop: CancellationToken) -> Self {
        Self {
            life: format!("{:x}", Timestamp::now().as_millisecond()),
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
            streams: Arc::new(Semaphore::new(STREAMS)),
            stop,
        }
    }

    pub fn tell(&self, told: Told) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.newest.borrow() + 1;
        let Told { kind, text, revision, instance, digest, detail } = told;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let id = self.id(number);
        kept.push_back(Arc::new(Event { id, at: Timestamp::now(), kind, text, revision, instance, digest, detail }));
        // Under the lock, so that who wakes up finds it there.
        self.newest.send_replace(number);
        drop(kept);
        counter!(name::EVENTS, "kind" => kind.as_str()).increment(1);
    }

    /// The events after number `after`, oldest first; 0: all that are kept.
    pub fn since(&self, after: u64) -> Since {
        let (events, gone) = self.behind(after, KEPT);
        Since { events, missed: after > 0 && gone > 0 }
    }

    /// Wakes up with each new event.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub fn reader(self: &Arc<Self>, begin: Begin) -> Reader {
        let (at, is_stranger) = match begin {
            Begin::Now => (*self.newest.borrow(), false),
            Begin::Oldest => (self.gone(), false),
            Begin::After(id) => self.number(&id).map_or_else(|| (self.gone(), true), |number| (number, false)),
        };
        Reader { news: self.subscribe(), events: Arc::clone(self), at, is_stranger }
    }

    /// A place among the streams, as long as it is held; none is free when there are too many.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// When streams must end.
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.life)
    }

    /// The number of an event of this life.
    fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.life)?.strip_prefix('-')?.parse().ok()?;
        (number <= *self.newest.borrow()).then_some(number)
    }

    /// The number of the last that is not kept any more.
    fn gone(&self) -> u64 {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *self.newest.borrow() - kept.len() as u64
    }

    /// At most `most` events behind number `after`, and how many before them are gone.
    fn behind(&self, after: u64, most: usize) -> (Vec<Arc<Event>>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = *self.newest.borrow() - kept.len() as u64;
        let from = usize::try_from(after.saturating_sub(gone)).unwrap_or(usize::MAX);
        (kept.iter().skip(from).take(most).cloned().collect(), gone.saturating_sub(after))
    }
}

/// One who reads event after event, and where he stands.
#[derive(Debug)]
pub struct Reader {
    events: Arc<Events>,
    news: watch::Receiver<u64>,
    /// The number of the last that he had.
    at: u64,
    /// He came from another life, and was not told yet.
    is_stranger: bool,
}

impl Reader {
    /// What is there and he has not had, oldest first: so many at most, behind a `missed` where some are gone.
    pub fn take(&mut self, most: usize) -> Vec<Arc<Event>> {
        let (events, gone) = self.events.behind(self.at, most);
        self.at += gone;
        let missed = match (std::mem::take(&mut self.is_stranger), gone) {
            (true, _) => Some(missed(self.id(), None)),
            (false, 1..) => Some(missed(self.id(), Some(gone))),
            (false, 0) => None,
        };
        self.at += events.len() as u64;
        missed.map(Arc::new).into_iter().chain(events).collect()
    }

    /// Waits until there is something to take.
    pub async fn wait(&mut self) {
        let at = self.at;
        if !self.is_stranger && self.news.wait_for(|newest| *newest > at).await.is_err() {
            std::future::pending::<()>().await; // `events` is ours too, so it lives
        }
    }

    /// The id of where he stands: who begins there misses nothing and has nothing twice.
    pub fn id(&self) -> String {
        self.events.id(self.at)
    }
}

/// Says that all up to `id` is gone: `count` events, where that is known.
pub fn missed(id: String, count: Option<u64>) -> Event {
    let text = match count {
        Some(1) => "1 event was not read in time and is gone".to_owned(),
        Some(count) => format!("{count} events were not read in time and are gone"),
        None => "the provider was started again; what happened before that and was not read is gone".to_owned(),
    };
    let detail = count.map_or(Value::Null, |count| json!({ "count": count }));
    let (revision, instance, digest) = (None, None, None);
    Event { id, at: Timestamp::now(), kind: EventKind::Missed, text, revision, instance, digest, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &Events, count: usize) {
        for n in 1..=count {
            events.tell(Told::new(EventKind::Revision, n.to_string()));
        }
    }

    fn texts(taken: &[Arc<Event>]) -> Vec<&str> {
        taken.iter().map(|event| &*event.text).collect()
    }

    #[test]
    fn a_reader_gets_what_came_since_and_hears_when_it_missed_some() {
        let events = Events::default();
        assert!(events.since(0).events.is_empty());
        told(&events, 3);
        let since = events.since(1);
        assert_eq!(texts(&since.events), ["2", "3"]);
        assert!(!since.missed && events.since(3).events.is_empty());
        told(&events, KEPT);
        let since = events.since(2);
        assert!(since.missed && since.events.len() == KEPT);
        assert!(!events.since(3).missed, "3 was the last that is gone");
        assert!(!events.since(0).missed);
    }

    #[test]
    fn who_comes_back_to_an_id_goes_on_behind_it() {
        let events = Arc::new(Events::default());
        told(&events, 3);
        let mut reader = events.reader(Begin::Oldest);
        assert_eq!(texts(&reader.take(2)), ["1", "2"]);
        let mut again = events.reader(Begin::After(reader.id()));
        assert_eq!(texts(&again.take(9)), ["3"]);
        let third = events.since(2).events.remove(0);
        assert_eq!((again.id(), again.take(9).len()), (third.id.clone(), 0));
        assert!(events.reader(Begin::Now).take(9).is_empty());
    }

    #[test]
    fn a_gap_is_told_with_its_size_and_once() {
        let events = Arc::new(Events::default());
        let mut reader = events.reader(Begin::Now);
        told(&events, KEPT + 7);
        let taken = reader.take(2);
        assert_eq!(texts(&taken), ["7 events were not read in time and are gone", "8", "9"]);
        assert_eq!((taken[0].kind, &taken[0].detail), (EventKind::Missed, &json!({ "count": 7 })));
        let mut again = events.reader(Begin::After(taken[0].id.clone()));
        assert_eq!(texts(&again.take(1)), ["8"], "its id is where the gap ends");
        assert_eq!(reader.take(KEPT).len(), KEPT - 2);
    }

    #[test]
    fn an_id_of_another_life_or_of_nobody_is_told_as_a_gap() {
        let events = Arc::new(Events::default());
        for id in ["1-2", "", "-", "x", &events.id(1), &format!("{}-99999999999999999999", events.life)] {
            let mut reader = events.reader(Begin::After(id.to_owned()));
            let taken = reader.take(9);
            assert_eq!(taken.len(), 1, "{id}");
            assert_eq!((taken[0].kind, &taken[0].detail), (EventKind::Missed, &Value::Null), "{id}");
            assert!(reader.take(9).is_empty(), "{id}");
        }
    }

    #[tokio::test]
    async fn a_reader_wakes_up_with_what_is_told() {
        let events = Arc::new(Events::default());
        let mut reader = events.reader(Begin::Now);
        tokio::join!(reader.wait(), async { told(&events, 1) });
        assert_eq!(texts(&reader.take(9)), ["1"]);
    }
}
