//! What a router's middlewares say to a request, in their order, and what it comes to.

use std::net::IpAddr;

use charliehub_proto::matching::{Judged, MatchOutcome, MiddlewareVerdict};
use serde_json::Value;

use super::{
    config::Half,
    request::{Request, Way},
    rule::{found, network},
};
use crate::mask::mask;

/// Chains, or parents, within each other; Traefik refuses those that go in circles.
pub(super) const MAX_DEPTH: usize = 16;
/// Middlewares in all.
const MOST: usize = 1_000;

/// A middleware, and whether the request ends there.
pub(super) struct Step {
    pub(super) judged: Judged,
    ends: Option<MatchOutcome>,
    /// It puts our page in the place of a 503.
    maintenance: bool,
}

/// All of them, also those behind one that refuses.
pub(super) fn judge(half: &Half, names: &[String], request: &Request) -> Vec<Step> {
    flat(half, names).into_iter().map(|(name, found)| step(&name, found, request)).collect()
}

/// A name, and what it stands for where that is ours: the kind and the options.
pub(super) type Named<'a> = (String, Option<(&'a str, &'a Value)>);

/// With what is in chains in their place.
pub(super) fn flat<'a>(half: &'a Half, names: &[String]) -> Vec<Named<'a>> {
    let mut all = Vec::new();
    expand(half, names, MAX_DEPTH, &mut all);
    all
}

fn expand<'a>(half: &'a Half, names: &[String], depth: usize, all: &mut Vec<Named<'a>>) {
    for name in names {
        match half.middleware(name) {
            Some(("chain", options)) if depth > 0 && all.len() < MOST => {
                expand(half, &texts(options, "middlewares"), depth - 1, all);
            }
            found => all.push((name.clone(), found)),
        }
    }
}

fn step(name: &str, found: Option<(&str, &Value)>, request: &Request) -> Step {
    let Some((kind, options)) = found else {
        let detail = Some("it is not in this configuration, so what it says is not known".to_owned());
        let judged = Judged { name: name.to_owned(), kind: None, verdict: None, detail };
        return Step { judged, ends: None, maintenance: false };
    };
    // A login in a URL is nobody's business who only asks about a request.
    let mut shown = options.clone();
    mask(&mut shown);
    let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
    let shown = |key: &str| shown.get(key).and_then(Value::as_str).unwrap_or_default();
    let (verdict, detail) = match kind {
        "ipAllowList" | "ipWhiteList" => allow(options, request.client),
        "forwardAuth" => (Some(MiddlewareVerdict::Asks), Some(shown("address").to_owned())),
        "basicAuth" | "digestAuth" => (Some(MiddlewareVerdict::Asks), Some("a name and a password".to_owned())),
        _ => (None, None),
    };
    let to = match kind {
        "redirectRegex" if found_in(text("regex"), request) => Some(shown("replacement")),
        "redirectScheme" if !is_scheme(text("scheme"), request) => Some(shown("scheme")),
        _ => None,
    };
    let detail = detail.or_else(|| to.map(|to| format!("to {to}")));
    let ends = match verdict {
        Some(MiddlewareVerdict::Refuses) => Some(MatchOutcome::Refused),
        _ => to.map(|_| MatchOutcome::Redirect),
    };
    let maintenance = kind == "errors" && text("query").starts_with("/maintenance/");
    let judged = Judged { name: name.to_owned(), kind: Some(kind.to_owned()), verdict, detail };
    Step { judged, ends, maintenance }
}

/// By the address of the connection; with an `ipStrategy` Traefik takes it from a header, which we do not follow.
fn allow(options: &Value, client: Option<IpAddr>) -> (Option<MiddlewareVerdict>, Option<String>) {
    let networks = texts(options, "sourceRange");
    let detail = Some(networks.join(", "));
    let Some(client) = client.filter(|_| options.get("ipStrategy").is_none()) else { return (None, detail) };
    let inside = networks.iter().filter_map(|text| network(text)).any(|network| network.contains(&client));
    (Some(if inside { MiddlewareVerdict::Passes } else { MiddlewareVerdict::Refuses }), detail)
}

fn found_in(regex: &str, request: &Request) -> bool {
    found(regex, request.url().as_bytes())
}

fn is_scheme(scheme: &str, request: &Request) -> bool {
    scheme == if request.way == Way::Https { "https" } else { "http" }
}

/// The first that ends the request decides, then the service.
pub(super) fn outcome(half: &Half, steps: &[Step], service: &str) -> MatchOutcome {
    if let Some(ends) = steps.iter().find_map(|step| step.ends) {
        return ends;
    }
    match half.is_closed(service) {
        true if steps.iter().any(|step| step.maintenance) => MatchOutcome::Maintenance,
        true => MatchOutcome::Closed,
        false => MatchOutcome::Routed,
    }
}

pub(super) fn texts(options: &Value, key: &str) -> Vec<String> {
    let list = options.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
