//! What a value must look like before it may reach Traefik.
//!
//! The database refuses the same by constraints, but a constraint can be dropped, and one value that Traefik cannot
//! decode (a duration, say) would make it refuse the whole configuration.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The name of a middleware, service or fragment, with `@provider` when it belongs to another one.
pub(super) fn is_name(text: &str) -> bool {
    let (name, provider) = text.split_once('@').map_or((text, None), |(name, provider)| (name, Some(provider)));
    is_bare_name(name)
        && provider.is_none_or(|provider| {
            (1..=32).contains(&provider.len()) && provider.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// [`is_name`] without a provider.
pub(super) fn is_bare_name(text: &str) -> bool {
    text.len() <= 128 && is_edged(text) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// The name of an entry point or certificate resolver.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `10s`: whole milliseconds, seconds, minutes or hours.
pub(super) fn is_duration(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (1..=6).contains(&digits) && !number.starts_with('0') && matches!(unit, "ms" | "s" | "m" | "h")
}

/// The name of a cookie.
pub(super) fn is_cookie(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// A server: an IPv4 or IPv6 address, or a name that need not be a public one.
pub(super) fn is_server(text: &str) -> bool {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().is_ok();
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253
        && text.split('.').all(|label| {
            label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        })
}

/// `https://host[:port][/path]`, with nothing in it that Traefik would expand.
pub(super) fn is_redirect_target(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    text.len() <= 2048
        && !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        && port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0))
        && is_encoded(path, |b| b.is_ascii_alphanumeric() || b"._~!&()*+,;=:@/?#-".contains(&b))
}

/// A path as the database takes it: no empty, dot or trailing segment, other characters percent-encoded.
pub(super) fn is_path(text: &str) -> bool {
    text.len() <= 1024
        && text.starts_with('/')
        && is_encoded(text, |b| b.is_ascii_alphanumeric() || b"._~!$&()*+,;=:@/-".contains(&b))
        && (text == "/" || text.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | "..")))
}

/// True when every byte is `allowed` or part of `%XX`.
fn is_encoded(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fine = if byte == b'%' {
            bytes.next().is_some_and(|b| b.is_ascii_hexdigit()) && bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
        } else {
            allowed(byte)
        };
        if !fine {
            return false;
        }
    }
    true
}

/// True when the text begins and ends with a letter or digit.
fn is_edged(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        type Case<'a> = (fn(&str) -> bool, &'a [&'a str], &'a [&'a str]);
        let table: &[Case<'_>] = &[
            (is_name, &["a", "a-b.c_d", "api@internal"], &["", "-a", "a-", "a b", "a`", "a@", "a@B", "a@b@c", "ä"]),
            (is_label, &["mqtt", "a_b-"], &["", "-a", "a.b", "a`"]),
            (is_duration, &["1ms", "10s", "999999h"], &["", "0s", "01s", "1", "s", "1d", "1.5s", "-1s", "1000000s"]),
            (
                is_server,
                &["10.0.0.1", "::1", "db", "a_b.example", "A.b"],
                &["", "1.2.3", "256.1.1.1", "a..b", "-a", "a/b", "[::1]", "a b"],
            ),
            (
                is_redirect_target,
                &["https://a.org", "http://a.org:8080/x?y#z", "https://a.org/%20"],
                &[
                    "//a.org",
                    "https://",
                    "https://a.org/$1",
                    "https://a.org:0/",
                    "https://a.org?x",
                    "https://a.org/%2",
                    "https://a.org/`",
                ],
            ),
            (
                is_path,
                &["/", "/a", "/a/b@c", "/%61dmin", "/..a"],
                &["", "a", "/a/", "//", "/a//b", "/.", "/a/../b", "/a`", "/a b", "/%4", "/a'", "/ä"],
            ),
        ];
        for (check, good, bad) in table {
            for text in *good {
                assert!(check(text), "{text}");
            }
            for text in *bad {
                assert!(!check(text), "{text}");
            }
        }
    }
}
