//! New connections: they count from the accept, before a PROXY header and before the server name of a shared port, and
//! use little memory.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::talk::{greeted, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// IMAP listeners with these fields on one port.
struct Edge {
    mailgress: Mailgress,
    address: SocketAddr,
    _folder: Folder,
    _backend: Backend,
}

impl Edge {
    fn start(tls: &str, limits: &Value, listeners: &[Value]) -> Self {
        let backend = Backend::imap("imap");
        let port = ports::free();
        let wanted: Vec<Value> = listeners
            .iter()
            .enumerate()
            .map(|(index, fields)| {
                let base = listener(&format!("imap-{index}"), "IMAP", tls, port, backend.address());
                with(base, fields)
            })
            .collect();
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue(&["localhost", "other.test"])));
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
                "auth": passthrough(),
                "limits": limits,
                "listeners": wanted,
            })),
        );
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, address: (Ipv4Addr::LOCALHOST, port).into(), _folder: folder, _backend: backend }
    }

    /// Two listeners that differ only in their host names.
    fn shared(tls: &str, limits: &Value) -> Self {
        Self::start(tls, limits, &["localhost", "other.test"].map(|name| json!({ "hostnames": [name] })))
    }

    fn silent(&self) -> Vec<TcpStream> {
        (0..CLIENTS).map(|_| TcpStream::connect(self.address).unwrap()).collect()
    }
}

/// Counts the connections that are open and have received nothing.
fn held(connections: &[TcpStream]) -> usize {
    let is_held = |connection: &&TcpStream| {
        connection.set_nonblocking(true).unwrap();
        connection.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    connections.iter().filter(is_held).count()
}

fn are_held(connections: &[TcpStream], expected: usize) {
    wait::eventually(&format!("{expected} silent connections are held"), || {
        (held(connections) == expected).then_some(())
    });
}

fn is_served(edge: &Edge, name: &str, source: Ipv4Addr) -> bool {
    let handshake = |wire: Wire| wire.handshake_as(AUTHORITY.client(), name);
    let Ok(mut wire) = Wire::connect_from(source, edge.address).and_then(handshake) else { return false };
    wire.line().is_ok_and(|line| line.starts_with("* OK"))
        && log_in(&mut wire, "IMAP", "user", "secret").is_ok_and(|answer| answer == "a OK imap")
}

const CLIENTS: usize = 100;
const LIMIT: usize = 5;
const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SOON: Duration = Duration::from_secs(20);

#[test]
fn silent_connections_count_on_a_port_that_host_names_share() {
    let edge = Edge::shared("Implicit", &json!({ "maxConnections": LIMIT }));
    let silent = edge.silent();
    are_held(&silent, LIMIT);
    drop(silent);
    for name in ["localhost", "other.test"] {
        wait::eventually("there is room again", || is_served(&edge, name, ANOTHER).then_some(()));
    }
}

#[test]
fn silent_connections_of_one_client_leave_room_for_others_on_a_shared_port() {
    let edge = Edge::shared("Implicit", &json!({ "maxConnectionsPerClient": LIMIT }));
    let silent = edge.silent();
    are_held(&silent, LIMIT);
    for name in ["localhost", "other.test"] {
        assert!(is_served(&edge, name, ANOTHER));
    }
}

#[test]
fn connections_that_are_refused_leave_room_for_others_while_they_linger() {
    let edge = Edge::start(
        "Disabled",
        &json!({ "maxConnections": 4 * LIMIT, "maxConnectionsPerClient": LIMIT }),
        &[json!({})],
    );
    let _silent = edge.silent();
    for _ in 0..3 {
        let mut refused = Wire::connect(edge.address).unwrap();
        assert!(refused.line().unwrap().starts_with("* BYE"), "a client over its limit is told so");
        let mut other = Wire::connect_from(ANOTHER, edge.address).unwrap();
        assert!(other.line().unwrap().starts_with("* OK"), "another client is served meanwhile");
    }
}

#[test]
fn a_flood_of_refused_connections_takes_few_descriptors_while_they_linger() {
    let edge = Edge::start("Disabled", &json!({ "maxConnectionsPerClient": 1 }), &[json!({})]);
    let _served = greeted(edge.address).unwrap();
    let before = edge.mailgress.descriptors();
    let refused: Vec<Wire> = (0..FLOOD)
        .map(|_| {
            let mut wire = Wire::connect(edge.address).unwrap();
            assert!(wire.line().unwrap().starts_with("* BYE Too many connections"), "everybody is told");
            wire
        })
        .collect();
    // Lingering connections last two seconds. If the machine was stopped for a while, none may remain.
    let lingering = edge.mailgress.descriptors().saturating_sub(before);
    assert!(lingering < MAX_LINGERING + 16, "{lingering} of {FLOOD} take a descriptor");
    drop(refused);
    let mut other = Wire::connect_from(ANOTHER, edge.address).unwrap();
    assert!(other.line().unwrap().starts_with("* OK"), "another client is served");
}

/// Refused connections at once.
const FLOOD: usize = 700;
/// How many of them may linger; the limit of each process.
const MAX_LINGERING: usize = 256;

#[test]
fn a_shared_port_has_the_widest_limit_of_its_listeners_until_the_name_is_known() {
    let listeners = [("localhost", LIMIT), ("other.test", 1)]
        .map(|(name, most)| json!({ "hostnames": [name], "limits": { "maxConnections": most } }));
    let edge = Edge::start("Implicit", &json!({}), &listeners);
    are_held(&edge.silent(), LIMIT);
    let _first = wait::eventually("there is room again", || {
        let wire = Wire::connect(edge.address).ok()?;
        let mut wire = wire.handshake_as(AUTHORITY.client(), "other.test").ok()?;
        wire.line().is_ok_and(|line| line.starts_with("* OK")).then_some(wire)
    });
    let second = Wire::connect(edge.address).unwrap().handshake_as(AUTHORITY.client(), "other.test").unwrap();
    assert_eq!(second.rest(SOON).trim_end(), "* BYE Too many connections, try again later");
}

#[test]
fn silent_connections_count_before_their_proxy_header() {
    for tls in ["Disabled", "Implicit"] {
        let proxy = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.0/8"] } });
        let edge = Edge::start(tls, &json!({ "maxConnections": LIMIT }), &[proxy]);
        are_held(&edge.silent(), LIMIT);
    }
    let proxy = |name| json!({ "hostnames": [name], "proxyProtocol": { "trustedPeers": ["127.0.0.0/8"] } });
    let both = ["localhost", "other.test"].map(proxy);
    let edge = Edge::start("Implicit", &json!({ "maxConnections": LIMIT }), &both);
    are_held(&edge.silent(), LIMIT);
}

#[test]
fn a_peer_whose_header_is_not_believed_has_a_clients_limit_before_it_comes() {
    for proxy in [
        json!({ "trustedPeers": ["192.0.2.0/24"], "untrustedPeers": "Report" }),
        json!({ "trustedPeers": ["127.0.0.0/8"], "useAsClientAddress": false }),
    ] {
        let edge = Edge::start(
            "Disabled",
            &json!({ "maxConnectionsPerClient": LIMIT }),
            &[json!({ "proxyProtocol": proxy })],
        );
        are_held(&edge.silent(), LIMIT);
    }
}

#[test]
fn a_load_balancers_connections_before_their_headers_are_not_one_clients() {
    let proxy = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.0/8"] } });
    let edge = Edge::start("Disabled", &json!({ "maxConnectionsPerClient": 1 }), &[proxy]);
    let waiting: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(edge.address).unwrap()).collect();
    for (index, mut wire) in waiting.into_iter().enumerate() {
        wire.send(format!("PROXY TCP4 192.0.2.{index} 203.0.113.1 40000 143\r\n")).unwrap();
        assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
    }
}

#[test]
fn a_peer_has_a_bounded_number_of_connections_before_their_headers() {
    let proxy = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.0/8"] } });
    let edge = Edge::start("Disabled", &json!({}), &[proxy]);
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(edge.address).unwrap()).collect();
    are_held(&silent, 256);
    let mut other = Wire::connect_from(ANOTHER, edge.address).unwrap();
    other.send("PROXY TCP4 192.0.2.7 203.0.113.1 40000 143\r\n").unwrap();
    assert_eq!(other.line().unwrap(), "* OK IMAP4 ready");
    edge.mailgress.logs(&["outcome=\"limited\"", "PROXY header"]);
}

/// The start of a ClientHello of 60,000 bytes, in records.
fn hello(bytes: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0xea, 0x60, 3, 3];
    message.resize(bytes, 0);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    };
    message.chunks(4000).flat_map(record).collect()
}

#[test]
fn a_client_hello_that_is_too_long_ends_the_connection() {
    let edge = Edge::start("Implicit", &json!({}), &[json!({})]);
    let mut wire = Wire::connect(edge.address).unwrap();
    // A disconnect before the end is expected.
    let _ = wire.send(hello(50_000));
    assert_eq!(wire.rest(SOON), "");
    edge.mailgress.logs(&["outcome=\"tls_handshake\"", "too long"]);

    let edge = Edge::start("StartTLS", &json!({}), &[json!({})]);
    let mut wire = greeted(edge.address).unwrap();
    assert_eq!(wire.ask("a STARTTLS").unwrap(), "a OK completed");
    let _ = wire.send(hello(50_000));
    assert_eq!(wire.rest(SOON), "");
    edge.mailgress.logs(&["outcome=\"tls_handshake\"", "too long"]);
}

#[test]
fn half_a_client_hello_takes_little_memory_and_gives_it_back() {
    let edge = Edge::start("Implicit", &json!({}), &[json!({})]);
    let open = |count: usize, bytes: &[u8]| -> Vec<TcpStream> {
        let connect = |_| {
            let mut stream = TcpStream::connect(edge.address).unwrap();
            // Connections that send too much are closed.
            let _ = stream.write_all(bytes);
            stream
        };
        (0..count).map(connect).collect()
    };
    let (allowed, too_long) = (hello(12_000), hello(50_000));
    // Memory that the first connections allocate is kept.
    are_held(&open(10, &allowed), 10);
    let before = edge.mailgress.resident_bytes();
    let mut connections = open(500, &allowed);
    connections.extend(open(500, &too_long));
    are_held(&connections, 500);
    let grown = edge.mailgress.resident_bytes().saturating_sub(before);
    // Without a limit, each would use 80 KiB.
    assert!(grown < 500 * 48 * 1024, "500 half-open handshakes take {grown} bytes");
    drop(connections);
    wait::within(Duration::from_secs(60), "the memory is given back", || {
        let left = edge.mailgress.resident_bytes().saturating_sub(before);
        (left < grown / 3).then_some(())
    });
}
