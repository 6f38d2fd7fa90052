//! `rotations`: which keys of tunnels were rotated, and how far each rotation is.

use charliehub_proto::rotation::Rotation;
use tokio_postgres::Client;

use super::{database, output, revisions::List};
use crate::{
    config::Config,
    rotations::store::{self, Which},
};

pub(super) async fn list(config: &Config, list: &List) -> anyhow::Result<()> {
    let which = Which::Newest(list.limit);
    let work = async |client: &mut Client| Ok(store::read(client, &which).await?);
    let found = database::with(config, async |opened| opened.run(work).await).await?;
    if list.json {
        return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?);
    }
    let header = ["BEGUN (UTC)", "AGENT", "INTERFACE", "SITE", "FOLLOWED BY", "PHASE", "SINCE (UTC)", "WHY"];
    Ok(output::print(&output::table(&header, &found.into_iter().map(line).collect::<Vec<_>>()))?)
}

fn line(rotation: Rotation) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        rotation.begun_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        rotation.agent,
        rotation.interface,
        rotation.site,
        rotation.follower.unwrap_or_else(none),
        rotation.phase.to_string(),
        rotation.changed_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        rotation.why.map_or_else(none, |why| why.replace('\n', " ")),
    ]
}
