//! Names that we can hold, for what stays raw configuration.
//!
//! A fragment's name is letters, digits, `.`, `_` and `-`; what begins with `charliehub-`, and what a row compiles to, is
//! ours. The same files get the same names each time, so that a second import finds what the first one wrote.

use std::collections::{BTreeMap, BTreeSet};

use charliehub_proto::traefik::Kind;

use super::Name;
use crate::compile::{Settings, owner};

/// Decides about names.
pub(super) struct Names<'a> {
    pub(super) settings: &'a Settings,
    /// The routers of rows: http and tcp apart.
    pub(super) rows: &'a BTreeSet<Name>,
    /// True for a fragment that is there, and another thing than the one that is imported.
    pub(super) foreign: &'a dyn Fn(&Name, &Name) -> bool,
}

impl Names<'_> {
    /// The names that have to change: what they become, and why.
    pub(super) fn changes(&self, fragments: &BTreeSet<Name>) -> BTreeMap<Name, (String, &'static str)> {
        let mut used: BTreeSet<Name> = fragments.iter().filter(|name| self.refused(name).is_none()).cloned().collect();
        let mut changes = BTreeMap::new();
        for name in fragments {
            let Some(reason) = self.refused(name) else { continue };
            let base = holdable(&name.1);
            let numbered = (2..).map(|n: u32| format!("{base}-{n}"));
            let new = std::iter::once(base.clone()).chain(numbered).find(|new| {
                let new = (name.0, new.clone());
                self.refused(&new).is_none() && !used.contains(&new) && !(self.foreign)(&new, name)
            });
            if let Some(new) = new {
                used.insert((name.0, new.clone()));
                changes.insert(name.clone(), (new, reason));
            }
        }
        changes
    }

    /// Why a fragment cannot be called so.
    fn refused(&self, (kind, name): &Name) -> Option<&'static str> {
        if !is_holdable(name) {
            Some("a fragment's name is at most 128 letters, digits, . _ and -")
        } else if name.starts_with("charliehub-") {
            Some("charliehub- is kept for ours")
        } else if *kind == Kind::HttpMiddleware && name == "authelia" && self.settings.forward_auth.is_some() {
            Some("authelia is what [access] forward_auth makes")
        } else if self.is_of_a_row(*kind, name) {
            Some("a row compiles to that name")
        } else {
            None
        }
    }

    /// True when a row compiles to it, or may.
    pub(super) fn is_of_a_row(&self, kind: Kind, name: &str) -> bool {
        let has = |kind, name: &str| self.rows.contains(&(kind, name.to_owned()));
        match kind {
            Kind::HttpRouter | Kind::HttpService => has(Kind::HttpRouter, name),
            Kind::TcpRouter | Kind::TcpService => has(Kind::TcpRouter, name),
            Kind::HttpMiddleware => owner(name).is_some_and(|owner| has(Kind::HttpRouter, owner)),
            Kind::TcpMiddleware => owner(name).is_some_and(|owner| has(Kind::TcpRouter, owner)),
            Kind::HttpServersTransport
            | Kind::HttpModel
            | Kind::TcpServersTransport
            | Kind::UdpRouter
            | Kind::UdpService
            | Kind::TlsOption
            | Kind::TlsStore
            | Kind::TlsCertificate => false,
        }
    }
}

fn is_holdable(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 128
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// As near to the name as we can hold, with room for a number.
fn holdable(name: &str) -> String {
    let name = name.strip_prefix("charliehub-").unwrap_or(name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let text: String = name.chars().map(plain).take(120).collect();
    let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if text.is_empty() { "imported".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::ForwardAuth;

    #[test]
    fn names_that_we_cannot_hold_get_the_nearest_that_is_free() {
        let settings = Settings {
            forward_auth: Some(ForwardAuth { address: String::new(), auth_response_headers: Vec::new() }),
            ..Settings::default()
        };
        let rows = BTreeSet::from([(Kind::HttpRouter, "a.org".to_owned())]);
        let taken = |new: &Name, _: &Name| new.1 == "taken";
        let names = Names { settings: &settings, rows: &rows, foreign: &taken };
        for (kind, given, expected) in [
            (Kind::HttpMiddleware, vec!["fine", "a.org"], vec![]),
            (Kind::HttpMiddleware, vec!["a b", "a-b"], vec!["a-b-2"]),
            (Kind::HttpMiddleware, vec!["a b", "a/b"], vec!["a-b", "a-b-2"]),
            (Kind::HttpMiddleware, vec!["charliehub-internal"], vec!["internal"]),
            (Kind::HttpMiddleware, vec!["authelia", "a.org-allow"], vec!["a.org-allow-2", "authelia-2"]),
            (Kind::HttpService, vec!["a.org", "authelia"], vec!["a.org-2"]),
            (Kind::TcpService, vec!["a.org", "é", "-taken-"], vec!["taken-2", "imported"]),
        ] {
            let given: BTreeSet<Name> = given.iter().map(|name| (kind, (*name).to_owned())).collect();
            let changed: Vec<String> = names.changes(&given).into_values().map(|(new, _)| new).collect();
            assert_eq!(changed, expected, "{given:?}");
        }
    }
}
