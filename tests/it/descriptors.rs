//! File descriptors run out: accepting pauses with a log line, the process continues, and all clients are served later.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough};
use crate::support::talk::{backend_answers, greeted, is_success, log_in};
use crate::support::wait::PATIENCE;
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const DESCRIPTORS: u32 = 64;
/// More than the available descriptors, but fewer than the accept queue holds.
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
        let listeners = [listener("imap", "IMAP", "Disabled", port, backend.address())];
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
        number(&self.mailgress, "mailgress_accept_pauses_total")
    }
}

/// Returns the value of a metric without labels.
fn number(mailgress: &Mailgress, metric: &str) -> u64 {
    let metrics = mailgress.metrics();
    let value = |line: &str| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value).unwrap()
}

#[test]
fn accepting_pauses_when_descriptors_run_out_and_open_sessions_go_on() {
    let mut edge = Edge::start();
    assert_eq!(edge.pauses(), 0);
    let mut sessions: Vec<Wire> = (0..5).map(|_| edge.logged_in()).collect();
    // The kernel completes all connections, but Mailgress cannot accept them.
    let waiting: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(edge.imap).unwrap()).collect();
    let line = edge.mailgress.logs(&["paused accepting"]);
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
fn all_sessions_that_there_is_room_for_log_in_at_once_with_an_auth_service() {
    let backend = Backend::imap("imap");
    let to = backend.address();
    let asked = Arc::new((Mutex::new(0), Condvar::new()));
    let expected = Arc::new(AtomicUsize::new(usize::MAX));
    let (memory, most) = (Arc::clone(&asked), Arc::clone(&expected));
    // Answers only when all sessions wait for it, so that each of them has a connection.
    let auth = AuthService::start(move |_| {
        let (count, changed) = &*memory;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        let all = |count: &mut usize| *count < most.load(Ordering::SeqCst);
        drop(changed.wait_timeout_while(count, PATIENCE / 3, all).unwrap());
        Answer::Backend(to)
    });
    let port = ports::free();
    let folder = Folder::new();
    let spec = json!({ "auth": http_auth(&auth.url()), "listeners": [listener("imap", "IMAP", "Disabled", port, to)] });
    folder.write("server.yaml", &mail_server(&spec));
    let mailgress = Mailgress::start_with_descriptors(&folder, 256);
    let capacity = number(&mailgress, "mailgress_session_capacity").try_into().unwrap();
    expected.store(capacity, Ordering::SeqCst);
    assert!(capacity >= 32, "{capacity}");
    let sessions: Vec<Wire> = std::thread::scope(|scope| {
        let log_in = || {
            let mut wire = greeted(([127, 0, 0, 1], port).into()).unwrap();
            assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
            wire
        };
        let threads: Vec<_> = (0..capacity).map(|_| scope.spawn(log_in)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for mut wire in sessions {
        assert!(backend_answers(&mut wire, "IMAP").unwrap());
    }
}

#[test]
fn probes_and_metrics_are_answered_while_descriptors_are_short() {
    let edge = Edge::start();
    let waiting: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(edge.imap).unwrap()).collect();
    edge.mailgress.logs(&["paused accepting"]);
    assert!(edge.mailgress.is_ready());
    assert!(edge.pauses() > 0);
    drop(waiting);
}

#[test]
fn kept_connections_to_many_auth_services_leave_descriptors_for_sessions() {
    let backend = Backend::imap("imap");
    let to = backend.address();
    let auth = AuthService::start(move |_| {
        // Wait until all logins have arrived.
        std::thread::sleep(std::time::Duration::from_millis(60));
        Answer::Backend(to)
    });
    let ports: Vec<u16> = (0..6).map(|_| ports::free()).collect();
    let folder = Folder::new();
    let listeners: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let mut listener = listener(&format!("imap{index}"), "IMAP", "Disabled", *port, to);
            // A different URL, so that Mailgress treats it as a separate auth service.
            listener["auth"] = http_auth(&format!("{}/{index}", auth.url()));
            listener
        })
        .collect();
    folder.write("server.yaml", &mail_server(&json!({ "listeners": listeners })));
    let mailgress = Mailgress::start_with_descriptors(&folder, 256);
    let capacity = number(&mailgress, "mailgress_session_capacity") as usize;
    let before = mailgress.descriptors();
    for port in ports {
        std::thread::scope(|scope| {
            for _ in 0..capacity - 4 {
                scope.spawn(move || {
                    let mut wire = greeted(([127, 0, 0, 1], port).into()).unwrap();
                    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
                });
            }
        });
        wait::eventually("no more connections are kept than sessions have descriptors for", || {
            (mailgress.descriptors() <= before + capacity + 8).then_some(())
        });
    }
    assert_eq!(number(&mailgress, "mailgress_accept_pauses_total"), 0);
}

#[test]
fn connections_to_the_admin_server_leave_descriptors_for_sessions() {
    let backend = Backend::imap("imap");
    let port = ports::free();
    let folder = Folder::new();
    let listeners = [listener("imap", "IMAP", "Disabled", port, backend.address())];
    folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    let mailgress = Mailgress::start_with_descriptors(&folder, 256);
    let capacity = number(&mailgress, "mailgress_session_capacity");
    let admin: Vec<Wire> = (0..90)
        .map(|index| Wire::connect_from([127, 0, 0, 2 + index % 8].into(), mailgress.admin()).unwrap())
        .collect();
    let sessions: Vec<Wire> = (0..capacity)
        .map(|_| {
            let mut wire = greeted(([127, 0, 0, 1], port).into()).unwrap();
            assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
            wire
        })
        .collect();
    assert!(mailgress.descriptors() < 256, "{}", mailgress.descriptors());
    assert!(mailgress.is_ready());
    drop((admin, sessions));
}
