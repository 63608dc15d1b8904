//! Signals: only those that are meant to do so end the process with its sessions.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::talk::{backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const MOMENT: Duration = Duration::from_secs(30);
const HANGUP: i32 = 1;
const QUIT: i32 = 3;
/// The numbers are those of `kill -l`.
const IGNORED: [(i32, &str); 11] = [
    (10, "SIGUSR1"),
    (12, "SIGUSR2"),
    (14, "SIGALRM"),
    (16, "SIGSTKFLT"),
    (24, "SIGXCPU"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (37, "signal 37"),
    (64, "signal 64"),
];

struct Edge {
    mailgress: Mailgress,
    imap: SocketAddr,
    session: Wire,
    _folder: Folder,
    _backend: Backend,
}

impl Edge {
    /// Starts with one session that is logged in.
    fn start() -> Self {
        let backend = Backend::imap("imap");
        let imap = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let folder = Folder::new();
        let listeners = [listener("imap", "IMAP", "Disabled", imap.port(), backend.address())];
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        let mailgress = Mailgress::start_with(&folder, &["--drain-timeout", "1s"]);
        let mut session = greeted(imap).unwrap();
        assert!(is_success("IMAP", &log_in(&mut session, "IMAP", "user", "secret").unwrap()));
        Self { mailgress, imap, session, _folder: folder, _backend: backend }
    }
}

#[test]
fn signals_that_end_other_programs_are_logged_and_ignored() {
    let mut edge = Edge::start();
    for (number, name) in IGNORED {
        edge.mailgress.signal(number);
        edge.mailgress.logs(&[&format!("ignoring {name}:")]);
    }
    assert!(backend_answers(&mut edge.session, "IMAP").unwrap());
    assert!(edge.mailgress.is_running() && edge.mailgress.is_ready());
}

#[test]
fn sighup_reads_the_folder_again_and_keeps_sessions() {
    let mut edge = Edge::start();
    edge.mailgress.signal(HANGUP);
    edge.mailgress.logs(&["SIGHUP: reading all files of the folder again"]);
    assert!(backend_answers(&mut edge.session, "IMAP").unwrap());
    greeted(edge.imap).unwrap();
}

#[test]
fn sigquit_drains_as_sigterm_does() {
    let mut edge = Edge::start();
    edge.mailgress.signal(QUIT);
    wait::within(MOMENT, "new connections are refused", || {
        TcpStream::connect(edge.imap).is_err().then_some(())
    });
    assert!(!edge.mailgress.is_ready());
    assert!(edge.session.rest(MOMENT).starts_with("* BYE"));
    assert!(edge.mailgress.wait(MOMENT).success());
}
