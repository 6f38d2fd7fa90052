//! The agent's process: arguments in, exit code out.
//!
//! It has no checks yet: only what it can do is declared here.

use clap::Parser;

/// Holds an edge host against what the database says should be: tunnels, firewall and certificates.
///
/// This build has no checks yet.
#[derive(Debug, Parser)]
#[command(name = "charliehub-edge-agent", version, arg_required_else_help = true)]
struct Cli {}

fn main() {
    Cli::parse();
}
