//! `GET /api/events`: what happened, as a stream of server-sent events that goes on where a reader left it, or what is
//! kept of it at once.
//!
//! A stream reads the shared buffer in its own time: hyper asks for more when the client took what it was sent, so a slow
//! one holds a few buffers, falls behind and is told what it missed; one that takes nothing is hung up on by `serve`.

use std::{collections::BTreeSet, convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use charliehub_proto::event::{Event, EventKind};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use metrics::gauge;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Api, Problem, query::Parameters};
use crate::{
    auth::{Auth, Need},
    events::{Begin, Reader},
    metrics as name,
};

const KNOWN: &[&str] = &["kind", "after"];
/// Begins with the oldest that is kept.
const OLDEST: &str = "0";
/// After so long a silence a comment says that we are there, and where the reader stands.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a token that was revoked, or expired, may be noticed late.
const LOOK: Duration = Duration::from_secs(1);
/// After so many milliseconds a browser comes again.
const RETRY: u32 = 1000;
/// Events that are put on the wire at once.
const BATCH: usize = 16;

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies that would collect the answer before they pass it on.
static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /api/events`: what happened. A stream for all but those who accept `application/json` only: these get a bare array of
/// what is kept.
#[utoipa::path(get, operation_id = "follow_events", path = "/api/events", tag = "events",
    params(("kind" = Option<Vec<EventKind>>, Query, description = "Only these, and `missed`"),
        ("after" = Option<String>, Query, description = "The id behind which to begin; `0`: with the oldest that is kept"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, before `after`: browsers send it")),
    responses((status = 200, description = "A stream, its data each an event; or the events that are kept",
        content((String = "text/event-stream"), (Vec<Event> = "application/json"))), Problem))]
pub(super) async fn follow(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let kinds = kinds(&parameters.all("kind"))?;
    let after = parameters.take("after");
    parameters.done(KNOWN)?;
    let given = request.headers().get(&LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let begin = match given.or(after) {
        None => None,
        Some(id) if id == OLDEST => Some(Begin::Oldest),
        Some(id) => Some(Begin::After(id)),
    };
    if wants_json(request.headers()) {
        let taken = api.events.reader(begin.unwrap_or(Begin::Oldest)).take(usize::MAX);
        return Ok(
            Json(taken.into_iter().filter(|event| kinds.contains(&event.kind)).collect::<Vec<_>>()).into_response()
        );
    }
    let Some(place) = api.events.stream() else {
        return Err(Problem::unavailable(5, "too many streams of events are open")
            .remedy("close some, or ask for what is kept with `Accept: application/json`"));
    };
    gauge!(name::EVENT_STREAMS).increment(1.0);
    let is_new = begin.is_none();
    let reader = api.events.reader(begin.unwrap_or(Begin::Now));
    // Who came with an id keeps it until there is an event: what he missed is not told yet.
    let said = if is_new { reader.id() } else { String::new() };
    let first = if is_new { format!("retry: {RETRY}\nid: {said}\n\n") } else { format!("retry: {RETRY}\n\n") };
    let following = Following {
        said,
        said_at: Instant::now(),
        stop: api.events.stopped(),
        auth: Arc::clone(&api.auth),
        headers: request.headers().clone(),
        reader,
        kinds,
        _place: Place(place),
    };
    let first = stream::once(async move { Ok::<_, Infallible>(Bytes::from(first)) });
    let body = Body::from_stream(first.chain(stream::unfold(following, Following::next)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING.clone(), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// Those of these names, of none all. A gap is told to everybody.
fn kinds(names: &[String]) -> Result<BTreeSet<EventKind>, Problem> {
    let mut kinds = BTreeSet::from([EventKind::Missed]);
    for name in names {
        kinds.insert(EventKind::named(name).map_err(|nearest| {
            Problem::parameter("kind", "there is no such kind of event")
                .remedy(format!("did you mean `{nearest}`? Of several, write kind= before each"))
        })?);
    }
    Ok(if names.is_empty() { EventKind::ALL.into() } else { kinds })
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    let media: Vec<&str> = accepted
        .flat_map(|accepted| accepted.split(','))
        .map(|media| media.split(';').next().unwrap_or_default().trim())
        .collect();
    let is_named = |name: &str| media.iter().any(|media| media.eq_ignore_ascii_case(name));
    is_named("application/json") && !is_named("text/event-stream")
}

/// One event on the wire. JSON has no line breaks outside of its strings, nor in them.
fn frame(event: &Event) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind)
}

/// Counts the stream, for as long as it is open.
struct Place(#[expect(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

impl Drop for Place {
    fn drop(&mut self) {
        gauge!(name::EVENT_STREAMS).decrement(1.0);
    }
}

/// One stream.
struct Following {
    reader: Reader,
    kinds: BTreeSet<EventKind>,
    /// The last id that the client was told, and when it heard anything.
    said: String,
    said_at: Instant,
    auth: Arc<Auth>,
    headers: HeaderMap,
    stop: CancellationToken,
    _place: Place,
}

impl Following {
    /// What is to be sent next. None: the server stops, or the client may not read any more.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            let news = tokio::time::timeout(LOOK, self.reader.wait());
            let is_news = tokio::select! {
                () = self.stop.cancelled() => return None,
                news = news => news.is_ok(),
            };
            if self.stop.is_cancelled() || !self.auth.still(&self.headers, Need::Read) {
                return None;
            }
            let mut frames = String::new();
            if is_news {
                for event in self.reader.take(BATCH).iter().filter(|event| self.kinds.contains(&event.kind)) {
                    frames.push_str(&frame(event));
                }
            } else if self.said_at.elapsed() >= HEARTBEAT {
                frames.push_str(":\n");
                if self.said != self.reader.id() {
                    // What was not wanted counts as read: who comes again begins behind it.
                    let _ = writeln!(frames, "id: {}", self.reader.id()); // a String takes all
                }
                frames.push('\n');
            }
            if !frames.is_empty() {
                (self.said, self.said_at) = (self.reader.id(), Instant::now());
                return Some((Ok(Bytes::from(frames)), self));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::missed;

    #[test]
    fn an_event_is_one_frame_of_three_lines() {
        let mut event = missed("a-7".to_owned(), Some(2));
        event.text = "a\nline\r and\u{2028}another".to_owned();
        let frame = frame(&event);
        let lines: Vec<&str> = frame.split(['\n', '\r']).collect();
        assert_eq!((lines.len(), lines[0], lines[1], lines[3]), (5, "id: a-7", "event: missed", ""));
        let data: Event = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data, event);
    }

    #[test]
    fn only_who_wants_json_and_no_stream_gets_an_array() {
        for (accept, is_json) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/event-stream"), false),
            (Some("application/json"), true),
            (Some("Application/JSON;q=0.9, text/plain"), true),
            (Some("application/json, text/event-stream"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(wants_json(&headers), is_json, "{accept:?}");
        }
    }

    #[test]
    fn a_kind_that_does_not_exist_names_the_nearest() {
        assert_eq!(kinds(&[]).unwrap(), EventKind::ALL.into());
        assert_eq!(kinds(&["ack".to_owned()]).unwrap(), BTreeSet::from([EventKind::Ack, EventKind::Missed]));
        let problem = kinds(&["ack".to_owned(), "revisions".to_owned()]).unwrap_err();
        assert!(problem.body().remedy.as_deref().unwrap_or_default().contains("`revision`"));
    }
}
