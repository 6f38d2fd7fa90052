//! By what a file is known to be the one that was read before.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

/// Place, size and times of a file: one of them differs after each change, also of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
    written: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            written: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}
