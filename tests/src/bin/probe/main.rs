//! What `deploy/quickstart.sh --smoke` cannot do with curl and psql alone.
//!
//! `probe live` clocks one change from COMMIT to the first right answer through Traefik; `probe tunnel` lets a client that
//! cannot choose its TLS server name (mosquitto's) talk to a TCP route that is found by it.
#![allow(clippy::print_stdout, reason = "the measured time and the port are this program's results")]

mod live;
mod tunnel;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Probes a Traefik on loopback for deploy/quickstart.sh --smoke")]
enum Command {
    Live(live::Args),
    Tunnel(tunnel::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Live(args) => live::run(args).await,
        Command::Tunnel(args) => tunnel::run(args).await,
    }
}
