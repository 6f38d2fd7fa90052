//! What an instance did with what it was given, from who watches it to who decides what it is given next.

use std::sync::Arc;

/// An object that an instance runs with an error, or does not run for one, in Traefik's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulty {
    /// `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// `routers`, `services` or `middlewares`.
    pub kind: &'static str,
    /// With its provider: `a.example.org@http`.
    pub name: String,
    pub status: String,
    pub errors: Vec<String>,
}

/// A server of a load balancer with health checks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    pub protocol: &'static str,
    /// With its provider.
    pub service: String,
    pub url: String,
    pub up: bool,
}

/// What everything that an instance runs comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub faulty: Vec<Faulty>,
    pub servers: Vec<Server>,
    /// Of the names that other providers gave it: what is missing there may be there again when it changes.
    pub others: u64,
}

/// What was heard of an instance.
#[derive(Clone, Debug)]
pub struct Heard {
    pub instance: Arc<str>,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// It runs this digest, and all that it runs was read.
    Runs { digest: Arc<str>, found: Found },
    /// It did not take the config of this digest, as far as can be told why.
    Refuses { digest: Arc<str>, reason: String },
    /// Its version, as its API says.
    Version(String),
    /// An operator wants it to be given everything again.
    Again,
}
