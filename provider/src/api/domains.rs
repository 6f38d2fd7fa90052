//! `/api/domains`: the rows of the source of truth, as they are in the database.
//!
//! What may stand in a row is decided by the database, so that the API and `psql` refuse the same; what a client can mend
//! without it (JSON, types, names of fields) is refused before, and what would not compile after.

mod batch;
mod list;

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{
    change::{Change, ChangeState, WrittenDomain},
    domain::Domain,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

pub(super) use self::{
    batch::{__path_batch, batch},
    list::{__path_list, list},
};
use super::{
    Api, Problem,
    fields::{Fields, OfDomain},
    json,
    write::{Applied, Op, Order, Step, Target, Writing, Written, write},
};
use crate::{auth::Caller, row::Table};

/// `GET /api/domains/{id}`: one row; its version is its `ETag`.
#[utoipa::path(get, operation_id = "get_domain", path = "/api/domains/{id}", tag = "domains", params(("id" = Uuid, Path)), responses((status = 200, body = Domain, description = "The row"), Problem))]
pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = row_id(&id)?;
    let client = api.pool.get().await?;
    let (mine, entries) = caller.scope.sql(2);
    let sql = format!("SELECT to_json(d)::text, version FROM domains d WHERE id = $1 AND {mine}");
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&id, Type::UUID)];
    parameters.extend(entries.iter().map(|entries| (entries as _, Type::TEXT_ARRAY)));
    let rows = client.query_typed(&sql, &parameters).await?;
    let row = rows.first().ok_or_else(no_such_row)?;
    let (json, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, etag(version))];
    Ok((headers, json + "\n").into_response())
}

/// `POST /api/domains`: inserts one row; 201, its place, the row as it is then, and what that did.
#[utoipa::path(post, operation_id = "insert_domain", path = "/api/domains", tag = "domains", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfDomain,
    responses((status = 201, body = WrittenDomain, description = "The new row, and what the write did"), (status = 200, body = WrittenDomain, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, body) = Order::with_body(request, &caller, json::LIMIT).await?;
    let op = Op::Insert(Fields::read(Table::Domains, &body)?);
    one(&api, &order, Step { table: Table::Domains, op, expected: None }).await
}

/// `PUT /api/domains/{id}`: replaces a row; what is not given gets its default.
#[utoipa::path(put, operation_id = "replace_domain", path = "/api/domains/{id}", tag = "domains", params(("id" = Uuid, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfDomain,
    responses((status = 200, body = WrittenDomain, description = "The row, and what the write did"), Problem))]
pub(super) async fn replace(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, target) = (Order::of(&request, &caller)?, Target::Id(row_id(&id)?));
    let expected = expected(&api, request.headers())?;
    let body = json::body(request, json::LIMIT).await?;
    let op = Op::Replace(target, Fields::read(Table::Domains, &body)?);
    one(&api, &order, Step { table: Table::Domains, op, expected }).await
}

/// `PATCH /api/domains/{id}`: changes the given fields, by RFC 7396.
#[utoipa::path(patch, operation_id = "change_domain", path = "/api/domains/{id}", tag = "domains", params(("id" = Uuid, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfDomain,
    responses((status = 200, body = WrittenDomain, description = "The row, and what the write did"), Problem))]
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, target) = (Order::of(&request, &caller)?, Target::Id(row_id(&id)?));
    let expected = expected(&api, request.headers())?;
    let op = Op::Merge(target, json::read(&json::body(request, json::LIMIT).await?)?);
    one(&api, &order, Step { table: Table::Domains, op, expected }).await
}

/// `DELETE /api/domains/{id}`: removes a row, and shows it a last time.
#[utoipa::path(delete, operation_id = "delete_domain", path = "/api/domains/{id}", tag = "domains", params(("id" = Uuid, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = WrittenDomain, description = "The row, and what the write did"), Problem))]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, target) = (Order::of(&request, &caller)?, Target::Id(row_id(&id)?));
    let expected = expected(&api, request.headers())?;
    one(&api, &order, Step { table: Table::Domains, op: Op::Delete(target), expected }).await
}

/// Writes one row, and answers with it and with what that did.
pub(super) async fn one(api: &Api, order: &Order, step: Step) -> Result<Response, Problem> {
    let written = write(api, order, &[step]).await?;
    let applied = written.rows.first().ok_or_else(Problem::internal)?;
    let created = applied.created && written.change.state != ChangeState::DryRun;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut headers = answer_headers(&written);
    headers.extend(HeaderValue::try_from(etag(applied.version)).map(|etag| (header::ETAG, etag)));
    if created && applied.key.table == Table::Domains {
        let place = format!("/api/domains/{}", applied.key.id);
        headers.extend(HeaderValue::try_from(place).map(|place| (header::LOCATION, place)));
    }
    Ok((status, headers, with_change(applied, &written.change)? + "\n").into_response())
}

/// What every answer to a write has beside its body.
fn answer_headers(written: &Written) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(revision) = written.change.revision {
        headers.insert("x-charliehub-revision", revision.into());
    }
    if written.replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    headers
}

/// The row as in `GET`, with one more field.
fn with_change(applied: &Applied, change: &Change) -> Result<String, Problem> {
    let row = applied.json.strip_suffix('}').ok_or_else(Problem::internal)?;
    let change = serde_json::to_string(change).map_err(|_| Problem::internal())?;
    Ok(format!("{row},\"change\":{change}}}"))
}

/// The version that the client has seen: `If-Match: "17"`. `*` is any.
pub(super) fn expected(api: &Api, headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(header) = headers.get(header::IF_MATCH) else {
        return if api.strict_locking { Err(unseen()) } else { Ok(None) };
    };
    let text = header.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.trim_start_matches("W/").trim_matches('"').parse().ok();
    version.map(Some).ok_or_else(|| {
        let detail = "it is not the version of a row";
        Problem::new(StatusCode::BAD_REQUEST, "parameter", "A parameter is not valid", detail)
            .field("If-Match")
            .remedy("send the row's `version` in quotes, as its ETag has it: If-Match: \"17\"")
    })
}

fn unseen() -> Problem {
    let detail = "a write says which version of the row it is about ([serve] strict_locking)";
    Problem::new(StatusCode::PRECONDITION_REQUIRED, "version-needed", "The version is missing", detail)
        .field("If-Match")
        .remedy("read the row, and send its ETag as If-Match")
}

fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

fn row_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| no_such_row())
}

fn no_such_row() -> Problem {
    Problem::not_found("there is no row with this id").remedy("GET /api/domains lists them; ?domain= finds one by name")
}

#[cfg(test)]
mod tests;
