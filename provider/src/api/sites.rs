//! `/api/sites`: the sites behind the hub, by their names.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{change::WrittenSite, site::SiteRow};
use http::header;
use serde_json::Value;
use tokio_postgres::types::Type;

use super::{
    Api, Problem,
    domains::{expected, one},
    fields::{Fields, OfSite},
    fragments::if_match,
    json,
    query::Parameters,
    write::{Op, Order, Step, Target, Writing},
};
use crate::{auth::Caller, row::Table};

/// `GET /api/sites`: all of them, as a bare array.
#[utoipa::path(get, operation_id = "list_sites", path = "/api/sites", tag = "sites",
    responses((status = 200, body = Vec<SiteRow>, description = "The sites, in the order of their names"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let client = api.pool.get().await?;
    let rows = client.query_typed("SELECT to_json(s)::text FROM sites s ORDER BY name", &[]).await?;
    let rows = rows.iter().map(|row| Ok(serde_json::from_str(row.try_get(0)?).unwrap_or_default()));
    let rows: Vec<Value> = rows.collect::<Result<_, tokio_postgres::Error>>()?;
    Ok(axum::Json(rows).into_response())
}

/// `POST /api/sites`.
#[utoipa::path(post, operation_id = "insert_site", path = "/api/sites", tag = "sites", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfSite,
    responses((status = 201, body = WrittenSite, description = "The new site, and what the write did"), (status = 200, body = WrittenSite, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, body) = Order::with_body(request, &caller, json::LIMIT).await?;
    let op = Op::Insert(Fields::read(Table::Sites, &body)?);
    one(&api, &order, Step { table: Table::Sites, op, expected: None }).await
}

/// `GET /api/sites/{name}`.
#[utoipa::path(get, operation_id = "get_site", path = "/api/sites/{name}", tag = "sites", params(("name" = String, Path)),
    responses((status = 200, body = SiteRow, description = "The site"), Problem))]
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let sql = "SELECT to_json(s)::text, version FROM sites s WHERE name = $1";
    let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Problem::not_found("there is no site of this name").remedy("GET /api/sites lists them"))?;
    let (text, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let headers = [(header::ETAG, format!("\"{version}\"")), (header::CONTENT_TYPE, "application/json".to_owned())];
    Ok((headers, text).into_response())
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
    let order = Order::of(&request, &caller)?;
    let expected = if_match(&api, &request)?;
    let mut fields: Value = json::read(&json::body(request, json::LIMIT).await?)?;
    let given = fields.as_object_mut().ok_or_else(|| {
        Problem::invalid(".", "the body is not an object").remedy("send {\"networks\": [...], \"tunnels\": [...]}")
    })?;
    if given.get("name").is_some_and(|value| *value != *name) {
        return Err(Problem::invalid("name", "`name` is not that of the path")
            .remedy("leave it out; to rename a site make a new one and delete this"));
    }
    given.insert("name".to_owned(), name.as_str().into());
    let op = Op::Put(Target::Called(name), Fields::from_value(Table::Sites, &fields)?);
    one(&api, &order, Step { table: Table::Sites, op, expected }).await
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
    let (order, expected) = (Order::of(&request, &caller)?, expected(&api, request.headers())?);
    one(&api, &order, Step { table: Table::Sites, op: Op::Delete(Target::Called(name)), expected }).await
}
