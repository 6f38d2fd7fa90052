//! Tells a file from the one that was there before.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Of a file as it is now: another one after each write, and when another file was renamed over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds; nobody can set it back.
    changed: (i64, i64),
}

impl Stamp {
    /// `None` where there is no file, or none that we may see.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_has_another_stamp() {
        let home = tempfile::tempdir().unwrap();
        let [path, draft] = ["key.pem", "draft"].map(|name| home.path().join(name));
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "one").unwrap();
        let first = Stamp::of(&path);
        assert!(first.is_some());
        assert_eq!(Stamp::of(&path), first);
        fs::write(&draft, "two").unwrap();
        fs::rename(&draft, &path).unwrap();
        assert_ne!(Stamp::of(&path), first);
    }
}
