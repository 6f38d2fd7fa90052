//! What a row contributes: its route, its pieces, and what it needs of others.

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;

use super::{Route, Section, piece::Piece, shared::Shared, tls::RouterTls};

/// The name of a piece.
pub(super) type Name = (Section, Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) route: Route,
    pub(super) pieces: Vec<Piece>,
    pub(super) shared: Vec<Shared>,
    /// Fragments that it asks for, found or not: when one comes or goes, it is compiled again.
    pub(super) wants: Vec<Name>,
}

/// A router of either protocol.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Router<'a> {
    pub(super) entry_points: [&'a str; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) middlewares: Vec<Cow<'a, str>>,
    pub(super) priority: u32,
    pub(super) rule: &'a str,
    pub(super) service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RouterTls>,
}
