//! A stream with a cap on the bytes that can be read, to bound what a library buffers for a peer that is not trusted
//! yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream with a cap on reads. Writes are not capped.
#[derive(Debug)]
pub struct Capped<S> {
    inner: S,
    /// Bytes that may still be read; `None` without a cap.
    left: Option<usize>,
}

/// The source of the [`io::Error`] of a read beyond the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more bytes than may be read now")]
pub struct CapReached;

impl<S> Capped<S> {
    /// Caps reads at `bytes` until another cap is set.
    pub fn new(inner: S, bytes: usize) -> Self {
        Self { inner, left: Some(bytes) }
    }

    /// Allows `bytes` more to be read.
    pub fn cap(&mut self, bytes: usize) {
        self.left = Some(bytes);
    }

    /// Removes the cap.
    pub fn lift(&mut self) {
        self.left = None;
    }

    /// Returns the inner stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, left } = self.get_mut();
        let Some(left) = left else { return Pin::new(inner).poll_read(cx, buf) };
        let room = buf.remaining().min(*left);
        if room == 0 && buf.remaining() > 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, CapReached)));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        *left = left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn gives_what_the_cap_allows_and_then_an_error_until_it_is_lifted() {
        let mut stream = Capped::new(&b"0123456789abcdef"[..], 4);
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 4);
        let error = stream.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&CapReached));
        stream.cap(2);
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 2);
        assert!(stream.read(&mut buffer).await.is_err());
        stream.lift();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(&buffer, b"6789abcd");
    }
}
