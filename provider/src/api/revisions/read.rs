//! What history has: the revisions, what each changed, the exact bytes, the difference of any two, and what waits.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::revision::{Changed, Compared, Revision, Withheld};
use http::{HeaderValue, header};

use super::number;
use crate::{
    api::{Api, Problem, query::Parameters},
    auth::{Caller, Role},
    revisions::{self, Error, Secrets},
};

const MOST: i64 = 1000;
const USUAL: i64 = 100;

/// Keys and password hashes are for administrators.
fn secrets(caller: &Caller) -> Secrets {
    if caller.role == Role::Admin { Secrets::Shown } else { Secrets::Masked }
}

/// `GET /api/revisions`: newest first, in pages by the `Link` header.
#[utoipa::path(get, operation_id = "list_revisions", path = "/api/revisions", tag = "history",
    params(("limit" = Option<u16>, Query, minimum = 1, maximum = 1000), ("cursor" = Option<i64>, Query)),
    responses((status = 200, body = Vec<Revision>, description = "The revisions, newest first"), Problem))]
pub(in crate::api) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let limit = parameters.take("limit").map_or(Some(USUAL), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=MOST).contains(limit)).ok_or_else(|| {
        Problem::parameter("limit", format!("it is not 1 to {MOST}")).remedy(format!("leave it out for {USUAL}"))
    })?;
    let before = parameters.take("cursor").map(|text| text.parse()).transpose().map_err(|_| {
        Problem::parameter("cursor", "it is not one that we gave").remedy("take it from the Link header as it is")
    })?;
    parameters.done(&["limit", "cursor"])?;
    let client = api.pool.get().await?;
    // One more tells that there is another page.
    let mut found = revisions::list(&**client, before, limit + 1).await?;
    let more = i64::try_from(found.len()).is_ok_and(|found| found > limit);
    if more {
        found.pop();
    }
    let last = found.last().filter(|_| more).map(|last| last.commit.revision);
    let mut response = Json(found).into_response();
    if let Some(last) = last {
        let link = format!("</api/revisions?limit={limit}&cursor={last}>; rel=\"next\"");
        response.headers_mut().extend(HeaderValue::try_from(link).map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// `GET /api/revisions/{n}`: who, when, from where, why; the rows before and after; what it meant for Traefik.
#[utoipa::path(get, operation_id = "get_revision", path = "/api/revisions/{n}", tag = "history", params(("n" = i64, Path)),
    responses((status = 200, body = Changed, description = "The revision"), Problem))]
pub(in crate::api) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(n): Path<String>,
) -> Result<Json<Changed>, Problem> {
    let n = number(&n)?;
    let client = api.pool.get().await?;
    Ok(Json(revisions::changed(&**client, n, &api.settings, secrets(&caller)).await?))
}

/// `GET /api/revisions/{n}/config`: the exact bytes. There are secrets in it: for roles traefik and admin.
#[utoipa::path(get, operation_id = "get_config", path = "/api/revisions/{n}/config", tag = "history", params(("n" = i64, Path)),
    responses((status = 200, body = serde_json::Value, description = "The config, as it was served"), Problem))]
pub(in crate::api) async fn config(State(api): State<Api>, Path(n): Path<String>) -> Result<Response, Problem> {
    let n = number(&n)?;
    let client = api.pool.get().await?;
    let bytes = revisions::exact(&**client, n).await?.ok_or_else(|| {
        Problem::not_found(format!("the bytes of revision {n} are not kept"))
            .field("n")
            .remedy(format!("have its rows compiled again: charliehub-provider export --revision {n}"))
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// `GET /api/revisions/{a}/diff/{b}`: routes, rows and text; the text alone for `Accept: text/plain`.
#[utoipa::path(get, operation_id = "diff_revisions", path = "/api/revisions/{a}/diff/{b}", tag = "history",
    params(("a" = i64, Path), ("b" = i64, Path)),
    responses((status = 200, description = "What is different", content((Compared = "application/json"), (String = "text/plain"))), Problem))]
pub(in crate::api) async fn diff(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((a, b)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let pair = (number(&a)?, number(&b)?);
    let client = api.pool.get().await?;
    let compared = revisions::compare(&**client, pair, &api.settings, secrets(&caller)).await?;
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.starts_with("text/plain") {
        return Ok(compared.text.into_response());
    }
    Ok(Json(compared).into_response())
}

/// `GET /api/withheld`: the changes that wait for an administrator, each beside what runs.
#[utoipa::path(get, operation_id = "list_withheld", path = "/api/withheld", tag = "history",
    responses((status = 200, body = Vec<Withheld>, description = "What waits, oldest first"), Problem))]
pub(in crate::api) async fn withheld(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Withheld>>, Problem> {
    let client = api.pool.get().await?;
    Ok(Json(revisions::withheld(&**client, secrets(&caller)).await?))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::Unknown(_) => Self::not_found(detail).remedy("GET /api/revisions lists them"),
            Error::NotKept { floor, .. } => {
                Self::not_found(detail).remedy(format!("choose a revision from {floor} on"))
            }
            Error::Damaged(..) => {
                tracing::error!(%detail, "history cannot be read");
                Self::internal()
            }
            Error::Database(error) => error.into(),
        }
    }
}
