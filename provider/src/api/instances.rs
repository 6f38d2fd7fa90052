//! `GET /api/instances`: the Traefiks that poll, and what is known of each.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State as With},
};
use charliehub_proto::instance::InstanceStatus;

use super::{Api, Problem, query::Parameters};
use crate::heard::{Heard, What};

/// `GET /api/instances`: the Traefiks that poll or are configured, as a bare array.
#[utoipa::path(get, operation_id = "list_instances", path = "/api/instances", tag = "instances",
    responses((status = 200, body = Vec<InstanceStatus>, description = "What each was sent, runs and refuses"), Problem))]
pub(super) async fn list(With(api): With<Api>, request: Request) -> Result<Json<Vec<InstanceStatus>>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    Ok(Json(api.instances.statuses()))
}

/// `POST /api/instances/{name}/retry`: gives it again what is held back from it. It answers with what was known before.
#[utoipa::path(post, operation_id = "retry_instance", path = "/api/instances/{name}/retry", tag = "instances",
    params(("name" = String, Path, description = "As in `?instance=`")),
    responses((status = 200, body = InstanceStatus, description = "What was held back until now"), Problem))]
pub(super) async fn retry(
    With(api): With<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<InstanceStatus>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let instance = api.instances.find(&name).ok_or_else(|| {
        let detail = format!("no Traefik called `{name}` has polled, and none is configured");
        Problem::not_found(detail).remedy("their names are at /api/instances")
    })?;
    let status = instance.status();
    let heard = Heard { instance: Arc::clone(&instance.name), what: What::Again };
    if api.telling.try_send(heard).is_err() {
        return Err(Problem::unavailable(
            1,
            "nobody decides about it now: the database has not been read since the start",
        ));
    }
    Ok(Json(status))
}
