//! A PROXY header at the start of every connection: trusted from trusted peers, in any chunks, and passed on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::talk::log_in;
use crate::support::wire::Wire;

const SOON: Duration = Duration::from_secs(20);

/// IMAP listeners with an auth service, in front of a backend that also requires a PROXY header.
struct Edge {
    mailgress: Mailgress,
    auth: AuthService,
    passed_on: Arc<Mutex<Vec<String>>>,
    clear: SocketAddr,
    implicit: SocketAddr,
    _folder: Folder,
    backend: Backend,
}

impl Edge {
    fn start(proxy_protocol: &Value, settings: &Value) -> Self {
        Self::launch(&json!({ "proxyProtocol": proxy_protocol }), settings, &[])
    }

    /// Starts listeners with these fields, and Mailgress with these arguments.
    fn launch(fields: &Value, settings: &Value, arguments: &[&str]) -> Self {
        let passed_on = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&passed_on);
        let backend = Backend::imap_behind_proxy("imap", move |line| memory.lock().unwrap().push(line));
        let to = backend.address();
        let auth = AuthService::routing("secret", move |_| to);
        let [clear, implicit] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free())));
        let listeners =
            [("clear", "Disabled", clear), ("implicit", "Implicit", implicit)].map(|(name, tls, at)| {
                let wanted = listener(name, "IMAP", tls, at.port(), to);
                with(wanted, fields)
            });
        let spec = json!({
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "auth": http_auth(&auth.url()),
            "upstream": { "proxyProtocol": "V1" },
            "listeners": listeners,
        });
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write("server.yaml", &mail_server(&with(spec, settings)));
        let mailgress = Mailgress::start_with(&folder, arguments);
        Self { mailgress, auth, passed_on, clear, implicit, _folder: folder, backend }
    }

    fn trusting() -> Self {
        Self::start(&json!({ "trustedPeers": ["127.0.0.0/8"] }), &json!({}))
    }

    /// Logs in after a header, and checks what the auth service and the backend get.
    fn tells(&self, user: &str, mut wire: Wire, client: &str, passed_on: &str) {
        assert_eq!(log_in(&mut wire, "IMAP", user, "secret").unwrap(), "a OK imap", "{user}");
        assert_eq!(self.auth.requests_of(user)[0].header("Client-IP"), Some(client), "{user}");
        assert_eq!(self.passed_on.lock().unwrap().last().unwrap(), passed_on, "{user}");
    }

    /// Sends a header and reads the greeting.
    fn greeted(&self, header: &[u8]) -> Wire {
        let mut wire = Wire::connect(self.clear).unwrap();
        wire.send(header).unwrap();
        assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
        wire
    }
}

const V1: &str = "PROXY TCP4 192.0.2.7 203.0.113.1 40000 143\r\n";

/// Returns a version 2 header. `ends` has the addresses and ports, and what follows them.
fn v2(command: u8, family: u8, ends: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(ends.len()).unwrap().to_be_bytes());
    header.extend(ends);
    header
}

/// 192.0.2.7:40000 to 203.0.113.1:143.
const ENDS: [u8; 12] = [192, 0, 2, 7, 203, 0, 113, 1, 0x9c, 0x40, 0, 143];

/// [2001:db8::7]:40000 to [2001:db8::1]:143.
fn v6_ends() -> Vec<u8> {
    let address = |last: u8| {
        let mut address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        address[15] = last;
        address
    };
    [&address(7)[..], &address(1), &[0x9c, 0x40, 0, 143]].concat()
}

/// All headers that name a client: the header, the client, and the header that the backend gets.
fn headers() -> Vec<(&'static str, Vec<u8>, &'static str, String)> {
    let v4 = || V1.trim_end().to_owned();
    let v6 = || "PROXY TCP6 2001:db8::7 2001:db8::1 40000 143".to_owned();
    // Two TLVs of type NOOP, with 3 and 2,000 bytes.
    let with_tlvs = [&ENDS[..], &[4, 0, 3, 0, 0, 0], &[4, 0x07, 0xd0], &[0; 2000]].concat();
    vec![
        ("v1-tcp4", V1.into(), "192.0.2.7", v4()),
        ("v1-tcp6", format!("{}\r\n", v6()).into(), "2001:db8::7", v6()),
        ("v2-tcp4", v2(1, 0x11, &ENDS), "192.0.2.7", v4()),
        ("v2-tcp6", v2(1, 0x21, &v6_ends()), "2001:db8::7", v6()),
        ("v2-tlvs", v2(1, 0x11, &with_tlvs), "192.0.2.7", v4()),
    ]
}

#[test]
fn the_address_in_the_header_is_the_clients_for_the_auth_service_and_the_backend() {
    let edge = Edge::trusting();
    for (name, header, client, passed_on) in headers() {
        edge.tells(name, edge.greeted(&header), client, &passed_on);
    }
    edge.mailgress.logs(&["client=192.0.2.7 ", "session done"]);
}

#[test]
fn a_header_may_come_in_single_bytes() {
    let edge = Edge::trusting();
    for (name, header, client, passed_on) in headers() {
        let mut wire = Wire::connect(edge.clear).unwrap();
        for byte in header {
            wire.send([byte]).unwrap();
        }
        assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
        edge.tells(name, wire, client, &passed_on);
    }
}

#[test]
fn a_command_in_the_segment_of_the_header_is_executed() {
    let edge = Edge::trusting();
    for (name, header, client, passed_on) in headers() {
        let mut wire = edge.greeted(&[&header, &b"c NOOP\r\nd NOOP\r\n"[..]].concat());
        assert_eq!(wire.line().unwrap(), "c OK completed", "{name}");
        assert_eq!(wire.line().unwrap(), "d OK completed", "{name}");
        edge.tells(name, wire, client, &passed_on);
    }
}

#[test]
fn a_client_hello_in_the_segment_of_the_header_begins_the_handshake() {
    let edge = Edge::trusting();
    for (name, header, client, passed_on) in headers() {
        let wire = Wire::connect(edge.implicit).unwrap();
        let mut wire = wire.handshake_behind(&header, AUTHORITY.client(), "localhost").unwrap();
        assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
        edge.tells(name, wire, client, &passed_on);
    }
}

#[test]
fn a_version_2_header_with_an_unknown_command_ends_the_connection() {
    let edge = Edge::trusting();
    for command in [2, 15] {
        let mut wire = Wire::connect(edge.clear).unwrap();
        wire.send(v2(command, 0x11, &ENDS)).unwrap();
        assert_eq!(wire.rest(Duration::from_secs(20)), "");
    }
    edge.mailgress.logs(&["outcome=\"proxy_header\"", "a command other than LOCAL and PROXY"]);
}

#[test]
fn a_header_that_names_nobody_leaves_the_peer_as_the_client() {
    let edge = Edge::trusting();
    let headers: [(&str, Vec<u8>); 5] = [
        ("v1-unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v1-unknown-ends", b"PROXY UNKNOWN 192.0.2.7 203.0.113.1 40000 143\r\n".to_vec()),
        ("v2-local", v2(0, 0, &[])),
        ("v2-local-ends", v2(0, 0x11, &ENDS)),
        ("v2-unix", v2(1, 0x31, &[0; 216])),
    ];
    for (name, header) in headers {
        let wire = edge.greeted(&header);
        let (peer, ours) = (wire.local_address(), edge.clear);
        let passed_on = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", peer.port(), ours.port());
        edge.tells(name, wire, "127.0.0.1", &passed_on);
    }
}

#[test]
fn where_the_header_is_not_used_both_ends_of_the_backends_header_are_those_of_the_real_connection() {
    let edge =
        Edge::start(&json!({ "trustedPeers": ["127.0.0.1"], "useAsClientAddress": false }), &json!({}));
    let wire = edge.greeted(V1.as_bytes());
    let port = wire.local_address().port();
    let mut wire = wire;
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
    let request = &edge.auth.requests_of("user")[0];
    assert_eq!(request.header("Client-IP"), Some("127.0.0.1"));
    assert_eq!(request.header("Proxy-Protocol-Addr"), Some("192.0.2.7"));
    assert_eq!(request.header("Proxy-Protocol-Port"), Some("40000"));
    assert_eq!(request.header("Proxy-Protocol-Server-Addr"), Some("203.0.113.1"));
    assert_eq!(request.header("Proxy-Protocol-Server-Port"), Some("143"));
    let told = edge.passed_on.lock().unwrap().last().unwrap().clone();
    assert_eq!(told, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}", edge.clear.port()));
}

#[test]
fn the_header_of_a_peer_that_is_not_trusted_is_reported_where_that_is_wanted_and_never_believed() {
    let rules = json!({ "trustedPeers": ["127.0.0.2"], "untrustedPeers": "Report" });
    let edge = Edge::start(&rules, &json!({}));
    for (name, header, client, _) in headers() {
        let wire = edge.greeted(&header);
        let (peer, ours) = (wire.local_address(), edge.clear);
        let passed_on = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", peer.port(), ours.port());
        edge.tells(name, wire, "127.0.0.1", &passed_on);
        let reported = &edge.auth.requests_of(name)[0];
        assert_eq!(reported.header("Proxy-Protocol-Addr"), Some(client), "{name}");
        assert_eq!(reported.header("Proxy-Protocol-Server-Port"), Some("143"), "{name}");
    }
    edge.mailgress.logs(&["client=127.0.0.1 ", "session done"]);
    let mut trusted = Wire::connect_from(Ipv4Addr::new(127, 0, 0, 2), edge.clear).unwrap();
    trusted.send(V1).unwrap();
    assert_eq!(trusted.line().unwrap(), "* OK IMAP4 ready");
    edge.tells("trusted", trusted, "192.0.2.7", V1.trim_end());
    // Every peer still needs a header.
    let mut wire = Wire::connect(edge.clear).unwrap();
    wire.send("a NOOP\r\n").unwrap();
    assert_eq!(wire.rest(SOON), "");
}

/// A load balancer at 127.0.0.2, and pods that connect directly.
fn accepting(settings: &Value) -> Edge {
    Edge::start(&json!({ "trustedPeers": ["127.0.0.2"], "untrustedPeers": "Accept" }), settings)
}

#[test]
fn a_peer_that_is_not_trusted_is_served_without_a_header_where_that_is_wanted() {
    let edge = accepting(&json!({}));
    let direct = |user: &str, wire: Wire| {
        let (peer, ours) = (wire.local_address(), if user == "clear" { edge.clear } else { edge.implicit });
        let passed_on = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", peer.port(), ours.port());
        edge.tells(user, wire, "127.0.0.1", &passed_on);
    };
    let mut wire = Wire::connect(edge.clear).unwrap();
    assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
    assert_eq!(wire.ask("a NOOP").unwrap(), "a OK completed");
    direct("clear", wire);
    let wire = Wire::connect(edge.implicit).unwrap();
    let mut wire = wire.handshake_as(AUTHORITY.client(), "localhost").unwrap();
    assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
    direct("implicit", wire);
    let mut trusted = Wire::connect_from(Ipv4Addr::new(127, 0, 0, 2), edge.clear).unwrap();
    trusted.send(V1).unwrap();
    assert_eq!(trusted.line().unwrap(), "* OK IMAP4 ready");
    edge.tells("trusted", trusted, "192.0.2.7", V1.trim_end());
}

#[test]
fn a_header_of_a_peer_that_is_served_without_one_ends_the_connection() {
    let edge = accepting(&json!({}));
    for (name, header, ..) in headers() {
        for at in [edge.clear, edge.implicit] {
            let mut wire = Wire::connect(at).unwrap();
            wire.send([&header[..], b"a LOGIN user secret\r\n"].concat()).unwrap();
            let told = wire.rest(SOON);
            assert!(told.is_empty() || told == "* OK IMAP4 ready\r\n", "{name}: {told}");
        }
        let mut wire = Wire::connect(edge.clear).unwrap();
        assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
        for byte in header.iter().take(12) {
            // It may be closed before the last byte.
            let _ = wire.send([*byte]);
        }
        let told = wire.rest(SOON);
        assert!(!told.contains(" OK "), "{name}: {told}");
    }
    edge.mailgress.logs(&["outcome=\"proxy_header\"", "the peer 127.0.0.1 sent a PROXY header"]);
    assert!(edge.auth.requests().is_empty(), "nobody is logged in behind such a header");
    assert_eq!(edge.backend.accepted(), 0);
}

#[test]
fn a_trusted_peers_header_is_mandatory_where_others_are_served_without_one() {
    let edge = accepting(&json!({ "timeouts": { "client": "1s" } }));
    let trusted = Ipv4Addr::new(127, 0, 0, 2);
    for bytes in ["", "a NOOP\r\n"] {
        for at in [edge.clear, edge.implicit] {
            let mut wire = Wire::connect_from(trusted, at).unwrap();
            wire.send(bytes).unwrap();
            assert_eq!(wire.rest(SOON), "", "{bytes:?}");
        }
    }
    let wire = Wire::connect_from(trusted, edge.implicit).unwrap();
    assert!(wire.handshake_as(AUTHORITY.client(), "localhost").is_err(), "TLS without a header");
}

#[test]
fn a_load_balancer_before_all_listeners_is_said_once() {
    let flag = "--proxy-protocol-trusted-peers";
    let public = json!({ "address": "*" });
    let edge = Edge::launch(&public, &json!({}), &[flag, "127.0.0.1,2001:db8::/32"]);
    edge.tells("balanced", edge.greeted(V1.as_bytes()), "192.0.2.7", V1.trim_end());
    // The listener's own setting has precedence.
    let own = json!({ "address": "*", "proxyProtocol": { "trustedPeers": ["127.0.0.2"] } });
    let edge = Edge::launch(&own, &json!({}), &[flag, "127.0.0.1"]);
    assert_eq!(Wire::connect(edge.clear).unwrap().rest(SOON), "");
    // The option does not apply to a listener on a single address.
    let edge = Edge::launch(&json!({}), &json!({}), &[flag, "127.0.0.1"]);
    assert_eq!(Wire::connect(edge.clear).unwrap().line().unwrap(), "* OK IMAP4 ready");
}

#[test]
fn a_peer_that_is_not_trusted_is_closed_without_a_word() {
    let edge = Edge::start(&json!({ "trustedPeers": ["127.0.0.2", "10.0.0.0/8"] }), &json!({}));
    for (name, header, ..) in headers() {
        let mut wire = Wire::connect(edge.clear).unwrap();
        // It may be closed before the header is sent.
        let _ = wire.send(header);
        assert_eq!(wire.rest(SOON), "", "{name}");
    }
    edge.mailgress.logs(&["trustedPeers", "127.0.0.1"]);
    let mut wire = Wire::connect_from(Ipv4Addr::new(127, 0, 0, 2), edge.clear).unwrap();
    wire.send(V1).unwrap();
    assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
    edge.tells("trusted", wire, "192.0.2.7", V1.trim_end());
}

#[test]
fn what_is_no_header_is_closed_without_a_word() {
    let edge = Edge::trusting();
    let garbage: [&[u8]; 12] = [
        b"a LOGIN user secret\r\n",
        b"\0\0\0\0",
        b"PROXY\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 203.0.113.1 40000 143\n",
        b"PROXY TCP4 192.0.2.7 203.0.113.1 40000 70000\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 143\r\n",
        b"PROXY UDP4 192.0.2.7 203.0.113.1 40000 143\r\n",
        &[b'P'; 200],
        &[b"PROXY TCP4 ", &[b'1'; 120][..]].concat(),
        &v2(1, 0x11, &ENDS[..8]),
        &[&v2(1, 0x11, &[])[..14], &[0xff, 0xff]].concat(),
    ];
    for (index, bytes) in garbage.into_iter().enumerate() {
        for at in [edge.clear, edge.implicit] {
            let mut wire = Wire::connect(at).unwrap();
            wire.send(bytes).unwrap();
            assert_eq!(wire.rest(SOON), "", "garbage {index}");
        }
    }
    assert_eq!(edge.auth.requests().len(), 0);
    assert_eq!(edge.backend.accepted(), 0);
    edge.tells("after", edge.greeted(V1.as_bytes()), "192.0.2.7", V1.trim_end());
}

#[test]
fn a_header_that_does_not_come_ends_the_session_in_time() {
    let edge =
        Edge::start(&json!({ "trustedPeers": ["127.0.0.1"] }), &json!({ "timeouts": { "client": "1s" } }));
    for beginning in ["", "P", "PROXY TCP4 192.0.2.7 ", "\r\n\r\n\0\r\nQUIT\n"] {
        let mut wire = Wire::connect(edge.clear).unwrap();
        wire.send(beginning).unwrap();
        assert_eq!(wire.rest(SOON), "", "{beginning:?}");
    }
}

#[test]
fn limits_count_the_client_of_the_header() {
    let edge = Edge::start(
        &json!({ "trustedPeers": ["127.0.0.1"] }),
        &json!({ "limits": { "maxConnectionsPerClient": 1 } }),
    );
    let _first = edge.greeted(V1.as_bytes());
    let mut second = Wire::connect(edge.clear).unwrap();
    second.send(V1).unwrap();
    assert_eq!(second.rest(SOON), "* BYE Too many connections, try again later\r\n");
    let _other = edge.greeted(b"PROXY TCP4 192.0.2.8 203.0.113.1 40000 143\r\n");
}
