//! What the operators' page shows, as data: whether the edge is right, what is not, and what to do about it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    agent::AgentStatus,
    drift::InstanceDrift,
    event::Event,
    finding::{Action, Status},
    instance::{InstanceStatus, Owner, ServerHealth},
    revision::{Commit, Withheld},
    route::RouteState,
};

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Requests fail, or a change that was made does not run.
    Broken,
    /// Requests are answered, and somebody should look at it.
    Attention,
    Ok,
}

impl Health {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Attention => "attention",
            Self::Ok => "ok",
        }
    }
}

/// Whether the edge is right, in a word and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    pub state: Health,
    pub text: String,
}

/// Where something was noticed. Of what is joined, the first of these is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// The connection to the database.
    Database,
    /// A check of an agent.
    Finding,
    /// A row or fragment that does not compile.
    Quarantined,
    /// A revision that waits for an operator.
    Withheld,
    /// A row that an instance gets otherwise than it says.
    HeldBack,
    /// A router, service or middleware that a Traefik runs with an error.
    RefusedRoute,
    /// A Traefik that does not run what it was sent, or of which that is not known.
    Instance,
    /// A difference between what runs and what the rows say.
    Drift,
    /// A server that Traefik's health check finds down.
    Server,
    /// What an agent did by itself.
    Action,
}

impl SignalKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Finding => "finding",
            Self::Quarantined => "quarantined",
            Self::Withheld => "withheld",
            Self::Instance => "traefik",
            Self::HeldBack => "held back",
            Self::RefusedRoute => "refused",
            Self::Drift => "drift",
            Self::Server => "server",
            Self::Action => "action",
        }
    }
}

/// One thing that was noticed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signal {
    pub kind: SignalKind,
    pub text: String,
}

/// One outage: everything that was noticed of it, and what an operator does now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cause {
    pub state: Health,
    /// What is affected: names of rows, a Traefik, the database.
    pub subject: String,
    /// Why, in a sentence.
    pub text: String,
    /// What to do.
    pub next: String,
    /// That as a command, where there is one.
    pub command: Option<String>,
    pub since: Option<Timestamp>,
    /// The rows and fragments that are affected.
    pub owners: Vec<Owner>,
    /// What was joined into this line, the root first; at most 100.
    pub signals: Vec<Signal>,
    /// How many there are in all.
    pub joined: usize,
}

/// What an agent found, as it is kept of its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = AgentFinding))]
pub struct Finding {
    pub agent: String,
    /// `wireguard`, `firewall`, `certificate` and so on.
    pub check: String,
    /// What was checked: a tunnel, a table, a name.
    pub target: String,
    /// The site that is reached by it, where there is one.
    pub site: Option<String>,
    pub status: Status,
    /// In a sentence, as "tunnel wg-fr silent for 4 min".
    pub text: String,
    pub since: Option<Timestamp>,
    pub remedy: Option<String>,
    /// What the agent did about it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

/// The agents on the edge hosts, and what they found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agents {
    /// What is not ok, and what an agent did something about within a day.
    pub findings: Vec<Finding>,
    pub agents: Vec<AgentStatus>,
    /// In a sentence, where there are none.
    pub note: Option<String>,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServedRevision {
    pub revision: i64,
    pub digest: String,
    /// Routers in it.
    pub routes: usize,
    /// The newest revision, when it waits for an operator; what is served is older, with the newest restrictions on top.
    pub withheld: Option<i64>,
    /// Who made it, when and why; none where the database could not be asked since the start.
    pub commit: Option<Commit>,
    pub age_seconds: Option<f64>,
}

/// The connection to the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatabaseLink {
    /// What is served was read, and changes are followed.
    pub followed: bool,
    /// Time since what is served was last known to be the newest.
    pub age_seconds: f64,
    /// What is not as it should be, as `/readyz` says it.
    pub reasons: Vec<String>,
    /// What follows from the database's rows is missing here, or older, for this reason.
    pub trouble: Option<String>,
}

/// A change, and how long it took until a Traefik was seen to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastChange {
    #[serde(flatten)]
    pub commit: Commit,
    /// Rows that it changed.
    pub rows: i64,
    pub live: Vec<Live>,
}

/// From the commit of a change to where an instance was seen to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Live {
    pub instance: String,
    pub seconds: f64,
}

/// How many domain rows are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteCount {
    pub protocol: String,
    pub state: RouteState,
    pub count: usize,
}

/// A row or a fragment, as a line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteLine {
    pub id: Uuid,
    /// `domain`, or the kind of the fragment.
    pub kind: String,
    pub name: String,
    pub protocol: Option<String>,
    pub state: RouteState,
    /// Why it is closed.
    pub reason: Option<String>,
    /// Where it leads.
    pub to: String,
    /// Who gets in: the tier, and the login.
    pub access: Option<String>,
    pub site: Option<String>,
    pub owner: Option<String>,
    pub notes: Option<String>,
    pub maintenance_message: Option<String>,
    /// The servers behind it, where a Traefik checks their health.
    pub servers: Vec<ServerHealth>,
    /// Which Traefiks do not run it as it says, and why.
    pub troubles: Vec<String>,
}

/// The routes: counted, and a page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Routes {
    pub counts: Vec<RouteCount>,
    /// The text that the page is filtered by.
    pub filter: Option<String>,
    pub state: Option<RouteState>,
    /// Rows in the order of their names, then, on the last page, fragments.
    pub page: Vec<RouteLine>,
    /// `?cursor=` of the next page.
    pub next: Option<String>,
}

/// A row or fragment that does not run as it says: its place answers 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quarantined {
    pub id: Uuid,
    /// `domains` or `fragments`.
    pub table: String,
    pub name: String,
    /// The column, what is wrong, the remedy.
    pub reason: String,
}

/// All that the operators' page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Debug {
    pub at: Timestamp,
    /// The version of the provider.
    pub version: String,
    pub verdict: Verdict,
    /// One for each outage, the worst first.
    pub causes: Vec<Cause>,
    /// None where there has never been a config.
    pub revision: Option<ServedRevision>,
    pub database: DatabaseLink,
    /// The newest first.
    pub changes: Vec<LastChange>,
    /// Each with at most 100 refused and held back rows, and of its servers those that are down.
    pub instances: Vec<InstanceStatus>,
    /// None for an instance whose API is not read.
    pub drift: Vec<InstanceDrift>,
    pub routes: Routes,
    /// At most 100; `routes.counts` has their number.
    pub quarantined: Vec<Quarantined>,
    /// What waits for an operator, the oldest first, each with at most 100 differences.
    pub withheld: Vec<Withheld>,
    pub agents: Agents,
    /// The newest first.
    pub events: Vec<Event>,
}
