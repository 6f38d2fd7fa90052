//! The agents on the edge hosts, as the provider knows them: what each found, and what changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    finding::{Finding, Status},
    report::Endpoint,
};

/// An agent, and what it found, as it said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStatus {
    pub name: String,
    /// None: it never reported; sites, a policy or a peer name it.
    pub version: Option<String>,
    pub first_seen: Option<Timestamp>,
    /// When its last report came, by the database's clock.
    pub last_report: Option<Timestamp>,
    /// When that was made, by the agent's clock: long before, when it was spooled.
    pub reported_at: Option<Timestamp>,
    /// Since its last report.
    pub age_seconds: Option<f64>,
    /// It has not reported for longer than `[agents] silent_after`.
    pub silent: bool,
    /// The worst of its findings.
    pub status: Status,
    /// The digest of what it holds reality against.
    pub expected: Option<String>,
    /// The digest of what it should hold reality against; none before the rows were read.
    pub expected_current: Option<String>,
    /// The revision that was compiled from.
    #[serde(default)]
    pub expected_revision: Option<i64>,
    /// Reports that it dropped, because its spool or disk was full.
    pub lost: i64,
    /// In the order of check and target. One of check `agent-silent` is ours.
    pub findings: Vec<Finding>,
    /// Where its sites' packets come from.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// A finding that changed its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transition {
    /// Greater ones came later.
    pub id: i64,
    pub agent: String,
    pub check: String,
    pub target: String,
    pub site: Option<String>,
    /// None: it was not known.
    pub was: Option<Status>,
    /// None: it is no target any more.
    pub now: Option<Status>,
    pub text: String,
    /// Since when, by the agent's clock.
    pub at: Timestamp,
    /// When we heard of it.
    pub received_at: Timestamp,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Received {
    /// The greatest number that came of this install.
    pub seq: u64,
    /// False: it was delivered before, and changed nothing.
    pub stored: bool,
    /// How many findings changed their status.
    pub transitions: usize,
    /// The digest of what the agent should hold reality against; none before the rows were read.
    pub expected: Option<String>,
}
