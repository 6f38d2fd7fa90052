//! What happened, as it is streamed to whoever listens.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A revision is served.
    Revision,
    /// A revision waits for an operator.
    Withheld,
    /// A row or fragment does not compile; its place is closed.
    Quarantined,
    /// An instance runs what it was sent.
    Ack,
    /// An instance did not take what it was sent.
    Refused,
    /// An instance does not run what it was sent, long after it should.
    Late,
    /// Routers, services or middlewares that an instance runs with an error, or does no more.
    RefusedRoutes,
    /// An instance is given something else in the place of a row, or the row again.
    HeldBack,
    /// An instance came, went, or its API did.
    Instance,
    /// The database was lost or found again.
    Database,
    /// A finding of an agent changed.
    Finding,
    /// Events are gone that this reader has not had: it must look at the present state instead. Every reader is told.
    Missed,
}

impl EventKind {
    pub const ALL: [Self; 12] = [
        Self::Revision,
        Self::Withheld,
        Self::Quarantined,
        Self::Ack,
        Self::Refused,
        Self::Late,
        Self::RefusedRoutes,
        Self::HeldBack,
        Self::Instance,
        Self::Database,
        Self::Finding,
        Self::Missed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revision => "revision",
            Self::Withheld => "withheld",
            Self::Quarantined => "quarantined",
            Self::Ack => "ack",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::RefusedRoutes => "refused_routes",
            Self::HeldBack => "held_back",
            Self::Instance => "instance",
            Self::Database => "database",
            Self::Finding => "finding",
            Self::Missed => "missed",
        }
    }

    /// The kind of this name, or the name that is most like it.
    pub fn named(name: &str) -> Result<Self, &'static str> {
        let nearest = Self::ALL.into_iter().min_by_key(|kind| strsim::damerau_levenshtein(name, kind.as_str()));
        match nearest {
            Some(kind) if kind.as_str() == name => Ok(kind),
            nearest => Err(nearest.map_or("", Self::as_str)),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// `<life>-<number>`: the life of the provider that it happened in, and its number there, from 1 on. That of a
    /// `missed` is the last that is gone.
    pub id: String,
    pub at: Timestamp,
    pub kind: EventKind,
    /// In a sentence, for people.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What belongs to the kind: refused routes, held back rows, and so on.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_it_is_written_and_a_slip_names_the_nearest() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(EventKind::named(kind.as_str()), Ok(kind));
        }
        assert_eq!(EventKind::named("refused_route"), Err("refused_routes"));
    }
}
