//! SIGTERM: the process is not ready, accepts no new sessions, and ends the old ones with a closing message after the
//! timeout.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::talk::{PROTOCOLS, backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const MOMENT: Duration = Duration::from_secs(10);

struct Edge {
    mailgress: Mailgress,
    ports: Vec<(&'static str, SocketAddr)>,
    folder: Folder,
    _backends: [Backend; 3],
}

impl Edge {
    fn start(arguments: &[&str]) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let mut ports = Vec::new();
        let mut listeners = Vec::new();
        for (protocol, backend) in PROTOCOLS.into_iter().zip(&backends) {
            let port = ports::free();
            listeners.push(listener(&protocol.to_lowercase(), protocol, "Disabled", port, backend.address()));
            ports.push((protocol, SocketAddr::from(([127, 0, 0, 1], port))));
        }
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        let mailgress = Mailgress::start_with(&folder, arguments);
        Self { mailgress, ports, folder, _backends: backends }
    }

    /// Opens a session of each protocol and logs in.
    fn sessions(&self) -> Vec<(&'static str, Wire)> {
        let each = self.ports.iter().map(|(protocol, address)| {
            let mut wire = greeted(*address).unwrap();
            assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
            (*protocol, wire)
        });
        each.collect()
    }

    fn refuses_connections(&self) {
        for (protocol, address) in &self.ports {
            wait::within(MOMENT, &format!("{protocol} refuses connections"), || {
                TcpStream::connect(address).is_err().then_some(())
            });
        }
    }
}

fn hears_goodbye(protocol: &str, wire: Wire) {
    let said = wire.rest(MOMENT);
    match protocol {
        "IMAP" => assert!(said.starts_with("* BYE"), "{said:?}"),
        "SMTP" => assert!(said.starts_with("421 "), "{said:?}"),
        // The relay does not know whether a POP3 message is being sent.
        _ => assert_eq!(said, ""),
    }
}

#[test]
fn sessions_go_on_after_sigterm_until_the_drain_timeout_and_hear_a_goodbye() {
    let mut edge = Edge::start(&["--drain-delay", "0s", "--drain-timeout", "3s", "--drain-spread", "0s"]);
    let mut sessions = edge.sessions();
    let began = Instant::now();
    edge.mailgress.terminate();
    edge.refuses_connections();
    assert!(!edge.mailgress.is_ready());
    for (protocol, wire) in &mut sessions {
        assert!(backend_answers(wire, protocol).unwrap(), "{protocol} is cut off at once");
    }
    for (protocol, wire) in sessions {
        hears_goodbye(protocol, wire);
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(edge.mailgress.wait(MOMENT).success());
}

#[test]
fn the_end_of_a_drain_is_spread_and_imap_sessions_end_first() {
    let mut edge = Edge::start(&["--drain-timeout", "600s", "--drain-spread", "600s"]);
    let mut sessions = edge.sessions();
    edge.mailgress.terminate();
    let (protocol, imap) = sessions.remove(0);
    hears_goodbye(protocol, imap);
    for (protocol, wire) in &mut sessions {
        assert!(backend_answers(wire, protocol).unwrap(), "{protocol} ends together with IMAP");
    }
    assert!(edge.mailgress.is_running());
    drop(sessions);
    assert!(edge.mailgress.wait(MOMENT).success(), "it ends with the last session");
}

#[test]
fn the_listeners_stay_open_for_the_drain_delay_while_readiness_fails() {
    let mut edge = Edge::start(&["--drain-delay", "2s", "--drain-timeout", "1s"]);
    edge.mailgress.terminate();
    wait::within(MOMENT, "/readyz fails", || (!edge.mailgress.is_ready()).then_some(()));
    for (protocol, address) in &edge.ports {
        let mut wire = greeted(*address).unwrap();
        assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
    }
    edge.refuses_connections();
    assert!(edge.mailgress.wait(MOMENT).success());
}

#[test]
fn it_ends_when_the_last_session_has_ended_on_its_own() {
    let mut edge = Edge::start(&["--drain-delay", "0s", "--drain-timeout", "600s"]);
    let sessions = edge.sessions();
    edge.mailgress.terminate();
    edge.refuses_connections();
    assert!(edge.mailgress.is_running());
    drop(sessions);
    assert!(edge.mailgress.wait(MOMENT).success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut edge = Edge::start(&["--drain-delay", "0s", "--drain-timeout", "600s"]);
    let sessions = edge.sessions();
    edge.mailgress.terminate();
    edge.refuses_connections();
    edge.mailgress.terminate();
    edge.mailgress.wait(MOMENT);
    for (_, wire) in sessions {
        wire.rest(MOMENT);
    }
}

#[test]
fn sessions_of_a_removed_listener_go_on_until_the_drain_timeout_and_hear_a_goodbye() {
    let edge = Edge::start(&["--drain-timeout", "3s"]);
    let mut sessions = edge.sessions();
    let began = Instant::now();
    edge.folder.remove("server.yaml");
    edge.refuses_connections();
    for (protocol, wire) in &mut sessions {
        assert!(backend_answers(wire, protocol).unwrap(), "{protocol} is cut off at once");
    }
    for (protocol, wire) in sessions {
        hears_goodbye(protocol, wire);
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
}
