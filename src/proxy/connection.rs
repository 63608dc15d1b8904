//! One side of a session before the relay: a stream and the bytes received from it.
//!
//! Reads use a buffer of the worker thread, so that a waiting session holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use crate::net::{Arrived, Socket, Stream};
use crate::protocol::{Cleartext, Input};
use crate::secret::{Wiped, wipe, wipe_slice};

use super::end::End;

/// A stream and its input.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Private, so that nobody can take the stream and lose bytes that were already received.
    stream: Stream,
    /// Bytes that were received and not yet consumed.
    pub(crate) input: Input,
    ended: bool,
    /// The last read took all that the kernel had.
    is_drained: bool,
    /// A reply was not sent completely.
    is_mid_reply: bool,
}

/// One side of the relay.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) stream: Stream,
    /// Bytes that were received before the relay and still have to be delivered.
    pub(crate) received: Wiped,
    /// Counts the bytes that this side sends.
    pub(crate) relayed: IntCounter,
}

impl Connection {
    /// Creates a connection to a client whose input holds at most `limit` bytes.
    pub(crate) fn new(stream: Stream, limit: usize) -> Self {
        Self { stream, input: Input::new(limit), ended: false, is_drained: false, is_mid_reply: false }
    }

    /// Creates a connection to a client that has left the relay. Its input holds the bytes that are not for the backend.
    pub(crate) fn resumed(stream: Stream, unread: Wiped, limit: usize) -> Self {
        let input = Input::holding(unread, limit);
        Self { stream, input, ended: false, is_drained: false, is_mid_reply: false }
    }

    /// Creates a connection to a backend. Its input records which bytes arrived before a command was sent.
    pub(crate) fn to_backend(stream: Stream) -> Self {
        Self {
            stream,
            input: Input::of_replies(BACKEND_BUFFER),
            ended: false,
            is_drained: false,
            is_mid_reply: false,
        }
    }

    /// Converts a cleartext connection for a TLS handshake. Bytes that were received and not consumed are refused.
    ///
    /// # Errors
    /// [`End::Internal`] if the connection already uses TLS.
    pub(crate) fn into_handshake(self) -> Result<Cleartext<Socket>, End> {
        match self.stream {
            Stream::Plain(socket) => Ok(Cleartext::new(socket, self.input)),
            Stream::Server(_) | Stream::Client(_) => Err(End::Internal("a TLS handshake under TLS")),
        }
    }

    /// Converts the connection for the relay, which delivers the bytes that were not consumed.
    pub(crate) fn into_side(self, relayed: IntCounter) -> Side {
        Side { stream: self.stream, received: self.input.into_rest(), relayed }
    }

    /// Returns our address of the connection; `None` for a UNIX socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.socket().local_address()
    }

    /// Closes gracefully, so that the peer can read the last bytes that were sent.
    pub(crate) async fn close(mut self) {
        if !self.ended {
            self.stream.close().await;
        }
    }

    /// Waits for bytes and appends as many as the input has room for. Returns 0 at the end of the stream. A TLS close
    /// without `close_notify` counts as the end.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.input.release();
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Tells whether the last read took all that the kernel had. The answer is valid until the next wait.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Reads what has already arrived, without waiting, and returns the number of bytes. The next read reports an end
    /// or an error.
    pub(crate) async fn fill_at_once(&mut self) -> usize {
        let has_none = matches!(&self.stream, Stream::Plain(socket) if socket.arrived() == Arrived::Nothing);
        if has_none || self.input.is_full() || self.ended {
            return 0;
        }
        // Tokio polls the event queue before it polls a task that has yielded.
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
            self.is_drained = read < room && matches!(self.stream, Stream::Plain(_));
            let appended = self.input.append(buffer.filled()).map_err(io::Error::other);
            wipe_slice(buffer.filled_mut());
            Poll::Ready(appended.map(|()| read))
        })
    }

    /// Writes and flushes `out`, then wipes and clears it.
    pub(crate) async fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.is_mid_reply = true;
        let sent = match &self.stream {
            Stream::Plain(socket) => socket.send_at_once(out)?,
            Stream::Server(_) | Stream::Client(_) => 0,
        };
        if let Some(rest) = out.get(sent..).filter(|rest| !rest.is_empty()) {
            self.stream.write_all(rest).await?;
            self.stream.flush().await?;
        }
        self.is_mid_reply = false;
        wipe(out);
        if out.capacity() > MAX_KEPT_OUTPUT {
            *out = Vec::new();
        }
        Ok(())
    }

    /// Tells whether the last [`Self::send`] was not completed.
    pub(crate) fn is_mid_reply(&self) -> bool {
        self.is_mid_reply
    }

    /// Waits until the peer has disconnected. Bytes that it sends meanwhile are kept. A peer that sent bytes and then
    /// closed its direction (`printf … | nc`) still reads, so it does not count as disconnected. Never returns when the
    /// input is full.
    pub(crate) async fn disconnected(&mut self) {
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

/// Maximum capacity that [`Connection::send`] keeps for the next bytes.
const MAX_KEPT_OUTPUT: usize = 256;

/// Maximum size of a backend's reply before the relay, in bytes.
const BACKEND_BUFFER: usize = 16 * 1024;

/// Maximum size of one read, in bytes; the input's limit is usually smaller.
const SCRATCH_SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_the_peer_does_not_take_completely_stays_incomplete() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Plain(Socket::Unix(ours)), 64);
        connection.send(&mut b"220 ready\r\n".to_vec()).await.unwrap();
        assert!(!connection.is_mid_reply());
        let mut large = vec![b'x'; 8 << 20];
        assert!(timeout(Duration::from_secs(1), connection.send(&mut large)).await.is_err());
        assert!(connection.is_mid_reply());
    }
}
