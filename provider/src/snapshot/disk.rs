//! The last known good config, kept on disk for a start without a database.
//!
//! `snapshot` in the data directory: magic, length and JSON of [`Meta`], the gzip body, the gzip JSON of the rows it came
//! from, and the SHA-256 of all that. It is written as `snapshot.tmp`, synced, and renamed, after the old one was linked as
//! `snapshot.1`; so at any moment one of the two is whole. What does not pass its checksum and decode is never served.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    guard::Size,
    row::{Key, Row, Rows},
    snapshot::encode::{Encoded, gzip},
    store::sync::Held,
};

const MAGIC: &[u8; 8] = b"CHSNAP\x00\x01";
const DIGEST: usize = 32;
/// More than this is no snapshot of ours, whatever its header claims.
const MAX_BYTES: u64 = 4 << 30;

/// A config as it was served, with the rows that it came from.
#[derive(Debug)]
pub struct Good {
    pub held: Held,
    pub size: Size,
    pub encoded: Arc<Encoded>,
    pub rows: Rows,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    revision: i64,
    token: Uuid,
    digest: String,
    routes: usize,
    quarantined: usize,
    body: usize,
    rows: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
}

/// Writes `good` so that a crash at any moment leaves the old or the new one, whole.
pub fn write(dir: &Path, good: &Good) -> Result<(), Error> {
    let path = dir.join("snapshot.tmp");
    let failed = |source| Error::Io { path: path.clone(), source };
    let bytes = encode(good).map_err(failed)?;
    // A left-over of a crash may belong to another user or be read-only.
    if let Err(source) = fs::remove_file(&path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(source));
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|source| {
        drop(fs::remove_file(&path));
        failed(source)
    })?;
    let (newest, previous) = (dir.join("snapshot"), dir.join("snapshot.1"));
    let linked = dir.join("snapshot.1.tmp");
    let keep_old = || -> io::Result<()> {
        match fs::remove_file(&linked) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::hard_link(&newest, &linked) {
            Ok(()) => fs::rename(&linked, &previous),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    };
    keep_old().map_err(|source| Error::Io { path: previous.clone(), source })?;
    fs::rename(&path, &newest).map_err(|source| Error::Io { path: newest.clone(), source })?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| Error::Io { path: dir.to_owned(), source })
}

/// The newest whole one, and what was wrong with a newer one that is not.
pub fn read(dir: &Path) -> (Option<Good>, Vec<Error>) {
    let mut errors = Vec::new();
    for name in ["snapshot", "snapshot.1"] {
        match read_one(&dir.join(name)) {
            Ok(good) => return (Some(good), errors),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(error),
        }
    }
    (None, errors)
}

fn encode(good: &Good) -> io::Result<Vec<u8>> {
    let rows: Vec<(&Key, &Row)> = good.rows.iter().map(|(key, row)| (key, &**row)).collect();
    let rows = gzip(&serde_json::to_vec(&rows)?);
    let body = &good.encoded.gzip;
    let meta = serde_json::to_vec(&Meta {
        revision: good.held.revision,
        token: good.held.token,
        digest: good.encoded.digest.to_string(),
        routes: good.size.routes,
        quarantined: good.size.quarantined,
        body: body.len(),
        rows: rows.len(),
    })?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + meta.len() + body.len() + rows.len() + DIGEST);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(meta.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&meta);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&rows);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

fn read_one(path: &Path) -> Result<Good, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    decode(&bytes).map_err(|what| Error::Damaged { path: path.to_owned(), what })
}

fn decode(bytes: &[u8]) -> Result<Good, String> {
    let (content, checksum) = bytes.split_last_chunk::<DIGEST>().ok_or("it is too short")?;
    if Sha256::digest(content)[..] != checksum[..] {
        return Err("its checksum does not match".into());
    }
    let rest = content.strip_prefix(MAGIC).ok_or("it is of another format")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it has no header")?;
    let (meta, rest) = split(rest, u32::from_be_bytes(*length) as usize)?;
    let meta: Meta = serde_json::from_slice(meta).map_err(|error| format!("its header: {error}"))?;
    let (body, rest) = split(rest, meta.body)?;
    let (rows, _) = split(rest, meta.rows)?;
    let identity = gunzip(body).map_err(|error| format!("its body: {error}"))?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&identity).map_err(|error| format!("its body: {error}"))?;
    let rows = gunzip(rows).map_err(|error| format!("its rows: {error}"))?;
    let rows: Vec<(Key, Row)> = serde_json::from_slice(&rows).map_err(|error| format!("its rows: {error}"))?;
    Ok(Good {
        held: Held { revision: meta.revision, token: meta.token },
        size: Size { routes: meta.routes, quarantined: meta.quarantined },
        encoded: Arc::new(Encoded::of(meta.digest.into(), identity.into(), Bytes::copy_from_slice(body))),
        rows: rows.into_iter().map(|(key, row)| (key, Arc::new(row))).collect(),
    })
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), String> {
    bytes.split_at_checked(at).ok_or_else(|| "it is cut short".to_owned())
}

/// Decompresses a body.
pub fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(MAX_BYTES).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(revision: i64) -> Good {
        let identity = Bytes::from_static(br#"{"http":{}}"#);
        Good {
            held: Held { revision, token: Uuid::nil() },
            size: Size { routes: 1, quarantined: 0 },
            encoded: Arc::new(Encoded::of("d".into(), identity.clone(), gzip(&identity))),
            rows: Rows::new(),
        }
    }

    #[test]
    fn the_newest_whole_one_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).0.is_none());
        for revision in 1..=3 {
            write(dir.path(), &good(revision)).unwrap();
            assert_eq!(read(dir.path()).0.unwrap().held.revision, revision);
        }
        for damage in ["", "CHSNAP", "not at all a snapshot, but long enough to be one"] {
            fs::write(dir.path().join("snapshot"), damage).unwrap();
            let (found, errors) = read(dir.path());
            assert_eq!((found.unwrap().held.revision, errors.len()), (2, 1), "{damage:?}");
        }
        fs::remove_file(dir.path().join("snapshot")).unwrap();
        fs::create_dir(dir.path().join("snapshot")).unwrap();
        assert_eq!(read(dir.path()).0.unwrap().held.revision, 2, "a directory in its place");
    }

    #[test]
    fn a_failed_write_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &good(1)).unwrap();
        fs::create_dir(dir.path().join("snapshot.tmp")).unwrap();
        write(dir.path(), &good(2)).unwrap_err();
        assert_eq!(read(dir.path()).0.unwrap().held.revision, 1);
    }

    proptest! {
        /// One flipped bit, or a cut anywhere, is always noticed.
        #[test]
        fn damage_is_noticed(at in 0..10_000usize, bit in 0..8u8, cut: bool) {
            let mut bytes = encode(&good(7)).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
