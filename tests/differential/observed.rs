//! What a session looked like on the wire, without values that always differ: addresses, ports, salts.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::services::Caused;

/// A session as its three partners saw it, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The replies to the client, and how the session ended.
    pub replies: Vec<String>,
    /// The requests to the auth service.
    pub requests: Vec<String>,
    /// The bytes for the backend.
    pub backend: Vec<String>,
}

/// The values that differ each time.
pub struct Facts {
    /// The session's address.
    pub client: Ipv4Addr,
    /// The same address in IPv6.
    pub client6: String,
    /// The client's port.
    pub port: u16,
    /// The server's port.
    pub server: u16,
}

impl Observed {
    /// Creates it from the bytes for the client and the state of its connection.
    pub fn new(replies: &[u8], end: &str, caused: &Caused, facts: &Facts) -> Self {
        let mut told: Vec<String> = lines(replies).map(|line| facts.take_out(&challenge(line))).collect();
        told.push(format!("[{end}]"));
        let mut requests = Vec::new();
        for request in &caused.requests {
            requests.extend(request.iter().map(|line| facts.take_out(&header(line))));
        }
        let mut backend = Vec::new();
        for bytes in &caused.received {
            backend.push("[connected]".to_owned());
            backend.extend(lines(bytes).map(|line| facts.take_out(&line)));
        }
        Self { replies: told, requests, backend }
    }
}

impl Facts {
    fn take_out(&self, line: &str) -> String {
        let mut line = line.replace(&self.client.to_string(), "{client}").replace(&self.client6, "{client6}");
        if line.starts_with("PROXY ") {
            line = line.replace(&format!(" {} ", self.port), " {port} ");
            line = line.replace(&format!(" {}", self.server), " {server port}");
        }
        without_salt(&line)
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let text = line.strip_suffix(b"\r\n");
        text.map_or_else(|| format!("{}\\", line.escape_ascii()), |text| text.escape_ascii().to_string())
    })
}

/// Normalises a header: names ignore case (RFC 9110 section 5.1), and the service does not use the HTTP version.
fn header(line: &str) -> String {
    if line.starts_with("GET ") {
        return line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    }
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    format!("{}:{value}", name.to_lowercase())
}

/// Removes `<nonce.time@name>`.
fn without_salt(line: &str) -> String {
    let found =
        line.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once("@mail.test>")?)));
    match found {
        Some((before, (salt, after)))
            if salt.contains('.') && salt.bytes().all(|byte| !byte.is_ascii_whitespace()) =>
        {
            format!("{before}<salt>{after}")
        }
        _ => line.to_owned(),
    }
}

/// Normalises a challenge that contains a salt.
fn challenge(line: String) -> String {
    let is_salted = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes.ends_with(b"@mail.test>"));
    match line.split_once(' ') {
        Some((word @ ("+" | "334"), text)) if is_salted(text) => format!("{word} {{salt}}"),
        _ => line,
    }
}
