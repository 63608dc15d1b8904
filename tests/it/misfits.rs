//! Backends whose setup does not match the listener: the client gets an internal error, nothing counts against it, and
//! the log says what is missing.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::acceptor::Acceptor;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::message::wait_for_mail;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{greeted, log_in, temporary_error};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// A listener with `passthrough` for each backend, with a ban after one refused login.
struct Edge {
    mailgress: Mailgress,
    at: Vec<SocketAddr>,
    _folder: Folder,
}

impl Edge {
    fn before(backends: &[(&str, SocketAddr)], settings: &Value) -> Self {
        let at: Vec<SocketAddr> = backends.iter().map(|_| ([127, 0, 0, 1], ports::free()).into()).collect();
        let listeners: Vec<Value> = backends
            .iter()
            .zip(&at)
            .enumerate()
            .map(|(index, ((protocol, backend), at))| {
                listener(&format!("l{index}"), protocol, "Disabled", at.port(), *backend)
            })
            .collect();
        let spec = json!({
            "serverName": "mail.example.test",
            "auth": passthrough(),
            "limits": { "authFailures": { "count": 1, "window": "10m", "ban": "10m" } },
            "listeners": listeners,
        });
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&with(spec, settings)));
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, at, _folder: folder }
    }

    /// Checks for the temporary error twice: a banned client would not be greeted again.
    fn fails_without_blame(&self, at: SocketAddr, protocol: &str) {
        for _ in 0..2 {
            let mut wire = greeted(at).unwrap();
            let answer = log_in(&mut wire, protocol, "user", PASSWORD).unwrap();
            assert!(answer.starts_with(temporary_error(protocol)), "{answer}");
        }
        let metrics = self.mailgress.metrics();
        let refused: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("mailgress_logins_total") && line.contains("refused"))
            .filter(|line| !line.ends_with(" 0"))
            .collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

#[test]
fn a_complaint_about_the_proxy_header_is_not_the_answer_to_the_login() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let backends = [("POP3", dovecot.pop3()), ("IMAP", dovecot.imap()), ("SMTP", postfix.submission())];
    for version in ["V1", "V2"] {
        let edge = Edge::before(&backends, &json!({ "upstream": { "proxyProtocol": version } }));
        for ((protocol, _), at) in backends.iter().zip(&edge.at) {
            edge.fails_without_blame(*at, protocol);
        }
        let log = edge.mailgress.logs(&["upstream.proxyProtocol", "fault=\"backend\""]);
        assert!(!log.contains("fault=\"client\""), "{log}");
    }
}

/// A POP3 server without PROXY support that is so slow that its error arrives after USER was sent.
fn old_pop3(closes: bool) -> Acceptor {
    Acceptor::start(move |mut stream| {
        let Ok(copy) = stream.try_clone() else { return };
        let mut lines = BufReader::new(copy).lines().map_while(Result::ok);
        let _ = stream.write_all(b"+OK ready\r\n");
        let (_header, Some(_user)) = (lines.next(), lines.next()) else { return };
        let _ = stream.write_all(b"-ERR unknown command\r\n");
        if closes {
            return;
        }
        let _ = stream.write_all(b"+OK\r\n");
        for line in lines {
            let is_last = line.starts_with("QUIT");
            if stream.write_all(b"+OK\r\n").is_err() || is_last {
                return;
            }
        }
    })
}

#[test]
fn a_complaint_that_crosses_the_login_is_told_by_the_number_of_answers() {
    for closes in [false, true] {
        let backend = old_pop3(closes);
        let backends = [("POP3", backend.address())];
        let edge = Edge::before(&backends, &json!({ "upstream": { "proxyProtocol": "V1" } }));
        edge.fails_without_blame(edge.at[0], "POP3");
        edge.mailgress.logs(&["upstream.proxyProtocol", "fault=\"backend\""]);
    }
}

#[test]
fn behind_a_proxy_header_that_is_understood_a_refused_login_is_the_clients() {
    let dovecot = &servers().dovecot;
    let backends = [("POP3", dovecot.pop3_proxied()), ("IMAP", dovecot.imap_proxied())];
    let edge = Edge::before(&backends, &json!({ "upstream": { "proxyProtocol": "V2" } }));
    for ((protocol, _), at) in backends.iter().zip(&edge.at) {
        let mut wire = greeted(*at).unwrap();
        let answer = log_in(&mut wire, protocol, &new_user("wrong"), "wrong").unwrap();
        assert!(answer.contains("[AUTH"), "{answer}");
        let mut wire = greeted(*at).ok();
        wait::eventually("the client is banned", || {
            let refused = wire.as_mut().is_none_or(|wire| {
                log_in(wire, protocol, "user", PASSWORD).map_or(true, |answer| answer.contains("Too many"))
            });
            wire = greeted(*at).ok();
            refused.then_some(())
        });
    }
}

#[test]
fn a_backend_that_waits_for_tls_is_told_as_one() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let backends = [("POP3", dovecot.pop3s()), ("IMAP", dovecot.imaps()), ("SMTP", postfix.submissions())];
    let edge = Edge::before(&backends, &json!({ "timeouts": { "connect": "1s" } }));
    for ((protocol, _), at) in backends.iter().zip(&edge.at) {
        edge.fails_without_blame(*at, protocol);
    }
    edge.mailgress.logs(&[
        "outcome=\"backend_timeout\"",
        "the backend sent nothing for 1s",
        "upstream.tls.mode: Implicit",
    ]);
    // The header is not a ClientHello, so the server closes or sends an alert.
    let alert = Backend::saying(&[0x15, 3, 1, 0, 2, 2, 70]);
    let backends = [("IMAP", dovecot.imaps()), ("IMAP", alert.address())];
    let settings = json!({ "upstream": { "proxyProtocol": "V1" }, "timeouts": { "connect": "10s" } });
    let edge = Edge::before(&backends, &settings);
    for (at, said) in
        edge.at.iter().zip(["closed the connection without a greeting", "uses TLS from the first byte"])
    {
        edge.fails_without_blame(*at, "IMAP");
        edge.mailgress.logs(&[said, "upstream.tls.mode: Implicit", "fault=\"backend\""]);
    }
}

#[test]
fn a_backend_that_wants_a_proxy_header_and_gets_none_is_told_as_one() {
    let edge = Edge::before(&[("IMAP", servers().dovecot.imap_proxied())], &json!({}));
    edge.fails_without_blame(edge.at[0], "IMAP");
    edge.mailgress.logs(&["without a greeting", "upstream.proxyProtocol", "fault=\"backend\""]);
}

#[test]
fn a_backend_without_auth_is_told_as_one() {
    let edge = Edge::before(&[("SMTP", servers().postfix.mx())], &json!({}));
    edge.fails_without_blame(edge.at[0], "SMTP");
    edge.mailgress.logs(&["the backend does not offer AUTH PLAIN", "503 5.5.1", "fault=\"backend\""]);
}

#[test]
fn a_backend_that_hides_auth_until_starttls_is_unavailable_and_the_log_names_the_field() {
    let backend = Backend::smtp_hiding_auth();
    let edge = Edge::before(&[("SMTP", backend.address())], &json!({}));
    edge.fails_without_blame(edge.at[0], "SMTP");
    edge.mailgress.logs(&[
        "outcome=\"backend_unavailable\"",
        "the backend does not offer AUTH PLAIN",
        "set upstream.tls.mode: StartTLS",
        "fault=\"backend\"",
    ]);
}

#[test]
fn a_password_that_is_not_ascii_reaches_the_imap_backend_as_utf_8_by_authenticate() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&heard);
    let backend = Backend::imap_heard("imap", move |line| memory.lock().unwrap().push(line.to_owned()));
    let edge = Edge::before(&[("IMAP", backend.address())], &json!({}));
    let mut wire = greeted(edge.at[0]).unwrap();
    assert_eq!(wire.ask("a LOGIN user {5+}\r\np\u{e4}ss").unwrap(), "a OK imap");
    assert_eq!(*heard.lock().unwrap(), ["a AUTHENTICATE PLAIN AHVzZXIAcMOkc3M="]);
}

/// Delivers a mail through a listener with these upstream settings. Returns the header lines of the received mail.
fn received(upstream: &Value) -> Vec<String> {
    let user = new_user("named");
    let settings = json!({ "smtp": { "authMethods": ["NONE"] }, "upstream": upstream });
    let edge = Edge::before(&[("SMTP", servers().postfix.mx())], &settings);
    let mut wire = greeted(edge.at[0]).unwrap();
    wire.smtp("EHLO laptop.client.test").unwrap();
    for command in ["MAIL FROM:<sender@elsewhere.test>", &format!("RCPT TO:<{user}>"), "DATA"] {
        let reply = wire.smtp(command).unwrap();
        assert!(reply[0].starts_with(['2', '3']), "{command}: {reply:?}");
    }
    wire.send("Subject: a name\r\n\r\nhello\r\n").unwrap();
    assert!(wire.smtp(".").unwrap()[0].starts_with("250"));
    wait_for_mail(&user);
    let mut reader = Wire::connect(servers().dovecot.imap()).unwrap();
    reader.line().unwrap();
    assert!(log_in(&mut reader, "IMAP", &user, PASSWORD).unwrap().starts_with("a OK"));
    reader.imap("b", "SELECT INBOX").unwrap();
    reader.imap("c", "FETCH 1 BODY.PEEK[HEADER.FIELDS (Received)]").unwrap()
}

#[test]
fn mail_shows_the_clients_name_in_received_unless_our_own_is_wanted() {
    for (upstream, name) in [
        (json!({ "xclient": false }), "laptop.client.test"),
        (json!({ "xclient": false, "ehloName": "Client" }), "laptop.client.test"),
        (json!({ "xclient": false, "ehloName": "Own" }), "mail.example.test"),
    ] {
        let lines = received(&upstream);
        let expected = format!("Received: from {name} ");
        assert!(lines.iter().any(|line| line.starts_with(&expected)), "{upstream}: {lines:#?}");
    }
}
