//! Connections to an auth service: TCP or UNIX socket, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::dns::Target;
use crate::net::{Arrived, Socket, has_no_descriptor};
use crate::secret::{self, Wiped};
use crate::tls::HandshakeFailure;

use super::quota::{Quota, Share};

/// Time limit before the next endpoint is tried, within the service's own timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Smallest capacity for an answer, in bytes.
const MIN_ROOM: usize = 64;

/// Connects to the endpoints of a service, which all need the same certificate.
pub(super) struct Connector {
    /// For `https`: the configuration, and the name to verify.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Limits the connections of the process.
    pub(super) quota: Quota,
}

impl Connector {
    /// Connects and does the TLS handshake.
    ///
    /// # Errors
    /// The error of the socket or of TLS.
    pub(super) async fn connect(&self, target: &Target) -> io::Result<Connection> {
        let share = self.quota.take();
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let connecting = timeout_at(deadline, async {
            match target.connect().await {
                Err(error) if has_no_descriptor(&error) => {
                    self.quota.close_kept();
                    target.connect().await
                }
                other => other,
            }
        });
        let plain = connecting.await.unwrap_or_else(|_| Err(late("no connection")))?;
        let securing = timeout_at(deadline, self.secure(plain));
        let stream = securing.await.unwrap_or_else(|_| Err(late("the TLS handshake did not end")))?;
        Ok(Connection { stream, is_drained: false, _share: share })
    }

    async fn secure(&self, plain: Socket) -> io::Result<Either<Socket, Box<TlsStream<Socket>>>> {
        Ok(match &self.tls {
            None => Either::Left(plain),
            Some((connector, name)) => {
                // A request is one write, but with TLS it can follow the end of the handshake.
                plain.set_nodelay();
                let connecting = connector.connect(name.clone(), plain).await;
                let stream = connecting.map_err(|error| {
                    io::Error::other(format!("it {}", HandshakeFailure::from(error).of_auth_service()))
                })?;
                Either::Right(Box::new(stream))
            }
        })
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {CONNECT_TIMEOUT:?}"))
}

/// A connection to one endpoint.
pub(super) struct Connection {
    stream: Either<Socket, Box<TlsStream<Socket>>>,
    /// The last read took all that the kernel had.
    is_drained: bool,
    // Declared after the stream, so that it is dropped after the stream was closed.
    _share: Share,
}

/// The state of a connection without a request in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing has arrived: it can be used.
    Kept,
    /// The service has closed it, or TLS data have arrived.
    Ended,
    /// Unexpected bytes have arrived.
    Broken,
}

impl Connection {
    /// Writes and flushes a request.
    ///
    /// # Errors
    /// The socket's error.
    pub(super) async fn write(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await
    }

    /// Waits for bytes and appends them. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// The socket's error.
    pub(super) async fn read(&mut self, received: &mut Wiped) -> io::Result<usize> {
        if received.len() == received.capacity() {
            // The answer may contain a password.
            secret::grow(received, received.len().saturating_mul(2).max(MIN_ROOM));
        }
        let read = self.stream.read_buf(&mut **received).await;
        self.is_drained = matches!(self.stream, Either::Left(_)) && received.len() < received.capacity();
        read
    }

    /// Checks for bytes on a new connection before its first request. The event that ended the connect tells of bytes
    /// too, so the kernel is asked only if there are some.
    pub(super) fn is_early(&mut self) -> bool {
        let has_event = match &self.stream {
            Either::Left(plain) => plain.has_read_event(),
            Either::Right(_) => true,
        };
        has_event && self.silence() == Silence::Broken
    }

    /// Checks for bytes behind an answer, right after [`Self::read`]. If the kernel had no more then, it is not asked
    /// again: [`Self::silence`] does this before the connection is used.
    pub(super) fn silence_behind(&mut self) -> Silence {
        if self.is_drained { Silence::Kept } else { self.silence() }
    }

    /// Checks for bytes without waiting.
    ///
    /// Asks the kernel, because tokio knows only the events of its last poll.
    pub(super) fn silence(&mut self) -> Silence {
        let plain = match &mut self.stream {
            Either::Left(plain) => return peek(plain),
            Either::Right(tls) => {
                if let Some(found) = decrypted(tls) {
                    return found;
                }
                tls.get_ref().0
            }
        };
        match peek(plain) {
            // Encrypted bytes are usually the end of the TLS connection.
            Silence::Broken => Silence::Ended,
            other => other,
        }
    }
}

/// Sends TLS's closing alert if the socket accepts it at once.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Either::Right(tls) = &mut self.stream {
            let _ = Pin::new(tls).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn peek(plain: &Socket) -> Silence {
    match plain.arrived() {
        Arrived::Nothing => Silence::Kept,
        Arrived::End => Silence::Ended,
        Arrived::Bytes => Silence::Broken,
    }
}

/// Checks for bytes that TLS has already decrypted; `None` if there are none.
fn decrypted(tls: &mut TlsStream<Socket>) -> Option<Silence> {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    match Pin::new(tls).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
        Poll::Pending => None,
        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Some(Silence::Broken),
        Poll::Ready(_) => Some(Silence::Ended),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::model::TrustAnchors;
    use crate::tls::client::https_connector;

    #[tokio::test(start_paused = true)]
    async fn a_tls_handshake_that_hangs_is_not_called_a_missing_connection() {
        // The kernel completes the connection, and nobody answers on it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(silent.local_addr().unwrap());
        let tls = https_connector(&TrustAnchors::System).unwrap();
        let name = ServerName::try_from("auth.test").unwrap();
        let connector = Connector { tls: Some((tls, name)), quota: Quota::new(1) };
        let error = connector.connect(&target).await.err().expect("no handshake");
        assert_eq!(error.to_string(), "the TLS handshake did not end within 5s");
    }

    #[tokio::test]
    async fn what_the_kernel_holds_is_seen_before_the_event_loop_turns() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let mut connection = Connector { tls: None, quota: Quota::new(1) }.connect(&target).await.unwrap();
        let (mut service, _) = listener.accept().unwrap();
        assert_eq!(connection.silence(), Silence::Kept);
        service.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        // Runs without the event loop.
        while connection.silence() == Silence::Kept && std::time::Instant::now() < deadline {}
        assert_eq!(connection.silence(), Silence::Broken);
        connection.read(&mut Wiped::default()).await.unwrap();
        drop(service);
        while connection.silence() == Silence::Kept && std::time::Instant::now() < deadline {}
        assert_eq!(connection.silence(), Silence::Ended);
    }

    #[tokio::test]
    async fn bytes_before_the_first_request_are_early() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let mut connection = Connector { tls: None, quota: Quota::new(1) }.connect(&target).await.unwrap();
        assert!(!connection.is_early());
        let (mut service, _) = listener.accept().unwrap();
        service.write_all(b"220 ready\r\n").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !connection.is_early() && std::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert!(connection.is_early());
    }

    #[tokio::test]
    async fn bytes_behind_an_answer_that_fills_the_buffer_are_found_in_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let mut connection = Connector { tls: None, quota: Quota::new(1) }.connect(&target).await.unwrap();
        let (mut service, _) = listener.accept().unwrap();
        service.write_all(b"answer!").unwrap();
        let mut received = Wiped::with_capacity(6);
        connection.read(&mut received).await.unwrap();
        assert_eq!((received.len(), connection.silence_behind()), (6, Silence::Broken));
        let mut received = Wiped::with_capacity(6);
        connection.read(&mut received).await.unwrap();
        assert_eq!((received.len(), connection.silence_behind()), (1, Silence::Kept));
    }
}
