//! What an agent posts to the provider: findings of one moment, numbered so that they arrive in order and once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::finding::Finding;

/// The body of `POST /api/agents/{name}/report`. At most 1 MiB.
///
/// The provider keeps the greatest `seq` of each `install`: a report that is not newer was delivered before, is answered
/// with 200 and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// One spool on one disk; a new one when the agent's state directory is new.
    pub install: Uuid,
    /// From 1 on, never used twice within an install.
    pub seq: u64,
    /// When it was made, by the agent's clock.
    pub at: Timestamp,
    /// The boot of the host that it was made in.
    pub boot: Uuid,
    /// The agent's version.
    pub version: String,
    /// The digest of what the agent holds reality against; none when it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// True when `findings` are all that there are, so that a target that is not among them is gone; false when they are
    /// those that changed.
    pub complete: bool,
    pub findings: Vec<Finding>,
    /// Reports that were dropped before this one, because the spool was full or its disk.
    #[serde(default)]
    pub lost: u64,
}
