//! `/api/tokens`: who may call us, for administrators. The text of a token is in the answer that made it, and nowhere else.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::duration;
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::{Client, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, Problem, address, json as body, query::Parameters};
use crate::{
    audit::Event,
    auth::{self, Caller, Listed, New, Role, Scope, broken_rule},
};

/// What a client says of a token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
struct Wanted {
    name: String,
    role: Role,
    subject: Option<String>,
    /// How long it lives, such as `90d`; for ever when left out.
    expires: Option<String>,
    #[serde(default)]
    scope: Scope,
}

/// The answer to whoever made a token.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeToken)]
struct Made {
    #[serde(flatten)]
    listed: Listed,
    /// Its text, this once.
    token: String,
}

/// `GET /api/tokens`: all of them, the revoked ones last.
#[utoipa::path(get, path = "/api/tokens", operation_id = "list_tokens", tag = "tokens",
    responses((status = 200, body = Vec<Listed>, description = "The tokens, without their text"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let client = api.pool.get().await?;
    Ok(Json(auth::list(&**client).await?).into_response())
}

/// `POST /api/tokens`: 201, the token as in the list, and its text as `token`, this once.
#[utoipa::path(post, path = "/api/tokens", operation_id = "insert_token", tag = "tokens", request_body = Wanted,
    responses((status = 201, body = Made, description = "The token, with its text, this once"), Problem))]
pub(super) async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let from = address(&request).to_string();
    let wanted: Wanted = body::read(&body::body(request, body::LIMIT).await?)?;
    let expires_at = wanted.expires.as_deref().map(end).transpose()?;
    let (name, subject) = (wanted.name.as_str(), wanted.subject.as_deref());
    let new = New { name, role: wanted.role, subject, expires_at, scope: &wanted.scope };
    let mut client = api.pool.get().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await?;
    let made = auth::make_new(&transaction, &new).await.map_err(refused)?;
    let listed = one(&transaction, made.id).await?;
    audit(&transaction, &caller, from, "token.create", new.detail(made.id)).await?;
    transaction.commit().await?;
    api.auth.changed();
    let headers =
        [(header::LOCATION, format!("/api/tokens/{}", made.id)), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(Made { listed, token: made.text })).into_response())
}

/// `DELETE /api/tokens/{id}`: revokes it, on all connections of this provider before the answer is sent.
#[utoipa::path(delete, path = "/api/tokens/{id}", operation_id = "revoke_token", tag = "tokens", params(("id" = Uuid, Path)),
    responses((status = 200, body = Listed, description = "The token, revoked"), Problem))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let from = address(&request).to_string();
    let missing = || Problem::not_found("there is no living token with this id").remedy("GET /api/tokens lists them");
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let mut client = api.pool.get().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await?;
    if !auth::revoke(&transaction, id).await? {
        return Err(missing());
    }
    let listed = one(&transaction, id).await?;
    let detail = json!({ "id": id, "name": listed.name, "role": listed.role });
    audit(&transaction, &caller, from, "token.revoke", detail).await?;
    transaction.commit().await?;
    // Others are told by the database. When this fails it is read again within two seconds.
    if let Err(error) = api.auth.reload(client).await {
        tracing::warn!(%error, "a token was revoked and the tokens cannot be read again yet");
        api.auth.changed();
    }
    Ok(Json(listed).into_response())
}

fn end(lifetime: &str) -> Result<Timestamp, Problem> {
    let lifetime = duration::parse(lifetime).and_then(|lifetime| SignedDuration::try_from(lifetime).ok());
    lifetime.and_then(|lifetime| Timestamp::now().checked_add(lifetime).ok()).ok_or_else(|| {
        Problem::invalid("expires", "it is not a time to live")
            .remedy("write a whole number and s, m, h or d, such as 90d; or leave it out")
    })
}

fn refused(error: tokio_postgres::Error) -> Problem {
    match broken_rule(&error) {
        Some(broken) => Problem::invalid(broken.field, broken.rule).remedy(broken.remedy),
        None => error.into(),
    }
}

async fn one(transaction: &Transaction<'_>, id: Uuid) -> Result<Listed, Problem> {
    auth::list(transaction).await?.into_iter().find(|token| token.id == id).ok_or_else(Problem::internal)
}

async fn audit(
    transaction: &Transaction<'_>,
    caller: &Caller,
    from: String,
    kind: &str,
    detail: serde_json::Value,
) -> Result<(), tokio_postgres::Error> {
    Event { actor: &caller.name, source: "api", address: Some(from), kind, detail }.write(transaction).await
}
