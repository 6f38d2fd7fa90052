//! What is posted from the page: sign in, sign out, and the decision about a withheld revision.
//!
//! Each must come from a page of ours, as the browser says. A decision by the token of the session also carries the
//! page's proof, which no other site can know; a token that is typed in is a proof by itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{
    body::to_bytes,
    extract::{Request, State},
    response::{IntoResponse as _, Redirect, Response},
};
use charliehub_proto::problem::Problem as Body;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tokio::time::sleep;

use super::{Tested, Wanted, html, is_secure, viewer};
use crate::{
    api::{Api, Known, Problem, Said, address, identify_caller, write::author},
    auth::{Caller, Need, Refusal, permit},
    debug::page::{self as look, sign_in as pages},
    decide::{Decision, decide as write_decision},
};

const LARGEST: usize = 16 << 10;
/// How long the page waits for what was decided to be served.
const PATIENCE: Duration = Duration::from_secs(1);

type Fields = BTreeMap<String, String>;

/// The form is shown where it is needed.
pub(super) async fn to_page() -> Redirect {
    Redirect::to("/debug")
}

/// `POST /debug/sign-in`: a token for a cookie.
pub(super) async fn sign_in(State(api): State<Api>, request: Request) -> Response {
    let (from, secure) = (address(&request), is_secure(&api, request.headers()));
    let (_, fields) = match read(request).await {
        Ok(read) => read,
        Err(problem) => return page(problem, None, None),
    };
    let next = next(fields.get("next"));
    let token = fields.get("token").map(|token| token.trim()).unwrap_or_default();
    match api.auth.sign_in(token, from, secure).await {
        Ok((_, cookie)) => with_cookie(Redirect::to(&next), cookie),
        Err((caller, refusal)) => page(refusal.into(), caller, Some(&next)),
    }
}

/// `POST /debug/sign-out`.
pub(super) async fn sign_out(State(api): State<Api>, request: Request) -> Response {
    let secure = is_secure(&api, request.headers());
    match read(request).await {
        Ok((headers, _)) => with_cookie(Redirect::to("/debug"), api.auth.sign_out(&headers, secure)),
        Err(problem) => page(problem, None, None),
    }
}

/// `POST /debug/decide`: approve or discard what is withheld.
pub(super) async fn decide(State(api): State<Api>, request: Request) -> Response {
    let mut author = author(&request, &nobody());
    let from = address(&request);
    // Who it is is asked as for the page itself; that it was not forged is proven otherwise.
    let mut looking = request.headers().clone();
    looking.remove(header::CONTENT_TYPE);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.headers, parts.method, parts.uri) = (looking, Method::GET, Uri::from_static("/debug"));
    let viewing = identify_caller(&api, &parts, from).await;
    let (_, fields) = match read(request).await {
        Ok(read) => read,
        Err(problem) => return page(problem, viewing.ok(), None),
    };
    let deciding = who(&api, &viewing, &fields, from).await;
    let result = match deciding {
        Ok(caller) => {
            author.actor = caller.name;
            author.source = "debug";
            author.reason = fields.get("reason").cloned().unwrap_or_default();
            act(&api, &fields, &author).await
        }
        Err(problem) => Err(problem),
    };
    match (result, viewing) {
        (Ok(done), _) => Redirect::to(&format!("/debug?done={done}#withheld")).into_response(),
        (Err(problem), Ok(caller)) => {
            let (status, said) = status(&problem);
            let viewer = viewer(&api, &caller, true);
            let body = problem.into_body();
            let mut response =
                html(status, &api, &viewer, &Wanted::default(), &Tested::default(), look::Said::Refused(body)).await;
            response.extensions_mut().insert(said);
            response.extensions_mut().insert(Known(caller.name));
            response
        }
        (Err(problem), Err(_)) => page(problem, None, None),
    }
}

/// Whose decision it is: the owner of the token that was typed in, else who looks on, when the form is this page's.
async fn who(
    api: &Api,
    viewing: &Result<Caller, Refusal>,
    fields: &Fields,
    from: std::net::IpAddr,
) -> Result<Caller, Problem> {
    let typed = fields.get("token").map(|token| token.trim()).filter(|token| !token.is_empty());
    let caller = if let Some(token) = typed {
        api.auth.owner(token, from).await?
    } else {
        let caller = viewing.clone()?;
        let proof = fields.get("proof").map(String::as_str).unwrap_or_default();
        if !api.auth.is_proof(caller.id, proof) {
            return Err(stale());
        }
        caller
    };
    let (_, counted) = api.limits.count(caller.id, Instant::now());
    counted?;
    permit(&caller, Need::Admin)?;
    if !caller.scope.is_everything() {
        let detail = format!("the token is limited to {}, and a revision is not by row", caller.scope);
        return Err(Problem::new(StatusCode::FORBIDDEN, "scope", "It is outside of the token's scope", detail)
            .remedy("use a token without a scope here"));
    }
    Ok(caller)
}

async fn act(api: &Api, fields: &Fields, author: &crate::author::Author) -> Result<String, Problem> {
    let revision: i64 = fields
        .get("revision")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Problem::invalid("revision", "it is not a number").remedy("use the form of /debug"))?;
    let (decision, done) = match fields.get("decision").map(String::as_str) {
        Some("approve") => (Decision::Approve, "approved"),
        Some("discard") => (Decision::Discard, "discarded"),
        _ => {
            return Err(
                Problem::invalid("decision", "it is neither approve nor discard").remedy("use the form of /debug")
            );
        }
    };
    let mut client = api.pool.get().await?;
    write_decision(&mut client, revision, decision, author).await?;
    // Told by a notification, so a moment later: the page that follows should show it.
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && api.current.waiting().is_some_and(|(_, waits)| waits == revision) {
        sleep(Duration::from_millis(5)).await;
    }
    Ok(format!("{done}-{revision}"))
}

/// What the page says after a form; only what [`act`] can have said.
pub(super) fn done(text: &str) -> Option<String> {
    let (word, revision) = text.split_once('-')?;
    let revision: i64 = revision.parse().ok()?;
    match word {
        "approved" => Some(format!("Revision {revision} was approved, and goes live.")),
        "discarded" => Some(format!("Revision {revision} was discarded: the rows are those that run.")),
        _ => None,
    }
}

/// The fields of a form of ours.
async fn read(request: Request) -> Result<(HeaderMap, Fields), Problem> {
    let (parts, body) = request.into_parts();
    if !is_ours(&parts.headers, &parts.uri) {
        return Err(Refusal::Forged.into());
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        let detail = "the body is not a form";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is not a form", detail)
            .remedy("use the page at /debug, or the API"));
    }
    let bytes = to_bytes(body, LARGEST).await.map_err(|_| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", "a form is smaller than that")
    })?;
    let fields: Fields = form_urlencoded::parse(&bytes).into_owned().collect();
    if fields.values().any(|value| value.contains('\0')) {
        return Err(Problem::bad_request("a field holds the character \\u0000").remedy("leave it out"));
    }
    Ok((parts.headers, fields))
}

/// Whether the browser says that a page of this host sent it. One that says nothing is no browser.
fn is_ours(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    let host = uri.authority().map(http::uri::Authority::as_str).or_else(|| text("host")).unwrap_or_default();
    text("origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host)))
}

/// Where to go after the form: only to the page itself.
fn next(wanted: Option<&String>) -> String {
    let ours = |next: &&String| {
        (next.as_str() == "/debug" || next.starts_with("/debug?")) && next.bytes().all(|byte| byte.is_ascii_graphic())
    };
    wanted.filter(ours).cloned().unwrap_or_else(|| "/debug".to_owned())
}

fn stale() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "stale-form",
        "The form is not of this page",
        "it was made for somebody else, or before a restart",
    )
    .remedy("reload the page and send the form again")
}

fn nobody() -> Caller {
    Caller {
        id: uuid::Uuid::nil(),
        name: String::new(),
        role: crate::auth::Role::Reader,
        subject: None,
        scope: crate::auth::Scope::default(),
        certified: false,
    }
}

fn with_cookie(redirect: Redirect, cookie: HeaderValue) -> Response {
    ([(header::SET_COOKIE, cookie)], redirect).into_response()
}

/// The status of a refusal, and what the audit is told of it.
fn status(problem: &Problem) -> (StatusCode, Said) {
    let body = problem.body();
    let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Said { kind: body.kind.clone(), detail: body.detail.clone() })
}

/// A refusal as a page of its own: with the form to sign in, where another token may help.
fn page(problem: Problem, caller: Option<Caller>, next: Option<&str>) -> Response {
    let plain = problem.clone().into_response();
    let body: Body = problem.into_body();
    let html = match next {
        Some(next) => pages::render(Some(&body), next),
        None => pages::refused(&body),
    };
    let (mut parts, _) = plain.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Some(caller) = caller {
        parts.extensions.insert(Known(caller.name));
    }
    Response::from_parts(parts, html.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        for (headers, ours) in [
            (
                &[("host", "edge.test:8001"), ("origin", "http://edge.test:8001"), ("sec-fetch-site", "same-origin")][..],
                true,
            ),
            (&[("host", "edge.test"), ("origin", "https://EDGE.test")], true),
            (&[("host", "edge.test")], true),
            (&[("host", "edge.test"), ("sec-fetch-site", "none")], true),
            (&[("host", "edge.test"), ("origin", "https://evil.test")], false),
            (&[("host", "edge.test"), ("origin", "https://edge.test.evil.test")], false),
            (&[("host", "edge.test"), ("origin", "null")], false),
            (&[("host", "edge.test"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "edge.test"), ("sec-fetch-site", "same-site")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_ours(&map, &Uri::from_static("/debug/decide")), ours, "{headers:?}");
        }
    }

    #[test]
    fn after_the_form_it_goes_to_the_page_and_nowhere_else() {
        let to = |wanted: &str| next(Some(&wanted.to_owned()));
        assert_eq!(to("/debug?q=a&state=live"), "/debug?q=a&state=live");
        for elsewhere in
            ["https://evil.test", "//evil.test", "/debugger", "/debug?\r\nset-cookie: a=b", "javascript:1", ""]
        {
            assert_eq!(to(elsewhere), "/debug", "{elsewhere}");
        }
    }

    #[test]
    fn only_what_can_have_been_done_is_said() {
        assert_eq!(done("approved-12").as_deref(), Some("Revision 12 was approved, and goes live."));
        for wrong in ["approved-<script>", "hacked-1", "approved", ""] {
            assert_eq!(done(wrong), None, "{wrong}");
        }
    }
}
