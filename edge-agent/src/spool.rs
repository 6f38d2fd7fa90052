//! Reports on their way: kept on disk until the provider has them, in order, across restarts, within bounds.
//!
//! Files `spool/%020d.jsonl` of at most 1 MiB, each line a checksum and a report; a report is appended and synced before it
//! counts. What a crash tore off is cut at the next start. When there are too many, the oldest that tell no change go
//! first, but for the very oldest, which is the next to be delivered; when the disk takes none, the newest 100 are held in memory. What is lost is counted, and the next report says so.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use charliehub_proto::report::Report;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Bounds of a spool.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one file.
    pub segment: u64,
    /// Bytes of all.
    pub bytes: u64,
    pub entries: usize,
    /// Reports in memory, while the disk takes none.
    pub memory: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { segment: 1 << 20, bytes: 64 << 20, entries: 20_000, memory: 100 }
    }
}

/// The reports that wait, the oldest first.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    bounds: Bounds,
    /// One for each start of the agent, so that a number is never used twice.
    install: Uuid,
    seq: u64,
    /// The number of the next file.
    next: u64,
    /// On disk; all in `Line`s, in their order. Those in memory come after them.
    lines: VecDeque<Line>,
    memory: VecDeque<(Report, bool)>,
    bytes: u64,
    lost: u64,
}

/// Where a report is.
#[derive(Clone, Copy, Debug)]
struct Line {
    file: u64,
    offset: u64,
    length: u32,
    /// It tells a change.
    is_news: bool,
}

/// Length of the checksum and the mark before a report: `0123abcd+ {...}`.
const HEAD: usize = 10;

impl Spool {
    /// Opens what a former start left, and cuts off what is torn.
    pub fn open(state_dir: &Path, bounds: Bounds) -> io::Result<Self> {
        let mut spool = Self::without_disk(state_dir, bounds);
        fs::create_dir_all(&spool.dir)?;
        let mut files: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&spool.dir)? {
            let name = entry?.file_name();
            files
                .extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|n| n.parse::<u64>().ok()));
        }
        files.sort_unstable();
        spool.next = files.last().map_or(1, |last| last + 1);
        for file in files {
            spool.recover(file)?;
        }
        spool.shrink();
        Ok(spool)
    }

    /// One that holds in memory only, for a state directory that cannot be used.
    pub fn without_disk(state_dir: &Path, bounds: Bounds) -> Self {
        Self {
            dir: state_dir.join("spool"),
            bounds,
            install: Uuid::new_v4(),
            seq: 0,
            next: 1,
            lines: VecDeque::new(),
            memory: VecDeque::new(),
            bytes: 0,
            lost: 0,
        }
    }

    fn recover(&mut self, file: u64) -> io::Result<()> {
        let path = self.path(file);
        let bytes = fs::read(&path)?;
        let mut offset = 0;
        let mut whole = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let length = line.len();
            let is_sound = line.strip_suffix(b"\n").is_some_and(|line| sound(line).is_some());
            if is_sound {
                let is_news = line.get(HEAD - 2) == Some(&b'+');
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                self.lines.push_back(Line { file, offset, length, is_news });
                self.bytes += u64::from(length);
                whole = offset + u64::from(length);
            } else {
                self.lost += 1;
            }
            offset += length as u64;
        }
        if whole == 0 {
            return fs::remove_file(&path);
        }
        if whole < offset {
            tracing::warn!(path = %path.display(), bytes = offset - whole, "the end of a spool file was torn and is cut off");
            OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
        }
        Ok(())
    }

    /// Numbers a report and keeps it. `is_news`: it tells a change.
    pub fn push(&mut self, mut report: Report, is_news: bool) {
        self.seq += 1;
        (report.install, report.seq) = (self.install, self.seq);
        report.lost = std::mem::take(&mut self.lost);
        self.settle();
        let kept = if self.memory.is_empty() { self.append(&report, is_news) } else { Err(None) };
        if let Err(error) = kept {
            if let Some(error) = error {
                tracing::warn!(%error, dir = %self.dir.display(), "the spool's disk takes no report; they are held in memory");
            }
            self.memory.push_back((report, is_news));
        }
        self.shrink();
    }

    /// Moves what is in memory to the disk, once it takes reports again.
    fn settle(&mut self) {
        while let Some((report, is_news)) = self.memory.pop_front() {
            if self.append(&report, is_news).is_err() {
                self.memory.push_front((report, is_news));
                return;
            }
        }
    }

    fn append(&mut self, report: &Report, is_news: bool) -> Result<(), Option<io::Error>> {
        let json = serde_json::to_vec(report).map_err(|error| Some(error.into()))?;
        let mut line = Vec::with_capacity(json.len() + HEAD + 1);
        line.extend(format!("{}{} ", sum(&json), if is_news { '+' } else { '=' }).bytes());
        line.extend(&json);
        line.push(b'\n');
        let length = u32::try_from(line.len()).map_err(|_| None)?;
        let (file, offset) = match self.lines.back() {
            Some(last) if last.file + 1 == self.next && last.end() + u64::from(length) <= self.bounds.segment => {
                (last.file, last.end())
            }
            _ => (self.next, 0),
        };
        fs::create_dir_all(&self.dir).map_err(Some)?;
        let path = self.path(file);
        let write = || {
            let mut to = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            to.set_len(offset)?; // what a failed write left
            to.seek(SeekFrom::Start(offset))?;
            to.write_all(&line)?;
            to.sync_data()?;
            if offset == 0 { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        };
        write().map_err(Some)?;
        self.next = self.next.max(file + 1);
        self.bytes += u64::from(length);
        self.lines.push_back(Line { file, offset, length, is_news });
        Ok(())
    }

    /// The oldest report as JSON. None: all are delivered. One that cannot be read any more is lost.
    pub fn front(&mut self) -> Option<Vec<u8>> {
        while let Some(line) = self.lines.front().copied() {
            match self.read(line) {
                Ok(json) => return Some(json),
                Err(error) => {
                    tracing::warn!(%error, dir = %self.dir.display(), "a spooled report cannot be read and is lost");
                    self.lost += 1;
                    self.pop();
                }
            }
        }
        self.memory.front().and_then(|(report, _)| serde_json::to_vec(report).ok())
    }

    fn read(&self, line: Line) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; line.length as usize];
        let mut file = File::open(self.path(line.file))?;
        file.seek(SeekFrom::Start(line.offset))?;
        file.read_exact(&mut bytes)?;
        let json = bytes.strip_suffix(b"\n").and_then(sound).map(<[u8]>::to_vec);
        json.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"))
    }

    /// Forgets the oldest: it is delivered.
    pub fn pop(&mut self) {
        let Some(line) = self.lines.pop_front() else {
            self.memory.pop_front();
            return;
        };
        self.bytes -= u64::from(line.length);
        if self.lines.front().is_none_or(|next| next.file != line.file) {
            fs::remove_file(self.path(line.file)).ok(); // delivered again after a restart is no harm
        }
    }

    /// Puts the oldest aside, in `rejected/`: the provider will never take it. At most 100 are kept there.
    pub fn reject(&mut self) {
        if let Some(json) = self.front() {
            let aside = self.dir.with_file_name("rejected");
            let kept = fs::read_dir(&aside).map_or(0, Iterator::count);
            if kept < 100 {
                let write = fs::create_dir_all(&aside)
                    .and_then(|()| fs::write(aside.join(format!("{}-{}.json", self.install, self.seq)), json));
                write.unwrap_or_else(|error| tracing::warn!(%error, "a rejected report is not kept"));
            }
        }
        self.pop();
    }

    /// Reports that wait.
    pub fn len(&self) -> usize {
        self.lines.len() + self.memory.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reports that were lost and that no report has told yet.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Drops what is too much: down to nine tenths, so that it is done seldom. Never the oldest: it may be on its way, and
    /// [`Self::pop`] would take the next one for it.
    fn shrink(&mut self) {
        let kept = usize::from(self.lines.is_empty());
        while self.memory.len() > self.bounds.memory.max(1) {
            let mut droppable = self.memory.iter().enumerate().skip(kept);
            let oldest = droppable.find(|(_, (_, is_news))| !is_news).map_or(kept, |(at, _)| at);
            self.memory.remove(oldest);
            self.lost += 1;
        }
        if self.lines.len() <= self.bounds.entries && self.bytes <= self.bounds.bytes {
            return;
        }
        let entries = self.bounds.entries / 10 * 9;
        let bytes = self.bounds.bytes / 10 * 9;
        let mut touched = BTreeSet::new();
        for only_dull in [true, false] {
            let mut left = self.lines.len();
            for (at, line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
                if at > 0 && (left > entries || self.bytes > bytes) && !(only_dull && line.is_news) {
                    left -= 1;
                    self.bytes -= u64::from(line.length);
                    self.lost += 1;
                    touched.insert(line.file);
                } else {
                    self.lines.push_back(line);
                }
            }
        }
        for file in touched {
            if let Err(error) = self.compact(file) {
                tracing::warn!(%error, path = %self.path(file).display(), "dropped reports still take room in the spool");
            }
        }
    }

    /// Rewrites a file with the lines that are still wanted.
    fn compact(&mut self, file: u64) -> io::Result<()> {
        let path = self.path(file);
        let old = fs::read(&path)?;
        let mut draft = tempfile::NamedTempFile::new_in(&self.dir)?;
        let mut offset = 0;
        let mut lines = self.lines.clone();
        for line in lines.iter_mut().filter(|line| line.file == file) {
            let from = usize::try_from(line.offset).unwrap_or(usize::MAX);
            draft.write_all(old.get(from..from + line.length as usize).unwrap_or_default())?;
            line.offset = offset;
            offset = line.end();
        }
        if offset == 0 {
            return fs::remove_file(&path);
        }
        draft.as_file().sync_data()?;
        draft.persist(&path)?;
        self.lines = lines;
        Ok(())
    }

    fn path(&self, file: u64) -> PathBuf {
        self.dir.join(format!("{file:020}.jsonl"))
    }
}

impl Line {
    fn end(self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

fn sum(json: &[u8]) -> String {
    let [a, b, c, d, ..] = Sha256::digest(json).0;
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

/// The report of a line whose checksum is right.
fn sound(line: &[u8]) -> Option<&[u8]> {
    let (head, json) = line.split_at_checked(HEAD)?;
    let (checksum, mark) = head.split_at_checked(8)?;
    (matches!(mark, b"+ " | b"= ") && checksum == sum(json).as_bytes()).then_some(json)
}

#[cfg(test)]
mod tests;
