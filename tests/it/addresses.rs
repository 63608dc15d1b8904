//! Listeners on IPv4, IPv6, every address, and UNIX sockets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{greeted, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

fn backend_of(protocol: &str) -> SocketAddr {
    match protocol {
        "IMAP" => servers().dovecot.imap(),
        "POP3" => servers().dovecot.pop3(),
        _ => servers().postfix.submission(),
    }
}

fn serve(listeners: &[Value], auth: &AuthService) -> (Folder, Mailgress) {
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    folder.write(
        "server.yaml",
        &mail_server(&json!({
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "auth": http_auth(&auth.url()),
            "listeners": listeners,
        })),
    );
    let mailgress = Mailgress::start(&folder);
    (folder, mailgress)
}

#[test]
fn clients_log_in_over_both_address_families_and_a_wildcard() {
    let auth = AuthService::routing(PASSWORD, |protocol| backend_of(&protocol.to_uppercase()));
    let mut listeners = Vec::new();
    let mut endpoints = Vec::new();
    for protocol in ["IMAP", "POP3", "SMTP"] {
        for (kind, address, reached_at) in [
            ("v4", "127.0.0.1", vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]),
            ("v6", "::1", vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 0))]),
            ("any", "*", vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()]),
        ] {
            let port = ports::free();
            let name = format!("{}-{kind}", protocol.to_lowercase());
            let base = listener(&name, protocol, "StartTLS", port, backend_of(protocol));
            listeners.push(with(base, &json!({ "address": address })));
            endpoints.extend(reached_at.into_iter().map(|mut address| {
                address.set_port(port);
                Endpoint { protocol, tls: "StartTLS", address }
            }));
        }
    }
    let (_folder, _mailgress) = serve(&listeners, &auth);
    let clients = Clients::new();
    for endpoint in &endpoints {
        let user = new_user("address");
        clients.python_login(endpoint, "login", &user, PASSWORD).succeeded();
        clients.curl_login(endpoint, &user, PASSWORD).succeeded();
        for request in auth.requests_of(&user) {
            assert_eq!(request.header("Client-IP"), Some(endpoint.address.ip().to_string().as_str()));
        }
    }
}

#[test]
fn clients_log_in_over_unix_sockets_which_go_with_their_listener() {
    let auth = AuthService::routing(PASSWORD, |protocol| backend_of(&protocol.to_uppercase()));
    let sockets = tempfile::tempdir().unwrap();
    let path = |protocol: &str| sockets.path().join(protocol.to_lowercase());
    let listeners = ["IMAP", "POP3", "SMTP"].map(|protocol| {
        let base = listener(&protocol.to_lowercase(), protocol, "Disabled", 1, backend_of(protocol));
        let mut on_socket = with(base, &json!({ "address": format!("unix:{}", path(protocol).display()) }));
        // A UNIX socket has no port.
        on_socket.as_object_mut().unwrap().remove("port");
        on_socket
    });
    let (folder, _mailgress) = serve(&listeners, &auth);
    let connect = |protocol: &str| {
        let mut wire = Wire::connect_unix(&path(protocol)).unwrap();
        wire.line().unwrap();
        wire
    };
    let user = new_user("unix");
    let mut imap = connect("IMAP");
    assert!(imap.imap("a", &format!("LOGIN {user} {PASSWORD}")).unwrap().last().unwrap().starts_with("a OK"));
    assert!(imap.imap("b", "SELECT INBOX").unwrap().last().unwrap().starts_with("b OK"));
    let mut pop3 = connect("POP3");
    assert_eq!(pop3.ask(&format!("USER {user}")).unwrap(), "+OK");
    assert!(pop3.ask(&format!("PASS {PASSWORD}")).unwrap().starts_with("+OK"));
    assert!(pop3.ask("STAT").unwrap().starts_with("+OK 0 0"));
    let mut smtp = connect("SMTP");
    smtp.smtp("EHLO client.example.test").unwrap();
    assert_eq!(smtp.ask("AUTH LOGIN").unwrap(), "334 VXNlcm5hbWU6");
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    assert_eq!(smtp.ask(&encode(&user)).unwrap(), "334 UGFzc3dvcmQ6");
    assert_eq!(smtp.ask(&encode(PASSWORD)).unwrap(), "235 2.0.0 OK");
    for request in auth.requests_of(&user) {
        assert_eq!(request.header("Client-IP"), Some("unix:"));
    }

    folder.replace("server.yaml", &mail_server(&json!({ "auth": http_auth(&auth.url()), "listeners": [] })));
    wait::eventually("the sockets are gone", || {
        let gone =
            |protocol| !std::fs::metadata(path(protocol)).is_ok_and(|found| found.file_type().is_socket());
        ["IMAP", "POP3", "SMTP"].into_iter().all(gone).then_some(())
    });
    assert!(imap.imap("c", "NOOP").unwrap().last().unwrap().starts_with("c OK"), "sessions live on");
}

#[test]
fn multipath_tcp_is_switched_on_with_a_new_socket_and_plain_clients_are_served_as_before() {
    let (backend, folder, port) = (Backend::imap("imap"), Folder::new(), ports::free());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let write = |multipath: bool| {
        let listener = listener("imap", "IMAP", "Disabled", port, backend.address());
        let listeners = [with(listener, &json!({ "socket": { "multipath": multipath } }))];
        let server = mail_server(&json!({ "auth": passthrough(), "listeners": listeners }));
        folder.write("server.yaml", &server);
    };
    write(false);
    let mailgress = Mailgress::start(&folder);
    write(true);
    wait::eventually("the socket is made anew", || {
        let metrics = mailgress.metrics();
        metrics.contains("mailgress_listener_changes_total{action=\"rebind\"} 1").then_some(())
    });
    let mut wire = wait::eventually("it is bound again", || greeted(address).ok());
    assert_eq!(log_in(&mut wire, "IMAP", "somebody", "secret").unwrap(), "a OK imap");
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
        Ok(client) => {
            client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
            client.connect(&address.into()).unwrap();
            let mut greeting = [0; 4];
            std::io::Read::read_exact(&mut &client, &mut greeting).unwrap();
            assert_eq!(&greeting, b"* OK");
            assert!(!mailgress.log().contains("Multipath TCP"));
        }
        Err(_) => drop(mailgress.logs(&["plain TCP", "Multipath TCP"])),
    }
}
