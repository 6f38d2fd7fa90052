//! Keeps the config and the rows of a revision for ever, or no longer than others. Each is a line of the audit.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use charliehub_proto::revision::Pinned;
use http::StatusCode;
use serde_json::json;
use tokio_postgres::{Client, Transaction};

use super::{act::signed, number};
use crate::{
    api::{Api, Problem},
    auth::Caller,
    author::Author,
};

/// `POST /api/revisions/{n}/pin`: its config and its rows are kept for ever.
#[utoipa::path(post, operation_id = "pin", path = "/api/revisions/{n}/pin", tag = "history",
    params(("n" = i64, Path), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = Pinned, description = "It is kept"), Problem))]
pub(in crate::api) async fn pin(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
    request: Request,
) -> Result<Json<Pinned>, Problem> {
    set(&mut *api.pool.get().await?, number(&n)?, true, &signed(&request, &caller)?).await
}

/// `DELETE /api/revisions/{n}/pin`: it is kept as long as others are.
#[utoipa::path(delete, operation_id = "unpin", path = "/api/revisions/{n}/pin", tag = "history",
    params(("n" = i64, Path), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = Pinned, description = "It is not kept any longer than others"), Problem))]
pub(in crate::api) async fn unpin(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
    request: Request,
) -> Result<Json<Pinned>, Problem> {
    set(&mut *api.pool.get().await?, number(&n)?, false, &signed(&request, &caller)?).await
}

/// Said again it changes nothing, and is no line of the audit.
async fn set(client: &mut Client, revision: i64, pinned: bool, author: &Author) -> Result<Json<Pinned>, Problem> {
    let transaction = client.transaction().await?;
    let sql = "UPDATE snapshots SET pinned = $2 WHERE revision = $1 AND pinned <> $2";
    if transaction.execute(sql, &[&revision, &pinned]).await? > 0 {
        let kind = if pinned { "revision.pinned" } else { "revision.unpinned" };
        author.note(&transaction, kind, &json!({ "revision": revision, "reason": author.reason })).await?;
    } else {
        kept(&transaction, revision).await?;
    }
    transaction.commit().await?;
    Ok(Json(Pinned { revision, pinned }))
}

/// Refuses a revision of which no config is kept.
async fn kept(transaction: &Transaction<'_>, revision: i64) -> Result<(), Problem> {
    let sql = "SELECT EXISTS (SELECT FROM snapshots WHERE revision = $1), n,
        (SELECT min(revision) FROM snapshots WHERE revision > $1) FROM revision";
    let found = transaction.query_one(sql, &[&revision]).await?;
    let (kept, newest, next): (bool, i64, Option<i64>) = (found.try_get(0)?, found.try_get(1)?, found.try_get(2)?);
    if kept {
        return Ok(());
    }
    if revision < 1 || revision > newest {
        let problem = Problem::not_found(format!("there is no revision {revision}"));
        return Err(problem.field("n").remedy("GET /api/revisions lists them"));
    }
    // Commits that follow each other at once are one config.
    let detail = format!("of revision {revision} no config is kept: a later one was served at once, or it was pruned");
    let problem = Problem::new(StatusCode::CONFLICT, "not-kept", "Its config is not kept", detail).field("n");
    Err(match next {
        Some(next) => problem.remedy(format!("pin revision {next}, the next one whose config is kept")),
        None => problem.remedy("try again in a second: a config is kept a moment after it is served"),
    })
}
