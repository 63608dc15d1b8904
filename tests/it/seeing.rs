//! What an operator gets: `/status`, `/metrics`, and a log line for each session, without passwords.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::talk::{greeted, log_in};
use crate::support::{ports, wait};

struct Edge {
    mailgress: Mailgress,
    imap: SocketAddr,
    folder: Folder,
    backend: Backend,
}

impl Edge {
    fn start(arguments: &[&str]) -> Self {
        let backend = Backend::imap("imap");
        let port = ports::free();
        let folder = Folder::new();
        let listeners = [listener("imap", "IMAP", "Disabled", port, backend.address())];
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        let mailgress = Mailgress::start_with(&folder, arguments);
        Self { mailgress, imap: ([127, 0, 0, 1], port).into(), folder, backend }
    }
}

#[test]
fn a_line_is_printed_for_every_listener_that_is_bound() {
    let edge = Edge::start(&[]);
    edge.mailgress.logs(&["mail/edge/imap", &edge.imap.to_string()]);
}

#[test]
fn the_log_has_a_line_for_every_session_and_no_password() {
    let edge = Edge::start(&["--log-format", "json"]);
    let mut wire = greeted(edge.imap).unwrap();
    log_in(&mut wire, "IMAP", "somebody", WRONG).unwrap();
    log_in(&mut wire, "IMAP", "somebody", "Tr0ub4dor&3").unwrap();
    wire.imap("z", "LOGOUT").unwrap();
    let line = edge.mailgress.logs(&["somebody", "mail/edge/imap"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line.is_object(), "{line}");
    edge.mailgress.logs(&["somebody", &edge.backend.address().to_string()]);
    assert!(!edge.mailgress.log().contains("Tr0ub4dor"));
}

#[test]
fn the_status_and_the_metrics_name_every_listener_and_count_its_sessions() {
    let edge = Edge::start(&[]);
    let mut wire = greeted(edge.imap).unwrap();
    log_in(&mut wire, "IMAP", "somebody", "secret").unwrap();
    let status = edge.mailgress.status().to_string();
    assert!(status.contains("edge") && status.contains("imap"), "{status}");
    let of_listener = || {
        let metrics = edge.mailgress.metrics();
        metrics.lines().filter(|line| line.contains("mail/edge/imap")).map(str::to_owned).collect::<Vec<_>>()
    };
    wait::eventually("an open session is counted", || {
        of_listener().iter().any(|line| line.contains("sessions_open") && line.ends_with(" 1")).then_some(())
    });
    drop(wire);
    wait::eventually("its end is counted", || {
        of_listener().iter().any(|line| line.contains("sessions_open") && line.ends_with(" 0")).then_some(())
    });
}

#[test]
fn a_manifest_that_breaks_keeps_serving_what_it_said_last() {
    let edge = Edge::start(&[]);
    edge.folder
        .write_text("server.yaml", "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\n  oops: [\n");
    edge.mailgress.logs(&["server.yaml"]);
    let mut wire = greeted(edge.imap).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "somebody", "secret").unwrap(), "a OK imap");
}

#[test]
fn a_port_in_use_is_reported_and_bound_when_it_becomes_free() {
    let edge = Edge::start(&[]);
    let port = ports::free();
    let squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listeners = [
        listener("imap", "IMAP", "Disabled", edge.imap.port(), edge.backend.address()),
        listener("second", "IMAP", "Disabled", port, edge.backend.address()),
    ];
    edge.folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    edge.mailgress.logs(&["second", &port.to_string(), "in use"]);
    assert!(greeted(edge.imap).is_ok(), "the other listener serves");
    drop(squatter);
    wait::eventually("the port is bound", || greeted(([127, 0, 0, 1], port).into()).ok());
}
