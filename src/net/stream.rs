//! one stream type: TCP or UNIX, in clear or under TLS.
//!
//! TLS state is boxed, so that a session in clear does not pay for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Capped;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A UNIX socket.
    Unix(UnixStream),
}

impl Socket {
    /// The address on our side; `None` for UNIX sockets.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => {
                stream.local_addr().ok().map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()))
            }
            Self::Unix(_) => None,
        }
    }

    /// Waits for bytes and copies them without taking them from the socket; 0 is the end of the stream.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => {
                let flags = rustix::net::RecvFlags::PEEK;
                stream
                    .async_io(Interest::READABLE, || {
                        let (count, _) = rustix::net::recv(stream, &mut *buffer, flags)?;
                        Ok(count)
                    })
                    .await
            }
        }
    }

    /// Fills `buffer` with bytes that [`Socket::peek`] has seen; returns how many it got.
    ///
    /// # Errors
    /// The socket's own.
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

    /// Asks the kernel to send small writes at once (every reply is one write).
    pub fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            // A peer that is gone already is noticed by the first read.
            let _ = SockRef::from(stream).set_tcp_nodelay(true);
        }
    }
}

/// A connection to a client or a backend.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(Socket),
    /// We are the TLS server.
    Server(Box<tokio_rustls::server::TlsStream<Capped<Socket>>>),
    /// We are the TLS client.
    Client(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(tls) => tls.get_ref().0.get_ref(),
            Self::Client(tls) => tls.get_ref().0,
        }
    }

    /// Ends our direction and reads what the peer still sends, bounded in bytes and time, so that an unread
    /// byte does not turn the close into a reset that destroys our last reply (quirk Q-12).
    pub async fn close(mut self) {
        let closing = async {
            self.shutdown().await?;
            self.discard().await
        };
        // Whatever happens here, the session is over.
        let _ = timeout(LINGER_TIME, closing).await;
    }

    /// The same where our direction has ended already.
    pub async fn linger(mut self) {
        let _ = timeout(LINGER_TIME, self.discard()).await;
    }

    async fn discard(&mut self) -> io::Result<()> {
        let mut discarded = 0;
        let mut buffer = vec![0; LINGER_BUFFER];
        while discarded < LINGER_BYTES {
            match self.read(&mut buffer).await? {
                0 => break,
                count => discarded += count,
            }
        }
        Ok(())
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

/// For one read: most peers send nothing any more.
const LINGER_BUFFER: usize = 4 * 1024;

/// How many unread bytes a close waits for.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How long a close waits for the peer's.
const LINGER_TIME: Duration = Duration::from_secs(2);
