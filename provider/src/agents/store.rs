//! Reports in the database: each counts once, in the order of its number, and leaves what is and what changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use charliehub_proto::{
    agent::Transition,
    finding::{Action, Finding, Status},
    report::Report,
};
use serde_json::json;
use tokio_postgres::{
    Client, GenericClient, Row, Transaction,
    types::{Json, ToSql, Type},
};

use super::{Agents, Known};

/// Installs that are remembered of each agent.
const INSTALLS: i64 = 100;

/// What became of a report.
#[derive(Debug)]
pub struct Stored {
    /// The greatest number of its install.
    pub seq: i64,
    /// False: it was delivered before, and changed nothing.
    pub new: bool,
    pub transitions: Vec<Transition>,
}

/// The findings of a report as rows.
const REPORTED: &str = r#"SELECT * FROM jsonb_to_recordset($2) AS r("check" text, target text, site text, status text, text text,
    observed text, expected text, source text, remedy text, since timestamptz, seen timestamptz, action jsonb)"#;

const TRANSITION: &str = r#"id, agent, "check", target, site, was, is_now, text, at, received_at"#;

/// Keeps what `agent` reports, if it is newer than what its install reported before.
pub async fn store(client: &mut Client, agent: &str, report: &Report) -> Result<Stored, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let seq = i64::try_from(report.seq).unwrap_or(i64::MAX);
    let first = "INSERT INTO charliehub.agents (name, reported_at, boot, version) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO NOTHING";
    let about = [
        (&agent as &(dyn ToSql + Sync), Type::TEXT),
        (&report.at, Type::TIMESTAMPTZ),
        (&report.boot, Type::UUID),
        (&report.version, Type::TEXT),
    ];
    transaction.execute_typed(first, &about).await?;
    let lock = "SELECT FROM charliehub.agents WHERE name = $1 FOR UPDATE";
    transaction.query_typed(lock, &[(&agent, Type::TEXT)]).await?;
    let newest = "SELECT seq FROM charliehub.agent_installs WHERE agent = $1 AND install = $2";
    let before = transaction.query_typed(newest, &[(&agent, Type::TEXT), (&report.install, Type::UUID)]).await?;
    if let Some(before) = before.first().map(|row| row.try_get::<_, i64>(0)).transpose()?
        && before >= seq
    {
        transaction.rollback().await?;
        return Ok(Stored { seq: before, new: false, transitions: Vec::new() });
    }
    let installed = "INSERT INTO charliehub.agent_installs (agent, install, seq) VALUES ($1, $2, $3)
                     ON CONFLICT (agent, install) DO UPDATE SET seq = excluded.seq, at = now()";
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&agent, Type::TEXT), (&report.install, Type::UUID), (&seq, Type::INT8)];
    transaction.execute_typed(installed, &parameters).await?;
    if before.is_empty() {
        let old = "DELETE FROM charliehub.agent_installs WHERE agent = $1 AND install NOT IN
                   (SELECT install FROM charliehub.agent_installs WHERE agent = $1 ORDER BY at DESC LIMIT $2)";
        transaction.execute_typed(old, &[(&agent, Type::TEXT), (&INSTALLS, Type::INT8)]).await?;
    }
    let transitions = findings(&transaction, agent, report).await?;
    let heard =
        "UPDATE charliehub.agents SET last_report = clock_timestamp(), reported_at = $2, boot = $3, version = $4,
                        expected = $5, lost = lost + $6, complete_at = CASE WHEN $7 THEN $2 ELSE complete_at END,
                        endpoints = $8
                  WHERE name = $1";
    let lost = i64::try_from(report.lost).unwrap_or(i64::MAX);
    let endpoints = json!(report.endpoints);
    let more: [(&(dyn ToSql + Sync), Type); 4] = [
        (&report.expected, Type::TEXT),
        (&lost, Type::INT8),
        (&report.complete, Type::BOOL),
        (&endpoints, Type::JSONB),
    ];
    transaction.execute_typed(heard, &about.into_iter().chain(more).collect::<Vec<_>>()).await?;
    transaction.commit().await?;
    Ok(Stored { seq, new: true, transitions })
}

/// Brings the findings up to those of the report. A target that is new and ok is nothing that happened.
async fn findings(
    transaction: &Transaction<'_>,
    agent: &str,
    report: &Report,
) -> Result<Vec<Transition>, tokio_postgres::Error> {
    let reported = json!(report.findings);
    let [agent, reported]: [(&(dyn ToSql + Sync), Type); 2] = [(&agent, Type::TEXT), (&reported, Type::JSONB)];
    let parameters = [agent, reported];
    let changed = format!(
        r#"INSERT INTO charliehub.agent_transitions (agent, "check", target, site, was, is_now, text, at)
           SELECT $1, n."check", n.target, n.site, f.status, n.status, n.text, n.since
             FROM ({REPORTED}) n
             LEFT JOIN charliehub.agent_findings f ON f.agent = $1 AND f."check" = n."check" AND f.target = n.target
            WHERE f.status IS DISTINCT FROM n.status AND (f.status IS NOT NULL OR n.status <> 'ok')
            ORDER BY n.since, n."check", n.target
           RETURNING {TRANSITION}"#
    );
    let mut found = transaction.query_typed(&changed, &parameters).await?;
    let put = format!(
        r#"INSERT INTO charliehub.agent_findings AS f
           SELECT $1, n."check", n.target, n.site, n.status, n.text, n.observed, n.expected, n.source, n.remedy, n.since, n.seen,
                  n.action
             FROM ({REPORTED}) n
           ON CONFLICT (agent, "check", target) DO UPDATE
              SET (site, status, text, observed, expected, source, remedy, since, seen, action)
                = (excluded.site, excluded.status, excluded.text, excluded.observed, excluded.expected, excluded.source,
                   excluded.remedy, excluded.since, excluded.seen, excluded.action)
            WHERE (f.site, f.status, f.text, f.observed, f.expected, f.source, f.remedy, f.since, f.action)
                  IS DISTINCT FROM (excluded.site, excluded.status, excluded.text, excluded.observed, excluded.expected,
                                    excluded.source, excluded.remedy, excluded.since, excluded.action)"#
    );
    transaction.execute_typed(&put, &parameters).await?;
    if report.complete {
        let gone = format!(
            r#"WITH gone AS (
                   DELETE FROM charliehub.agent_findings f
                    WHERE f.agent = $1 AND NOT EXISTS (SELECT FROM ({REPORTED}) n
                                                        WHERE n."check" = f."check" AND n.target = f.target)
                   RETURNING f."check", f.target, f.site, f.status, f.text)
               INSERT INTO charliehub.agent_transitions (agent, "check", target, site, was, is_now, text, at)
               SELECT $1, "check", target, site, status, NULL, text, $3 FROM gone ORDER BY "check", target
               RETURNING {TRANSITION}"#
        );
        let [agent, reported] = parameters;
        found.extend(transaction.query_typed(&gone, &[agent, reported, (&report.at, Type::TIMESTAMPTZ)]).await?);
    }
    found.iter().map(transition).collect()
}

fn transition(row: &Row) -> Result<Transition, tokio_postgres::Error> {
    Ok(Transition {
        id: row.try_get("id")?,
        agent: row.try_get("agent")?,
        check: row.try_get("check")?,
        target: row.try_get("target")?,
        site: row.try_get("site")?,
        was: row.try_get::<_, Option<&str>>("was")?.map(status),
        now: row.try_get::<_, Option<&str>>("is_now")?.map(status),
        text: row.try_get("text")?,
        at: row.try_get("at")?,
        received_at: row.try_get("received_at")?,
    })
}

/// A constraint holds the words; another one would be of a newer schema.
fn status(text: &str) -> Status {
    Status::ALL.into_iter().find(|status| status.as_str() == text).unwrap_or(Status::Unknown)
}

/// The newest transitions of `agent`, before the one of id `before`.
pub async fn transitions(
    client: &impl GenericClient,
    agent: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Transition>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT {TRANSITION} FROM charliehub.agent_transitions
          WHERE agent = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&agent, Type::TEXT), (&before, Type::INT8), (&limit, Type::INT8)];
    client.query_typed(&sql, &parameters).await?.iter().map(transition).collect()
}

impl Agents {
    /// Reads what changed since it was read last.
    pub async fn refresh(&self, client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        const AGENTS: &str = "SELECT name, version, first_seen, last_report, reported_at, expected, lost, endpoints,
                                     greatest(extract(epoch FROM clock_timestamp() - last_report), 0)::float8 AS age
                                FROM charliehub.agents";
        const FINDINGS: &str = r#"
            SELECT f.agent, f."check", f.target, f.site, f.status, f.text, f.observed, f.expected, f.source, f.remedy, f.since,
                   f.action,                   greatest(f.seen, a.complete_at) AS seen
              FROM charliehub.agent_findings f JOIN charliehub.agents a ON a.name = f.agent
             WHERE f.agent = ANY($1) ORDER BY f.agent, f."check", f.target"#;
        let _reading = self.reading.lock().await;
        let before = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        let mut known = BTreeMap::new();
        let mut changed = Vec::new();
        for row in client.query_typed(AGENTS, &[]).await? {
            let name: String = row.try_get("name")?;
            let last_report = row.try_get("last_report")?;
            let was = before.get(&name).filter(|was| was.last_report == last_report);
            let age = Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default();
            let agent = Known {
                version: row.try_get("version")?,
                first_seen: row.try_get("first_seen")?,
                last_report,
                reported_at: row.try_get("reported_at")?,
                expected: row.try_get("expected")?,
                lost: row.try_get("lost")?,
                // Of a newer build it may have another form.
                endpoints: serde_json::from_value(row.try_get("endpoints")?).unwrap_or_default(),
                heard: was.map_or_else(|| now.checked_sub(age).unwrap_or(now), |was| was.heard),
                findings: was.map(|was| Arc::clone(&was.findings)).unwrap_or_default(),
            };
            if was.is_none() {
                changed.push(name.clone());
            }
            known.insert(name, agent);
        }
        if !changed.is_empty() {
            let mut findings: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
            for row in client.query_typed(FINDINGS, &[(&changed, Type::TEXT_ARRAY)]).await? {
                findings.entry(row.try_get("agent")?).or_default().push(finding(&row)?);
            }
            for (agent, findings) in findings {
                known.entry(agent).and_modify(|known| known.findings = Arc::new(findings));
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }
}

fn finding(row: &Row) -> Result<Finding, tokio_postgres::Error> {
    Ok(Finding {
        check: row.try_get("check")?,
        target: row.try_get("target")?,
        site: row.try_get("site")?,
        status: status(row.try_get("status")?),
        text: row.try_get("text")?,
        observed: row.try_get("observed")?,
        expected: row.try_get("expected")?,
        source: row.try_get("source")?,
        remedy: row.try_get("remedy")?,
        action: row.try_get::<_, Option<Json<Action>>>("action")?.map(|Json(action)| action),
        since: row.try_get("since")?,
        seen: row.try_get("seen")?,
    })
}
