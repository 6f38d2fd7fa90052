//! `migrate`: says what was applied.

use super::{database, output};
use crate::{config::Config, postgres::migrate};

pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let (applied, at) = database::as_it_is(config, async |opened| {
        let applied = opened.run_as_owner(async |client| Ok(migrate::migrate(client).await?)).await?;
        Ok((applied, opened.database.display()))
    })
    .await?;
    let mut text = String::new();
    for name in &applied.now {
        text += "applied ";
        text += name;
        text.push('\n');
    }
    if applied.newer {
        output::hint("the schema is newer than this build: it is left as it is");
    }
    Ok(output::print(&format!("{text}schema version {} at {at}\n", applied.version))?)
}
