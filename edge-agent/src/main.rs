//! The agent's process: arguments in, exit code out.

use std::process::ExitCode;

use charliehub_edge_agent::cli::{self, Cli};
use clap::Parser as _;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
