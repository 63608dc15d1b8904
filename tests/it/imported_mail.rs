//! Mail through an imported nginx configuration, with real servers and real clients.

mod certificates;
mod logins;
mod refused_tokens;
mod submission;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::auth_service::{Answer, AuthRequest, AuthService};
use crate::support::clients::{Clients, Endpoint};
use crate::support::imported::Imported;
use crate::support::manifest::Folder;
use crate::support::pki::{AUTHORITY, Identity};
use crate::support::servers::{PASSWORD, servers};
use crate::support::talk::greeted;
use crate::support::tls_client::secured;
use crate::support::wire::Wire;
use crate::support::{digests, ports, tokens};

/// The servers of `nginx.conf`: their names, and how clients connect.
const SERVERS: [(&str, &str, &str); 15] = [
    ("imap", "IMAP", "StartTLS"),
    ("imaps", "IMAP", "Implicit"),
    ("pop3", "POP3", "Disabled"),
    ("imap_balanced", "IMAP", "Disabled"),
    ("submission", "SMTP", "RequireStartTLS"),
    ("submission_proxied", "SMTP", "Disabled"),
    ("submission_balanced", "SMTP", "Disabled"),
    ("mx", "SMTP", "Disabled"),
    ("mx_balanced", "SMTP", "Disabled"),
    ("mx_proxied", "SMTP", "Disabled"),
    ("mx_verbose", "SMTP", "Disabled"),
    ("imap_device", "IMAP", "Implicit"),
    ("pop3_device", "POP3", "Implicit"),
    ("smtp_device", "SMTP", "RequireStartTLS"),
    ("imap_guest", "IMAP", "Implicit"),
];

/// The setup of `nginx.conf`.
struct Site {
    endpoints: BTreeMap<&'static str, Endpoint>,
    auth: AuthService,
    clients: Clients,
    imported: Imported,
    /// A device with a revoked certificate.
    revoked: Identity,
    _nginx: Folder,
}

impl Site {
    fn start() -> Self {
        let auth = AuthService::start(decide);
        let endpoints: BTreeMap<_, _> = SERVERS
            .iter()
            .map(|(name, protocol, tls)| {
                let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
                (*name, Endpoint { protocol, tls, address })
            })
            .collect();
        let nginx = Folder::new();
        let identity = AUTHORITY.issue_for_loopback();
        nginx.write_text("mail.pem", &(identity.certificate + &identity.key));
        let revoked = AUTHORITY.issue(&["revoked.example.test"]);
        nginx.write_text("devices.pem", &AUTHORITY.pem());
        nginx.write_text("revoked.pem", &AUTHORITY.revocation_list(&[&revoked]));
        let text = include_str!("imported_mail/nginx.conf")
            .replace("@AUTH@", auth.url().trim_start_matches("http://"));
        let text = endpoints.iter().fold(text, |text, (name, endpoint)| {
            text.replace(&format!("@{name}@"), &endpoint.address.port().to_string())
        });
        nginx.write_text("nginx.conf", &text);
        let imported = Imported::start(&nginx);
        Self { endpoints, auth, clients: Clients::new(), imported, revoked, _nginx: nginx }
    }

    fn at(&self, name: &str) -> &Endpoint {
        &self.endpoints[name]
    }

    /// Connects to a server that requests no certificate, ready for a login.
    fn connect(&self, name: &str) -> Wire {
        let to = self.at(name);
        let mut wire = match to.tls {
            "Disabled" | "StartTLS" => greeted(to.address).unwrap(),
            mode => secured((to.protocol, mode), to.address, &AUTHORITY.client(), "localhost").unwrap(),
        };
        if to.protocol == "SMTP" {
            wire.smtp("EHLO client.example.test").unwrap();
        }
        wire
    }

    /// Returns the last request to the auth service for this login name.
    fn last_request_of(&self, user: &str) -> AuthRequest {
        self.auth.requests_of(user).pop().unwrap()
    }
}

/// The auth service accepts a correct password, a valid token, or a certificate with the user's own name.
fn decide(request: &AuthRequest) -> Answer {
    let header = |name| request.header(name).unwrap_or_default();
    let (user, secret) = (header("Auth-User"), header("Auth-Pass"));
    let method = header("Auth-Method");
    let is_known = match method {
        "plain" => secret == PASSWORD,
        "cram-md5" | "apop" => digests::proves(method, secret, header("Auth-Salt"), PASSWORD),
        "xoauth2" | "oauthbearer" => tokens::user_of(secret).as_deref() == Some(user),
        "external" => {
            header("Auth-SSL-Verify") == "SUCCESS"
                && header("Auth-SSL-Subject") == format!("CN={}", device(user))
        }
        "none" => true,
        _ => false,
    };
    if header("X-Auth-Key") != "open sesame" || !is_known {
        return refuse(user);
    }
    let backend = backend_of(header("Auth-Protocol"), header("X-Backend"));
    Answer::Headers(vec![
        ("Auth-Status", "OK".to_owned()),
        ("Auth-Server", backend.ip().to_string()),
        ("Auth-Port", backend.port().to_string()),
        ("Auth-User", user.to_owned()),
        ("Auth-Pass", PASSWORD.to_owned()),
    ])
}

/// The name in the certificate of a user's device.
fn device(user: &str) -> String {
    user.replace('@', ".device.")
}

/// Returns the refusal. A user named patient may try again.
fn refuse(user: &str) -> Answer {
    let mut headers =
        vec![("Auth-Status", REFUSAL.to_owned()), ("Auth-Error-SASL", STANDARD.encode(TOKEN_REFUSAL))];
    if user.starts_with("patient") {
        headers.push(("Auth-Wait", "1".to_owned()));
    }
    Answer::Headers(headers)
}

const REFUSAL: &str = "Invalid login or password";

/// The challenge that clients with tokens get before the refusal.
const TOKEN_REFUSAL: &str = r#"{"status":"401","schemes":"bearer","scope":"mail"}"#;

fn backend_of(protocol: &str, wanted: &str) -> SocketAddr {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    match (protocol, wanted) {
        ("imap", "imap_proxied") => dovecot.imap_proxied(),
        ("imap", _) => dovecot.imap(),
        ("pop3", _) => dovecot.pop3(),
        (_, "submission") => postfix.submission(),
        (_, "submission_proxied") => postfix.submission_proxied(),
        (_, "mx_proxied") => postfix.mx_proxied(),
        (_, "mx_verbose") => postfix.mx_verbose(),
        _ => postfix.mx(),
    }
}
