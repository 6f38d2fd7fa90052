//! A body that is decompressed as it is sent, for the few who do not take gzip: it is in memory once, compressed.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use hyper::body::{Body, Frame, SizeHint};

use crate::snapshot::encode::{Encoded, Reader};

/// As every gzip has it.
const WINDOW_BITS: u8 = 15;
/// How much is decompressed at once.
const FRAME: usize = 64 << 10;

/// What a gzip member decompresses to, `left` bytes of it yet.
pub(super) struct Inflated {
    gzip: Reader,
    left: usize,
    state: Decompress,
}

impl Inflated {
    pub(super) fn new(encoded: &Encoded) -> Self {
        let (gzip, left) = (encoded.gzip.reader(), encoded.length);
        Self { gzip, left, state: Decompress::new_gzip(WINDOW_BITS) }
    }
}

impl Body for Inflated {
    type Data = Bytes;
    /// A member that is damaged ends early, and the connection with it, since its length was told.
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut plain = Vec::with_capacity(FRAME.min(this.left));
        let full = plain.capacity();
        while plain.len() < full && this.gzip.has_remaining() {
            let before = this.state.total_in();
            let done = this.state.decompress_vec(this.gzip.chunk(), &mut plain, FlushDecompress::None);
            let taken = usize::try_from(this.state.total_in() - before).unwrap_or_default();
            this.gzip.advance(taken);
            if !matches!(done, Ok(Status::Ok)) {
                break;
            }
        }
        this.left = this.left.saturating_sub(plain.len());
        let frame = (!plain.is_empty()).then(|| Ok(Frame::data(plain.into())));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
