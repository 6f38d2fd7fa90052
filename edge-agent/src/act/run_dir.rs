//! The agent's run directory: what actors note of what they do, and where an operator stops them.
//!
//! `hold` and `hold-SITE` are an operator's, `held-WHAT` is ours after something was done too often; `WHAT.json` is what was begun
//! or done; `WHAT.lock` keeps a second agent out. A reboot clears all of it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub file: PathBuf,
    /// It was done too often.
    pub is_ours: bool,
}

#[derive(Clone, Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The file that says that nothing is to be done about `what`, which is of `site`.
    pub(super) fn hold(&self, what: &str, site: &str) -> Option<Hold> {
        let theirs = [self.0.join("hold"), self.0.join(format!("hold-{site}"))];
        let theirs = theirs.map(|file| Hold { file, is_ours: false });
        let all = [Hold { file: self.held(what), is_ours: true }].into_iter().chain(theirs);
        all.into_iter().find(|hold| hold.file.exists())
    }

    /// From now on, until somebody removes it. False: the file cannot be written, which is told, and who holds it must remember.
    pub(super) fn write_held(&self, what: &str, why: &str) -> bool {
        let written = fs::write(self.held(what), format!("{why}\n"));
        if let Err(error) = &written {
            tracing::error!(what, %error, "the hold is not on disk: it lasts until the agent restarts");
        }
        written.is_ok()
    }

    fn held(&self, what: &str) -> PathBuf {
        self.0.join(format!("held-{what}"))
    }

    /// Ours until it is dropped. None: another agent's.
    pub(super) fn lock(&self, what: &str) -> io::Result<Option<File>> {
        fs::create_dir_all(&self.0)?;
        let file = File::options().create(true).append(true).open(self.0.join(format!("{what}.lock")))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn note(&self, what: &str) -> PathBuf {
        self.0.join(format!("{what}.json"))
    }

    /// Whole or not at all.
    pub(super) fn remember(&self, what: &str, memory: &impl Serialize) -> io::Result<()> {
        let mut draft = tempfile::NamedTempFile::new_in(&self.0)?;
        draft.write_all(&serde_json::to_vec(memory)?)?;
        draft.as_file().sync_all()?;
        draft.persist(self.note(what)).map(drop).map_err(Into::into)
    }

    /// None: nothing is. What somebody edited into nonsense is the default.
    pub(super) fn remembered<M: DeserializeOwned + Default>(&self, what: &str) -> Option<M> {
        let text = fs::read(self.note(what)).ok()?;
        Some(serde_json::from_slice(&text).unwrap_or_default())
    }

    pub(super) fn forget(&self, what: &str) -> io::Result<()> {
        match fs::remove_file(self.note(what)) {
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
        let run = RunDir::new(dir.path());
        assert_eq!(run.remembered::<Vec<u64>>("fr"), None);
        run.remember("fr", &[7]).unwrap();
        assert_eq!(run.remembered::<Vec<u64>>("fr"), Some(vec![7]));
        fs::write(dir.path().join("fr.json"), "{").unwrap();
        assert_eq!(run.remembered::<Vec<u64>>("fr"), Some(vec![]));
        run.forget("fr").unwrap();
        run.forget("fr").unwrap();
        assert_eq!(run.remembered::<Vec<u64>>("fr"), None);
    }

    #[test]
    fn a_file_holds_one_site_or_all() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        let told = |site: &str| {
            let hold = run.hold(site, site)?;
            Some((hold.file.strip_prefix(dir.path()).unwrap().to_owned(), hold.is_ours))
        };
        fs::write(dir.path().join("hold-fr"), "").unwrap();
        assert_eq!((told("fr"), told("uk")), (Some(("hold-fr".into(), false)), None));
        fs::write(dir.path().join("hold"), "").unwrap();
        assert_eq!(told("uk"), Some(("hold".into(), false)));
        assert!(run.write_held("fr", "too many moves"));
        assert_eq!(told("fr"), Some(("held-fr".into(), true)), "the worse one is told");
    }

    #[test]
    fn the_lock_is_one_agents() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(&dir.path().join("run"));
        let first = run.lock("fr").unwrap();
        assert!(first.is_some() && run.lock("fr").unwrap().is_none());
        drop(first);
        assert!(run.lock("fr").unwrap().is_some());
    }
}
