//! Whether a rule holds for a request, as the matchers of `pkg/muxer/http` and `pkg/muxer/tcp` decide it.

use std::net::IpAddr;

use charliehub_proto::traefik::rule::{Dialect, Expr, Matcher, Name, regexp, template};
use ipnet::{IpNet, Ipv4Net};
use regex::bytes::{Regex, RegexBuilder};

use super::request::Request;
use crate::compile::Listed;

/// `None`: it depends on the client's address, and nobody said which it is.
pub(super) fn holds(expr: &Expr, dialect: Dialect, request: &Request) -> Option<bool> {
    match expr {
        Expr::Matcher(matcher) => takes(matcher, dialect, request),
        Expr::Not(inner) => holds(inner, dialect, request).map(|holds| !holds),
        Expr::All(parts) => decided(parts, dialect, request, false),
        Expr::Any(parts) => decided(parts, dialect, request, true),
    }
}

/// One part that is `decisive` decides, whatever the others.
fn decided(parts: &[Expr], dialect: Dialect, request: &Request, decisive: bool) -> Option<bool> {
    let mut all = Some(!decisive);
    for part in parts {
        match holds(part, dialect, request) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

fn takes(matcher: &Matcher, dialect: Dialect, request: &Request) -> Option<bool> {
    let values = &matcher.values;
    // The older matchers take several values, and templates.
    let v2 = matches!(dialect, Dialect::HttpV2 | Dialect::TcpV2);
    let any = |holds: &dyn Fn(&str) -> bool| values.iter().any(|value| holds(value));
    let fits = |value: &str, default: &str, text: &[u8]| {
        if v2 {
            template::to_regexp(value, default).is_ok_and(|pattern| found(&pattern, text))
        } else {
            found(value, text)
        }
    };
    Some(match matcher.name {
        Name::Host | Name::HostHeader => any(&|value| is_host(value, &request.host, !v2)),
        Name::HostRegexp
            if let [value] = values.as_slice()
                && let Some(listed) = Listed::read(value) =>
        {
            listed.takes(&request.host)
        }
        Name::HostRegexp => any(&|value| fits(value, "[^.]+", request.host.as_bytes())),
        Name::Path if v2 => any(&|value| fits(value, "[^/]+", &request.path)),
        Name::Path => any(&|value| value.as_bytes() == request.path),
        Name::PathPrefix if v2 => any(&|value| {
            let pattern = template::to_regexp(value, "[^/]+");
            pattern.is_ok_and(|pattern| found(pattern.trim_end_matches('$'), &request.path))
        }),
        Name::PathPrefix => any(&|value| request.path.starts_with(value.as_bytes())),
        Name::PathRegexp => any(&|value| found(value, &request.path)),
        Name::Method => any(&|value| value.to_ascii_uppercase() == request.method),
        Name::Header | Name::Headers => pairs(values).all(|(name, value)| headers(request, name).any(|is| is == value)),
        Name::HeaderRegexp | Name::HeadersRegexp => {
            pairs(values).all(|(name, value)| headers(request, name).any(|is| found(value, is.as_bytes())))
        }
        Name::Query if v2 => values.iter().all(|value| query_v2(request, value)),
        Name::Query => pairs(values).all(|(name, value)| query(request, name).any(|is| is == value)),
        Name::QueryRegexp => match values.as_slice() {
            [name] => query(request, name).any(str::is_empty),
            _ => pairs(values).all(|(name, value)| query(request, name).any(|is| found(value, is.as_bytes()))),
        },
        Name::ClientIp => {
            let client = request.client?;
            any(&|value| network(value).is_some_and(|network| network.contains(&client)))
        }
        Name::HostSni => any(&|value| value == "*" || is_host(value, &request.host, !v2)),
        Name::HostSniRegexp => any(&|value| fits(value, "[^.]+", request.host.as_bytes())),
        // Which protocols a client offers is not asked.
        Name::Alpn => false,
    })
}

/// The first label of a wildcard is any; a dot at the end of either does not count.
fn is_host(rule: &str, host: &str, wildcards: bool) -> bool {
    let (rule, host) = (rule.to_ascii_lowercase(), host.trim_end_matches('.'));
    let rule = rule.trim_end_matches('.');
    match rule.strip_prefix("*.") {
        Some(parent) if wildcards => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        _ => !host.is_empty() && rule == host,
    }
}

fn pairs(values: &[String]) -> impl Iterator<Item = (&str, &str)> {
    values.chunks(2).filter_map(|pair| Some((pair.first()?.as_str(), pair.get(1).map_or("", String::as_str))))
}

fn headers<'a>(request: &'a Request, name: &str) -> impl Iterator<Item = &'a str> {
    let named = request.headers.iter().filter(move |(is, _)| is.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str())
}

fn query<'a>(request: &'a Request, name: &str) -> impl Iterator<Item = &'a str> {
    request.query.iter().filter(move |(is, _)| is == name).map(|(_, value)| value.as_str())
}

/// `name=template`
fn query_v2(request: &Request, value: &str) -> bool {
    let (name, value) = value.split_once('=').unwrap_or((value, ""));
    let pattern = template::to_regexp(value, ".*");
    pattern.is_ok_and(|pattern| query(request, name).any(|is| found(&pattern, is.as_bytes())))
}

/// Finds Go's regular expression anywhere in the text.
pub(super) fn found(pattern: &str, text: &[u8]) -> bool {
    compiled(pattern).is_some_and(|regex| regex.is_match(text))
}

fn compiled(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&regexp::translate(pattern).ok()?).nest_limit(2_000).build().ok()
}

/// As Go has it: bits of the host may be set, and an IPv4 network may be written as IPv6.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, Some(length.parse::<u8>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let length = length.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
    match address.to_canonical() {
        IpAddr::V4(v4) if address.is_ipv6() => Some(Ipv4Net::new(v4, length.checked_sub(96)?).ok()?.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => IpNet::new(address, length).ok(),
    }
}
