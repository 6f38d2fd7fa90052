//! `import`: files of Traefik's, or the table of another system, become rows and fragments in one transaction.
//!
//! A dry run does all of it, so that the database has validated it, and rolls back. Where a Traefik is configured for
//! rehearsals, that comes first in any case, and a throw-away real Traefik loads what it would come to. Another system's
//! table is taken only with `--yes`, so that its plan has been seen.

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
    rehearse::{Rehearsal, Report},
    store::read,
};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
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
    /// Write it without a rehearsal, though `[rehearse] traefik` is configured
    #[arg(long)]
    no_rehearse: bool,
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
    /// What a throw-away Traefik said of it, where one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsal: Option<&'a Report>,
    #[serde(flatten)]
    plan: &'a Plan,
}

/// What an import came to.
pub(super) struct Imported {
    plan: Plan,
    /// None when nothing was written.
    revision: Option<i64>,
    /// None when nobody was asked.
    rehearsal: Option<Report>,
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
    let stage = Rehearsal::configured(&config.rehearse, Arc::clone(&settings));
    let stage = (stage.is_on() && !import.no_rehearse).then_some(stage);
    let work = async |client: &mut Client| match &stage {
        Some(stage) => Box::pin(rehearsed(client, stage, &settings, source, &author, dry_run)).await,
        None => write(client, &settings, source, &author, dry_run).await,
    };
    let Imported { plan, revision, rehearsal } = database::with(config, async |opened| opened.run(work).await).await?;
    if import.json {
        let rehearsal = rehearsal.as_ref();
        let said = Said { dry_run, changes: plan.changes(), revision, rehearsal, plan: &plan };
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

/// Lets a real Traefik load what it would come to, outside of any transaction, and writes it only then.
async fn rehearsed(
    client: &mut Client,
    stage: &Rehearsal,
    settings: &Arc<Settings>,
    source: Source,
    author: &Author,
    dry_run: bool,
) -> anyhow::Result<Imported> {
    let tried = write(client, settings, source.clone(), author, true).await?;
    if tried.plan.changes() == 0 {
        return Ok(tried);
    }
    let rows = read::newest(client).await.map_err(database::explain)?;
    let report = stage.run(&stage.candidate(tried.plan.over(rows))).await.map_err(|error| {
        let remedy = error.remedy();
        anyhow::anyhow!("{:#}; {remedy}; or import with --no-rehearse", anyhow::Error::from(error))
    })?;
    let objects = &tried.plan.objects;
    if let Some(complaint) = report.against(|name| objects.contains_key(name)) {
        let origin = complaint.of.as_ref().and_then(|name| objects.get(name));
        let what = origin.map_or_else(|| "all of it".to_owned(), String::clone);
        bail!(
            "{what}: Traefik would not run it: {}; nothing was imported: correct it, or import with --no-rehearse if the \
             real Traefik knows more than the one of the rehearsal",
            complaint.words
        );
    }
    let mut imported = if dry_run { tried } else { write(client, settings, source, author, false).await? };
    imported.plan.warnings.extend(report.warnings());
    Ok(Imported { rehearsal: Some(report), ..imported })
}

/// Plans and writes it in one transaction.
pub(super) async fn write(
    client: &mut Client,
    settings: &Arc<Settings>,
    source: Source,
    author: &Author,
    dry_run: bool,
) -> anyhow::Result<Imported> {
    let transaction = client.transaction().await.map_err(database::explain)?;
    author.sign(&transaction).await.map_err(database::explain)?;
    let plan = source.plan(&import::existing(&transaction).await?, settings);
    import::write(&transaction, &plan).await?;
    if dry_run || plan.changes() == 0 {
        transaction.rollback().await.map_err(database::explain)?;
        return Ok(Imported { plan, revision: None, rehearsal: None });
    }
    let newest = transaction.query_one("SELECT n FROM charliehub.revision", &[]).await;
    let revision = newest.and_then(|row| row.try_get(0)).map_err(database::explain)?;
    transaction.commit().await.map_err(database::explain)?;
    Ok(Imported { plan, revision: Some(revision), rehearsal: None })
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
