//! `GET /api/agents/{name}/expected`: all that one agent holds reality against, held open until it is another.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use charliehub_proto::expected::{Expected, ExpectedDelta};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::{agent_name, own, stopped, wait};
use crate::{
    api::{Api, Problem, query::Parameters},
    auth::Caller,
    expected::Ready,
    snapshot::{accepts_gzip, encode::gzip},
};

/// How long one without `wait` waits for the first reading of the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// Less is not worth compressing.
const SMALL: usize = 1 << 10;

/// What is answered; this is for the description.
#[derive(Serialize, ToSchema)]
#[schema(as = ExpectedAnswer)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(in crate::api) enum Answered {
    All(Expected),
    Since(ExpectedDelta),
}

/// `GET /api/agents/{name}/expected`: sites, policy and names, compiled for one agent; or, with `have`, what changed since.
#[utoipa::path(get, operation_id = "get_expected", path = "/api/agents/{name}/expected", tag = "agents",
    params(("name" = String, Path),
        ("have" = Option<String>, Query, description = "The digest that the agent has: the answer may be the difference to it"),
        ("wait" = Option<String>, Query, description = "Such as `55s`, at most 60 s: held until the digest is another than that of `have` or `If-None-Match`"),
        ("If-None-Match" = Option<String>, Header, description = "A digest too; all of it is answered where it changed")),
    responses((status = 200, body = Answered, description = "All of it, or what changed since"),
        (status = 304, description = "It is what the agent has"), Problem))]
pub(in crate::api) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = agent_name(name)?;
    own(&caller, &name)?;
    let mut parameters = Parameters::of(request.uri())?;
    let wait = wait(&mut parameters)?;
    let have = parameters.take("have");
    parameters.done(&["have", "wait"])?;
    let headers = request.headers();
    let etag = headers.get(header::IF_NONE_MATCH).and_then(|etag| etag.to_str().ok());
    let known = have.as_deref().or(etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')));
    let until = Instant::now() + wait;
    let ready = current(&api, &name, until.max(Instant::now() + PATIENCE)).await?;
    let ready = if known == Some(&*ready.expected.digest) { other(&api, &name, ready, until).await } else { ready };
    if known == Some(&*ready.expected.digest) {
        return Ok((StatusCode::NOT_MODIFIED, tag(&ready)).into_response());
    }
    let zip = accepts_gzip(headers.get(header::ACCEPT_ENCODING));
    if let Some(delta) = have.and_then(|have| api.expectations.since(&name, &have, &ready)) {
        let zipped = (zip && delta.len() > SMALL).then(|| gzip(&delta));
        return Ok(answer(&ready, delta, zipped));
    }
    let body = ready.body();
    let zipped = (zip && body.len() > SMALL).then(|| ready.gzip());
    Ok(answer(&ready, body, zipped))
}

/// What the agent expects now. Until the database was read the first time, it is waited for.
async fn current(api: &Api, name: &str, until: Instant) -> Result<Arc<Ready>, Problem> {
    let mut news = api.expectations.subscribe();
    if !api.expectations.want() {
        // Nothing was kept for agents until now.
        let read = async {
            if api.asker.everything().await.is_some() {
                while api.expectations.of(name).is_none() && news.changed().await.is_ok() {}
            }
        };
        tokio::select! { () = read => {}, () = tokio::time::sleep_until(until) => {}, () = stopped(api) => {} }
    }
    api.expectations.of(name).ok_or_else(|| Problem::unavailable(2, "the database was not read yet"))
}

/// What it expects as soon as it is another than `now`; else `now` itself.
async fn other(api: &Api, name: &str, now: Arc<Ready>, until: Instant) -> Arc<Ready> {
    let mut news = api.expectations.subscribe();
    loop {
        news.mark_unchanged();
        match api.expectations.of(name) {
            Some(other) if other.expected.digest != now.expected.digest => return other,
            _ => {}
        }
        let changed = tokio::select! {
            changed = timeout_at(until, news.changed()) => matches!(changed, Ok(Ok(()))),
            () = stopped(api) => false,
        };
        if !changed {
            return now;
        }
    }
}

fn tag(ready: &Ready) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.extend(format!("\"{}\"", ready.expected.digest).parse().map(|etag| (header::ETAG, etag)));
    headers.insert(header::VARY, http::HeaderValue::from_static("accept-encoding"));
    headers
}

fn answer(ready: &Ready, body: Bytes, zipped: Option<Bytes>) -> Response {
    let mut headers = tag(ready);
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    let body = match zipped {
        Some(zipped) => {
            headers.insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
            zipped
        }
        None => body,
    };
    (headers, body).into_response()
}
