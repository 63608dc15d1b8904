//! Clients that send garbage, too much or too slowly, or leave: they get a reply or a disconnect, memory is bounded,
//! nothing panics, and other clients are served.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret};
use crate::support::pki::AUTHORITY;
use crate::support::talk::{PROTOCOLS, backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// All protocols with StartTLS and with implicit TLS.
struct Edge {
    mailgress: Mailgress,
    starttls: Vec<(&'static str, SocketAddr)>,
    implicit: Vec<(&'static str, SocketAddr)>,
    backends: [Backend; 3],
    _folder: Folder,
}

impl Edge {
    fn start() -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let mut listeners: Vec<Value> = Vec::new();
        let mut listen = |tls: &str| {
            let each = PROTOCOLS.into_iter().zip(&backends).map(|(protocol, backend)| {
                let port = ports::free();
                let name = format!("{}-{}", protocol.to_lowercase(), tls.to_lowercase());
                listeners.push(listener(&name, protocol, tls, port, backend.address()));
                (protocol, SocketAddr::from(([127, 0, 0, 1], port)))
            });
            each.collect::<Vec<_>>()
        };
        let (starttls, implicit) = (listen("StartTLS"), listen("Implicit"));
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
                "auth": passthrough(),
                "timeouts": { "client": "20s" },
                "listeners": listeners,
            })),
        );
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, starttls, implicit, backends, _folder: folder }
    }

    /// Checks that well-behaved clients are served.
    fn serves_others(&self) {
        for (protocol, address) in &self.starttls {
            let mut wire = greeted(*address).unwrap();
            assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
            assert!(backend_answers(&mut wire, protocol).unwrap());
        }
        for (protocol, address) in &self.implicit {
            let mut wire = Wire::connect_tls(*address).unwrap();
            wire.line().unwrap();
            assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
        }
    }

    /// Checks that no bad session remains at the backends.
    fn forgets(&self) {
        for backend in &self.backends {
            wait::eventually("every session has ended", || (backend.open() == 0).then_some(()));
        }
    }
}

/// Sends until the other side stops accepting. A disconnect is a valid answer.
fn send_until_cut_off(wire: &mut Wire, bytes: &[u8], times: usize) -> Result<()> {
    for _ in 0..times {
        match wire.send(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            other => other?,
        }
    }
    Ok(())
}

/// The reply to an invalid command.
fn invalid(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BAD invalid command",
        "POP3" => "-ERR invalid command",
        _ => "500 5.5.1 Invalid command",
    }
}

#[test]
fn garbage_is_answered_five_times_and_then_ends_the_session() {
    let edge = Edge::start();
    for (protocol, address) in &edge.starttls {
        for garbage in ["\0\0\0\0", "\u{1}\u{2}\u{3} \u{7f}", "ÿÿÿÿ"] {
            let mut wire = greeted(*address).unwrap();
            for _ in 0..5 {
                assert_eq!(wire.ask(garbage).unwrap(), invalid(protocol), "{protocol}");
            }
            assert_eq!(wire.rest(Duration::from_secs(10)), "", "{protocol} after {garbage:?}");
        }
    }
    edge.serves_others();
}

#[test]
fn a_line_longer_than_the_buffer_is_refused_and_ends_the_session() {
    let edge = Edge::start();
    for (protocol, address) in &edge.starttls {
        let mut wire = greeted(*address).unwrap();
        send_until_cut_off(&mut wire, &[b'a'; 5000], 1).unwrap();
        let said = wire.rest(Duration::from_secs(10));
        assert!(said.is_empty() || said.trim_end() == invalid(protocol), "{protocol}: {said}");
    }
    edge.serves_others();
}

#[test]
fn a_megabyte_without_a_newline_takes_no_memory() {
    let edge = Edge::start();
    edge.serves_others();
    let before = edge.mailgress.resident_bytes();
    let mut open = Vec::new();
    for bytes in [vec![b'x'; 4096], vec![0; 4096], vec![0xff; 4096]] {
        for (_, address) in edge.starttls.iter().cycle().take(60) {
            let mut wire = greeted(*address).unwrap();
            send_until_cut_off(&mut wire, &bytes, 256).unwrap();
            open.push(wire);
        }
    }
    let grown = edge.mailgress.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "180 clients of a megabyte each took {grown} bytes");
    for wire in open {
        wire.rest(Duration::from_secs(30));
    }
    edge.serves_others();
}

#[test]
fn garbage_instead_of_a_tls_handshake_ends_the_session_only() {
    let edge = Edge::start();
    for (_, address) in &edge.implicit {
        for bytes in [b"a LOGIN user secret\r\n".as_slice(), &[0; 600], &[0x16, 3, 1, 0xff, 0xff, 1]] {
            let mut wire = Wire::connect(*address).unwrap();
            send_until_cut_off(&mut wire, bytes, 1).unwrap();
            // A handshake that may still be completed has until its time limit.
            drop(wire);
        }
    }
    for (protocol, address) in &edge.starttls {
        let mut wire = start_tls(protocol, *address).unwrap();
        send_until_cut_off(&mut wire, b"this is no handshake at all\r\n", 1).unwrap();
        let said = wire.rest(Duration::from_secs(10));
        assert!(!said.contains("OK") && !said.contains("250"), "{protocol} goes on in clear: {said}");
    }
    edge.serves_others();
}

#[test]
fn a_tls_handshake_on_a_port_that_begins_in_clear_ends_the_session_at_once() {
    let edge = Edge::start();
    for (protocol, address) in &edge.starttls {
        let mut wire = greeted(*address).unwrap();
        // The start of a ClientHello, which a client sends before it reads anything.
        wire.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
        // `timeouts.client` is 20 s.
        assert_eq!(wire.rest(Duration::from_secs(10)), "", "{protocol}");
        let port = match *protocol {
            "IMAP" => "(usually port 993)",
            "POP3" => "(usually port 995)",
            _ => "(usually port 465)",
        };
        let listener = format!("{}-starttls", protocol.to_lowercase());
        edge.mailgress.logs(&["tls_handshake", "the client started TLS at once", port, &listener]);
    }
    edge.serves_others();
}

#[test]
fn commands_injected_before_the_handshake_are_never_executed() {
    let edge = Edge::start();
    let injected = [
        "a STARTTLS\r\nb CAPABILITY\r\n",
        "STLS\r\nCAPA\r\n",
        "EHLO client.example.test\r\nSTARTTLS\r\nNOOP\r\n",
    ];
    for ((protocol, address), commands) in edge.starttls.iter().zip(injected) {
        let mut wire = greeted(*address).unwrap();
        wire.send(commands).unwrap();
        let mut answer = wire.line().unwrap();
        while *protocol == "SMTP" && answer.starts_with("250") {
            answer = wire.line().unwrap();
        }
        // The data are refused or dropped: after a handshake, nothing may answer earlier data.
        if answer.starts_with("a OK") || answer.starts_with("+OK") || answer.starts_with("220 ") {
            let Ok(mut wire) = wire.handshake() else { continue };
            let answer = wire.ask("z NOOP").unwrap();
            let fresh = ["z OK completed", "-ERR invalid command", "500 5.5.1 Invalid command"];
            assert!(fresh.contains(&answer.as_str()), "{protocol}: {answer}");
        }
    }
    edge.serves_others();
}

#[test]
fn a_client_that_sends_one_byte_at_a_time_is_served() {
    let edge = Edge::start();
    let dialogues = [
        ("a LOGIN user {6}\r\n", "secret\r\n", "a OK imap"),
        ("USER user\r\n", "PASS secret\r\n", "+OK pop3"),
        ("EHLO client.example.test\r\n", "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", "235 2.7.0 smtp"),
    ];
    for ((protocol, address), (first, second, expected)) in edge.starttls.iter().zip(dialogues) {
        let mut wire = greeted(*address).unwrap();
        let send = |wire: &mut Wire, text: &str| {
            for byte in text.as_bytes() {
                wire.send([*byte]).unwrap();
            }
        };
        send(&mut wire, first);
        while wire.line().unwrap().starts_with("250-") {}
        send(&mut wire, second);
        assert_eq!(wire.line().unwrap(), expected, "{protocol}");
    }
}

#[test]
fn a_client_may_leave_at_every_stage() {
    let edge = Edge::start();
    let dialogues: [&[&str]; 3] = [
        &["a CAPABILITY", "b LOGIN {4}", "user {6}", "secret", "c NOOP"],
        &["CAPA", "USER user", "PASS secret", "NOOP"],
        &["EHLO client.example.test", "AUTH LOGIN", "dXNlcg==", "c2VjcmV0", "NOOP"],
    ];
    for ((_, address), dialogue) in edge.starttls.iter().zip(dialogues) {
        for stage in 0..=dialogue.len() {
            let mut wire = greeted(*address).unwrap();
            for line in &dialogue[..stage] {
                wire.ask(line).unwrap();
            }
            drop(wire);
            // Also leave within the next line, without waiting for a reply.
            let mut wire = Wire::connect(*address).unwrap();
            for line in &dialogue[..stage] {
                wire.send(format!("{line}\r\n")).unwrap();
            }
            if let Some(line) = dialogue.get(stage) {
                wire.send(&line[..line.len() / 2]).unwrap();
            }
        }
    }
    for (protocol, address) in &edge.starttls {
        drop(start_tls(protocol, *address).unwrap());
        let mut wire = start_tls(protocol, *address).unwrap();
        // The start of a ClientHello.
        wire.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    }
    for (_, address) in &edge.implicit {
        drop(Wire::connect(*address).unwrap());
        drop(Wire::connect_tls(*address).unwrap());
    }
    edge.forgets();
    edge.serves_others();
}

fn start_tls(protocol: &str, address: SocketAddr) -> Result<Wire> {
    let mut wire = greeted(address)?;
    let answer = match protocol {
        "IMAP" => wire.ask("a STARTTLS")?,
        "POP3" => wire.ask("STLS")?,
        _ => wire.ask("STARTTLS")?,
    };
    assert!(["a OK completed", "+OK", "220 2.0.0 Start TLS"].contains(&answer.as_str()), "{answer}");
    Ok(wire)
}
