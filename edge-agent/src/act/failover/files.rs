//! What a move leaves in the agent's run directory: that it began, that an operator is to let go, and that it is ours alone
//! to do.
//!
//! `hold` and `hold-SITE` are an operator's, `held-SITE` is ours after too many moves; `failover-SITE.json` is what a move is
//! about; `failover-SITE.lock` keeps a second agent out. A reboot clears them with the routes.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a move is about, so that it is undone whole also when the site's row says something else by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Moved by our routes.
    pub networks: BTreeSet<IpNet>,
    /// Given to the fallback's peer, which did not have them.
    pub added: BTreeSet<IpNet>,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub file: PathBuf,
    /// It moved too often.
    pub is_ours: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
    site: String,
}

impl Files {
    pub(super) fn of(dir: &Path, site: &str) -> Self {
        Self { dir: dir.to_owned(), site: site.to_owned() }
    }

    /// The file that says that nothing is to be done.
    pub(super) fn hold(&self) -> Option<Hold> {
        let theirs = [self.dir.join("hold"), self.dir.join(format!("hold-{}", self.site))];
        let theirs = theirs.map(|file| Hold { file, is_ours: false });
        let all = [Hold { file: self.held(), is_ours: true }].into_iter().chain(theirs);
        all.into_iter().find(|hold| hold.file.exists())
    }

    /// From now on, until somebody removes it.
    pub(super) fn write_held(&self, why: &str) -> io::Result<()> {
        fs::write(self.held(), format!("{why}\n"))
    }

    fn held(&self) -> PathBuf {
        self.dir.join(format!("held-{}", self.site))
    }

    /// Ours until it is dropped. None: another agent's.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        fs::create_dir_all(&self.dir)?;
        let file =
            File::options().create(true).append(true).open(self.dir.join(format!("failover-{}.lock", self.site)))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn memory(&self) -> PathBuf {
        self.dir.join(format!("failover-{}.json", self.site))
    }

    /// A move begins.
    pub(super) fn remember(&self, memory: &Memory) -> io::Result<()> {
        let mut draft = tempfile::NamedTempFile::new_in(&self.dir)?;
        draft.write_all(&serde_json::to_vec(memory)?)?;
        draft.as_file().sync_all()?;
        draft.persist(self.memory()).map(drop).map_err(Into::into)
    }

    /// Of the move that began and was not taken back.
    pub(super) fn remembered(&self) -> Option<Memory> {
        let text = fs::read(self.memory()).ok()?;
        // Written whole or not at all; who edits it into nonsense has the peer keep what it has.
        Some(serde_json::from_slice(&text).unwrap_or_default())
    }

    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.memory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path(), "fr");
        assert_eq!(files.remembered(), None);
        let networks = ["10.35.0.0/16".parse().unwrap()].into();
        let memory = Memory { networks, ..Memory::default() };
        files.remember(&memory).unwrap();
        assert_eq!(files.remembered(), Some(memory));
        files.forget().unwrap();
        files.forget().unwrap();
        assert_eq!(files.remembered(), None);
    }

    #[test]
    fn a_file_holds_one_site_or_all() {
        let dir = tempfile::tempdir().unwrap();
        let (fr, uk) = (Files::of(dir.path(), "fr"), Files::of(dir.path(), "uk"));
        let told = |files: &Files| {
            files.hold().map(|hold| (hold.file.strip_prefix(dir.path()).unwrap().to_owned(), hold.is_ours))
        };
        fs::write(dir.path().join("hold-fr"), "").unwrap();
        assert_eq!((told(&fr), told(&uk)), (Some(("hold-fr".into(), false)), None));
        fs::write(dir.path().join("hold"), "").unwrap();
        assert_eq!(told(&uk), Some(("hold".into(), false)));
        fr.write_held("too many moves").unwrap();
        assert_eq!(told(&fr), Some(("held-fr".into(), true)), "the worse one is told");
    }

    #[test]
    fn the_lock_is_one_agents() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(&dir.path().join("run"), "fr");
        let first = files.lock().unwrap();
        assert!(first.is_some() && files.lock().unwrap().is_none());
        drop(first);
        assert!(files.lock().unwrap().is_some());
    }
}
