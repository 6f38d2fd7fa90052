//! What requests a rule takes, as far as that can be told of the rule alone: the hosts, the paths, and whether there is more
//! to it.
//!
//! A rule is taken apart into alternatives, each of hosts and paths. What is said twice or denied narrows an alternative
//! in a way that is not followed: it takes [`Reach::part`] of what its hosts and paths tell.

use charliehub_proto::traefik::rule::{Dialect, Expr, Matcher, Name, regexp, template};
use regex::{Regex, RegexBuilder};

use crate::compile::Listed;

/// Rules of more alternatives are not judged.
const MOST: usize = 20_000;

/// One alternative of a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// `None`: any.
    pub(super) host: Option<Host>,
    /// `None`: any.
    pub(super) path: Option<Path>,
    /// It takes not all of the requests with these hosts and paths.
    pub(super) part: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Host {
    Exact(String),
    /// One label, then this.
    Below(String),
    Like(String, Regex),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Exact(String),
    Prefix(String),
    Like(String),
}

/// How much of one is in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    None,
    Some,
    All,
}

/// The alternatives of a rule; `None` where there are too many, or a pattern cannot be read.
pub(super) fn reaches(expr: &Expr, dialect: Dialect) -> Option<Vec<Reach>> {
    let all = match expr {
        Expr::Matcher(matcher) => of(matcher, matches!(dialect, Dialect::HttpV2 | Dialect::TcpV2))?,
        Expr::Not(_) => vec![Reach { part: true, ..Reach::default() }],
        Expr::Any(parts) => {
            let parts: Option<Vec<_>> = parts.iter().map(|part| reaches(part, dialect)).collect();
            parts?.concat()
        }
        Expr::All(parts) => {
            let mut all = vec![Reach::default()];
            for part in parts {
                let part = reaches(part, dialect)?;
                if all.len() * part.len() > MOST {
                    return None;
                }
                all = all.iter().flat_map(|one| part.iter().map(|other| one.clone().and(other))).collect();
            }
            all
        }
    };
    (all.len() <= MOST).then_some(all)
}

fn of(matcher: &Matcher, v2: bool) -> Option<Vec<Reach>> {
    let each = |reach: &dyn Fn(&str) -> Option<Reach>| matcher.values.iter().map(|value| reach(value)).collect();
    let host = |host: Host| Some(Reach { host: Some(host), ..Reach::default() });
    let path = |path: Path| Some(Reach { path: Some(path), ..Reach::default() });
    match matcher.name {
        Name::HostSni if matcher.values.iter().any(|value| value == "*") => Some(vec![Reach::default()]),
        Name::Host | Name::HostHeader | Name::HostSni => each(&|value| host(Host::named(value, v2))),
        Name::HostRegexp
            if let [value] = matcher.values.as_slice()
                && let Some(listed) = Listed::read(value) =>
        {
            listed.hosts().map(|name| host(Host::named(&name, false))).collect()
        }
        Name::HostRegexp | Name::HostSniRegexp => each(&|value| {
            let pattern = if v2 { template::to_regexp(value, "[^.]+").ok()? } else { value.to_owned() };
            host(Host::like(pattern)?)
        }),
        Name::Path | Name::PathPrefix if v2 && matcher.values.iter().any(|value| value.contains('{')) => {
            each(&|value| path(Path::Like(value.to_owned())))
        }
        Name::Path => each(&|value| path(Path::Exact(value.to_owned()))),
        Name::PathPrefix => each(&|value| path(Path::Prefix(value.to_owned()))),
        Name::PathRegexp => each(&|value| path(Path::Like(value.to_owned()))),
        Name::Method
        | Name::Header
        | Name::HeaderRegexp
        | Name::Headers
        | Name::HeadersRegexp
        | Name::Query
        | Name::QueryRegexp
        | Name::ClientIp
        | Name::Alpn => Some(vec![Reach { part: true, ..Reach::default() }]),
    }
}

impl Reach {
    fn and(self, other: &Self) -> Self {
        Self {
            part: self.part
                || other.part
                || self.host.is_some() && other.host.is_some()
                || self.path.is_some() && other.path.is_some(),
            host: self.host.or_else(|| other.host.clone()),
            path: self.path.or_else(|| other.path.clone()),
        }
    }

    /// How much of `other` this takes. Of a host only all or nothing: a name with a router of its own is not a wildcard's.
    pub(super) fn takes(&self, other: &Self) -> Share {
        let host = match (&self.host, &other.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(this), Some(other)) => this.covers(other),
        };
        if !host {
            return Share::None;
        }
        let path = match (&self.path, &other.path) {
            (None, _) => Share::All,
            (Some(this), None) => this.takes(&Path::Prefix("/".to_owned())),
            (Some(this), Some(other)) => this.takes(other),
        };
        if self.part { path.min(Share::Some) } else { path }
    }
}

impl Host {
    fn named(value: &str, v2: bool) -> Self {
        let name = value.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) if !v2 => Self::Below(parent.to_owned()),
            _ => Self::Exact(name),
        }
    }

    fn like(pattern: String) -> Option<Self> {
        // As a wildcard of ours is written.
        let below = pattern.strip_prefix(r"^[^.]+\.").and_then(|rest| rest.strip_suffix(r"\.?$"));
        let parent = below.map(|below| below.replace(r"\.", "."));
        if let Some(parent) =
            parent.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
        {
            return Some(Self::Below(parent));
        }
        let regex = RegexBuilder::new(&regexp::translate(&pattern).ok()?).nest_limit(2_000).build().ok()?;
        Some(Self::Like(pattern, regex))
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(this), Self::Exact(other))
            | (Self::Below(this), Self::Below(other))
            | (Self::Like(this, _), Self::Like(other, _)) => this == other,
            (Self::Below(parent), Self::Exact(name)) => {
                name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
            }
            (Self::Like(_, regex), Self::Exact(name)) => regex.is_match(name),
            // No pattern that lists names has these two.
            (Self::Like(_, regex), Self::Below(parent)) => {
                ["x", "charliehub-0"].iter().all(|label| regex.is_match(&format!("{label}.{parent}")))
            }
            (Self::Exact(_), Self::Below(_) | Self::Like(..)) | (Self::Below(_), Self::Like(..)) => false,
        }
    }
}

impl Path {
    fn takes(&self, other: &Self) -> Share {
        let is_in = |part: &str, prefix: &str| part.starts_with(prefix);
        match (self, other) {
            (Self::Prefix(this), Self::Prefix(other) | Self::Exact(other)) if is_in(other, this) => Share::All,
            (Self::Prefix(this) | Self::Exact(this), Self::Prefix(other)) if is_in(this, other) => Share::Some,
            (Self::Like(_), Self::Prefix(root)) if root == "/" => Share::Some,
            _ if self == other => Share::All,
            _ => Share::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use charliehub_proto::traefik::rule::parse;

    use super::*;

    fn share(theirs: &str, ours: &str) -> Share {
        let of = |rule: &str| reaches(&parse(rule, Dialect::Http).unwrap(), Dialect::Http).unwrap();
        let (theirs, ours) = (of(theirs), of(ours));
        ours.iter().flat_map(|ours| theirs.iter().map(move |theirs| theirs.takes(ours))).max().unwrap()
    }

    #[test]
    fn what_another_rule_takes_of_ours() {
        use Share::{All, None, Some};
        for (theirs, ours, takes) in [
            ("Host(`a.org`)", "Host(`a.org`)", All),
            ("Host(`A.org`)", "Host(`a.org`) && PathPrefix(`/x`)", All),
            ("Host(`b.org`)", "Host(`a.org`)", None),
            ("Host(`b.org`) || Host(`a.org`)", "Host(`a.org`)", All),
            ("PathPrefix(`/`)", "Host(`a.org`)", All),
            ("PathPrefix(`/x`)", "Host(`a.org`)", Some),
            ("Host(`a.org`) && PathPrefix(`/x`)", "Host(`a.org`)", Some),
            ("Host(`a.org`) && Path(`/x`)", "Host(`a.org`) && PathPrefix(`/x`)", Some),
            ("Host(`a.org`) && PathPrefix(`/x`)", "Host(`a.org`) && PathPrefix(`/xy`)", All),
            ("Host(`a.org`) && PathPrefix(`/x`)", "Host(`a.org`) && PathPrefix(`/y`)", None),
            ("Host(`a.org`) && PathRegexp(`\\.php$`)", "Host(`a.org`)", Some),
            ("Host(`a.org`) && PathRegexp(`\\.php$`)", "Host(`a.org`) && PathPrefix(`/x`)", None),
            ("Host(`a.org`) && Method(`POST`)", "Host(`a.org`)", Some),
            ("Host(`a.org`) && !PathPrefix(`/x`)", "Host(`a.org`)", Some),
            ("HostRegexp(`^.+$`)", "Host(`a.org`)", All),
            ("HostRegexp(`^.+\\.a\\.org$`)", "HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", All),
            ("HostRegexp(`^x\\.a\\.org$`)", "HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", None),
            ("Host(`*.a.org`)", "HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", All),
            ("HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", "Host(`x.a.org`)", All),
            ("Host(`x.a.org`)", "HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", None),
            ("Host(`a.org`)", "PathPrefix(`/`)", None),
        ] {
            assert_eq!(share(theirs, ours), takes, "{theirs} of {ours}");
        }
    }

    #[test]
    fn a_rule_of_too_many_alternatives_is_not_judged() {
        let side = (0..200).map(|n| format!("Host(`{n}.org`)")).collect::<Vec<_>>().join(" || ");
        let expr = parse(&format!("({side}) && ({side})"), Dialect::Http).unwrap();
        assert!(reaches(&expr, Dialect::Http).is_none());
    }
}
