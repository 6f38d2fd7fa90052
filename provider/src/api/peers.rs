//! `/api/peers`: the clients of the VPN, by their names.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{change::WrittenPeer, peer::PeerRow};
use http::header;
use serde_json::Value;
use tokio_postgres::types::Type;

use super::{
    Api, Problem,
    domains::{expected, one},
    fields::{Fields, OfPeer},
    fragments::if_match,
    json,
    query::Parameters,
    write::{Op, Order, Step, Target, Writing},
};
use crate::{auth::Caller, row::Table};

/// `GET /api/peers`: all of them, as a bare array.
#[utoipa::path(get, operation_id = "list_peers", path = "/api/peers", tag = "peers",
    responses((status = 200, body = Vec<PeerRow>, description = "The peers, in the order of their names"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let client = api.pool.get().await?;
    let rows = client.query_typed("SELECT to_json(p)::text FROM peers p ORDER BY name", &[]).await?;
    let rows = rows.iter().map(|row| Ok(serde_json::from_str(row.try_get(0)?).unwrap_or_default()));
    let rows: Vec<Value> = rows.collect::<Result<_, tokio_postgres::Error>>()?;
    Ok(axum::Json(rows).into_response())
}

/// `POST /api/peers`.
#[utoipa::path(post, operation_id = "insert_peer", path = "/api/peers", tag = "peers", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfPeer,
    responses((status = 201, body = WrittenPeer, description = "The new peer, and what the write did"), (status = 200, body = WrittenPeer, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, body) = Order::with_body(request, &caller, json::LIMIT).await?;
    let op = Op::Insert(Fields::read(Table::Peers, &body)?);
    one(&api, &order, Step { table: Table::Peers, op, expected: None }).await
}

/// `GET /api/peers/{name}`.
#[utoipa::path(get, operation_id = "get_peer", path = "/api/peers/{name}", tag = "peers", params(("name" = String, Path)),
    responses((status = 200, body = PeerRow, description = "The peer"), Problem))]
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let sql = "SELECT to_json(p)::text, version FROM peers p WHERE name = $1";
    let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Problem::not_found("there is no peer of this name").remedy("GET /api/peers lists them"))?;
    let (text, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let headers = [(header::ETAG, format!("\"{version}\"")), (header::CONTENT_TYPE, "application/json".to_owned())];
    Ok((headers, text).into_response())
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
    let order = Order::of(&request, &caller)?;
    let expected = if_match(&api, &request)?;
    let mut fields: Value = json::read(&json::body(request, json::LIMIT).await?)?;
    let given = fields.as_object_mut().ok_or_else(|| {
        Problem::invalid(".", "the body is not an object").remedy("send {\"public_key\": \"..\", \"addresses\": [...]}")
    })?;
    if given.get("name").is_some_and(|value| *value != *name) {
        return Err(Problem::invalid("name", "`name` is not that of the path")
            .remedy("leave it out; to rename a peer make a new one and delete this"));
    }
    given.insert("name".to_owned(), name.as_str().into());
    let op = Op::Put(Target::Called(name), Fields::from_value(Table::Peers, &fields)?);
    one(&api, &order, Step { table: Table::Peers, op, expected }).await
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
    let (order, expected) = (Order::of(&request, &caller)?, expected(&api, request.headers())?);
    one(&api, &order, Step { table: Table::Peers, op: Op::Delete(Target::Called(name)), expected }).await
}
