//! What a move of one site leaves in the run directory.

use std::{collections::BTreeSet, io, path::Path};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::run_dir::{Hold, RunDir};

/// What a move is about, so that it is undone whole also when the site's row says something else by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Moved by our routes.
    pub networks: BTreeSet<IpNet>,
    /// Given to the fallback's peer, which did not have them.
    pub added: BTreeSet<IpNet>,
}

#[derive(Clone, Debug)]
pub(super) struct Files {
    run_dir: RunDir,
    site: String,
    /// What a move is called there.
    name: String,
}

impl Files {
    pub(super) fn of(dir: &Path, site: &str) -> Self {
        Self { run_dir: RunDir::new(dir), site: site.to_owned(), name: format!("failover-{site}") }
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        self.run_dir.hold(&self.site, &self.site)
    }

    /// False: it is not on disk.
    pub(super) fn write_held(&self, why: &str) -> bool {
        self.run_dir.write_held(&self.site, why)
    }

    /// A move begins.
    pub(super) fn remember(&self, memory: &Memory) -> io::Result<()> {
        self.run_dir.remember(&self.name, memory)
    }

    /// Of the move that began and was not taken back. Of one that was edited into nonsense the peer keeps what it has.
    pub(super) fn remembered(&self) -> Option<Memory> {
        self.run_dir.remembered(&self.name)
    }

    pub(super) fn forget(&self) -> io::Result<()> {
        self.run_dir.forget(&self.name)
    }
}
