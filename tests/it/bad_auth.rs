//! Auth services that are down, slow or wrong: the client gets an error, and everything else is served.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use serde_json::{Value, json};

use crate::support::acceptor::Acceptor;
use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::name_server::{NameServer, Reply};
use crate::support::talk::{PROTOCOLS, greeted, internal_error, is_success, log_in};
use crate::support::{ports, wait};

/// All protocols with one auth service, and one listener that does not use it.
struct Edge {
    mailgress: Mailgress,
    ports: Vec<(&'static str, SocketAddr)>,
    healthy: SocketAddr,
    _backends: [Backend; 3],
    _folder: Folder,
}

impl Edge {
    fn behind(auth: &Value) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let mut listeners = Vec::new();
        let mut ports = Vec::new();
        for (protocol, backend) in PROTOCOLS.into_iter().zip(&backends) {
            let port = ports::free();
            let base = listener(&protocol.to_lowercase(), protocol, "Disabled", port, backend.address());
            listeners.push(with(base, &json!({ "auth": auth })));
            ports.push((protocol, SocketAddr::from(([127, 0, 0, 1], port))));
        }
        let port = ports::free();
        let healthy = listener("healthy", "IMAP", "Disabled", port, backends[0].address());
        listeners.push(with(healthy, &json!({ "auth": passthrough() })));
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&json!({ "listeners": listeners })));
        let mailgress = Mailgress::start(&folder);
        let healthy = ([127, 0, 0, 1], port).into();
        Self { mailgress, ports, healthy, _backends: backends, _folder: folder }
    }

    fn behind_service(service: &AuthService) -> Self {
        Self::behind(&json!({ "http": { "url": service.url(), "timeout": "1s" } }))
    }

    /// Checks that clients of all protocols get the internal error and are disconnected, and that the other listener
    /// serves.
    fn says_internal_error(&self) {
        for (protocol, address) in &self.ports {
            let mut wire = greeted(*address).unwrap();
            assert_eq!(log_in(&mut wire, protocol, "user", "secret").unwrap(), internal_error(protocol));
            assert_eq!(wire.rest(Duration::from_secs(10)), "", "{protocol} stays open");
        }
        let mut wire = greeted(self.healthy).unwrap();
        assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", "user", "secret").unwrap()));
    }

    /// Checks that the log blames the auth service.
    fn blames_the_auth_service(&self) {
        self.mailgress.logs(&["auth"]);
        assert!(!self.mailgress.log().contains("secret"), "a password is in the log");
    }
}

#[test]
fn an_auth_service_that_is_down_is_an_internal_error() {
    let url = format!("http://127.0.0.1:{}/auth", ports::free());
    let edge = Edge::behind(&json!({ "http": { "url": url, "timeout": "1s" } }));
    edge.says_internal_error();
    edge.blames_the_auth_service();
}

#[test]
fn an_auth_service_that_says_nothing_is_an_internal_error_after_its_timeout() {
    let service = AuthService::start(|_| Answer::Silence);
    let edge = Edge::behind_service(&service);
    let began = Instant::now();
    edge.says_internal_error();
    assert!(began.elapsed() >= Duration::from_secs(3), "three logins, each with a timeout of a second");
    assert!(began.elapsed() < Duration::from_secs(20));
    edge.blames_the_auth_service();
}

#[test]
fn an_auth_service_that_hangs_up_is_an_internal_error() {
    let service = AuthService::start(|_| Answer::Close);
    let edge = Edge::behind_service(&service);
    edge.says_internal_error();
    edge.blames_the_auth_service();
}

#[test]
fn an_auth_service_that_answers_garbage_is_an_internal_error() {
    for garbage in [
        b"\x16\x03\x01 this is not HTTP at all \x00\xff\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: not an address\r\nAuth-Port: 143\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: 99999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nAuth-Status: O",
    ] {
        let service = AuthService::start(move |_| Answer::Bytes(garbage));
        let edge = Edge::behind_service(&service);
        edge.says_internal_error();
        edge.blames_the_auth_service();
    }
}

#[test]
fn an_endless_answer_of_the_auth_service_is_an_internal_error_and_not_kept_in_memory() {
    let endless = Acceptor::start(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(&b"X-Header: and one more and one more and one more\r\n".repeat(1000)).is_ok()
        {
        }
    });
    let url = format!("http://{}/auth", endless.address());
    let edge = Edge::behind(&json!({ "http": { "url": url, "timeout": "5s" } }));
    let before = edge.mailgress.resident_bytes();
    edge.says_internal_error();
    assert!(edge.mailgress.resident_bytes() < before + 64 * 1024 * 1024);
}

#[test]
fn an_auth_service_that_answers_twice_lets_no_wrong_password_in() {
    let backend = Backend::imap("imap");
    let address = backend.address();
    let service = Acceptor::start(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let refusal = "HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n";
        let acceptance = format!(
            "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {}\r\nAuth-Port: {}\r\nContent-Length: 0\r\n\r\n",
            address.ip(),
            address.port()
        );
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                let _ = stream
                    .write_all(refusal.as_bytes())
                    .and_then(|()| stream.write_all(acceptance.as_bytes()));
            }
        }
    });
    let edge = Edge::behind(&json!({ "http": { "url": format!("http://{}/", service.address()) } }));
    let imap = edge.ports[0].1;
    for _ in 0..200 {
        let mut wire = greeted(imap).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "wrong").unwrap(), "a NO no");
    }
    edge.mailgress.logs(&["sent unexpected data"]);
}

#[test]
fn an_auth_service_that_never_sends_its_body_keeps_no_descriptor() {
    let service = Acceptor::start(|mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 5\r\n\r\n");
            }
        }
    });
    let edge = Edge::behind(&json!({ "http": { "url": format!("http://{}/", service.address()) } }));
    let imap = edge.ports[0].1;
    let before = edge.mailgress.descriptors();
    for _ in 0..200 {
        let mut wire = greeted(imap).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "wrong").unwrap(), "a NO no");
    }
    // The last sessions may be about to end, so allow fewer than the number of logins.
    assert!(edge.mailgress.descriptors() < before + 100);
    wait::eventually("nothing is left", || (edge.mailgress.descriptors() <= before).then_some(()));
}

#[test]
fn what_is_not_the_auth_services_answer_authorises_nobody_even_where_any_status_is_accepted() {
    let not_found = || AuthService::start(|_| Answer::Status("404 Not Found", Vec::new()));
    let any_status = |service: &AuthService| {
        Edge::behind(&json!({ "http": { "url": service.url(), "timeout": "1s", "acceptAnyStatus": true } }))
    };
    let service = not_found();
    any_status(&service).says_internal_error();

    let backend = Backend::imap("named");
    let address = backend.address();
    let named = move |_: &_| {
        let server = ("Auth-Server", address.ip().to_string());
        Answer::Status("404 Not Found", vec![server, ("Auth-Port", address.port().to_string())])
    };
    let service = AuthService::start(named);
    Edge::behind_service(&service).says_internal_error();
    let edge = any_status(&service);
    let mut wire = greeted(edge.ports[0].1).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK named");
}

#[test]
fn a_refusal_is_passed_on_in_the_words_of_the_auth_service() {
    let service = AuthService::start(|_| {
        Answer::Headers(vec![
            ("Auth-Status", "Come back tomorrow".to_owned()),
            ("Auth-Error-Code", "454 4.7.0".to_owned()),
        ])
    });
    let edge = Edge::behind_service(&service);
    for (protocol, address) in &edge.ports {
        let expected = match *protocol {
            "IMAP" => "a NO Come back tomorrow",
            "POP3" => "-ERR Come back tomorrow",
            _ => "454 4.7.0 Come back tomorrow",
        };
        let mut wire = greeted(*address).unwrap();
        assert_eq!(log_in(&mut wire, protocol, "user", "secret").unwrap(), expected);
        assert_eq!(wire.rest(Duration::from_secs(10)), "", "without Auth-Wait the session ends");
    }
}

#[test]
fn a_refusal_with_a_wait_leaves_the_session_open_for_another_attempt() {
    let backend = Backend::imap("imap");
    let address = backend.address();
    let service = AuthService::start(move |request| match request.header("Auth-Login-Attempt") {
        Some("1") => {
            Answer::Headers(vec![("Auth-Status", "Invalid login".to_owned()), ("Auth-Wait", "1".to_owned())])
        }
        _ => Answer::Backend(address),
    });
    let edge = Edge::behind_service(&service);
    let mut wire = greeted(edge.ports[0].1).unwrap();
    let began = Instant::now();
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a NO Invalid login");
    assert!(began.elapsed() >= Duration::from_secs(1), "the refusal is delayed");
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
}

/// Up to the log's line about a client that left while its auth service was silent.
fn a_client_that_leaves_blames(auth: &Value, settings: &Value) {
    let backend = Backend::imap("imap");
    let port = ports::free();
    let base = listener("imap", "IMAP", "Disabled", port, backend.address());
    let folder = Folder::new();
    let listeners = [with(with(base, &json!({ "auth": auth })), settings)];
    folder.write("server.yaml", &mail_server(&json!({ "listeners": listeners })));
    let mailgress = Mailgress::start(&folder);
    let mut wire = greeted(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    wire.send("a LOGIN user secret\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(3_500));
    drop(wire);
    mailgress.logs(&["auth_service_error", "fault=\"auth_service\""]);
}

#[test]
fn a_client_that_leaves_an_auth_service_that_hangs_leaves_by_its_fault() {
    // It accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    a_client_that_leaves_blames(&json!({ "http": { "url": url, "timeout": "30s" } }), &json!({}));
}

#[test]
fn an_auth_server_that_does_not_exist_is_the_fault_of_the_auth_service() {
    let names = NameServer::start(|_, _| Reply::Code(ResponseCode::NXDomain));
    let service = AuthService::start(|_| {
        let server = ("Auth-Server", "gone.example.test".to_owned());
        Answer::Headers(vec![("Auth-Status", "OK".to_owned()), server, ("Auth-Port", "143".to_owned())])
    });
    let resolver = json!({ "nameservers": [names.address().to_string()], "ipv6": false });
    let port = ports::free();
    let settings = json!({
        "name": "imap", "protocol": "IMAP", "address": "127.0.0.1", "port": port, "tls": { "mode": "Disabled" },
        "auth": { "http": { "url": service.url() } }, "resolver": resolver,
    });
    let folder = Folder::new();
    folder.write("server.yaml", &mail_server(&json!({ "listeners": [settings] })));
    let mailgress = Mailgress::start(&folder);
    let mut wire = greeted(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), internal_error("IMAP"));
    mailgress.logs(&["gone.example.test", "auth_service_error", "fault=\"auth_service\""]);
}
