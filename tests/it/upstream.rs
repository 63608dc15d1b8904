//! The connection to the backend: PROXY headers, TLS, several endpoints.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, ca_config_map, listener, mail_server, passthrough, with};
use crate::support::name_server::{NameServer, Reply};
use crate::support::pki::{AUTHORITY, Authority};
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{greeted, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

fn serve(folder: &Folder, listeners: &[Value]) -> Mailgress {
    let spec = json!({ "serverName": "mail.example.test", "auth": passthrough(), "listeners": listeners });
    folder.write("ca.yaml", &ca_config_map("backend-ca", &AUTHORITY.pem()));
    folder.write("other-ca.yaml", &ca_config_map("other-ca", &Authority::new("Other CA").pem()));
    folder.write("server.yaml", &mail_server(&spec));
    Mailgress::start(folder)
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Listeners that differ only in `upstream`, one for each protocol and backend.
fn listeners(backends: &[(&'static str, SocketAddr)], upstream: &Value) -> (Vec<Value>, Vec<Endpoint>) {
    let each = backends.iter().map(|(protocol, backend)| {
        let port = ports::free();
        let base =
            listener(&format!("{}-{port}", protocol.to_lowercase()), protocol, "Disabled", port, *backend);
        let endpoint = Endpoint { protocol, tls: "Disabled", address: loopback(port) };
        (with(base, &json!({ "upstream": upstream })), endpoint)
    });
    each.unzip()
}

fn upstream_tls(mode: &str, ca: &str, server_name: &str) -> Value {
    json!({ "tls": {
        "mode": mode,
        "caCertificateRefs": [{ "kind": "ConfigMap", "name": ca }],
        "serverName": server_name,
    } })
}

#[test]
fn backends_see_the_clients_address_in_a_proxy_header_of_either_version() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let backends = [
        ("IMAP", dovecot.imap_proxied()),
        ("POP3", dovecot.pop3_proxied()),
        ("SMTP", postfix.submission_proxied()),
    ];
    let upstream = |version: &str| json!({ "proxyProtocol": version, "xclient": false });
    let (mut wanted, mut endpoints) = listeners(&backends, &upstream("V1"));
    let (second, more) = listeners(&backends, &upstream("V2"));
    wanted.extend(second);
    endpoints.extend(more);
    let folder = Folder::new();
    let _mailgress = serve(&folder, &wanted);
    let clients = Clients::new();
    for endpoint in &endpoints {
        // Acts as another host: all of 127.0.0.0/8 is local.
        let user = new_user("proxied");
        let source = "127.0.0.7";
        clients.python("proxied.py", endpoint, &[&user, PASSWORD, source]).succeeded();
        let (log, expected) = if endpoint.protocol == "SMTP" {
            (postfix.logs(&user), format!("client=unknown[{source}]"))
        } else {
            (dovecot.logs(&user), format!("rip={source}"))
        };
        assert!(log.iter().any(|line| line.contains(&expected)), "{expected} is not in {log:#?}");
    }
}

#[test]
fn a_backend_hears_who_the_client_is_and_what_it_says_of_itself_where_that_is_wanted() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&heard);
    let backend = Backend::imap_heard("imap", move |line| memory.lock().unwrap().push(line.to_owned()));
    let (mut wanted, mut endpoints) = (Vec::new(), Vec::new());
    for imap_id in [true, false] {
        let (more, at) = listeners(&[("IMAP", backend.address())], &json!({ "imapId": imap_id }));
        wanted.extend(more);
        endpoints.extend(at);
    }
    let folder = Folder::new();
    let _mailgress = serve(&folder, &wanted);
    let log_in = |endpoint: &Endpoint| {
        let mut wire = greeted(endpoint.address).unwrap();
        let spoofed = r#"ID ("name" "A \"Client\"" "X-Originating-IP" "198.51.100.1" "os" NIL)"#;
        assert_eq!(wire.imap("i", spoofed).unwrap(), ["* ID NIL", "i OK completed"]);
        assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
        let (client, ours) = (wire.local_address(), endpoint.address);
        let told = std::mem::take(&mut *heard.lock().unwrap());
        let own = r#""name" "A \"Client\"" "os" NIL"#;
        let address = format!(
            "\"x-originating-ip\" \"127.0.0.1\" \"x-originating-port\" \"{}\" \
             \"x-connected-ip\" \"127.0.0.1\" \"x-connected-port\" \"{}\"",
            client.port(),
            ours.port()
        );
        (told, format!("mailgress ID ({address} {own})"))
    };
    let (told, expected) = log_in(&endpoints[0]);
    assert_eq!(told, [expected, "a LOGIN {4}".to_owned()]);
    let (told, _) = log_in(&endpoints[1]);
    assert_eq!(told, ["a LOGIN {4}"]);
}

#[test]
fn backends_are_reached_with_verified_tls() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let folder = Folder::new();
    let (mut wanted, mut endpoints) = (Vec::new(), Vec::new());
    for (mode, backends) in [
        ("StartTLS", [("IMAP", dovecot.imap()), ("POP3", dovecot.pop3()), ("SMTP", postfix.submission())]),
        ("Implicit", [("IMAP", dovecot.imaps()), ("POP3", dovecot.pop3s()), ("SMTP", postfix.submissions())]),
    ] {
        for backend in backends {
            let name = if backend.0 == "SMTP" { "postfix.example.test" } else { "dovecot.example.test" };
            let (more, at) = listeners(&[backend], &upstream_tls(mode, "backend-ca", name));
            wanted.extend(more);
            endpoints.extend(at);
        }
    }
    let _mailgress = serve(&folder, &wanted);
    let clients = Clients::new();
    for endpoint in &endpoints {
        let user = new_user("secured");
        clients.python_login(endpoint, "login", &user, PASSWORD).succeeded();
        if endpoint.protocol != "SMTP" {
            let log = dovecot.logs(&user);
            assert!(log.iter().any(|line| line.contains(", TLS")), "no TLS in {log:#?}");
        }
    }
}

#[test]
fn a_backend_that_cannot_prove_its_name_gets_no_password() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let backends = [("IMAP", dovecot.imap()), ("POP3", dovecot.pop3()), ("SMTP", postfix.submission())];
    let tls_backends =
        [("IMAP", dovecot.imaps()), ("POP3", dovecot.pop3s()), ("SMTP", postfix.submissions())];
    let folder = Folder::new();
    let (mut wanted, mut endpoints) = (Vec::new(), Vec::new());
    for (ca, name) in [("other-ca", "dovecot.example.test"), ("backend-ca", "wrong.example.test")] {
        for (mode, backends) in [("StartTLS", &backends), ("Implicit", &tls_backends)] {
            let (more, at) = listeners(backends, &upstream_tls(mode, ca, name));
            wanted.extend(more);
            endpoints.extend(at);
        }
    }
    let mailgress = serve(&folder, &wanted);
    let clients = Clients::new();
    for endpoint in &endpoints {
        let user = new_user("unproven");
        clients.python_login(endpoint, "login", &user, PASSWORD).failed();
        let seen = dovecot.log_of(&user);
        assert!(seen.is_empty(), "{seen:#?}");
    }
    mailgress.logs(&["certificate"]);
}

#[test]
fn a_backend_that_does_not_offer_starttls_gets_no_password() {
    let (imap, pop3, smtp) = (Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp"));
    let backends = [("IMAP", imap.address()), ("POP3", pop3.address()), ("SMTP", smtp.address())];
    let folder = Folder::new();
    let (wanted, endpoints) =
        listeners(&backends, &upstream_tls("StartTLS", "backend-ca", "dovecot.example.test"));
    let _mailgress = serve(&folder, &wanted);
    let clients = Clients::new();
    for endpoint in &endpoints {
        clients.python_login(endpoint, "login", "user", PASSWORD).failed();
    }
}

/// A Service of IMAP backends with an EndpointSlice.
fn service(endpoints: &[SocketAddr]) -> [Value; 2] {
    let slices = endpoints
        .iter()
        .map(|address| json!({ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }));
    // All endpoints of a slice have the same port, so the backends differ by address.
    let port = endpoints[0].port();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "imap-1", "namespace": "mail", "labels": { "kubernetes.io/service-name": "imap" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": port, "protocol": "TCP" }],
        "endpoints": slices.collect::<Vec<Value>>(),
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "imap", "namespace": "mail" },
        "spec": { "ports": [{ "name": "imap", "port": 143, "targetPort": port, "protocol": "TCP" }] },
    });
    [service, slice]
}

#[test]
fn the_next_endpoint_of_a_service_is_tried_when_a_connect_fails() {
    let alive = Backend::imap("alive");
    let nobody: SocketAddr = format!("127.0.0.9:{}", alive.address().port()).parse().unwrap();
    let port = ports::free();
    let folder = Folder::new();
    let [service, slice] = service(&[alive.address(), nobody]);
    folder.write("service.yaml", &service).write("slice.yaml", &slice);
    let mut to_service = listener("imap", "IMAP", "Disabled", port, nobody);
    to_service.as_object_mut().unwrap().remove("backendAddress");
    let to_service = with(to_service, &json!({ "backendRef": { "name": "imap", "port": 143 } }));
    let _mailgress = serve(&folder, &[to_service]);
    for _ in 0..10 {
        let mut wire = Wire::connect(loopback(port)).unwrap();
        wire.line().unwrap();
        assert_eq!(wire.ask("a LOGIN user secret").unwrap(), "a OK alive");
    }
    wait::eventually("the sessions end with their clients", || (alive.open() == 0).then_some(()));
}

/// A listener whose backend is this name.
fn to_name(port: u16, host: &str, to: u16, names: &NameServer, upstream: &Value) -> Value {
    let fields = json!({
        "backendAddress": format!("{host}:{to}"),
        "resolver": { "nameservers": [names.address().to_string()], "ipv6": false },
        "upstream": upstream,
    });
    with(listener("imap", "IMAP", "Disabled", port, loopback(to)), &fields)
}

#[test]
fn a_configured_name_that_does_not_exist_is_the_fault_of_the_configuration() {
    let names = NameServer::start(|_, _| Reply::Code(ResponseCode::NXDomain));
    let (folder, port) = (Folder::new(), ports::free());
    let mailgress = serve(&folder, &[to_name(port, "gone.example.test", 143, &names, &json!({}))]);
    let mut wire = greeted(loopback(port)).unwrap();
    assert!(!log_in(&mut wire, "IMAP", "user", "secret").unwrap().starts_with("a OK"));
    drop(wire);
    mailgress.logs(&["gone.example.test", "backend_connect", "fault=\"configuration\""]);
}

#[test]
fn every_address_of_a_name_is_tried_until_one_proves_its_name() {
    let secure = servers().dovecot.imaps();
    let (closing, silent) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let no_tls = TcpListener::bind((closing, secure.port())).unwrap();
    std::thread::spawn(move || while no_tls.accept().is_ok() {});
    let _hangs = TcpListener::bind((silent, secure.port())).unwrap();
    let addresses = vec![closing, silent, Ipv4Addr::LOCALHOST];
    let names = NameServer::start(move |_, kind| match kind {
        RecordType::A => Reply::Addresses(addresses.clone()),
        _ => Reply::Code(ResponseCode::NoError),
    });
    let (folder, port) = (Folder::new(), ports::free());
    let upstream = upstream_tls("Implicit", "backend-ca", "dovecot.example.test");
    let timeouts = json!({ "timeouts": { "connect": "9s" } });
    let _mailgress =
        serve(&folder, &[with(to_name(port, "imap.test", secure.port(), &names, &upstream), &timeouts)]);
    for _ in 0..3 {
        let mut wire = greeted(loopback(port)).unwrap();
        assert!(log_in(&mut wire, "IMAP", &new_user("failover"), PASSWORD).unwrap().starts_with("a OK"));
    }
}

#[test]
fn a_login_is_not_sent_to_mailgress_itself() {
    let names = NameServer::start(|_, kind| match kind {
        RecordType::A => Reply::Address(Ipv4Addr::LOCALHOST),
        _ => Reply::Code(ResponseCode::NoError),
    });
    let (folder, port, any) = (Folder::new(), ports::free(), ports::free());
    let own = listener("own", "IMAP", "Disabled", port, loopback(port));
    let named = with(to_name(any, "self.test", any, &names, &json!({})), &json!({ "address": "0.0.0.0" }));
    let mailgress = serve(&folder, &[own, named]);
    for port in [port, any] {
        let mut wire = greeted(loopback(port)).unwrap();
        let answer = log_in(&mut wire, "IMAP", "user", PASSWORD).unwrap();
        assert!(answer.starts_with("a NO [UNAVAILABLE]"), "{answer}");
    }
    for address in [loopback(port).to_string(), format!("{} (the address of self.test)", loopback(any))] {
        let text = format!("this Mailgress listens on {address} itself");
        mailgress.logs(&[&text, "outcome=\"backend_not_allowed\"", "fault=\"configuration\""]);
    }
}
