//! Backups on disk: one is there whole or not at all, and old ones go.
//!
//! It is written beside its place under a name of its own, locked and for its owner only, synced and renamed. What a crash
//! left half is removed by the next one in the same directory, which finds that nobody holds its lock.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, lchown},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};
use uuid::Uuid;

use super::{Error, archive};

const PREFIX: &str = "charliehub-";
const SUFFIX: &str = ".tar.gz";
const PARTIAL: &str = ".partial";

/// The name of a backup in a directory: they sort by time.
pub fn name(at: Timestamp) -> String {
    format!("{PREFIX}{}{SUFFIX}", at.strftime("%Y%m%dT%H%M%S%.6fZ"))
}

/// The same for one that no rotation may remove.
pub fn name_of_replaced(at: Timestamp) -> String {
    format!("replaced-{}{SUFFIX}", at.strftime("%Y%m%dT%H%M%S%.6fZ"))
}

/// A file that is being written. Dropped before [`Partial::keep`] it is gone.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// Where it is until then.
    draft: PathBuf,
    file: File,
    kept: bool,
}

impl Partial {
    /// Begins the file `path`; its directory is made where it is missing. One that is there is replaced, if it is a backup.
    pub fn begin(path: &Path) -> Result<Self, Error> {
        let directory = directory(path);
        if !directory.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(Error::io(directory))?;
            give(directory).map_err(Error::io(directory))?;
        }
        match File::open(path) {
            Ok(mut there) => {
                if !archive::begins_as_one(&mut there).map_err(Error::io(path))? {
                    return Err(Error::Occupied(path.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = directory.join(format!(".{name}.{}{PARTIAL}", Uuid::new_v4().simple()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft);
        let file = file.map_err(Error::io(directory))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| Error::io(&draft)(error.into()))?;
        Ok(Self { path: path.to_owned(), draft, file, kept: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, on disk when this returns.
    pub fn keep(&mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io(&self.path))?;
        fs::rename(&self.draft, &self.path).map_err(Error::io(&self.path))?;
        self.kept = true;
        let directory = directory(&self.path);
        File::open(directory).and_then(|open| open.sync_all()).map_err(Error::io(directory))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_file(&self.draft));
        }
    }
}

/// What root makes is for the owner of the directory above, whose unit makes the next backup in it. The files stay root's.
fn give(directory: &Path) -> io::Result<()> {
    let Some(above) = directory.parent().filter(|_| geteuid().is_root()) else { return Ok(()) };
    let owner = fs::metadata(above)?;
    lchown(directory, Some(owner.uid()), Some(owner.gid()))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what a crash left half, and, but for the newest `keep`, the backups of a directory; what was removed.
pub fn tidy(directory: &Path, keep: Option<usize>) -> Result<Vec<PathBuf>, Error> {
    let mut backups = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if plain && name.starts_with('.') && name.ends_with(PARTIAL) && name.contains(SUFFIX) {
            let free =
                File::open(&path).is_ok_and(|open| flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        } else if plain && name.strip_suffix(SUFFIX).and_then(|rest| rest.strip_prefix(PREFIX)).is_some_and(is_time) {
            backups.push(path);
        }
    }
    backups.sort();
    let Some(keep) = keep else { return Ok(Vec::new()) };
    backups.truncate(backups.len().saturating_sub(keep));
    for path in &backups {
        fs::remove_file(path).map_err(Error::io(path))?;
    }
    Ok(backups)
}

/// `20261127T113000.123456Z`: ours, and nobody else's file is removed.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "00000000T000000.000000Z"
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("backups");
        let path = directory.join("b.tar.gz");
        drop(Partial::begin(&path).unwrap());
        assert_eq!(names(&directory), Vec::<String>::new());
        let mut partial = Partial::begin(&path).unwrap();
        partial.file().write_all(b"x").unwrap();
        assert!(!path.exists());
        partial.keep().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Partial::begin(&path), Err(Error::Occupied(_))), "it is no backup");
    }

    #[test]
    fn a_directory_that_root_makes_is_for_the_owner_of_the_one_above() {
        if !geteuid().is_root() {
            println!("not checked: it needs root");
            return;
        }
        let above = tempfile::tempdir().unwrap();
        lchown(above.path(), Some(65_534), Some(65_534)).unwrap();
        let path = above.path().join("backups/b.tar.gz");
        Partial::begin(&path).unwrap().keep().unwrap();
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        assert_eq!((owner(path.parent().unwrap()), owner(&path)), (65_534, 0));
    }

    #[test]
    fn the_newest_stay_and_what_is_not_ours_too() {
        let directory = tempfile::tempdir().unwrap();
        let at = |second: i64| name(Timestamp::from_second(second).unwrap());
        let others =
            ["charliehub-notes.tar.gz", "other.tar.gz", ".x.partial", &name_of_replaced(Timestamp::UNIX_EPOCH)];
        for name in others {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        for second in 1..=5 {
            fs::write(directory.path().join(at(second)), "x").unwrap();
        }
        fs::write(directory.path().join(format!(".{}.1.partial", at(9))), "half").unwrap();
        let writing = Partial::begin(&directory.path().join(at(8))).unwrap();
        let gone = tidy(directory.path(), Some(2)).unwrap();
        assert_eq!(gone.len(), 3);
        let mut wanted: Vec<String> = others.iter().map(ToString::to_string).collect();
        wanted.extend([at(4), at(5), writing.draft.file_name().unwrap().to_str().unwrap().to_owned()]);
        wanted.sort();
        assert_eq!(names(directory.path()), wanted);
        assert!(tidy(directory.path(), None).unwrap().is_empty());
    }
}
