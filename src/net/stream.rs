//! One stream type for all connections: TCP or UNIX, with or without TLS.
//!
//! The TLS state is boxed, so that a session without TLS needs no memory for it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Capped;

/// A connected socket without TLS.
#[derive(Debug)]
pub enum Socket {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A UNIX socket.
    Unix(UnixStream),
}

impl Socket {
    /// Returns our address of the connection, IPv4-mapped ones as IPv4; `None` for UNIX sockets.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => {
                stream.local_addr().ok().map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()))
            }
            Self::Unix(_) => None,
        }
    }

    /// Waits for bytes and copies them without removing them from the socket. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// The socket's error.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => {
                stream
                    .async_io(Interest::READABLE, || {
                        let (count, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
                        Ok(count)
                    })
                    .await
            }
        }
    }

    /// Reads bytes that [`Socket::peek`] has seen into `buffer`. Returns their number.
    ///
    /// # Errors
    /// The socket's error.
    pub async fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |buffer: &mut [u8]| match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        };
        match self {
            Self::Tcp(stream) => stream.readable().await?,
            Self::Unix(stream) => stream.readable().await?,
        }
        read(buffer)
    }

    /// Tells what has arrived and was not read. Asks the kernel, so it knows more than tokio, which learns of arrivals when
    /// it polls the event queue.
    #[must_use]
    pub fn arrived(&self) -> Arrived {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Tcp(stream) => rustix::net::recv(stream, &mut [0; 1], flags),
            Self::Unix(stream) => rustix::net::recv(stream, &mut [0; 1], flags),
        };
        match peeked {
            Err(Errno::AGAIN) => Arrived::Nothing,
            Ok((0, _)) | Err(_) => Arrived::End,
            Ok(_) => Arrived::Bytes,
        }
    }

    /// Tells whether the event queue has reported bytes or an end that were not read, without asking the kernel.
    #[must_use]
    pub fn has_read_event(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_ready(),
            Self::Unix(stream) => stream.poll_read_ready(cx).is_ready(),
        }
    }

    /// Tells whether the event queue has reported the end of the stream, and no error. Then a read that got fewer bytes
    /// than it had room for got the last ones, and the read that would return 0 is not needed.
    #[must_use]
    pub fn has_end_event(&self, cx: &mut Context<'_>) -> bool {
        let is_event = match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_ready(),
            Self::Unix(stream) => stream.poll_read_ready(cx).is_ready(),
        };
        // Only this future tells which event it is, and it costs more.
        let interest = Interest::READABLE | Interest::ERROR;
        is_event
            && match self {
                Self::Tcp(stream) => is_end(pin!(stream.ready(interest)).poll(cx)),
                Self::Unix(stream) => is_end(pin!(stream.ready(interest)).poll(cx)),
            }
    }

    /// Writes what the kernel takes without waiting. Returns the number of bytes, which may be 0. A new socket takes them
    /// before tokio learns that it is writable.
    ///
    /// # Errors
    /// The socket's error.
    pub fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match self {
            Self::Tcp(stream) => rustix::net::send(stream, bytes, flags),
            Self::Unix(stream) => rustix::net::send(stream, bytes, flags),
        };
        match sent {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// Disables Nagle's algorithm, because every reply is one write.
    pub fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            // If the peer has disconnected, the first read reports it.
            let _ = SockRef::from(stream).set_tcp_nodelay(true);
        }
    }
}

fn is_end(event: Poll<io::Result<Ready>>) -> bool {
    matches!(event, Poll::Ready(Ok(ready)) if ready.is_read_closed() && !ready.is_error())
}

/// What has arrived on a socket and was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Nothing.
    Nothing,
    /// The end of the stream, or an error.
    End,
    /// At least one byte.
    Bytes,
}

/// A connection to a client or a backend.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// With TLS; the peer is a client.
    Server(Box<tokio_rustls::server::TlsStream<Capped<Socket>>>),
    /// With TLS; the peer is a server.
    Client(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// Returns the inner socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(tls) => tls.get_ref().0.get_ref(),
            Self::Client(tls) => tls.get_ref().0,
        }
    }

    /// Closes our direction and reads what the peer still sends, within limits of size and time. An unread byte would
    /// turn the close into a reset, and the peer could lose our last reply (quirk Q-12).
    pub async fn close(&mut self) {
        let closing = async {
            self.shutdown().await?;
            self.discard().await
        };
        // The session ends in any case.
        let _ = timeout(LINGER_TIME, closing).await;
    }

    /// As [`Self::close`], if our direction is already closed.
    pub async fn linger(&mut self) {
        let _ = timeout(LINGER_TIME, self.discard()).await;
    }

    async fn discard(&mut self) -> io::Result<()> {
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            match poll_fn(|cx| self.poll_discard(cx)).await? {
                0 => break,
                count => discarded += count,
            }
        }
        Ok(())
    }

    /// The buffer is on the stack, so that a session that waits for its peer holds none.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); LINGER_BUFFER];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Server(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::Client(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Server(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::Client(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Server(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Client(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Server(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Client(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Bytes per read; most peers send nothing more.
const LINGER_BUFFER: usize = 4 * 1024;

/// Unread bytes that a close discards at most.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How long a close waits for the peer.
const LINGER_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_end_behind_the_last_bytes_is_known_without_another_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut socket, mut buffer) = (Socket::Tcp(accepted.unwrap().0), [0; 16]);
        let peer = peer.as_mut().unwrap();
        peer.write_all(b"b OK\r\n").await.unwrap();
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 6);
        assert!(!poll_fn(|cx| Poll::Ready(socket.has_end_event(cx))).await, "the stream is open");
        peer.write_all(b"* BYE\r\n").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 7);
        let ended = poll_fn(|cx| if socket.has_end_event(cx) { Poll::Ready(()) } else { Poll::Pending });
        timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 0);
    }
}
