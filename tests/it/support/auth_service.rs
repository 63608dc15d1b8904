//! A programmable auth service with nginx's HTTP protocol and keep-alive. It records its requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::acceptor::Acceptor;

/// A running auth service.
pub struct AuthService {
    acceptor: Acceptor,
    requests: Arc<Mutex<Vec<AuthRequest>>>,
}

/// One request: the request line, and the headers in order.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// For example `GET /auth HTTP/1.1`.
    pub line: String,
    headers: Vec<(String, String)>,
}

/// How the service reacts to a request.
pub enum Answer {
    /// `Auth-Status: OK` with this backend.
    Backend(SocketAddr),
    /// A response with these headers.
    Headers(Vec<(&'static str, String)>),
    /// A response with these headers and another status than `200 OK`.
    Status(&'static str, Vec<(&'static str, String)>),
    /// These bytes instead of a response.
    Bytes(&'static [u8]),
    /// No response; the connection stays open.
    Silence,
    /// No response; the connection is closed.
    Close,
}

impl Answer {
    /// Returns a refusal with this text.
    pub fn refuse(text: &str) -> Self {
        Self::Headers(vec![("Auth-Status", text.to_owned())])
    }
}

impl AuthRequest {
    /// Returns a header's value as sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl AuthService {
    /// Starts a service that answers with `decide`.
    pub fn start(decide: impl Fn(&AuthRequest) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), decide)
    }

    /// As [`Self::start`], on this local address.
    pub fn start_on(ip: IpAddr, decide: impl Fn(&AuthRequest) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&requests);
        let acceptor = Acceptor::start_on(ip, move |stream| {
            // A client that disconnects ends only its own connection.
            let _ = serve(stream, &memory, &decide);
        });
        Self { acceptor, requests }
    }

    /// Accepts `password` for all users, and selects the backend by protocol.
    pub fn routing(
        password: &'static str,
        route: impl Fn(&str) -> SocketAddr + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| {
            let known = request.header("Auth-Method") == Some("none")
                || request.header("Auth-Pass") == Some(password);
            match request.header("Auth-Protocol") {
                Some(protocol) if known => Answer::Backend(route(protocol)),
                _ => Answer::refuse("Invalid login or password"),
            }
        })
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Returns the value for `auth.http.url`.
    pub fn url(&self) -> String {
        format!("http://{}/auth", self.acceptor.address())
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<AuthRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns the requests for one login name.
    pub fn requests_of(&self, user: &str) -> Vec<AuthRequest> {
        self.requests().into_iter().filter(|request| request.header("Auth-User") == Some(user)).collect()
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> u64 {
        self.acceptor.accepted()
    }
}

fn serve(
    mut stream: TcpStream,
    memory: &Mutex<Vec<AuthRequest>>,
    decide: &impl Fn(&AuthRequest) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let keep_alive = request.line.ends_with("HTTP/1.1")
            && !request.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let answer = decide(&request);
        memory.lock().unwrap().push(request);
        match answer {
            Answer::Backend(address) => respond(
                &mut stream,
                SUCCESS,
                &[
                    ("Auth-Status", "OK".to_owned()),
                    ("Auth-Server", address.ip().to_string()),
                    ("Auth-Port", address.port().to_string()),
                ],
            )?,
            Answer::Headers(headers) => respond(&mut stream, SUCCESS, &headers)?,
            Answer::Status(status, headers) => respond(&mut stream, status, &headers)?,
            Answer::Bytes(bytes) => {
                stream.write_all(bytes)?;
                return Ok(());
            }
            Answer::Silence => continue,
            Answer::Close => return Ok(()),
        }
        if !keep_alive {
            return Ok(());
        }
    }
    Ok(())
}

const SUCCESS: &str = "200 OK";

fn respond(stream: &mut TcpStream, status: &str, headers: &[(&str, String)]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<AuthRequest>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut request = AuthRequest { line: line.trim_end().to_owned(), headers: Vec::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(Some(request));
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}
