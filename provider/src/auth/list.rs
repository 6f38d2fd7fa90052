//! Tokens as an administrator sees them: everything but their text, which nobody has.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, types::Json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Scope;

/// A row of `tokens`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct Listed {
    pub id: Uuid,
    pub name: String,
    /// As text: a newer build may have made one that we do not know.
    pub role: String,
    pub subject: Option<String>,
    pub scope: Scope,
    pub state: State,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenState)]
pub enum State {
    Living,
    Expired,
    Revoked,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// All tokens, the revoked ones last.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Listed>, tokio_postgres::Error> {
    let sql = "SELECT id, name, role, subject, scope, created_at, created_by, expires_at, revoked_at, last_used_at,
                      expires_at <= now() AS expired
                 FROM tokens ORDER BY revoked_at IS NOT NULL, name, created_at, id";
    let rows = client.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let (revoked_at, expired) = (row.try_get("revoked_at")?, row.try_get::<_, Option<bool>>("expired")?);
            let state = match (&revoked_at, expired) {
                (Some(Timestamp { .. }), _) => State::Revoked,
                (None, Some(true)) => State::Expired,
                (None, _) => State::Living,
            };
            let Json(scope) = row.try_get("scope")?;
            Ok(Listed {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                role: row.try_get("role")?,
                subject: row.try_get("subject")?,
                scope,
                state,
                created_at: row.try_get("created_at")?,
                created_by: row.try_get("created_by")?,
                expires_at: row.try_get("expires_at")?,
                revoked_at,
                last_used_at: row.try_get("last_used_at")?,
            })
        })
        .collect()
}
