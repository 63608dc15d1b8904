//! Backends that refuse, hang, disconnect or speak another protocol: the client gets an error, and everything else is
//! served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::auth_service::AuthService;
use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, with};
use crate::support::ports;
use crate::support::talk::{
    PROTOCOLS, greeted, internal_error, is_success, log_in, send_login, temporary_error,
};

/// All protocols with both kinds of auth in front of one bad backend, and a listener with a good one.
struct Edge {
    mailgress: Mailgress,
    /// The protocol, whether an auth service decides, and the address.
    ports: Vec<(&'static str, bool, SocketAddr)>,
    healthy: SocketAddr,
    _good: Backend,
    _auth: AuthService,
    _folder: Folder,
}

impl Edge {
    fn before(bad: SocketAddr) -> Self {
        let auth = AuthService::routing("secret", move |_| bad);
        let good = Backend::imap("good");
        let mut listeners = Vec::new();
        let mut ports = Vec::new();
        for protocol in PROTOCOLS {
            for (kind, settings) in [("http", http_auth(&auth.url())), ("passthrough", passthrough())] {
                let port = ports::free();
                let name = format!("{}-{kind}", protocol.to_lowercase());
                listeners.push(with(
                    listener(&name, protocol, "Disabled", port, bad),
                    &json!({ "auth": settings }),
                ));
                ports.push((protocol, kind == "http", SocketAddr::from(([127, 0, 0, 1], port))));
            }
        }
        let port = ports::free();
        let healthy = listener("healthy", "IMAP", "Disabled", port, good.address());
        listeners.push(with(healthy, &json!({ "auth": passthrough() })));
        let folder = Folder::new();
        let spec = json!({ "timeouts": { "connect": "1s" }, "listeners": listeners });
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start(&folder);
        let healthy = ([127, 0, 0, 1], port).into();
        Self { mailgress, ports, healthy, _good: good, _auth: auth, _folder: folder }
    }

    /// Checks that all clients get an error: with an auth service nginx's, before they are disconnected; with
    /// `passthrough` a temporary one, after which they may try again. The good backend's listener serves.
    fn fails_for_now(&self) {
        for (protocol, has_service, address) in &self.ports {
            let mut wire = greeted(*address).unwrap();
            let answer = log_in(&mut wire, protocol, "user", "secret").unwrap();
            if *has_service {
                assert_eq!(answer, internal_error(protocol));
                assert_eq!(wire.rest(Duration::from_secs(10)), "", "{protocol} stays open");
                continue;
            }
            assert!(answer.starts_with(temporary_error(protocol)), "{answer}");
            if *protocol != "SMTP" {
                wire.send(if *protocol == "IMAP" { "b LOGOUT\r\n" } else { "QUIT\r\n" }).unwrap();
                let rest = wire.rest(Duration::from_secs(10));
                assert!(rest.contains("b OK") || rest.starts_with("+OK"), "{protocol}: {rest}");
            }
        }
        let mut wire = greeted(self.healthy).unwrap();
        assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", "user", "secret").unwrap()));
        self.mailgress.logs(&["backend"]);
        assert!(!self.mailgress.log().contains("secret"), "a password is in the log");
    }
}

#[test]
fn a_backend_that_refuses_connections_is_a_failure_for_now() {
    Edge::before(([127, 0, 0, 1], ports::free()).into()).fails_for_now();
}

#[test]
fn a_backend_that_hangs_is_a_failure_for_now_after_the_connect_timeout() {
    let backend = Backend::hanging();
    let edge = Edge::before(backend.address());
    let began = Instant::now();
    edge.fails_for_now();
    assert!(began.elapsed() >= Duration::from_secs(6), "six logins, each with a timeout of a second");
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[test]
fn a_backend_that_hangs_up_is_a_failure_for_now() {
    let backend = Backend::saying(b"");
    Edge::before(backend.address()).fails_for_now();
}

#[test]
fn a_backend_that_hangs_up_within_its_greeting_is_a_failure_for_now() {
    let backend = Backend::saying(b"* OK half a gree");
    Edge::before(backend.address()).fails_for_now();
}

#[test]
fn a_backend_that_greets_in_another_protocol_is_a_failure_for_now() {
    let backend = Backend::greeting(b"SSH-2.0-OpenSSH_9.2\r\n");
    Edge::before(backend.address()).fails_for_now();
}

#[test]
fn a_backend_that_refuses_service_in_its_greeting_is_a_failure_for_now() {
    for greeting in [b"* BYE overloaded\r\n".as_slice(), b"-ERR overloaded\r\n", b"421 4.3.2 overloaded\r\n"]
    {
        let backend = Backend::greeting(greeting);
        Edge::before(backend.address()).fails_for_now();
    }
}

#[test]
fn a_greeting_without_end_is_a_failure_for_now_and_not_kept_in_memory() {
    use std::io::Write;
    let endless =
        crate::support::acceptor::Acceptor::start(
            |mut stream| {
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
            },
        );
    let edge = Edge::before(endless.address());
    let before = edge.mailgress.resident_bytes();
    edge.fails_for_now();
    assert!(edge.mailgress.resident_bytes() < before + 64 * 1024 * 1024);
}

#[test]
fn with_passthrough_the_backends_refusal_is_the_clients_answer_and_the_session_goes_on() {
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let ports = [ports::free(), ports::free(), ports::free()];
    let listeners: Vec<_> = (0..3)
        .map(|i| {
            listener(&PROTOCOLS[i].to_lowercase(), PROTOCOLS[i], "Disabled", ports[i], backends[i].address())
        })
        .collect();
    let folder = Folder::new();
    folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    let _mailgress = Mailgress::start(&folder);
    let refusals = [
        "a NO [AUTHENTICATIONFAILED] refused by imap",
        "-ERR [AUTH] refused by pop3",
        "535 5.7.8 refused by smtp",
    ];
    let answers = ["a OK imap", "+OK pop3", "235 2.7.0 smtp"];
    for i in 0..3 {
        let mut wire = greeted(([127, 0, 0, 1], ports[i]).into()).unwrap();
        for _ in 0..2 {
            assert_eq!(log_in(&mut wire, PROTOCOLS[i], "user", WRONG).unwrap(), refusals[i]);
        }
        assert_eq!(log_in(&mut wire, PROTOCOLS[i], "user", "secret").unwrap(), answers[i]);
    }
}

#[test]
fn a_client_that_leaves_during_the_backends_silence_takes_its_session_with_it() {
    let backend = Backend::hanging();
    let port = ports::free();
    let folder = Folder::new();
    let spec = json!({
        "auth": passthrough(),
        "timeouts": { "connect": "60s" },
        "listeners": [listener("imap", "IMAP", "Disabled", port, backend.address())],
    });
    folder.write("server.yaml", &mail_server(&spec));
    let _mailgress = Mailgress::start(&folder);
    let mut wire = greeted(([127, 0, 0, 1], port).into()).unwrap();
    send_login(&mut wire, "IMAP", "user", "secret").unwrap();
    crate::support::wait::eventually("the backend is asked", || (backend.open() == 1).then_some(()));
    drop(wire);
    crate::support::wait::eventually("the backend's connection ends", || (backend.open() == 0).then_some(()));
}
