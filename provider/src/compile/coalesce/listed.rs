//! The rule of several hosts in one router, and what it says to whoever reads it.
//!
//! One anchored regular expression of sorted names: Go folds their common beginnings, so that thousands cost a request what
//! one does. It takes what a `Host` for each would take too: any case, a port, a trailing dot.

use super::super::path::Path;

const EXACT: (&str, &str) = ("^(?:", r")\.?$");
const WILDCARD: (&str, &str) = (r"^[^.]+\.(?:", r")\.?$");
/// What the name of a router of several rows begins with. No row and no fragment has a name with it.
const GROUP: &str = "group:";

/// The rule for all of `hosts`, which have a `|` between them and are all wildcards or none is.
pub(super) fn rule(hosts: &str, wildcard: bool, path: Option<&Path>) -> String {
    let (before, after) = if wildcard { WILDCARD } else { EXACT };
    let mut rule = String::with_capacity(hosts.len() + hosts.len() / 4 + 64);
    rule.push_str("HostRegexp(`");
    rule.push_str(before);
    for (index, host) in hosts.split('|').enumerate() {
        if index > 0 {
            rule.push('|');
        }
        let mut rest = host.strip_prefix("*.").unwrap_or(host);
        while let Some((label, after)) = rest.split_once('.') {
            rule.push_str(label);
            rule.push_str(r"\.");
            rest = after;
        }
        rule.push_str(rest);
    }
    rule.push_str(after);
    rule.push_str("`)");
    if let Some(path) = path.filter(|path| !path.is_root()) {
        rule.push_str(" && ");
        rule.push_str(&path.matcher());
    }
    rule
}

/// A pattern that [`rule`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    wildcard: bool,
    /// Of wildcards the parents.
    names: &'a str,
}

impl<'a> Listed<'a> {
    /// `None` for another pattern.
    pub fn read(pattern: &'a str) -> Option<Self> {
        let between = |(before, after): (&str, &str)| pattern.strip_prefix(before)?.strip_suffix(after);
        let exact = between(EXACT).map(|names| Self { wildcard: false, names });
        let listed = exact.or_else(|| between(WILDCARD).map(|names| Self { wildcard: true, names }))?;
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let label = |label: &str| !label.is_empty() && label.bytes().all(letter);
        listed.names.split('|').all(|name| name.split(r"\.").all(label)).then_some(listed)
    }

    /// Whether it takes this host, which is in lower case and without a port.
    pub fn takes(self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let name = match (self.wildcard, host.split_once('.')) {
            (false, _) => host,
            (true, Some((label, parent))) if !label.is_empty() => parent,
            (true, _) => return false,
        };
        let name = name.replace('.', r"\.");
        self.names.split('|').any(|one| one == name)
    }

    /// As rows have them, in order.
    pub fn hosts(self) -> impl Iterator<Item = String> {
        let before = if self.wildcard { "*." } else { "" };
        self.names.split('|').map(move |name| format!("{before}{}", name.replace(r"\.", ".")))
    }
}

/// The name of what the rows of one shape share.
pub(super) fn shape_name(hash: &str) -> String {
    format!("{GROUP}{hash}")
}

/// The name of the router of a group: `first` is what the router of its first row would be called by itself.
pub(super) fn group_name(shape: &str, first: &str) -> String {
    format!("{shape}:{first}")
}

/// True for the name of a router of several rows, and of what such rows share.
pub fn is_of_several(name: &str) -> bool {
    name.starts_with(GROUP)
}

/// The parts of a name of ours: that of the shape, and what the router of the first row would be called.
pub(super) fn parts(name: &str) -> Option<(&str, Option<&str>)> {
    let rest = name.strip_prefix(GROUP)?;
    match rest.split_once(':') {
        Some((hash, first)) => Some((name.get(..GROUP.len() + hash.len())?, Some(first))),
        None => Some((name, None)),
    }
}

/// What the routers of the rows of a group would be called by themselves.
pub fn rows_of(router: &str, rule: &str) -> Option<Vec<String>> {
    let (_, first) = parts(router)?;
    let pattern = rule.strip_prefix("HostRegexp(`")?.split('`').next()?;
    let path = first?.split_once('/').map(|(_, path)| format!("/{path}")).unwrap_or_default();
    Some(Listed::read(pattern)?.hosts().map(|host| host + &path).collect())
}

/// What the router of the row that takes `host` would be called by itself, where `router` is one of several rows.
pub fn row_of(router: &str, host: &str) -> Option<String> {
    let (_, first) = parts(router)?;
    let (of_first, path) = first.map(|first| first.split_at(first.find('/').unwrap_or(first.len())))?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if of_first.starts_with("*.") {
        return Some(format!("*.{}{path}", host.split_once('.')?.1));
    }
    Some(format!("{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(hosts: &[&str], wildcard: bool) -> String {
        let rule = rule(&hosts.join("|"), wildcard, None);
        rule.strip_prefix("HostRegexp(`").unwrap().strip_suffix("`)").unwrap().to_owned()
    }

    #[test]
    fn rules() {
        let path = Path::parse("/x").unwrap();
        for (hosts, wildcard, path, expected) in [
            (&["a.x", "b-1.x"][..], false, None, r"HostRegexp(`^(?:a\.x|b-1\.x)\.?$`)"),
            (&["*.a.x", "*.b.x"], true, None, r"HostRegexp(`^[^.]+\.(?:a\.x|b\.x)\.?$`)"),
            (&["a.x"], false, Some(&path), r"HostRegexp(`^(?:a\.x)\.?$`) && PathPrefix(`/x`)"),
        ] {
            assert_eq!(rule(&hosts.join("|"), wildcard, path), expected);
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let (exact, wildcard) = (pattern(&["a.x", "b.x"], false), pattern(&["*.a.x"], true));
        let (exact, wildcard) = (Listed::read(&exact).unwrap(), Listed::read(&wildcard).unwrap());
        assert_eq!(exact.hosts().collect::<Vec<_>>(), ["a.x", "b.x"]);
        assert_eq!(wildcard.hosts().collect::<Vec<_>>(), ["*.a.x"]);
        for (host, by_exact, by_wildcard) in [
            ("a.x", true, false),
            ("a.x.", true, false),
            ("a.x..", false, false),
            ("aa.x", false, false),
            ("a.xx", false, false),
            ("aax", false, false),
            ("b.x", true, false),
            ("z.a.x", false, true),
            ("z.a.x.", false, true),
            ("y.z.a.x", false, false),
            (".a.x", false, false),
        ] {
            assert_eq!((exact.takes(host), wildcard.takes(host)), (by_exact, by_wildcard), "{host}");
        }
        for other in [r"^a\.x$", "^(?:a.*)\\.?$", "^(?:)\\.?$", r"^[^.]+\.a\.x\.?$"] {
            assert_eq!(Listed::read(other), None, "{other}");
        }
    }

    #[test]
    fn names_lead_back_to_rows() {
        let shape = shape_name("0f");
        for (first, hosts, host, row) in [
            ("a.x", &["a.x", "b.x"][..], "b.x.", "b.x"),
            ("a.x/p:q", &["a.x", "b.x"], "b.x", "b.x/p:q"),
            ("*.a.x/p", &["*.a.x", "*.b.x"], "z.b.x", "*.b.x/p"),
        ] {
            let name = group_name(&shape, first);
            assert_eq!(parts(&name), Some((&*shape, Some(first))));
            assert_eq!(row_of(&name, host).as_deref(), Some(row));
            let rule = rule(&hosts.join("|"), first.starts_with('*'), None);
            let rows = rows_of(&name, &rule).unwrap();
            assert!(rows.len() == 2 && rows[0] == first && rows[1] == row, "{rows:?}");
        }
        assert_eq!(parts(&shape), Some((&*shape, None)));
        assert_eq!((parts("a.x"), row_of("a.x", "a.x"), rows_of("a.x", "")), (None, None, None));
    }
}
