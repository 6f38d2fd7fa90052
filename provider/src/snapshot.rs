//! The configuration of one revision, encoded once, immutable, and swapped whole.
//!
//! [`encode`] makes the bytes; [`disk`] keeps them for the next start; [`history`] keeps them in the database. Readers of
//! [`Current`] take no lock: they load the newest snapshot, or wait until its digest is another.

pub mod disk;
pub mod encode;
pub mod history;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    compile::{Pieces, Section},
    config::Selector,
    guard::Size,
    snapshot::encode::Encoded,
    store::sync::Held,
};

/// A config with its revision, its bodies, and what is asked of it on every request.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision that it is the config of; while one is withheld, the last good one.
    pub held: Held,
    /// The newest revision, when it waits for an operator.
    pub withheld: Option<i64>,
    pub encoded: Arc<Encoded>,
    pub size: Size,
    /// When the newest row of it was written, by the database's clock.
    pub written_at: Option<Timestamp>,
    /// Of what decides how its entry points speak TLS; equal for equal ones.
    pub tls: u64,
    /// What `GET /maintenance/{id}` says.
    pub messages: BTreeMap<Uuid, Arc<str>>,
    /// Those of every answer, made once.
    pub headers: HeaderMap,
}

impl Snapshot {
    pub fn new(
        held: Held,
        withheld: Option<i64>,
        encoded: Arc<Encoded>,
        size: Size,
        written_at: Option<Timestamp>,
        messages: BTreeMap<Uuid, Arc<str>>,
    ) -> Self {
        // One more has room: the content's encoding.
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.extend(HeaderValue::try_from(format!("\"{}\"", encoded.digest)).map(|etag| (header::ETAG, etag)));
        headers.insert("x-charliehub-revision", held.revision.into());
        headers.extend(withheld.map(|revision| (HeaderName::from_static("x-charliehub-withheld"), revision.into())));
        Self { held, withheld, encoded, size, written_at, tls: 0, messages, headers }
    }

    /// Says what of `pieces` decides how entry points speak TLS.
    #[must_use]
    pub fn with_tls_of(mut self, pieces: &Pieces) -> Self {
        let mut hasher = DefaultHasher::new();
        let sections = [Section::TlsCertificates, Section::TlsOptions, Section::TlsStores];
        sections.map(|section| pieces.get(&section)).hash(&mut hasher);
        self.tls = hasher.finish();
        self
    }

    /// Equal exactly for equal configs.
    pub fn digest(&self) -> &Arc<str> {
        &self.encoded.digest
    }
}

/// Snapshots that only one instance is given, by its name.
pub type Own = BTreeMap<Arc<str>, Arc<Snapshot>>;

/// Some of the rows, and the snapshot of these that is served to whom it is configured.
#[derive(Debug)]
pub struct Part {
    pub selector: Selector,
    pub current: Arc<Current>,
}

/// What is served: to all, and to some in its place.
#[derive(Debug)]
struct Now {
    all: Arc<Snapshot>,
    own: Own,
}

/// The snapshot that is served now.
#[derive(Debug)]
pub struct Current {
    now: ArcSwapOption<Now>,
    /// Counts the changes of what is served; those who wait listen to it.
    news: watch::Sender<u64>,
    /// The newest revision of which it is decided whether it runs; behind the swap.
    decided: watch::Sender<i64>,
    /// Each once, and whose instances are given a part.
    parts: Vec<Arc<Part>>,
    divided: BTreeMap<Arc<str>, Arc<Part>>,
}

impl Default for Current {
    fn default() -> Self {
        Self::divided([])
    }
}

impl Current {
    /// One of which these instances are given a part each, and all others everything.
    pub fn divided(selectors: impl IntoIterator<Item = (Arc<str>, Selector)>) -> Self {
        let (mut parts, mut divided) = (BTreeMap::new(), BTreeMap::new());
        for (instance, selector) in selectors {
            let new = || Arc::new(Part { selector: selector.clone(), current: Arc::default() });
            let part = parts.entry(selector.clone()).or_insert_with(new);
            divided.insert(instance, Arc::clone(part));
        }
        Self {
            now: ArcSwapOption::empty(),
            news: watch::Sender::new(0),
            decided: watch::Sender::new(0),
            parts: parts.into_values().collect(),
            divided,
        }
    }

    /// The parts that some instances are given, each once.
    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// The part that this instance is given; none: everything.
    pub fn part_of(&self, instance: &str) -> Option<&Arc<Part>> {
        self.divided.get(instance)
    }

    /// Where what this instance is given is swapped.
    fn of(&self, instance: &str) -> &Self {
        self.part_of(instance).map_or(self, |part| &part.current)
    }

    /// What waits for an operator: a digest that is served, and the revision that is withheld there.
    pub fn waiting(&self) -> Option<(Arc<str>, i64)> {
        let all = [self].into_iter().chain(self.parts.iter().map(|part| &*part.current));
        let waiting = all.filter_map(|one| one.load().and_then(|now| Some((Arc::clone(now.digest()), now.withheld?))));
        waiting.max_by_key(|(_, revision)| *revision)
    }

    /// What `GET /maintenance/{id}` says, wherever that row is served.
    pub fn message(&self, id: &Uuid) -> Option<Arc<str>> {
        let mut all = [self].into_iter().chain(self.parts.iter().map(|part| &*part.current));
        all.find_map(|one| one.load()?.messages.get(id).map(Arc::clone))
    }

    /// What all get.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.now.load().as_ref().map(|now| Arc::clone(&now.all))
    }

    /// What this instance gets.
    pub fn load_for(&self, instance: &str) -> Option<Arc<Snapshot>> {
        // Nearly always nobody has one of his own.
        let own = |now: &Now| if now.own.is_empty() { None } else { now.own.get(instance).cloned() };
        self.of(instance).now.load().as_ref().map(|now| own(now).unwrap_or_else(|| Arc::clone(&now.all)))
    }

    /// True when this instance gets something else than the others.
    pub fn has_own(&self, instance: &str) -> bool {
        self.of(instance).now.load().as_ref().is_some_and(|now| !now.own.is_empty() && now.own.contains_key(instance))
    }

    /// Replaces what is served, and wakes those who wait when a Traefik would see a difference.
    pub fn swap(&self, all: Snapshot, own: Own) -> Arc<Snapshot> {
        let all = Arc::new(all);
        self.put(Now { all: Arc::clone(&all), own });
        all
    }

    /// Replaces what one instance gets; with `None`, by what all get.
    pub fn swap_for(&self, instance: &Arc<str>, snapshot: Option<Arc<Snapshot>>) {
        let Some(now) = self.now.load_full() else { return };
        let mut own = now.own.clone();
        own.remove(instance);
        own.extend(snapshot.map(|snapshot| (Arc::clone(instance), snapshot)));
        self.put(Now { all: Arc::clone(&now.all), own });
    }

    /// There is one who swaps: the publisher.
    fn put(&self, now: Now) {
        let digests = |now: &Now| -> Vec<Arc<str>> {
            now.own.values().chain([&now.all]).map(|snapshot| Arc::clone(snapshot.digest())).collect()
        };
        let next = digests(&now);
        let before = self.now.swap(Some(Arc::new(now)));
        if before.is_none_or(|before| digests(&before) != next) {
            self.news.send_modify(|n| *n += 1);
        }
    }

    /// It is decided what runs while `revision` is the newest: what was swapped in is seen by who waits for it.
    pub fn decide(&self, revision: i64) {
        self.decided.send_replace(revision);
    }

    /// What is served once `revision` is read and judged; `None`: nothing yet. Cancel it to stop waiting.
    pub async fn decided(&self, revision: i64) -> Option<Arc<Snapshot>> {
        drop(self.decided.subscribe().wait_for(|decided| *decided >= revision).await);
        self.load()
    }

    /// The first snapshot for this instance whose digest is not `known`; with `None`, the first at all. Cancel it to stop
    /// waiting.
    pub async fn other_than(&self, instance: &str, known: Option<&str>) -> Arc<Snapshot> {
        let mut news = self.of(instance).news.subscribe();
        loop {
            news.mark_unchanged();
            if let Some(snapshot) = self.load_for(instance)
                && known.is_none_or(|known| &**snapshot.digest() != known)
            {
                return snapshot;
            }
            // The sender lives in `self`, so this ends only with news.
            drop(news.changed().await);
        }
    }
}

/// True when a client takes gzip, by its `Accept-Encoding`.
pub fn accepts_gzip(header: Option<&HeaderValue>) -> bool {
    let Some(accepted) = header.and_then(|header| header.to_str().ok()) else { return false };
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn snapshot(digest: &str, revision: i64) -> Snapshot {
        let encoded = Encoded::compressed(digest.into(), Bytes::new(), 0);
        let held = Held { revision, token: Uuid::nil() };
        Snapshot::new(held, None, Arc::new(encoded), Size::default(), None, BTreeMap::new())
    }

    #[tokio::test]
    async fn those_who_wait_see_the_first_other_digest_and_only_that() {
        let current = Arc::new(Current::default());
        let first = current.other_than("hub2", None);
        current.swap(snapshot("a", 1), Own::new());
        assert_eq!(&**first.await.digest(), "a");
        let waiting = current.other_than("hub2", Some("a"));
        tokio::pin!(waiting);
        current.swap(snapshot("a", 2), Own::new());
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "the same digest is no news");
        current.swap(snapshot("b", 3), Own::new());
        assert_eq!(waiting.await.held.revision, 3);
    }

    #[tokio::test]
    async fn an_instance_that_is_given_a_part_sees_that_and_nothing_else() {
        let selector = |share: &str| Selector { share: share.parse().ok(), ..Selector::default() };
        let of = [("a", "1/2"), ("b", "2/2"), ("c", "1/2")];
        let current = Current::divided(of.map(|(instance, share)| (instance.into(), selector(share))));
        assert_eq!(current.parts().len(), 2, "one for those who select the same");
        current.swap(snapshot("all", 1), Own::new());
        let digest = |instance: &str| current.load_for(instance).map(|snapshot| snapshot.digest().to_string());
        assert_eq!((digest("hub2").as_deref(), digest("a")), (Some("all"), None));
        current.part_of("a").unwrap().current.swap(snapshot("first", 1), Own::new());
        assert_eq!((digest("a").as_deref(), digest("c").as_deref(), digest("b")), (Some("first"), Some("first"), None));
        let waiting = current.other_than("b", None);
        tokio::pin!(waiting);
        current.swap(snapshot("all of 2", 2), Own::new());
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "nothing of it is in its part");
        current.part_of("b").unwrap().current.swap(snapshot("second", 2), Own::new());
        assert_eq!(&**waiting.await.digest(), "second");
    }

    #[tokio::test]
    async fn an_instance_with_a_snapshot_of_its_own_sees_no_other() {
        let current = Current::default();
        let hub3: Arc<str> = "hub3".into();
        current.swap(snapshot("a", 1), Own::from([(Arc::clone(&hub3), Arc::new(snapshot("b", 1)))]));
        let digest = |instance: &str| current.load_for(instance).map(|snapshot| snapshot.digest().to_string());
        assert_eq!((digest("hub2").as_deref(), digest("hub3").as_deref()), (Some("a"), Some("b")));
        let waiting = current.other_than("hub3", Some("b"));
        tokio::pin!(waiting);
        current.swap(snapshot("c", 2), Own::from([(Arc::clone(&hub3), Arc::new(snapshot("b", 2)))]));
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "its own is the same");
        current.swap_for(&hub3, None);
        assert_eq!(&**waiting.await.digest(), "c");
    }
}
