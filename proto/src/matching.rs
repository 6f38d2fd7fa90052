//! Which router answers a request, whom that lets in, and which others would have taken it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was asked, and what Traefik would do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Matched {
    pub request: MatchedRequest,
    /// None where no router takes the request: Traefik answers 404, or closes the connection.
    pub answer: Option<Answering>,
    /// Routers that would take it too, in the order in which Traefik would try them.
    pub also: Vec<AlsoMatching>,
}

/// The request as Traefik's rules see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchedRequest {
    pub url: String,
    /// None for tcp without `entry_point`: all of them.
    pub entry_point: Option<String>,
    pub host: String,
    /// Once Traefik has resolved `.`, `..`, `//` and `%XX`.
    pub path: String,
    pub method: String,
    pub client_ip: Option<String>,
}

/// The router that answers, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answering {
    pub router: String,
    pub rule: String,
    pub priority: i64,
    /// Empty: it stands on all of them.
    pub entry_points: Vec<String>,
    pub service: String,
    /// The row that the router stands for.
    pub row: Option<MatchedRow>,
    /// The fragment that it is.
    pub fragment: Option<MatchedFragment>,
    /// In their order, those of a chain each by itself.
    pub middlewares: Vec<Judged>,
    pub outcome: MatchOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchedRow {
    pub id: Uuid,
    pub domain: String,
    pub path_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchedFragment {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlsoMatching {
    pub router: String,
    pub priority: i64,
}

/// A middleware, and what it says to the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Judged {
    pub name: String,
    /// As Traefik calls it: `ipAllowList`. None where it is not in our configuration.
    pub kind: Option<String>,
    /// None where that cannot be told, or it lets everybody pass.
    pub verdict: Option<MiddlewareVerdict>,
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MiddlewareVerdict {
    Refuses,
    Passes,
    /// Somebody else decides, or the client's password.
    Asks,
}

/// What the client gets, as far as the configuration decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MatchOutcome {
    /// What the service answers.
    Routed,
    /// A list of addresses does not have the client's.
    Refused,
    /// The service has no server: 503.
    Closed,
    Maintenance,
    Redirect,
}

impl MatchOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Maintenance => "maintenance",
            Self::Redirect => "redirect",
        }
    }
}
