//! `man`: the manual pages, made from the same words as `--help`.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Cli;

pub(super) fn run(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("cannot write to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_people_type_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path()).unwrap();
        for name in ["charliehub-provider", "charliehub-provider-domains-add", "charliehub-provider-token-create"] {
            let page = fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{page}");
        }
        assert!(!directory.path().join("charliehub-provider-die-with.1").exists());
    }
}
