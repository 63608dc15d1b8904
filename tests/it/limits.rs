//! `limits` and `timeouts`: the reply to a client that exceeds one, and that other clients are served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::talk::{
    PROTOCOLS, backend_answers, greeted, is_success, log_in, send_login, temporary_error,
};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// One listener for each protocol, without TLS.
struct Edge {
    mailgress: Mailgress,
    listeners: [(&'static str, SocketAddr); 3],
    _folder: Folder,
    _backends: [Backend; 3],
}

impl Edge {
    /// Starts all listeners with these settings.
    fn start(settings: &Value) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        Self::before(backends, settings)
    }

    fn before(backends: [Backend; 3], settings: &Value) -> Self {
        let listeners = PROTOCOLS.map(|protocol| (protocol, loopback(ports::free())));
        let wanted: Vec<Value> = listeners
            .iter()
            .zip(&backends)
            .map(|((protocol, at), backend)| {
                listener(&protocol.to_lowercase(), protocol, "Disabled", at.port(), backend.address())
            })
            .collect();
        let spec = json!({ "serverName": "mail.test", "auth": passthrough(), "listeners": wanted });
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&with(spec, settings)));
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, listeners, _folder: folder, _backends: backends }
    }

    fn imap(&self) -> SocketAddr {
        self.listeners[0].1
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SOON: Duration = Duration::from_secs(20);

fn too_many(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BYE Too many connections, try again later",
        "POP3" => "-ERR Too many connections, try again later",
        _ => "421 4.7.0 Too many connections, try again later",
    }
}

fn invalid(protocol: &str, tag: &str) -> String {
    match protocol {
        "IMAP" => format!("{tag} BAD invalid command"),
        "POP3" => "-ERR invalid command".to_owned(),
        _ => "500 5.5.1 Invalid command".to_owned(),
    }
}

/// Tells whether the client is greeted. Returns the first line too.
fn is_greeted(wire: &mut Wire) -> (bool, String) {
    let line = wire.line().unwrap();
    (!line.contains("Too many connections"), line)
}

#[test]
fn a_full_listener_tells_the_next_client_so_and_has_room_again_when_one_leaves() {
    let edge = Edge::start(&json!({ "limits": { "maxConnections": 2 } }));
    for (protocol, address) in edge.listeners {
        let first = greeted(address).unwrap();
        let mut second = greeted(address).unwrap();
        assert!(is_success(protocol, &log_in(&mut second, protocol, "user", "secret").unwrap()));
        for source in [Ipv4Addr::LOCALHOST, ANOTHER] {
            let refused = Wire::connect_from(source, address).unwrap();
            assert_eq!(refused.rest(SOON).trim_end(), too_many(protocol));
        }
        drop(first);
        wait::eventually("there is room again", || {
            is_greeted(&mut Wire::connect(address).unwrap()).0.then_some(())
        });
        assert!(backend_answers(&mut second, protocol).unwrap());
    }
}

#[test]
fn a_client_with_all_its_sessions_is_refused_and_others_are_not() {
    let edge = Edge::start(&json!({ "limits": { "maxConnectionsPerClient": 2 } }));
    for (protocol, address) in edge.listeners {
        let (first, _second) = (greeted(address).unwrap(), greeted(address).unwrap());
        assert_eq!(Wire::connect(address).unwrap().rest(SOON).trim_end(), too_many(protocol));
        let (other, line) = is_greeted(&mut Wire::connect_from(ANOTHER, address).unwrap());
        assert!(other, "{protocol}: {line}");
        drop(first);
        wait::eventually("there is room again", || {
            is_greeted(&mut Wire::connect(address).unwrap()).0.then_some(())
        });
    }
}

#[test]
fn a_client_whose_logins_fail_is_banned_for_a_while_and_others_are_not() {
    let ban = Duration::from_secs(5);
    let rule = json!({ "count": 2, "window": "10m", "ban": "5s" });
    let edge = Edge::start(&json!({ "limits": { "authFailures": rule } }));
    for (protocol, address) in edge.listeners {
        let mut wire = greeted(address).unwrap();
        let refused = log_in(&mut wire, protocol, "user", WRONG).unwrap();
        assert!(refused.contains("refused by"), "{protocol}: {refused}");
        let last = Instant::now();
        let refused = log_in(&mut wire, protocol, "another", WRONG).unwrap();
        assert!(refused.contains("refused by"), "{protocol}: {refused}");
        assert_eq!(wire.rest(SOON), "", "{protocol}: the session ends with the ban");
        let told = Wire::connect(address).unwrap().rest(SOON);
        // If the machine was stopped for a while, the ban may be over.
        assert!(told.trim_end() == too_many(protocol) || last.elapsed() >= ban, "{protocol}: {told}");
        let (other, line) = is_greeted(&mut Wire::connect_from(ANOTHER, address).unwrap());
        assert!(other, "{protocol}: {line}");
        wait::eventually("the ban is over", || {
            is_greeted(&mut Wire::connect(address).unwrap()).0.then_some(())
        });
        assert!(last.elapsed() >= ban, "{protocol}: banned for {:?} only", last.elapsed());
        let mut wire = greeted(address).unwrap();
        assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
    }
}

#[test]
fn the_last_allowed_error_is_answered_and_ends_the_session() {
    let edge = Edge::start(&json!({ "limits": { "maxErrors": 2 } }));
    for (protocol, address) in edge.listeners {
        let mut wire = greeted(address).unwrap();
        assert_eq!(wire.ask("x BLURDYBLOOP").unwrap(), invalid(protocol, "x"));
        assert_eq!(wire.ask("y BLURDYBLOOP").unwrap(), invalid(protocol, "y"));
        assert_eq!(wire.rest(SOON), "", "{protocol}");
    }
}

#[test]
fn the_last_allowed_refusal_of_a_login_is_told_and_ends_the_session() {
    let edge = Edge::start(&json!({ "limits": { "maxAuthFailures": 2 } }));
    for (protocol, address) in edge.listeners {
        let mut wire = greeted(address).unwrap();
        for _ in 0..2 {
            let refused = log_in(&mut wire, protocol, "user", WRONG).unwrap();
            assert!(refused.contains("refused by"), "{protocol}: {refused}");
        }
        assert_eq!(wire.rest(SOON), "", "{protocol}");
        assert!(greeted(address).is_ok(), "{protocol}: the client is not banned");
    }
    edge.mailgress.logs(&["limits.maxAuthFailures", "login_refused"]);
}

#[test]
fn one_command_more_than_allowed_ends_the_session() {
    let edge = Edge::start(&json!({ "limits": { "maxCommands": 3 } }));
    for (protocol, address) in edge.listeners {
        let mut wire = greeted(address).unwrap();
        let noop = if protocol == "IMAP" { "n NOOP" } else { "NOOP" };
        for _ in 0..3 {
            assert_ne!(wire.ask(noop).unwrap(), invalid(protocol, "n"), "{protocol}");
        }
        assert_eq!(wire.ask(noop).unwrap(), invalid(protocol, "n"), "{protocol}");
        assert_eq!(wire.rest(SOON), "", "{protocol}");
        // The limit applies only before the login.
        let mut wire = greeted(address).unwrap();
        assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
        for _ in 0..5 {
            assert!(backend_answers(&mut wire, protocol).unwrap(), "{protocol}");
        }
    }
}

#[test]
fn a_command_may_fill_the_clients_buffer_and_be_no_longer() {
    let edge = Edge::start(&json!({ "limits": { "clientBuffer": 512 } }));
    for (protocol, address) in edge.listeners {
        let verb = if protocol == "IMAP" { "n NOOP " } else { "NOOP " };
        let of_length = |length: usize| format!("{verb}{}", "x".repeat(length - verb.len()));
        let mut wire = greeted(address).unwrap();
        for _ in 0..3 {
            assert_ne!(wire.ask(&of_length(510)).unwrap(), invalid(protocol, "n"), "{protocol}");
        }
        wire.send(of_length(513)).unwrap();
        let told = wire.rest(SOON);
        assert!(
            told.trim_end() == invalid(protocol, "n") || told.trim_end() == invalid(protocol, "*"),
            "{told}"
        );
    }
}

#[test]
fn activity_does_not_extend_the_time_to_log_in() {
    let edge = Edge::start(&json!({ "timeouts": { "client": "2s" } }));
    for (protocol, address) in edge.listeners {
        let started = Instant::now();
        let mut wire = greeted(address).unwrap();
        let noop = if protocol == "IMAP" { "n NOOP" } else { "NOOP" };
        let ok = wire.ask(noop).unwrap();
        let last = wait::eventually("the session is ended", || match wire.ask(noop) {
            Ok(line) if line == ok => None,
            Ok(line) => Some(line),
            Err(_) => Some(String::new()),
        });
        assert!(started.elapsed() >= Duration::from_secs(2), "{protocol}: after {:?}", started.elapsed());
        let expected = match protocol {
            "IMAP" => "* BYE Autologout; idle for too long",
            // RFC 1939 section 3: no message.
            "POP3" => "",
            _ => "421 4.3.2 mail.test Autologout; idle for too long",
        };
        // A command that crosses the end may cause a reset, which drops the last line.
        assert!(last == expected || last.is_empty(), "{protocol}: {last}");
        let silent = greeted(address).unwrap();
        assert_eq!(silent.rest(SOON).trim_end(), expected, "{protocol}");
    }
    edge.mailgress.logs(&["timeouts.client", "client_timeout"]);
}

#[test]
fn a_client_whose_time_is_over_hears_nothing_where_that_is_not_announced() {
    let edge = Edge::start(&json!({ "timeouts": { "client": "1s", "announce": false } }));
    for (protocol, address) in edge.listeners {
        assert_eq!(greeted(address).unwrap().rest(SOON), "", "{protocol}");
    }
    edge.mailgress.logs(&["timeouts.client", "client_timeout"]);
}

#[test]
fn a_client_that_ends_its_direction_hears_the_answer_unless_its_end_is_the_sessions() {
    let (answer, told) = mpsc::channel();
    let told = Mutex::new(told);
    let backend = Backend::imap_then(move |stream| {
        let mut asked = String::new();
        stream.read_to_string(&mut asked)?;
        told.lock().unwrap().recv().map_err(std::io::Error::other)?;
        stream.write_all(format!("* you asked {asked}").as_bytes())
    });
    let ports = [ports::free(), ports::free()];
    let listeners = [("waiting", ports[0], "60s"), ("ending", ports[1], "0s")].map(|(name, port, time)| {
        let base = listener(name, "IMAP", "Disabled", port, backend.address());
        with(base, &json!({ "timeouts": { "halfClosed": time } }))
    });
    let folder = Folder::new();
    folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    let mailgress = Mailgress::start(&folder);
    let [waiting, ending] = ports.map(|port| {
        let mut wire = greeted(loopback(port)).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK done");
        wire.send("x LOGOUT\r\n").unwrap();
        wire.end().unwrap();
        wire
    });
    assert_eq!(ending.rest(SOON), "");
    answer.send(()).unwrap();
    answer.send(()).unwrap();
    assert_eq!(waiting.rest(SOON), "* you asked x LOGOUT\r\n");
    mailgress.logs(&["ending", "session done"]);
}

/// Sends a line at intervals during `busy`.
fn trickle(mut to: impl Write, busy: Duration) -> std::io::Result<()> {
    let end = Instant::now() + busy;
    while Instant::now() < end {
        to.write_all(b"* still here\r\n")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

const IDLE: Duration = Duration::from_secs(3);

#[test]
fn activity_of_either_side_keeps_a_session_and_silence_of_both_ends_it() {
    let talking = Backend::imap_then(|stream| {
        trickle(&mut *stream, IDLE * 2)?;
        // Then stays silent until the other side closes.
        std::io::copy(stream, &mut std::io::sink()).map(drop)
    });
    let listening = Backend::imap_then(|stream| std::io::copy(stream, &mut std::io::sink()).map(drop));
    let ports = [ports::free(), ports::free()];
    let listeners = [("talking", talking.address(), ports[0]), ("listening", listening.address(), ports[1])]
        .map(|(name, backend, port)| listener(name, "IMAP", "Disabled", port, backend));
    let folder = Folder::new();
    let spec = json!({ "auth": passthrough(), "timeouts": { "idle": "3s" }, "listeners": listeners });
    folder.write("server.yaml", &mail_server(&spec));
    let mailgress = Mailgress::start(&folder);
    let log_in = |port| {
        let mut wire = greeted(loopback(port)).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK done");
        (wire, Instant::now())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (wire, started) = log_in(ports[0]);
            let said = wire.rest(IDLE * 2 + SOON);
            assert!(started.elapsed() >= IDLE * 3 - SLACK, "ended after {:?}", started.elapsed());
            assert!(said.contains("still here"));
        });
        scope.spawn(|| {
            let (mut wire, started) = log_in(ports[1]);
            while started.elapsed() < IDLE * 2 {
                wire.send("still here\r\n").unwrap();
                std::thread::sleep(Duration::from_millis(200));
            }
            wire.rest(IDLE + SOON);
            assert!(started.elapsed() >= IDLE * 3 - SLACK, "ended after {:?}", started.elapsed());
        });
    });
    mailgress.logs(&["idle_timeout", "talking"]);
    mailgress.logs(&["idle_timeout", "listening"]);
}

/// The last line was sent at most one pause before the end.
const SLACK: Duration = Duration::from_millis(400);

#[test]
fn a_backend_that_hangs_is_given_up_after_the_connect_timeout() {
    let hanging = [Backend::hanging(), Backend::hanging(), Backend::hanging()];
    let edge = Edge::before(hanging, &json!({ "timeouts": { "connect": "1s" } }));
    for (protocol, address) in edge.listeners {
        let mut wire = greeted(address).unwrap();
        let started = Instant::now();
        send_login(&mut wire, protocol, "user", "secret").unwrap();
        let answer = wire.line().unwrap();
        assert!(answer.starts_with(temporary_error(protocol)), "{answer}");
        assert!(started.elapsed() >= Duration::from_secs(1), "after {:?}", started.elapsed());
    }
    edge.mailgress.logs(&["the backend sent nothing for"]);
}

#[test]
fn two_hundred_clients_with_a_megabyte_without_a_newline_take_no_memory() {
    let edge = Edge::start(&json!({}));
    let megabyte = vec![b'x'; 1 << 20];
    let flood = |clients: usize| {
        std::thread::scope(|scope| {
            for index in 0..clients {
                let (address, megabyte) = (edge.listeners[index % 3].1, &megabyte);
                scope.spawn(move || {
                    let mut wire = greeted(address).unwrap();
                    match wire.send(megabyte) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("{error}"),
                        // A disconnect is expected.
                        _ => drop(wire.rest(SOON)),
                    }
                });
            }
        });
    };
    // Memory that the first sessions allocate is kept.
    flood(10);
    let before = edge.mailgress.resident_bytes();
    flood(200);
    let grown = edge.mailgress.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert!(greeted(edge.imap()).is_ok());
}

#[test]
fn a_backend_that_does_not_read_takes_no_memory() {
    let backend = Backend::imap_then(|stream| {
        // Waits for the end without reading.
        let mut one = [0];
        while stream.peek(&mut one)? > 0 {
            std::thread::sleep(Duration::from_millis(100));
            if stream.take_error()?.is_some() {
                break;
            }
        }
        stream.read(&mut one).map(drop)
    });
    let port = ports::free();
    let folder = Folder::new();
    let listeners = [listener("imap", "IMAP", "Disabled", port, backend.address())];
    folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    let mailgress = Mailgress::start(&folder);
    let before = mailgress.resident_bytes();
    let megabyte = vec![b'x'; 1 << 20];
    let mut open = Vec::new();
    for _ in 0..50 {
        let mut wire = greeted(loopback(port)).unwrap();
        log_in(&mut wire, "IMAP", "user", "secret").unwrap();
        wire.send(&megabyte).unwrap();
        open.push(wire);
    }
    let grown = mailgress.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
}
