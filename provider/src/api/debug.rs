//! `GET /debug` and `GET /debug.json`: what operators see, and how a browser is let in.
//!
//! A browser signs in with a token by a form, and gets a cookie with which it may look on: at these two and at the stream
//! of events. To decide about what is withheld it takes a form of the page itself, and an administrator's token, typed in
//! or the one of the session. [`forms`] takes what is posted, [`files`] gives out style and script.

mod drift;
mod files;
mod forms;

use std::net::IpAddr;

use axum::{
    Extension, Json, Router,
    body::to_bytes,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use charliehub_proto::{
    debug::Debug,
    problem::{MEDIA_TYPE, Problem as Body},
    route::RouteState,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use jiff::Timestamp;
use utoipa::IntoParams;

use super::{Api, Problem, agents, matching, need, pass, query::Parameters};
use crate::{
    auth::{Caller, Role},
    debug::{
        Sources, Wanted, gather,
        page::{self, Said, Tested, View, Viewer, sign_in},
        rows::After,
    },
    matching::Request as Asked,
};

const MOST: usize = 1000;
const KNOWN: &[&str] = &["q", "state", "limit", "cursor"];
/// A refusal is that small.
const SMALL: usize = 64 << 10;

/// Nothing but what we serve ourselves, and nobody around us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What can be asked for; this is for the description.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described")]
pub(super) struct Described {
    /// To be found in a route's name, backend, owner or site.
    q: Option<String>,
    state: Option<RouteState>,
    /// Routes; 50 when left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// `routes.next` of the page before.
    cursor: Option<String>,
}

/// What a browser asks for by itself, so that its session is enough.
pub(super) fn is_for_browsers(request: &Parts) -> bool {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    reads && matches!(request.uri.path(), "/debug" | "/debug.json" | "/api/events")
}

/// Whether the browser came by TLS: ours, or that of a proxy before us. Who lies about it only harms his own cookie.
pub(super) fn is_secure(api: &Api, headers: &HeaderMap) -> bool {
    api.https || headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}

/// `GET /debug.json`: all that the operators' page shows.
#[utoipa::path(get, operation_id = "debug", path = "/debug.json", tag = "operation", params(Described),
    responses((status = 200, body = Debug, description = "Whether the edge is right, and why not"), Problem))]
pub(super) async fn data(State(api): State<Api>, request: Request) -> Result<Json<Debug>, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let wanted = wanted(&mut parameters)?;
    parameters.done(KNOWN)?;
    Ok(Json(gathered(&api, &wanted).await))
}

/// `/debug` and what belongs to it. Not described: it is for people.
pub(super) fn router(api: &Api) -> Router<Api> {
    let page = Router::new().route("/debug", get(show)).route_layer(middleware::from_fn_with_state(api.clone(), admit));
    page.route("/debug/sign-in", get(forms::to_page).post(forms::sign_in))
        .route("/debug/sign-out", post(forms::sign_out))
        .route("/debug/decide", post(forms::decide))
        .route("/debug/{file}", get(files::get))
        .layer(middleware::from_fn(guarded))
}

/// Lets in whom the token or the session allows; to the others it shows the form.
async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let need = need(request.method(), "/debug");
    let asked = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let response = pass(&api, need, request, next).await;
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != MEDIA_TYPE) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let problem: Option<Body> = to_bytes(body, SMALL).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(problem) = problem else { return Problem::internal().into_response() };
    let html = match parts.status {
        // Nobody tried: a form is all there is to say.
        StatusCode::UNAUTHORIZED => sign_in::render(None, &asked),
        StatusCode::FORBIDDEN => sign_in::render(Some(&problem), &asked),
        _ => sign_in::refused(&problem),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Response::from_parts(parts, html.into())
}

/// Headers that keep others from framing, sniffing, keeping or reading it.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With no referrer at all a form would come from nowhere, and be refused.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// `GET /debug`.
async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let tested = tested(&api, &mut parameters).await;
    let said = parameters.take("done").as_deref().and_then(forms::done).map_or(Said::Nothing, Said::Done);
    // What does not fit, such as a cursor of another order, is left out: there is a page all the same.
    let wanted = wanted(&mut parameters);
    let said = wanted.as_ref().err().map_or(said, |problem| Said::Refused(problem.body().clone()));
    let secure = is_secure(&api, request.headers());
    let signed_in = !request.headers().contains_key(header::AUTHORIZATION)
        && api.auth.session(request.headers(), secure).is_some_and(|known| known.id == caller.id);
    let viewer = viewer(&api, &caller, signed_in);
    Ok(html(StatusCode::OK, &api, &viewer, &wanted.unwrap_or_default(), &tested, said).await)
}

/// The page as it is now.
async fn html(
    status: StatusCode,
    api: &Api,
    viewer: &Viewer,
    wanted: &Wanted,
    tested: &Tested,
    said: Said,
) -> Response {
    let debug = gathered(api, wanted).await;
    let page = page::render(&View { debug: &debug, viewer, tested, said });
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

fn viewer(api: &Api, caller: &Caller, signed_in: bool) -> Viewer {
    Viewer {
        name: caller.name.clone(),
        role: caller.role.as_str(),
        admin: caller.role == Role::Admin,
        signed_in,
        proof: api.auth.proof(caller.id),
    }
}

async fn gathered(api: &Api, wanted: &Wanted) -> Debug {
    let sources = Sources {
        pool: &api.pool,
        current: &api.current,
        status: &api.status,
        overview: &api.overview.load_full(),
        instances: &api.instances,
        events: &api.events,
        drift: drift::known(api).await,
        findings: api.agents.troubles(std::time::Instant::now()),
        agents: agents::known(api),
        memory: &api.shown,
    };
    gather(sources, wanted, Timestamp::now()).await
}

fn wanted(parameters: &mut Parameters) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    let filter = parameters.take("q").map(|text| text.trim().chars().take(200).collect::<String>().to_lowercase());
    wanted.filter = filter.filter(|text| !text.is_empty());
    wanted.state = match parameters.take("state").as_deref() {
        None | Some("") => None,
        Some("live") => Some(RouteState::Live),
        Some("maintenance") => Some(RouteState::Maintenance),
        Some("closed") => Some(RouteState::Closed),
        Some("off") => Some(RouteState::Off),
        Some(_) => {
            return Err(Problem::parameter("state", "it is none of the states")
                .remedy("use one of live, maintenance, closed, off"));
        }
    };
    if let Some(text) = parameters.take("limit") {
        let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        wanted.limit = limit.ok_or_else(|| {
            Problem::parameter("limit", format!("it is not 1 to {MOST}")).remedy("leave it out for 50")
        })?;
    }
    if let Some(cursor) = parameters.take("cursor") {
        let after = After::read(&cursor);
        wanted.after = Some(after.ok_or_else(|| {
            Problem::parameter("cursor", "it is not one that we gave").remedy("take it from `routes.next` as it is")
        })?);
    }
    Ok(wanted)
}

/// What the route tester was asked, and what came out.
async fn tested(api: &Api, parameters: &mut Parameters) -> Tested {
    let text = |text: Option<String>| text.map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut tested =
        Tested { url: text(parameters.take("url")), client_ip: text(parameters.take("client_ip")), answer: None };
    if tested.url.is_empty() {
        return tested;
    }
    if !tested.url.contains("://") {
        tested.url.insert_str(0, "https://");
    }
    tested.answer = Some(test(api, &tested.url, &tested.client_ip).await.map_err(Problem::into_body));
    tested
}

async fn test(api: &Api, url: &str, client_ip: &str) -> Result<charliehub_proto::matching::Matched, Problem> {
    let client: Option<IpAddr> = match client_ip {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Problem::parameter("client_ip", "it is not an address")
                .remedy("write one such as 10.44.0.7, without a port")
        })?),
    };
    let mut matched = matching::judge(api, Asked::parse(url)?.from(client)).await?;
    if let Some(answering) = &mut matched.answer
        && let Err(problem) = matching::find_owner(api, &matched.request.host, answering).await
    {
        tracing::debug!(detail = problem.body().detail, "which row answers is not known now");
    }
    Ok(matched)
}
