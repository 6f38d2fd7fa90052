//! A new file for a secret: there whole or not at all, for its owner only, and never in the place of another.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tempfile::NamedTempFile;

/// A file that will be there. Dropped before [`New::write`] nothing is.
#[derive(Debug)]
pub(super) struct New {
    path: PathBuf,
    draft: NamedTempFile,
}

impl New {
    /// Finds out what can be known before there is something to write: that nothing is there, and that one may write there.
    pub(super) fn begin(path: &Path) -> anyhow::Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there, and is not overwritten; name another file", path.display());
        }
        let draft = NamedTempFile::new_in(directory(path));
        let draft = draft.with_context(|| format!("no file can be made in {}", directory(path).display()))?;
        Ok(Self { path: path.to_owned(), draft })
    }

    /// Puts `text` there, on disk when this returns.
    pub(super) fn write(self, text: &str) -> anyhow::Result<()> {
        let Self { path, mut draft } = self;
        let written = draft.write_all(text.as_bytes()).and_then(|()| draft.as_file().sync_all());
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        let kept = draft.persist_noclobber(&path).map_err(|error| error.error);
        kept.with_context(|| format!("{} cannot be made", path.display()))?;
        File::open(directory(&path)).and_then(|open| open.sync_all()).or_else(|error| {
            // Who cannot tell whether it stays does not have it.
            let gone = fs::remove_file(&path);
            gone.and(Err(error)).with_context(|| format!("{} cannot be kept", path.display()))
        })
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_its_owners_alone_and_replaces_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("anna.conf");
        drop(New::begin(&path).unwrap());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left of what was not written");
        let (first, second) = (New::begin(&path).unwrap(), New::begin(&path).unwrap());
        first.write("one").unwrap();
        assert!(second.write("two").unwrap_err().to_string().contains("cannot be made"));
        assert!(New::begin(&path).unwrap_err().to_string().contains("not overwritten"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        let nowhere = home.path().join("no/anna.conf");
        assert!(New::begin(&nowhere).unwrap_err().to_string().contains("no file can be made in"));
    }
}
