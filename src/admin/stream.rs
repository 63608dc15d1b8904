//! A client's stream that does not wait forever for the client to read.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A stream whose writes fail if the client reads nothing for [`SILENCE`], or is so slow that the output is not written
/// within [`WHOLE`].
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    /// Set by the first write that must wait, until everything is written.
    slow: Option<Slow>,
}

#[derive(Debug)]
struct Slow {
    end: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, slow: None }
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        if written.is_ready() {
            if let Some(slow) = &mut self.slow {
                slow.timer.as_mut().reset(slow.end.min(now + SILENCE));
            }
            return written;
        }
        let slow = self
            .slow
            .get_or_insert_with(|| Slow { end: now + WHOLE, timer: Box::pin(sleep_until(now + SILENCE)) });
        ready!(slow.timer.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slow = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How long a client may read nothing.
const SILENCE: Duration = Duration::from_secs(5);
/// Time limit for an answer to a slow client.
const WHOLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let (ours, _theirs) = duplex(16);
        let began = Instant::now();
        let error = Bounded::new(ours).write_all(&[0; 17]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::TimedOut, SILENCE.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_little_now_and_then_does_not_keep_the_connection_either() {
        let (ours, mut theirs) = duplex(16);
        let began = Instant::now();
        let slow = async {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        let writing = async {
            let mut ours = Bounded::new(ours);
            ours.write_all(&[0; 1000]).await.unwrap_err().kind()
        };
        let (error, ()) = tokio::join!(writing, slow);
        assert_eq!(error, ErrorKind::TimedOut);
        assert!(began.elapsed() >= WHOLE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_time() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Bounded::new(ours);
        for _ in 0..20 {
            let reading = async {
                tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 20]).await.unwrap();
            };
            let writing = async {
                ours.write_all(&[0; 20]).await.unwrap();
                ours.flush().await.unwrap();
            };
            tokio::join!(writing, reading);
        }
    }
}
