//! Reads Traefik's rules, ``Host(`a.org`) && !ClientIP(`10.0.0.0/8`)``, and refuses what Traefik would refuse.
//!
//! Between whoever writes a rule (a fragment, an import) and Traefik, which disables a router whose rule it cannot read.
//! In order: [`scan`] makes tokens as Go's scanner does; [`parse`] joins them to an [`Expr`]; each [`Matcher`] is checked
//! as it is met: that the dialect has it, how many values it takes, what they may be.
//!
//! A rule is a Go expression to Traefik: `pkg/rules/parser.go` gives it to `go/parser`, by way of
//! `github.com/vulcand/predicate`. So a new line ends a term unless an operator, a comma or `(` stands before it, and
//! comments are allowed. The matchers are those of `pkg/muxer/http/matcher.go`, `pkg/muxer/tcp/matcher.go`, and of
//! `matcher_v2.go` beside each. Two things that Traefik takes are refused: terms nested deeper than [`MAX_DEPTH`], and
//! values that are not UTF-8.

mod check;
mod parse;
mod print;
pub mod regexp;
mod scan;
pub mod template;

use super::{Invalid, http::RuleSyntax};

/// Parentheses and `!` within each other; no person writes so many, and they must not exhaust the stack.
pub const MAX_DEPTH: usize = 200;

/// What kind of router a rule is for, and whose matchers it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Http,
    /// `ruleSyntax: v2`
    HttpV2,
    Tcp,
    /// `ruleSyntax: v2`
    TcpV2,
}

impl Dialect {
    pub const fn http(syntax: Option<RuleSyntax>) -> Self {
        match syntax {
            None | Some(RuleSyntax::V3) => Self::Http,
            Some(RuleSyntax::V2) => Self::HttpV2,
        }
    }

    pub const fn tcp(syntax: Option<RuleSyntax>) -> Self {
        match syntax {
            None | Some(RuleSyntax::V3) => Self::Tcp,
            Some(RuleSyntax::V2) => Self::TcpV2,
        }
    }

    /// The matchers that a rule may use.
    pub const fn matchers(self) -> &'static [Name] {
        use Name::{
            Alpn, ClientIp, Header, HeaderRegexp, Headers, HeadersRegexp, Host, HostHeader, HostRegexp, HostSni,
            HostSniRegexp, Method, Path, PathPrefix, PathRegexp, Query, QueryRegexp,
        };
        match self {
            Self::Http => &[
                Host,
                HostRegexp,
                Path,
                PathPrefix,
                PathRegexp,
                Method,
                Header,
                HeaderRegexp,
                Query,
                QueryRegexp,
                ClientIp,
            ],
            Self::HttpV2 => {
                &[Host, HostHeader, HostRegexp, Path, PathPrefix, Method, Headers, HeadersRegexp, Query, ClientIp]
            }
            Self::Tcp | Self::TcpV2 => &[HostSni, HostSniRegexp, ClientIp, Alpn],
        }
    }
}

/// A rule that Traefik takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    Matcher(Matcher),
    Not(Box<Expr>),
    /// Two or more.
    All(Vec<Expr>),
    /// Two or more.
    Any(Vec<Expr>),
}

/// ``Header(`X-Team`, `blue`)``
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    pub name: Name,
    /// As many as the matcher takes, none empty.
    pub values: Vec<String>,
}

macro_rules! names {
    ($($variant:ident = $name:literal,)*) => {
        /// What a matcher looks at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Name {
            $($variant,)*
        }

        impl Name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As Traefik's documentation writes it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

names! {
    Host = "Host",
    HostHeader = "HostHeader",
    HostRegexp = "HostRegexp",
    Path = "Path",
    PathPrefix = "PathPrefix",
    PathRegexp = "PathRegexp",
    Method = "Method",
    Header = "Header",
    HeaderRegexp = "HeaderRegexp",
    Headers = "Headers",
    HeadersRegexp = "HeadersRegexp",
    Query = "Query",
    QueryRegexp = "QueryRegexp",
    ClientIp = "ClientIP",
    HostSni = "HostSNI",
    HostSniRegexp = "HostSNIRegexp",
    Alpn = "ALPN",
}

impl Name {
    /// Traefik knows each in four spellings: `HostSNI`, `hostsni`, `HOSTSNI` and `Hostsni`.
    fn is_spelt(self, text: &str) -> bool {
        let title = |text: &str| {
            let mut rest = text.chars();
            rest.next().is_some_and(|first| first.is_ascii_uppercase()) && rest.all(|c| c.is_ascii_lowercase())
        };
        let name = self.as_str();
        name == text
            || name.eq_ignore_ascii_case(text)
                && (title(text)
                    || text.chars().all(|c| c.is_ascii_lowercase())
                    || text.chars().all(|c| c.is_ascii_uppercase()))
    }
}

/// Why Traefik would refuse a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {reason}")]
pub struct Error {
    /// Which character of the rule, the first being 1.
    pub at: usize,
    pub reason: String,
}

impl Error {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self { at, reason: reason.into() }
    }
}

/// Reads a rule.
pub fn parse(rule: &str, dialect: Dialect) -> Result<Expr, Error> {
    parse::rule(rule, dialect)
}

impl Expr {
    /// All matchers, from left to right.
    pub fn matchers(&self) -> Vec<&Matcher> {
        match self {
            Self::Matcher(matcher) => vec![matcher],
            Self::Not(inner) => inner.matchers(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::matchers).collect(),
        }
    }

    /// The matchers that must hold, not those that must not, from left to right.
    fn affirmed(&self, affirmed: bool) -> Vec<&Matcher> {
        match self {
            Self::Matcher(matcher) => affirmed.then_some(matcher).into_iter().collect(),
            Self::Not(inner) => inner.affirmed(!affirmed),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(|part| part.affirmed(affirmed)).collect(),
        }
    }
}

/// Checks the rule of an HTTP router.
pub(super) fn check_http(rule: &str, syntax: Option<RuleSyntax>) -> Result<(), Invalid> {
    parse(rule, Dialect::http(syntax)).map(drop).map_err(Error::of_router)
}

/// Checks the rule of a TCP router. The name of a connection without TLS is not known, so nothing but every name will do
/// (`pkg/server/router/tcp/manager.go`: the first `HostSNI` decides that is not negated).
pub(super) fn check_tcp(rule: &str, syntax: Option<RuleSyntax>, tls: bool) -> Result<(), Invalid> {
    let parsed = parse(rule, Dialect::tcp(syntax)).map_err(Error::of_router)?;
    let first = parsed.affirmed(true).into_iter().find(|matcher| matcher.name == Name::HostSni);
    match first.and_then(|matcher| matcher.values.first()) {
        Some(host) if host != "*" && !tls => Err(Invalid::new(
            "rule",
            format!(
                "HostSNI(`{host}`) needs TLS: give the router tls, with or without passthrough, or write HostSNI(`*`)"
            ),
        )),
        _ => Ok(()),
    }
}

impl Error {
    fn of_router(self) -> Invalid {
        Invalid::new("rule", self.to_string())
    }
}

#[cfg(test)]
mod tests;
