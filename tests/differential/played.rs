//! A client that plays a scenario.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use super::differences::Difference;
use super::observed::{Facts, Observed};
use super::peer::{Peer, Peers};
use super::scenario::{Scenario, Turn};
use super::support::pki::AUTHORITY;

/// Plays all scenarios with both peers, several at once.
pub fn all(peers: &Peers, scenarios: &[Scenario]) -> Vec<Difference> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (nginx, mailgress) = peers.play(scenario);
                    let differences = Difference::between(&scenario.name, &nginx, &mailgress);
                    found.lock().unwrap().extend(differences);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// Plays one scenario with one peer. `number` identifies the session.
pub fn one(peer: &Peer, scenario: &Scenario, number: u16) -> Observed {
    let address = peer.client(number);
    let client6 = format!("2001:db8::{number:x}");
    peer.services.begin(scenario, address, &[address.to_string(), client6.clone()]);
    let server = peer.conf.port(&scenario.server);
    let mut client = Client::connect(address, server, scenario.implicit_tls).unwrap();
    let facts = Facts { client: address, client6, port: client.port, server };
    client.play(scenario, &facts);
    let end = client.probe(&scenario.server.protocol);
    let received = client.hang_up();
    Observed::new(&received, end, &peer.services.end(address), &facts)
}

struct Client {
    stream: Option<Stream>,
    received: Vec<u8>,
    port: u16,
    closed: bool,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    fn connect(from: Ipv4Addr, port: u16, implicit: bool) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        stream.set_write_timeout(Some(LONGEST))?;
        let port = stream.local_addr()?.port();
        let mut client =
            Self { stream: Some(Stream::Tcp(stream)), received: Vec::new(), port, closed: false };
        if implicit {
            client.shake_hands();
        }
        Ok(client)
    }

    fn play(&mut self, scenario: &Scenario, facts: &Facts) {
        let mut expected: usize = 0;
        for turn in &scenario.turns {
            if self.closed {
                return;
            }
            self.send(&filled_in(&turn.sent, facts));
            if turn.ends {
                self.wait_for_silence(SHORT);
            }
            expected = expected.saturating_add(turn.lines);
            self.wait(patience(turn), |client| client.lines() >= expected && !turn.closes && !turn.silence);
            if turn.starts_tls && self.agreed_to_tls() {
                self.shake_hands();
            }
        }
    }

    /// Sends one more command to find out whether the session is still open.
    fn probe(&mut self, protocol: &str) -> &'static str {
        self.wait_for_silence(SETTLED);
        let before = self.received.len();
        let is_imap = protocol == "imap";
        self.send(if is_imap { b"zz NOOP\r\n" } else { b"NOOP\r\n" });
        let is_answered = |client: &Self| {
            let said = &client.received[before..];
            if is_imap { said.windows(3).any(|word| word == b"zz ") } else { !said.is_empty() }
        };
        self.wait(SHORT, is_answered);
        match self.closed {
            true => "closed",
            false if self.received.len() > before => "open",
            false => "silent",
        }
    }

    fn hang_up(self) -> Vec<u8> {
        self.received
    }

    fn send(&mut self, bytes: &[u8]) {
        let sent = match &mut self.stream {
            Some(Stream::Tcp(stream)) => stream.write_all(bytes),
            Some(Stream::Tls(stream)) => stream.write_all(bytes).and_then(|()| stream.flush()),
            None => return,
        };
        // The replies before the end can still be read.
        drop(sent);
        self.acknowledge_at_once();
    }

    /// Makes the kernel acknowledge at once. nginx does not set TCP_NODELAY before the login: while an acknowledgement
    /// is missing, it holds replies back, and loses them when it closes with unread bytes.
    fn acknowledge_at_once(&self) {
        let socket = match &self.stream {
            Some(Stream::Tcp(stream)) => SockRef::from(stream),
            Some(Stream::Tls(stream)) => SockRef::from(&stream.sock),
            None => return,
        };
        let _ = socket.set_tcp_quickack(true);
    }

    fn wait(&mut self, bound: Duration, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + bound;
        while !self.closed && !enough(self) && Instant::now() < deadline {
            self.read();
        }
    }

    /// Waits for the end, or until nothing has arrived for `pause`.
    fn wait_for_silence(&mut self, pause: Duration) {
        let mut said = usize::MAX;
        while !self.closed && said != self.received.len() {
            said = self.received.len();
            self.wait(pause, |client| client.received.len() > said);
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let read = match &mut self.stream {
            Some(Stream::Tcp(stream)) => stream.read(&mut buffer),
            Some(Stream::Tls(stream)) => stream.read(&mut buffer),
            None => Ok(0),
        };
        match read {
            Ok(0) => self.closed = true,
            Ok(size) => {
                self.received.extend_from_slice(&buffer[..size]);
                self.acknowledge_at_once();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
    }

    fn lines(&self) -> usize {
        self.received.iter().filter(|byte| **byte == b'\n').count()
    }

    fn agreed_to_tls(&self) -> bool {
        ["OK completed\r\n", "+OK\r\n", "220 2.0.0 Start TLS\r\n"]
            .iter()
            .any(|line| self.received.ends_with(line.as_bytes()))
    }

    fn shake_hands(&mut self) {
        let Some(Stream::Tcp(tcp)) = self.stream.take() else { panic!("TLS only over plain TCP") };
        tcp.set_read_timeout(Some(LONGEST)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(AUTHORITY.client(), name).unwrap(), tcp);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                self.closed = true;
                return;
            }
        }
        stream.sock.set_read_timeout(Some(GLANCE)).unwrap();
        self.stream = Some(Stream::Tls(Box::new(stream)));
    }
}

fn filled_in(bytes: &[u8], facts: &Facts) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    text.replace("{client}", &facts.client.to_string()).replace("{client6}", &facts.client6).into_bytes()
}

/// Time limit of a turn. It is used up only if the peers differ.
fn patience(turn: &Turn) -> Duration {
    match turn {
        Turn { silence: true, .. } => QUIET,
        Turn { lines: 0, closes: false, decides: false, .. } => Duration::ZERO,
        Turn { .. } => LONG,
    }
}

/// Sessions that are played in parallel.
const AT_ONCE: usize = 24;

/// Time limit of one read.
const GLANCE: Duration = Duration::from_millis(5);

/// Long enough for a server to read the available bytes.
const QUIET: Duration = Duration::from_millis(200);

/// Maximum pause between available replies.
const SETTLED: Duration = Duration::from_millis(60);

/// Time limit for one reply; longer than the auth service delays clients.
const SHORT: Duration = Duration::from_millis(1500);

/// Time limit for all replies to a turn, because the auth service delays clients for seconds.
const LONG: Duration = Duration::from_secs(5);

/// Time limit for handshakes and writes.
const LONGEST: Duration = Duration::from_secs(20);
