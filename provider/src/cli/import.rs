//! `import`: files of Traefik's, or the table of another system, become rows and fragments in one transaction.
//!
//! A dry run does all of it, so that the database has validated it, and rolls back. Another system's table is taken only
//! with `--yes`, so that its plan has been seen.

use std::{path::PathBuf, sync::Arc};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use tokio_postgres::Client;

use super::{database, output};
use crate::{
    app::settings,
    author::Author,
    compile::Settings,
    config::Config,
    import::{self, Action, Plan, Source},
    postgres::Database,
};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Files or directories of Traefik's dynamic configuration; or one postgres:// URL
    #[arg(required = true, value_name = "FILE|DIRECTORY|URL")]
    from: Vec<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Take over what the plan of a postgres:// URL showed
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Said<'a> {
    dry_run: bool,
    /// How many rows and fragments were written; in a dry run, would be.
    changes: usize,
    /// None when nothing was written.
    revision: Option<i64>,
    #[serde(flatten)]
    plan: &'a Plan,
}

pub(super) async fn run(config: &Config, import: Import) -> anyhow::Result<()> {
    let is_url = |from: &String| from.starts_with("postgres://") || from.starts_with("postgresql://");
    let (source, dry_run) = match import.from.as_slice() {
        [url] if is_url(url) => (from_table(url).await?, !import.yes),
        from if from.iter().any(is_url) => bail!("a postgres:// URL is imported alone; name it, or files"),
        from => (Source::files(&from.iter().map(PathBuf::from).collect::<Vec<_>>())?, import.dry_run),
    };
    let author = Author {
        actor: database::actor(),
        source: "import",
        reason: import.reason.unwrap_or_else(|| format!("import of {}", names(&import.from))),
        ..Author::default()
    };
    let settings = Arc::new(settings(config, config.serve.listen));
    let work = async |client: &mut Client| write(client, &settings, source, &author, dry_run).await;
    let (plan, revision) = database::with(config, async |opened| opened.run(work).await).await?;
    if import.json {
        let said = Said { dry_run, changes: plan.changes(), revision, plan: &plan };
        let said = serde_json::to_string_pretty(&said)?;
        return Ok(output::print(&format!("{said}\n"))?);
    }
    output::print(&text(&plan))?;
    match revision {
        Some(revision) => output::hint(&format!("{} changes, as revision {revision}", plan.changes())),
        None if plan.changes() == 0 => output::hint("0 changes: all of it is there already"),
        None if import.yes || import.dry_run => {
            output::hint(&format!("{} changes, none of them made: it was a dry run", plan.changes()));
        }
        None => output::hint(&format!("{} changes, none of them made: say --yes to make them", plan.changes())),
    }
    Ok(())
}

/// What stands in the history; never a URL, which may hold a password.
fn names(from: &[String]) -> String {
    let names = from.iter().map(|from| if from.contains("://") { "another system's table" } else { from.as_str() });
    names.collect::<Vec<_>>().join(", ")
}

async fn from_table(url: &str) -> anyhow::Result<Source> {
    let other = database::Opened::reached(Database::parse(url)?);
    other.run_as_owner(async |client| Ok(Source::seed(client).await?)).await
}

/// What was planned, and the revision that it made.
pub(super) async fn write(
    client: &mut Client,
    settings: &Arc<Settings>,
    source: Source,
    author: &Author,
    dry_run: bool,
) -> anyhow::Result<(Plan, Option<i64>)> {
    let transaction = client.transaction().await.map_err(database::explain)?;
    author.sign(&transaction).await.map_err(database::explain)?;
    let plan = source.plan(&import::existing(&transaction).await?, settings);
    import::write(&transaction, &plan).await?;
    if dry_run || plan.changes() == 0 {
        transaction.rollback().await.map_err(database::explain)?;
        return Ok((plan, None));
    }
    let newest = transaction.query_one("SELECT n FROM charliehub.revision", &[]).await;
    let revision = newest.and_then(|row| row.try_get(0)).map_err(database::explain)?;
    transaction.commit().await.map_err(database::explain)?;
    Ok((plan, Some(revision)))
}

fn text(plan: &Plan) -> String {
    let action = |action: Action| match action {
        Action::Insert => "insert",
        Action::Update => "update",
        Action::Unchanged => "unchanged",
    };
    let mut lines = Vec::new();
    for row in &plan.rows {
        let path = if row.path_prefix == "/" { "" } else { &row.path_prefix };
        let entry_point = row.tcp_entrypoint.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let name = format!("{}{path}{entry_point}", row.domain);
        let changed = row.changed.join(", ");
        lines.push([action(row.action), "row", &name, &row.router, &row.file, &changed].map(str::to_owned).to_vec());
    }
    for fragment in &plan.fragments {
        let because = fragment.because.as_deref().unwrap_or_default();
        let cells = [action(fragment.action), &fragment.kind, &fragment.name, "", &fragment.file, because];
        lines.push(cells.map(str::to_owned).to_vec());
    }
    for renamed in &plan.renamed {
        let cells = ["renamed", renamed.kind.name(), &renamed.to, &renamed.from, &renamed.file, &renamed.reason];
        lines.push(cells.map(str::to_owned).to_vec());
    }
    for left in &plan.left_out {
        lines.push(["left out", left.kind, "", &left.name, &left.file, &left.reason].map(str::to_owned).to_vec());
    }
    let mut text = output::table(&["WHAT", "KIND", "NAME", "WAS", "FILE", "WHY"], &lines);
    for warning in &plan.warnings {
        text.push_str("warning: ");
        text.push_str(warning);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
