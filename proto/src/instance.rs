//! The Traefiks that poll us: what each was sent, what it runs, and what it did not take.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whether an instance runs what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It runs the newest config that is meant for it: read back from its API.
    Current,
    /// It was sent something newer than it runs, a moment ago.
    Behind,
    /// It does not run what it was sent, long after it should.
    Late,
    /// It did not take what it was sent, or its entry points do not speak TLS since.
    Refused,
    /// It polls, and no API is configured by which to know more.
    Unverified,
    /// Its API does not answer, or not as Traefik's does: `trouble` says what to do.
    Unknown,
    /// It has not polled for longer than it holds a poll.
    Gone,
}

/// A config, as an instance was sent it or runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigAt {
    pub digest: String,
    /// None for a digest that we did not make, or not since we started.
    pub revision: Option<i64>,
    /// When it was sent; when it was seen to run.
    pub at: Timestamp,
}

/// A row or a fragment that something is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Owner {
    pub id: Uuid,
    /// `domain`, or the kind of the fragment.
    pub kind: String,
    /// The row's host and path; the fragment's name.
    pub name: String,
}

/// A router, service or middleware that Traefik runs with an error, in Traefik's own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedRoute {
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// `router`, `service` or `middleware`.
    pub object: String,
    /// As Traefik calls it, such as `a.example.org@http`.
    pub name: String,
    /// Traefik's word: `disabled` or `warning`.
    pub status: String,
    pub errors: Vec<String>,
    /// What it was compiled from; none for what another provider told Traefik.
    pub owner: Option<Owner>,
}

/// What an instance is given in the place of a row that it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Instead {
    /// Its last version that worked there, no more open than the newest.
    Earlier,
    /// Its place answers 503.
    Closed,
    /// Nothing: a fragment without a place of its own.
    Nothing,
}

/// A row or fragment that an instance gets otherwise than the newest rows say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldBack {
    pub owner: Owner,
    pub instead: Instead,
    /// Why, with Traefik's words where it gave some.
    pub reason: String,
    /// The newest revision when that was decided.
    pub revision: i64,
    pub since: Timestamp,
}

/// A server behind a load balancer, as Traefik's health check sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerHealth {
    /// `http` or `tcp`.
    pub protocol: String,
    /// As Traefik calls it, such as `a.example.org@http`.
    pub service: String,
    pub url: String,
    pub up: bool,
    pub owner: Option<Owner>,
}

/// The part of the rows that an instance is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstancePart {
    /// What its `[[traefik]]` selects: `site=berlin tier=gold share=3/8`.
    pub selector: String,
    pub routes: usize,
    /// Of what is served to those who select this; none: there never was a route.
    pub digest: Option<String>,
    pub revision: Option<i64>,
    /// The newest revision, when it waits for an operator here.
    pub withheld: Option<i64>,
}

/// A Traefik that polls, or is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceStatus {
    pub name: String,
    pub state: InstanceState,
    /// The address of its API, where one is configured.
    pub api: Option<String>,
    /// None: it is given all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<InstancePart>,
    /// As its API says.
    pub version: Option<String>,
    pub last_poll: Option<Timestamp>,
    pub sent: Option<ConfigAt>,
    pub running: Option<ConfigAt>,
    /// How long it has been running something else than it was sent; 0 when current.
    pub lag_seconds: f64,
    /// From the commit of the revision that it acknowledged last to when it was seen to run.
    pub time_to_live_seconds: Option<f64>,
    /// Why it is refused or late, or what keeps us from knowing, with the remedy.
    pub trouble: Option<String>,
    pub refused_routes: Vec<RefusedRoute>,
    pub held_back: Vec<HeldBack>,
    pub servers: Vec<ServerHealth>,
    /// Lines of its static configuration to change.
    pub advice: Vec<String>,
}
