//! What a person does about a revision: roll back to it, approve or discard it.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use charliehub_proto::{
    problem::Item,
    revision::{Decided, RolledBack, SnapshotState},
};
use http::StatusCode;

use super::number;
use crate::{
    api::{Api, Problem, query::Parameters, write::author},
    auth::Caller,
    author::Author,
    decide::{self, Decision, decide},
    restore, rollback,
};

/// `POST /api/revisions/{n}/rollback`: the rows of an earlier revision, as a new one, never more open than now.
#[utoipa::path(post, operation_id = "rollback", path = "/api/revisions/{n}/rollback", tag = "history",
    params(("n" = i64, Path), ("dry_run" = Option<bool>, Query), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = RolledBack, description = "What was written, or would be"), Problem))]
pub(in crate::api) async fn rollback(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
    request: Request,
) -> Result<Json<RolledBack>, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let dry_run = parameters.flag("dry_run")?;
    parameters.done(&["dry_run"])?;
    let author = author(&request, &caller);
    let mut client = api.pool.get().await?;
    Ok(Json(rollback::rollback(&mut client, number(&n)?, &author, &api.settings, dry_run).await?))
}

/// `POST /api/revisions/{n}/approve`: the withheld change goes live.
#[utoipa::path(post, operation_id = "approve", path = "/api/revisions/{n}/approve", tag = "history",
    params(("n" = i64, Path), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = Decided, description = "It goes live"), Problem))]
pub(in crate::api) async fn approve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
    request: Request,
) -> Result<Json<Decided>, Problem> {
    decided(&api, number(&n)?, &signed(&request, &caller)?, Decision::Approve).await
}

/// `POST /api/revisions/{n}/discard`: the withheld change is dropped, and the rows are those that run.
#[utoipa::path(post, operation_id = "discard", path = "/api/revisions/{n}/discard", tag = "history",
    params(("n" = i64, Path), ("X-Change-Reason" = Option<String>, Header)),
    responses((status = 200, body = Decided, description = "What runs goes on"), Problem))]
pub(in crate::api) async fn discard(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
    request: Request,
) -> Result<Json<Decided>, Problem> {
    decided(&api, number(&n)?, &signed(&request, &caller)?, Decision::Discard).await
}

/// Who asks, in a request that has no parameters.
pub(super) fn signed(request: &Request, caller: &Caller) -> Result<Author, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    Ok(author(request, caller))
}

async fn decided(api: &Api, revision: i64, author: &Author, decision: Decision) -> Result<Json<Decided>, Problem> {
    let mut client = api.pool.get().await?;
    decide(&mut client, revision, decision, author).await?;
    let state = match decision {
        Decision::Approve => SnapshotState::Approved,
        Decision::Discard => SnapshotState::Discarded,
    };
    Ok(Json(Decided { revision, state }))
}

impl From<decide::Error> for Problem {
    fn from(error: decide::Error) -> Self {
        let detail = error.to_string();
        let conflict =
            |detail| Self::new(StatusCode::CONFLICT, "not-waiting", "It does not wait for a decision", detail);
        match error {
            decide::Error::NotWaiting { known: false, .. } => {
                Self::not_found(detail).field("n").remedy("GET /api/withheld lists what waits")
            }
            decide::Error::NotWaiting { .. } => {
                conflict(detail).field("n").remedy("GET /api/withheld lists what waits")
            }
            decide::Error::NotNewest { newest, .. } => {
                conflict(detail).field("n").remedy(format!("POST /api/revisions/{newest}/discard"))
            }
            decide::Error::NothingRuns => conflict(detail).remedy("approve it instead"),
            decide::Error::Damaged(_) => {
                tracing::error!(%detail, "a change cannot be discarded");
                Self::internal()
            }
            decide::Error::Restore(error) => error.into(),
            decide::Error::Database(error) => error.into(),
        }
    }
}

impl From<rollback::Error> for Problem {
    fn from(error: rollback::Error) -> Self {
        let detail = error.to_string();
        match error {
            rollback::Error::Unknown { .. } => {
                Self::not_found(detail).field("n").remedy("GET /api/revisions lists them")
            }
            rollback::Error::NotKept { floor, .. } => Self::not_found(detail)
                .field("n")
                .remedy(format!("choose a revision from {floor} on, and pin those that are to be kept")),
            rollback::Error::Opens(_) => {
                Self::new(StatusCode::CONFLICT, "opens", "It would open what is protected", detail)
                    .field("n")
                    .remedy("write the rows that you want by PUT /api/domains/{id}, which says who gets in by each")
            }
            rollback::Error::Refused(error) => error.into(),
            rollback::Error::Database(error) => error.into(),
        }
    }
}

impl From<restore::Error> for Problem {
    /// Every row that is refused, by its name, with what the constraint says of it.
    fn from(error: restore::Error) -> Self {
        let detail = format!("{error}; nothing was written");
        match error {
            restore::Error::Database(error) => error.into(),
            restore::Error::Refused(rows) => {
                let items = rows.into_iter().enumerate().map(|(index, refused)| {
                    let mut problem = Problem::from(refused.error).into_body();
                    problem.detail = format!("{}: {}", refused.name, problem.detail);
                    Item { index, problem }
                });
                Self::new(StatusCode::CONFLICT, "forbidden-by-now", "Constraints forbid these rows by now", detail)
                    .remedy("change or remove what is in the way of each of the items, and try again")
                    .items(items.collect())
            }
        }
    }
}
