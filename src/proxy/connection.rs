//! One side of a session before the relay: a stream and what was received from it.
//!
//! Reads go through a buffer that belongs to the worker's thread, so that a session which waits holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use zeroize::Zeroize;

use crate::net::{Socket, Stream};
use crate::protocol::{Cleartext, Input};

use super::end::End;
use super::relay::Side;

/// A stream and its input.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Private: nobody gets it without what was received from it.
    stream: Stream,
    /// What was received and not taken.
    pub(crate) input: Input,
    ended: bool,
}

impl Connection {
    /// One whose input holds at most `limit` bytes.
    pub(crate) fn new(stream: Stream, limit: usize) -> Self {
        Self { stream, input: Input::new(limit), ended: false }
    }

    /// To a server, which knows what came before a question was sent.
    pub(crate) fn to_backend(stream: Stream) -> Self {
        Self { stream, input: Input::of_replies(BACKEND_BUFFER), ended: false }
    }

    /// For a TLS handshake; what was received and not taken is refused.
    ///
    /// # Errors
    /// [`End::Internal`] under TLS.
    pub(crate) fn into_handshake(self) -> Result<Cleartext<Socket>, End> {
        match self.stream {
            Stream::Plain(socket) => Ok(Cleartext::new(socket, self.input)),
            Stream::Server(_) | Stream::Client(_) => Err(End::Internal("a TLS handshake under TLS")),
        }
    }

    /// For the relay, which delivers what was received and not taken.
    pub(crate) fn into_side(self, relayed: IntCounter) -> Side {
        Side { stream: self.stream, received: self.input.into_rest(), relayed }
    }

    /// The address on our side; `None` for UNIX sockets.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.socket().local_address()
    }

    /// Closes it so that the peer can read what was sent last.
    pub(crate) async fn close(self) {
        if !self.ended {
            self.stream.close().await;
        }
    }

    /// Waits for bytes and appends as many as there is room for; 0 is the end of the stream. TLS clients
    /// that close without close_notify are taken as closed.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.input.release();
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Takes what has arrived by now, without waiting for more; the number of bytes. An end or an error shows again at
    /// the next read.
    pub(crate) async fn fill_at_once(&mut self) -> usize {
        if self.input.is_full() || self.ended {
            return 0;
        }
        // The event queue is looked at before a task that yields is polled again.
        tokio::task::yield_now().await;
        poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Ready(Ok(read)) => Poll::Ready(read),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(0),
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.input.room().min(SCRATCH_SIZE);
        SCRATCH.with_borrow_mut(|scratch| {
            let Some(space) = scratch.get_mut(..room) else { return Poll::Ready(Ok(0)) };
            let mut buffer = ReadBuf::new(space);
            let read = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) => buffer.filled().len(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.ended = read == 0;
            let appended = self.input.append(buffer.filled()).map_err(io::Error::other);
            buffer.filled_mut().zeroize();
            Poll::Ready(appended.map(|()| read))
        })
    }

    /// Writes everything in one go and empties `out`.
    pub(crate) async fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(out).await?;
        self.stream.flush().await?;
        out.zeroize();
        *out = Vec::new();
        Ok(())
    }

    /// Waits until the peer is gone, keeping what it sends meanwhile. A peer that ended its direction behind
    /// bytes that were not taken yet (`printf … | nc`) is not gone. Never ends when the input is full.
    pub(crate) async fn gone(&mut self) {
        while !self.ended && !self.input.is_full() {
            match self.fill().await {
                Ok(0) if !self.input.is_empty() => break,
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending::<()>().await;
    }
}

/// A backend's reply before the relay, in bytes.
const BACKEND_BUFFER: usize = 16 * 1024;

/// Room for one read; the input's limit is usually smaller.
const SCRATCH_SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}
