//! What an agent posts to the provider: findings of one moment, numbered so that they arrive in order and once.

use std::net::IpAddr;

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
    /// Where the sites' packets come from, now; each report says all of them. None where nothing came lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Reports that were dropped before this one, because the spool was full or its disk.
    #[serde(default)]
    pub lost: u64,
}

/// Where the packets of a site come from, as seen at the agent's end of its own tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Endpoint {
    pub site: String,
    /// The tunnel's interface on the agent's host: `wg-uk`.
    pub interface: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
}
