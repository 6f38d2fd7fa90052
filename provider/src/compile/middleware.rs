//! The middlewares that a row has of its own. The row's router lists them in the order of [`super::router`].

use std::sync::Arc;

use charliehub_proto::domain::{Domain, RateLimit};
use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::{Section, piece::Piece, shared::SELF, syntax};

pub(super) const ALLOW: &str = "-allow";
pub(super) const RATE_LIMIT: &str = "-ratelimit";
pub(super) const REDIRECT: &str = "-redirect";
pub(super) const MAINTENANCE: &str = "-maintenance";

/// The name of the row that a name of ours would belong to: `a.org` for `a.org-allow`.
pub fn owner(name: &str) -> Option<&str> {
    [ALLOW, RATE_LIMIT, REDIRECT, MAINTENANCE].iter().find_map(|suffix| name.strip_suffix(suffix))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Middleware<'a> {
    #[serde(rename_all = "camelCase")]
    IpAllowList {
        source_range: &'a [IpNet],
    },
    #[serde(rename_all = "camelCase")]
    ForwardAuth {
        address: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        auth_response_headers: &'a [String],
        trust_forward_header: bool,
    },
    RateLimit {
        average: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        burst: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        period: Option<&'a str>,
    },
    RedirectRegex {
        permanent: bool,
        regex: &'static str,
        replacement: String,
    },
    Errors {
        query: String,
        service: &'static str,
        status: [&'static str; 1],
    },
}

/// Lets in who comes from `networks`, by the address of the connection and never by a header.
pub(super) fn allow(section: Section, router: &str, networks: &[IpNet]) -> Piece {
    Piece::new(section, named(router, ALLOW), &Middleware::IpAllowList { source_range: networks })
}

pub(super) fn rate_limit(router: &str, limit: &RateLimit) -> Result<Piece, String> {
    let fine = |n: u64| (1..=1_000_000).contains(&n);
    if !fine(limit.average) || !limit.burst.is_none_or(fine) {
        return Err("rate_limit: average and burst are from 1 to 1000000; correct them".to_owned());
    }
    if limit.period.as_deref().is_some_and(|period| !syntax::is_duration(period)) {
        return Err("rate_limit: period is a duration such as 1m; correct it".to_owned());
    }
    let body = Middleware::RateLimit { average: limit.average, burst: limit.burst, period: limit.period.as_deref() };
    Ok(Piece::new(Section::HttpMiddlewares, named(router, RATE_LIMIT), &body))
}

/// 302, or 301 when permanent; 307 and 308 where the method must stay (Traefik chooses).
pub(super) fn redirect(router: &str, row: &Domain) -> Result<Piece, String> {
    let target = row.redirect_to.as_deref().ok_or("redirect_to: is missing; name a URL")?;
    if !syntax::is_redirect_target(target) {
        return Err("redirect_to: not a URL such as https://a.org/path, without $; correct it".to_owned());
    }
    // The whole URL matches, once: what does not match would be passed on. `?` and `#` cannot be followed by a path.
    let (regex, replacement) = if !row.redirect_keep_path {
        ("^.*$", target.to_owned())
    } else if target.contains(['?', '#']) {
        return Err("redirect_keep_path: needs a redirect_to without ? and #; remove one of them".to_owned());
    } else {
        ("^[^:]*://[^/?]*(.*)$", format!("{}${{1}}", target.trim_end_matches('/')))
    };
    let body = Middleware::RedirectRegex { permanent: row.redirect_permanent, regex, replacement };
    Ok(Piece::new(Section::HttpMiddlewares, named(router, REDIRECT), &body))
}

/// Replaces the bare 503 of a service without servers by our page; still a 503 where we cannot be reached.
pub(super) fn maintenance(router: &str, id: Uuid) -> Piece {
    let body = Middleware::Errors { query: format!("/maintenance/{id}"), service: SELF, status: ["503"] };
    Piece::new(Section::HttpMiddlewares, named(router, MAINTENANCE), &body)
}

fn named(router: &str, suffix: &str) -> Arc<str> {
    format!("{router}{suffix}").into()
}
