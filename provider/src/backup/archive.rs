//! The file of a backup: a tar in gzip, as `tar -xzf` unpacks it, and sealed by a checksum over every byte.
//!
//! Its first gzip member says in its comment what it is. Behind the tar comes an empty second one, which holds the SHA-256
//! of all bytes before it: gzip passes over it, and whatever is damaged, cut or added is noticed before anything is read
//! out of the file. Entries are small enough to be held in memory; a large table comes in several.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// What the first member's comment says.
const MARK: &[u8] = b"charliehub backup 1";
/// The fixed header of gzip: a comment, no time, no system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 255];
/// The last member up to the checksum: an extra field `CH` of 32 bytes.
const SEAL_HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 36, 0, b'C', b'H', 32, 0];
/// And behind it: an empty block, its checksum and length.
const SEAL_TAIL: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SEAL: usize = SEAL_HEAD.len() + 32 + SEAL_TAIL.len();
const BLOCK: usize = 512;
/// A value of PostgreSQL's is at most 1 GiB, and twice that as text.
const LARGEST: u64 = 3 << 30;

/// What is wrong with a file that should be a backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no backup of charliehub-provider{0}")]
    Foreign(&'static str),
    #[error("it was made in another format, by a newer charliehub-provider; restore it with that one")]
    Format,
    #[error("it is damaged or cut short: {0}; take another backup")]
    Damaged(&'static str),
}

/// Writes entries one after the other.
pub struct Writer<W: Write> {
    gzip: GzEncoder<Summed<W>>,
    /// Seconds since 1970, for whoever unpacks it.
    time: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, time: u64) -> Self {
        let summed = Summed { out, sum: Sha256::new(), bytes: 0 };
        let gzip = GzBuilder::new().comment(MARK).operating_system(255).write(summed, Compression::new(5));
        Self { gzip, time }
    }

    pub fn entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.gzip.write_all(&header(name, content.len(), self.time)?)?;
        self.gzip.write_all(content)?;
        let padding = content.len().wrapping_neg() % BLOCK;
        self.gzip.write_all([0; BLOCK].get(..padding).unwrap_or_default())
    }

    /// Seals it. What it was written to, and how long it is, in bytes.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.gzip.write_all(&[0; 2 * BLOCK])?;
        let Summed { mut out, sum, bytes } = self.gzip.finish()?;
        out.write_all(&seal(&sum.finalize()))?;
        out.flush()?;
        Ok((out, bytes + SEAL as u64))
    }
}

fn seal(sum: &[u8]) -> Vec<u8> {
    [SEAL_HEAD.as_slice(), sum, SEAL_TAIL.as_slice()].concat()
}

/// Adds up what passes.
struct Summed<W> {
    out: W,
    sum: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or(bytes));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The header of a plain file that is its owner's alone, as POSIX has it.
fn header(name: &str, size: usize, time: u64) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let (size, time) = (format!("{size:011o}"), format!("{time:011o}"));
    let fields: [(usize, usize, &[u8]); 10] = [
        (0, 100, name.as_bytes()),
        (100, 8, b"0000600"),
        (108, 8, b"0000000"),
        (116, 8, b"0000000"),
        (124, 12, size.as_bytes()),
        (136, 12, time.as_bytes()),
        (148, 8, b"        "), // counted as blanks
        (156, 1, b"0"),
        (257, 6, b"ustar"),
        (263, 2, b"00"),
    ];
    for (at, most, text) in fields {
        let field = block.get_mut(at..at + text.len()).filter(|_| text.len() <= most);
        field.ok_or_else(|| io::Error::other("an entry's name or size is too long"))?.copy_from_slice(text);
    }
    let sum = format!("{:06o}\0 ", block.iter().map(|byte| u32::from(*byte)).sum::<u32>());
    if let Some(field) = block.get_mut(148..156) {
        field.copy_from_slice(sum.as_bytes());
    }
    Ok(block)
}

/// True when a file begins as our backups do.
pub fn begins_as_one(file: &mut impl Read) -> io::Result<bool> {
    let mut head = [0; HEAD.len() + MARK.len()];
    match file.read_exact(&mut head) {
        Ok(()) => Ok(head.starts_with(&HEAD) && head.ends_with(MARK)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Holds every byte of the file against its seal.
pub fn verify(file: &mut File) -> Result<(), Error> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut head = Vec::new();
    file.take((HEAD.len() + MARK.len()) as u64).read_to_end(&mut head)?;
    let (start, mark) = head.split_at(head.len().min(HEAD.len()));
    if start != HEAD || mark != MARK {
        let (kind, version) = MARK.split_at(MARK.len() - 1);
        return Err(if start == HEAD && mark.starts_with(kind) && mark.get(kind.len()..) != Some(version) {
            Error::Format
        } else if head.is_empty() {
            Error::Foreign(": it is empty")
        } else if head.starts_with(b"age-encryption") || head.starts_with(b"-----BEGIN") {
            Error::Foreign(", or encrypted; decrypt it into `charliehub-provider restore -`")
        } else {
            Error::Foreign("")
        });
    }
    let Some(content) = length.checked_sub(SEAL as u64) else { return Err(Error::Damaged("it is too short")) };
    file.rewind()?;
    let (mut sum, mut rest) = (Sha256::new(), content);
    let mut buffer = vec![0; 1 << 16];
    while rest > 0 {
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(Error::Damaged("it became shorter while it was read"));
        }
        sum.update(buffer.get(..read).unwrap_or_default());
        rest -= read as u64;
    }
    let mut found = [0; SEAL];
    file.read_exact(&mut found)?;
    if !found.starts_with(&SEAL_HEAD) || !found.ends_with(&SEAL_TAIL) {
        return Err(Error::Damaged("its end is missing"));
    }
    if found.as_slice() != seal(&sum.finalize()) {
        return Err(Error::Damaged("its checksum does not match"));
    }
    Ok(())
}

/// Reads the entries of a file, from its beginning.
pub struct Entries {
    gzip: MultiGzDecoder<BufReader<File>>,
}

impl Entries {
    pub fn of(file: &File) -> Result<Self, Error> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(Self { gzip: MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)) })
    }

    /// Name and content of the next one.
    pub fn read(&mut self) -> Result<Option<(String, Vec<u8>)>, Error> {
        let mut block = [0; BLOCK];
        self.gzip.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let odd = || Error::Damaged("it holds a tar that we do not write");
        let text = |at: usize, most: usize| {
            let field = block.get(at..at + most).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            std::str::from_utf8(field.get(..end).unwrap_or_default()).unwrap_or_default().to_owned()
        };
        let number = |at, most| u64::from_str_radix(&text(at, most), 8).map_err(|_| odd());
        let (name, size, time) = (text(0, 100), number(124, 12)?, number(136, 12)?);
        let length = usize::try_from(size).ok().filter(|_| size <= LARGEST).ok_or_else(odd)?;
        if header(&name, length, time)? != block {
            return Err(odd());
        }
        let mut content = Vec::new();
        (&mut self.gzip).take(size).read_to_end(&mut content)?;
        let padding = length.wrapping_neg() % BLOCK;
        self.gzip.read_exact(block.get_mut(..padding).unwrap_or_default())?;
        if content.len() == length { Ok(Some((name, content))) } else { Err(odd()) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), 1_700_000_000);
        writer.entry("one", b"1\n").unwrap();
        writer.entry("empty", b"").unwrap();
        writer.entry("block", &[b'x'; BLOCK]).unwrap();
        let (bytes, length) = writer.finish().unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut file = file(&sample());
        verify(&mut file).unwrap();
        for _ in 0..2 {
            let mut entries = Entries::of(&file).unwrap();
            let mut found = Vec::new();
            while let Some((name, content)) = entries.read().unwrap() {
                found.push((name, content.len()));
            }
            assert_eq!(found, [("one".to_owned(), 2), ("empty".to_owned(), 0), ("block".to_owned(), BLOCK)]);
        }
    }

    #[test]
    fn tar_unpacks_it_without_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.tar.gz");
        std::fs::write(&path, sample()).unwrap();
        let tar = Command::new("tar").arg("-C").arg(directory.path()).arg("-xzf").arg(&path).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
        assert_eq!(std::fs::read_to_string(directory.path().join("one")).unwrap(), "1\n");
        assert!(Command::new("gzip").arg("-t").arg(&path).status().unwrap().success());
    }

    #[test]
    fn any_damage_is_noticed() {
        let whole = sample();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(verify(&mut file(&bytes)).is_err(), "byte {at}");
            assert!(verify(&mut file(&whole[..at])).is_err(), "cut at {at}");
        }
        let longer = [whole.as_slice(), b"\n"].concat();
        assert!(matches!(verify(&mut file(&longer)), Err(Error::Damaged(_))));
        for (text, why) in [("", "empty"), ("age-encryption.org/v1\n", "decrypt"), ("-- PostgreSQL dump", "no backup")]
        {
            let error = verify(&mut file(text.as_bytes())).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let newer = [&HEAD, b"charliehub backup 2\0 and more".as_slice()].concat();
        assert!(matches!(verify(&mut file(&newer)), Err(Error::Format)));
    }
}
