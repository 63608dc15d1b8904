//! `mailgress import nginx`, then `mailgress run` with its output, and a login.

use std::net::SocketAddr;

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::imported::Imported;
use crate::support::manifest::Folder;
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::talk::{PROTOCOLS, greeted, is_success, log_in};
use crate::support::wire::Wire;

#[test]
fn an_imported_configuration_serves_at_once() {
    let backends = [Backend::imap("b"), Backend::pop3("b"), Backend::smtp("b")].map(|b| (b.address(), b));
    let [imap, pop3, smtp] = [&backends[0].0, &backends[1].0, &backends[2].0].map(|address| *address);
    let auth = AuthService::routing("secret", move |protocol| match protocol {
        "imap" => imap,
        "pop3" => pop3,
        _ => smtp,
    });
    let addresses = PROTOCOLS.map(|_| SocketAddr::from(([127, 0, 0, 1], ports::free())));
    let tls = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let nginx = Folder::new();
    let identity = AUTHORITY.issue_for_loopback();
    nginx.write_text("mail.pem", &(identity.certificate + &identity.key));
    let servers: String = PROTOCOLS
        .iter()
        .zip(&addresses)
        .map(|(protocol, address)| {
            let name = protocol.to_lowercase();
            format!("server {{ listen {address}; protocol {name}; }}\n")
        })
        .collect();
    nginx.write_text("servers.conf", &servers);
    let text = format!(
        "events {{ }}\nmail {{\n server_name mail.example.test;\n auth_http {};\n auth_http_header X-Key k;\n \
         xclient off;\n proxy_smtp_auth on;\n include servers.conf;\n server {{ listen {tls} ssl; protocol imap;\n \
         ssl_certificate mail.pem; ssl_certificate_key mail.pem; }}\n}}\n",
        auth.url().trim_start_matches("http://")
    );
    nginx.write_text("nginx.conf", &text);
    let _imported = Imported::start(&nginx);

    for (protocol, address) in PROTOCOLS.iter().zip(addresses) {
        let mut wire = greeted(address).unwrap();
        let answer = log_in(&mut wire, protocol, "user", "secret").unwrap();
        assert!(is_success(protocol, &answer), "{protocol}: {answer}");
    }
    let mut wire = Wire::connect_tls(tls).unwrap();
    assert_eq!(wire.line().unwrap(), "* OK IMAP4 ready");
    assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", "user", "secret").unwrap()));
    for request in auth.requests() {
        assert_eq!(request.header("X-Key"), Some("k"));
    }
    assert_eq!(auth.requests().len(), 4);
}
