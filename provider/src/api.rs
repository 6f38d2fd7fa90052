//! The HTTP API: who may call what, and what every answer has in common.
//!
//! A request passes, from the outside in: its id and log span, a net for panics, the check of its `Host`, the check of
//! its token, its handler. Every refusal is `application/problem+json`; only [`problem`] knows which.
//!
//! [`router`] holds the routes of this module; [`finish`] puts what all answers have in common around these and others.

mod agents;
mod audit;
mod debug;
mod deploy_all;
mod domains;
mod events;
mod drift;
mod fields;
mod fragments;
mod instances;
mod json;
mod kept;
mod limit;
pub mod maintenance;
mod matching;
mod named;
pub mod openapi;
mod peers;
pub mod problem;
mod query;
mod rehearse;
mod revisions;
mod tokens;
mod routes;
mod sites;
mod surface;
mod write;

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use charliehub_proto::problem::MEDIA_TYPE;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub use self::{
    kept::Kept,
    limit::{Limits, Policy},
    maintenance::Messages,
    problem::{Problem, Said},
};
use crate::{
    agents::Agents,
    auth::{Auth, Caller, Hosts, Need, Refusal, permit},
    compile::Settings,
    config::Traefik,
    debug::Memory,
    events::Events,
    expected::Expectations,
    heard::Heard,
    instances::Instances,
    postgres::Pool,
    publish::Overview,
    rehearse::Rehearsal,
    rotations::Rotations,
    snapshot::Current,
    status::Status,
    store::reread::Asker,
    tls::Presented,
};

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    pub pool: Pool,
    pub auth: Arc<Auth>,
    pub messages: Messages,
    /// What is served, so that a write can say when it is.
    pub current: Arc<Current>,
    /// Has everything read again.
    pub asker: Asker,
    /// What the compiler is told, so that a write can say what it compiles to.
    pub settings: Arc<Settings>,
    /// Tries on a real Traefik what a change would compile to.
    pub rehearsal: Arc<Rehearsal>,
    /// The Traefiks that poll, or are configured.
    pub instances: Arc<Instances>,
    /// Those whose APIs are configured.
    pub traefiks: Arc<Vec<Traefik>>,
    /// Who decides what an instance is given listens there.
    pub telling: mpsc::Sender<Heard>,
    pub events: Arc<Events>,
    /// What the agents told.
    pub agents: Arc<Agents>,
    /// What the agents expect.
    pub expectations: Arc<Expectations>,
    /// Who waits for a step of a rotation hears of it there.
    pub rotations: Arc<Rotations>,
    pub status: Arc<Status>,
    /// What the newest rows come to.
    pub overview: Arc<ArcSwap<Overview>>,
    /// What `/debug` showed last.
    pub shown: Arc<Memory>,
    /// We speak TLS ourselves.
    pub https: bool,
    /// A change of a row must name the version that it is about.
    pub strict_locking: bool,
    pub limits: Arc<Limits>,
    /// What takes all rows to make.
    pub kept: Arc<Kept>,
}

/// The client's address, put on each request by who accepts connections.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The certificate that the client brought, if any, put on each request too.
#[derive(Clone, Debug)]
pub struct Brought(pub Option<Arc<Presented>>);

/// The route that answered, as it was declared: put on each response, for the metrics.
#[derive(Clone, Debug)]
pub struct Route(pub MatchedPath);

/// The owner of the token that a request came with, put on each response for the audit.
#[derive(Clone, Debug)]
pub struct Known(pub String);

/// What a request is called in logs, in the database and in its answer.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The operations of `/api`, each with its description.
fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(domains::list, domains::insert))
        .routes(routes!(domains::batch))
        .routes(routes!(domains::get, domains::replace, domains::patch, domains::delete))
        .routes(routes!(fragments::list, fragments::insert))
        .routes(routes!(fragments::get, fragments::put, fragments::delete))
        .routes(routes!(sites::list, sites::insert))
        .routes(routes!(sites::get, sites::put, sites::delete))
        .routes(routes!(peers::list, peers::insert))
        .routes(routes!(peers::get, peers::put, peers::delete))
        .routes(routes!(agents::list))
        .routes(routes!(agents::forget))
        .routes(routes!(agents::transitions))
        .routes(routes!(agents::policy, agents::put_policy))
        .routes(routes!(agents::expected))
        .routes(routes!(agents::report))
        .routes(routes!(agents::rotations))
        .routes(routes!(agents::followed_rotations))
        .routes(routes!(agents::rotation, agents::tell_rotation))
        .routes(routes!(deploy_all::get, deploy_all::post))
        .routes(routes!(matching::show))
        .routes(routes!(routes::list))
        .routes(routes!(surface::list))
        .routes(routes!(instances::list))
        .routes(routes!(instances::retry))
        .routes(routes!(events::follow))
        .routes(routes!(drift::list))
        .routes(routes!(rehearse::run))
        .routes(routes!(revisions::read::list))
        .routes(routes!(revisions::read::get))
        .routes(routes!(revisions::read::config))
        .routes(routes!(revisions::read::diff))
        .routes(routes!(revisions::act::rollback))
        .routes(routes!(revisions::act::approve))
        .routes(routes!(revisions::act::discard))
        .routes(routes!(revisions::pin::pin, revisions::pin::unpin))
        .routes(routes!(revisions::read::withheld))
        .routes(routes!(tokens::list, tokens::insert))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(debug::data))
        .routes(routes!(openapi::show))
}

/// The routes of `/api` and `/maintenance`. Not complete without [`finish`].
pub fn router(api: Api) -> Router {
    let (routes, _) = described().split_for_parts();
    routes
        .route_layer(middleware::from_fn_with_state(api.clone(), admit))
        .merge(debug::router(&api))
        .route("/maintenance/{id}", get(maintenance::page))
        .route_layer(middleware::from_fn(name_route))
        .with_state(api)
}

/// Puts around all routes what every answer has in common.
pub fn finish(router: Router, hosts: Hosts) -> Router {
    router
        .fallback(async |request: Request| {
            Problem::not_found(format!("there is nothing at {}", request.uri().path()))
                .remedy("the paths are in the README; the rows are at /api/domains")
        })
        .method_not_allowed_fallback(async |request: Request| {
            let detail = format!("{} does not take {}", request.uri().path(), request.method());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "The method is not for this path", detail)
        })
        .layer(middleware::from_fn_with_state(Arc::new(hosts), check_host))
        .layer(middleware::from_fn(identify))
}

/// Gives a request its id and span, and answers for a handler that panics.
async fn identify(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_plain(id));
    let id = given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let span =
        tracing::info_span!("request", request_id = %id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let answered = AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await;
    let mut response = as_problem(answered.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("a handler panicked: this is a bug"));
        Problem::internal().into_response()
    }));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

/// Tells which route answers.
async fn name_route(matched: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Route(matched));
    response
}

/// Refusals of the router and its extractors are plain text; ours are problems, all of them.
fn as_problem(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !response.status().is_client_error() || kind == MEDIA_TYPE || kind.starts_with("text/html") {
        return response;
    }
    Problem::bad_request("the path or the query is not UTF-8").remedy("escape it as %XX").into_response()
}

/// What may be echoed and logged as it is.
fn is_plain(id: &str) -> bool {
    (1..=100).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

/// Refuses a request whose `Host` is not us. `/maintenance` is asked by Traefik in the name of any site.
async fn check_host(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = request.uri().authority().map(http::uri::Authority::as_str).or(header);
    if request.uri().path().starts_with("/maintenance/") || host.is_none_or(|host| hosts.allow(host)) {
        return next.run(request).await;
    }
    Problem::other_host().into_response()
}

/// Lets in whom the token allows.
async fn admit(State(api): State<Api>, matched: MatchedPath, request: Request, next: Next) -> Response {
    let need = need(request.method(), matched.as_str());
    pass(&api, need, request, next).await
}

/// Names the caller to the handler and to the audit, and counts the request. Every answer says what is left to the caller.
async fn pass(api: &Api, need: Need, request: Request, next: Next) -> Response {
    let from = address(&request);
    let (parts, body) = request.into_parts();
    let identified = identify_caller(api, &parts, from).await;
    let mut request = Request::from_parts(parts, body);
    let caller = match identified {
        Ok(caller) => caller,
        Err(refusal) => return with(api.limits.headers(), Problem::from(refusal).into_response()),
    };
    let (headers, counted) = api.limits.count(caller.id, Instant::now());
    let allowed = counted.and_then(|()| Ok(permit(&caller, need)?)).and_then(|()| scoped(&caller, &request));
    let mut response = match allowed {
        Ok(()) => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(Known(caller.name));
    with(headers, response)
}

/// By its token, as a trusted proxy says, or, to look on, by a session.
async fn identify_caller(api: &Api, request: &Parts, from: IpAddr) -> Result<Caller, Refusal> {
    let certificate = request.extensions.get::<Brought>().and_then(|Brought(certificate)| certificate.as_deref());
    match api.auth.identify(request, from, certificate).await {
        // A browser brings a certificate by itself, whosever it is.
        Err(refusal @ (Refusal::Missing | Refusal::Certificate { .. })) if debug::is_for_browsers(request) => {
            api.auth.session(&request.headers, debug::is_secure(api, &request.headers)).ok_or(refusal)
        }
        identified => identified,
    }
}

/// Routes that ask [`crate::auth::Scope`] about each row. Others are closed to tokens with a scope.
const SCOPED: &[&str] = &["/api/domains", "/api/domains/batch", "/api/domains/{id}", "/api/openapi.json"];

fn scoped(caller: &Caller, request: &Request) -> Result<(), Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if caller.scope.is_everything() || SCOPED.contains(&route) {
        return Ok(());
    }
    let detail = format!("the token is limited to {}, and {route} is not by row", caller.scope);
    Err(Problem::new(StatusCode::FORBIDDEN, "scope", "It is outside of the token's scope", detail)
        .remedy("use a token without a scope here"))
}

fn with(headers: HeaderMap, mut response: Response) -> Response {
    response.headers_mut().extend(headers);
    response
}

/// Who may use a route: readers may GET and HEAD, editors do the rest, but for these.
fn need(method: &Method, route: &str) -> Need {
    match route {
        // As in `/traefik`, there are secrets in it.
        "/api/revisions/{n}/config" => Need::Traefik,
        "/api/agents/{name}/expected" | "/api/agents/{name}/rotations" => Need::Expected,
        "/api/agents/{name}/rotations/{id}" if *method != Method::PUT => Need::Expected,
        "/api/agents/{name}/report" | "/api/agents/{name}/rotations/{id}" => Need::Report,
        "/api/audit"
        | "/api/tokens"
        | "/api/tokens/{id}"
        | "/api/revisions/{n}/approve"
        | "/api/revisions/{n}/discard"
        | "/api/revisions/{n}/pin" => Need::Admin,
        _ if matches!(*method, Method::GET | Method::HEAD) => Need::Read,
        _ => Need::Write,
    }
}

fn address(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
}

#[cfg(test)]
mod tests;
