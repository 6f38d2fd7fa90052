//! `/api/fragments`: raw pieces of Traefik's configuration, checked against its full model before they are kept.
//!
//! Below role `admin` the secrets in a body are masked, here and in what a write answers; what is masked cannot be written
//! back.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{change::WrittenFragment, fragment::Fragment, traefik::Kind};
use http::{StatusCode, header};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::{
    Api, Problem,
    domains::{expected, one},
    fields::{Fields, OfFragment},
    json,
    query::Parameters,
    write::{Op, Order, Step, Target, Writing},
};
use crate::{
    auth::{Caller, Role},
    mask::mask,
    row::Table,
};

/// `GET /api/fragments`: all of them, or those of `?kind=`.
#[utoipa::path(get, operation_id = "list_fragments", path = "/api/fragments", tag = "fragments", params(("kind" = Option<String>, Query)), responses((status = 200, body = Vec<Fragment>, description = "The fragments"), Problem))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let kind = parameters.take("kind").map(|text| known_kind(&text).map(Kind::name)).transpose()?;
    parameters.done(&["kind"])?;
    let client = api.pool.get().await?;
    let sql = "SELECT to_json(f)::text FROM fragments f WHERE $1::text IS NULL OR kind = $1 ORDER BY kind, name";
    let rows = client.query_typed(sql, &[(&kind, Type::TEXT)]).await?;
    let rows = rows.iter().map(|row| Ok(shown(row.try_get(0)?, &caller)));
    let rows: Vec<Value> = rows.collect::<Result<_, tokio_postgres::Error>>()?;
    Ok(axum::Json(rows).into_response())
}

/// `POST /api/fragments`.
#[utoipa::path(post, operation_id = "insert_fragment", path = "/api/fragments", tag = "fragments", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfFragment,
    responses((status = 201, body = WrittenFragment, description = "The new fragment, and what the write did"), (status = 200, body = WrittenFragment, description = "A dry run"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, body) = Order::with_body(request, &caller, json::LIMIT).await?;
    let op = Op::Insert(Fields::read(Table::Fragments, &body)?);
    one(&api, &order, Step { table: Table::Fragments, op, expected: None }).await
}

/// `GET /api/fragments/{kind}/{name}`.
#[utoipa::path(get, operation_id = "get_fragment", path = "/api/fragments/{kind}/{name}", tag = "fragments", params(("kind" = String, Path), ("name" = String, Path)), responses((status = 200, body = Fragment, description = "The fragment"), Problem))]
pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let sql = "SELECT to_json(f)::text, version FROM fragments f WHERE kind = $1 AND name = $2";
    let rows = client.query_typed(sql, &[(&kind, Type::TEXT), (&name, Type::TEXT)]).await?;
    let row = rows.first().ok_or_else(|| {
        Problem::not_found("there is no fragment of this kind and name").remedy("GET /api/fragments lists them")
    })?;
    let version: i64 = row.try_get(1)?;
    Ok(([(header::ETAG, format!("\"{version}\""))], axum::Json(shown(row.try_get(0)?, &caller))).into_response())
}

/// `PUT /api/fragments/{kind}/{name}`: replaces a fragment, or makes it. The body is the fragment without these two.
#[utoipa::path(put, operation_id = "put_fragment", path = "/api/fragments/{kind}/{name}", tag = "fragments", params(("kind" = String, Path), ("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = OfFragment,
    responses((status = 200, body = WrittenFragment, description = "The fragment, and what the write did"), (status = 201, body = WrittenFragment, description = "The new fragment, and what the write did"), Problem))]
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (kind, order) = (known_kind(&kind)?, Order::of(&request, &caller)?);
    let expected = if_match(&api, &request)?;
    let mut fields: Value = json::read(&json::body(request, json::LIMIT).await?)?;
    let given = fields.as_object_mut().ok_or_else(|| {
        Problem::invalid(".", "the body is not an object").remedy("send {\"body\": {...}}, and `enabled`, `notes`")
    })?;
    for (field, path) in [("kind", kind.name()), ("name", name.as_str())] {
        if given.get(field).is_some_and(|value| value != path) {
            return Err(Problem::invalid(field, format!("`{field}` is not that of the path"))
                .remedy("leave it out; to rename a fragment make a new one and delete this"));
        }
        given.insert(field.to_owned(), path.into());
    }
    let op = Op::Put(Target::Named(kind.name().to_owned(), name), Fields::from_value(Table::Fragments, &fields)?);
    one(&api, &order, Step { table: Table::Fragments, op, expected }).await
}

/// `DELETE /api/fragments/{kind}/{name}`.
#[utoipa::path(delete, operation_id = "delete_fragment", path = "/api/fragments/{kind}/{name}", tag = "fragments", params(("kind" = String, Path), ("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = WrittenFragment, description = "The fragment, and what the write did"), Problem))]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, expected) = (Order::of(&request, &caller)?, expected(&api, request.headers())?);
    let op = Op::Delete(Target::Named(kind, name));
    one(&api, &order, Step { table: Table::Fragments, op, expected }).await
}

/// What is new has no version to name, so `strict_locking` does not ask for one here.
pub(super) fn if_match(api: &Api, request: &Request) -> Result<Option<i64>, Problem> {
    match expected(api, request.headers()) {
        Err(problem) if problem.body().status == StatusCode::PRECONDITION_REQUIRED => Ok(None),
        other => other,
    }
}

fn known_kind(text: &str) -> Result<Kind, Problem> {
    text.parse().map_err(|_| {
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Problem::parameter("kind", "it is no kind of fragment").remedy(format!("use one of {}", kinds.join(", ")))
    })
}

/// The fragment as `caller` may see it.
fn shown(text: &str, caller: &Caller) -> Value {
    let mut fragment: Value = serde_json::from_str(text).unwrap_or_default();
    if caller.role != Role::Admin {
        fragment.get_mut("body").into_iter().for_each(mask);
    }
    fragment
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{api::tests::World, postgres::tests::cluster::Cluster};

    async fn ask(world: &World, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, body) = world.send(request.header("content-type", "application/json"), body).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    #[tokio::test]
    async fn secrets_are_shown_to_an_administrator_alone_in_reads_and_in_what_writes_answer() {
        let (cluster, client) = Cluster::migrated().await;
        let world = World::with(&cluster, &client).await;
        let auth = |hash: &str| json!({"body": {"basicAuth": {"users": [format!("ann:{hash}")], "realm": "edge"}}});
        let headers = |login: &str| json!({"body": {"headers": {"customRequestHeaders": {"Authorization": login, "X-Site": "uk"}}}});
        let tls = |key: &str| json!({"body": {"certificates": [{"certFile": "/c.pem", "keyFile": key}]}});
        for (path, first, second, plain) in [
            ("http.middleware/login", auth("secret-1"), auth("secret-2"), "edge"),
            ("http.middleware/add", headers("secret-1"), headers("secret-2"), "uk"),
            ("http.serversTransport/mtls", tls("/secret-1.pem"), tls("/secret-2.pem"), "/c.pem"),
        ] {
            let path = format!("/api/fragments/{path}");
            let (status, answer) = ask(&world, &world.admin, "PUT", &path, &first).await;
            assert!(status == 201 && answer["change"].to_string().contains("secret-1"), "{answer}");
            for (token, sees) in [(&world.reader, false), (&world.editor, false), (&world.admin, true)] {
                for place in [path.as_str(), "/api/fragments"] {
                    let (_, shown) = ask(&world, token, "GET", place, &Value::Null).await;
                    assert_eq!(shown.to_string().contains("secret-"), sees, "{place}: {shown}");
                    assert!(shown.to_string().contains(plain), "the rest is shown: {shown}");
                }
            }
            // Dry run, replacement and removal: of each the difference, and the row.
            let dry = format!("{path}?dry_run=true");
            for (method, place, body) in
                [("PUT", &dry, &second), ("PUT", &path, &second), ("DELETE", &path, &Value::Null)]
            {
                let (status, answer) = ask(&world, &world.editor, method, place, body).await;
                assert_eq!((status, answer["change"]["diff"].as_array().unwrap().len()), (200, 1), "{answer}");
                assert!(answer.to_string().contains(plain) && answer["body"].is_object(), "{answer}");
                assert!(!answer.to_string().contains("secret-"), "{method} {place}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_masked_is_not_written_back() {
        let (cluster, client) = Cluster::migrated().await;
        let world = World::with(&cluster, &client).await;
        let path = "/api/fragments/http.middleware/login";
        let body = json!({"body": {"basicAuth": {"users": ["ann:secret"]}}});
        assert_eq!(ask(&world, &world.admin, "PUT", path, &body).await.0, 201);
        let (_, shown) = ask(&world, &world.editor, "GET", path, &Value::Null).await;
        let (status, problem) = ask(&world, &world.editor, "PUT", path, &json!({"body": shown["body"]})).await;
        assert_eq!((status, &problem["field"]), (422, &json!("body")), "{problem}");
        let (_, kept) = ask(&world, &world.admin, "GET", path, &Value::Null).await;
        assert_eq!(kept["body"], body["body"]);
    }
}
