//! Who changes the source of truth, from where and why: what a revision will say of its transaction.
//!
//! A writer signs its transaction before it changes a row; the triggers read it from there. What `psql` writes is signed
//! by nobody and carries the database user.

use tokio_postgres::{
    GenericClient,
    types::{ToSql, Type},
};

/// The one behind a change. Free text is what somebody claims; the database user stands beside it in `revisions`.
#[derive(Clone, Debug, Default)]
pub struct Author {
    pub actor: String,
    /// The way in: `api`, `cli`, `import`, `rollback`, `discard`.
    pub source: &'static str,
    /// The client's address, where there is one.
    pub address: String,
    pub request_id: String,
    pub reason: String,
}

impl Author {
    /// Signs the open transaction of `client`. What is empty is left to the database.
    pub async fn sign(&self, client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        const SIGN: &str = "SELECT set_config('charliehub.actor', $1, true), set_config('charliehub.source', $2, true),
            set_config('charliehub.address', $3, true), set_config('charliehub.request_id', $4, true),
            set_config('charliehub.reason', $5, true)";
        let text = [self.actor.as_str(), self.source, &self.address, &self.request_id, &self.reason];
        let text = text.each_ref().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT));
        client.query_typed(SIGN, &text).await.map(drop)
    }

    /// Signs the open transaction of `client`, and takes the revision lock: nobody else writes until it ends.
    pub async fn begin(&self, client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        let lock = client.query_typed("SELECT charliehub.lock_revision()", &[]);
        tokio::try_join!(self.sign(client), lock).map(drop)
    }

    /// Writes down what changed no row of the source of truth.
    pub async fn note(
        &self,
        client: &impl GenericClient,
        kind: &str,
        detail: &serde_json::Value,
    ) -> Result<(), tokio_postgres::Error> {
        const NOTE: &str = "INSERT INTO charliehub.audit_events (actor, source, address, kind, detail)
            VALUES ($1, $2, nullif($3, ''), $4, $5)";
        let text = [self.actor.as_str(), self.source, &self.address, kind];
        let [actor, source, address, kind] = text.each_ref().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT));
        client.execute_typed(NOTE, &[actor, source, address, kind, (detail, Type::JSONB)]).await.map(drop)
    }
}

/// The revision that the open transaction of `client` has made; none when it changed nothing.
pub async fn revision_made(client: &impl GenericClient) -> Result<Option<i64>, tokio_postgres::Error> {
    const MADE: &str = "SELECT n FROM charliehub.revision WHERE xact = pg_current_xact_id_if_assigned()";
    client.query_typed(MADE, &[]).await?.first().map(|row| row.try_get(0)).transpose()
}
