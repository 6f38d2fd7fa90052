//! Tells which router answers a request, as the Traefik would that runs a config.
//!
//! Between the bytes that are served and whoever asks about a URL: an operator, a program, a test. In order:
//! [`request`] is the URL as Traefik's rules see it; [`config`] is what of the bytes this takes; of the routers on the
//! request's entry point those whose [`rule`] holds are tried by priority, below a parent its children; [`chain`] is what
//! the middlewares of the first one say, and its service; [`admission`] is what they let in, whatever the request. [`owner`] finds the row that it stands for, the only one of these that asks the database.
//!
//! Not known here is Traefik's static configuration: TLS that an entry point gives to every router, middlewares that it
//! puts before them, and paths that it refuses. Tcp routers are not tried for requests by https.

mod admission;
mod chain;
mod config;
pub mod owner;
mod request;
mod rule;

use charliehub_proto::{
    matching::{AlsoMatching, Answering, Matched},
    traefik::rule::Dialect,
};

pub use self::{admission::Admission, config::Config, request::Request};
use self::{chain::MAX_DEPTH, config::Router, request::Way};

/// Why it cannot be told what answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Url(&'static str),
    #[error("`{0}` is not a header; write it as Name: value")]
    Header(String),
    #[error("the configuration cannot be read")]
    Config(#[from] serde_json::Error),
    #[error("whether router `{0}` answers depends on the client's address; say which it is")]
    ClientIp(String),
}

/// A router that takes the request.
struct Hit<'a> {
    name: &'a str,
    router: &'a Router,
    priority: i64,
}

/// What the config does with the request.
pub fn answer(config: &Config, request: &Request) -> Result<Matched, Error> {
    let half = if request.way == Way::Tcp { &config.tcp } else { &config.http };
    let mut taken = Vec::new();
    let mut also = Vec::new();
    let mut hits = hits(half.routers.iter().filter(|(_, router)| stands(router, request)), request)?.into_iter();
    while let Some(hit) = hits.next() {
        also.splice(0..0, hits.map(|hit| AlsoMatching { router: hit.name.to_owned(), priority: hit.priority }));
        let (name, is_parent) = (hit.name, hit.router.service.is_empty());
        taken.push(hit);
        if !is_parent || taken.len() > MAX_DEPTH {
            break;
        }
        // Once in a parent, Traefik tries nobody else.
        hits = self::hits(half.routers.iter().filter(|(_, router)| router.is_below(name)), request)?.into_iter();
    }
    let answer = taken.last().filter(|hit| !hit.router.service.is_empty()).map(|hit| {
        let names: Vec<String> = taken.iter().flat_map(|hit| &hit.router.middlewares).cloned().collect();
        let middlewares = chain::judge(half, &names, request);
        let outcome = chain::outcome(half, &middlewares, &hit.router.service);
        Answering {
            router: hit.name.to_owned(),
            rule: hit.router.rule.clone(),
            priority: hit.priority,
            entry_points: taken.first().map(|hit| hit.router.entry_points.clone()).unwrap_or_default(),
            service: hit.router.service.clone(),
            row: None,
            fragment: None,
            middlewares: middlewares.into_iter().map(|step| step.judged).collect(),
            outcome,
        }
    });
    Ok(Matched { request: request.shown(), answer, also })
}

/// Of `routers` those that take the request, in the order in which Traefik tries them.
fn hits<'a>(routers: impl Iterator<Item = (&'a String, &'a Router)>, request: &Request) -> Result<Vec<Hit<'a>>, Error> {
    let mut routers: Vec<Hit<'_>> = routers
        .map(|(name, router)| Hit { name, router, priority: priority(router, request.way == Way::Tcp) })
        .collect();
    // Of two with one priority Traefik tries either; a connection by TLS first meets routers with TLS.
    routers.sort_by_key(|hit| (std::cmp::Reverse(hit.priority), hit.router.tls.is_none(), hit.name));
    let mut hits = Vec::new();
    for hit in routers {
        let dialect = if request.way == Way::Tcp { Dialect::tcp } else { Dialect::http }(hit.router.rule_syntax);
        let Some(expr) = hit.router.expr(dialect) else { continue };
        match rule::holds(expr, dialect, request) {
            Some(true) => hits.push(hit),
            None if hits.is_empty() => return Err(Error::ClientIp(hit.name.to_owned())),
            Some(false) | None => {}
        }
    }
    Ok(hits)
}

/// Whether the request comes by it at all: Traefik keeps routers with and without TLS apart.
fn stands(router: &Router, request: &Request) -> bool {
    let entry = request.entry_point.as_ref();
    let tls = match request.way {
        Way::Http => router.tls.is_none(),
        Way::Https => router.tls.is_some(),
        Way::Tcp => true,
    };
    tls && router.parent_refs.is_empty()
        && entry.is_none_or(|entry| router.entry_points.is_empty() || router.entry_points.contains(entry))
}

/// What is not given is the length of the rule; every name is tried last on tcp.
fn priority(router: &Router, tcp: bool) -> i64 {
    match router.priority {
        Some(priority) if priority != 0 => priority,
        _ if tcp && router.rule == "HostSNI(`*`)" => -1,
        _ => i64::try_from(router.rule.len()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests;
