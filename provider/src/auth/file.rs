//! The living tokens on disk, as hashes, so that a start without a database lets polls in.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use super::{Error, Token};

/// The tokens that were kept; none when there is no file.
pub(super) fn read(path: &Path) -> io::Result<Vec<Token>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

pub(super) fn write<'t>(path: &Path, tokens: impl Iterator<Item = &'t Token>) -> Result<(), Error> {
    let bytes = serde_json::to_vec(&tokens.collect::<Vec<_>>()).map_err(io::Error::from);
    bytes.and_then(|bytes| write_private(path, &bytes)).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Replaces a file as a whole, on disk when this returns, for our eyes only (0600).
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(directory)?; // made 0600
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}
