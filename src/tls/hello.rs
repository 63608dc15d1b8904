//! Reads a ClientHello. Answers one that rustls refuses before a configuration is selected.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::Acceptor;
use rustls::{AlertDescription, Error, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::StartHandshake;

use super::{HandshakeError, HandshakeFailure, TLS_1_1_OR_OLDER};

/// Reads the ClientHello. If it is refused, sends an alert.
///
/// # Errors
/// The client is at fault.
pub(super) async fn read<S>(mut stream: S) -> Result<StartHandshake<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = Hello::default();
    loop {
        let read = poll_fn(|cx| hello.poll_read(&mut stream, cx)).await;
        if read.map_err(client_fault)? == 0 {
            return Err(client_fault(io::ErrorKind::UnexpectedEof.into()));
        }
        match hello.acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(StartHandshake::from_parts(accepted, stream)),
            Err((error, mut theirs)) => {
                if let Some(old) = hello.start.old_version(&error) {
                    send_alert(&mut stream, AlertDescription::ProtocolVersion, old).await;
                    return Err(HandshakeError::Client(HandshakeFailure::Version(TLS_1_1_OR_OLDER)));
                }
                let mut alert = Vec::new();
                // A vector takes all bytes.
                let _ = theirs.write_all(&mut alert);
                send(&mut stream, &alert).await;
                return Err(client_fault(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

/// Sends a fatal alert in a record of the version `(3, minor)`. rustls has no function for alerts of the caller.
pub(super) async fn send_alert<S>(stream: &mut S, alert: AlertDescription, minor: u8)
where
    S: AsyncWrite + Unpin,
{
    send(stream, &[ALERT, 3, minor, 0, 2, FATAL, alert.into()]).await;
}

/// A client that has left needs no alert.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, alert: &[u8]) {
    if stream.write_all(alert).await.is_ok() {
        let _ = stream.flush().await;
    }
}

fn client_fault(error: io::Error) -> HandshakeError {
    HandshakeError::Client(error.into())
}

/// What was read of a ClientHello.
#[derive(Default)]
struct Hello {
    acceptor: Acceptor,
    start: Start,
}

impl Hello {
    /// The buffer is on the stack, so that a client that waits within its ClientHello holds none.
    fn poll_read<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let mut space = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let mut rest = buffer.filled();
        let count = rest.len();
        self.start.add(rest);
        while !rest.is_empty() {
            if self.acceptor.read_tls(&mut rest)? == 0 {
                break;
            }
        }
        Poll::Ready(Ok(count))
    }
}

/// The first bytes: a record header (5 bytes), a handshake header (4), and the version of the ClientHello (2).
#[derive(Default)]
struct Start {
    bytes: [u8; 11],
    length: usize,
}

impl Start {
    fn add(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let count = room.len().min(bytes.len());
        for (slot, byte) in room.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        self.length = self.length.saturating_add(count);
    }

    /// Returns the minor version (TLS 1.1: 2) if the ClientHello was refused with `error` only because it is older than
    /// TLS 1.2. rustls checks the extension `signature_algorithms` first, which old clients do not send.
    fn old_version(&self, error: &Error) -> Option<u8> {
        let Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) = error else {
            return None;
        };
        match self.bytes {
            [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, _, _, _, 3, minor] if minor < TLS_1_2 => Some(minor),
            _ => None,
        }
    }
}

/// Bytes of one read, as many as rustls reads at once.
const CHUNK: usize = 4096;

/// The type of a record with an alert.
const ALERT: u8 = 21;
/// The type of a record with handshake messages.
const HANDSHAKE: u8 = 22;
/// The level of an alert that ends the connection.
const FATAL: u8 = 2;
/// The type of the first handshake message.
const CLIENT_HELLO: u8 = 1;
/// The minor version number of TLS 1.2.
pub(super) const TLS_1_2: u8 = 3;
