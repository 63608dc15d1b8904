//! The login dialogues, for tests that look at every line.

use std::io::Result;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::wire::Wire;

/// The three protocols, as manifests name them.
pub const PROTOCOLS: [&str; 3] = ["IMAP", "POP3", "SMTP"];

/// Connects in clear and reads the greeting.
pub fn greeted(address: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::connect(address)?;
    wire.line()?;
    Ok(wire)
}

/// Sends everything up to the password, and returns before the answer to it.
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

/// Logs in, and returns the last line of the answer.
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

/// Whether the answer to a login is a success.
pub fn is_success(protocol: &str, answer: &str) -> bool {
    answer.starts_with(match protocol {
        "IMAP" => "a OK",
        "POP3" => "+OK",
        _ => "235 ",
    })
}

/// A command that only the backend answers, and whether it did.
pub fn backend_answers(wire: &mut Wire, protocol: &str) -> Result<bool> {
    Ok(match protocol {
        "IMAP" => wire.imap("n", "NOOP")?.last().is_some_and(|line| line.starts_with("n OK")),
        "POP3" => wire.ask("NOOP")?.starts_with("+OK"),
        _ => wire.ask("NOOP")?.starts_with("250 "),
    })
}

/// What a client hears when the fault is not its own, before it is disconnected.
pub fn internal_error(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BAD internal server error",
        "POP3" => "-ERR internal server error",
        _ => "451 4.3.2 Internal server error",
    }
}
