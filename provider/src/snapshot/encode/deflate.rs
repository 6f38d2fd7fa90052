//! Bytes to deflate, in parts that make one gzip member whatever is between them.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::{Joined, crc::Crc};

/// The largest window, as every gzip has it.
const WINDOW_BITS: u8 = 15;
/// Of [`part`]: no more than a part has.
const PART_BITS: u8 = 14;
/// Deflate, no flags, no time, no name, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last block of fixed codes that ends at once.
const END: [u8; 2] = [3, 0];
/// The most that a stored block can hold.
const STORED: usize = 0xffff;

thread_local! {
    /// Kept between changes: to make one takes longer than to compress a small config. Speed counts more than the last
    /// percent, because this is between a commit and Traefik.
    static PART: RefCell<Compress> =
        RefCell::new(Compress::new_with_window_bits(Compression::fast(), false, PART_BITS));
    static WHOLE: RefCell<Compress> = RefCell::new(Compress::new_gzip(Compression::fast(), WINDOW_BITS));
}

/// Compresses in one gzip member.
pub fn gzip(bytes: &[u8]) -> Bytes {
    WHOLE.with_borrow_mut(|compress| squeeze(compress, bytes, FlushCompress::Finish)).into()
}

/// Compresses to blocks that refer to nothing before them, and end with a byte.
pub(super) fn part(bytes: &[u8]) -> Vec<u8> {
    PART.with_borrow_mut(|compress| squeeze(compress, bytes, FlushCompress::Sync))
}

fn squeeze(compress: &mut Compress, bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    compress.reset();
    let mut out = Vec::with_capacity(bytes.len() / 3 + 512);
    loop {
        let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = bytes.get(done..).unwrap_or_default();
        match compress.compress_vec(rest, &mut out, flush) {
            Ok(Status::StreamEnd) => return out,
            // All is flushed when there was room for more.
            Ok(Status::Ok) if flush == FlushCompress::Sync && out.len() < out.capacity() => return out,
            // It was full: an error is not possible in memory.
            Ok(Status::Ok | Status::BufError) | Err(_) => out.reserve(out.len().max(512)),
        }
    }
}

/// A gzip member that is put together of parts.
pub(super) struct Member {
    pieces: Vec<Bytes>,
    /// Behind the last piece.
    bytes: Vec<u8>,
    crc: u32,
    length: usize,
}

impl Default for Member {
    fn default() -> Self {
        Self { pieces: Vec::new(), bytes: HEADER.into(), crc: 0, length: 0 }
    }
}

impl Member {
    /// Takes what [`part`] made of bytes with this length and checksum.
    pub(super) fn part(&mut self, deflated: &Bytes, length: usize, crc: Crc) {
        if !self.bytes.is_empty() {
            self.pieces.push(std::mem::take(&mut self.bytes).into());
        }
        self.pieces.push(deflated.clone());
        self.crc = crc.after(self.crc);
        self.length += length;
    }

    /// Takes a few bytes as they are.
    pub(super) fn plain(&mut self, bytes: &[u8]) {
        for stored in bytes.chunks(STORED) {
            let length = u16::try_from(stored.len()).unwrap_or(u16::MAX);
            self.bytes.push(0);
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(&(!length).to_le_bytes());
            self.bytes.extend_from_slice(stored);
        }
        self.crc = Crc::of(bytes).after(self.crc);
        self.length += bytes.len();
    }

    /// The member, and how long it is when it is decompressed.
    pub(super) fn end(mut self) -> (Joined, usize) {
        self.bytes.extend_from_slice(&END);
        self.bytes.extend_from_slice(&self.crc.to_le_bytes());
        // Its length modulo 2^32, as gzip has it.
        let [a, b, c, d, ..] = self.length.to_le_bytes();
        self.bytes.extend_from_slice(&[a, b, c, d]);
        self.pieces.push(self.bytes.into());
        (self.pieces.into(), self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::disk::{gunzip, inflate};

    #[test]
    fn whatever_is_compressed_comes_back() {
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        for size in [0, 1, 700, 6_000, 100_000, noise.len()] {
            for bytes in [&noise[..size], &vec![b'a'; size]] {
                assert!(gunzip(&gzip(bytes)).unwrap() == bytes, "{size} bytes");
                let mut member = Member::default();
                member.plain(b"before");
                member.part(&part(bytes).into(), size, Crc::of(bytes));
                member.plain(bytes);
                let (gzip, length) = member.end();
                assert!(inflate(gzip.reader()).unwrap() == [b"before", bytes, bytes].concat(), "{size} bytes in parts");
                assert_eq!(length, 6 + 2 * size);
            }
        }
    }

    proptest! {
        #[test]
        fn parts_and_plain_bytes_make_one_member(parts: Vec<(Vec<u8>, bool)>) {
            let mut member = Member::default();
            for (bytes, plain) in &parts {
                if *plain { member.plain(bytes) } else { member.part(&part(bytes).into(), bytes.len(), Crc::of(bytes)) }
            }
            let whole: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes).copied().collect();
            prop_assert_eq!(inflate(member.end().0.reader()).unwrap(), whole);
        }
    }
}
