//! `completions` and `man`: made from the same words as `--help`.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::Cli;

const NAME: &str = "charliehub-edge-agent";

/// What a shell needs to complete our commands and flags.
pub(super) fn completions(shell: Shell) -> String {
    let all = Cli::command();
    // Some shells would offer hidden commands too.
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new(NAME).args(all.get_arguments().cloned()).subcommands(shown);
    let mut script = Vec::new();
    generate(shell, &mut shown, NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// A page for each command.
pub(super) fn man(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("cannot write to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn what_people_type_is_completed_and_has_a_page() {
        assert_eq!(Cli::command().get_name(), NAME);
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            assert!(script.contains("explain") && script.contains("quiet"), "{shell}");
        }
        let directory = tempfile::tempdir().unwrap();
        man(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name));
        assert!(page("charliehub-edge-agent-check.1").unwrap().contains(".SH OPTIONS"));
        assert!(page("charliehub-edge-agent-man.1").is_err(), "it is for the packages alone");
    }
}
