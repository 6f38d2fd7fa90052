//! What of a config decides who answers.

use std::{collections::BTreeMap, sync::OnceLock};

use charliehub_proto::traefik::{
    http::RuleSyntax,
    rule::{Dialect, Expr, parse},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::Error;

/// A config that Traefik runs. What is not about requests is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    pub(super) http: Half,
    pub(super) tcp: Half,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Half {
    pub(super) routers: BTreeMap<String, Router>,
    services: BTreeMap<String, Value>,
    middlewares: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Router {
    pub(super) rule: String,
    pub(super) rule_syntax: Option<RuleSyntax>,
    pub(super) priority: Option<i64>,
    pub(super) entry_points: Vec<String>,
    pub(super) middlewares: Vec<String>,
    pub(super) service: String,
    pub(super) parent_refs: Vec<String>,
    pub(super) tls: Option<IgnoredAny>,
    /// Its rule as it was first asked for; `None`: Traefik cannot read it.
    #[serde(skip)]
    parsed: OnceLock<Option<Expr>>,
}

impl Router {
    /// Traefik disables a router whose rule it cannot read. One router is always asked in one dialect.
    pub(super) fn expr(&self, dialect: Dialect) -> Option<&Expr> {
        self.parsed.get_or_init(|| parse(&self.rule, dialect).ok()).as_ref()
    }

    /// Whether it is a child of this router of ours.
    pub(super) fn is_below(&self, name: &str) -> bool {
        self.parent_refs.iter().any(|parent| own(parent) == Some(name))
    }
}

impl Config {
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl Half {
    /// The kind and the options of a middleware of ours.
    pub(super) fn middleware(&self, reference: &str) -> Option<(&str, &Value)> {
        let body = self.middlewares.get(own(reference)?)?.as_object()?;
        body.iter().next().map(|(kind, options)| (kind.as_str(), options))
    }

    /// True for a service that has no server.
    pub(super) fn is_closed(&self, reference: &str) -> bool {
        let service = own(reference).and_then(|name| self.services.get(name));
        service
            .and_then(|service| service.get("loadBalancer"))
            .is_some_and(|balancer| balancer.get("servers").and_then(Value::as_array).is_none_or(Vec::is_empty))
    }
}

/// What a reference names among our own: `a` or `a@http`.
fn own(reference: &str) -> Option<&str> {
    match reference.split_once('@') {
        None => Some(reference),
        Some((bare, "http")) => Some(bare),
        Some(_) => None,
    }
}
