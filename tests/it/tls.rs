//! TLS to clients: listeners and certificates selected by SNI, versions, ALPN, resumption, and STARTTLS.

use std::net::SocketAddr;

use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use serde_json::{Value, json};

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::talk::{PROTOCOLS, backend_answers, greeted, is_success, log_in};
use crate::support::tls_client::{TlsClient, alert, expect_go_ahead, secured, start_tls, start_tls_command};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const MODES: [&str; 2] = ["Implicit", "RequireStartTLS"];

/// Not in any certificate. A client that requests an address sends no SNI.
const NO_SNI: &str = "127.0.0.1";

/// A port for each protocol in both modes, with one listener for each entry of `hostnames`. The name of a listener's
/// backend is that of its host names.
struct Edge {
    folder: Folder,
    _mailgress: Mailgress,
    ports: Vec<(&'static str, &'static str, SocketAddr)>,
    backends: Vec<Backend>,
}

impl Edge {
    fn start(hostnames: &[&str]) -> Self {
        let (mut ports, mut backends, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
        for (protocol, mode) in PROTOCOLS.iter().flat_map(|protocol| MODES.map(|mode| (*protocol, mode))) {
            let port = ports::free();
            for (index, hostname) in hostnames.iter().enumerate() {
                let backend = match protocol {
                    "IMAP" => Backend::imap(hostname),
                    "POP3" => Backend::pop3(hostname),
                    _ => Backend::smtp(hostname),
                };
                let name = format!("{}-{}-{index}", protocol.to_lowercase(), mode.to_lowercase());
                let mut wanted = listener(&name, protocol, mode, port, backend.address());
                if *hostname != CATCH_ALL {
                    wanted["hostnames"] = json!([hostname]);
                }
                listeners.push(wanted);
                backends.push(backend);
            }
            ports.push((protocol, mode, loopback(port)));
        }
        let folder = Folder::new();
        let identity = AUTHORITY.issue(&["localhost", NO_SNI, "a.example.test", "*.example.test"]);
        folder.write("tls.yaml", &tls_secret("mail-tls", &identity));
        folder.write("server.yaml", &server(&listeners));
        let mailgress = Mailgress::start(&folder);
        Self { folder, _mailgress: mailgress, ports, backends }
    }

    /// Checks on all ports which listener a client gets for `name`.
    fn serves(&self, name: &str, expected: &str) {
        let client = TlsClient::new().build();
        for (protocol, mode, address) in &self.ports {
            let mut wire = secured((protocol, mode), *address, &client, name).unwrap();
            let answer = log_in(&mut wire, protocol, "user", "secret").unwrap();
            assert!(answer.ends_with(&format!(" {expected}")), "{protocol} {mode} {name}: {answer}");
            assert!(backend_answers(&mut wire, protocol).unwrap());
        }
    }
}

/// The name for a listener without host names.
const CATCH_ALL: &str = "catch-all";

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn server(listeners: &[Value]) -> Value {
    mail_server(&json!({
        "serverName": "mail.example.test",
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
        "auth": passthrough(),
        "listeners": listeners,
    }))
}

/// One listener with implicit TLS and the fields of `extra`.
fn serve_one(protocol: &str, backend: &Backend, extra: &Value) -> (Folder, Mailgress, SocketAddr) {
    let port = ports::free();
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    let wanted = with(listener("only", protocol, "Implicit", port, backend.address()), extra);
    folder.write("server.yaml", &server(&[wanted]));
    let mailgress = Mailgress::start(&folder);
    (folder, mailgress, loopback(port))
}

#[test]
fn listeners_on_one_port_are_told_apart_by_sni() {
    let edge = Edge::start(&[CATCH_ALL, "*.example.test", "a.example.test"]);
    edge.serves("a.example.test", "a.example.test");
    edge.serves("b.example.test", "*.example.test");
    edge.serves("localhost", CATCH_ALL);
    edge.serves(NO_SNI, CATCH_ALL);
    assert_eq!(edge.backends.len(), 18);
}

#[test]
fn a_name_that_is_nobodys_is_answered_with_unrecognized_name() {
    let edge = Edge::start(&["a.example.test", "*.b.example.test"]);
    let client = TlsClient::new().build();
    for (protocol, mode, address) in &edge.ports {
        for name in ["localhost", "c.example.test"] {
            let refused = secured((protocol, mode), *address, &client, name);
            assert_eq!(alert(refused), AlertDescription::UnrecognisedName, "{protocol} {mode} {name}");
        }
    }
    edge.serves("a.example.test", "a.example.test");
    edge.serves(NO_SNI, "a.example.test");
    assert!(edge.backends.iter().all(|backend| backend.accepted() <= 2));
}

#[test]
fn a_listener_that_joins_a_port_leaves_the_others_and_their_sessions_alone() {
    let backends = [Backend::imap("first"), Backend::imap("second")];
    let (folder, _mailgress, address) =
        serve_one("IMAP", &backends[0], &json!({ "hostnames": ["localhost"] }));
    let client = TlsClient::new().build();
    let mut before = secured(("IMAP", "Implicit"), address, &client, "localhost").unwrap();
    assert_eq!(log_in(&mut before, "IMAP", "user", "secret").unwrap(), "a OK first");
    let named = |name: &str, backend: &Backend, hostname: &str| {
        let wanted = listener(name, "IMAP", "Implicit", address.port(), backend.address());
        with(wanted, &json!({ "hostnames": [hostname] }))
    };
    folder.replace(
        "server.yaml",
        &server(&[
            named("only", &backends[0], "localhost"),
            named("more", &backends[1], "mail.example.test"),
        ]),
    );
    wait::eventually("the second listener serves", || {
        let mut wire = secured(("IMAP", "Implicit"), address, &client, "mail.example.test").ok()?;
        (log_in(&mut wire, "IMAP", "user", "secret").unwrap() == "a OK second").then_some(())
    });
    let mut after = secured(("IMAP", "Implicit"), address, &client, "localhost").unwrap();
    assert_eq!(log_in(&mut after, "IMAP", "user", "secret").unwrap(), "a OK first");
    assert!(backend_answers(&mut before, "IMAP").unwrap());
}

#[test]
fn the_certificate_is_chosen_by_sni_and_the_first_is_the_default() {
    let identities = [
        ("first", AUTHORITY.issue(&["localhost", NO_SNI])),
        ("exact", AUTHORITY.issue(&["a.example.test"])),
        ("wildcard", AUTHORITY.issue(&["*.example.test"])),
    ];
    let backend = Backend::imap("imap");
    let (folder, mailgress, address) = serve_one("IMAP", &backend, &json!({}));
    for (name, identity) in &identities {
        folder.write(&format!("{name}.yaml"), &tls_secret(name, identity));
    }
    let references: Vec<Value> = identities.iter().map(|(name, _)| json!({ "name": name })).collect();
    let wanted = listener("only", "IMAP", "Implicit", address.port(), backend.address());
    let wanted = with(wanted, &json!({ "tls": { "certificateRefs": references } }));
    folder.replace("server.yaml", &server(&[wanted]));
    let client = TlsClient::new().build();
    let shown = |name: &str| {
        let wire = Wire::connect(address).unwrap().handshake_as(client.clone(), name);
        wire.ok().map(|wire| wire.certificate())
    };
    wait::eventually("all certificates are served", || {
        (shown("a.example.test").as_ref() == Some(&identities[1].1.der)).then_some(())
    });
    for (name, index) in [("localhost", 0), (NO_SNI, 0), ("a.example.test", 1), ("b.example.test", 2)] {
        assert_eq!(shown(name).as_ref(), Some(&identities[index].1.der), "{name}");
    }
    let metrics = mailgress.metrics();
    for (name, _) in &identities {
        assert!(metrics.contains(&format!("secret=\"mail/{name}\"")), "{metrics}");
    }
}

#[test]
fn a_new_certificate_is_shown_to_new_clients_while_old_sessions_go_on() {
    let backend = Backend::imap("imap");
    let (folder, mailgress, address) = serve_one("IMAP", &backend, &json!({}));
    let mut before = Wire::connect_tls(address).unwrap();
    before.line().unwrap();
    log_in(&mut before, "IMAP", "user", "secret").unwrap();
    let old = before.certificate();
    let renewed = AUTHORITY.issue_for_loopback();
    folder.replace("tls.yaml", &tls_secret("mail-tls", &renewed));
    wait::eventually("the new certificate is shown", || {
        (Wire::connect_tls(address).unwrap().certificate() == renewed.der).then_some(())
    });
    assert_ne!(old, renewed.der);
    assert!(backend_answers(&mut before, "IMAP").unwrap());
    // Neither a wrong key nor a missing Secret stops the valid certificate from being served.
    folder.write(
        "tls.yaml",
        &with(
            tls_secret("mail-tls", &renewed),
            &json!({
                "stringData": { "tls.key": AUTHORITY.issue_for_loopback().key }
            }),
        ),
    );
    wait::eventually("the wrong key is told", || {
        mailgress.status().to_string().contains("UsingLastGood").then_some(())
    });
    assert_eq!(Wire::connect_tls(address).unwrap().certificate(), renewed.der);
    folder.remove("tls.yaml");
    wait::eventually("the missing Secret is told", || {
        mailgress.status().to_string().contains("does not exist").then_some(())
    });
    assert_eq!(Wire::connect_tls(address).unwrap().certificate(), renewed.der);
    assert!(backend_answers(&mut before, "IMAP").unwrap());
}

#[test]
fn an_old_tls_version_is_refused_where_a_newer_one_is_the_minimum() {
    let backend = Backend::imap("imap");
    let strict = json!({ "tls": { "minVersion": "TLSv1.3" } });
    let (_folder, _mailgress, address) = serve_one("IMAP", &backend, &strict);
    let (old, new) = (TlsClient::new().tls12().build(), TlsClient::new().build());
    let refused = Wire::connect(address).unwrap().handshake_as(old.clone(), "localhost");
    assert_eq!(alert(refused), AlertDescription::ProtocolVersion);
    let wire = secured(("IMAP", "Implicit"), address, &new, "localhost").unwrap();
    assert_eq!(wire.tls().protocol_version(), Some(ProtocolVersion::TLSv1_3));

    let (_folder, _mailgress, address) = serve_one("IMAP", &backend, &json!({}));
    let wire = secured(("IMAP", "Implicit"), address, &old, "localhost").unwrap();
    assert_eq!(wire.tls().protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[test]
fn a_foreign_alpn_protocol_is_refused_and_the_right_one_or_none_accepted() {
    let edge = Edge::start(&[CATCH_ALL]);
    for (protocol, mode, address) in &edge.ports {
        let ours = protocol.to_lowercase();
        for foreign in ["http/1.1", "h2", if ours == "imap" { "pop3" } else { "imap" }] {
            let client = TlsClient::new().alpn(&[foreign]).build();
            let refused = secured((protocol, mode), *address, &client, "localhost");
            assert_eq!(alert(refused), AlertDescription::NoApplicationProtocol, "{protocol} {foreign}");
        }
        for (offered, agreed) in [(vec!["h2", &ours], Some(ours.as_bytes())), (vec![], None)] {
            let client = TlsClient::new().alpn(&offered).build();
            let wire = secured((protocol, mode), *address, &client, "localhost").unwrap();
            assert_eq!(wire.tls().alpn_protocol(), agreed, "{protocol} {mode}");
        }
    }
}

#[test]
fn tls_sessions_are_resumed_over_a_swap_of_something_else() {
    for client in [TlsClient::new(), TlsClient::new().tls12()] {
        let client = client.build();
        let backend = Backend::smtp("smtp");
        let (folder, _mailgress, address) = serve_one("SMTP", &backend, &json!({}));
        let kind = || {
            let wire = secured(("SMTP", "Implicit"), address, &client, "localhost").unwrap();
            wire.tls().handshake_kind()
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
        let wanted = listener("only", "SMTP", "Implicit", address.port(), backend.address());
        let renamed = with(wanted, &json!({ "serverName": "renamed.example.test" }));
        folder.replace("server.yaml", &server(&[renamed]));
        wait::eventually("the swap is served", || {
            let greeting = Wire::connect_tls(address).and_then(|mut wire| wire.line()).unwrap();
            greeting.contains("renamed.example.test").then_some(())
        });
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn what_comes_in_one_segment_with_starttls_is_never_executed() {
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let auth = AuthService::routing("secret", move |protocol| {
        addresses[["imap", "pop3", "smtp"].iter().position(|name| *name == protocol).unwrap()]
    });
    let ports = PROTOCOLS.map(|protocol| (protocol, ports::free()));
    let listeners = ports.map(|(protocol, port)| {
        let wanted = listener(&protocol.to_lowercase(), protocol, "StartTLS", port, loopback(1));
        with(wanted, &json!({ "auth": http_auth(&auth.url()) }))
    });
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    let spec = json!({ "tls": { "certificateRefs": [{ "name": "mail-tls" }] }, "listeners": listeners });
    folder.write("server.yaml", &mail_server(&spec));
    let _mailgress = Mailgress::start(&folder);
    let injected = [
        "i LOGIN victim secret\r\n",
        "USER victim\r\nPASS secret\r\n",
        "EHLO attacker.example.test\r\nAUTH PLAIN AHZpY3RpbQBzZWNyZXQ=\r\n",
    ];
    for ((protocol, port), injected) in ports.into_iter().zip(injected) {
        let mut wire = greeted(loopback(port)).unwrap();
        wire.send(format!("{}{injected}", start_tls_command(protocol))).unwrap();
        expect_go_ahead(protocol, &mut wire).unwrap();
        let mut wire = wire.handshake().unwrap();
        // The first reply after the handshake answers the first command after it.
        let answer = log_in(&mut wire, protocol, "user", "secret").unwrap();
        assert!(is_success(protocol, &answer), "{protocol}: {answer}");
        assert!(backend_answers(&mut wire, protocol).unwrap());
    }
    assert!(auth.requests_of("victim").is_empty());
    assert_eq!(auth.requests_of("user").len(), 3);
    assert!(backends.iter().all(|backend| backend.accepted() == 1));
}

#[test]
fn what_was_said_before_starttls_is_forgotten() {
    let edge = Edge::start(&[CATCH_ALL]);
    let (_, _, imap) = edge.ports[1];
    let mut wire = start_tls("IMAP", imap).unwrap().handshake().unwrap();
    assert_eq!(wire.ask("b STARTTLS").unwrap(), "b BAD invalid command");
    let capabilities = wire.imap("c", "CAPABILITY").unwrap();
    assert!(!capabilities[0].contains("STARTTLS") && capabilities[0].contains("AUTH=PLAIN"));
    let (_, _, smtp) = edge.ports[5];
    let mut wire = greeted(smtp).unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    wire.send("STARTTLS\r\n").unwrap();
    expect_go_ahead("SMTP", &mut wire).unwrap();
    let mut wire = wire.handshake().unwrap();
    let offered = wire.smtp("EHLO client.example.test").unwrap();
    assert!(!offered.iter().any(|line| line.ends_with("STARTTLS")), "{offered:?}");
    assert!(edge.folder.path().exists());
}
