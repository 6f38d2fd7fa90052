//! Who did what, when and from where, and whether that is still what was written down.
//!
//! Two chains in the database: `audit_events`, of what changes no row (tokens, decisions, refusals), and `revisions` with
//! `history`, of each change of a row, whoever made it. The database chains both as they are written; [`broken`] asks it
//! what does not fit any more. [`list`] merges them into one order of time, [`refusals`] writes down who was turned away.

pub mod list;
pub mod refusals;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::{
    GenericClient,
    types::{Json, Type},
};

/// A row of `audit_events`. Written last in its transaction: it holds the lock of the chain to the end of it.
#[derive(Debug)]
pub struct Event<'e> {
    pub actor: &'e str,
    pub source: &'e str,
    pub address: Option<String>,
    pub kind: &'e str,
    pub detail: Value,
}

impl Event<'_> {
    pub async fn write(&self, client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO audit_events (actor, source, address, kind, detail) VALUES ($1, $2, $3, $4, $5)";
        let (actor, source, kind) = (self.actor, self.source, self.kind);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
            (&actor, Type::TEXT),
            (&source, Type::TEXT),
            (&self.address, Type::TEXT),
            (&kind, Type::TEXT),
            (&Json(&self.detail), Type::JSONB),
        ];
        client.query_typed(sql, &parameters).await.map(drop)
    }
}

/// The first place at which a chain is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// `audit_events`, `revisions` or `history`.
    pub chain: String,
    /// The id of the event, or the revision.
    pub place: i64,
    pub why: String,
}

/// Where the chains end: kept elsewhere, it shows later that nobody wrote them anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub event: i64,
    pub event_hash: String,
    pub revision: i64,
    pub revision_hash: String,
}

/// Reads all that is kept and names what was changed, removed or moved: the first place of each chain.
pub async fn broken(client: &impl GenericClient) -> Result<Vec<Broken>, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT chain, place, why FROM audit_breaks()", &[]).await?;
    rows.iter().map(|row| Ok(Broken { chain: row.try_get(0)?, place: row.try_get(1)?, why: row.try_get(2)? })).collect()
}

pub async fn ends(client: &impl GenericClient) -> Result<Ends, tokio_postgres::Error> {
    let sql = "SELECT coalesce(h.id, 0), coalesce(encode(h.hash, 'hex'), ''),
                      coalesce(s.revision, 0), coalesce(encode(s.hash, 'hex'), '')
                 FROM (SELECT) one LEFT JOIN audit_head h ON true
                 LEFT JOIN (SELECT * FROM seals ORDER BY revision DESC LIMIT 1) s ON true";
    let row = client.query_one(sql, &[]).await?;
    Ok(Ends {
        event: row.try_get(0)?,
        event_hash: row.try_get(1)?,
        revision: row.try_get(2)?,
        revision_hash: row.try_get(3)?,
    })
}

#[cfg(test)]
mod tests;
