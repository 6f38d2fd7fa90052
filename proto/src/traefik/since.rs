//! From which version on Traefik knows what is in a piece.
//!
//! Between a fragment, which is typed against Traefik 3.7, and a Traefik that may be older: one field that it does not
//! know makes it refuse the whole configuration, so that nothing of ours changes any more, and one that just started has
//! no routes at all. In order: the fields, which the decoder judges; values and rules, which it does not, and which cost
//! their own router or go unnoticed.
//!
//! Measured with the real Traefiks, each option alone through the HTTP provider; `tests/tests/versions.rs` holds the
//! table against some of them. Between two measured versions (3.1 for one, and some patches) Traefik's sources decided.

use std::{fmt, str::FromStr};

use serde_json::Value;

use super::{
    Kind, Piece,
    http::RuleSyntax,
    piece,
    rule::{self, Dialect, Matcher, Name},
};

/// A release. A release candidate counts as the release that it became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether a router of it can be below others.
    pub fn has_parents(self) -> bool {
        self >= PARENTS
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of Traefik, such as 3.7 or 3.7.15")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    /// Also `v3.0` and `3.0.0-rc1`; what Traefik calls itself when built by hand, `dev`, is none.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let release = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = release
            .split('.')
            .map(|number| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten())
            .collect();
        match numbers.as_deref() {
            Some([major, minor]) => Ok(Self::new(*major, *minor, 0)),
            Some([major, minor, patch]) => Ok(Self::new(*major, *minor, *patch)),
            _ => Err(NotAVersion(text.to_owned())),
        }
    }
}

/// What a Traefik does with something that it is too old for. The worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TooOld {
    /// Takes it as something else, without a word.
    Misreads,
    /// Disables the router, or every router that uses the piece.
    Disables,
    /// Refuses the whole configuration.
    RefusesAll,
}

/// Something in a piece that not every Traefik 3 knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// `loadBalancer.servers[0].preservePath`
    pub field: String,
    pub since: Version,
    /// What a Traefik before that does.
    pub too_old: TooOld,
}

/// The newest of what a body needs; none where Traefik 3.0.0 knows all of it.
pub fn needs(kind: Kind, body: &Value) -> Option<Need> {
    every_need(kind, body).into_iter().reduce(|newest, need| if need.since > newest.since { need } else { newest })
}

/// All that a body needs beyond Traefik 3.0.0. Of a body that is not right, what it says; of one that is, what goes out.
pub fn every_need(kind: Kind, body: &Value) -> Vec<Need> {
    match piece(kind, body) {
        Ok(piece) => piece.needs(),
        Err(_) => of_written(kind, body),
    }
}

impl Piece {
    /// All that it needs beyond Traefik 3.0.0.
    pub fn needs(&self) -> Vec<Need> {
        serde_json::to_value(self).map_or_else(|_| Vec::new(), |written| of_written(self.kind(), &written))
    }
}

fn of_written(kind: Kind, body: &Value) -> Vec<Need> {
    let mut found = Vec::new();
    fields(kind, body, &Path::default(), &mut found);
    let (Some(text), syntax) = (body["rule"].as_str(), body["ruleSyntax"].as_str()) else { return found };
    let syntax = if syntax == Some("v2") { RuleSyntax::V2 } else { RuleSyntax::V3 };
    let need = if kind == Kind::HttpRouter {
        http_rule(text, syntax)
    } else if kind == Kind::TcpRouter {
        tcp_rule(text, syntax, body.get("tls").is_some())
    } else {
        None
    };
    found.extend(need.map(|(since, too_old)| Need { field: "rule".to_owned(), since, too_old }));
    found
}

const fn v(minor: u32, patch: u32) -> Version {
    Version::new(3, minor, patch)
}

/// From here on a router can be below others.
const PARENTS: Version = v(6, 0);

/// Fields that Traefik 3.0.0 did not have, each group once: what is within an unknown field is unknown with it.
const FIELDS: &[(Kind, &str, Version)] = &[
    (Kind::HttpRouter, "observability", v(3, 0)),
    (Kind::HttpRouter, "observability.traceVerbosity", v(5, 0)),
    (Kind::HttpRouter, "parentRefs", PARENTS),
    (Kind::HttpModel, "observability", v(3, 0)),
    (Kind::HttpModel, "observability.traceVerbosity", v(5, 0)),
    (Kind::HttpService, "middlewares", v(7, 0)),
    (Kind::HttpService, "loadBalancer.sticky.cookie.path", v(3, 0)),
    (Kind::HttpService, "loadBalancer.sticky.cookie.domain", v(4, 0)),
    (Kind::HttpService, "loadBalancer.servers.preservePath", v(2, 0)),
    (Kind::HttpService, "loadBalancer.strategy", v(4, 0)),
    (Kind::HttpService, "loadBalancer.healthCheck.unhealthyInterval", v(5, 0)),
    (Kind::HttpService, "loadBalancer.passiveHealthCheck", v(6, 0)),
    (Kind::HttpService, "weighted.sticky.cookie.path", v(3, 0)),
    (Kind::HttpService, "weighted.sticky.cookie.domain", v(4, 0)),
    (Kind::HttpService, "highestRandomWeight", v(6, 0)),
    (Kind::HttpService, "mirroring.mirrorBody", v(2, 0)),
    (Kind::HttpService, "failover.errors", v(7, 0)),
    (Kind::HttpMiddleware, "ipWhiteList.ipStrategy.ipv6Subnet", v(2, 0)),
    (Kind::HttpMiddleware, "ipAllowList.ipStrategy.ipv6Subnet", v(2, 0)),
    (Kind::HttpMiddleware, "rateLimit.sourceCriterion.ipStrategy.ipv6Subnet", v(2, 0)),
    (Kind::HttpMiddleware, "rateLimit.redis", v(4, 0)),
    (Kind::HttpMiddleware, "inFlightReq.sourceCriterion.ipStrategy.ipv6Subnet", v(2, 0)),
    (Kind::HttpMiddleware, "headers.contentSecurityPolicyReportOnly", v(1, 0)),
    (Kind::HttpMiddleware, "encodedCharacters", v(7, 0)),
    (Kind::HttpMiddleware, "errors.statusRewrites", v(4, 0)),
    (Kind::HttpMiddleware, "errors.errorRequestHeaders", v(6, 15)),
    (Kind::HttpMiddleware, "forwardAuth.headerField", v(2, 0)),
    (Kind::HttpMiddleware, "forwardAuth.forwardBody", v(3, 0)),
    (Kind::HttpMiddleware, "forwardAuth.maxBodySize", v(3, 0)),
    (Kind::HttpMiddleware, "forwardAuth.preserveLocationHeader", v(3, 0)),
    (Kind::HttpMiddleware, "forwardAuth.preserveRequestMethod", v(4, 0)),
    (Kind::HttpMiddleware, "forwardAuth.maxResponseBodySize", v(6, 9)),
    (Kind::HttpMiddleware, "forwardAuth.authSigninURL", v(7, 0)),
    (Kind::HttpMiddleware, "compress.defaultEncoding", v(0, 2)),
    (Kind::HttpMiddleware, "compress.encodings", v(2, 0)),
    (Kind::HttpMiddleware, "retry.timeout", v(7, 0)),
    (Kind::HttpMiddleware, "retry.maxRequestBodyBytes", v(7, 0)),
    (Kind::HttpMiddleware, "retry.status", v(7, 0)),
    (Kind::HttpMiddleware, "retry.disableRetryOnNetworkError", v(7, 0)),
    (Kind::HttpMiddleware, "retry.retryNonIdempotentMethod", v(7, 0)),
    (Kind::HttpServersTransport, "cipherSuites", v(7, 0)),
    (Kind::HttpServersTransport, "minVersion", v(7, 0)),
    (Kind::HttpServersTransport, "maxVersion", v(7, 0)),
    (Kind::TcpService, "loadBalancer.healthCheck", v(6, 0)),
    (Kind::TcpService, "weighted.healthCheck", v(6, 0)),
    (Kind::TcpServersTransport, "proxyProtocol", v(5, 2)),
    (Kind::TlsOption, "disableSessionTickets", v(4, 0)),
];

/// Words that came later than their field. Traefik decodes any, and then disables what uses the piece.
const WORDS: &[(Kind, &str, &str, Version)] = &[
    (Kind::HttpService, "loadBalancer.strategy", "hrw", v(6, 0)),
    (Kind::HttpService, "loadBalancer.strategy", "leasttime", v(6, 0)),
    (Kind::TlsOption, "curvePreferences", "X25519MLKEM768", v(5, 0)),
    (Kind::TlsOption, "curvePreferences", "x25519mlkem768", v(5, 0)),
    (Kind::TlsOption, "curvePreferences", "SecP256r1MLKEM768", v(7, 7)),
    (Kind::TlsOption, "curvePreferences", "secp256r1mlkem768", v(7, 7)),
    (Kind::TlsOption, "curvePreferences", "SecP384r1MLKEM1024", v(7, 7)),
    (Kind::TlsOption, "curvePreferences", "secp384r1mlkem1024", v(7, 7)),
];

/// A host with a star is any one label since 3.7.0, and a star alone any name since 3.7.7; before, they are that text.
fn http_rule(text: &str, syntax: RuleSyntax) -> Option<(Version, TooOld)> {
    if syntax == RuleSyntax::V2 {
        return None;
    }
    let rule = rule::parse(text, Dialect::Http).ok()?;
    let since = |matcher: &Matcher| match matcher.values.first()?.as_str() {
        "*" => Some(v(7, 7)),
        host => host.starts_with("*.").then_some(v(7, 0)),
    };
    let hosts = rule.matchers().into_iter().filter(|matcher| matcher.name == Name::Host);
    hosts.filter_map(since).max().map(|since| (since, TooOld::Misreads))
}

/// In `HostSNI` an underscore came with 3.3.5 and a wildcard with 3.7.0. Without TLS, names that must not be were taken
/// for names that must until 3.7.13.
fn tcp_rule(text: &str, syntax: RuleSyntax, tls: bool) -> Option<(Version, TooOld)> {
    let rule = rule::parse(text, Dialect::tcp(Some(syntax))).ok()?;
    let names: Vec<&str> = (rule.matchers().into_iter())
        .filter(|matcher| matcher.name == Name::HostSni)
        .flat_map(|matcher| matcher.values.iter().map(String::as_str))
        .collect();
    let negated = (!tls && names.first().is_some_and(|name| *name != "*")).then_some(v(7, 13));
    let since = names.iter().filter_map(|name| {
        let wildcard = name.starts_with("*.").then_some(v(7, 0));
        wildcard.or_else(|| name.contains('_').then_some(v(3, 5)))
    });
    since.chain(negated).max().map(|since| (since, TooOld::Disables))
}

/// Where we are within a body: as its writer would say it, and without places in lists, as the tables have it.
#[derive(Default)]
struct Path {
    written: String,
    option: String,
}

impl Path {
    fn field(&self, name: &str) -> Self {
        let dot = if self.option.is_empty() { "" } else { "." };
        Self { written: format!("{}{dot}{name}", self.written), option: format!("{}{dot}{name}", self.option) }
    }

    fn item(&self, i: usize) -> Self {
        Self { written: format!("{}[{i}]", self.written), option: self.option.clone() }
    }
}

fn fields(kind: Kind, value: &Value, at: &Path, found: &mut Vec<Need>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                let at = at.field(name);
                if let Some((.., since)) = FIELDS.iter().find(|(of, option, _)| *of == kind && *option == at.option) {
                    found.push(Need { field: at.written.clone(), since: *since, too_old: TooOld::RefusesAll });
                }
                fields(kind, value, &at, found);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                fields(kind, item, &at.item(i), found);
            }
        }
        Value::String(text) => {
            let word = WORDS.iter().find(|(of, option, word, _)| *of == kind && *option == at.option && word == text);
            found.extend(word.map(|(.., since)| Need {
                field: at.written.clone(),
                since: *since,
                too_old: TooOld::Disables,
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_read_as_traefik_and_people_write_them() {
        for (text, version) in [
            ("3.7.15", v(7, 15)),
            ("v3.0", v(0, 0)),
            ("3.0.0-rc1", v(0, 0)),
            ("v3.7.0-ea.3", v(7, 0)),
            ("3.6.2+security", v(6, 2)),
            ("2.11.0", Version::new(2, 11, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        for text in ["dev", "", "3", "v", "3.", "3..1", "3.x", "3.1.2.3", "3.+1", "cheddar"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert!(v(7, 9) < v(7, 15) && v(6, 15) < v(7, 0));
        assert_eq!(v(7, 15).to_string(), "3.7.15");
    }

    #[test]
    fn the_newest_option_of_a_body_is_named() {
        let server = json!({"url": "http://a", "preservePath": true});
        for (kind, body, need) in [
            ("http.service", json!({"loadBalancer": {"servers": [{"url": "http://a"}]}}), None),
            (
                "http.service",
                json!({"loadBalancer": {"servers": [{"url": "http://b"}, server]}}),
                Some(("loadBalancer.servers[1].preservePath", v(2, 0), TooOld::RefusesAll)),
            ),
            (
                "http.service",
                json!({"loadBalancer": {"servers": [server], "strategy": "p2c"}}),
                Some(("loadBalancer.strategy", v(4, 0), TooOld::RefusesAll)),
            ),
            (
                "http.service",
                json!({"loadBalancer": {"servers": [server], "strategy": "leasttime"}}),
                Some(("loadBalancer.strategy", v(6, 0), TooOld::Disables)),
            ),
            (
                "http.middleware",
                json!({"rateLimit": {"average": 1, "redis": {"endpoints": ["a:1"], "tls": {"ca": "a"}}}}),
                Some(("rateLimit.redis", v(4, 0), TooOld::RefusesAll)),
            ),
            (
                "http.middleware",
                json!({"headers": {"customRequestHeaders": {"contentSecurityPolicyReportOnly": "a"}}}),
                None,
            ),
            ("http.middleware", json!({"plugin": {"retry": {"status": "a"}}}), None),
            (
                "tls.option",
                json!({"curvePreferences": ["x25519", "X25519MLKEM768"]}),
                Some(("curvePreferences[1]", v(5, 0), TooOld::Disables)),
            ),
            (
                "http.router",
                json!({"rule": "Host(`a`)", "service": "s", "observability": {"traceVerbosity": "minimal"}}),
                Some(("observability.traceVerbosity", v(5, 0), TooOld::RefusesAll)),
            ),
        ] {
            let found = needs(kind.parse().unwrap(), &body);
            let found = found.as_ref().map(|need| (need.field.as_str(), need.since, need.too_old));
            assert_eq!(found, need, "{kind} {body}");
        }
    }

    #[test]
    fn what_does_not_go_out_is_not_needed_and_what_is_wrong_is_judged_as_it_stands() {
        let needs = |body| needs(Kind::TlsOption, &body).map(|need| need.since);
        assert_eq!(needs(json!({"sniStrict": true, "disableSessionTickets": false})), None);
        assert_eq!(needs(json!({"sniStrict": true, "disableSessionTickets": true})), Some(v(4, 0)));
        assert_eq!(needs(json!({"sniStrict": "maybe", "disableSessionTickets": true})), Some(v(4, 0)));
    }

    #[test]
    fn every_need_of_a_body_is_found() {
        let body = json!({"forwardAuth": {"address": "http://a", "maxResponseBodySize": 1, "headerField": "A"}});
        let mut found: Vec<_> = every_need(Kind::HttpMiddleware, &body).into_iter().map(|need| need.field).collect();
        found.sort();
        assert_eq!(found, ["forwardAuth.headerField", "forwardAuth.maxResponseBodySize"]);
    }

    #[test]
    fn a_rule_needs_the_version_that_reads_it() {
        let misread = |patch| Some((v(7, patch), TooOld::Misreads));
        let disabled = |minor, patch| Some((v(minor, patch), TooOld::Disables));
        for (kind, rule, tls, need) in [
            (Kind::HttpRouter, "Host(`a.org`) && PathPrefix(`/*.a`)", false, None),
            (Kind::HttpRouter, "Host(`a.org`) || Host(`*.a.org`)", false, misread(0)),
            (Kind::HttpRouter, "!Host(`*`) && Host(`*.a.org`)", false, misread(7)),
            (Kind::HttpRouter, "HostRegexp(`*`)", false, None),
            (Kind::TcpRouter, "HostSNI(`*`)", false, None),
            (Kind::TcpRouter, "HostSNI(`a.org`)", true, None),
            (Kind::TcpRouter, "HostSNI(`a_b.org`)", true, disabled(3, 5)),
            (Kind::TcpRouter, "HostSNI(`a_b.org`) || HostSNI(`*.a_b.org`)", true, disabled(7, 0)),
            (Kind::TcpRouter, "ClientIP(`10.0.0.0/8`) && !HostSNI(`a.org`)", true, None),
            (Kind::TcpRouter, "ClientIP(`10.0.0.0/8`) && !HostSNI(`a.org`)", false, disabled(7, 13)),
        ] {
            let mut body = json!({"rule": rule, "service": "s"});
            if tls {
                body["tls"] = json!({});
            }
            assert_eq!(needs(kind, &body).map(|need| (need.since, need.too_old)), need, "{rule}");
        }
        let v2 = json!({"rule": "Host(`*.a.org`)", "ruleSyntax": "v2"});
        assert_eq!(needs(Kind::HttpRouter, &v2), None);
    }

    #[test]
    fn every_line_of_the_tables_is_an_option() {
        for (kind, option, _) in FIELDS {
            assert!(known(*kind, option), "{kind} {option}");
        }
        for (kind, option, ..) in WORDS {
            assert!(known(*kind, option), "{kind} {option}");
        }
    }

    /// True when a body that holds it alone is not refused for its name.
    fn known(kind: Kind, option: &str) -> bool {
        let nested = option.rsplit('.').fold(json!("?"), |inner, name| json!({ name: inner }));
        let in_list = option.rsplit('.').fold(json!("?"), |inner, name| {
            if name == "servers" { json!({ name: [inner] }) } else { json!({ name: inner }) }
        });
        [nested, in_list].iter().any(|body| match piece(kind, body) {
            Ok(_) => true,
            Err(invalid) => !invalid.reason.starts_with("unknown field"),
        })
    }
}
