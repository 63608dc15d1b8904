//! File descriptors run out: accepting pauses and says so, nothing dies, and everybody is served later.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::talk::{backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const DESCRIPTORS: u32 = 64;
/// More than there are descriptors; fewer than the accept queue holds.
const CLIENTS: usize = 100;

struct Edge {
    mailgress: Mailgress,
    imap: SocketAddr,
    backend: Backend,
    _folder: Folder,
}

impl Edge {
    fn start() -> Self {
        let backend = Backend::imap("imap");
        let port = ports::free();
        let folder = Folder::new();
        let listeners = [listener("imap", "IMAP", "Off", port, backend.address())];
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        let mailgress = Mailgress::start_with_descriptors(&folder, DESCRIPTORS);
        Self { mailgress, imap: ([127, 0, 0, 1], port).into(), backend, _folder: folder }
    }

    fn logged_in(&self) -> Wire {
        let mut wire = greeted(self.imap).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
        wire
    }

    fn pauses(&self) -> u64 {
        let metrics = self.mailgress.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("mailgress_accept_pauses_total "));
        line.unwrap().parse().unwrap()
    }
}

#[test]
fn accepting_pauses_when_descriptors_run_out_and_open_sessions_go_on() {
    let mut edge = Edge::start();
    assert_eq!(edge.pauses(), 0);
    let mut sessions: Vec<Wire> = (0..5).map(|_| edge.logged_in()).collect();
    // The kernel connects them all; Mailgress cannot.
    let waiting: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(edge.imap).unwrap()).collect();
    let line = edge.mailgress.logs(&["accepting pauses"]);
    assert!(line.contains(&edge.imap.to_string()) && line.contains("ulimit -n"), "{line}");
    for wire in &mut sessions {
        assert!(backend_answers(wire, "IMAP").unwrap());
    }
    drop(waiting);
    let mut served = wait::eventually("a new client is served", || {
        let mut wire = greeted(edge.imap).ok()?;
        let answer = log_in(&mut wire, "IMAP", "user", "secret").ok()?;
        is_success("IMAP", &answer).then_some(wire)
    });
    assert!(backend_answers(&mut served, "IMAP").unwrap());
    for wire in &mut sessions {
        assert!(backend_answers(wire, "IMAP").unwrap());
    }
    assert!(edge.pauses() > 0);
    assert!(edge.mailgress.is_running() && edge.mailgress.is_ready());
    drop((served, sessions));
    wait::eventually("nothing is left", || (edge.backend.open() == 0).then_some(()));
}

#[test]
fn more_clients_than_descriptors_are_all_served_in_the_end() {
    let edge = Edge::start();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut wire = edge.logged_in();
                assert!(backend_answers(&mut wire, "IMAP").unwrap());
                wire.imap("z", "LOGOUT").unwrap();
            });
        }
    });
}

#[test]
fn probes_and_metrics_are_answered_while_descriptors_are_short() {
    let edge = Edge::start();
    let waiting: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(edge.imap).unwrap()).collect();
    edge.mailgress.logs(&["accepting pauses"]);
    assert!(edge.mailgress.is_ready());
    assert!(edge.pauses() > 0);
    drop(waiting);
}
