//! What happened, as it is streamed to whoever listens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A revision is served.
    Revision,
    /// A revision waits for an operator.
    Withheld,
    /// A row or fragment does not compile; its place is closed.
    Quarantined,
    /// An instance runs what it was sent.
    Ack,
    /// An instance did not take what it was sent.
    Refused,
    /// An instance does not run what it was sent, long after it should.
    Late,
    /// Routers, services or middlewares that an instance runs with an error, or does no more.
    RefusedRoutes,
    /// An instance is given something else in the place of a row, or the row again.
    HeldBack,
    /// An instance came, went, or its API did.
    Instance,
    /// The database was lost or found again.
    Database,
    /// A finding of an agent changed.
    Finding,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// In the order of what happened, within one life of the provider.
    pub id: u64,
    pub at: Timestamp,
    pub kind: EventKind,
    /// In a sentence, for people.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What belongs to the kind: refused routes, held back rows, and so on.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}
