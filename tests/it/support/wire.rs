//! A client that sees every byte, over TCP, a UNIX socket or TLS.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::pki::AUTHORITY;
use super::wait::PATIENCE;

/// A connection to a listener.
pub struct Wire {
    stream: Stream,
    unread: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Tcp(stream), unread: Vec::new() })
    }

    /// Connects over TCP from this source address, as a different client. All of 127.0.0.0/8 is local.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Self::over(socket.into())
    }

    /// Makes writes fail at once if the other side does not read.
    pub fn do_not_wait(&self) {
        let Stream::Tcp(stream) = &self.stream else { panic!("only over plain TCP") };
        stream.set_nonblocking(true).unwrap();
    }

    /// Connects over a UNIX socket.
    pub fn connect_unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Unix(stream), unread: Vec::new() })
    }

    /// Connects over TCP with implicit TLS.
    pub fn connect_tls(address: SocketAddr) -> Result<Self> {
        Self::connect(address)?.handshake()
    }

    /// Does a TLS handshake. The server must prove to be `localhost` with a certificate of the tests' authority.
    pub fn handshake(self) -> Result<Self> {
        self.handshake_as(AUTHORITY.client(), "localhost")
    }

    /// Does a TLS handshake as this client, which requests `name`. An address sends no SNI.
    pub fn handshake_as(self, client: Arc<ClientConfig>, name: &str) -> Result<Self> {
        self.handshake_behind(&[], client, name)
    }

    /// As [`Self::handshake_as`], with the bytes `before` in the segment of the ClientHello.
    pub fn handshake_behind(self, before: &[u8], client: Arc<ClientConfig>, name: &str) -> Result<Self> {
        let Stream::Tcp(mut tcp) = self.stream else { panic!("TLS only over plain TCP") };
        assert!(self.unread.is_empty(), "bytes before the handshake");
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(client, name).unwrap();
        let mut first = before.to_vec();
        connection.write_tls(&mut first)?;
        tcp.write_all(&first)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(stream)), unread: Vec::new() })
    }

    /// Returns the server's certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.tls().peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Returns the state of the TLS connection.
    pub fn tls(&self) -> &ClientConnection {
        let Stream::Tls(stream) = &self.stream else { panic!("no TLS") };
        &stream.conn
    }

    /// Returns our own address.
    pub fn local_address(&self) -> SocketAddr {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().unwrap(),
            Stream::Tls(stream) => stream.sock.local_addr().unwrap(),
            Stream::Unix(_) => panic!("a UNIX socket has none"),
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Closes our direction. The other direction can still be read.
    pub fn end(&mut self) -> Result<()> {
        let Stream::Tcp(stream) = &self.stream else { panic!("only over plain TCP") };
        stream.shutdown(Shutdown::Write)
    }

    /// Reads a line without its CRLF. The end of the stream is an error.
    pub fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends a line and returns the next one.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\r\n"))?;
        self.line()
    }

    /// Sends an IMAP command with its tag. Returns all lines up to the tagged one.
    pub fn imap(&mut self, tag: &str, command: &str) -> Result<Vec<String>> {
        self.send(format!("{tag} {command}\r\n"))?;
        self.lines_until(|line| line.starts_with(tag))
    }

    /// Sends an SMTP command. Returns the lines of the reply.
    pub fn smtp(&mut self, command: &str) -> Result<Vec<String>> {
        self.send(format!("{command}\r\n"))?;
        self.lines_until(|line| line.as_bytes().get(3) != Some(&b'-'))
    }

    fn lines_until(&mut self, last: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.line()?);
            if last(&lines[lines.len() - 1]) {
                return Ok(lines);
            }
        }
    }

    /// Returns everything up to the end of the stream. A reset counts as the end. Panics if there is none within
    /// `bound`.
    pub fn rest(mut self, bound: Duration) -> String {
        let deadline = Instant::now() + bound;
        self.set_read_timeout(Duration::from_millis(50));
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            assert!(
                Instant::now() < deadline,
                "still open after {bound:?}, having said {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    fn set_read_timeout(&self, timeout: Duration) {
        let timeout = Some(timeout);
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
            Stream::Tls(stream) => stream.sock.set_read_timeout(timeout),
        }
        .unwrap();
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let size = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut buffer)?,
            Stream::Unix(stream) => stream.read(&mut buffer)?,
            Stream::Tls(stream) => stream.read(&mut buffer)?,
        };
        self.unread.extend_from_slice(&buffer[..size]);
        Ok(size)
    }
}
