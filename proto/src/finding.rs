//! What an agent's check says of one target: how it stands, what was seen, what was expected, and what mends it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a target stands. In the order of weight: what is known to be broken outweighs what could not be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = FindingStatus))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Ok,
    /// It could not be looked at: no permission, a time-out, a clock that is not trusted. Never ok, never critical.
    Unknown,
    Warning,
    Critical,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Critical, Self::Unknown];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// 0 ok, 1 warning, 2 critical, 3 unknown: the exit code of `check` and the value of the metric, as monitoring
    /// plug-ins have them.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a check found of a target, after a single lost probe was told from an outage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// `wg-peer`, `firewall-required`, `certificate` and so on: `explain CHECK` tells what it is.
    pub check: String,
    /// What was checked: a tunnel, a table, a name, a file.
    pub target: String,
    /// The site that is reached by it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    pub status: Status,
    /// In a sentence, as "tunnel wg-fr silent for 4 min".
    pub text: String,
    /// What was seen; none where the text says it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// What should have been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Where it was seen: a socket, a program, a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What mends it: a command where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What was done about it by itself, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Since when it has this status.
    pub since: Timestamp,
    /// When it was looked at last.
    pub seen: Timestamp,
}

/// What an agent did by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Action {
    /// When it began.
    pub at: Timestamp,
    /// Why and what, as "wg-fr is absent: wg-quick@wg-fr.service is restarted".
    pub what: String,
    pub outcome: Outcome,
    /// What was seen of it, or why it was not done.
    pub result: String,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ActionOutcome))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// Undone, or never begun.
    Failed,
    /// It was only told.
    DryRun,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::DryRun => "dry run",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what, outcome, result } = self;
        write!(f, "{}: {what}; {}: {result}", at.strftime("%FT%TZ"), outcome.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_outweighs_what_could_not_be_looked_at() {
        assert!(
            Status::Critical > Status::Warning && Status::Warning > Status::Unknown && Status::Unknown > Status::Ok
        );
        assert_eq!(Status::ALL.map(Status::code), [0, 1, 2, 3]);
    }
}
