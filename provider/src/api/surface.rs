//! `GET /api/surface`: each name that is served, and who reaches it.

use axum::{
    Json,
    extract::{Request, State},
};
use charliehub_proto::route::Surface;

use super::{Api, Problem, query::Parameters};
use crate::{compile::Compiler, store::read, surface::surface};

/// `GET /api/surface`: by the newest rows and fragments, as a bare array.
#[utoipa::path(get, operation_id = "list_surface", path = "/api/surface", tag = "routes",
    responses((status = 200, body = Vec<Surface>, description = "The names that are served, and who reaches them"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Json<Vec<Surface>>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let mut client = api.pool.get().await?;
    let rows = read::newest(&mut client).await?;
    drop(client); // others can have it meanwhile
    Ok(Json(surface(&Compiler::of(&api.settings, rows))))
}
