//! `GET /api/surface`: each name that is served, and who reaches it.

use axum::{
    extract::{Request, State},
    response::Response,
};
use charliehub_proto::route::Surface;

use super::{Api, Problem, kept, query::Parameters};
use crate::surface::surface;

/// `GET /api/surface`: by the newest rows and fragments, as a bare array.
#[utoipa::path(get, operation_id = "list_surface", path = "/api/surface", tag = "routes",
    responses((status = 200, body = Vec<Surface>, description = "The names that are served, and who reaches them"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    kept::of_rows(&api, &api.kept.surface, surface).await
}
