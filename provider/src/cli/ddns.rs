//! `ddns`: how names that follow sites stand, and what would be done; `ddns hold` and `ddns release` stop and go on.

use clap::{Args, Subcommand};
use tokio_postgres::Client;

use super::{database, output};
use crate::{config::Config, ddns};

#[derive(Debug, Args)]
pub(super) struct Ddns {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stop all changes of DNS, by every provider of this database
    Hold {
        /// Why; it is in the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let changes of DNS go on
    Release,
}

pub(super) async fn run(config: &Config, wanted: Ddns) -> anyhow::Result<()> {
    let author = database::author("cli");
    let work = async |client: &mut Client| match wanted.command {
        None => Ok(Some(ddns::print(client, config).await.map_err(database::explain)?)),
        Some(Command::Hold { reason }) => Ok(ddns::hold(client, &author, &reason).await.map(|()| None)?),
        Some(Command::Release) => Ok(ddns::release(client, &author).await.map(|()| None)?),
    };
    let Some(lines) = database::with(config, async |opened| opened.run(work).await).await? else { return Ok(()) };
    if lines.is_empty() {
        output::hint("no name follows a site: set `dns_mode` to ddns and `site` in a row, or `wan_name` of a site");
        return Ok(());
    }
    let header = ["NAME", "TYPE", "SITE", "SEEN AT", "DNS SAYS", "PLAN"];
    Ok(output::print(&output::table(&header, &lines))?)
}
