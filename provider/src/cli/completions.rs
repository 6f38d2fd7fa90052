//! `completions`: what a shell needs to complete our commands and flags.

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, output};

const NAME: &str = "charliehub-provider";

pub(super) fn run(shell: Shell) -> anyhow::Result<()> {
    Ok(output::print(&script(shell))?)
}

fn script(shell: Shell) -> String {
    let all = Cli::command();
    // Some shells would offer hidden commands too.
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new(NAME).args(all.get_arguments().cloned()).subcommands(shown);
    let mut script = Vec::new();
    generate(shell, &mut shown, NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_what_people_type_and_nothing_else() {
        assert_eq!(Cli::command().get_name(), NAME);
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("withheld") && script.contains("data-dir"), "{shell}");
            assert!(!script.contains("die-with"), "{shell}");
        }
    }
}
