//! Backends and auth services that report a temporary failure: they are at fault, not the client.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, LATER, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, with};
use crate::support::talk::{PROTOCOLS, greeted, is_success, log_in, temporary_error};
use crate::support::{ports, wait};

/// A listener without TLS for each of these backends, with the same settings.
struct Edge {
    mailgress: Mailgress,
    at: Vec<SocketAddr>,
    _folder: Folder,
}

impl Edge {
    fn before(backends: &[(&str, SocketAddr)], settings: &Value) -> Self {
        let at: Vec<SocketAddr> = backends.iter().map(|_| ([127, 0, 0, 1], ports::free()).into()).collect();
        let wanted = backends.iter().zip(&at).map(|((protocol, backend), at)| {
            listener(&protocol.to_lowercase(), protocol, "Disabled", at.port(), *backend)
        });
        let auth = settings.get("auth").cloned().unwrap_or_else(passthrough);
        let spec = json!({ "auth": auth, "listeners": wanted.collect::<Vec<Value>>() });
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&with(spec, settings)));
        Self { mailgress: Mailgress::start(&folder), at, _folder: folder }
    }

    /// Waits until a protocol's listener has counted this number of logins with this outcome.
    fn counts_logins(&self, protocol: &str, outcome: &str, number: u32) {
        let protocol = protocol.to_lowercase();
        let series = format!(
            "mailgress_logins_total{{listener=\"mail/edge/{protocol}\",outcome=\"{outcome}\",protocol=\"{protocol}\"}} {number}"
        );
        wait::eventually(&series, || self.mailgress.metrics().contains(&series).then_some(()));
    }

    /// Waits until a protocol's listener has counted a session with this outcome and fault.
    fn counts_session(&self, protocol: &str, outcome: &str, fault: &str) {
        let protocol = protocol.to_lowercase();
        let series = format!(
            "mailgress_sessions_total{{fault=\"{fault}\",listener=\"mail/edge/{protocol}\",outcome=\"{outcome}\""
        );
        wait::eventually(&series, || self.mailgress.metrics().contains(&series).then_some(()));
    }
}

#[test]
fn a_backend_that_cannot_decide_is_at_fault_and_nobody_is_banned_for_it() {
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let ban = json!({ "count": 2, "window": "10m", "ban": "10m" });
    let edge = Edge::before(
        &[0, 1, 2].map(|i| (PROTOCOLS[i], backends[i].address())),
        &json!({ "limits": { "authFailures": ban, "maxAuthFailures": 2 } }),
    );
    let answers = [
        "a NO [UNAVAILABLE] put off by imap",
        "-ERR [SYS/TEMP] put off by pop3",
        "454 4.7.0 put off by smtp",
    ];
    for ((protocol, at), answer) in PROTOCOLS.iter().zip(&edge.at).zip(answers) {
        let mut wire = greeted(*at).unwrap();
        for _ in 0..3 {
            assert_eq!(log_in(&mut wire, protocol, "user", LATER).unwrap(), answer);
        }
        drop(wire);
        let listener = format!("mail/edge/{}", protocol.to_lowercase());
        let line = edge.mailgress.logs(&[&listener, "logins_unavailable=3"]);
        for said in ["WARN", "backend_unavailable", "fault=\"backend\"", "because of a problem of its own"] {
            assert!(line.contains(said), "{said}: {line}");
        }
        edge.counts_logins(protocol, "unavailable", 3);
        edge.counts_logins(protocol, "refused", 0);
        edge.counts_session(protocol, "backend_unavailable", "backend");
        let mut wire = greeted(*at).unwrap();
        assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()), "{protocol}");
    }
}

#[test]
fn a_sessions_line_says_how_often_its_login_was_refused_whatever_ended_it() {
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let edge = Edge::before(&[0, 1, 2].map(|i| (PROTOCOLS[i], backends[i].address())), &json!({}));
    for (protocol, at) in PROTOCOLS.iter().zip(&edge.at) {
        let listener = format!("mail/edge/{}", protocol.to_lowercase());
        let mut wire = greeted(*at).unwrap();
        for _ in 0..2 {
            log_in(&mut wire, protocol, "user", WRONG).unwrap();
        }
        drop(wire);
        edge.mailgress.logs(&[&listener, "client_gone", "logins_refused=2"]);
        let mut wire = greeted(*at).unwrap();
        for password in [WRONG, LATER, WRONG] {
            log_in(&mut wire, protocol, "user", password).unwrap();
        }
        wire.send(if *protocol == "IMAP" { "q LOGOUT\r\n" } else { "QUIT\r\n" }).unwrap();
        let line = edge.mailgress.logs(&[&listener, "logins_refused=2 logins_unavailable=1"]);
        assert!(line.contains("outcome=\"quit\"") && line.contains("INFO"), "{line}");
        let mut wire = greeted(*at).unwrap();
        log_in(&mut wire, protocol, "user", WRONG).unwrap();
        log_in(&mut wire, protocol, "user", "secret").unwrap();
        drop(wire);
        edge.mailgress.logs(&[&listener, "outcome=\"done\"", "logins_refused=1"]);
    }
}

#[test]
fn a_backend_that_takes_nobody_now_is_unavailable_from_its_greeting_on() {
    let greetings = [
        ("IMAP", b"* BYE overloaded\r\n".as_slice()),
        ("POP3", b"-ERR [SYS/TEMP] overloaded\r\n"),
        ("SMTP", b"421 4.3.2 overloaded\r\n"),
    ];
    let backends = greetings.map(|(protocol, greeting)| (protocol, Backend::greeting(greeting)));
    let wanted: Vec<_> = backends.iter().map(|(protocol, backend)| (*protocol, backend.address())).collect();
    let edge = Edge::before(&wanted, &json!({}));
    for ((protocol, _), at) in wanted.iter().zip(&edge.at) {
        let mut wire = greeted(*at).unwrap();
        let answer = log_in(&mut wire, protocol, "user", "secret").unwrap();
        assert!(answer.starts_with(temporary_error(protocol)), "{answer}");
        drop(wire);
        edge.counts_session(protocol, "backend_unavailable", "backend");
        edge.counts_logins(protocol, "unavailable", 1);
    }
}

#[test]
fn mail_without_a_login_that_a_full_backend_refuses_is_the_backends_fault() {
    let replies = [
        ("452 4.3.1 Insufficient system storage", "unavailable", "done", "none"),
        ("421 4.3.2 going away", "unavailable", "backend_unavailable", "backend"),
        ("421 4.7.0 Error: too many errors", "refused", "done", "none"),
        ("450 4.7.1 greylisted", "refused", "done", "none"),
        ("550 5.1.1 no such user", "refused", "done", "none"),
    ];
    for (reply, counted, outcome, fault) in replies {
        let backend = Backend::smtp_answering_rcpt(reply);
        let smtp = json!({ "smtp": { "authMethods": ["PLAIN", "NONE"] } });
        let edge = Edge::before(&[("SMTP", backend.address())], &smtp);
        let mut wire = greeted(edge.at[0]).unwrap();
        wire.smtp("EHLO client.example.test").unwrap();
        wire.ask("MAIL FROM:<a@example.test>").unwrap();
        assert_eq!(wire.ask("RCPT TO:<b@example.test>").unwrap(), reply, "the backend's own words");
        drop(wire);
        edge.counts_logins("SMTP", counted, 1);
        edge.counts_logins("SMTP", "accepted", 0);
        edge.counts_session("SMTP", outcome, fault);
    }
}

#[test]
fn an_auth_service_that_cannot_decide_is_at_fault_and_nobody_is_banned_for_it() {
    let service = AuthService::start(|request| {
        let status = ("Auth-Status", "try again later".to_owned());
        match request.header("Auth-User") {
            Some("status") => Answer::Status("503 Service Unavailable", vec![status]),
            Some("bracket") => Answer::refuse("[UNAVAILABLE] later"),
            Some("waiting") => Answer::Headers(vec![
                status,
                ("Auth-Error-Code", "451 4.3.0".to_owned()),
                ("Auth-Wait", "1".to_owned()),
            ]),
            _ => Answer::Headers(vec![status, ("Auth-Error-Code", "451 4.3.0".to_owned())]),
        }
    });
    let nowhere: SocketAddr = ([127, 0, 0, 1], ports::free()).into();
    let ban = json!({ "count": 2, "window": "10m", "ban": "10m" });
    let settings = json!({ "auth": http_auth(&service.url()), "limits": { "authFailures": ban } });
    let edge = Edge::before(&[("SMTP", nowhere)], &settings);
    for (user, answer) in [
        ("status", "535 5.7.0 try again later"),
        ("bracket", "535 5.7.0 [UNAVAILABLE] later"),
        ("code", "451 4.3.0 try again later"),
        ("waiting", "451 4.3.0 try again later"),
    ] {
        let mut wire = greeted(edge.at[0]).unwrap();
        assert_eq!(log_in(&mut wire, "SMTP", user, "secret").unwrap(), answer, "nginx's words");
        if user == "waiting" {
            drop(wire);
        } else {
            assert_eq!(wire.rest(Duration::from_secs(20)), "", "without Auth-Wait the session ends");
        }
        let line = edge.mailgress.logs(&[&format!("login=\"{user}\""), "auth_service_unavailable"]);
        assert!(line.contains("WARN") && line.contains("fault=\"auth_service\""), "{line}");
    }
    edge.counts_logins("SMTP", "unavailable", 4);
    let metrics = edge.mailgress.metrics();
    let asked = "mailgress_auth_service_requests_total{listener=\"mail/edge/smtp\",outcome=\"unavailable\",protocol=\"smtp\"} 4";
    assert!(metrics.contains(asked), "{metrics}");
}
