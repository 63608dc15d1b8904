//! `deploy/examples/mailu` with an auth service that has the requirements of Mailu's admin: `Auth-Port` and
//! `Client-Port` in every request, `Auth-User` and `Auth-Pass` in a login, and no login on the port for other servers'
//! mail.

use std::net::SocketAddr;
use std::path::Path;

use serde_yaml::Value;

use crate::support::auth_service::{Answer, AuthRequest, AuthService};
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{self, Folder};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::talk::{is_success, log_in};
use crate::support::tls_client::secured;

#[test]
fn mailus_example_sends_what_mailus_auth_service_requires() {
    let backend = Backend::imap("b");
    let address = backend.address();
    let auth = AuthService::start(move |request| decide(request, address));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/mailu/mail.yaml");
    let mut object: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let http = &mut object["spec"]["auth"]["http"];
    http.as_mapping_mut().unwrap().remove("serviceRef");
    http["url"] = auth.url().into();
    let port = ports::free();
    let listeners = object["spec"]["listeners"].as_sequence_mut().unwrap();
    listeners.retain(|listener| listener["name"] == "imaps");
    listeners[0]["port"] = port.into();
    listeners[0]["address"] = "127.0.0.1".into();
    listeners[0]["protocol"] = "IMAP".into();
    listeners[0]["tls"]["mode"] = "Implicit".into();
    let folder = Folder::new();
    folder.write_text("mail.yaml", &serde_yaml::to_string(&object).unwrap());
    let mut secret = manifest::tls_secret("mail-tls", &AUTHORITY.issue_for_loopback());
    secret["metadata"]["namespace"] = "mail".into();
    folder.write("tls.json", &secret);
    let _mailgress = Mailgress::start(&folder);

    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let mut wire = secured(("IMAP", "Implicit"), to, &AUTHORITY.client(), "localhost").unwrap();
    let ours = wire.local_address().port().to_string();
    let answer = log_in(&mut wire, "IMAP", "user@example.com", "secret").unwrap();
    assert!(is_success("IMAP", &answer), "{answer}");
    let request = auth.requests().pop().unwrap();
    assert_eq!(request.header("Auth-Port"), Some(&*port.to_string()));
    assert_eq!(request.header("Client-Port"), Some(&*ours));
}

/// If a required header is missing, Mailu's admin answers 400.
fn decide(request: &AuthRequest, backend: SocketAddr) -> Answer {
    let required =
        ["Auth-Method", "Auth-Protocol", "Auth-Port", "Client-IP", "Client-Port", "Auth-User", "Auth-Pass"];
    if required.iter().any(|name| request.header(name).is_none()) {
        return Answer::Status("400 Bad Request", Vec::new());
    }
    if request.header("Auth-Port") == Some("25") && request.header("Auth-Method") != Some("none") {
        return Answer::refuse("AUTH not supported");
    }
    Answer::Backend(backend)
}
