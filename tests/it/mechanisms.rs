//! Which login mechanisms a listener accepts and announces, and the forms that clients may use.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::clients::{Clients, Endpoint};
use crate::support::dovecot::{LONG_PASSWORD_USER, long_password};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{PROTOCOLS, greeted};
use crate::support::wire::Wire;

/// Listeners with their own settings, each on its own port.
struct Site {
    endpoints: Vec<Endpoint>,
    clients: Clients,
    mailgress: Mailgress,
    _folder: Folder,
}

impl Site {
    fn start(auth: Value, wanted: &[(&'static str, &'static str, SocketAddr, Value)]) -> Self {
        let folder = Folder::new();
        let mut endpoints = Vec::new();
        let mut listeners = Vec::new();
        for (number, (protocol, tls, backend, settings)) in wanted.iter().enumerate() {
            let port = ports::free();
            let name = format!("l{number}");
            listeners.push(with(listener(&name, protocol, tls, port, *backend), settings));
            endpoints.push(Endpoint { protocol, tls, address: ([127, 0, 0, 1], port).into() });
        }
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        let spec = json!({
            "serverName": "mail.example.test",
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "auth": auth,
            "listeners": listeners,
        });
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start(&folder);
        Self { endpoints, clients: Clients::new(), mailgress, _folder: folder }
    }

    fn connect(&self, number: usize) -> Wire {
        greeted(self.endpoints[number].address).unwrap()
    }
}

fn backend_of(protocol: &str) -> SocketAddr {
    match protocol {
        "IMAP" => servers().dovecot.imap(),
        "POP3" => servers().dovecot.pop3(),
        _ => servers().postfix.submission(),
    }
}

#[test]
fn what_is_announced_by_itself_is_announced_once_and_only_where_it_is_true() {
    let listed = json!({ "smtp": { "capabilities": ["PIPELINING", "AUTH PLAIN LOGIN", "STARTTLS"] } });
    let site = Site::start(passthrough(), &[("SMTP", "RequireStartTLS", backend_of("SMTP"), listed)]);
    let mut wire = site.connect(0);
    let in_clear = wire.smtp("EHLO client.example.test").unwrap();
    assert_eq!(in_clear, ["250-mail.example.test", "250-PIPELINING", "250 STARTTLS"]);
    wire.ask("STARTTLS").unwrap();
    let mut wire = wire.handshake().unwrap();
    let secured = wire.smtp("EHLO client.example.test").unwrap();
    assert_eq!(secured, ["250-mail.example.test", "250-PIPELINING", "250 AUTH PLAIN LOGIN"]);
    assert!(site.mailgress.status().to_string().contains("CapabilityIgnored"));
}

#[test]
fn a_listener_for_mail_without_a_login_takes_no_login() {
    let none = json!({ "smtp": { "authMethods": ["NONE"] } });
    let site = Site::start(passthrough(), &[("SMTP", "Disabled", servers().postfix.mx(), none)]);
    let user = new_user("none");
    for method in ["PLAIN", "LOGIN"] {
        site.clients.swaks(&site.endpoints[0], method, &user, PASSWORD).failed();
    }
    let mut wire = site.connect(0);
    assert_eq!(wire.smtp("EHLO client.example.test").unwrap(), ["250 mail.example.test"]);
    let plain = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
    let refused = "503 5.5.1 Authentication is not enabled";
    assert_eq!(wire.ask(&format!("AUTH PLAIN {plain}")).unwrap(), refused);
    site.clients.swaks_anonymous(&site.endpoints[0], &user, &[]).succeeded();
}

#[test]
fn a_password_is_refused_where_only_tokens_are_listed() {
    let wanted = PROTOCOLS.map(|protocol| {
        let settings = json!({ protocol.to_lowercase(): { "authMethods": ["XOAUTH2"] } });
        (protocol, "Implicit", backend_of(protocol), settings)
    });
    let site = Site::start(passthrough(), &wanted);
    for endpoint in &site.endpoints {
        let user = new_user("tokens-only");
        for method in ["login", "plain", "plain-ir"] {
            site.clients.python_login(endpoint, method, &user, PASSWORD).failed();
        }
        site.clients.curl_login(endpoint, &user, PASSWORD).failed();
    }
    let asked = ["a CAPABILITY", "b LOGIN me secret", "c AUTHENTICATE PLAIN AG1lAHB3", "d LOGOUT"];
    let said = site.clients.openssl(&site.endpoints[0], &asked).output;
    for expected in [
        " AUTH=XOAUTH2 LOGINDISABLED",
        "b NO [CANNOT] LOGIN is disabled",
        "c NO [CANNOT] unsupported authentication mechanism",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn passwords_are_taken_whatever_is_listed_where_the_manifest_says_so() {
    let wanted = [("IMAP", "EXTERNAL"), ("POP3", "CRAM-MD5")].map(|(protocol, method)| {
        let block = json!({ "authMethods": [method], "passwordLogins": "Always" });
        (protocol, "Implicit", backend_of(protocol), json!({ protocol.to_lowercase(): block }))
    });
    let site = Site::start(passthrough(), &wanted);
    for endpoint in &site.endpoints {
        site.clients.python_login(endpoint, "login", &new_user("always"), PASSWORD).succeeded();
    }
}

#[test]
fn a_long_password_is_judged_by_dovecot_and_a_wrong_one_is_refused() {
    let wanted = ["IMAP", "POP3"].map(|protocol| (protocol, "Implicit", backend_of(protocol), json!({})));
    let site = Site::start(passthrough(), &wanted);
    let (right, wrong) = (long_password(), format!("{}x", long_password()));
    for endpoint in &site.endpoints {
        for method in ["login", "plain"] {
            site.clients.python_login(endpoint, method, LONG_PASSWORD_USER, &right).succeeded();
            site.clients.python_login(endpoint, method, LONG_PASSWORD_USER, &wrong).failed();
        }
    }
    let metrics = site.mailgress.metrics();
    let refused = metrics.lines().filter(|line| {
        line.starts_with("mailgress_logins_total")
            && line.contains("outcome=\"refused\"")
            && line.ends_with(" 2")
    });
    assert_eq!(refused.count(), 2, "{metrics}");
}

#[test]
fn a_response_that_is_too_long_for_dovecot_is_the_clients_fault() {
    let site = Site::start(passthrough(), &[("IMAP", "Implicit", backend_of("IMAP"), json!({}))]);
    let response = STANDARD.encode(format!("\0user\0{}", "p".repeat(8000)));
    let mut wire = Wire::connect_tls(site.endpoints[0].address).unwrap();
    wire.line().unwrap();
    assert_eq!(wire.ask("a AUTHENTICATE PLAIN").unwrap(), "+ ");
    assert_eq!(wire.ask(&response).unwrap(), "a NO [AUTHENTICATIONFAILED] Authentication failed.");
    site.mailgress.logs(&["outcome=\"backend_refused\"", "fault=\"client\"", "a login of 10678 bytes"]);
}

#[test]
fn a_token_of_nine_kilobytes_is_taken_in_every_protocol() {
    let token = "t".repeat(9100);
    let known = token.clone();
    let auth = AuthService::start(move |request| {
        if request.header("Auth-Pass") != Some(&known) {
            return Answer::refuse("unknown token");
        }
        let backend = backend_of(&request.header("Auth-Protocol").unwrap().to_uppercase());
        Answer::Headers(vec![
            ("Auth-Status", "OK".to_owned()),
            ("Auth-Server", backend.ip().to_string()),
            ("Auth-Port", backend.port().to_string()),
            ("Auth-Pass", PASSWORD.to_owned()),
        ])
    });
    let wanted = PROTOCOLS.map(|protocol| {
        let settings = json!({ protocol.to_lowercase(): { "authMethods": ["XOAUTH2", "OAUTHBEARER"] } });
        (protocol, "Implicit", backend_of(protocol), settings)
    });
    let site = Site::start(http_auth(&auth.url()), &wanted);
    for endpoint in &site.endpoints {
        for method in ["xoauth2", "xoauth2-ir", "oauthbearer-ir"] {
            site.clients.python_login(endpoint, method, &new_user("long-token"), &token).succeeded();
        }
    }
}

#[test]
fn dovecot_answers_a_login_under_tags_that_nginx_refuses() {
    let site = Site::start(passthrough(), &[("IMAP", "Disabled", backend_of("IMAP"), json!({}))]);
    // Dovecot has its own limits: 127 characters, and no `]`.
    for tag in ["!#$&'-./09:;<=>?@AZ[^_`az|}~".to_owned(), "t".repeat(120)] {
        let user = new_user("tag");
        let mut wire = site.connect(0);
        let said = wire.imap(&tag, &format!("LOGIN {user} {PASSWORD}")).unwrap();
        assert!(said[said.len() - 1].starts_with(&format!("{tag} OK ")), "{said:?}");
        assert_eq!(wire.imap("b", "NOOP").unwrap().len(), 1);
    }
}

#[test]
fn a_windows_client_with_a_name_beyond_ascii_sends_mail() {
    let auth = AuthService::routing(PASSWORD, |_| servers().postfix.mx_verbose());
    let none = json!({ "smtp": { "authMethods": ["NONE"] } });
    let site = Site::start(http_auth(&auth.url()), &[("SMTP", "Disabled", servers().postfix.mx(), none)]);
    let user = new_user("windows");
    site.clients.swaks_anonymous(&site.endpoints[0], &user, &["--ehlo", "MÜLLER-PC"]).succeeded();
    let names: [(&[u8], &str); 2] =
        [(b"M\xc3\x9cLLER-PC", "xn--mller-pc-65a"), (b"M\xdcLLER-PC", "[127.0.0.1]")];
    for (name, told) in names {
        let mut wire = site.connect(0);
        wire.send([b"EHLO ", name, b"\r\n"].concat()).unwrap();
        assert_eq!(wire.line().unwrap(), "250 mail.example.test");
        wire.ask(&format!("MAIL FROM:<{user}>")).unwrap();
        let reply = wire.ask(&format!("RCPT TO:<{user}>")).unwrap();
        assert!(reply.starts_with("250 "), "{reply}");
        assert_eq!(auth.requests().last().unwrap().header("Auth-SMTP-Helo"), Some(told));
        assert!(!servers().postfix.logs(&format!("EHLO {told}")).is_empty());
    }
    let mut wire = site.connect(0);
    assert_eq!(wire.ask("EHLO M\u{1}LLER-PC").unwrap(), "500 5.5.1 Invalid command");
}
