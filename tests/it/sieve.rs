//! ManageSieve in front of Dovecot's managesieved: with an auth service and with passthrough, in each TLS mode, with
//! Debian's sieve-connect and by hand.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::acceptor::Acceptor;
use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{
    Folder, ca_config_map, http_auth, listener, mail_server, passthrough, tls_secret, with,
};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::tls_client::TlsClient;
use crate::support::tokens::{token_for, worthless_tokens};
use crate::support::wire::Wire;

/// Listeners for ManageSieve with their own settings, each on its own port.
struct Site {
    endpoints: Vec<Endpoint>,
    clients: Clients,
    mailgress: Mailgress,
    _folder: Folder,
}

impl Site {
    fn start(wanted: &[(&'static str, SocketAddr, Value)]) -> Self {
        Self::start_with(&[], wanted)
    }

    /// Each listener has a TLS mode, a backend, and more settings.
    fn start_with(arguments: &[&str], wanted: &[(&'static str, SocketAddr, Value)]) -> Self {
        let folder = Folder::new();
        let mut endpoints = Vec::new();
        let mut listeners = Vec::new();
        for (number, (tls, backend, settings)) in wanted.iter().enumerate() {
            let port = ports::free();
            listeners.push(with(listener(&format!("l{number}"), "Sieve", tls, port, *backend), settings));
            endpoints.push(Endpoint { protocol: "Sieve", tls, address: ([127, 0, 0, 1], port).into() });
        }
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write("ca.yaml", &ca_config_map("backend-ca", &AUTHORITY.pem()));
        let spec = json!({
            "serverName": "mail.example.test",
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "auth": passthrough(),
            "listeners": listeners,
        });
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start_with(&folder, arguments);
        Self { endpoints, clients: Clients::new(), mailgress, _folder: folder }
    }

    /// Connects, ready for a login.
    fn connect(&self, number: usize) -> Wire {
        connect(&self.endpoints[number])
    }
}

fn connect(to: &Endpoint) -> Wire {
    if to.tls == "Implicit" {
        let mut wire = Wire::connect_tls(to.address).unwrap();
        response(&mut wire);
        return wire;
    }
    let mut wire = Wire::connect(to.address).unwrap();
    let greeting = response(&mut wire);
    if to.tls == "Disabled" {
        return wire;
    }
    assert!(greeting.contains(&r#""SASL" """#.to_owned()), "{greeting:?}");
    assert_eq!(ask(&mut wire, "STARTTLS"), [r#"OK "Begin TLS negotiation now""#]);
    let mut wire = wire.handshake().unwrap();
    let capabilities = response(&mut wire);
    assert!(capabilities.contains(&r#""SASL" "PLAIN""#.to_owned()), "{capabilities:?}");
    wire
}

/// Reads the lines of a response up to its result.
fn response(wire: &mut Wire) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = wire.line().unwrap();
        let is_last = ["OK", "NO", "BYE"].iter().any(|word| line.starts_with(word));
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

fn ask(wire: &mut Wire, command: &str) -> Vec<String> {
    wire.send(format!("{command}\r\n")).unwrap();
    response(wire)
}

fn log_in(wire: &mut Wire, user: &str, password: &str) -> String {
    let message = STANDARD.encode(format!("\0{user}\0{password}"));
    ask(wire, &format!(r#"AUTHENTICATE "PLAIN" "{message}""#)).pop().unwrap()
}

/// Uploads a script with a literal, activates it, lists it and reads it back.
fn manage(wire: &mut Wire) {
    let script = "require \"fileinto\";\r\nif header \"x\" \"OK\" {\r\n  fileinto \"y\";\r\n}\r\n";
    let length = script.len();
    let put = ask(wire, &format!("PUTSCRIPT \"main\" {{{length}+}}\r\n{script}"));
    assert!(put[0].starts_with("OK"), "{put:?}");
    assert!(ask(wire, "SETACTIVE \"main\"")[0].starts_with("OK"));
    assert_eq!(ask(wire, "LISTSCRIPTS")[0], r#""main" ACTIVE"#);
    assert_eq!(
        ask(wire, "GETSCRIPT \"main\"")[..2],
        [format!("{{{length}}}"), "require \"fileinto\";".into()]
    );
}

#[test]
fn scripts_are_managed_by_hand_in_every_tls_mode_and_with_both_kinds_of_auth() {
    let dovecot = &servers().dovecot;
    let auth = AuthService::routing(PASSWORD, |_| servers().dovecot.sieve());
    let tls = |mode: &str| {
        json!({ "upstream": { "tls": {
            "mode": mode, "serverName": "dovecot.example.test", "caCertificateRefs": [{ "kind": "ConfigMap", "name": "backend-ca" }],
        } } })
    };
    let http = json!({ "auth": http_auth(&auth.url()) });
    let site = Site::start(&[
        ("RequireStartTLS", dovecot.sieve(), http.clone()),
        ("Implicit", dovecot.sieve(), http),
        ("RequireStartTLS", dovecot.sieve(), tls("StartTLS")),
        ("Implicit", dovecot.sieves(), tls("Implicit")),
        ("Disabled", dovecot.sieve_proxied(), json!({ "upstream": { "proxyProtocol": "V2" } })),
    ]);
    for (number, endpoint) in site.endpoints.iter().enumerate() {
        let user = new_user("sieve");
        let mut wire = site.connect(number);
        assert!(log_in(&mut wire, &user, "wrong").starts_with("NO \""), "{endpoint:?}");
        // Without Auth-Wait, the session ends at a login that the auth service refuses, as with nginx.
        let mut wire = site.connect(number);
        assert_eq!(log_in(&mut wire, &user, PASSWORD), r#"OK "Logged in.""#, "{endpoint:?}");
        manage(&mut wire);
        assert_eq!(ask(&mut wire, "LOGOUT"), [r#"OK "Logout completed.""#]);
    }
    assert!(auth.requests().iter().all(|request| request.header("Auth-Protocol") == Some("sieve")));
    assert!(auth.requests().len() >= 4);
    site.mailgress.logs(&["session done", "listener=\"mail/edge/l4\""]);
    assert!(site.mailgress.metrics().contains("protocol=\"sieve\""));
}

#[test]
fn sieve_connect_uploads_activates_and_lists_over_starttls() {
    let auth = AuthService::routing(PASSWORD, |_| servers().dovecot.sieve());
    let http = json!({ "auth": http_auth(&auth.url()) });
    let backend = servers().dovecot.sieve();
    let site = Site::start(&[("RequireStartTLS", backend, json!({})), ("RequireStartTLS", backend, http)]);
    let file = site.clients.file("vacation.sieve");
    std::fs::write(&file, "require \"vacation\";\nvacation \"away\";\n").unwrap();
    for endpoint in &site.endpoints {
        let user = new_user("connect");
        let run = |action: &[&str]| site.clients.sieve_connect(endpoint, &user, PASSWORD, action);
        run(&["--localsieve", file.to_str().unwrap(), "--remotesieve", "away", "--upload"]).succeeded();
        run(&["--remotesieve", "away", "--activate"]).succeeded();
        let listed = run(&["--list"]).succeeded();
        assert!(listed.output.contains("\"away\" ACTIVE"), "{listed:?}");
        site.clients.sieve_connect(endpoint, &user, "wrong", &["--list"]).failed();
    }
}

#[test]
fn a_token_is_relayed_and_its_refusal_too() {
    let methods = json!({ "sieve": { "authMethods": ["PLAIN", "XOAUTH2", "OAUTHBEARER"] } });
    let site = Site::start(&[("Implicit", servers().dovecot.sieve(), methods)]);
    let user = new_user("token");
    let message = |token: &str| STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
    let mut wire = site.connect(0);
    let [(_, forged), ..] = worthless_tokens(&user);
    wire.send(format!("AUTHENTICATE \"XOAUTH2\" \"{}\"\r\n", message(&forged))).unwrap();
    let challenge = wire.line().unwrap();
    assert!(challenge.starts_with("\"eyJ"), "{challenge}");
    assert!(ask(&mut wire, "\"\"")[0].starts_with("NO \""));
    let token = token_for(&user);
    let initial = message(&token);
    let taken = ask(&mut wire, &format!("AUTHENTICATE \"XOAUTH2\" {{{}+}}\r\n{initial}", initial.len()));
    assert!(taken[0].starts_with("OK"), "{taken:?}");
    manage(&mut wire);
    assert!(!site.mailgress.log().contains("eyJ"), "a token is in the log");
}

#[test]
fn a_backend_that_cannot_be_used_is_a_temporary_error() {
    let gone = Acceptor::start(drop);
    let busy = Backend::saying(b"NO (TRYLATER) \"busy\"\r\n");
    let imap = Backend::saying(b"* OK IMAP\r\n");
    let site = Site::start(&[
        ("Disabled", gone.address(), json!({})),
        ("Disabled", busy.address(), json!({})),
        ("Disabled", imap.address(), json!({})),
    ]);
    for number in 0..3 {
        let mut wire = site.connect(number);
        for _ in 0..2 {
            let told = log_in(&mut wire, "me", "pw");
            assert_eq!(told, r#"NO (TRYLATER) "Temporary authentication failure.""#, "{number}");
        }
    }
    site.mailgress.logs(&["listener=\"mail/edge/l2\"", "* OK IMAP"]);
}

#[test]
fn a_drain_says_bye() {
    let at_once = ["--drain-delay", "0s", "--drain-timeout", "1s", "--drain-spread", "0s"];
    let site = Site::start_with(&at_once, &[("Disabled", servers().dovecot.sieve(), json!({}))]);
    let user = new_user("drained");
    let mut wire = site.connect(0);
    assert!(log_in(&mut wire, &user, PASSWORD).starts_with("OK"));
    let mut waiting = site.connect(0);
    site.mailgress.terminate();
    let goodbye = [r#"BYE "Service is being restarted, please reconnect""#];
    assert_eq!(response(&mut wire), goodbye);
    assert_eq!(response(&mut waiting), goodbye);
}

#[test]
fn alpn_is_the_registered_name() {
    let site = Site::start(&[("Implicit", servers().dovecot.sieve(), json!({}))]);
    let endpoint = &site.endpoints[0];
    let client = TlsClient::new().alpn(&["managesieve"]).build();
    let wire = Wire::connect(endpoint.address).unwrap().handshake_as(client, "localhost").unwrap();
    assert_eq!(wire.tls().alpn_protocol(), Some(&b"managesieve"[..]));
}
