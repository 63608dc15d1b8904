//! Login dialogues for tests that check every line.

use std::io::Result;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::wire::Wire;

/// The protocols as in manifests.
pub const PROTOCOLS: [&str; 3] = ["IMAP", "POP3", "SMTP"];

/// Connects without TLS and reads the greeting.
pub fn greeted(address: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::connect(address)?;
    wire.line()?;
    Ok(wire)
}

/// Sends a login up to the password, without reading the reply to it.
pub fn send_login(wire: &mut Wire, protocol: &str, user: &str, password: &str) -> Result<()> {
    match protocol {
        "IMAP" => wire.send(format!("a LOGIN {user} {password}\r\n")),
        "POP3" => {
            wire.ask(&format!("USER {user}"))?;
            wire.send(format!("PASS {password}\r\n"))
        }
        _ => {
            wire.smtp("EHLO client.example.test")?;
            let response = STANDARD.encode(format!("\0{user}\0{password}"));
            wire.send(format!("AUTH PLAIN {response}\r\n"))
        }
    }
}

/// Logs in. Returns the last line of the reply.
pub fn log_in(wire: &mut Wire, protocol: &str, user: &str, password: &str) -> Result<String> {
    send_login(wire, protocol, user, password)?;
    loop {
        let line = wire.line()?;
        let untagged = protocol == "IMAP" && line.starts_with("* ");
        if !untagged || line.starts_with("* BYE") || line.starts_with("* BAD") {
            return Ok(line);
        }
    }
}

/// Tells whether a reply accepts the login.
pub fn is_success(protocol: &str, answer: &str) -> bool {
    answer.starts_with(match protocol {
        "IMAP" => "a OK",
        "POP3" => "+OK",
        _ => "235 ",
    })
}

/// Sends a command that only the backend can answer. Returns whether it did.
pub fn backend_answers(wire: &mut Wire, protocol: &str) -> Result<bool> {
    Ok(match protocol {
        "IMAP" => wire.imap("n", "NOOP")?.last().is_some_and(|line| line.starts_with("n OK")),
        "POP3" => wire.ask("NOOP")?.starts_with("+OK"),
        _ => wire.ask("NOOP")?.starts_with("250 "),
    })
}

/// The start of the answer to a login that fails now, if the client is not at fault: with `passthrough`, and where routes
/// decide.
pub fn temporary_error(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "a NO [UNAVAILABLE] ",
        "POP3" => "-ERR [SYS/TEMP] ",
        _ => "454 4.7.0 ",
    }
}

/// nginx's error before a client is disconnected, if it is not at fault: with an auth service.
pub fn internal_error(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BAD internal server error",
        "POP3" => "-ERR internal server error",
        _ => "451 4.3.2 Internal server error",
    }
}
