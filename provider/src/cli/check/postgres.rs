//! Is the database reachable, of the right schema, ours to use, and does it tell us of changes?

use std::{cmp::Ordering, future::poll_fn, time::Duration};

use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use super::{Finding, database};
use crate::{
    cli::database::Opened,
    compile::MOST_RESOLVED,
    postgres::{Database, Error, assume_role, migrate},
};

/// How long our own notification may take.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn check(opened: &Opened) -> Vec<Finding> {
    let mut findings = Vec::new();
    let at = opened.database.display();
    let looked = opened
        .run_as_owner(async |client| {
            findings.push(version(client, &at).await?);
            let schema = schema(client).await?;
            findings.push(judge_schema(schema));
            if schema.is_none_or(|version| version < migrate::newest()) {
                return Ok(());
            }
            assume_role(client).await?;
            findings.push(role(client).await?);
            findings.push(withheld(client).await?);
            findings.extend(instances(client).await?);
            findings.extend(resolved(client).await?);
            Ok(())
        })
        .await;
    if let Err(error) = looked {
        findings.push(Finding::critical(format!("database: {error:#}"), ""));
        return findings;
    }
    findings.push(notify(&opened.database).await);
    findings
}

async fn version(client: &Client, at: &str) -> anyhow::Result<Finding> {
    let row = client.query_one("SELECT current_setting('server_version')", &[]).await.map_err(database::explain)?;
    Ok(Finding::ok(format!("database: PostgreSQL {} at {at}", row.try_get::<_, String>(0)?)))
}

/// The version of the schema; none when nothing else can be asked.
async fn schema(client: &Client) -> anyhow::Result<Option<i32>> {
    let sql = "SELECT to_regclass('charliehub.schema_migrations') IS NOT NULL";
    let there: bool = client.query_one(sql, &[]).await.map_err(database::explain)?.try_get(0)?;
    if !there {
        return Ok(None);
    }
    let sql = "SELECT max(version) FROM charliehub.schema_migrations";
    Ok(client.query_one(sql, &[]).await.map_err(database::explain)?.try_get(0)?)
}

fn judge_schema(version: Option<i32>) -> Finding {
    let newest = migrate::newest();
    let Some(version) = version else {
        return Finding::critical("schema: there is none", "run: charliehub-provider migrate");
    };
    match version.cmp(&newest) {
        Ordering::Equal => Finding::ok(format!("schema: version {version}")),
        Ordering::Less => Finding::critical(
            format!("schema: version {version}, and this build needs {newest}"),
            "run: charliehub-provider migrate",
        ),
        Ordering::Greater => Finding::warning(
            format!("schema: version {version} is newer than this build, which knows {newest}"),
            "install the newer build here too",
        ),
    }
}

async fn role(client: &Client) -> anyhow::Result<Finding> {
    let sql = "SELECT current_user::text, session_user::text";
    let row = client.query_one(sql, &[]).await.map_err(database::explain)?;
    let (current, session): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if current == "charliehub_app" {
        return Ok(Finding::ok(format!("rights: {session} gives up all but those of charliehub_app")));
    }
    Ok(Finding::warning(
        format!("rights: the provider runs with all those of {session}"),
        format!("as a superuser: SELECT charliehub.grant_rights(); GRANT charliehub_app TO {session}"),
    ))
}

async fn withheld(client: &Client) -> anyhow::Result<Finding> {
    let sql = "SELECT count(*) FROM snapshots WHERE state = 'withheld'";
    let count: i64 = client.query_one(sql, &[]).await.map_err(database::explain)?.try_get(0)?;
    if count == 0 {
        return Ok(Finding::ok("changes: none is withheld"));
    }
    Ok(Finding::warning(
        format!("changes: {count} withheld"),
        "look with: charliehub-provider withheld; then approve or discard",
    ))
}

async fn instances(client: &Client) -> anyhow::Result<Vec<Finding>> {
    let sql = "SELECT name, advice FROM instances ORDER BY name";
    let mut findings = Vec::new();
    for row in client.query(sql, &[]).await.map_err(database::explain)? {
        let (name, advice): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
        if advice.is_empty() {
            findings.push(Finding::ok(format!("instance {name}: polls as it should")));
        }
        let lines = advice.into_iter();
        findings.extend(
            lines.map(|line| Finding::warning(format!("instance {name}: polls otherwise than it should"), line)),
        );
    }
    Ok(findings)
}

/// Sends ourselves a notification over two connections, as a change and the listener have them.
async fn notify(database: &Database) -> Finding {
    match tokio::time::timeout(PATIENCE, round_trip(database)).await {
        Ok(Ok(())) => Finding::ok("notify: a change is told at once"),
        Ok(Err(error)) => Finding::critical(format!("notify: {error}"), "look into the log of PostgreSQL"),
        Err(_) => Finding::critical(
            "notify: LISTEN hears nothing: a pooler in transaction mode is between",
            "name PostgreSQL itself in `database.url`, or let the pooler use session mode",
        ),
    }
}

/// Traefik compares the names of resolvers with each other on every change.
async fn resolved(client: &Client) -> anyhow::Result<Option<Finding>> {
    let sql = "SELECT count(*) FROM domains WHERE protocol = 'http' AND tls_mode = 'acme' AND status = 'active'";
    let rows: i64 = client.query_one(sql, &[]).await.map_err(database::explain)?.try_get(0)?;
    let many = usize::try_from(rows).is_ok_and(|rows| rows > MOST_RESOLVED);
    Ok(many.then(|| {
        Finding::warning(
            format!("{rows} rows have tls_mode acme; from {MOST_RESOLVED} on each change takes Traefik long"),
            "use a wildcard, the default certificate, or certificates by tls.certificate fragments",
        )
    }))
}

async fn round_trip(database: &Database) -> Result<(), Error> {
    let (subscriber, mut connection) = database.connect("charliehub-provider check").await?;
    let (sender, drives) = database.connect("charliehub-provider check").await?;
    let word = Uuid::new_v4().to_string();
    let told = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message?, AsyncMessage::Notification(note) if note.payload() == word) {
                return Ok(());
            }
        }
        std::future::pending().await
    };
    let sent = async {
        subscriber.batch_execute("LISTEN charliehub_check").await?;
        sender.execute("SELECT pg_notify('charliehub_check', $1)", &[&word]).await?;
        std::future::pending::<Result<(), Error>>().await
    };
    tokio::select! {
        done = told => done,
        failed = sent => failed,
        ended = drives => {
            ended?;
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::check::State, postgres::tests::cluster::Cluster};

    fn states(findings: &[Finding]) -> Vec<State> {
        findings.iter().map(|finding| finding.state).collect()
    }

    #[tokio::test]
    async fn a_sound_database_is_ok_and_what_waits_or_is_missing_is_said() {
        let (cluster, client) = Cluster::migrated().await;
        let opened = Opened::reached(cluster.database("owner", "test"));
        let findings = check(&opened).await;
        assert_eq!(states(&findings), [State::Ok; 5], "{findings:?}");
        client
            .batch_execute(
                "INSERT INTO instances (name, advice) VALUES ('hub2', '{set pollInterval: 10ms}'), ('hub3', '{}')",
            )
            .await
            .unwrap();
        let findings = check(&opened).await;
        assert!(findings.contains(&Finding::ok("instance hub3: polls as it should")), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.remedy == "set pollInterval: 10ms"), "{findings:?}");

        client.batch_execute("DELETE FROM schema_migrations WHERE version > 1").await.unwrap();
        let findings = check(&opened).await;
        assert!(findings.iter().any(|finding| finding.state == State::Critical && finding.what.contains("version 1")));
        let empty = Opened::reached(cluster.database("owner", "postgres"));
        assert_eq!(states(&check(&empty).await), [State::Ok, State::Critical, State::Ok]);
        let nowhere = Opened::reached(cluster.database("owner", "none"));
        assert_eq!(states(&check(&nowhere).await), [State::Critical]);
    }
}
