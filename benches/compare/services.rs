//! The services behind the proxies: an IMAP backend and an auth service with minimal cost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The addresses of the services.
pub(crate) struct Services {
    pub(crate) backend: SocketAddr,
    pub(crate) auth: SocketAddr,
}

/// The client's command for bulk transfer: this many bytes, then the tagged response.
pub(crate) const BULK: &str = "XBULK";

impl Services {
    /// Starts both. They live as long as the runtime.
    pub(crate) async fn start() -> Result<Self> {
        let backend = listen().await?;
        let auth = listen().await?;
        let services = Self { backend: backend.local_addr()?, auth: auth.local_addr()? };
        let answer: Arc<str> = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAuth-Status: OK\r\nAuth-Server: {}\r\nAuth-Port: {}\r\n\r\n",
            services.backend.ip(),
            services.backend.port()
        )
        .into();
        // A peer that disconnects ends only its own connection.
        tokio::spawn(async move {
            while let Ok((stream, _)) = backend.accept().await {
                tokio::spawn(async move { drop(imap(stream).await) });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = auth.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move { drop(http(stream, &answer).await) });
            }
        });
        Ok(services)
    }
}

/// Listens with a backlog that no burst fills.
async fn listen() -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket.listen(4096)?)
}

/// Supports LOGIN with arguments or literals, AUTHENTICATE PLAIN, LOGOUT and [`BULK`].
async fn imap(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(512, stream);
    stream.write_all(b"* OK ready\r\n").await?;
    let mut tag = String::new();
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let text = line.trim_end();
        let mut words = text.split(' ');
        if text.ends_with('}') {
            // The last line of a command with literals has no tag.
            if tag.is_empty() {
                words.next().unwrap_or_default().clone_into(&mut tag);
            }
            if !text.ends_with("+}") {
                stream.write_all(b"+ OK\r\n").await?;
            }
            continue;
        }
        if !tag.is_empty() {
            stream.write_all(format!("{tag} OK logged in\r\n").as_bytes()).await?;
            tag.clear();
            continue;
        }
        let (tag, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match verb {
            "LOGOUT" => {
                stream.write_all(format!("* BYE\r\n{tag} OK bye\r\n").as_bytes()).await?;
                return Ok(());
            }
            "CAPABILITY" => {
                stream.write_all(format!("* CAPABILITY IMAP4rev1\r\n{tag} OK done\r\n").as_bytes()).await?;
            }
            BULK => {
                let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                send_bulk(&mut stream, size).await?;
                stream.write_all(format!("{tag} OK done\r\n").as_bytes()).await?;
            }
            _ => stream.write_all(format!("{tag} OK done\r\n").as_bytes()).await?,
        }
    }
}

async fn send_bulk(stream: &mut BufReader<TcpStream>, size: u64) -> Result<()> {
    let chunk = vec![b'x'; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        stream.write_all(&chunk[..part]).await?;
        left -= part as u64;
    }
    Ok(())
}

/// Accepts every request, and closes after HTTP/1.0.
async fn http(mut stream: TcpStream, answer: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let first_line = buffer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let keep_alive = first_line.ends_with(b"HTTP/1.1");
            stream.write_all(answer.as_bytes()).await?;
            if !keep_alive {
                return Ok(());
            }
            buffer.drain(..end + 4);
        }
    }
}
