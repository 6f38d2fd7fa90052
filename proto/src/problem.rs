//! How a refusal looks on the wire: RFC 9457 `application/problem+json`.

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What was wrong, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable, for programs: `urn:charliehub:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this type, for people.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// The field of the request at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Which of several items were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub items: Vec<Item>,
}

/// An item of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RefusedItem))]
pub struct Item {
    /// Its place in the request, from 0.
    pub index: usize,
    #[serde(flatten)]
    pub problem: Problem,
}
