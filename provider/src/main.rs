//! The provider's process: arguments in, exit code out.

use std::process::ExitCode;

use charliehub_provider::cli;

fn main() -> ExitCode {
    cli::run()
}
