//! EXTERNAL: a device logs in with its certificate. The auth service gets the certificate and returns the password for
//! the backend.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;

use super::{REFUSAL, Site, device};
use crate::support::pki::{AUTHORITY, Authority, Identity};
use crate::support::servers::{new_user, servers};
use crate::support::tls_client::{TlsClient, secured};
use crate::support::wire::Wire;

const SERVERS: [&str; 3] = ["imap_device", "pop3_device", "smtp_device"];

fn fingerprint(identity: &Identity) -> String {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &identity.der).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Escapes a header's value as nginx does.
fn escaped(pem: &str) -> String {
    pem.replace("\r\n", "\n").replace('\n', "%0A").replace(' ', "%20")
}

#[test]
fn a_device_logs_in_by_its_certificate() {
    let site = Site::start();
    for server in SERVERS {
        let user = new_user("device");
        let identity = AUTHORITY.issue(&[&device(&user)]);
        site.clients.python_external(site.at(server), &user, &identity).succeeded();
        let request = site.last_request_of(&user);
        for (name, value) in [
            ("Auth-Method", "external"),
            ("Auth-Pass", ""),
            ("Auth-SSL", "on"),
            ("Auth-SSL-Verify", "SUCCESS"),
            ("Auth-SSL-Subject", &format!("CN={}", device(&user))),
            ("Auth-SSL-Issuer", "CN=Test CA"),
            ("Auth-SSL-Serial", &format!("{:X}", identity.serial)),
            ("Auth-SSL-Fingerprint", &fingerprint(&identity)),
            ("Auth-SSL-Cert", &escaped(&identity.certificate)),
        ] {
            assert_eq!(request.header(name), Some(value), "{server}: {name}");
        }
        if server != "smtp_device" {
            servers().dovecot.logs(&user);
        }
    }
}

#[test]
fn a_device_may_not_log_in_as_somebody_else() {
    let site = Site::start();
    let identity = AUTHORITY.issue(&[&device(&new_user("device"))]);
    let ran = site.clients.python_external(site.at("pop3_device"), &new_user("victim"), &identity).failed();
    assert!(ran.errors.contains(REFUSAL), "{ran:?}");
}

/// Returns the first line after the handshake.
fn first_line(site: &Site, server: &str, client: &Arc<ClientConfig>) -> (String, Wire) {
    let to = site.at(server);
    if to.tls == "Implicit" {
        let mut wire =
            Wire::connect(to.address).unwrap().handshake_as(Arc::clone(client), "localhost").unwrap();
        return (wire.line().unwrap(), wire);
    }
    let mut wire = secured((to.protocol, to.tls), to.address, client, "localhost").unwrap();
    (wire.line().unwrap(), wire)
}

#[test]
fn a_device_without_a_certificate_or_with_a_revoked_one_is_told_so() {
    let site = Site::start();
    let foreign = Authority::new("Other CA").issue(&["foreign.example.test"]);
    let none = (TlsClient::new().build(), "No required SSL certificate");
    let bad = |identity| (TlsClient::new().certificate(identity).build(), "SSL certificate error");
    for (client, text) in [none, bad(&site.revoked), bad(&foreign)] {
        for (server, before) in SERVERS.iter().zip(["* BYE ", "-ERR ", "421 4.7.1 "]) {
            let (line, wire) = first_line(&site, server, &client);
            assert_eq!(line, format!("{before}{text}"), "{server}");
            assert_eq!(wire.rest(SOON), "", "{server}");
        }
    }
    assert!(site.auth.requests().is_empty());
}

#[test]
fn where_any_issuer_is_tolerated_the_auth_service_learns_what_is_wrong() {
    let site = Site::start();
    let user = new_user("guest");
    let foreign = Authority::new("Other CA").issue(&[&device(&user)]);
    let (greeting, mut wire) =
        first_line(&site, "imap_guest", &TlsClient::new().certificate(&foreign).build());
    assert_eq!(greeting, "* OK IMAP4 ready");
    let command = format!("a AUTHENTICATE EXTERNAL {}", STANDARD.encode(&user));
    assert_eq!(wire.ask(&command).unwrap(), format!("a NO {REFUSAL}"));
    let request = site.last_request_of(&user);
    let verdict = request.header("Auth-SSL-Verify").unwrap();
    assert_eq!(verdict, "FAILED:unable to get local issuer certificate");
    assert_eq!(request.header("Auth-SSL-Fingerprint"), Some(fingerprint(&foreign).as_str()));
    // Any issuer is accepted, but a revoked certificate is still refused.
    let (line, _) = first_line(&site, "imap_guest", &TlsClient::new().certificate(&site.revoked).build());
    assert_eq!(line, "* BYE SSL certificate error");
}

const SOON: Duration = Duration::from_secs(20);
