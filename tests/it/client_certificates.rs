//! Client certificates: requested in the handshake, and refused afterwards with the protocol's error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{
    Folder, ca_config_map, http_auth, listener, mail_server, passthrough, tls_secret, with,
};
use crate::support::pki::{AUTHORITY, Authority};
use crate::support::talk::{PROTOCOLS, is_success, log_in};
use crate::support::tls_client::{TlsClient, start_tls};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const TLS_MODES: [&str; 2] = ["Implicit", "StartTLS"];

/// For each mode: the result for a client without a certificate, with a trusted one, and with an untrusted one.
const POLICIES: [(&str, [Outcome; 3]); 4] = [
    ("Disabled", [Outcome::Served("NONE"), Outcome::Served("NONE"), Outcome::Served("NONE")]),
    ("Optional", [Outcome::Served("NONE"), Outcome::Served("SUCCESS"), Outcome::Told(INVALID)]),
    ("Required", [Outcome::Told(MISSING), Outcome::Served("SUCCESS"), Outcome::Told(INVALID)]),
    ("OptionalNoCA", [Outcome::Served("NONE"), Outcome::Served("SUCCESS"), Outcome::Served("FAILED:")]),
];

const MISSING: &str = "No required SSL certificate";
const INVALID: &str = "SSL certificate error";

#[derive(Clone, Copy)]
enum Outcome {
    /// The login is accepted. Has the start of `Auth-SSL-Verify`.
    Served(&'static str),
    /// The client gets this line and is disconnected.
    Told(&'static str),
}

/// The protocol's line for a refusal.
fn line(protocol: &str, text: &str) -> String {
    match protocol {
        "IMAP" => format!("* BYE {text}"),
        "POP3" => format!("-ERR {text}"),
        _ => format!("421 4.7.1 {text}"),
    }
}

struct Port {
    protocol: &'static str,
    tls: &'static str,
    outcomes: [Outcome; 3],
    verified: bool,
    address: SocketAddr,
}

fn ports_and_listeners() -> (Vec<Port>, Vec<Value>) {
    let (mut ports, mut listeners) = (Vec::new(), Vec::new());
    for (mode, outcomes) in POLICIES {
        for (protocol, tls) in PROTOCOLS.iter().flat_map(|protocol| TLS_MODES.map(|tls| (*protocol, tls))) {
            let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
            let name = format!("{protocol}-{tls}-{mode}").to_lowercase();
            let wanted = listener(&name, protocol, tls, address.port(), address);
            let client_auth = json!({
                "mode": mode, "caCertificateRefs": [{ "kind": "ConfigMap", "name": "client-ca" }],
            });
            listeners.push(with(wanted, &json!({ "tls": { "clientAuth": client_auth } })));
            ports.push(Port { protocol, tls, outcomes, verified: mode != "Disabled", address });
        }
    }
    (ports, listeners)
}

/// Returns the first line after the handshake, or the answer to a successful login.
fn talk(port: &Port, client: &Arc<ClientConfig>, user: &str) -> (String, Wire) {
    let client = Arc::clone(client);
    if port.tls == "Implicit" {
        let mut wire = Wire::connect(port.address).unwrap().handshake_as(client, "localhost").unwrap();
        let greeting = wire.line().unwrap();
        if !greeting.contains("SSL certificate") {
            let answer = log_in(&mut wire, port.protocol, user, "secret").unwrap();
            return (answer, wire);
        }
        return (greeting, wire);
    }
    let wire = start_tls(port.protocol, port.address).unwrap();
    let mut wire = wire.handshake_as(client, "localhost").unwrap();
    // A refused session gets its error before the client sends anything.
    let first = match port.protocol {
        "SMTP" => wire.smtp("EHLO client.example.test").map(|mut lines| lines.remove(0)),
        "IMAP" => wire.ask("n NOOP"),
        _ => wire.ask("NOOP"),
    };
    let first = first.unwrap();
    if first.contains("SSL certificate") {
        return (first, wire);
    }
    let answer = log_in(&mut wire, port.protocol, user, "secret").unwrap();
    (answer, wire)
}

#[test]
fn certificates_are_refused_in_the_protocols_words_and_told_to_the_auth_service() {
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let auth = AuthService::routing("secret", move |protocol| {
        addresses[["imap", "pop3", "smtp"].iter().position(|name| *name == protocol).unwrap()]
    });
    let (ports, listeners) = ports_and_listeners();
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    folder.write("ca.yaml", &ca_config_map("client-ca", &AUTHORITY.pem()));
    folder.write(
        "server.yaml",
        &mail_server(&json!({
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "auth": with(http_auth(&auth.url()), &json!({ "http": { "passClientCertificate": true } })),
            "listeners": listeners,
        })),
    );
    let _mailgress = Mailgress::start(&folder);
    let clients = [
        TlsClient::new().build(),
        TlsClient::new().certificate(&AUTHORITY.issue(&["client.example.test"])).build(),
        TlsClient::new().certificate(&Authority::new("Other CA").issue(&["client.example.test"])).build(),
    ];
    for (number, port) in ports.iter().enumerate() {
        for (index, (client, outcome)) in clients.iter().zip(port.outcomes).enumerate() {
            let user = format!("user{number}-{index}");
            let (said, wire) = talk(port, client, &user);
            let what = format!("{} {} {user}: {said}", port.protocol, port.tls);
            match outcome {
                Outcome::Served(verify) => {
                    assert!(is_success(port.protocol, &said), "{what}");
                    let requests = auth.requests_of(&user);
                    let told = requests[0].header("Auth-SSL-Verify");
                    assert_eq!(told.is_some(), port.verified, "{what}: {told:?}");
                    assert!(told.is_none_or(|told| told.starts_with(verify)), "{what}: {told:?}");
                }
                Outcome::Told(text) => {
                    assert_eq!(said, line(port.protocol, text), "{what}");
                    assert_eq!(wire.rest(Duration::from_secs(10)), "", "{what}");
                    assert!(auth.requests_of(&user).is_empty(), "{what}");
                }
            }
        }
    }
}

/// Parses `PP2_TYPE_SSL` in a version 2 header for an IPv4 client. Returns its bits, whether the certificate is
/// verified, and its TLVs.
fn ssl(header: &[u8]) -> (u8, bool, BTreeMap<u8, String>) {
    let tlvs = |mut bytes: &[u8]| {
        let mut found = BTreeMap::new();
        while let [kind, high, low, rest @ ..] = bytes {
            let (value, more) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            found.insert(*kind, value.to_vec());
            bytes = more;
        }
        found
    };
    let outer = tlvs(&header[16 + 12..]);
    let ssl = &outer[&0x20];
    let inner = tlvs(&ssl[5..]);
    let text = |(kind, value): (u8, Vec<u8>)| (kind, String::from_utf8(value).unwrap());
    (ssl[0], ssl[1..5] == [0; 4], inner.into_iter().map(text).collect())
}

#[test]
fn a_backend_sees_the_certificate_in_its_proxy_header() {
    let headers = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&headers);
    let backend = Backend::imap_behind_proxy_v2("imap", move |header| memory.lock().unwrap().push(header));
    let port = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let wanted = listener("imap", "IMAP", "Implicit", port.port(), backend.address());
    let client_auth = json!({
        "mode": "OptionalNoCA", "caCertificateRefs": [{ "kind": "ConfigMap", "name": "client-ca" }],
    });
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    folder.write("ca.yaml", &ca_config_map("client-ca", &AUTHORITY.pem()));
    folder.write(
        "server.yaml",
        &mail_server(&json!({
            "tls": { "certificateRefs": [{ "name": "mail-tls" }], "clientAuth": client_auth },
            "auth": passthrough(),
            "upstream": { "proxyProtocol": "V2" },
            "listeners": [wanted],
        })),
    );
    let _mailgress = Mailgress::start(&folder);
    let trusted = TlsClient::new().certificate(&AUTHORITY.issue(&["client.example.test"])).build();
    let foreign = Authority::new("Other CA").issue(&["client.example.test"]);
    let foreign = TlsClient::new().certificate(&foreign).build();
    let name = Some("client.example.test");
    for (client, resumed, bits, verified, common_name) in [
        (&TlsClient::new().build(), false, 0x01, false, None),
        (&trusted, false, 0x07, true, name),
        (&trusted, true, 0x05, true, name),
        (&foreign, false, 0x07, false, None),
    ] {
        let mut wire = Wire::connect(port).unwrap().handshake_as(Arc::clone(client), "localhost").unwrap();
        wire.line().unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
        assert_eq!(wire.tls().handshake_kind() == Some(HandshakeKind::Resumed), resumed);
        let told = ssl(&headers.lock().unwrap().pop().unwrap());
        assert_eq!((told.0, told.1, told.2.get(&0x22).map(String::as_str)), (bits, verified, common_name));
        let shown = (told.2[&0x24].as_str(), told.2[&0x25].as_str());
        assert_eq!(shown, ("ecdsa-with-SHA256", "EC256"), "of the listener's certificate");
        assert_eq!(told.2[&0x21], "TLSv1.3");
    }
}

/// Returns a `clientAuth` with these references and the fields of `extra`.
fn client_auth(mode: &str, crls: &[&str], extra: &Value) -> Value {
    let references = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "kind": "ConfigMap", "name": name })).collect()
    };
    let settings = json!({
        "mode": mode, "caCertificateRefs": references(&["client-ca"]), "crlRefs": references(crls),
    });
    json!({ "tls": { "clientAuth": with(settings, extra) } })
}

/// One listener for each `clientAuth`, on separate ports, with a backend that accepts every login.
struct Edge {
    folder: Folder,
    _mailgress: Mailgress,
    auth: AuthService,
    addresses: Vec<SocketAddr>,
    _backend: Backend,
}

impl Edge {
    fn start(authority: &Authority, crl: &str, client_auths: &[Value]) -> Self {
        let backend = Backend::imap("imap");
        let to = backend.address();
        let auth = AuthService::routing("secret", move |_| to);
        let mut addresses = Vec::new();
        let listeners: Vec<Value> = client_auths
            .iter()
            .enumerate()
            .map(|(index, client_auth)| {
                let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
                addresses.push(address);
                with(listener(&format!("imap{index}"), "IMAP", "Implicit", address.port(), to), client_auth)
            })
            .collect();
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write("ca.yaml", &ca_config_map("client-ca", &authority.pem()));
        folder.write("crl.yaml", &crl_config_map(crl));
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
                "auth": http_auth(&auth.url()),
                "listeners": listeners,
            })),
        );
        let mailgress = Mailgress::start(&folder);
        Self { folder, _mailgress: mailgress, auth, addresses, _backend: backend }
    }

    /// Returns the listener's first line, and what the auth service is told if this is a greeting.
    fn tells(&self, index: usize, client: &Arc<ClientConfig>) -> Result<String, String> {
        let wire = Wire::connect(self.addresses[index]).unwrap();
        let mut wire = wire.handshake_as(Arc::clone(client), "localhost").unwrap();
        let greeting = wire.line().unwrap();
        if greeting != "* OK IMAP4 ready" {
            assert_eq!(wire.rest(Duration::from_secs(10)), "");
            return Err(greeting);
        }
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
        let requests = self.auth.requests();
        Ok(requests.last().unwrap().header("Auth-SSL-Verify").unwrap().to_owned())
    }
}

fn crl_config_map(pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "revoked", "namespace": "mail" },
        "data": { "ca.crl": pem },
    })
}

#[test]
fn revoked_expired_and_far_certificates_are_refused_whoever_else_is_tolerated() {
    let root = Authority::new("Device CA");
    let (team, desk) = (root.below("Team CA"), root.below("Team CA").below("Desk CA"));
    let identities = [
        root.issue(&["good.example.test"]),
        root.issue(&["revoked.example.test"]),
        root.issue_until(&["expired.example.test"], 2024),
        team.issue(&["team.example.test"]),
        desk.issue(&["desk.example.test"]),
        Authority::new("Other CA").issue(&["foreign.example.test"]),
    ];
    let crl = root.revocation_list(&[&identities[1]]);
    let edge = Edge::start(
        &root,
        &crl,
        &[
            client_auth("Required", &["revoked"], &json!({})),
            client_auth("OptionalNoCA", &["revoked"], &json!({})),
            client_auth("Required", &[], &json!({ "depth": 0 })),
            client_auth("Required", &[], &json!({})),
            client_auth("OptionalNoCA", &[], &json!({})),
            client_auth("Required", &[], &json!({ "depth": 2 })),
        ],
    );
    let refused = || Err(line("IMAP", INVALID));
    let untrusted = || Ok("FAILED:unable to get local issuer certificate".to_owned());
    let good = || Ok("SUCCESS".to_owned());
    // If lists are configured, every certificate of a chain needs one.
    let expected = [
        [good(), refused(), refused(), refused(), refused(), refused()],
        [good(), refused(), refused(), refused(), refused(), untrusted()],
        [good(), good(), refused(), refused(), refused(), refused()],
        [good(), good(), refused(), good(), refused(), refused()],
        [good(), good(), refused(), good(), refused(), untrusted()],
        [good(), good(), refused(), good(), good(), refused()],
    ];
    for (index, expected) in expected.into_iter().enumerate() {
        for (identity, expected) in identities.iter().zip(expected) {
            let client = TlsClient::new().certificate(identity).build();
            assert_eq!(edge.tells(index, &client), expected, "listener {index}, {:#x}", identity.serial);
        }
    }
}

#[test]
fn a_certificate_that_is_revoked_while_we_run_is_refused_and_no_ticket_helps() {
    let root = Authority::new("Device CA");
    let identity = root.issue(&["device.example.test"]);
    let wanted = client_auth("Optional", &["revoked"], &json!({}));
    let edge = Edge::start(&root, &root.revocation_list(&[]), &[wanted]);
    let client = TlsClient::new().certificate(&identity).build();
    assert_eq!(edge.tells(0, &client), Ok("SUCCESS".to_owned()));
    edge.folder.replace("crl.yaml", &crl_config_map(&root.revocation_list(&[&identity])));
    wait::eventually("the new list is in force", || {
        let newcomer = TlsClient::new().certificate(&identity).build();
        edge.tells(0, &newcomer).is_err().then_some(())
    });
    let wire = Wire::connect(edge.addresses[0]).unwrap();
    let mut wire = wire.handshake_as(client, "localhost").unwrap();
    // Tickets that were issued before the change of trust are not accepted.
    assert_eq!(wire.tls().handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(wire.line().unwrap(), line("IMAP", INVALID));
    assert_eq!(edge.tells(0, &TlsClient::new().build()), Ok("NONE".to_owned()));
}
