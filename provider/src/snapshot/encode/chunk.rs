//! The entries of a section, in chunks that a change elsewhere leaves alone.
//!
//! Where a chunk ends is told by the name of its last entry alone. So the same entries are the same chunks, whatever was
//! there before, and a changed entry makes one chunk again, or two where it was the last of one.

use std::{
    collections::BTreeMap,
    iter::Peekable,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{crc::Crc, deflate};
use crate::compile::Section;

/// One name in so many ends a chunk: small enough to be made again in microseconds, large enough to compress well.
const ENTRIES: u32 = 64;

type Entries = BTreeMap<Arc<str>, Arc<str>>;

/// Some entries of a section, with the commas between them and, but for the first of the section, the one before them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The name of its last entry.
    last: Arc<str>,
    pub(super) hash: [u8; 32],
    pub(super) crc: Crc,
    pub(super) length: usize,
    pub(super) deflated: Box<[u8]>,
}

impl Chunk {
    fn of(bytes: &[u8], last: &Arc<str>) -> Self {
        Self {
            last: Arc::clone(last),
            hash: Sha256::digest(bytes).into(),
            crc: Crc::of(bytes),
            length: bytes.len(),
            deflated: deflate::part(bytes).into(),
        }
    }
}

/// Makes all chunks of a section.
pub(super) fn all(section: Section, entries: &Entries) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    update(section, &mut chunks, entries, entries.keys().take(1));
    chunks
}

/// Makes those chunks again in which a name is that was changed, added or removed; `changed` is in order.
pub(super) fn update<'a>(
    section: Section,
    chunks: &mut Vec<Chunk>,
    entries: &Entries,
    changed: impl Iterator<Item = &'a Arc<str>>,
) {
    let mut changed = changed.peekable();
    let mut bytes = Vec::new();
    while let Some(name) = changed.next() {
        // Behind the last one is where that goes on, unless it ended.
        let from = chunks.partition_point(|chunk| chunk.last < *name).min(chunks.len().saturating_sub(1));
        let before = from.checked_sub(1).and_then(|before| chunks.get(before)).map(|chunk| Arc::clone(&chunk.last));
        let rest = entries.range((before.map_or(Unbounded, Excluded), Unbounded));
        let (mut until, mut fresh, mut open) = (None, Vec::new(), None);
        // The first entry of most sections has no comma; that of the middlewares follows the marker.
        let mut comma = from > 0 || section == Section::HttpMiddlewares;
        for (entry, json) in rest {
            write(&mut bytes, section, comma, entry, json);
            (comma, open) = (true, Some(entry));
            if !ends(section, entry) {
                continue;
            }
            fresh.push(Chunk::of(&bytes, entry));
            bytes.clear();
            open = None;
            if entry < name {
                continue;
            }
            skip(&mut changed, entry);
            if let Ok(at) = chunks.binary_search_by(|chunk| chunk.last.cmp(entry)) {
                // What follows is as it was, up to the next that was changed.
                until = Some(at + 1);
                break;
            }
        }
        if let Some(last) = open {
            fresh.push(Chunk::of(&bytes, last));
            bytes.clear();
        }
        chunks.splice(from..until.unwrap_or(chunks.len()), fresh);
        if until.is_none() {
            // All that follows was made again.
            return;
        }
    }
}

/// Passes by the names up to `entry`.
fn skip<'a>(changed: &mut Peekable<impl Iterator<Item = &'a Arc<str>>>, entry: &Arc<str>) {
    while changed.next_if(|name| *name <= entry).is_some() {}
}

/// True for the last entry of a chunk. A list tells no names, so it is one chunk: what does not show must not count.
fn ends(section: Section, name: &str) -> bool {
    let mut crc = flate2::Crc::new();
    crc.update(name.as_bytes());
    // Multiplied, since names that differ in a digit have sums that differ in few bits.
    section != Section::TlsCertificates && crc.sum().wrapping_mul(0x9E37_79B1) < u32::MAX / ENTRIES
}

fn write(bytes: &mut Vec<u8>, section: Section, comma: bool, name: &str, json: &str) {
    if comma {
        bytes.push(b',');
    }
    if section != Section::TlsCertificates {
        key(bytes, name);
    }
    bytes.extend_from_slice(json.as_bytes());
}

pub(super) fn key(bytes: &mut Vec<u8>, name: &str) {
    // Names were checked when they were compiled; what JSON must escape is escaped all the same.
    drop(serde_json::to_writer(&mut *bytes, name));
    bytes.push(b':');
}
