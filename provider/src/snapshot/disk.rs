//! The last known good config, kept on disk for a start without a database.
//!
//! `snapshot` in the data directory: magic, length and JSON of [`Meta`], the gzip body, the rows it came from as gzip lines of
//! JSON, and the SHA-256 of all that, written and read piece by piece: the rows are never in memory twice. It is written as
//! `snapshot.tmp`, synced, and renamed, after the old one was linked as `snapshot.1`; so at any moment one of the two is
//! whole. What does not pass its checksum and decode is never served.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    guard::Size,
    row::{Key, Row, Rows},
    snapshot::encode::Encoded,
    store::sync::Held,
};

const MAGIC: &[u8; 8] = b"CHSNAP\x00\x02";
/// Of builds whose rows are one array.
const EARLIER: &[u8; 8] = b"CHSNAP\x00\x01";
const DIGEST: usize = 32;
/// More than this is no snapshot of ours, whatever its header claims.
const MAX_BYTES: u64 = 4 << 30;
const BUFFER: usize = 64 << 10;

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
    /// Told by earlier builds; else the rows are all that is left.
    #[serde(default, skip_serializing)]
    rows: Option<usize>,
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
    // A left-over of a crash may belong to another user or be read-only.
    if let Err(source) = fs::remove_file(&path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(source));
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let written = encode(good, BufWriter::with_capacity(BUFFER, &file)).and_then(|_| file.sync_all());
    written.map_err(|source| {
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

fn encode<W: Write>(good: &Good, out: W) -> io::Result<W> {
    let meta = serde_json::to_vec(&Meta {
        revision: good.held.revision,
        token: good.held.token,
        digest: good.encoded.digest.to_string(),
        routes: good.size.routes,
        quarantined: good.size.quarantined,
        body: good.encoded.gzip.len(),
        rows: None,
    })?;
    let mut out = Summed { out, sum: Sha256::new() };
    out.write_all(MAGIC)?;
    out.write_all(&u32::try_from(meta.len()).unwrap_or(u32::MAX).to_be_bytes())?;
    out.write_all(&meta)?;
    for piece in good.encoded.gzip.pieces() {
        out.write_all(piece)?;
    }
    let mut rows = BufWriter::with_capacity(BUFFER, GzEncoder::new(out, Compression::fast()));
    for (key, row) in &good.rows {
        serde_json::to_writer(&mut rows, &(key, &**row))?;
        rows.write_all(b"\n")?;
    }
    let rows = rows.into_inner().map_err(io::IntoInnerError::into_error)?;
    let Summed { mut out, sum } = rows.finish()?;
    out.write_all(&sum.finalize())?;
    out.flush()?;
    Ok(out)
}

/// Adds up what passes.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
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
    let (magic, rest) = content.split_first_chunk::<8>().ok_or("it is too short")?;
    let read = match magic {
        MAGIC => rows_of,
        EARLIER => rows_of_array,
        _ => return Err("it is of another format".into()),
    };
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it has no header")?;
    let (meta, rest) = split(rest, u32::from_be_bytes(*length) as usize)?;
    let meta: Meta = serde_json::from_slice(meta).map_err(|error| format!("its header: {error}"))?;
    let (body, rest) = split(rest, meta.body)?;
    let (rows, _) = split(rest, meta.rows.unwrap_or(rest.len()))?;
    let plain = length_of(body).map_err(|error| format!("its body: {error}"))?;
    let encoded = Encoded::compressed(meta.digest.into(), Bytes::copy_from_slice(body), plain);
    let rows = read(rows).map_err(|error| format!("its rows: {error}"))?;
    Ok(Good {
        held: Held { revision: meta.revision, token: meta.token },
        size: Size { routes: meta.routes, quarantined: meta.quarantined },
        encoded: Arc::new(encoded),
        rows,
    })
}

/// How long a body is when it is decompressed, if it is JSON.
pub(super) fn length_of(gzip: &[u8]) -> io::Result<usize> {
    struct Counted<R>(R, usize);
    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(into)?;
            self.1 += read;
            Ok(read)
        }
    }
    let mut counted = Counted(GzDecoder::new(gzip), 0);
    serde_json::from_reader::<_, IgnoredAny>(BufReader::with_capacity(BUFFER, &mut counted))?;
    Ok(counted.1)
}

/// Rows into their map, line by line: what is parsed from a slice takes half the time.
fn rows_of(gzip: &[u8]) -> io::Result<Rows> {
    let mut lines = BufReader::with_capacity(BUFFER, GzDecoder::new(gzip));
    let (mut rows, mut line) = (Rows::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        let (key, row): (Key, Row) = serde_json::from_slice(&line)?;
        rows.insert(key, Arc::new(row));
        line.clear();
    }
    Ok(rows)
}

fn rows_of_array(gzip: &[u8]) -> io::Result<Rows> {
    let rows: Vec<(Key, Row)> = serde_json::from_reader(BufReader::with_capacity(BUFFER, GzDecoder::new(gzip)))?;
    Ok(rows.into_iter().map(|(key, row)| (key, Arc::new(row))).collect())
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), String> {
    bytes.split_at_checked(at).ok_or_else(|| "it is cut short".to_owned())
}

/// Decompresses a body.
pub fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    inflate(bytes)
}

/// The same of one that is read.
pub fn inflate(gzip: impl Read) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(gzip).take(MAX_BYTES).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{row::BadRow, snapshot::encode::gzip};

    fn good(revision: i64) -> Good {
        let identity = Bytes::from_static(br#"{"http":{}}"#);
        Good {
            held: Held { revision, token: Uuid::nil() },
            size: Size { routes: 1, quarantined: 0 },
            encoded: Arc::new(Encoded::compressed("d".into(), gzip(&identity), identity.len())),
            rows: [1, 2].map(|n| (Key::domain(Uuid::from_u128(n)), row(&format!("{n}\nlines")))).into(),
        }
    }

    fn row(reason: &str) -> Arc<Row> {
        Arc::new(Row::Bad(BadRow { raw: serde_json::json!({"domain": "a.test"}), reason: reason.to_owned() }))
    }

    #[test]
    fn the_newest_whole_one_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).0.is_none());
        for revision in 1..=3 {
            write(dir.path(), &good(revision)).unwrap();
            let found = read(dir.path()).0.unwrap();
            assert_eq!((found.held.revision, found.rows), (revision, good(revision).rows));
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
    fn what_an_earlier_build_wrote_is_read() {
        let good = good(3);
        let Encoded { gzip: body, digest, .. } = &*good.encoded;
        let body = body.pieces().concat();
        let rows: Vec<(&Key, &Row)> = good.rows.iter().map(|(key, row)| (key, &**row)).collect();
        let rows = gzip(&serde_json::to_vec(&rows).unwrap());
        let (token, length, rows_length) = (Uuid::nil(), body.len(), rows.len());
        let meta = serde_json::json!({
            "revision": 3, "token": token, "digest": digest, "routes": 1, "quarantined": 0, "body": length, "rows": rows_length,
        });
        let meta = serde_json::to_vec(&meta).unwrap();
        let mut bytes = [&EARLIER[..], &u32::try_from(meta.len()).unwrap().to_be_bytes(), &meta, &body, &rows].concat();
        bytes.extend(Sha256::digest(&bytes));
        let found = decode(&bytes).unwrap();
        assert_eq!((found.held, found.size, found.rows), (good.held, good.size, good.rows));
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
            let mut bytes = encode(&good(7), Vec::new()).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
