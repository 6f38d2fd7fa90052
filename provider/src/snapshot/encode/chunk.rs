//! The entries of a section, in chunks that a change elsewhere leaves alone.
//!
//! Where a chunk ends is told by its last entry alone: by its name, or by its size. So the same entries are the same chunks,
//! whatever was there before, and a changed entry makes one chunk again, or two where it was the last of one. A large entry is
//! cut into several, by its text: of a router of thousands of names only what is around a changed one is compressed again.

use std::{
    collections::BTreeMap,
    iter::Peekable,
    ops::{
        Bound::{Excluded, Unbounded},
        Range,
    },
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{crc::Crc, deflate};
use crate::{compile::Section, lot};

/// One name in so many ends a chunk: small enough to be made again in microseconds, large enough to compress well.
const ENTRIES: u32 = 64;
/// An entry of this many bytes ends one too.
const LARGE: usize = 4 << 10;
/// What ends with a large entry is cut into chunks of no less than this, and of this and [`CUT`] on average.
const LEAST: usize = 4 << 10;
/// One place in so many is a cut.
const CUT: u64 = 8 << 10;

type Entries = BTreeMap<Arc<str>, Arc<str>>;

/// Some entries of a section, with the commas between them and, but for the first of the section, the one before them; or
/// some of the bytes of those.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The name of its last entry, whole or not.
    last: Arc<str>,
    pub(super) hash: [u8; 32],
    pub(super) crc: Crc,
    pub(super) length: usize,
    pub(super) deflated: Bytes,
}

impl Chunk {
    /// `old` are those that may have been made of the same bytes.
    fn of(bytes: &[u8], last: &Arc<str>, old: &[Self]) -> Self {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(same) = old.iter().find(|chunk| chunk.hash == hash) {
            return Self { last: Arc::clone(last), ..same.clone() };
        }
        Self {
            last: Arc::clone(last),
            hash,
            crc: Crc::of(bytes),
            length: bytes.len(),
            deflated: Box::<[u8]>::from(deflate::part(bytes)).into(),
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
        let from = match chunks.partition_point(|chunk| chunk.last < *name) {
            // Behind the last one is where that goes on, unless it ended.
            end if end == chunks.len() => chunks.last().map_or(0, |last| ending_with(&last.last, chunks).start),
            from => from,
        };
        let before = from.checked_sub(1).and_then(|before| chunks.get(before)).map(|chunk| Arc::clone(&chunk.last));
        let rest = entries.range((before.map_or(Unbounded, Excluded), Unbounded));
        let (mut until, mut fresh, mut open) = (None, Vec::new(), None);
        // The first entry of most sections has no comma; that of the middlewares follows the marker.
        let mut comma = from > 0 || section == Section::HttpMiddlewares;
        for (entry, json) in rest {
            write(&mut bytes, section, comma, entry, json);
            (comma, open) = (true, Some(entry));
            if !ends(section, entry, json) {
                continue;
            }
            let there = ending_with(entry, chunks);
            let old = chunks.get(there.clone()).unwrap_or_default();
            let parts = if json.len() < LARGE { vec![&*bytes] } else { cut(&bytes) };
            fresh.extend(parts.into_iter().map(|part| Chunk::of(part, entry, old)));
            bytes.clear();
            open = None;
            if entry < name {
                continue;
            }
            skip(&mut changed, entry);
            if !there.is_empty() {
                // What follows is as it was, up to the next that was changed.
                until = Some(there.end);
                break;
            }
        }
        if let Some(last) = open {
            fresh.push(Chunk::of(&bytes, last, &[]));
            bytes.clear();
        }
        chunks.splice(from..until.unwrap_or(chunks.len()), fresh);
        if until.is_none() {
            // All that follows was made again.
            return;
        }
    }
}

/// The chunks whose last entry is this.
fn ending_with(entry: &Arc<str>, chunks: &[Chunk]) -> Range<usize> {
    let start = chunks.partition_point(|chunk| chunk.last < *entry);
    let rest = chunks.get(start..).unwrap_or_default();
    start..start + rest.iter().take_while(|chunk| chunk.last == *entry).count()
}

/// Cuts where the bytes before a place say so: a change moves no cut but those near it.
fn cut(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((part, rest)) = first_cut(bytes) {
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

fn first_cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // Of the last 64 bytes: what was before them is shifted out.
    let mut sum = 0_u64;
    let is_cut = |byte: &u8| {
        sum = (sum << 1).wrapping_add(u64::from(*byte));
        sum.wrapping_mul(0x9E37_79B9_7F4A_7C15) < u64::MAX / CUT
    };
    let at = LEAST + bytes.get(LEAST..)?.iter().position(is_cut)? + 1;
    bytes.split_at_checked(at).filter(|(_, rest)| !rest.is_empty())
}

/// Passes by the names up to `entry`.
fn skip<'a>(changed: &mut Peekable<impl Iterator<Item = &'a Arc<str>>>, entry: &Arc<str>) {
    while changed.next_if(|name| *name <= entry).is_some() {}
}

/// True for the last entry of a chunk. A list tells no names, so it is one chunk: what does not show must not count.
fn ends(section: Section, name: &str, json: &str) -> bool {
    if section == Section::TlsCertificates {
        return false;
    }
    json.len() >= LARGE || lot::is_drawn(name, ENTRIES)
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
