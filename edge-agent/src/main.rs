//! The agent's process: arguments in, exit code out.

use std::process::ExitCode;

use charliehub_edge_agent::cli;

fn main() -> ExitCode {
    cli::run()
}
