//! Accepts connections, remembers what was sent on each, and answers: Traefik's polls here, the rest by the API.
//!
//! The accept loop is ours because the hold needs the connection: two polls are one Traefik's when they come on the same
//! one. [`poll`] answers `GET /traefik`, [`health`] the probes.

pub mod health;
mod inflated;
mod linger;
mod pieces;
mod poll;
mod stall;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::IntoResponse as _};
use futures_util::StreamExt as _;
use http::{Method, Request, Response, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use metrics::{Counter, SharedString, counter, gauge, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_rustls::rustls;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::Instrument as _;

use self::{linger::Lingering, poll::Memory, stall::Impatient};
use crate::{
    agents::Agents,
    api::{Brought, Known, Peer, Problem, Route, Said},
    audit::refusals::{Refusal, Refusals},
    auth::{Auth, Hosts},
    instances::Instances,
    metrics as name,
    snapshot::Current,
    status::Status,
    tls::{Presented, Tls},
};

/// A connection on which no request came to an end for this long, and none is being answered, is closed. One timer per
/// connection: hyper's own would be one per request.
const IDLE: Duration = Duration::from_mins(1);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers may take after we were told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// The first request of a connection comes within that.
const FIRST: Duration = Duration::from_millis(500);
/// After `accept` failed for want of a resource.
const BREATH: Duration = Duration::from_millis(50);

/// Letters of a path and of a reason in the audit.
const NOTED: usize = 500;

/// What requests are answered from.
pub struct Server {
    pub current: Arc<Current>,
    pub auth: Arc<Auth>,
    pub hosts: Hosts,
    pub instances: Arc<Instances>,
    /// Who was turned away.
    pub refusals: Arc<Refusals>,
    pub status: Arc<Status>,
    pub max_wait: Duration,
    pub agents: Arc<Agents>,
    pub metrics: PrometheusHandle,
    /// Everything but polls and probes.
    pub api: Router,
    /// Polls that were answered well. Made once: a name is looked up by its labels.
    pub polled: Counter,
    pub stop: CancellationToken,
}

/// One client's connection.
struct Connection {
    peer: SocketAddr,
    /// Verified in the handshake, if the client brought one.
    certificate: Option<Arc<Presented>>,
    /// Requests on a connection come one after the other, so this is never waited for.
    memory: Mutex<Memory>,
    /// Requests that came, and that were answered to the end.
    came: AtomicU64,
    answered: AtomicU64,
}

impl Connection {
    fn certificate(&self) -> Option<&Presented> {
        self.certificate.as_deref()
    }

    /// Ends when the client takes too long to say what it wants.
    async fn idles(&self) {
        let mut before = 0;
        loop {
            sleep(IDLE).await;
            let answered = self.answered.load(Ordering::Relaxed);
            if answered == before && self.came.load(Ordering::Relaxed) == answered {
                return;
            }
            before = answered;
        }
    }
}

/// A request on a connection, until its answer has been sent.
struct Answering(Arc<Connection>);

impl Answering {
    /// A body whose end cannot be foreseen holds the connection open until then.
    fn until_sent(self, response: Response<Body>) -> Response<Body> {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |_| {
                let _held = &self;
            }))
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Serves until told to stop; then answers what is held and lets every connection finish.
    pub async fn run(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<Tls>>) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(BREATH).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            let server = Arc::clone(&self);
            let tls = tls.clone();
            connections.spawn(async move {
                gauge!(name::CONNECTIONS).increment(1.0);
                let stream = Lingering::new(Impatient::new(stream));
                match tls {
                    None => server.connection(stream, peer, None).await,
                    Some(tls) => Box::pin(server.secure(&tls, stream, peer)).await,
                }
                gauge!(name::CONNECTIONS).decrement(1.0);
            });
        }
        drop(listener);
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections did not finish in time");
        }
    }

    /// Shakes hands; a client whose certificate is bad hears of it.
    async fn secure<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self: &Arc<Self>,
        tls: &Arc<Tls>,
        stream: S,
        peer: SocketAddr,
    ) {
        let (acceptor, loaded) = tls.acceptor();
        let accepting = acceptor.accept(stream).into_fallible().instrument(tracing::warn_span!("handshake", %peer));
        match timeout(HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => {
                let certificate = tls.presented(stream.get_ref().1, &loaded).map(Arc::new);
                self.connection(stream, peer, certificate).await;
            }
            Ok(Err((error, mut stream))) => {
                tracing::debug!(%peer, %error, "no TLS");
                let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                if let Some(rustls::Error::InvalidCertificate(why)) = cause {
                    self.refusals.note(bad_certificate(peer, &why.to_string()), jiff::Timestamp::now());
                    drop(stream.shutdown().await);
                }
            }
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self: &Arc<Self>,
        stream: S,
        peer: SocketAddr,
        certificate: Option<Arc<Presented>>,
    ) {
        let (came, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        let connection = Arc::new(Connection { peer, certificate, memory: Mutex::default(), came, answered });
        let service = service_fn(|request| {
            let (server, connection) = (Arc::clone(self), Arc::clone(&connection));
            async move {
                connection.came.fetch_add(1, Ordering::Relaxed);
                let response = server.answer(&connection, request).await;
                Ok::<_, Infallible>(Answering(connection).until_sent(response))
            }
        });
        let serving = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = connection.idles() => return tracing::debug!(%peer, "closed an idle connection"),
            () = self.stop.cancelled() => {
                // Who was let in and has not asked yet would be hung up on, with the request on its way.
                let is_new = connection.came.load(Ordering::Relaxed) == 0;
                if let Ok(ended) = timeout(if is_new { FIRST } else { Duration::ZERO }, serving.as_mut()).await {
                    ended
                } else {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection broke");
        }
    }

    async fn answer(self: &Arc<Self>, connection: &Connection, request: Request<Incoming>) -> Response<Body> {
        // Copied: what is shared would keep the buffer of the request for as long as a poll is held.
        let (method, path) = (request.method().clone(), Box::<str>::from(request.uri().path()));
        let response = self.answer_unnoted(connection, request).await;
        self.note(connection, &method, &path, &response);
        response
    }

    /// Leaves a note for the audit when the request was refused: to anybody for want of a right, to a known caller also
    /// a write for what it holds.
    fn note(&self, connection: &Connection, method: &Method, path: &str, response: &Response<Body>) {
        let (status, known) = (response.status(), response.extensions().get::<Known>());
        let by_right = matches!(status.as_u16(), 401 | 403 | 421 | 429);
        let write = known.is_some() && status.is_client_error() && !matches!(*method, Method::GET | Method::HEAD);
        if !by_right && !write {
            return;
        }
        let said = response.extensions().get::<Said>();
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let refusal = Refusal {
            address: connection.peer.ip(),
            actor: known.map(|Known(name)| name.clone()).or(connection.certificate().map(ToString::to_string)),
            status: status.as_u16(),
            problem: said
                .map(|said| said.kind.trim_start_matches("urn:charliehub:problem:").to_owned())
                .unwrap_or_default(),
            why: said.map(|said| said.detail.chars().take(NOTED).collect()).unwrap_or_default(),
            method: method.to_string(),
            path: path.chars().take(NOTED).collect(),
            request_id: id.map(str::to_owned),
        };
        self.refusals.note(refusal, jiff::Timestamp::now());
    }

    async fn answer_unnoted(self: &Arc<Self>, connection: &Connection, request: Request<Incoming>) -> Response<Body> {
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        let ours = read && matches!(request.uri().path(), "/traefik" | "/healthz" | "/readyz" | "/metrics");
        if !ours {
            // On the heap: what a connection is by itself is what thousands of polls are.
            return Box::pin(self.answer_by_api(connection, request)).await;
        }
        if let Err(problem) = self.check_host(&request) {
            return counted("refused", problem.into_response());
        }
        match request.uri().path() {
            "/traefik" => self.poll(connection, request).await,
            "/healthz" => counted("/healthz", health::alive()),
            "/readyz" => counted("/readyz", health::ready(self.status.readiness(self.current.load().as_deref()))),
            _ => counted("/metrics", self.render_metrics()),
        }
    }

    async fn answer_by_api(&self, connection: &Connection, request: Request<Incoming>) -> Response<Body> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(connection.peer.ip()));
        request.extensions_mut().insert(Brought(connection.certificate.clone()));
        let started = Instant::now();
        let response = match self.api.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // Few labels, whatever is asked for.
        let route = response.extensions().get::<Route>().map_or("other", |Route(path)| path.as_str()).to_owned();
        histogram!(name::HTTP_SECONDS, "route" => route.clone()).record(started.elapsed().as_secs_f64());
        counted(route, response)
    }

    /// A page of another site must not reach us through a name that it made resolve to our address.
    fn check_host(&self, request: &Request<Incoming>) -> Result<(), Problem> {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.hosts.allow(host) { Ok(()) } else { Err(Problem::other_host()) }
    }

    fn render_metrics(&self) -> Response<Body> {
        gauge!(name::SNAPSHOT_AGE).set(self.status.age().as_secs_f64());
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            self.metrics.render() + &self.agents.metrics(Instant::now()),
        )
            .into_response()
    }
}

/// What the audit is told of a handshake that a client's certificate ended.
fn bad_certificate(peer: SocketAddr, why: &str) -> Refusal {
    Refusal {
        address: peer.ip(),
        actor: None,
        status: 403,
        problem: "certificate".to_owned(),
        why: why.chars().take(NOTED).collect(),
        method: String::new(),
        path: String::new(),
        request_id: None,
    }
}

fn counted(route: impl Into<SharedString>, response: Response<Body>) -> Response<Body> {
    counter!(name::HTTP_REQUESTS, "route" => route.into(), "status" => response.status().as_u16().to_string())
        .increment(1);
    response
}
