//! What runs otherwise than the rows say.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::instance::Owner;

/// How what runs differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The rows say it, and the instance does not have it.
    Missing,
    /// The instance runs it as ours, and no row says it.
    Extra,
    /// The instance runs it with other values.
    Different,
    /// A router of another provider answers in its place.
    Shadowed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drift {
    pub kind: DriftKind,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// `router`, `service` or `middleware`.
    pub object: String,
    /// As Traefik calls it, such as `a.example.org@http`.
    pub name: String,
    /// What is different, in a sentence; for `shadowed`: by which router, of which provider, and why that one wins.
    pub detail: String,
    /// The row or fragment that says how it should be.
    pub owner: Option<Owner>,
}

/// What one instance runs, held against the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceDrift {
    pub instance: String,
    /// When its API was read.
    pub at: Option<Timestamp>,
    /// Why it could not be read, with the remedy.
    pub trouble: Option<String>,
    /// Nothing on a healthy edge.
    pub differences: Vec<Drift>,
}
