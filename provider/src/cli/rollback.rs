//! `rollback`: the rows of an earlier revision, as a new one.

use std::{fmt::Write as _, sync::Arc};

use charliehub_proto::revision::{RolledBack, RowOp};
use clap::Args;
use tokio_postgres::Client;

use super::{database, output};
use crate::{app::settings, author::Author, config::Config, rollback};

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The revision whose rows are wanted
    revision: i64,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value_t)]
    reason: String,
}

pub(super) async fn run(config: &Config, rollback: Rollback) -> anyhow::Result<()> {
    let author = Author { reason: rollback.reason, ..database::author("cli") };
    let settings = Arc::new(settings(config, config.serve.listen));
    let work = async |client: &mut Client| {
        Ok(rollback::rollback(client, rollback.revision, &author, &settings, rollback.dry_run).await?)
    };
    let done = database::with(config, async |opened| opened.run(work).await).await?;
    Ok(output::print(&text(&done))?)
}

/// What was done, a line for each row.
fn text(done: &RolledBack) -> String {
    let mut text = match done.revision {
        Some(revision) => format!("revision {revision} has the rows of {}\n", done.from),
        None if done.dry_run => format!("the rows of {} would change these; nothing was written\n", done.from),
        None => format!("the rows are those of {} already\n", done.from),
    };
    for row in &done.changed {
        let sign = match row.op {
            RowOp::Insert => '+',
            RowOp::Update => '~',
            RowOp::Delete => '-',
        };
        let _ = writeln!(text, "{sign} {}", row.name);
    }
    for name in &done.kept_narrower {
        let _ = writeln!(text, "= {name} is kept narrower than it was");
    }
    text
}
