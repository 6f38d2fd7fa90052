//! What instances do not take, kept on disk: a start must not send it to them once more.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::Holds;

const FILE: &str = "held-back.json";

/// Writes it whole, or leaves what was there.
pub fn write(dir: &Path, holds: &Holds) -> io::Result<()> {
    let next = dir.join("held-back.tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(&serde_json::to_vec(holds)?)?;
    file.sync_all()?;
    fs::rename(next, dir.join(FILE))
}

/// What was kept; nothing where there is none, or none that can be read.
pub fn read(dir: &Path) -> Holds {
    let path = dir.join(FILE);
    let read = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Holds::new(),
        Err(error) => Err(error),
    };
    read.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "what Traefiks do not take cannot be read; they are given it again");
        Holds::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_empty());
        write(dir.path(), &Holds::from([("hub2".to_owned(), Vec::new())])).unwrap();
        assert_eq!(read(dir.path()).len(), 1);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(read(dir.path()).is_empty());
    }
}
