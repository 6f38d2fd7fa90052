//! What a row contributes: its route, its pieces, and what it needs of others.

use std::sync::Arc;

use charliehub_proto::domain::Protocol;
use serde::Serialize;

use super::{
    Route, Section, State,
    piece::{Piece, encode},
    shared::Shared,
    tls::RouterTls,
};

/// The name of a piece.
pub(super) type Name = (Section, Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) route: Route,
    pub(super) pieces: Vec<Piece>,
    pub(super) shared: Vec<Shared>,
    /// Fragments that it asks for, found or not: when one comes or goes, it is compiled again.
    pub(super) wants: Vec<Name>,
    /// The router above its own.
    pub(super) parent: Option<Arc<str>>,
}

impl Output {
    /// Of what has no router.
    pub(super) fn nothing(protocol: Option<Protocol>, state: State) -> Self {
        let route = Route { protocol, routers: Vec::new(), state, warnings: Vec::new() };
        Self { route, pieces: Vec::new(), shared: Vec::new(), wants: Vec::new(), parent: None }
    }

    /// With its routers: they have these heads and this rule, and are below `parent`.
    pub(super) fn with_routers(mut self, heads: &[Head], rule: &str, parent: Option<Arc<str>>) -> Self {
        for ((section, name), head) in self.route.routers.iter().zip(heads) {
            let text = head.encode(rule, parent.as_deref());
            self.pieces.push(Piece { section: *section, name: Arc::clone(name), text });
        }
        Self { parent, ..self }
    }
}

/// A router of either protocol, without its rule. One without a service is a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) entry_point: Arc<str>,
    pub(super) middlewares: Vec<Arc<str>>,
    pub(super) priority: u32,
    pub(super) service: Arc<str>,
    pub(super) tls: Option<RouterTls>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Router<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_points: Option<[&'a str; 1]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    middlewares: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_refs: Option<[&'a str; 1]>,
    priority: u32,
    rule: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a RouterTls>,
}

impl Head {
    /// For a rule that tells Traefik none of its hosts: where a resolver is asked, for which.
    pub(super) fn naming<'n>(&self, hosts: impl Iterator<Item = &'n str>) -> Self {
        let tls = self.tls.as_ref().map(|tls| tls.naming(hosts));
        Self { tls, ..self.clone() }
    }

    /// The router with this rule. Where it has a parent, entry point and TLS are that one's.
    pub(super) fn encode(&self, rule: &str, parent: Option<&str>) -> Arc<str> {
        encode(&Router {
            entry_points: parent.is_none().then_some([&self.entry_point]),
            middlewares: &self.middlewares,
            parent_refs: parent.map(|parent| [parent]),
            priority: self.priority,
            rule,
            service: &self.service,
            tls: self.tls.as_ref().filter(|_| parent.is_none()),
        })
    }
}
