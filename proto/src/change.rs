//! What a write did, or would do: the part of every answer to a write that is not the row itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    domain::Domain, fragment::Fragment, instance::InstanceState, peer::PeerRow, policy::PolicyRow, site::SiteRow,
};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Traefik is given it from now on.
    Served,
    /// It waits for an administrator; what ran before goes on, with every new restriction on top.
    Withheld,
    /// Committed, and not swapped in before the answer had to be sent.
    Pending,
    /// The rows were like this already: there is no new revision.
    Unchanged,
    /// Nothing was written: this is what would happen.
    DryRun,
}

/// What one Traefik did with a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceAck {
    pub name: String,
    /// It runs the change: read back from its API.
    pub live: bool,
    /// Where it is not live: as far as is known.
    pub state: InstanceState,
    /// Why it is not, or why that cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a write did, or would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    pub state: ChangeState,
    /// The revision that the write made; none for a dry run, or where nothing changed.
    pub revision: Option<i64>,
    /// Of the config that is served with it.
    pub digest: Option<String>,
    /// Who is affected, and how.
    pub impact: Impact,
    /// What is different in the config that Traefik gets, by name.
    pub diff: Vec<Difference>,
    /// What is right, but perhaps not meant.
    pub warnings: Vec<String>,
    /// With `wait=live`: what each Traefik that polls did with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceAck>,
    /// What a throw-away Traefik said of it, where one was asked: the answer of `POST /api/rehearse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Value>,
}

/// The answer to a write of a row: as it is now (as it was, where it is gone), and what that did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenDomain {
    #[serde(flatten)]
    pub domain: Domain,
    pub change: Change,
}

/// The answer to a write of a fragment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenFragment {
    #[serde(flatten)]
    pub fragment: Fragment,
    pub change: Change,
}

/// The answer to a write of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenSite {
    #[serde(flatten)]
    pub site: SiteRow,
    pub change: Change,
}

/// The answer to a write of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenPeer {
    #[serde(flatten)]
    pub peer: PeerRow,
    pub change: Change,
}

/// The answer to a write of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenPolicy {
    #[serde(flatten)]
    pub policy: PolicyRow,
    pub change: Change,
}

/// The answer to a batch: the row of each item, in their order, and what all of them did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenBatch {
    pub items: Vec<Domain>,
    pub change: Change,
}

/// The blast radius, as names of places: a host and its path; tcp: host, `-` and entry point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Impact {
    /// Answered by a backend until now, and not any more.
    pub off: Vec<String>,
    /// Answered by a backend from now on.
    pub on: Vec<String>,
    /// Answered by another backend.
    pub backend: Vec<String>,
    /// Reachable from the internet from now on.
    pub exposed: Vec<String>,
    /// Those of them that were kept from it by their tier until now.
    pub opened: Vec<String>,
    /// Not reachable from the internet, and from more networks than before.
    pub widened: Vec<String>,
    /// No login is asked for any more.
    pub login_lost: Vec<String>,
    /// Rows and fragments that do not compile any more: their places answer 503.
    pub closed: Vec<String>,
}

impl Impact {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One object of Traefik's configuration that is different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// Its section: `http.routers`.
    pub section: String,
    pub name: String,
    /// In Traefik's own JSON; none when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// None when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}
