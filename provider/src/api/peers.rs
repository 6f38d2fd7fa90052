//! `/api/peers`: the clients of the VPN, by their names.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::Response,
};
use charliehub_proto::{change::WrittenPeer, peer::PeerRow};
use http::Uri;

use super::{Api, Problem, fields::OfPeer, named::Named, write::Writing};
use crate::{auth::Caller, row::Table};

const PEERS: Named =
    Named { table: Table::Peers, one: "peer", all: "peers", body: "{\"public_key\": \"..\", \"addresses\": [...]}" };

/// `GET /api/peers`: all of them, as a bare array.
#[utoipa::path(get, operation_id = "list_peers", path = "/api/peers", tag = "peers",
    responses((status = 200, body = Vec<PeerRow>, description = "The peers, in the order of their names"), Problem))]
pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    PEERS.list(&api, &uri).await
}

/// `POST /api/peers`.
#[utoipa::path(post, operation_id = "insert_peer", path = "/api/peers", tag = "peers", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfPeer,
    responses((status = 201, body = WrittenPeer, description = "The new peer, and what the write did"), (status = 200, body = WrittenPeer, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    PEERS.insert(&api, &caller, request).await
}

/// `GET /api/peers/{name}`.
#[utoipa::path(get, operation_id = "get_peer", path = "/api/peers/{name}", tag = "peers", params(("name" = String, Path)),
    responses((status = 200, body = PeerRow, description = "The peer"), Problem))]
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    PEERS.get(&api, &name).await
}

/// `PUT /api/peers/{name}`: replaces a peer, or makes it. What is not given gets its default.
#[utoipa::path(put, operation_id = "put_peer", path = "/api/peers/{name}", tag = "peers", params(("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfPeer,
    responses((status = 200, body = WrittenPeer, description = "The peer, and what the write did"), (status = 201, body = WrittenPeer, description = "The new peer, and what the write did"), Problem))]
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    PEERS.put(&api, &caller, name, request).await
}

/// `DELETE /api/peers/{name}`: its hubs let it in no more.
#[utoipa::path(delete, operation_id = "delete_peer", path = "/api/peers/{name}", tag = "peers", params(("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = WrittenPeer, description = "The peer, and what the write did"), Problem))]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    PEERS.delete(&api, &caller, name, request).await
}
