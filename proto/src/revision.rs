//! History on the wire: the revisions, what each changed, and what became of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::{Difference, Impact};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RowOp {
    Insert,
    Update,
    Delete,
}

/// What became of the config of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Traefik was given it.
    Served,
    /// It waits for an administrator.
    Withheld,
    /// It waited, and an administrator let it through.
    Approved,
    /// It waited, and an administrator or a later revision overtook it.
    Discarded,
}

/// Who made a revision, when, from where and why, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Commit {
    pub revision: i64,
    pub at: Timestamp,
    /// As the writer claimed; `db_user` cannot be claimed.
    pub actor: String,
    pub source: String,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub reason: Option<String>,
    pub db_user: String,
    pub db_address: Option<String>,
    pub application: Option<String>,
    /// None: its config is not kept, or was never compiled by itself.
    pub state: Option<SnapshotState>,
    pub digest: Option<String>,
    /// Its config is kept for ever.
    pub pinned: bool,
}

/// One committed change, as a line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revision {
    #[serde(flatten)]
    pub commit: Commit,
    /// Rows that it changed, as far as they are kept.
    pub changes: i64,
}

/// One committed change, with all that it changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changed {
    #[serde(flatten)]
    pub commit: Commit,
    pub changes: Vec<RowChange>,
    /// What it changed in the config that its rows compile to; none where the rows before it are not kept any more.
    pub routes: Option<Vec<RouteChange>>,
}

/// What is different between two revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Compared {
    pub routes: Vec<RouteChange>,
    pub rows: Vec<RowChange>,
    /// The unified difference of the configs, printed with a line for each value.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteOp {
    Added,
    Removed,
    Changed,
}

/// A router, or another object of Traefik's configuration, that is different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteChange {
    /// `http.routers` or another section of Traefik's configuration.
    pub section: String,
    /// The name of the router, or of the other object.
    pub router: String,
    pub change: RouteOp,
    /// In Traefik's own JSON.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl From<Difference> for RouteChange {
    fn from(one: Difference) -> Self {
        let change = match (&one.before, &one.after) {
            (None, _) => RouteOp::Added,
            (_, None) => RouteOp::Removed,
            (Some(_), Some(_)) => RouteOp::Changed,
        };
        Self { section: one.section, router: one.name, change, before: one.before, after: one.after }
    }
}

/// A row before and after a revision, or between two. Secrets are shown to role admin only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowChange {
    /// `domains` or `fragments`.
    pub table: String,
    /// The row's id.
    pub key: String,
    /// What people call it.
    pub name: String,
    pub op: RowOp,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// A row that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowWritten {
    pub name: String,
    pub op: RowOp,
}

/// What a rollback did, or would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolledBack {
    /// The new revision; none for a dry run, or where nothing changed.
    pub revision: Option<i64>,
    /// The revision whose rows these are.
    pub from: i64,
    pub changed: Vec<RowWritten>,
    /// Rows that are not as they were, since the newest rows are narrower.
    pub kept_narrower: Vec<String>,
    /// Who is affected, and how.
    pub impact: Impact,
    pub dry_run: bool,
}

/// What a read of everything found, beside what was held already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deployed {
    /// The revision that was read.
    pub revision: i64,
    /// Of the config that is served; none where there never was one.
    pub digest: Option<String>,
    pub differed: Differed,
    pub took_ms: u64,
}

/// What was not held as the database has it. Normally nothing: what is committed is read at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Differed {
    pub rows: usize,
    /// The objects of Traefik's configuration that are served differently now, as `http.routers/a.example.org`.
    pub routes: Vec<String>,
}

/// What was decided about a withheld revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decided {
    pub revision: i64,
    pub state: SnapshotState,
}

/// Whether the config and the rows of a revision are kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pinned {
    pub revision: i64,
    pub pinned: bool,
}

/// A change that waits for an administrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Withheld {
    pub revision: i64,
    /// Where it waits, as a selector; none: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    pub at: Timestamp,
    /// What held it back: `guard:empty`, `guard:shrink` and so on.
    pub held_by: String,
    pub actor: Option<String>,
    pub source: Option<String>,
    /// Why it was made, in its author's words.
    pub reason: Option<String>,
    pub routes: i32,
    pub quarantined: i32,
    /// What Traefik would get that is different from what runs.
    pub diff: Vec<RouteChange>,
}
