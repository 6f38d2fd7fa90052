//! `token`: who may call us. The text of a token is printed once, alone on stdout; the database has its hash.

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::{database, output};
use crate::{
    auth::{self, Role},
    config::{Config, duration},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, once
    ///
    /// Example: charliehub-provider token create --role traefik hub2
    Create {
        /// What it may do: traefik, agent, reader, editor or admin
        #[arg(long)]
        role: Role,
        /// The one agent or instance that it may speak for (needed for role agent)
        #[arg(long, required_if_eq("role", "agent"))]
        subject: Option<String>,
        /// How long it lives, such as 90d; for ever when left out
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        expires: Option<SignedDuration>,
        /// Whose it is; its role when left out
        name: Option<String>,
        /// The same as NAME
        #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
        named: Option<String>,
    },
    /// List the tokens; their text is not kept
    List,
    /// Revoke a token, within a second
    Revoke {
        /// Its id or its name
        token: String,
    },
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    duration(text)
        .and_then(|duration| SignedDuration::try_from(duration).ok())
        .ok_or_else(|| "write a whole number and s, m, h or d, such as 90d".to_owned())
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    database::with(config, async |opened| {
        opened
            .run(async |client| match command {
                Command::Create { role, subject, expires, name, named } => {
                    let name = name.or(named).unwrap_or_else(|| role.to_string());
                    create(client, &name, role, subject.as_deref(), expires).await
                }
                Command::List => list(client).await,
                Command::Revoke { token } => revoke(client, &token).await,
            })
            .await
    })
    .await
}

async fn create(
    client: &mut Client,
    name: &str,
    role: Role,
    subject: Option<&str>,
    expires: Option<SignedDuration>,
) -> anyhow::Result<()> {
    let expires_at = match expires {
        Some(lifetime) => Some(Timestamp::now().checked_add(lifetime)?),
        None => None,
    };
    let transaction = client.transaction().await.map_err(database::explain)?;
    let made = auth::make(&transaction, name, role, subject, expires_at).await.map_err(|error| {
        if error.as_db_error().is_some_and(|db| db.constraint() == Some("tokens_name_valid")) {
            return anyhow::anyhow!(
                "a name is plain text of at most 200 bytes, without back-ticks and control characters"
            );
        }
        database::explain(error)
    })?;
    let detail = json!({ "id": made.id, "name": name, "role": role, "subject": subject });
    audit(&transaction, "token.create", detail).await?;
    transaction.commit().await.map_err(database::explain)?;
    output::hint(&format!("token {} ({role}) for {name}; it is shown this once", made.id));
    Ok(output::print(&format!("{}\n", made.text))?)
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let sql = "SELECT id::text, name, role, coalesce(subject, '-'), to_char(created_at, 'YYYY-MM-DD'),
                      coalesce(to_char(last_used_at, 'YYYY-MM-DD HH24:MI'), 'never'),
                      CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired'
                           WHEN expires_at IS NOT NULL THEN 'until ' || to_char(expires_at, 'YYYY-MM-DD HH24:MI')
                           ELSE 'living' END
                 FROM tokens ORDER BY revoked_at IS NOT NULL, name, created_at";
    let rows = client.query(sql, &[]).await.map_err(database::explain)?;
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| (0..7).map(|at| row.try_get(at).unwrap_or_default()).collect()).collect();
    let header = ["ID", "NAME", "ROLE", "SUBJECT", "CREATED", "LAST USED", "STATE"];
    Ok(output::print(&output::table(&header, &rows))?)
}

pub(super) async fn revoke(client: &mut Client, token: &str) -> anyhow::Result<()> {
    let transaction = client.transaction().await.map_err(database::explain)?;
    let sql = "SELECT id, name, role FROM tokens WHERE revoked_at IS NULL AND (id::text = $1 OR name = $1) FOR UPDATE";
    let found = transaction.query(sql, &[&token]).await.map_err(database::explain)?;
    let row = match found.as_slice() {
        [row] => row,
        [] => anyhow::bail!("no living token has id or name `{token}`; see: charliehub-provider token list"),
        several => {
            let ids: Vec<String> =
                several.iter().filter_map(|row| row.try_get::<_, Uuid>(0).ok()).map(|id| id.to_string()).collect();
            anyhow::bail!("{} living tokens are named `{token}`; revoke one by its id: {}", ids.len(), ids.join(", "));
        }
    };
    let (id, name, role): (Uuid, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    transaction
        .execute("UPDATE tokens SET revoked_at = now() WHERE id = $1", &[&id])
        .await
        .map_err(database::explain)?;
    audit(&transaction, "token.revoke", json!({ "id": id, "name": name, "role": role })).await?;
    transaction.commit().await.map_err(database::explain)?;
    Ok(output::print(&format!("revoked {id} ({role}) of {name}\n"))?)
}

/// Writes down what changed no row of the source of truth.
pub(super) async fn audit(client: &impl GenericClient, kind: &str, detail: serde_json::Value) -> anyhow::Result<()> {
    let sql = "INSERT INTO audit_events (actor, source, kind, detail) VALUES ($1, 'cli', $2, $3)";
    client.execute(sql, &[&database::actor(), &kind, &detail]).await.map_err(database::explain)?;
    Ok(())
}
