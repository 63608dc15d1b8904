//! The floor: a proxy that does nothing but what every mail proxy must. It accepts, greets, takes one login, asks the auth
//! service, connects, logs in and copies. It has no parser, limits, timeouts, metrics or log. What Mailgress needs more is
//! the cost of these.
//!
//! `make bench` starts its own program with these arguments as a process of its own.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::services::Protocol;

/// The first argument that makes this program the proxy.
pub(crate) const ARGUMENT: &str = "floor";

/// Buffers of the copy, in bytes: as small as those of a mail server.
const BUFFER: usize = 8 * 1024;

/// Runs as the proxy: `floor WORKERS AUTH IMAP POP3 SMTP IMAPS DIRECTORY`. The directory has the certificate.
pub(crate) fn run() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(2).collect();
    let [workers, auth, imap, pop3, smtp, imaps, directory] = &arguments[..] else {
        bail!("floor WORKERS AUTH IMAP POP3 SMTP IMAPS DIRECTORY")
    };
    let auth: SocketAddr = auth.parse()?;
    let acceptor = acceptor(Path::new(directory))?;
    let workers = workers.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        for (protocol, port) in Protocol::ALL.into_iter().zip([imap, pop3, smtp]) {
            tokio::spawn(serve(protocol, listen(port.parse()?)?, None, auth));
        }
        serve(Protocol::Imap, listen(imaps.parse()?)?, Some(acceptor), auth).await;
        Ok(())
    })
}

fn acceptor(directory: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key"))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket.listen(4096)?)
}

async fn serve(protocol: Protocol, listener: TcpListener, tls: Option<TlsAcceptor>, auth: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        let tls = tls.clone();
        // A client that leaves ends only its own connection.
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            match tls {
                None => session(protocol, client, auth).await,
                Some(tls) => session(protocol, tls.accept(client).await?, auth).await,
            }
        });
    }
}

async fn session(
    protocol: Protocol,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    auth: SocketAddr,
) -> Result<()> {
    let mut line = Vec::with_capacity(256);
    let login: &[&[u8]] = match protocol {
        Protocol::Imap => {
            say(&mut client, b"* OK ready\r\n").await?;
            hear(&mut client, &mut line).await?;
            &[b"a LOGIN user@example.test secret\r\n"]
        }
        Protocol::Pop3 => {
            say(&mut client, b"+OK ready\r\n").await?;
            hear(&mut client, &mut line).await?;
            say(&mut client, b"+OK\r\n").await?;
            hear(&mut client, &mut line).await?;
            &[b"USER user@example.test\r\n", b"PASS secret\r\n"]
        }
        Protocol::Smtp => {
            say(&mut client, b"220 floor ESMTP\r\n").await?;
            hear(&mut client, &mut line).await?;
            say(&mut client, b"250-floor\r\n250 AUTH PLAIN\r\n").await?;
            hear(&mut client, &mut line).await?;
            &[b"EHLO floor\r\n"]
        }
    };
    let mut backend = TcpStream::connect(ask(protocol, auth).await?).await?;
    backend.set_nodelay(true)?;
    hear(&mut backend, &mut line).await?;
    for command in login {
        say(&mut backend, command).await?;
        hear(&mut backend, &mut line).await?;
    }
    if protocol == Protocol::Smtp {
        say(&mut client, b"235 2.0.0 OK\r\n").await?;
    } else {
        say(&mut client, &line).await?;
    }
    copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await?;
    Ok(())
}

/// Returns the backend that the auth service names.
async fn ask(protocol: Protocol, auth: SocketAddr) -> Result<SocketAddr> {
    let mut service = TcpStream::connect(auth).await?;
    let request = format!(
        "GET /auth HTTP/1.0\r\nHost: 127.0.0.1\r\nAuth-Method: plain\r\nAuth-User: user@example.test\r\n\
         Auth-Pass: secret\r\nAuth-Protocol: {}\r\nAuth-Login-Attempt: 1\r\nClient-IP: 127.0.0.1\r\n\r\n",
        protocol.name().to_lowercase()
    );
    service.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(service.read_buf(&mut answer).await? > 0, "no answer");
    }
    let text = std::str::from_utf8(&answer)?;
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).context("no backend");
    Ok(SocketAddr::new(header("Auth-Server: ")?.parse()?, header("Auth-Port: ")?.parse()?))
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> Result<()> {
    stream.write_all(line).await?;
    Ok(stream.flush().await?)
}

/// Reads until a line is whole.
async fn hear(stream: &mut (impl AsyncRead + Unpin), line: &mut Vec<u8>) -> Result<()> {
    line.clear();
    while !line.ends_with(b"\r\n") {
        ensure!(stream.read_buf(line).await? > 0, "the peer has left");
    }
    Ok(())
}
