//! What takes all rows to make: made once for each revision, and kept until it is asked about another.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use serde::Serialize;
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{Api, Problem};
use crate::{
    compile::Compiler,
    matching::Config,
    store::{read, sync::Held},
};

/// The larger ones would hold more memory than the rows themselves.
const LARGEST: usize = 4 << 20;

/// One for all requests.
#[derive(Default)]
pub struct Kept {
    pub(super) routes: Newest<Held, Bytes>,
    pub(super) surface: Newest<Held, Bytes>,
    /// By digest.
    config: Newest<Arc<str>, Arc<Config>>,
}

/// The value of the newest key. Who asks meanwhile waits, instead of making it too.
pub(super) struct Newest<K, V>(Mutex<Option<(K, V)>>);

impl<K, V> Default for Newest<K, V> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K: PartialEq, V: Clone> Newest<K, V> {
    async fn get<E>(&self, key: K, make: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        let mut kept = self.0.lock().await;
        if let Some((_, value)) = kept.as_ref().filter(|(of, _)| *of == key) {
            return Ok(value.clone());
        }
        *kept = None; // not two of them in memory
        let value = make.await?;
        *kept = Some((key, value.clone()));
        Ok(value)
    }
}

/// Answers with what `make` says of the newest rows.
pub(super) async fn of_rows<T: Serialize>(
    api: &Api,
    kept: &Newest<Held, Bytes>,
    make: impl FnOnce(&Compiler) -> T + Send + 'static,
) -> Result<Response, Problem> {
    let held = read::newest_revision(&**api.pool.get().await?).await?;
    let body = kept.get(held, async {
        let mut client = api.pool.get().await?;
        let rows = read::newest(&mut client).await?;
        drop(client); // others can have it meanwhile
        let settings = Arc::clone(&api.settings);
        // Ten thousand rows take a while: not where other requests wait.
        let written = spawn_blocking(move || serde_json::to_vec(&make(&Compiler::of(&settings, rows))));
        written.await.map_err(|_| Problem::internal())?.map(Bytes::from).map_err(|_| Problem::internal())
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.await?).into_response())
}

/// The config that is served, as requests are judged by it.
pub(super) async fn config(api: &Api) -> Result<Arc<Config>, Problem> {
    let snapshot = api.current.load().ok_or_else(|| {
        Problem::unavailable(1, "no configuration is served yet").remedy("try again once /readyz answers 200")
    })?;
    let digest = Arc::clone(snapshot.digest());
    let small = snapshot.encoded.length <= LARGEST;
    let read = async {
        let read = spawn_blocking(move || Config::read(&snapshot.encoded.identity())).await;
        Ok::<_, Problem>(Arc::new(read.map_err(|_| Problem::internal())??))
    };
    if small { api.kept.config.get(digest, read).await } else { read.await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_made_once_for_each_key_and_again_after_a_failure() {
        let newest = Newest::<u32, &str>::default();
        let never = async || -> Result<&str, ()> { unreachable!() };
        assert_eq!(newest.get(1, async { Err("lost") }).await, Err("lost"));
        assert_eq!(newest.get(1, async { Ok::<_, ()>("one") }).await, Ok("one"));
        assert_eq!(newest.get(1, never()).await, Ok("one"));
        assert_eq!(newest.get(2, async { Ok::<_, ()>("two") }).await, Ok("two"));
        assert_eq!(newest.get(1, async { Ok::<_, ()>("again") }).await, Ok("again"));
    }
}
