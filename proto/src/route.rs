//! What the rows and fragments compile to, and whom that lets in.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{AccessTier, Protocol};

/// Whether a row does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    Live,
    /// Answers 503 with its message, as the row says.
    Maintenance,
    /// It cannot be what it says, so its place answers 503.
    Closed,
    /// Draft or disabled.
    Off,
}

/// A row or a fragment, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompiledRoute {
    pub id: Uuid,
    /// `domain`, or the kind of the fragment.
    pub kind: String,
    /// The row's host and path; the fragment's name.
    pub name: String,
    /// `http`, `tcp` or `udp`; none for TLS.
    pub protocol: Option<String>,
    /// Its routers in Traefik.
    pub routers: Vec<String>,
    pub state: RouteState,
    /// Why it is closed: the field, what is wrong, the remedy.
    pub reason: Option<String>,
    /// What is served all the same, but hardly meant so.
    pub warnings: Vec<String>,
}

/// How far a name is reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SurfaceReach {
    Internet,
    /// From some networks.
    Networks,
    Nobody,
}

/// A name that is served, and who reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Surface {
    /// That of the router: host and path of a row.
    pub name: String,
    pub protocol: Protocol,
    pub reach: SurfaceReach,
    /// A login is asked for before the backend is reached.
    pub login: bool,
    /// None for a fragment.
    pub tier: Option<AccessTier>,
    /// With reach `networks`: which.
    pub networks: Vec<String>,
    /// The row that answers there.
    pub row: Option<Uuid>,
    /// The fragment that is the router.
    pub fragment: Option<Uuid>,
}
