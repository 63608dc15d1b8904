//! Mail that is delivered and read back through Mailgress, compared byte by byte.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::auth_service::AuthService;
use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::message::{AWKWARD, ends_with, message, wait_for_mail};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::wire::Wire;

/// Submission, IMAP and POP3 with TLS, and port 25 with both kinds of auth.
struct Site {
    submission: Endpoint,
    imap: Endpoint,
    pop3: Endpoint,
    mx_http: Endpoint,
    mx_passthrough: Endpoint,
    auth: AuthService,
    clients: Clients,
    _mailgress: Mailgress,
    _folder: Folder,
}

impl Site {
    fn start() -> Self {
        let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
        let auth = AuthService::routing(PASSWORD, |_| servers().postfix.mx());
        let endpoint = |protocol, tls| Endpoint { protocol, tls, address: loopback(ports::free()) };
        let (submission, imap) = (endpoint("SMTP", "RequireStartTLS"), endpoint("IMAP", "Implicit"));
        let (pop3, mx_http) = (endpoint("POP3", "Implicit"), endpoint("SMTP", "StartTLS"));
        let mx_passthrough = endpoint("SMTP", "Disabled");
        let on = |name: &str, at: &Endpoint, backend: SocketAddr| {
            listener(name, at.protocol, at.tls, at.address.port(), backend)
        };
        let none =
            json!({ "smtp": { "authMethods": ["NONE"], "capabilities": ["8BITMIME", "SIZE 67108864"] } });
        let with_http = with(none.clone(), &json!({ "auth": http_auth(&auth.url()) }));
        let with_passthrough = with(none, &json!({ "auth": passthrough() }));
        let plain = json!({ "auth": passthrough() });
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "serverName": "mail.example.test",
                "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
                "listeners": [
                    with(on("submission", &submission, postfix.submission()), &plain),
                    with(on("imaps", &imap, dovecot.imap()), &plain),
                    with(on("pop3s", &pop3, dovecot.pop3()), &plain),
                    with(on("mx-http", &mx_http, postfix.mx()), &with_http),
                    with(on("mx-passthrough", &mx_passthrough, postfix.mx()), &with_passthrough),
                ],
            })),
        );
        let mailgress = Mailgress::start(&folder);
        let clients = Clients::new();
        Self {
            submission,
            imap,
            pop3,
            mx_http,
            mx_passthrough,
            auth,
            clients,
            _mailgress: mailgress,
            _folder: folder,
        }
    }

    /// Reads the mailbox's first message with Python and curl, by IMAP and POP3.
    fn reads_back(&self, user: &str, message: &[u8]) {
        wait_for_mail(user);
        let file = self.clients.file("received");
        let path = file.to_str().unwrap();
        for endpoint in [&self.imap, &self.pop3] {
            self.clients.python("fetch.py", endpoint, &[user, PASSWORD, path]).succeeded();
            ends_with(&file, message, &format!("Python by {}", endpoint.protocol));
            self.clients.curl_fetch(endpoint, user, &file).succeeded();
            ends_with(&file, message, &format!("curl by {}", endpoint.protocol));
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn a_submitted_mail_is_read_back_byte_for_byte() {
    let site = Site::start();
    let file = site.clients.file("message");
    let path = file.to_str().unwrap();
    for by_curl in [false, true] {
        let user = new_user("submitted");
        let message = message(&user, AWKWARD);
        std::fs::write(&file, &message).unwrap();
        if by_curl {
            site.clients.curl_send(&site.submission, &user, &user, &file).succeeded();
        } else {
            let arguments = [user.as_str(), &user, path, &user, PASSWORD];
            site.clients.python("send.py", &site.submission, &arguments).succeeded();
        }
        site.reads_back(&user, &message);
        let seen = servers().postfix.logs(&format!("sasl_username={user}"));
        assert_eq!(seen.len(), 1, "Postfix knows who sent it");
    }
}

#[test]
fn an_attachment_of_25_megabytes_is_read_back_byte_for_byte() {
    let site = Site::start();
    let user = new_user("attachment");
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let attachment: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift64: not compressible, and the same in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    })
    .take(25 * 1024 * 1024 / 8)
    .flatten()
    .collect();
    let encoded = STANDARD.encode(attachment);
    let mut body = String::with_capacity(encoded.len() * 78 / 76 + 2);
    for line in encoded.as_bytes().chunks(76) {
        body.push_str(std::str::from_utf8(line).unwrap());
        body.push_str("\r\n");
    }
    let message = message(&user, &body);
    let file = site.clients.file("message");
    std::fs::write(&file, &message).unwrap();
    let arguments = [user.as_str(), &user, file.to_str().unwrap(), &user, PASSWORD];
    site.clients.python("send.py", &site.submission, &arguments).succeeded();
    site.reads_back(&user, &message);
}

#[test]
fn port_25_takes_mail_without_a_login_and_the_auth_service_sees_the_envelope() {
    let site = Site::start();
    let user = new_user("mx");
    let message = message(&user, AWKWARD);
    let file = site.clients.file("message");
    std::fs::write(&file, &message).unwrap();
    let arguments = ["sender@example.org", user.as_str(), file.to_str().unwrap()];
    site.clients.python("send.py", &site.mx_http, &arguments).succeeded();
    site.reads_back(&user, &message);
    let requests = site.auth.requests();
    let request = &requests[0];
    assert_eq!(request.header("Auth-Method"), Some("none"));
    assert_eq!(request.header("Auth-SMTP-Helo"), Some("client.example.test"));
    assert!(
        request
            .header("Auth-SMTP-From")
            .unwrap()
            .to_lowercase()
            .starts_with("mail from:<sender@example.org>")
    );
    assert!(request.header("Auth-SMTP-To").unwrap().to_lowercase().starts_with(&format!("rcpt to:<{user}>")));
}

#[test]
fn port_25_takes_mail_without_a_login_and_without_an_auth_service() {
    let site = Site::start();
    let user = new_user("mx");
    let message = message(&user, AWKWARD);
    let file = site.clients.file("message");
    std::fs::write(&file, &message).unwrap();
    let arguments = ["sender@example.org", user.as_str(), file.to_str().unwrap()];
    site.clients.python("send.py", &site.mx_passthrough, &arguments).succeeded();
    site.reads_back(&user, &message);
    assert!(site.auth.requests().is_empty());
}

#[test]
fn port_25_passes_on_what_the_backend_says_about_a_recipient() {
    let site = Site::start();
    let mut wire = Wire::connect(site.mx_passthrough.address).unwrap();
    wire.line().unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    assert_eq!(wire.ask("MAIL FROM:<sender@example.org>").unwrap(), "250 2.0.0 OK");
    let reply = wire.ask("RCPT TO:<somebody@elsewhere.example>").unwrap();
    assert!(reply.starts_with("454 4.7.1") || reply.starts_with("554 5.7.1"), "{reply}");
    let user = new_user("mx");
    assert_eq!(wire.ask(&format!("RCPT TO:<{user}>")).unwrap(), "250 2.1.5 Ok");
    assert_eq!(wire.ask("QUIT").unwrap(), "221 2.0.0 Bye");
}
