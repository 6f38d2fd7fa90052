//! `withheld`, `approve`, `discard`: a person decides about a change that the guard did not let through.

use tokio_postgres::Client;

use super::{database, output};
use crate::{
    config::{Config, Selector},
    decide::{Decision, decide},
};

/// Lists what waits.
pub(super) async fn withheld(config: &Config) -> anyhow::Result<()> {
    let rows = database::with(config, async |opened| opened.run(async |client| waiting(client).await).await).await?;
    if rows.is_empty() {
        output::hint("nothing waits for a decision");
        return Ok(());
    }
    let header = ["REVISION", "WHEN", "HELD BACK BY", "ROUTES", "QUARANTINED", "CHANGED BY", "THEIR REASON"];
    output::print(&output::table(&header, &rows))?;
    output::hint("decide with: charliehub-provider approve REVISION, or: discard REVISION");
    Ok(())
}

async fn waiting(client: &Client) -> anyhow::Result<Vec<Vec<String>>> {
    let sql = "SELECT s.revision::text, to_char(s.created_at, 'YYYY-MM-DD HH24:MI:SS'), s.reason, s.routes::text,
                      s.quarantined::text, coalesce(r.actor || ' (' || r.source || ')', '-'), coalesce(r.reason, '-'), s.part
                 FROM snapshots s LEFT JOIN revisions r ON r.revision = s.revision AND r.token = s.token
                WHERE s.state = 'withheld' ORDER BY s.id";
    let rows = client.query(sql, &[]).await.map_err(database::explain)?;
    Ok(rows.iter().map(line).collect())
}

/// One that waits, with the part that it waits in.
fn line(row: &tokio_postgres::Row) -> Vec<String> {
    let mut line: Vec<String> = (0..7).map(|at| row.try_get(at).unwrap_or_default()).collect();
    let part = row.try_get::<_, Option<serde_json::Value>>(7).ok().flatten();
    let part = part.and_then(|part| serde_json::from_value::<Selector>(part).ok());
    if let (Some(part), Some(by)) = (part, line.get_mut(2)) {
        *by = format!("{by} in {part}");
    }
    line
}

/// Decides about the withheld snapshot of a revision.
pub(super) async fn run(config: &Config, revision: i64, decision: Decision) -> anyhow::Result<()> {
    let author = database::author("cli");
    let work = async |client: &mut Client| Ok(decide(client, revision, decision, &author).await?);
    database::with(config, async |opened| opened.run(work).await).await?;
    Ok(output::print(&format!("revision {revision} is {}\n", decision.state()))?)
}
