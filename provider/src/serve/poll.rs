//! `GET /traefik`: at once when there is news for this connection, held otherwise.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use axum::{body::Body, response::IntoResponse as _};
use charliehub_proto::duration;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Connection, Server, inflated::Inflated};
use crate::{
    api::problem::Problem,
    auth::{Need, Pass},
    hold::Sent,
    instances::{Instance, Outcome},
    snapshot::{Snapshot, accepts_gzip, encode::Encoded},
};

/// So long the first answer to an instance may wait for its version.
const VERSION: Duration = Duration::from_secs(2);
const UNNAMED: &str = "unnamed";

/// What a connection remembers between its requests.
#[derive(Default)]
pub(super) struct Memory {
    sent: Sent,
    /// The instance that polled last, which is nearly always the same.
    instance: Option<Arc<Instance>>,
    /// Who polled last, which is nearly always the same too.
    pass: Option<Pass>,
}

/// `?wait=&instance=`.
#[derive(Debug, PartialEq, Eq)]
struct Poll<'a> {
    wait: Duration,
    instance: &'a str,
}

impl Server {
    pub(super) async fn poll(&self, connection: &Connection, request: &Request<Incoming>) -> Response<Body> {
        match self.answer_poll(connection, request).await {
            Ok(response) => {
                self.polled.increment(1);
                response
            }
            Err(problem) => super::counted("/traefik", problem.into_response()),
        }
    }

    async fn answer_poll(
        &self,
        connection: &Connection,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let headers = request.headers();
        let poll = Poll::parse(request.uri().query().unwrap_or_default())?;
        let asked = poll.wait.min(self.max_wait);
        if !self.admit(connection, headers, &poll, asked).await? {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "This token may not do this",
                format!("the token speaks for another instance than `{}`", poll.instance),
            )
            .field("instance")
            .remedy("use the name that the token was made for, as --subject said"));
        }
        let (instance, sent) = self.remembered(connection, poll.instance);
        let fresh = sent.is_none();
        // Behind a pooling proxy a connection identifies nobody.
        let proxied = headers.contains_key(header::VIA) || headers.contains_key("x-forwarded-for");
        let asked = if proxied || request.method() == Method::HEAD { Duration::ZERO } else { asked };
        let wait = instance.polled(asked);
        let known = match headers.get(header::IF_NONE_MATCH) {
            Some(etag) => etag.to_str().ok().map(|etag| etag.trim_start_matches("W/").trim_matches('"').into()),
            None => sent,
        };
        let conditional = headers.contains_key(header::IF_NONE_MATCH);
        let (snapshot, outcome, held) = self.hold(&instance, known.as_deref(), wait).await?;
        if outcome != Outcome::Immediate {
            // A token revoked meanwhile gets nothing any more.
            self.auth.check(headers, Need::Traefik, connection.peer.ip()).await?;
        }
        instance.answered(&snapshot, outcome, held, asked, fresh);
        if request.method() == Method::GET {
            let mut memory = connection.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.sent.remember(&instance.name, snapshot.digest());
        }
        if conditional && known.as_deref() == Some(&**snapshot.digest()) {
            return Ok(respond(&snapshot, StatusCode::NOT_MODIFIED, None, false));
        }
        let gzip = accepts_gzip(headers.get(header::ACCEPT_ENCODING));
        Ok(respond(&snapshot, StatusCode::OK, Some(body(&snapshot.encoded, gzip)), gzip))
    }

    /// Whether the caller may poll as this instance; `Err` when it may not poll at all.
    async fn admit(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
        poll: &Poll<'_>,
        wait: Duration,
    ) -> Result<bool, Problem> {
        let may = |pass: &Pass| pass.caller.subject.as_deref().is_none_or(|subject| subject == poll.instance);
        {
            let memory = connection.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pass) = memory.pass.as_ref().filter(|pass| pass.holds(&self.auth, headers, Instant::now())) {
                return Ok(may(pass));
            }
        }
        // Before the database answered for the first time nobody can say that a token is wrong, and a refusal would make
        // Traefik back off for long.
        if timeout(wait, self.auth.known()).await.is_err() {
            return Err(self.never_configured());
        }
        let pass = self.auth.pass(headers, Need::Traefik, connection.peer.ip()).await?;
        let may = may(&pass);
        connection.memory.lock().unwrap_or_else(PoisonError::into_inner).pass = Some(pass);
        Ok(may)
    }

    fn remembered(&self, connection: &Connection, name: &str) -> (Arc<Instance>, Option<Arc<str>>) {
        let mut memory = connection.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = match &memory.instance {
            Some(instance) if *instance.name == *name => Arc::clone(instance),
            _ => Arc::clone(memory.instance.insert(self.instances.get(name))),
        };
        let sent = memory.sent.to(&instance.name);
        (instance, sent)
    }

    /// Waits for a config other than `known`, for `wait` at most. `Err`: there has never been one.
    async fn hold(
        &self,
        instance: &Instance,
        known: Option<&str>,
        wait: Duration,
    ) -> Result<(Arc<Snapshot>, Outcome, Duration), Problem> {
        if self.current.has_own(&instance.name) {
            // What it takes depends on its version, which its API is being asked for.
            drop(timeout(VERSION.min(wait), instance.known()).await);
        }
        let now = self.current.load_for(&instance.name);
        match &now {
            Some(snapshot) if wait.is_zero() || known != Some(snapshot.digest()) => {
                return Ok((Arc::clone(snapshot), Outcome::Immediate, Duration::ZERO));
            }
            _ => {}
        }
        let _held = instance.hold();
        let mut watch = HangUp { instance, since: Instant::now(), answered: false };
        let news = timeout(wait, self.current.other_than(&instance.name, known));
        let news = tokio::select! {
            news = news => news.ok(),
            () = self.stop.cancelled() => None,
        };
        watch.answered = true;
        let held = watch.since.elapsed();
        match (news, now) {
            (Some(snapshot), _) => Ok((snapshot, Outcome::Changed, held)),
            // The digest is the same, but the revision may be newer.
            (None, Some(before)) => {
                Ok((self.current.load_for(&instance.name).unwrap_or(before), Outcome::Unchanged, held))
            }
            (None, None) => {
                instance.count(Outcome::Unavailable);
                Err(self.never_configured())
            }
        }
    }

    fn never_configured(&self) -> Problem {
        let why = self.status.readiness(None).reasons.join("; ");
        Problem::unavailable(1, format!("there has never been a config: {why}"))
            .remedy("add a row to the table domains; a poll with ?wait= is held until then")
    }
}

impl<'a> Poll<'a> {
    fn parse(query: &'a str) -> Result<Self, Problem> {
        let mut poll = Self { wait: Duration::ZERO, instance: UNNAMED };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("wait", text) => {
                    poll.wait = duration::parse(text).ok_or_else(|| {
                        Problem::invalid("wait", format!("`{text}` is no time")).remedy("write it as `55s`")
                    })?;
                }
                ("instance", name) if is_name(name) => poll.instance = name,
                ("instance", _) => {
                    return Err(Problem::invalid("instance", "this cannot be a name")
                        .remedy("use up to 128 letters, digits, dots, dashes and underscores"));
                }
                _ => {}
            }
        }
        Ok(poll)
    }
}

/// As the database's `ch_name` has it.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.len() <= 128 && name.bytes().all(inner) && outer(name.as_bytes().first()) && outer(name.as_bytes().last())
}

fn body(encoded: &Encoded, gzip: bool) -> Body {
    match gzip {
        true => encoded.gzip.clone().into(),
        false if encoded.is_large() => Body::new(Inflated::new(encoded)),
        false => encoded.identity().into(),
    }
}

fn respond(snapshot: &Snapshot, status: StatusCode, body: Option<Body>, gzip: bool) -> Response<Body> {
    let gzip = gzip && body.is_some();
    let mut response = Response::new(body.unwrap_or_default());
    *response.status_mut() = status;
    *response.headers_mut() = snapshot.headers.clone();
    if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Notices that the client went away: then the request's future is dropped before it was answered.
struct HangUp<'a> {
    instance: &'a Instance,
    since: Instant,
    answered: bool,
}

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.instance.hung_up(self.since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_parsed() {
        let wait = Duration::from_secs(55);
        for (query, poll) in [
            ("", Some(Poll { wait: Duration::ZERO, instance: UNNAMED })),
            ("wait=55s&instance=hub2", Some(Poll { wait, instance: "hub2" })),
            ("instance=hub2&other=1&wait=55s", Some(Poll { wait, instance: "hub2" })),
            ("wait=soon", None),
            ("instance=a/b", None),
            ("instance=", None),
        ] {
            assert_eq!(Poll::parse(query).ok(), poll, "{query}");
        }
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (header, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(HeaderValue::from_str(header).ok().as_ref()), takes, "{header}");
        }
    }
}
