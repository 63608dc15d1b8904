//! The clients of the comparison: logins, idle sessions and bulk transfers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::PATIENCE;
use crate::peer::Peer;
use crate::services::BULK;
use crate::tls::Identity;

/// The target of sessions.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

/// Any connection.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Target {
    pub(crate) fn new(peer: &Peer, identity: &Identity, secure: bool) -> Self {
        let tls = secure.then(|| TlsConnector::from(Arc::clone(&identity.client)));
        Self { address: if secure { peer.secure } else { peer.plain }, tls }
    }

    /// Opens a session and logs in.
    async fn log_in(&self) -> Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        expect(&mut stream, "* OK").await?;
        send(&mut stream, "a LOGIN user@example.test secret\r\n").await?;
        expect(&mut stream, "a OK").await?;
        Ok(stream)
    }
}

/// Sends a command. Flushes, because a TLS stream may buffer it.
async fn send(stream: &mut Box<dyn Connection>, command: &str) -> Result<()> {
    stream.write_all(command.as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// Reads a reply of one line.
async fn expect(stream: &mut Box<dyn Connection>, start: &str) -> Result<()> {
    let mut buffer = Vec::with_capacity(256);
    while !buffer.ends_with(b"\r\n") {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "closed instead of `{start}`");
    }
    if !buffer.starts_with(start.as_bytes()) {
        bail!("{} instead of `{start}`", String::from_utf8_lossy(&buffer).trim_end());
    }
    Ok(())
}

/// Runs `work` `count` times with limited concurrency. Returns the results.
async fn repeat<F, T>(
    count: usize,
    concurrency: usize,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send,
    T: Send + 'static,
{
    let started = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency.min(count) {
        let (started, work) = (Arc::clone(&started), work.clone());
        tasks.spawn(async move {
            let mut results = Vec::new();
            while started.fetch_add(1, Ordering::Relaxed) < count {
                results.push(tokio::time::timeout(PATIENCE, work()).await.context("a session hangs")??);
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

/// Logs in, logs out and closes, repeatedly.
pub(crate) async fn logins(target: &Target, count: usize, concurrency: usize) -> Result<()> {
    let target = target.clone();
    repeat(count, concurrency, move || {
        let target = target.clone();
        async move {
            let mut stream = target.log_in().await?;
            send(&mut stream, "b LOGOUT\r\n").await?;
            let mut rest = Vec::with_capacity(64);
            stream.read_to_end(&mut rest).await?;
            ensure!(rest.starts_with(b"* BYE"), "no goodbye");
            Ok(())
        }
    })
    .await?;
    Ok(())
}

/// Opens sessions that log in and stay.
pub(crate) async fn idle(
    target: &Target,
    count: usize,
    concurrency: usize,
) -> Result<Vec<Box<dyn Connection>>> {
    let target = target.clone();
    repeat(count, concurrency, move || {
        let target = target.clone();
        async move { target.log_in().await }
    })
    .await
}

/// Transfers this many bytes in each of several parallel streams.
pub(crate) async fn bulk(target: &Target, streams: usize, bytes: u64) -> Result<()> {
    let target = target.clone();
    repeat(streams, streams, move || {
        let target = target.clone();
        async move {
            let mut stream = target.log_in().await?;
            send(&mut stream, &format!("b {BULK} {bytes}\r\n")).await?;
            let mut buffer = vec![0; 256 * 1024];
            let mut left = bytes + "b OK done\r\n".len() as u64;
            while left > 0 {
                let read = stream.read(&mut buffer).await? as u64;
                ensure!(read > 0 && read <= left, "{left} bytes are missing");
                left -= read;
            }
            send(&mut stream, "c LOGOUT\r\n").await?;
            let mut rest = Vec::with_capacity(64);
            stream.read_to_end(&mut rest).await?;
            Ok(())
        }
    })
    .await?;
    Ok(())
}
