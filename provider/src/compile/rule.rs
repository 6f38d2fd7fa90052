//! Which requests a row takes: its host, its path, and how it ranks among the others.
//!
//! A wildcard is exactly one label, as in a certificate. Priorities are explicit because Traefik's own is the length of
//! the rule: an exact host beats a wildcard and a longer path a shorter one, whatever the text.

use std::sync::Arc;

use charliehub_proto::domain::Protocol;

use super::path::Path;

/// The range of a row's own `priority`.
pub(super) const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=1_000_000;
const WILDCARD: u32 = 100_000;
const EXACT: u32 = 200_000;

/// A host that a rule can hold: `a.example.org` or `*.example.org`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host(Arc<str>);

/// A host that a row names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Valid(Host),
    /// Not a public name, but one that a rule can hold: its place can be closed.
    Odd(Host),
    /// No rule can hold it, so no request can be for it.
    Nothing,
}

impl Host {
    pub(super) fn parse(text: &str) -> Named {
        let name = text.strip_prefix("*.").unwrap_or(text);
        if is_public(name) && text.len() <= 253 {
            return Named::Valid(Self(text.into()));
        }
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let writable = name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if writable && text.len() <= 253 { Named::Odd(Self(text.into())) } else { Named::Nothing }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The parent of a wildcard.
    pub(super) fn wildcard(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Takes what `Host` would take too: any case, a port, a trailing dot (Traefik 3.7).
    fn regexp(parent: &str) -> String {
        format!(r"^[^.]+\.{}\.?$", parent.replace('.', r"\."))
    }

    /// The rule of an http row.
    pub(super) fn http_rule(&self, path: Option<&Path>) -> String {
        let host = match self.wildcard() {
            Some(parent) => format!("HostRegexp(`{}`)", Self::regexp(parent)),
            None => format!("Host(`{}`)", self.0),
        };
        match path {
            Some(path) if !path.is_root() => format!("{host} && {}", path.matcher()),
            _ => host,
        }
    }

    /// The rule of a tcp row that is reached by TLS.
    pub(super) fn sni_rule(&self) -> String {
        match self.wildcard() {
            Some(parent) => format!("HostSNIRegexp(`{}`)", Self::regexp(parent)),
            None => format!("HostSNI(`{}`)", self.0),
        }
    }

    /// The priority of a row that gives none.
    pub(super) fn priority(&self, path: &Path) -> u32 {
        let base = if self.wildcard().is_some() { WILDCARD } else { EXACT };
        base + u32::try_from(path.as_str().len()).unwrap_or(0)
    }

    /// Above every row of this host, and for a wildcard below every exact host.
    pub(super) fn priority_of_all(&self) -> u32 {
        if self.wildcard().is_some() { EXACT - 1 } else { *PRIORITIES.end() + 1 }
    }
}

/// A public name, as in DNS: at least two labels, the last one beginning with a letter.
fn is_public(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let labels = name.split('.').all(|label| {
        label.len() <= 63
            && edge(label.bytes().next())
            && edge(label.bytes().next_back())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    });
    let last = name.rsplit_once('.').map(|(_, last)| last);
    labels && last.is_some_and(|last| last.len() >= 2 && last.bytes().next().is_some_and(|b| b.is_ascii_lowercase()))
}

/// The name of a row's router: its host and path; tcp: its host and entry point. `@` would name a provider.
pub(super) fn router_name(protocol: Protocol, host: &Host, path: &Path, entry_point: &str) -> Arc<str> {
    match protocol {
        Protocol::Http if path.is_root() => Arc::clone(host.shared()),
        Protocol::Http => format!("{}{}", host.as_str(), path.as_str().replace('@', "[at]")).into(),
        Protocol::Tcp => format!("{}-{entry_point}", host.as_str()).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Host {
        match Host::parse(text) {
            Named::Valid(host) => host,
            other @ (Named::Odd(_) | Named::Nothing) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn hosts() {
        for text in ["a.org", "*.a.org", "x-1.a.co"] {
            assert!(matches!(Host::parse(text), Named::Valid(_)), "{text}");
        }
        for (text, place) in
            [("A.Org", "a.org"), ("a.org.", "a.org"), ("localhost", "localhost"), ("a_b.org", "a_b.org")]
        {
            assert_eq!(Host::parse(text), Named::Odd(Host(place.into())), "{text}");
        }
        for text in ["", "*", "*.", "a..org", "a`.org", "*.*.org", "a b.org", "a.org/x", "ä.org", "a.org:80"] {
            assert_eq!(Host::parse(text), Named::Nothing, "{text}");
        }
    }

    #[test]
    fn rules() {
        let path = Path::parse("/x").unwrap();
        for (name, path, http, sni) in [
            ("a.org", None, "Host(`a.org`)", "HostSNI(`a.org`)"),
            ("a.org", Some(&path), "Host(`a.org`) && PathPrefix(`/x`)", "HostSNI(`a.org`)"),
            ("*.a.org", None, r"HostRegexp(`^[^.]+\.a\.org\.?$`)", r"HostSNIRegexp(`^[^.]+\.a\.org\.?$`)"),
        ] {
            assert_eq!((host(name).http_rule(path).as_str(), host(name).sni_rule().as_str()), (http, sni), "{name}");
        }
    }

    #[test]
    fn names() {
        let name = |protocol, host_: &str, path: &str| {
            router_name(protocol, &host(host_), &Path::parse(path).unwrap(), "mqtt").to_string()
        };
        assert_eq!(name(Protocol::Http, "a.org", "/"), "a.org");
        assert_eq!(name(Protocol::Http, "a.org", "/x/@y"), "a.org/x/[at]y");
        assert_eq!(name(Protocol::Tcp, "a.org", "/"), "a.org-mqtt");
    }

    proptest! {
        #[test]
        fn exact_beats_wildcard_and_longer_beats_shorter(a in "(/[a-z!%]{0,9}){1,9}", b in "(/[a-z]{1,9}){1,9}") {
            let Ok(short) = Path::parse(&a) else { return Ok(()) };
            let base = if short.is_root() { String::new() } else { a.clone() };
            let long = Path::parse(&format!("{base}{b}")).unwrap();
            let (exact, wildcard) = (host("x.a.org"), host("*.a.org"));
            prop_assert!(exact.priority(&short) > wildcard.priority(&long));
            prop_assert!(exact.priority(&long) > exact.priority(&short));
            prop_assert!(wildcard.priority(&long) > wildcard.priority(&short));
            prop_assert!(exact.priority(&short) > wildcard.priority_of_all());
            prop_assert!(wildcard.priority_of_all() > wildcard.priority(&long));
        }
    }
}
