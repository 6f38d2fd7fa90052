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

use super::{Connection, Server, inflated::Inflated, pieces::Pieces};
use crate::{
    api::problem::Problem,
    auth::{self, Caller, Need, Pass, Refusal},
    hold::{Sent, spread},
    instances::{Instance, Outcome},
    snapshot::{Snapshot, accepts_gzip, encode::Encoded},
    tls::{Fault, Kind},
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
    pub(super) async fn poll(&self, connection: &Connection, request: Request<Incoming>) -> Response<Body> {
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
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let headers = request.headers();
        let poll = Poll::parse(request.uri().query().unwrap_or_default())?;
        let asked = poll.wait.min(self.max_wait);
        self.admit(connection, headers, &poll, asked).await?;
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
        let gzip = accepts_gzip(headers.get(header::ACCEPT_ENCODING));
        let shows = request.method() == Method::GET;
        let now = self.at_once(&instance, known.as_deref(), wait).await;
        let (snapshot, outcome, held) = if let Some(snapshot) = now {
            (snapshot, Outcome::Immediate, Duration::ZERO)
        } else {
            let who = auth::credentials(headers);
            // It shares the buffer that it was read into: thousands of polls would keep theirs.
            drop(request);
            let news = self.hold(&instance, known.as_deref(), wait).await?;
            // A token revoked meanwhile gets nothing any more.
            self.auth.check(&who, Need::Traefik, connection.peer.ip(), connection.certificate()).await?;
            news
        };
        instance.answered(&snapshot, outcome, held, asked, fresh);
        if shows {
            let mut memory = connection.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.sent.remember(&instance.name, snapshot.digest());
        }
        if conditional && known.as_deref() == Some(&**snapshot.digest()) {
            return Ok(respond(&snapshot, StatusCode::NOT_MODIFIED, None, false));
        }
        Ok(respond(&snapshot, StatusCode::OK, Some(body(&snapshot.encoded, gzip)), gzip))
    }

    /// Whether the caller may poll as this instance.
    async fn admit(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
        poll: &Poll<'_>,
        wait: Duration,
    ) -> Result<(), Problem> {
        {
            let memory = connection.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pass) = memory.pass.as_ref().filter(|pass| pass.holds(&self.auth, headers, Instant::now())) {
                return may_poll_as(&pass.caller, poll.instance);
            }
        }
        // Before the database answered for the first time nobody can say that a token is wrong, and a refusal would make
        // Traefik back off for long.
        let by_token = connection.certificate().is_none() || headers.contains_key(header::AUTHORIZATION);
        if by_token && timeout(wait, self.auth.known()).await.is_err() {
            return Err(self.never_configured());
        }
        let pass = self.auth.pass(headers, Need::Traefik, connection.peer.ip(), connection.certificate()).await?;
        let may = may_poll_as(&pass.caller, poll.instance);
        connection.memory.lock().unwrap_or_else(PoisonError::into_inner).pass = Some(pass);
        may
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

    /// What is there for one that knows `known`; `None`: it has to wait.
    async fn at_once(&self, instance: &Instance, known: Option<&str>, wait: Duration) -> Option<Arc<Snapshot>> {
        if self.current.has_own(&instance.name) {
            // What it takes depends on its version, which its API is being asked for.
            drop(timeout(VERSION.min(wait), instance.known()).await);
        }
        let now = self.current.load_for(&instance.name)?;
        (wait.is_zero() || known != Some(now.digest())).then_some(now)
    }

    /// Waits for a config other than `known`, for `wait` at most. `Err`: there has never been one.
    async fn hold(
        &self,
        instance: &Instance,
        known: Option<&str>,
        wait: Duration,
    ) -> Result<(Arc<Snapshot>, Outcome, Duration), Problem> {
        let wait = spread(wait, rand::random());
        let _held = instance.hold();
        let mut watch = HangUp { instance, since: Instant::now(), answered: false };
        let news = timeout(wait, self.current.other_than(&instance.name, known));
        let news = tokio::select! {
            news = news => news.ok(),
            () = self.stop.cancelled() => None,
        };
        watch.answered = true;
        let held = watch.since.elapsed();
        if let Some(snapshot) = news {
            return Ok((snapshot, Outcome::Changed, held));
        }
        // The digest is the same, but the revision may be newer.
        if let Some(snapshot) = self.current.load_for(&instance.name) {
            return Ok((snapshot, Outcome::Unchanged, held));
        }
        instance.count(Outcome::Unavailable);
        Err(self.never_configured())
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

/// A token may be for one instance; a certificate always is.
fn may_poll_as(caller: &Caller, instance: &str) -> Result<(), Problem> {
    if caller.subject.as_deref().is_none_or(|subject| subject == instance) {
        return Ok(());
    }
    if caller.certified {
        let fault = Fault::Other { role: Kind::Traefik, name: instance.to_owned() };
        return Err(Problem::from(Refusal::Certificate { who: caller.name.clone(), fault }).field("instance"));
    }
    let detail = format!("the token speaks for another instance than `{instance}`");
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "This token may not do this", detail)
        .field("instance")
        .remedy("use the name that the token was made for, as --subject said"))
}

/// As the database's `ch_name` has it.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.len() <= 128 && name.bytes().all(inner) && outer(name.as_bytes().first()) && outer(name.as_bytes().last())
}

fn body(encoded: &Encoded, gzip: bool) -> Body {
    match (gzip, encoded.gzip.single()) {
        (true, Some(one)) => one.clone().into(),
        (true, None) => Body::new(Pieces::new(&encoded.gzip)),
        (false, _) if encoded.is_large() => Body::new(Inflated::new(encoded)),
        (false, _) => encoded.identity().into(),
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
