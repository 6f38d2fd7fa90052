//! `POST /api/rehearse`: what a real Traefik says about the newest rows, or about the configuration in the body.

use axum::{
    Json,
    extract::{Request, State},
};
use bytes::Bytes;
use hyper::body::Body as _;

use super::{Api, Problem, json};
use crate::{rehearse::Report, store::read};

/// The largest configuration that is taken; the rows may compile to a larger one.
const LIMIT: usize = 16 << 20;

/// Without a body: the newest rows. It changes nothing, also when the verdict is bad.
#[utoipa::path(post, operation_id = "rehearse", path = "/api/rehearse", tag = "rehearsal", request_body(content = Option<Object>, description = "Traefik's dynamic configuration; without it, the newest rows"),
    responses((status = 200, body = Report, description = "What Traefik says, good or bad"), Problem))]
pub(super) async fn run(State(api): State<Api>, request: Request) -> Result<Json<Report>, Problem> {
    let candidate = if let Some(candidate) = given(request).await? {
        candidate
    } else {
        let mut client = api.pool.get().await?;
        let rows = read::newest(&mut client).await?;
        drop(client); // others can have it meanwhile
        api.rehearsal.candidate(rows)
    };
    Ok(Json(api.rehearsal.run(&candidate).await?))
}

async fn given(request: Request) -> Result<Option<Bytes>, Problem> {
    if request.body().is_end_stream() {
        return Ok(None);
    }
    let candidate = json::body(request, LIMIT).await?;
    // What does not decode is for Traefik to refuse, in its words.
    Ok(Some(candidate).filter(|candidate| !candidate.is_empty()))
}
