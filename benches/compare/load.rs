//! The clients of the comparison: logins, idle sessions and bulk transfers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::PATIENCE;
use crate::peer::Peer;
use crate::services::{BULK, Protocol};
use crate::tls::Identity;

/// The target of sessions.
#[derive(Clone)]
pub(crate) struct Target {
    protocol: Protocol,
    address: SocketAddr,
    tls: Option<TlsConnector>,
    /// TLS handshakes that resumed a session.
    resumed: Arc<AtomicUsize>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    /// TLS with a full handshake.
    Full,
    /// TLS with a resumed session.
    Resumed,
}

/// Any connection.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connections that are kept open.
pub(crate) type Connections = Vec<Box<dyn Connection>>;

impl Target {
    /// Only IMAP has a port with TLS.
    pub(crate) fn new(peer: &Peer, identity: &Identity, protocol: Protocol, security: Security) -> Self {
        let config = match security {
            Security::Plain => None,
            Security::Full => Some(&identity.client),
            Security::Resumed => Some(&peer.resuming),
        };
        let address = if config.is_some() { peer.secure } else { peer.plain[protocol as usize] };
        Self {
            protocol,
            address,
            tls: config.map(|config| TlsConnector::from(Arc::clone(config))),
            resumed: Arc::default(),
        }
    }

    /// Returns how many TLS handshakes have resumed a session.
    pub(crate) fn resumed(&self) -> usize {
        self.resumed.load(Ordering::Relaxed)
    }

    async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Opens a session and logs in.
    async fn log_in(&self) -> Result<Box<dyn Connection>> {
        let stream = self.connect().await?;
        let mut stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                let stream = connector.connect(name, stream).await?;
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    self.resumed.fetch_add(1, Ordering::Relaxed);
                }
                Box::new(stream)
            }
        };
        match self.protocol {
            Protocol::Imap => {
                expect(&mut stream, "* OK").await?;
                send(&mut stream, "a LOGIN user@example.test secret\r\n").await?;
                expect(&mut stream, "a OK").await?;
            }
            Protocol::Pop3 => {
                expect(&mut stream, "+OK").await?;
                send(&mut stream, "USER user@example.test\r\n").await?;
                expect(&mut stream, "+OK").await?;
                send(&mut stream, "PASS secret\r\n").await?;
                expect(&mut stream, "+OK").await?;
            }
            Protocol::Smtp => {
                expect(&mut stream, "220").await?;
                send(&mut stream, "EHLO client.example.test\r\n").await?;
                expect(&mut stream, "250").await?;
                send(&mut stream, "AUTH PLAIN AHVzZXJAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n").await?;
                expect(&mut stream, "235").await?;
            }
        }
        Ok(stream)
    }

    /// Logs out, and reads until the end of the connection.
    async fn log_out(&self, stream: &mut Box<dyn Connection>) -> Result<()> {
        let (command, goodbye) = match self.protocol {
            Protocol::Imap => ("b LOGOUT\r\n", "* BYE"),
            Protocol::Pop3 => ("QUIT\r\n", "+OK"),
            Protocol::Smtp => ("QUIT\r\n", "221"),
        };
        send(stream, command).await?;
        let mut rest = Vec::with_capacity(64);
        stream.read_to_end(&mut rest).await?;
        ensure!(rest.starts_with(goodbye.as_bytes()), "no goodbye");
        Ok(())
    }
}

/// Sends a command. Flushes, because a TLS stream may buffer it.
async fn send(stream: &mut Box<dyn Connection>, command: &str) -> Result<()> {
    stream.write_all(command.as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// Reads a reply, whose last line is the one without a hyphen after the code (SMTP).
async fn expect(stream: &mut Box<dyn Connection>, start: &str) -> Result<()> {
    let mut buffer = Vec::with_capacity(256);
    while !is_whole(&buffer) {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "closed instead of `{start}`");
    }
    if !buffer.starts_with(start.as_bytes()) {
        bail!("{} instead of `{start}`", String::from_utf8_lossy(&buffer).trim_end());
    }
    Ok(())
}

fn is_whole(reply: &[u8]) -> bool {
    let last = reply.strip_suffix(b"\r\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    last.is_some_and(|line| line.get(3) != Some(&b'-'))
}

/// Runs `work` `count` times with limited concurrency. Returns the results.
async fn repeat<F, T>(
    target: &Target,
    count: usize,
    concurrency: usize,
    work: impl Fn(Target) -> F + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send,
    T: Send + 'static,
{
    let started = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency.min(count) {
        let (started, target, work) = (Arc::clone(&started), target.clone(), work.clone());
        tasks.spawn(async move {
            let mut results = Vec::new();
            while started.fetch_add(1, Ordering::Relaxed) < count {
                results.push(
                    tokio::time::timeout(PATIENCE, work(target.clone()))
                        .await
                        .context("a session hangs")??,
                );
            }
            Ok::<_, anyhow::Error>(results)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(results) = tasks.join_next().await {
        all.extend(results??);
    }
    Ok(all)
}

/// Logs in, logs out and closes, repeatedly. Returns the time from each connect to the accepted login.
pub(crate) async fn logins(target: &Target, count: usize, concurrency: usize) -> Result<Vec<Duration>> {
    repeat(target, count, concurrency, move |target| async move {
        let started = Instant::now();
        let mut stream = target.log_in().await?;
        let took = started.elapsed();
        target.log_out(&mut stream).await?;
        Ok(took)
    })
    .await
}

/// Opens connections that never log in: greeted ones, or with TLS ones whose handshake has only begun.
pub(crate) async fn waiting(target: &Target, count: usize, concurrency: usize) -> Result<Connections> {
    repeat(target, count, concurrency, move |target| async move {
        let mut stream = target.connect().await?;
        if target.tls.is_some() {
            stream.write_all(HALF_HELLO).await?;
        } else {
            ensure!(stream.read(&mut [0; 256]).await? > 0, "no greeting");
        }
        Ok(Box::new(stream) as Box<dyn Connection>)
    })
    .await
}

/// The start of a TLS record with a ClientHello of 512 bytes.
const HALF_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8];

/// Opens sessions that log in and stay.
pub(crate) async fn idle(target: &Target, count: usize, concurrency: usize) -> Result<Connections> {
    repeat(target, count, concurrency, move |target| async move { target.log_in().await }).await
}

/// Transfers this many bytes in each of several parallel streams.
pub(crate) async fn bulk(target: &Target, streams: usize, bytes: u64) -> Result<()> {
    repeat(target, streams, streams, move |target| async move {
        let mut stream = target.log_in().await?;
        send(&mut stream, &format!("b {BULK} {bytes}\r\n")).await?;
        let mut buffer = vec![0; 256 * 1024];
        let mut left = bytes + "b OK done\r\n".len() as u64;
        while left > 0 {
            let read = stream.read(&mut buffer).await? as u64;
            ensure!(read > 0 && read <= left, "{left} bytes are missing");
            left -= read;
        }
        target.log_out(&mut stream).await
    })
    .await?;
    Ok(())
}
