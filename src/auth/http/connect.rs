//! Connections to an auth service: TCP or UNIX socket, in clear or in TLS, and what they have been through.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service;

use crate::dns::Target;

/// Until the next endpoint is tried; within the service's own timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The authority that [`Connector`] connects to. It is never seen outside: the request has its own `Host`.
pub(super) fn authority(target: &Target) -> Result<Authority, http::uri::InvalidUri> {
    match target {
        Target::Tcp(address) => address.to_string().parse(),
        Target::Unix(path) => {
            let hex = path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("{byte:02x}"));
            format!("{UNIX}{}", hex.collect::<String>()).parse()
        }
    }
}

/// In front of a UNIX socket's path in hex, since a pool is keyed by authority.
const UNIX: &str = "unix-";

/// Connects to what [`authority`] made; the same certificate is expected of every endpoint.
#[derive(Clone)]
pub(super) struct Connector {
    /// `https`: trust, and the name to verify.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
}

type Plain = Either<TcpStream, UnixStream>;

/// A connection in the pool.
pub(super) struct Pooled {
    stream: Either<Plain, TlsStream<Plain>>,
    past: Arc<Past>,
}

/// What a connection has been through, seen from above TLS; travels with the pool's errors.
#[derive(Debug, Default)]
pub(super) struct Past {
    answered: AtomicBool,
    awaiting: AtomicBool,
}

impl Past {
    /// Whether the service closed a connection that it had answered on before, without a byte for the
    /// last request: it was closing it while the request was on its way, and has not seen it.
    pub(super) fn was_stale(&self) -> bool {
        self.answered.load(Ordering::Relaxed) && self.awaiting.load(Ordering::Relaxed)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Pooled>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Pooled>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(&uri)).await;
            connected.unwrap_or_else(|_| {
                let text = format!("no connection within {CONNECT_TIMEOUT:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            })
        })
    }
}

impl Connector {
    async fn connect(self, uri: &Uri) -> io::Result<TokioIo<Pooled>> {
        let authority = uri.authority().map_or("", Authority::as_str);
        let plain = match authority.strip_prefix(UNIX) {
            Some(hex) => Either::Right(UnixStream::connect(path(hex)?).await?),
            None => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
        };
        let stream = match self.tls {
            None => Either::Left(plain),
            Some((connector, name)) => Either::Right(connector.connect(name, plain).await?),
        };
        Ok(TokioIo::new(Pooled { stream, past: Arc::default() }))
    }
}

fn path(hex: &str) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = hex.as_bytes().chunks(2).map(|digits| {
        let digits = std::str::from_utf8(digits).map_err(io::Error::other)?;
        u8::from_str_radix(digits, 16).map_err(io::Error::other)
    });
    Ok(std::ffi::OsString::from_vec(bytes.collect::<io::Result<_>>()?).into())
}

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new().extra(Arc::clone(&self.past))
    }
}

impl AsyncRead for Pooled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.past.answered.store(true, Ordering::Relaxed);
            self.past.awaiting.store(false, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Pooled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.past.awaiting.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_leads_back_to_its_target() {
        let tcp = Target::Tcp("[2001:db8::1]:9000".parse().unwrap());
        assert_eq!(authority(&tcp).unwrap().as_str(), "[2001:db8::1]:9000");
        let unix = authority(&Target::Unix("/run/auth s\u{f6}.sock".into())).unwrap();
        let hex = unix.as_str().strip_prefix(UNIX).unwrap();
        assert_eq!(path(hex).unwrap(), PathBuf::from("/run/auth s\u{f6}.sock"));
    }
}
