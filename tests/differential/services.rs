//! The auth service and the backends behind both peers. They answer as the scenario says, and record everything.
//!
//! Sessions run in parallel. Each has its own loopback address: the client connects from it, the auth service
//! identifies it by `Client-IP`, and sends the session to a backend at this address.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::scenario::{Scenario, Verdict};
use super::support::acceptor::Acceptor;
use super::support::{ports, wait};

/// The running services.
pub struct Services {
    auth: Acceptor,
    sessions: Arc<Sessions>,
}

/// What one session caused.
#[derive(Clone, Debug, Default)]
pub struct Caused {
    /// The header lines of each request to the auth service.
    pub requests: Vec<Vec<String>>,
    /// The bytes that each connection to the backend received.
    pub received: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Sessions(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    sessions: HashMap<Ipv4Addr, Session>,
    /// The session of each `Client-IP`. After a PROXY header, a client may have another address.
    names: HashMap<String, Ipv4Addr>,
}

struct Session {
    verdicts: VecDeque<Verdict>,
    backend: BTreeMap<String, Vec<u8>>,
    caused: Caused,
    open: usize,
}

impl Services {
    /// Starts all services.
    pub fn start() -> Self {
        let sessions = Arc::new(Sessions::default());
        let backends = ["imap", "pop3", "smtp"].map(|name| (name, backend(name, Arc::clone(&sessions))));
        let backends: BTreeMap<_, _> = backends.into();
        let memory = Arc::clone(&sessions);
        let auth = Acceptor::start(move |stream| {
            // A client that disconnects ends only its own connection.
            let _ = answer_requests(stream, &memory, &backends);
        });
        Self { auth, sessions }
    }

    /// Returns the auth service's port.
    pub fn auth_port(&self) -> u16 {
        self.auth.address().port()
    }

    /// Starts the session of this address. The auth service sees its client with these names.
    pub fn begin(&self, scenario: &Scenario, address: Ipv4Addr, names: &[String]) {
        let session = Session {
            verdicts: scenario.verdicts.clone().into(),
            backend: scenario.backend.clone(),
            caused: Caused::default(),
            open: 0,
        };
        let mut memory = self.sessions.lock();
        memory.sessions.insert(address, session);
        memory.names.extend(names.iter().map(|name| (name.clone(), address)));
    }

    /// Ends the session. Returns what it caused, after its connections to the backend have ended.
    pub fn end(&self, address: Ipv4Addr) -> Caused {
        wait::eventually("the backend's connections end", || {
            (self.sessions.lock().sessions.get(&address)?.open == 0).then_some(())
        });
        let mut memory = self.sessions.lock();
        memory.names.retain(|_, owner| *owner != address);
        memory.sessions.remove(&address).unwrap().caused
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock()
    }

    /// Records another connection to a session's backend. Returns the session's address, the number of the connection,
    /// and the replies. A session with a reply to `LOCALHOST` connects by name.
    fn connected(&self, to: Ipv4Addr) -> Option<(Ipv4Addr, usize, BTreeMap<String, Vec<u8>>)> {
        let mut memory = self.lock();
        let is_meant = |(address, session): &(&Ipv4Addr, &mut Session)| {
            **address == to || to == Ipv4Addr::LOCALHOST && session.backend.contains_key("LOCALHOST")
        };
        let (address, session) = memory.sessions.iter_mut().find(is_meant)?;
        session.open += 1;
        session.caused.received.push(Vec::new());
        Some((*address, session.caused.received.len() - 1, session.backend.clone()))
    }
}

fn answer_requests(stream: TcpStream, sessions: &Sessions, ports: &BTreeMap<&str, u16>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(lines) = request(&mut reader)? {
        let header = |name: &str| {
            let found = lines.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            });
            found.unwrap_or_default()
        };
        let port = ports.get(header("Auth-Protocol").as_str()).copied().unwrap_or(0);
        let is_plain = header("Auth-Method") == "plain";
        let mut memory = sessions.lock();
        let Some(address) = memory.names.get(&header("Client-IP")).copied() else { return Ok(()) };
        let Some(session) = memory.sessions.get_mut(&address) else { return Ok(()) };
        session.caused.requests.push(lines);
        let verdict = session
            .verdicts
            .pop_front()
            .unwrap_or_else(|| Verdict::Refuse { text: "no".to_owned(), code: None });
        let text = response(&verdict, address, port, is_plain);
        drop(memory);
        stream.write_all(&text)?;
    }
    Ok(())
}

fn request(reader: &mut impl BufRead) -> Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return Ok(Some(lines));
        }
        lines.push(line.escape_ascii().to_string());
    }
}

fn response(verdict: &Verdict, server: Ipv4Addr, port: u16, is_plain: bool) -> Vec<u8> {
    let mut headers = match verdict {
        Verdict::Accept => format!("Auth-Status: OK\r\nAuth-Server: {server}\r\nAuth-Port: {port}\r\n"),
        Verdict::Refuse { text, code: None } => format!("Auth-Status: {text}\r\nAuth-Wait: 1\r\n"),
        Verdict::Refuse { text, code: Some(code) } => {
            format!("Auth-Status: {text}\r\nAuth-Error-Code: {code}\r\nAuth-Wait: 1\r\n")
        }
        Verdict::Broken => "Auth-Status: OK\r\n".to_owned(),
        Verdict::Raw(bytes) => {
            let (server, port) = (server.to_string(), port.to_string());
            return replaced(&replaced(bytes, b"{server}", server.as_bytes()), b"{port}", port.as_bytes());
        }
    };
    if matches!(verdict, Verdict::Accept) && !is_plain {
        headers.push_str("Auth-Pass: from-the-service\r\n");
    }
    format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{headers}\r\n").into_bytes()
}

/// Replaces a word. The answer need not be text.
fn replaced(bytes: &[u8], word: &[u8], with: &[u8]) -> Vec<u8> {
    match bytes.windows(word.len()).position(|window| window == word) {
        Some(at) => [&bytes[..at], with, &bytes[at + word.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Listens on all loopback addresses. The destination address identifies the session.
fn backend(protocol: &'static str, sessions: Arc<Sessions>) -> u16 {
    let port = ports::free();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let sessions = Arc::clone(&sessions);
            std::thread::spawn(move || Connection::serve(protocol, stream, &sessions));
        }
    });
    port
}

struct Connection<'a> {
    sessions: &'a Sessions,
    address: Ipv4Addr,
    number: usize,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    replies: BTreeMap<String, Vec<u8>>,
}

impl<'a> Connection<'a> {
    fn serve(protocol: &str, stream: TcpStream, sessions: &'a Sessions) {
        let _ = stream.set_nodelay(true);
        let Ok(SocketAddr::V4(local)) = stream.local_addr() else { return };
        let Ok(reader) = stream.try_clone().map(BufReader::new) else { return };
        let Some((address, number, replies)) = sessions.connected(*local.ip()) else { return };
        let mut connection = Connection { sessions, address, number, stream, reader, replies };
        // A proxy that disconnects ends only its own connection.
        let _ = match protocol {
            "imap" => connection.imap(),
            "pop3" => connection.pop3(),
            _ => connection.smtp(),
        };
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        // Read the rest, because a reset would drop earlier replies.
        let _ = std::io::copy(&mut connection.reader, &mut std::io::sink());
        if let Some(session) = sessions.lock().sessions.get_mut(&address) {
            session.open -= 1;
        }
    }

    fn keep(&self, bytes: &[u8]) {
        if let Some(session) = self.sessions.lock().sessions.get_mut(&self.address) {
            session.caused.received[self.number].extend_from_slice(bytes);
        }
    }

    fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        if (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.keep(&line);
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Sends the scenario's reply to a verb, or the default one. `{tag}` is replaced.
    fn reply(&mut self, verb: &str, tag: &str, ordinary: &str) -> Result<()> {
        let own = self.replies.get(verb).map(|bytes| String::from_utf8_lossy(bytes).replace("{tag}", tag));
        let text = own.unwrap_or_else(|| format!("{ordinary}\r\n"));
        self.stream.write_all(text.as_bytes())
    }

    fn imap(&mut self) -> Result<()> {
        self.reply("GREETING", "", "* OK backend ready")?;
        while let Some(line) = self.line()? {
            let mut line = if line.starts_with("PROXY ") { continue } else { line };
            let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let (tag, verb) = (tag.to_owned(), rest.split(' ').next().unwrap_or_default().to_uppercase());
            while let Some(size) = literal(&line) {
                self.reply("LITERAL", &tag, "+ go on")?;
                let mut bytes = vec![0; size];
                self.reader.read_exact(&mut bytes)?;
                self.keep(&bytes);
                line = self.line()?.unwrap_or_default();
            }
            match verb.as_str() {
                "LOGOUT" => return self.reply("LOGOUT", &tag, &format!("* BYE\r\n{tag} OK bye")),
                verb => self.reply(verb, &tag, &format!("{tag} OK {verb} done"))?,
            }
        }
        Ok(())
    }

    fn pop3(&mut self) -> Result<()> {
        self.reply("GREETING", "", "+OK backend ready")?;
        while let Some(line) = self.line()? {
            let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
            if verb == "PROXY" {
                continue;
            }
            self.reply(&verb, "", &format!("+OK {verb} done"))?;
            if verb == "QUIT" {
                return Ok(());
            }
        }
        Ok(())
    }

    fn smtp(&mut self) -> Result<()> {
        self.reply("GREETING", "", "220 backend ready")?;
        while let Some(line) = self.line()? {
            let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
            match verb.as_str() {
                "PROXY" => {}
                "EHLO" => self.reply("EHLO", "", OFFERED)?,
                "XCLIENT" => self.reply("XCLIENT", "", "220 backend ready for another")?,
                "AUTH" => self.reply("AUTH", "", "235 welcome")?,
                "QUIT" => return self.reply("QUIT", "", "221 bye"),
                verb => self.reply(verb, "", &format!("250 {verb} done"))?,
            }
        }
        Ok(())
    }
}

const OFFERED: &str = "250-backend\r\n250-PIPELINING\r\n250-XCLIENT NAME ADDR LOGIN\r\n250 AUTH PLAIN LOGIN";

const LONGEST_LINE: u64 = 1 << 16;

fn literal(line: &str) -> Option<usize> {
    let (_, size) = line.rsplit_once('{')?;
    size.strip_suffix('}')?.trim_end_matches('+').parse().ok()
}
