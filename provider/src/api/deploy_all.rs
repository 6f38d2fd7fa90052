//! `/api/deploy-all`: read everything from the database again, compile it, and say what differed.
//!
//! Nobody has to call it, since each commit is read at once; it is for who wants to be sure, and finds what was changed
//! behind the triggers' back. `GET` is for those who call it so from of old.

use std::time::{Duration, Instant};

use axum::{Json, extract::State};
use charliehub_proto::revision::{Deployed, Differed};
use http::Uri;
use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

use super::{Api, Problem, query::Parameters};
use crate::{diff, snapshot::Snapshot};

/// How long an answer waits for the read.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET /api/deploy-all`: the same as `POST`.
#[utoipa::path(get, operation_id = "deploy_all_by_get", path = "/api/deploy-all", tag = "history",
    responses((status = 200, body = Deployed, description = "What differed: normally nothing"), Problem))]
pub(super) async fn get(State(api): State<Api>, uri: Uri) -> Result<Json<Deployed>, Problem> {
    deploy_all(&api, &uri).await
}

/// `POST /api/deploy-all`: reads everything from the database again, and serves what it compiles to.
#[utoipa::path(post, operation_id = "deploy_all", path = "/api/deploy-all", tag = "history",
    responses((status = 200, body = Deployed, description = "What differed: normally nothing"), Problem))]
pub(super) async fn post(State(api): State<Api>, uri: Uri) -> Result<Json<Deployed>, Problem> {
    deploy_all(&api, &uri).await
}

async fn deploy_all(api: &Api, uri: &Uri) -> Result<Json<Deployed>, Problem> {
    Parameters::of(uri)?.done(&[])?;
    let began = Instant::now();
    let before = api.current.load();
    let found = match timeout(PATIENCE, api.asker.everything()).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(unread("there is more in the database than fits into memory, or this program stops")),
        Err(_) => return Err(unread("the database was not read within 10 s")),
    };
    let after = api.current.load();
    let digest = after.as_ref().map(|snapshot| snapshot.digest().to_string());
    let routes = if found.rows == 0 || digest.as_deref() == before.as_ref().map(|snapshot| &**snapshot.digest()) {
        Vec::new()
    } else {
        let changed = spawn_blocking(move || changed(before.as_deref(), after.as_deref()));
        changed.await.map_err(|_| Problem::internal())?
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let differed = Differed { rows: found.rows, routes };
    Ok(Json(Deployed { revision: found.revision, digest, differed, took_ms }))
}

fn unread(why: &str) -> Problem {
    Problem::unavailable(10, why).remedy("GET /readyz says how the database is reached; what is served stays")
}

/// The names of what is served differently.
fn changed(before: Option<&Snapshot>, after: Option<&Snapshot>) -> Vec<String> {
    let [before, after] = [before, after].map(|snapshot| {
        snapshot.and_then(|snapshot| serde_json::from_slice(&snapshot.encoded.identity()).ok()).unwrap_or(Value::Null)
    });
    diff::configs(&before, &after).into_iter().map(|one| format!("{}/{}", one.section, one.name)).collect()
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use serde_json::json;

    use super::*;
    use crate::{api::tests::World, postgres::tests::cluster::Cluster};

    #[tokio::test]
    async fn a_reader_asks_by_get_an_editor_by_post_and_a_read_that_is_not_done_is_no_answer() {
        let (cluster, client) = Cluster::migrated().await;
        let world = World::with(&cluster, &client).await;
        for (token, method, path, status) in [
            (&world.reader, "POST", "/api/deploy-all", 403),
            (&world.reader, "GET", "/api/deploy-all?now=1", 400),
            (&world.reader, "GET", "/api/deploy-all", 503),
            (&world.editor, "POST", "/api/deploy-all", 503),
        ] {
            let request =
                Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
            let (got, _, body) = world.send(request, "").await;
            assert_eq!(got, status, "{method} {path}: {body}");
            assert!(body.contains("remedy"), "{body}");
        }
    }

    #[test]
    fn what_is_served_differently_is_named_by_section_and_name() {
        let snapshot = |body: Value| {
            let body = body.to_string();
            let gzip = crate::snapshot::encode::gzip(body.as_bytes());
            let encoded = crate::snapshot::encode::Encoded::compressed(body.as_str().into(), gzip, body.len());
            let held = crate::store::sync::Held { revision: 1, token: uuid::Uuid::nil() };
            Snapshot::new(
                held,
                None,
                encoded.into(),
                crate::guard::Size::default(),
                None,
                std::collections::BTreeMap::new(),
            )
        };
        let (a, b) = (json!({"http": {"routers": {"a.test": {"rule": "1"}}}}), json!({"tcp": {"services": {"m": {}}}}));
        let (a, b) = (snapshot(a), snapshot(b));
        assert_eq!(changed(Some(&a), Some(&b)), ["http.routers/a.test", "tcp.services/m"]);
        assert_eq!(changed(None, Some(&b)), ["tcp.services/m"]);
        assert!(changed(Some(&a), Some(&a)).is_empty());
    }
}
