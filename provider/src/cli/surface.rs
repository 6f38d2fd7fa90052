//! `surface`: who reaches which name, and taking names off the internet.

use std::sync::Arc;

use charliehub_proto::route::{Surface, SurfaceReach};
use clap::Args;
use tokio_postgres::Client;

use super::{database, output};
use crate::{
    app::settings,
    author::Author,
    compile::Compiler,
    config::Config,
    store::read,
    surface::{self, moving},
};

#[derive(Debug, Args)]
pub(super) struct Surveyed {
    /// Print the names as JSON
    #[arg(long, conflicts_with = "move_to")]
    json: bool,
    /// Give the chosen rows this tier
    #[arg(long, value_name = "TIER", value_parser = ["internal"], requires = "select")]
    move_to: Option<String>,
    /// Rows by their names, where * stands for any text
    #[arg(long, value_name = "GLOB", num_args = 1.., requires = "move_to")]
    select: Vec<String>,
    /// Only say what would be done
    #[arg(long, requires = "move_to")]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", requires = "move_to")]
    reason: Option<String>,
}

pub(super) async fn run(config: &Config, wanted: Surveyed) -> anyhow::Result<()> {
    let settings = Arc::new(settings(config, config.serve.listen));
    if wanted.move_to.is_some() {
        let author = Author { reason: wanted.reason.unwrap_or_default(), ..database::author("surface") };
        let work = async |client: &mut Client| {
            Ok(moving::to_internal(client, &wanted.select, &author, &settings, wanted.dry_run).await?)
        };
        let moved = database::with(config, async |opened| opened.run(work).await).await?;
        return Ok(output::print(&plan(&moved, wanted.dry_run))?);
    }
    let work = async |client: &mut Client| read::newest(client).await.map_err(database::explain);
    let rows = database::with(config, async |opened| opened.run(work).await).await?;
    let names = surface::surface(&Compiler::of(&settings, rows));
    if wanted.json {
        return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&names)?))?);
    }
    let rows = names.iter().map(|one| {
        let tier = one.tier.map_or("-", |tier| tier.as_str()).to_owned();
        vec![one.name.clone(), one.protocol.to_string(), reached(Some(one)), tier]
    });
    Ok(output::print(&output::table(&["NAME", "PROTOCOL", "REACHED BY", "TIER"], &rows.collect::<Vec<_>>()))?)
}

fn plan(moved: &moving::Moved, dry_run: bool) -> String {
    let rows: Vec<Vec<String>> = moved
        .moves
        .iter()
        .map(|one| vec![one.name.clone(), reached(one.before.as_ref()), reached(one.after.as_ref())])
        .collect();
    let table = if rows.is_empty() { String::new() } else { output::table(&["NAME", "BEFORE", "AFTER"], &rows) };
    let done = match moved.revision {
        Some(revision) => format!("moved, as revision {revision}"),
        None if dry_run && !rows.is_empty() => "nothing was written".to_owned(),
        None => "every chosen row is internal already".to_owned(),
    };
    format!("{table}{done}\n")
}

fn reached(surface: Option<&Surface>) -> String {
    let Some(surface) = surface else { return "not served".to_owned() };
    let by = match surface.reach {
        SurfaceReach::Internet => "internet".to_owned(),
        SurfaceReach::Networks => surface.networks.join(", "),
        SurfaceReach::Nobody => "nobody".to_owned(),
    };
    if surface.login { format!("{by}, with a login") } else { by }
}
