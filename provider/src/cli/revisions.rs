//! `revisions` and `diff`: what was changed, by whom, when and why.

use std::{fmt::Write as _, sync::Arc};

use charliehub_proto::revision::{Compared, RouteOp};
use clap::Args;
use tokio_postgres::Client;

use super::{database, output};
use crate::{
    app::settings,
    config::Config,
    revisions::{self, Secrets},
};

#[derive(Debug, Args)]
pub(super) struct List {
    /// How many, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub(super) limit: i64,
    /// As JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The earlier revision
    a: i64,
    /// The later one; the newest when left out
    b: Option<i64>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(config: &Config, list: &List) -> anyhow::Result<()> {
    let work = async |client: &mut Client| Ok(revisions::list(client, None, list.limit).await?);
    let found = database::with(config, async |opened| opened.run(work).await).await?;
    if list.json {
        return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?);
    }
    let rows = found.into_iter().map(|one| {
        let (commit, changes) = (one.commit, one.changes.to_string());
        let state = commit.state.and_then(|state| Some(serde_json::to_value(state).ok()?.as_str()?.to_owned()));
        let pinned = if commit.pinned { " (pinned)" } else { "" };
        vec![
            commit.revision.to_string(),
            commit.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            format!("{} ({})", commit.actor, commit.source),
            changes,
            format!("{}{pinned}", state.as_deref().unwrap_or("-")),
            commit.reason.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header = ["REVISION", "WHEN (UTC)", "CHANGED BY", "ROWS", "CONFIG", "THEIR REASON"];
    Ok(output::print(&output::table(&header, &rows.collect::<Vec<_>>()))?)
}

pub(super) async fn diff(config: &Config, diff: &Diff) -> anyhow::Result<()> {
    let settings = Arc::new(settings(config, config.serve.listen));
    let work = async |client: &mut Client| {
        let b = match diff.b {
            Some(b) => b,
            None => revisions::newest(client).await?,
        };
        // Who runs this may read the database itself.
        Ok(revisions::compare(client, (diff.a, b), &settings, Secrets::Shown).await?)
    };
    let compared = database::with(config, async |opened| opened.run(work).await).await?;
    let text = if diff.json { format!("{}\n", serde_json::to_string_pretty(&compared)?) } else { text(&compared) };
    Ok(output::print(&text)?)
}

/// A line for each object that is different, then the unified difference.
fn text(compared: &Compared) -> String {
    let mut text = String::new();
    for one in &compared.routes {
        let sign = match one.change {
            RouteOp::Added => '+',
            RouteOp::Removed => '-',
            RouteOp::Changed => '~',
        };
        let _ = writeln!(text, "{sign} {} {}", one.section, one.router);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text + &compared.text
}
