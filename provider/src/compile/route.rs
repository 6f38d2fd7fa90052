//! What became of a row.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::domain::Protocol;

use super::Section;

/// What a row compiled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `None` for a fragment.
    pub protocol: Option<Protocol>,
    /// The routers that stand for it alone, which [`super::Compiler::routers`] tells too. Empty when it is off, is a fragment
    /// of another kind, or cannot be held by any router.
    pub routers: Vec<(Section, Arc<str>)>,
    pub state: State,
    /// What is served all the same, but hardly meant so.
    pub warnings: Vec<String>,
}

/// Whether the row does what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Live,
    /// Answers 503 with its message, as the row says.
    Maintenance,
    /// Quarantined: its place answers 503. The reason names the column and the remedy.
    Closed {
        reason: String,
    },
    /// Draft or disabled.
    Off,
}

impl State {
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Live => StateKind::Live,
            Self::Maintenance => StateKind::Maintenance,
            Self::Closed { .. } => StateKind::Closed,
            Self::Off => StateKind::Off,
        }
    }
}

/// [`State`] without its reason: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    Live,
    Maintenance,
    Closed,
    Off,
}

impl StateKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Maintenance => "maintenance",
            Self::Closed => "closed",
            Self::Off => "off",
        }
    }
}

/// How many there are of what, kept up with each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routers in all, those of fragments too; what rows share counts once for each.
    pub routers: usize,
    /// Hosts for which a router of several rows asks a resolver.
    pub resolved: usize,
    /// Rows and fragments that are closed or left out.
    pub quarantined: usize,
    /// Domain rows; no entry is zero. A row whose protocol cannot be read counts as what it was closed as.
    pub routes: BTreeMap<(Protocol, StateKind), usize>,
}
