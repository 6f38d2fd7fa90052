//! The configuration of one revision, encoded once, immutable, and swapped whole.
//!
//! [`encode`] makes the bytes; [`disk`] keeps them for the next start; [`history`] keeps them in the database. Readers of
//! [`Current`] take no lock: they load the newest snapshot, or wait until its digest is another.

pub mod disk;
pub mod encode;
pub mod history;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{guard::Size, snapshot::encode::Encoded, store::sync::Held};

/// A config with its revision, its bodies, and what is asked of it on every request.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision that it is the config of; while one is withheld, the last good one.
    pub held: Held,
    /// The newest revision, when it waits for an operator.
    pub withheld: Option<i64>,
    pub encoded: Arc<Encoded>,
    pub size: Size,
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
        Self { held, withheld, encoded, size, messages, headers }
    }

    /// Equal exactly for equal configs.
    pub fn digest(&self) -> &Arc<str> {
        &self.encoded.digest
    }

    /// The body, compressed or not.
    pub fn body(&self, gzip: bool) -> &Bytes {
        if gzip { &self.encoded.gzip } else { &self.encoded.identity }
    }
}

/// The snapshot that is served now.
#[derive(Debug)]
pub struct Current {
    snapshot: ArcSwapOption<Snapshot>,
    /// Counts the changes of the digest; those who wait listen to it.
    news: watch::Sender<u64>,
    /// The newest revision of which it is decided whether it runs; behind the swap.
    decided: watch::Sender<i64>,
}

impl Default for Current {
    fn default() -> Self {
        Self { snapshot: ArcSwapOption::empty(), news: watch::Sender::new(0), decided: watch::Sender::new(0) }
    }
}

impl Current {
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Replaces the snapshot, and wakes those who wait when Traefik would see a difference.
    pub fn swap(&self, next: Snapshot) -> Arc<Snapshot> {
        let next = Arc::new(next);
        let before = self.snapshot.swap(Some(Arc::clone(&next)));
        if before.is_none_or(|before| before.digest() != next.digest()) {
            self.news.send_modify(|n| *n += 1);
        }
        next
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

    /// The first snapshot whose digest is not `known`; with `None`, the first at all. Cancel it to stop waiting.
    pub async fn other_than(&self, known: Option<&str>) -> Arc<Snapshot> {
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            if let Some(snapshot) = self.load()
                && known.is_none_or(|known| &**snapshot.digest() != known)
            {
                return snapshot;
            }
            // The sender lives in `self`, so this ends only with news.
            drop(news.changed().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn snapshot(digest: &str, revision: i64) -> Snapshot {
        let encoded = Encoded { digest: digest.into(), identity: Bytes::new(), gzip: Bytes::new() };
        Snapshot::new(Held { revision, token: Uuid::nil() }, None, Arc::new(encoded), Size::default(), BTreeMap::new())
    }

    #[tokio::test]
    async fn those_who_wait_see_the_first_other_digest_and_only_that() {
        let current = Arc::new(Current::default());
        let first = current.other_than(None);
        current.swap(snapshot("a", 1));
        assert_eq!(&**first.await.digest(), "a");
        let waiting = current.other_than(Some("a"));
        tokio::pin!(waiting);
        current.swap(snapshot("a", 2));
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "the same digest is no news");
        current.swap(snapshot("b", 3));
        assert_eq!(waiting.await.held.revision, 3);
    }
}
