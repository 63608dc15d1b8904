//! Standard output that is not read or cannot be written: all sessions continue, and the process ends on request.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::talk::{backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const MOMENT: Duration = Duration::from_secs(30);
/// Escaped in a log line, this is about 800 bytes.
const LOGIN_LENGTH: usize = 120;

struct Edge {
    mailgress: Mailgress,
    smtp: SocketAddr,
    _folder: Folder,
    _backend: Backend,
}

impl Edge {
    fn start(outputs: [Stdio; 2], before: &[&str]) -> Self {
        let backend = Backend::smtp("smtp");
        let port = ports::free();
        let folder = Folder::new();
        let listeners = [listener("smtp", "SMTP", "Disabled", port, backend.address())];
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        let mailgress = Mailgress::start_into(outputs, before, &folder);
        Self { mailgress, smtp: ([127, 0, 0, 1], port).into(), _folder: folder, _backend: backend }
    }

    fn session(&self) -> Wire {
        let mut wire = greeted(self.smtp).unwrap();
        let answer = log_in(&mut wire, "SMTP", &"é".repeat(LOGIN_LENGTH), "secret").unwrap();
        assert!(is_success("SMTP", &answer), "{answer}");
        wire
    }

    /// Starts and ends sessions.
    fn sessions(&self, number: usize) {
        for _ in 0..number {
            let mut wire = self.session();
            wire.smtp("QUIT").unwrap();
        }
    }

    fn dropped(&self) -> u64 {
        let metrics = self.mailgress.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("mailgress_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    /// Checks that new sessions and this old one work, and that SIGTERM ends the process.
    fn works_and_ends(mut self, mut old: Wire) {
        assert!(backend_answers(&mut old, "SMTP").unwrap());
        assert!(self.mailgress.is_alive() && self.mailgress.is_ready());
        drop(old);
        self.mailgress.terminate();
        assert!(self.mailgress.wait(MOMENT).success());
    }
}

fn pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

#[test]
fn all_are_served_while_nobody_reads_the_log_and_sigterm_ends_the_process() {
    let ((_unread, output), (_unread_too, error)) = (pipe(), pipe());
    let edge = Edge::start([output, error], &[]);
    let old = edge.session();
    // More than 64 KiB, the capacity of a pipe.
    edge.sessions(300);
    edge.works_and_ends(old);
}

#[test]
fn lines_that_were_dropped_are_counted_and_reported_when_the_log_is_read_again() {
    let ((mut unread, output), (_unread_too, error)) = (pipe(), pipe());
    let edge = Edge::start([output, error], &[]);
    let old = edge.session();
    wait::within(4 * MOMENT, "lines are dropped", || {
        edge.sessions(100);
        (edge.dropped() > 0).then_some(())
    });
    let text = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&text);
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while let Ok(size @ 1..) = unread.read(&mut buffer) {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
    });
    let dropped = edge.dropped();
    wait::eventually("the log says how many lines were dropped", || {
        text.lock().unwrap().contains(&format!("could not be written lines={dropped}\n")).then_some(())
    });
    edge.works_and_ends(old);
    reading.join().unwrap();
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let edge = Edge::start([full(), full()], &[]);
    let old = edge.session();
    edge.sessions(5);
    assert!(edge.dropped() > 0);
    edge.works_and_ends(old);
}

#[test]
fn a_log_whose_readers_are_gone_ends_nothing() {
    let ((reader, output), (reader_too, error)) = (pipe(), pipe());
    let edge = Edge::start([output, error], &[]);
    let old = edge.session();
    drop((reader, reader_too));
    edge.sessions(5);
    wait::eventually("lines are dropped", || (edge.dropped() > 0).then_some(()));
    edge.works_and_ends(old);
}

#[test]
fn a_log_file_that_may_not_grow_ends_nothing() {
    let mut file = tempfile::tempfile().unwrap();
    let edge = Edge::start([file.try_clone().unwrap().into(), Stdio::null()], &["prlimit", "--fsize=4096"]);
    let old = edge.session();
    edge.sessions(20);
    wait::eventually("lines are dropped", || (edge.dropped() > 0).then_some(()));
    edge.works_and_ends(old);
    assert_eq!(file.metadata().unwrap().len(), 4096);
    let mut text = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(text.contains("admin server"), "{text}");
}
