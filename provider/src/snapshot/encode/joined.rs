//! Bytes in pieces, shared by all who send or keep them: what is many megabytes is never copied whole.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes};

/// Up to this, what is put together is one piece: one write takes it, and to copy it costs nothing.
const ONE: usize = 64 << 10;

/// Bytes one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    pieces: Arc<[Bytes]>,
    length: usize,
}

impl Joined {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes where they are one piece, as those of a small config are.
    pub fn single(&self) -> Option<&Bytes> {
        match &*self.pieces {
            [one] => Some(one),
            _ => None,
        }
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Reads them from the start.
    pub fn reader(&self) -> Reader {
        Reader { whole: self.clone(), next: 0, piece: Bytes::new(), left: self.length }
    }

    /// A copy, where there is no way around one.
    pub fn to_bytes(&self) -> Bytes {
        self.single().cloned().unwrap_or_else(|| together(&self.pieces, self.length))
    }
}

impl From<Vec<Bytes>> for Joined {
    fn from(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(Bytes::len).sum();
        let pieces = if length <= ONE && pieces.len() > 1 { vec![together(&pieces, length)] } else { pieces };
        Self { pieces: pieces.into(), length }
    }
}

impl From<Bytes> for Joined {
    fn from(bytes: Bytes) -> Self {
        Self::from(vec![bytes])
    }
}

impl PartialEq<[u8]> for Joined {
    fn eq(&self, other: &[u8]) -> bool {
        self.length == other.len() && self.to_bytes() == other
    }
}

fn together(pieces: &[Bytes], length: usize) -> Bytes {
    let mut all = Vec::with_capacity(length);
    for piece in pieces {
        all.extend_from_slice(piece);
    }
    all.into()
}

/// Where somebody is in [`Joined`].
#[derive(Debug)]
pub struct Reader {
    whole: Joined,
    next: usize,
    piece: Bytes,
    left: usize,
}

impl Reader {
    fn fill(&mut self) {
        while self.piece.is_empty()
            && let Some(piece) = self.whole.pieces.get(self.next)
        {
            self.piece = piece.clone();
            self.next += 1;
        }
    }

    /// What comes next, at least `enough` where there is that much: a long piece as it is, short ones together.
    pub fn frame(&mut self, enough: usize) -> Bytes {
        self.fill();
        if self.piece.len() >= enough || self.piece.len() == self.left {
            self.left -= self.piece.len();
            return std::mem::take(&mut self.piece);
        }
        let mut some = Vec::with_capacity(2 * enough);
        while some.len() < enough && self.left > 0 {
            some.extend_from_slice(self.chunk());
            self.advance(self.chunk().len());
        }
        some.into()
    }
}

impl Buf for Reader {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        if self.piece.is_empty() {
            self.whole
                .pieces
                .get(self.next..)
                .into_iter()
                .flatten()
                .find(|piece| !piece.is_empty())
                .map_or(&[], |piece| piece)
        } else {
            &self.piece
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while count > 0 {
            self.fill();
            let step = count.min(self.piece.len());
            self.piece.advance(step);
            count -= step;
        }
    }
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.chunk().len().min(into.len());
        self.copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![Just(0), 1..50_usize, 30_000..90_000_usize];
        prop::collection::vec(piece.prop_map(|length| (0..=255_u8).cycle().take(length).collect()), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However it is read, it is the pieces one behind the other.
        #[test]
        fn nothing_is_lost_between_pieces(pieces in pieces(), enough in 1..70_000_usize) {
            let whole = pieces.concat();
            let joined = Joined::from(pieces.into_iter().map(Bytes::from).collect::<Vec<_>>());
            prop_assert_eq!(joined.len(), whole.len());
            prop_assert!(joined.to_bytes() == whole);
            let mut read = Vec::new();
            joined.reader().read_to_end(&mut read).unwrap();
            prop_assert!(read == whole);
            let (mut reader, mut framed) = (joined.reader(), Vec::new());
            while reader.has_remaining() {
                let frame = reader.frame(enough);
                prop_assert!(frame.len() >= enough || !reader.has_remaining());
                framed.extend_from_slice(&frame);
            }
            prop_assert!(framed == whole);
        }
    }
}
