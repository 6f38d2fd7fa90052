//! What the values of a matcher may be.

use std::net::IpAddr;

use super::{Dialect, Error, Name, regexp, template};

/// Where a value stands, and what it is.
type Value = (usize, String);

/// Refuses what Traefik's own matcher refuses. `at` is where the matcher stands.
pub(super) fn matcher(dialect: Dialect, name: Name, values: &[Value], at: usize) -> Result<(), Error> {
    let v2 = matches!(dialect, Dialect::HttpV2 | Dialect::TcpV2);
    count(name, values.len(), v2).map_err(|reason| Error::new(at, reason))?;
    if let Some((at, _)) = values.iter().find(|(_, value)| value.is_empty()) {
        return Err(Error::new(*at, format!("{} takes no empty value", name.as_str())));
    }
    for (i, (at, value)) in values.iter().enumerate() {
        let judged = if v2 { value_v2(dialect, name, i, value) } else { value_v3(name, i, value) };
        judged.map_err(|reason| Error::new(*at, reason))?;
    }
    Ok(())
}

fn count(name: Name, given: usize, v2: bool) -> Result<(), String> {
    let (right, wanted) = match name {
        Name::Headers | Name::HeadersRegexp => (given > 0 && given.is_multiple_of(2), "pairs of a name and a value"),
        _ if v2 => (given > 0, "one or more values"),
        Name::Header | Name::HeaderRegexp => (given == 2, "two values: a name and what it must be"),
        Name::Query | Name::QueryRegexp => (given == 1 || given == 2, "a name, or a name and what it must be"),
        Name::Host
        | Name::HostHeader
        | Name::HostRegexp
        | Name::Path
        | Name::PathPrefix
        | Name::PathRegexp
        | Name::Method
        | Name::ClientIp
        | Name::HostSni
        | Name::HostSniRegexp
        | Name::Alpn => (given == 1, "one value; join several matchers with ||"),
    };
    if right { Ok(()) } else { Err(format!("{} takes {wanted}, not {given}", name.as_str())) }
}

fn value_v3(name: Name, i: usize, value: &str) -> Result<(), String> {
    match name {
        Name::Host => ascii(name, value),
        Name::HostRegexp | Name::HostSniRegexp => ascii(name, value).and_then(|()| regexp(value)),
        Name::Path | Name::PathPrefix => slash(value),
        Name::PathRegexp => regexp(value),
        Name::HeaderRegexp | Name::QueryRegexp if i == 1 => regexp(value),
        Name::ClientIp => network(value),
        Name::HostSni => server_name(value, true),
        Name::Alpn => protocol(value),
        Name::HostHeader
        | Name::Method
        | Name::Header
        | Name::HeaderRegexp
        | Name::Headers
        | Name::HeadersRegexp
        | Name::Query
        | Name::QueryRegexp => Ok(()),
    }
}

fn value_v2(dialect: Dialect, name: Name, i: usize, value: &str) -> Result<(), String> {
    match name {
        Name::Host | Name::HostHeader => ascii(name, value),
        Name::HostRegexp => ascii(name, value).and_then(|()| template::check(value, "[^.]+")),
        Name::Path | Name::PathPrefix => slash(value).and_then(|()| template::check(value, "[^/]+")),
        Name::HeadersRegexp if !i.is_multiple_of(2) => regexp(value),
        Name::Query if !value.contains('=') => Err(format!("must be a name and a value: `{value}=...`")),
        Name::Query => template::check(value, ".*"),
        Name::ClientIp => network(value),
        Name::HostSni => server_name(value, false),
        Name::HostSniRegexp => template::to_regexp(value, "[^.]+").and_then(|pattern| regexp(&pattern)),
        Name::Alpn if dialect == Dialect::TcpV2 => protocol(value),
        Name::Alpn
        | Name::Method
        | Name::PathRegexp
        | Name::Header
        | Name::HeaderRegexp
        | Name::Headers
        | Name::HeadersRegexp
        | Name::QueryRegexp => Ok(()),
    }
}

fn ascii(name: Name, value: &str) -> Result<(), String> {
    if value.is_ascii() {
        return Ok(());
    }
    Err(format!("{} takes ASCII only: write an international name in its xn-- form", name.as_str()))
}

fn slash(path: &str) -> Result<(), String> {
    if path.starts_with('/') { Ok(()) } else { Err(format!("a path begins with a slash: `/{path}`")) }
}

fn regexp(pattern: &str) -> Result<(), String> {
    regexp::translate(pattern).map(drop).map_err(|error| error.to_string())
}

/// Go's `net.ParseIP` and `net.ParseCIDR`: bits of the host may be set, the length may have leading zeros.
fn network(value: &str) -> Result<(), String> {
    let (address, length) = value.split_once('/').map_or((value, None), |(address, length)| (address, Some(length)));
    let bits = address.parse::<IpAddr>().ok().map(|address| if address.is_ipv4() { 32 } else { 128 });
    let fits = |length: &str| {
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        digits && length.parse::<u32>().ok() <= bits && length.parse::<u32>().is_ok()
    };
    if bits.is_some() && length.is_none_or(fits) {
        return Ok(());
    }
    Err(format!("`{value}` is not an address or a network, such as 10.0.0.1 or 10.0.0.0/8"))
}

/// `^(\*\.)?[[:word:]\.\-\:]+$`; the older matchers have no wildcard.
fn server_name(value: &str, wildcard: bool) -> Result<(), String> {
    let name = if wildcard { value.strip_prefix("*.").unwrap_or(value) } else { value };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
    if value == "*" || !name.is_empty() && name.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("`{value}` is not a host name; every name is `*`, others go in HostSNIRegexp"))
}

fn protocol(value: &str) -> Result<(), String> {
    if value == "acme-tls/1" { Err("acme-tls/1 is Traefik's own, for certificates".to_owned()) } else { Ok(()) }
}
