//! A large body, sent from where it is: a frame is a piece of it, or some short ones together.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use crate::snapshot::encode::{Joined, Reader};

/// Shorter frames would be a write each.
const FRAME: usize = 32 << 10;

pub(super) struct Pieces(Reader);

impl Pieces {
    pub(super) fn new(joined: &Joined) -> Self {
        Self(joined.reader())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.has_remaining().then(|| Ok(Frame::data(self.0.frame(FRAME)))))
    }

    fn is_end_stream(&self) -> bool {
        !self.0.has_remaining()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.remaining() as u64)
    }
}
