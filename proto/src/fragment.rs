//! A named piece of raw Traefik configuration that a domain row cannot express.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row of `charliehub.fragments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fragment {
    pub id: Uuid,
    /// `http.middleware`, `tls.option` and so on: the section of Traefik's configuration that it belongs to.
    pub kind: String,
    /// Unique within its kind, used in Traefik as written.
    pub name: String,
    /// That one object, in Traefik's own JSON.
    pub body: serde_json::Value,
    pub enabled: bool,
    pub notes: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The revision that last changed the row.
    pub version: i64,
}
