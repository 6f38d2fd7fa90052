//! What the database has for us: names and sites, what was changed when, and whether an operator stopped us.

use std::time::Duration;

use charliehub_proto::report::Endpoint;
use serde_json::Value;
use tokio_postgres::{GenericClient, Transaction, types::Type};

use super::names::{Site, Wish};

/// Of the provider that acts; held for one change.
const LOCK: &str = "charliehub ddns";

const WISHES: &str = "
    SELECT domain AS name, site FROM charliehub.domains WHERE dns_mode = 'ddns' AND status IN ('active', 'maintenance')
     UNION SELECT wan_name, name FROM charliehub.sites WHERE wan_name IS NOT NULL
     ORDER BY 1, 2";

/// Of each name and type the newest change of a day, and whether its end was written down.
const CHANGES: &str = "
    SELECT c.id, c.detail, greatest(extract(epoch FROM clock_timestamp() - c.at), 0)::float8 AS age,
           EXISTS (SELECT FROM charliehub.audit_events e
                    WHERE e.kind LIKE 'ddns.%' AND e.id > c.id AND e.kind IN ('ddns.changed', 'ddns.failed')
                      AND (e.detail ->> 'change')::bigint = c.id) AS has_ended
      FROM (SELECT DISTINCT ON (detail ->> 'name', detail ->> 'type') id, detail, at FROM charliehub.audit_events
             WHERE kind LIKE 'ddns.%' AND kind = 'ddns.change' AND at > clock_timestamp() - interval '1 day'
             ORDER BY detail ->> 'name', detail ->> 'type', id DESC) c";

const HOLD: &str = "
    SELECT kind, actor, detail ->> 'reason' AS reason FROM charliehub.audit_events
     WHERE kind LIKE 'ddns.%' AND kind IN ('ddns.hold', 'ddns.release') ORDER BY id DESC LIMIT 1";

/// All names that want to follow a site.
pub(super) async fn wishes(client: &impl GenericClient) -> Result<Vec<Wish>, tokio_postgres::Error> {
    let rows = client.query_typed(WISHES, &[]).await?;
    rows.iter().map(|row| Ok(Wish { name: row.try_get("name")?, site: row.try_get("site")? })).collect()
}

pub(super) async fn sites(client: &impl GenericClient) -> Result<Vec<Site>, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT name, agent, tunnels FROM charliehub.sites ORDER BY name", &[]).await?;
    let site = |row: &tokio_postgres::Row| {
        // A tunnel that this build cannot read tells no address.
        let tunnels = serde_json::from_value(row.try_get("tunnels")?).unwrap_or_default();
        Ok(Site { name: row.try_get("name")?, agent: row.try_get("agent")?, tunnels })
    };
    rows.iter().map(site).collect()
}

/// Where the sites' packets come from, as agents said that reported within `silent_after`: for who has no provider at hand.
pub(super) async fn endpoints(
    client: &impl GenericClient,
    silent_after: Duration,
) -> Result<Vec<(String, Endpoint)>, tokio_postgres::Error> {
    let sql = "SELECT name, endpoints FROM charliehub.agents
                WHERE last_report > clock_timestamp() - make_interval(secs => $1)";
    let rows = client.query_typed(sql, &[(&silent_after.as_secs_f64(), Type::FLOAT8)]).await?;
    let mut all = Vec::new();
    for row in rows {
        let name: String = row.try_get("name")?;
        let endpoints: Vec<Endpoint> = serde_json::from_value(row.try_get("endpoints")?).unwrap_or_default();
        all.extend(endpoints.into_iter().map(|endpoint| (name.clone(), endpoint)));
    }
    Ok(all)
}

/// A change that somebody began.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub id: i64,
    pub name: String,
    pub family: String,
    pub new: String,
    pub age: Duration,
    pub has_ended: bool,
}

pub(super) async fn changes(client: &impl GenericClient) -> Result<Vec<Begun>, tokio_postgres::Error> {
    let begun = |row: &tokio_postgres::Row| {
        let detail: Value = row.try_get("detail")?;
        let text = |key: &str| detail.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Begun {
            id: row.try_get("id")?,
            name: text("name"),
            family: text("type"),
            new: text("new"),
            age: Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default(),
            has_ended: row.try_get("has_ended")?,
        })
    };
    client.query_typed(CHANGES, &[]).await?.iter().map(begun).collect()
}

/// Who stopped us, and why.
pub(super) async fn hold(client: &impl GenericClient) -> Result<Option<(String, String)>, tokio_postgres::Error> {
    let rows = client.query_typed(HOLD, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let is_hold = row.try_get::<_, &str>("kind")? == "ddns.hold";
    let reason: Option<String> = row.try_get("reason")?;
    Ok(if is_hold { Some((row.try_get("actor")?, reason.unwrap_or_default())) } else { None })
}

/// True when nobody else acts, until the transaction ends: also where sessions are pooled, or their client is killed.
pub(super) async fn lock(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    // The change and its read-back take longer than a transaction may rest.
    transaction.batch_execute("SET LOCAL idle_in_transaction_session_timeout = '2min'").await?;
    let sql = "SELECT pg_try_advisory_xact_lock(hashtext($1))";
    transaction.query_typed(sql, &[(&LOCK, Type::TEXT)]).await?.first().map_or(Ok(false), |row| row.try_get(0))
}

/// Writes down what begins or ends; the number of the event.
pub(super) async fn note(
    client: &impl GenericClient,
    kind: &str,
    detail: &Value,
) -> Result<i64, tokio_postgres::Error> {
    let sql = "INSERT INTO charliehub.audit_events (actor, source, kind, detail)
               VALUES ('charliehub-provider', 'ddns', $1, $2) RETURNING id";
    let rows = client.query_typed(sql, &[(&kind, Type::TEXT), (detail, Type::JSONB)]).await?;
    rows.first().map_or(Ok(0), |row| row.try_get(0))
}
