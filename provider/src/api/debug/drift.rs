//! What differs, as the page shows it: compared behind the answer, since reading all that a Traefik runs takes its time.
//!
//! Who looks first after a change waits for it a moment, so that nothing is called right that was not looked at; after that
//! everybody gets what is known, and whoever finds it old has it looked at again.

use std::{
    pin::pin,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use charliehub_proto::drift::InstanceDrift;
use tokio::time::timeout;

use crate::{
    api::{Api, drift},
    debug::gather::Compared,
};

const AGE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) async fn known(api: &Api) -> Vec<InstanceDrift> {
    let Some(snapshot) = api.current.load().filter(|_| !api.traefiks.is_empty()) else { return Vec::new() };
    let of_now = || api.shown.compared.load_full().filter(|kept| kept.digest == *snapshot.digest());
    let kept = of_now();
    if kept.as_ref().is_some_and(|kept| kept.at.elapsed() < AGE) {
        return kept.map(|kept| kept.found.clone()).unwrap_or_default();
    }
    let mut news = pin!(api.shown.news.notified());
    news.as_mut().enable();
    compare(api, Arc::clone(snapshot.digest()));
    if kept.is_none() {
        drop(timeout(PATIENCE, news).await);
    }
    of_now().map(|kept| kept.found.clone()).unwrap_or_default()
}

/// Compares behind the answer, once at a time.
fn compare(api: &Api, digest: Arc<str>) {
    let mut comparing = api.shown.comparing.lock().unwrap_or_else(PoisonError::into_inner);
    while comparing.try_join_next().is_some() {}
    if !comparing.is_empty() {
        return;
    }
    let api = api.clone();
    comparing.spawn(async move {
        match drift::found(&api).await {
            Ok(found) => api.shown.compared.store(Some(Arc::new(Compared { digest, at: Instant::now(), found }))),
            Err(problem) => tracing::debug!(detail = problem.body().detail, "what runs cannot be compared now"),
        }
        api.shown.news.notify_waiters();
    });
}
