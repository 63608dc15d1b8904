//! A Mailgress with all kinds of content: working and failing listeners, with sessions and failures.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::talk::log_in;
use crate::support::wire::Wire;

/// Texts that must never be shown: a password, a login, the text of a backend and an auth service about it, the secret
/// value of a header, and a client's address.
pub const SECRETS: [&str; 6] = [
    "planted-password",
    "planted-login",
    "planted-words-of-the-backend",
    "planted-words-of-the-service",
    "planted-header",
    "127.0.0.66",
];
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// The running Mailgress with its sessions.
pub struct Edge {
    pub mailgress: Mailgress,
    /// Sessions that stay open.
    pub open: Vec<Wire>,
    /// The address of the listener imap, without TLS.
    pub imap: SocketAddr,
    _folder: Folder,
    _backends: Vec<Backend>,
    _auth: AuthService,
    _taken: TcpListener,
}

impl Edge {
    /// Starts it, with some sessions open and others refused or failed.
    pub fn start() -> Self {
        let sick = Backend::imap_while("sick", Arc::new(AtomicBool::new(false)));
        let rude = Backend::saying(b"* BYE planted-words-of-the-backend\r\n");
        let backends = vec![Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp"), sick, rude];
        let auth = AuthService::start(|request| match request.header("Auth-User") {
            Some("broken") => Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            _ => Answer::refuse("planted-words-of-the-service about planted-login"),
        });
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports::free())).unwrap();
        let folder = Folder::new();
        let [imap, rude, asked] = [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free())));
        let to: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
        folder.write("well.yaml", &mail_server(&well(imap.port(), &to)));
        folder.write("secret.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        // This year has started whenever the test runs.
        folder
            .write("old.yaml", &tls_secret("old-tls", &AUTHORITY.issue_until(&["mail.example.test"], 2026)));
        let occupied = taken.local_addr().unwrap().port();
        folder.write("troubled.yaml", &named("office", &troubled(asked.port(), occupied, &auth.url(), &to)));
        folder.write("route.yaml", &route(to[0]));
        folder.write("sick.yaml", &named("lab", &sickly(rude.port(), &to)));
        let mailgress = Mailgress::start_with(&folder, &["--pod-name", "mailgress-0"]);
        let mut edge = Self {
            mailgress,
            open: Vec::new(),
            imap,
            _folder: folder,
            _backends: backends,
            _auth: auth,
            _taken: taken,
        };
        edge.talk(rude, asked);
        edge
    }

    /// Opens three sessions that stay, and causes a refused login and failures of all parties.
    fn talk(&mut self, rude: SocketAddr, asked: SocketAddr) {
        for _ in 0..3 {
            let mut wire = connect(self.imap);
            log_in(&mut wire, "IMAP", "planted-login", "planted-password").unwrap();
            self.open.push(wire);
        }
        log_in(&mut connect(self.imap), "IMAP", "planted-login@tenant.test", WRONG).unwrap();
        // Each of these ends the session, before or after the answer.
        for (address, user) in [(rude, "planted-login"), (asked, "planted-login"), (asked, "broken")] {
            let _ = log_in(&mut connect(address), "IMAP", user, "planted-password");
        }
    }
}

/// A MailRoute of the MailServer without problems.
fn route(backend: SocketAddr) -> Value {
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": "tenant", "namespace": "mail" },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": { "domains": ["tenant.test"], "users": ["planted-login@b.test"] },
            "backend": { "services": [{ "protocol": "IMAP", "address": backend.to_string() }] },
        },
    })
}

/// A MailServer without problems.
fn well(imap: u16, to: &[SocketAddr]) -> Value {
    json!({
        "auth": passthrough(),
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
        "upstream": { "healthCheck": checked() },
        "listeners": [
            with(listener("imap", "IMAP", "StartTLS", imap, to[0]), &json!({ "limits": { "maxConnections": 500 } })),
            listener("imaps", "IMAP", "Implicit", ports::free(), to[0]),
            listener("pop3s", "POP3", "Implicit", ports::free(), to[1]),
            listener("submission", "SMTP", "RequireStartTLS", ports::free(), to[2]),
        ],
    })
}

/// An auth service whose answers contain secrets, an expired certificate, an occupied port, and a missing Secret.
fn troubled(asked: u16, occupied: u16, url: &str, to: &[SocketAddr]) -> Value {
    let secret = json!({ "http": { "headers": [{ "name": "X-Auth-Key", "value": "planted-header" }] } });
    let tls = |name: &str| json!({ "tls": { "certificateRefs": [{ "name": name }] } });
    json!({
        "auth": with(http_auth(url), &secret),
        "listeners": [
            listener("asked", "IMAP", "Disabled", asked, to[0]),
            with(listener("expired", "POP3", "Implicit", ports::free(), to[1]), &tls("old-tls")),
            listener("taken", "IMAP", "Disabled", occupied, to[0]),
            with(listener("lost", "IMAP", "Implicit", ports::free(), to[0]), &tls("nowhere")),
        ],
    })
}

/// A backend that disconnects, and one that fails its checks.
fn sickly(rude: u16, to: &[SocketAddr]) -> Value {
    json!({
        "auth": passthrough(),
        "listeners": [
            listener("rude", "IMAP", "Disabled", rude, to[4]),
            with(listener("sick", "IMAP", "Disabled", ports::free(), to[3]),
                &json!({ "upstream": { "healthCheck": checked() } })),
        ],
    })
}

fn checked() -> Value {
    json!({ "interval": "2s", "timeout": "2s", "unhealthyThreshold": 1 })
}

/// Opens a session from the client address that must not be shown, and reads the greeting.
pub fn connect(address: SocketAddr) -> Wire {
    let mut wire = Wire::connect_from(CLIENT, address).unwrap();
    wire.line().unwrap();
    wire
}

/// A `MailServer` with this name.
pub fn named(name: &str, spec: &Value) -> Value {
    with(mail_server(spec), &json!({ "metadata": { "name": name } }))
}
