//! `token`: who may call us. The text of a token is printed once, alone on stdout; the database has its hash.

use charliehub_proto::duration;
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::{database, output};
use crate::{
    audit::Event,
    auth::{self, Listed, New, Role, Scope, State},
    config::Config,
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
        /// Only names such as a.example.org, or all below *.example.org; may be given several times
        #[arg(long, value_name = "NAME")]
        scope_domain: Vec<String>,
        /// Only rows of this owner; may be given several times
        #[arg(long, value_name = "OWNER")]
        scope_owner: Vec<String>,
        /// Only rows of this site; may be given several times
        #[arg(long, value_name = "SITE")]
        scope_site: Vec<String>,
        /// Whose it is; its role when left out
        name: Option<String>,
        /// The same as NAME
        #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
        named: Option<String>,
    },
    /// List the tokens; their text is not kept
    List {
        /// For programs: as GET /api/tokens
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token, within a second
    Revoke {
        /// Its id or its name
        token: String,
    },
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    duration::parse(text)
        .and_then(|duration| SignedDuration::try_from(duration).ok())
        .ok_or_else(|| "write a whole number and s, m, h or d, such as 90d".to_owned())
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    database::with(config, async |opened| {
        opened
            .run(async |client| match command {
                Command::Create { role, subject, expires, scope_domain, scope_owner, scope_site, name, named } => {
                    let name = name.or(named).unwrap_or_else(|| role.to_string());
                    let scope = Scope { domains: scope_domain, owners: scope_owner, sites: scope_site };
                    let expires_at = expires.map(|lifetime| Timestamp::now().checked_add(lifetime)).transpose()?;
                    create(client, &New { name: &name, role, subject: subject.as_deref(), expires_at, scope: &scope })
                        .await
                }
                Command::List { json } => list(client, json).await,
                Command::Revoke { token } => revoke(client, &token).await,
            })
            .await
    })
    .await
}

async fn create(client: &mut Client, new: &New<'_>) -> anyhow::Result<()> {
    let transaction = client.transaction().await.map_err(database::explain)?;
    let made = auth::make_new(&transaction, new).await.map_err(|error| match auth::broken_rule(&error) {
        Some(broken) => anyhow::anyhow!("{}; {}", broken.rule, broken.remedy),
        None => database::explain(error),
    })?;
    audit(&transaction, "token.create", new.detail(made.id)).await?;
    transaction.commit().await.map_err(database::explain)?;
    output::hint(&format!("token {} ({}) for {}; it is shown this once", made.id, new.role, new.name));
    Ok(output::print(&format!("{}\n", made.text))?)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let tokens = auth::list(client).await.map_err(database::explain)?;
    if json {
        return Ok(output::print(&(serde_json::to_string_pretty(&tokens)? + "\n"))?);
    }
    let rows: Vec<Vec<String>> = tokens.iter().map(shown).collect();
    let header = ["ID", "NAME", "ROLE", "SUBJECT", "SCOPE", "CREATED", "LAST USED", "STATE"];
    Ok(output::print(&output::table(&header, &rows))?)
}

fn shown(token: &Listed) -> Vec<String> {
    let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    let state = match (token.state, token.expires_at) {
        (State::Living, Some(at)) => format!("until {}", minute(at)),
        (state, _) => state.as_str().to_owned(),
    };
    vec![
        token.id.to_string(),
        token.name.clone(),
        token.role.clone(),
        token.subject.clone().unwrap_or_else(|| "-".to_owned()),
        if token.scope.is_everything() { "-".to_owned() } else { token.scope.to_string() },
        token.created_at.strftime("%Y-%m-%d").to_string(),
        token.last_used_at.map_or_else(|| "never".to_owned(), minute),
        state,
    ]
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
    auth::revoke(&transaction, id).await.map_err(database::explain)?;
    audit(&transaction, "token.revoke", json!({ "id": id, "name": name, "role": role })).await?;
    transaction.commit().await.map_err(database::explain)?;
    Ok(output::print(&format!("revoked {id} ({role}) of {name}\n"))?)
}

/// Writes down what changed no row of the source of truth.
pub(super) async fn audit(client: &impl GenericClient, kind: &str, detail: serde_json::Value) -> anyhow::Result<()> {
    let event = Event { actor: &database::actor(), source: "cli", address: None, kind, detail };
    event.write(client).await.map_err(database::explain)
}
