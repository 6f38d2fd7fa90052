//! The rotation of a tunnel's key, as both ends tell each other through the provider: one offers a new public key and decides,
//! the other follows. Private keys never leave their host.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row of `charliehub.rotations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotation {
    pub id: Uuid,
    /// Whose key it is, and who decides.
    pub agent: String,
    /// The site at the other end, as the row of `agent` calls it.
    pub site: String,
    /// On the host of `agent`.
    pub interface: String,
    /// Public keys, as `wg show` writes them.
    pub old_key: String,
    pub new_key: String,
    pub phase: Phase,
    /// The agent at the other end: one of whose sites has a tunnel to the old key. None: there is no agent.
    pub follower: Option<String>,
    /// Why it was undone.
    pub why: Option<String>,
    pub begun_at: Timestamp,
    pub changed_at: Timestamp,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There is a new key. Nothing is changed.
    Offered,
    /// The follower can exchange the old one for it.
    Ready,
    /// It is to be exchanged now.
    Switching,
    /// The follower does that, after it said this.
    Going,
    /// The new key works, and stays: the rows have it.
    Committed,
    /// The old key stays.
    Undone,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Offered, Self::Ready, Self::Switching, Self::Going, Self::Committed, Self::Undone];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Ready => "ready",
            Self::Switching => "switching",
            Self::Going => "going",
            Self::Committed => "committed",
            Self::Undone => "undone",
        }
    }

    /// Nothing comes after it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Committed | Self::Undone)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer of `GET /api/agents/{name}/rotations`: those that go on and that an agent follows, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Followed {
    pub rotations: Vec<Rotation>,
}

/// The body of `PUT /api/agents/{name}/rotations/{id}`: what one of both says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub phase: Phase,
    /// What it is about, where it is `offered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Where it is `undone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A new key for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub site: String,
    pub interface: String,
    pub old_key: String,
    pub new_key: String,
}
