//! `GET /api/instances`: the Traefiks that poll, and what is known of each.

use axum::{
    Json,
    extract::{Request, State as With},
};
use charliehub_proto::instance::InstanceStatus;

use super::{Api, Problem, query::Parameters};

/// `GET /api/instances`: the Traefiks that poll or are configured, as a bare array.
#[utoipa::path(get, operation_id = "list_instances", path = "/api/instances", tag = "instances",
    responses((status = 200, body = Vec<InstanceStatus>, description = "What each was sent, runs and refuses"), Problem))]
pub(super) async fn list(With(api): With<Api>, request: Request) -> Result<Json<Vec<InstanceStatus>>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    Ok(Json(api.instances.statuses()))
}
