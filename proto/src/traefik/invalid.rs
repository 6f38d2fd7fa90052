//! Says where a piece of configuration is wrong, and what to write instead.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Fields that Traefik's own providers fill. Over HTTP it drops them without a word: a middleware of such a kind arrives
/// empty, and disables the routers that use it.
const NOT_OVER_HTTP: [&str; 16] = [
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestRedirect",
    "URLRewrite",
    "authTLSPassCertificateToUpstream",
    "snippet",
    "rewriteTarget",
    "upstreamVHost",
    "appRoot",
    "deniedEncodedPathCharacters",
    "defaultRuleSyntax",
    "disableRequestBuffer",
    "disableResponseBuffer",
    "fenced",
    "nginxHeaders",
    "nginxUpstreamHashBy",
];

/// One mistake: `path` is empty when the piece as a whole is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `loadBalancer.servers[0].urll`
    pub path: String,
    pub reason: String,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}

impl Invalid {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// The same mistake, seen from one level further out.
    pub(crate) fn under(mut self, parent: &str) -> Self {
        self.path = join(parent, &self.path);
        self
    }
}

/// `a` and `b` to `a.b`, `a` and `[0].b` to `a[0].b`.
pub(crate) fn join(parent: &str, path: &str) -> String {
    let dot = if parent.is_empty() || path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("{parent}{dot}{path}")
}

/// `missing` when nothing is written there.
pub(crate) fn require(path: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() { Err(Invalid::new(path, "is required")) } else { Ok(()) }
}

/// Exactly one of `kinds` must be there, as a service and a middleware have it. `hollow` ones do not count.
pub(crate) fn exactly_one(what: &str, kinds: &[(&str, bool)]) -> Result<(), Invalid> {
    let given: Vec<_> = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    let known = || kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match given.as_slice() {
        [_] => Ok(()),
        [] => Err(Invalid::new("", format!("{what} needs one of: {}", known()))),
        several => Err(Invalid::new("", format!("{what} is of one kind, not of {}: split it", several.join(" and ")))),
    }
}

/// Types a body; what does not fit is named with its path, and with the nearest field that exists.
pub(crate) fn typed<T: DeserializeOwned>(body: &Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Invalid::new(path, explain(&error.into_inner().to_string()))
    })
}

/// serde says: unknown field `urll`, expected `url` or `weight`.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown ")) else {
        return message.to_owned();
    };
    let what = if message.starts_with("unknown field") { "field" } else { "value" };
    if NOT_OVER_HTTP.contains(&unknown) {
        return format!("{unknown} is for Traefik's Kubernetes providers: over HTTP Traefik takes it as not given");
    }
    let known: Vec<_> = quoted.collect();
    match nearest(unknown, &known) {
        Some(near) => format!("unknown {what} {unknown}, did you mean {near}?"),
        None if known.is_empty() => format!("unknown {what} {unknown}, there is nothing to set here"),
        None => format!("unknown {what} {unknown}, known are: {}", known.join(", ")),
    }
}

pub(crate) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase());
    known.iter().copied().min_by_key(|name| distance(name)).filter(|name| distance(name) <= name.len().div_ceil(3))
}
