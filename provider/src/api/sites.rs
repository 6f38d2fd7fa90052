//! `/api/sites`: the sites behind the hub, by their names.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::Response,
};
use charliehub_proto::{change::WrittenSite, site::SiteRow};
use http::Uri;

use super::{Api, Problem, fields::OfSite, named::Named, write::Writing};
use crate::{auth::Caller, row::Table};

const SITES: Named =
    Named { table: Table::Sites, one: "site", all: "sites", body: "{\"networks\": [...], \"tunnels\": [...]}" };

/// `GET /api/sites`: all of them, as a bare array.
#[utoipa::path(get, operation_id = "list_sites", path = "/api/sites", tag = "sites",
    responses((status = 200, body = Vec<SiteRow>, description = "The sites, in the order of their names"), Problem))]
pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    SITES.list(&api, &uri).await
}

/// `POST /api/sites`.
#[utoipa::path(post, operation_id = "insert_site", path = "/api/sites", tag = "sites", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfSite,
    responses((status = 201, body = WrittenSite, description = "The new site, and what the write did"), (status = 200, body = WrittenSite, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    SITES.insert(&api, &caller, request).await
}

/// `GET /api/sites/{name}`.
#[utoipa::path(get, operation_id = "get_site", path = "/api/sites/{name}", tag = "sites", params(("name" = String, Path)),
    responses((status = 200, body = SiteRow, description = "The site"), Problem))]
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    SITES.get(&api, &name).await
}

/// `PUT /api/sites/{name}`: replaces a site, or makes it. What is not given gets its default.
#[utoipa::path(put, operation_id = "put_site", path = "/api/sites/{name}", tag = "sites", params(("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfSite,
    responses((status = 200, body = WrittenSite, description = "The site, and what the write did"), (status = 201, body = WrittenSite, description = "The new site, and what the write did"), Problem))]
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    SITES.put(&api, &caller, name, request).await
}

/// `DELETE /api/sites/{name}`: its networks are not internal any more, at once.
#[utoipa::path(delete, operation_id = "delete_site", path = "/api/sites/{name}", tag = "sites", params(("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = WrittenSite, description = "The site, and what the write did"), Problem))]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    SITES.delete(&api, &caller, name, request).await
}
