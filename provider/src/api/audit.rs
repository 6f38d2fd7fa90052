//! `GET /api/audit`: who did what, for administrators; the newest first, in pages by `Link`.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Uri, header};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{Api, Problem, query::Parameters};
use crate::audit::list::{Entry, Filter, Place, entries};

const MOST: i64 = 1000;
const USUAL: i64 = 100;
const KNOWN: &[&str] = &["since", "until", "actor", "kind", "limit", "cursor"];

/// `GET /api/audit`: events, and the changes of rows, in one list.
#[utoipa::path(get, path = "/api/audit", operation_id = "list_audit", tag = "audit",
    params(("since" = Option<String>, Query), ("until" = Option<String>, Query), ("actor" = Option<String>, Query),
        ("kind" = Option<String>, Query), ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Vec<Entry>, description = "Who did what"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let uri = request.uri();
    let filter = filter(uri)?;
    let client = api.pool.get().await?;
    let mut found = entries(&**client, &Filter { limit: filter.limit + 1, ..filter.clone() }).await?;
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| (header::LINK, next(uri, &last.place)));
    Ok((axum::response::AppendHeaders(next), Json(found)).into_response())
}

fn filter(uri: &Uri) -> Result<Filter, Problem> {
    let mut parameters = Parameters::of(uri)?;
    let since = parameters.take("since").map(|text| moment("since", &text)).transpose()?;
    let until = parameters.take("until").map(|text| moment("until", &text)).transpose()?;
    let limit = parameters.take("limit").map_or(Some(USUAL), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=MOST).contains(limit)).ok_or_else(|| {
        Problem::parameter("limit", format!("it is not 1 to {MOST}")).remedy(format!("leave it out for {USUAL}"))
    })?;
    let behind = parameters.take("cursor").map(|text| place(&text)).transpose()?;
    let (actor, kind) = (parameters.take("actor"), parameters.take("kind"));
    parameters.done(KNOWN)?;
    Ok(Filter { since, until, actor, kind, behind, newest_first: true, limit })
}

/// A moment, or the beginning of a day in UTC.
fn moment(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    text.parse()
        .ok()
        .or_else(day)
        .ok_or_else(|| Problem::parameter(name, "it is not a time").remedy("write 2026-11-24T18:00:00Z, or 2026-11-24"))
}

fn place(cursor: &str) -> Result<Place, Problem> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (at, chain, number, seq): (Timestamp, _, _, _) = serde_json::from_slice(&bytes).ok()?;
        Some(Place { at: at.to_string(), chain, number, seq })
    };
    read().ok_or_else(|| {
        Problem::parameter("cursor", "it is not one that we gave").remedy("take it from the Link header as it is")
    })
}

/// The same request for what comes behind.
fn next(uri: &Uri, last: &Place) -> String {
    let place = serde_json::json!([last.at, last.chain, last.number, last.seq]).to_string();
    let kept =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let cursor = format!("cursor={}", BASE64_URL_SAFE_NO_PAD.encode(place));
    let query: Vec<&str> = kept.chain([cursor.as_str()]).collect();
    format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))
}
