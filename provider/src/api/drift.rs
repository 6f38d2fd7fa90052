//! `GET /api/drift`: what each Traefik runs otherwise than the rows say.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State as With},
};
use charliehub_proto::drift::{Drift, InstanceDrift};
use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{Api, Problem, query::Parameters};
use crate::{
    compile::{Compiler, Section},
    config::Traefik,
    drift::{self, Running, read},
    publish::owners,
    running,
    snapshot::Snapshot,
    store,
};

/// `GET /api/drift`: an entry for each Traefik whose API is configured, as a bare array.
#[utoipa::path(get, operation_id = "list_drift", path = "/api/drift", tag = "instances",
    responses((status = 200, body = Vec<InstanceDrift>, description = "What runs otherwise than the rows say"), Problem))]
pub(super) async fn list(With(api): With<Api>, request: Request) -> Result<Json<Vec<InstanceDrift>>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    if api.current.load().is_none() {
        let trouble = Some("no configuration is served yet, so there is nothing to hold it against".to_owned());
        let nothing = |traefik: &Traefik| InstanceDrift {
            instance: traefik.instance.clone(),
            at: None,
            trouble: trouble.clone(),
            differences: Vec::new(),
        };
        return Ok(Json(api.traefiks.iter().map(nothing).collect()));
    }
    Ok(Json(found(&api).await?))
}

/// All Traefiks are asked.
pub(super) async fn found(api: &Api) -> Result<Vec<InstanceDrift>, Problem> {
    let read = join_all(api.traefiks.iter().map(|traefik| look(api, traefik))).await;
    let read: Vec<_> = read.into_iter().flatten().collect();
    let found = try_join_all(read.iter().map(|looked| compare(looked, None))).await?;
    if found.iter().all(|one| one.differences.is_empty()) {
        return Ok(found);
    }
    // Whose they are takes all rows: only where there is something.
    let rows = compiled(api).await?;
    try_join_all(read.iter().map(|looked| compare(looked, Some(Arc::clone(&rows))))).await
}

/// A Traefik that was asked, and what it should run.
struct Looked {
    instance: String,
    snapshot: Arc<Snapshot>,
    running: Result<Arc<Running>, String>,
}

async fn look(api: &Api, traefik: &Traefik) -> Option<Looked> {
    let mut asked = running::Api::of(traefik)?;
    let given = || api.current.load_for(&traefik.instance);
    let served = given()?;
    let running = read::running(&mut asked, served.digest()).await.map(Arc::new);
    // What was committed meanwhile may run by now.
    let runs = running.as_ref().ok().and_then(|running| running.digest());
    let newest = given().filter(|newest| runs == Some(newest.digest()));
    Some(Looked {
        instance: traefik.instance.clone(),
        snapshot: newest.unwrap_or(served),
        running: running.map_err(|error| error.to_string()),
    })
}

async fn compare(looked: &Looked, rows: Option<Arc<Compiler>>) -> Result<InstanceDrift, Problem> {
    let instance = looked.instance.clone();
    let running = match &looked.running {
        Ok(running) => Arc::clone(running),
        Err(trouble) => {
            return Ok(InstanceDrift { instance, at: None, trouble: Some(trouble.clone()), differences: Vec::new() });
        }
    };
    let snapshot = Arc::clone(&looked.snapshot);
    // Ten thousand routers take a while: not where other requests wait.
    let compared = spawn_blocking(move || -> Result<Vec<Drift>, serde_json::Error> {
        let config: Value = serde_json::from_slice(&snapshot.encoded.identity())?;
        Ok(drift::compare(&config, &running, &|section: Section, name| {
            let rows = rows.as_ref()?;
            owners(rows.rows(), &rows.behind(section, name))
        }))
    });
    let differences = compared.await.map_err(|_| Problem::internal())?.map_err(|_| Problem::internal())?;
    Ok(InstanceDrift { instance, at: Some(Timestamp::now()), trouble: None, differences })
}

async fn compiled(api: &Api) -> Result<Arc<Compiler>, Problem> {
    let mut client = api.pool.get().await?;
    let rows = store::read::newest(&mut client).await?;
    drop(client); // others can have it meanwhile
    let settings = Arc::clone(&api.settings);
    let compiled = spawn_blocking(move || Compiler::of(&settings, rows));
    Ok(Arc::new(compiled.await.map_err(|_| Problem::internal())?))
}
