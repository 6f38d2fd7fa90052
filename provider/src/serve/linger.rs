//! Lets a client read the answer that it gets while it is still sending: a socket that is closed with something unread
//! has the kernel reset the connection, and what we said is lost with it. So the end is said first, and what still comes
//! is thrown away. Below TLS, so that a refused handshake is told alike.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a client may be silent before it is left.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may go on at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream whose shutdown ends when the client's side did too, or took too long.
pub(super) struct Lingering<S> {
    stream: S,
    leaving: Option<Leaving>,
}

struct Leaving {
    until: Instant,
    silence: Pin<Box<Sleep>>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, leaving: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, leaving } = self.get_mut();
        let leaving = if let Some(leaving) = leaving {
            leaving
        } else {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
            leaving.insert(Leaving { until: Instant::now() + PATIENCE, silence: Box::pin(sleep(SILENCE)) })
        };
        let mut rest = [0; 8192];
        loop {
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut *stream).poll_read(context, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() && Instant::now() < leaving.until => {
                    leaving.silence.as_mut().reset(leaving.until.min(Instant::now() + SILENCE));
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return leaving.silence.as_mut().poll(context).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_still_comes_is_read_until_the_client_ends() {
        let (ours, mut theirs) = duplex(16);
        let client = async {
            theirs.write_all(&[7; 10_000]).await.unwrap();
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).await.unwrap();
            drop(theirs);
            heard
        };
        let mut stream = Lingering::new(ours);
        stream.write_all(b"no").await.unwrap();
        let began = Instant::now();
        let (heard, ended) = tokio::join!(client, stream.shutdown());
        ended.unwrap();
        assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
        assert_eq!(heard, "no");
    }

    #[tokio::test]
    async fn a_silent_client_is_left_after_a_second() {
        let (ours, _theirs) = duplex(16);
        let began = Instant::now();
        Lingering::new(ours).shutdown().await.unwrap();
        assert!(began.elapsed() >= SILENCE && began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
}
