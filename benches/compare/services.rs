//! The services behind the proxies: a backend for each protocol, and an auth service, with minimal cost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The protocol of a listener and its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Imap,
    Pop3,
    Smtp,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Smtp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Smtp => "SMTP",
        }
    }
}

/// The addresses of the services.
pub(crate) struct Services {
    /// In the order of [`Protocol::ALL`].
    backends: [SocketAddr; 3],
    pub(crate) auth: SocketAddr,
}

/// The client's command for bulk transfer: this many bytes, then the tagged response.
pub(crate) const BULK: &str = "XBULK";

impl Services {
    /// Starts all. They live as long as the runtime.
    pub(crate) async fn start() -> Result<Self> {
        let mut backends = Vec::new();
        for protocol in Protocol::ALL {
            let listener = listen().await?;
            backends.push(listener.local_addr()?);
            // A peer that disconnects ends only its own connection.
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(async move { drop(serve(stream, protocol).await) });
                }
            });
        }
        let auth = listen().await?;
        let backends = <[SocketAddr; 3]>::try_from(backends).ok().context("one backend for each protocol")?;
        let services = Self { backends, auth: auth.local_addr()? };
        let answers: Arc<[String; 3]> = backends.map(|backend| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAuth-Status: OK\r\nAuth-Server: {}\r\nAuth-Port: {}\r\n\r\n",
                backend.ip(),
                backend.port()
            )
        })
        .into();
        tokio::spawn(async move {
            while let Ok((stream, _)) = auth.accept().await {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move { drop(http(stream, &answers).await) });
            }
        });
        Ok(services)
    }

    pub(crate) fn backend(&self, protocol: Protocol) -> SocketAddr {
        self.backends[protocol as usize]
    }
}

async fn serve(stream: TcpStream, protocol: Protocol) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = BufReader::with_capacity(512, stream);
    match protocol {
        Protocol::Imap => imap(stream).await,
        Protocol::Pop3 => simple(stream, "+OK ready\r\n", |_| "+OK\r\n").await,
        Protocol::Smtp => simple(stream, "220 backend ESMTP\r\n", smtp).await,
    }
}

/// Greets, and answers each line, until QUIT.
async fn simple(
    mut stream: BufReader<TcpStream>,
    greeting: &str,
    answer: fn(&str) -> &'static str,
) -> Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        stream.write_all(answer(&line).as_bytes()).await?;
        if line.starts_with("QUIT") {
            return Ok(());
        }
    }
}

fn smtp(line: &str) -> &'static str {
    match line.split_ascii_whitespace().next() {
        Some("EHLO") => "250-backend\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n",
        Some("XCLIENT") => "220 backend ESMTP\r\n",
        Some("QUIT") => "221 bye\r\n",
        _ => "250 ok\r\n",
    }
}

/// Listens with a backlog that no burst fills.
async fn listen() -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket.listen(4096)?)
}

/// Supports LOGIN with arguments or literals, AUTHENTICATE PLAIN, LOGOUT and [`BULK`].
async fn imap(mut stream: BufReader<TcpStream>) -> Result<()> {
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

/// Accepts every request, and closes after HTTP/1.0. The answers are in the order of [`Protocol::ALL`].
async fn http(mut stream: TcpStream, answers: &[String; 3]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?;
            let keep_alive = head.lines().next().is_some_and(|line| line.ends_with("HTTP/1.1"));
            let name = head.lines().find_map(|line| line.strip_prefix("Auth-Protocol: "));
            let protocol = Protocol::ALL
                .iter()
                .position(|protocol| name.is_some_and(|name| name.eq_ignore_ascii_case(protocol.name())));
            let answer = &answers[protocol.context("a request without a protocol")?];
            stream.write_all(answer.as_bytes()).await?;
            if !keep_alive {
                return Ok(());
            }
            buffer.drain(..end + 4);
        }
    }
}
