//! SASL without an auth service: the messages of XOAUTH2, OAUTHBEARER and CRAM-MD5 are relayed unchanged between client
//! and backend, as are the backend's errors about a token that it refuses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret};
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{PROTOCOLS, backend_answers, greeted};
use crate::support::tls_client::secured;
use crate::support::tokens::{token_for, worthless_tokens};
use crate::support::wire::Wire;

/// A mechanism, and how a client acknowledges its refusal.
const MECHANISMS: [(&str, &str); 2] = [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")];

/// A listener for each protocol, in front of Dovecot and of a Postfix that uses Dovecot for authentication.
struct Edge {
    endpoints: [Endpoint; 3],
    clients: Clients,
    mailgress: Mailgress,
    _folder: Folder,
}

impl Edge {
    fn start() -> Self {
        let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
        let ways = [
            ("RequireStartTLS", dovecot.imap()),
            ("Implicit", dovecot.pop3()),
            ("Disabled", postfix.submission()),
        ];
        let mut listeners = Vec::new();
        let mut index = 0;
        let endpoints = PROTOCOLS.map(|protocol| {
            let (tls, backend) = ways[index];
            index += 1;
            let port = ports::free();
            listeners.push(listener(&protocol.to_lowercase(), protocol, tls, port, backend));
            Endpoint { protocol, tls, address: ([127, 0, 0, 1], port).into() }
        });
        let methods = json!({ "authMethods": ["PLAIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"] });
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "serverName": "mail.example.test",
                "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
                "auth": passthrough(),
                "imap": methods, "pop3": methods, "smtp": methods,
                "listeners": listeners,
            })),
        );
        Self { endpoints, clients: Clients::new(), mailgress: Mailgress::start(&folder), _folder: folder }
    }

    /// Connects, ready for a login.
    fn connect(&self, to: &Endpoint) -> Wire {
        let mut wire = match to.tls {
            "Disabled" => greeted(to.address).unwrap(),
            mode => secured((to.protocol, mode), to.address, &AUTHORITY.client(), "localhost").unwrap(),
        };
        if to.protocol == "SMTP" {
            wire.smtp("EHLO client.example.test").unwrap();
        }
        wire
    }
}

/// Returns the client's only message in base64.
fn message(mechanism: &str, user: &str, token: &str) -> String {
    STANDARD.encode(match mechanism {
        "XOAUTH2" => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        _ => format!("n,a={user},\x01auth=Bearer {token}\x01\x01"),
    })
}

/// Starts a login with the client's message. Returns the reply.
fn authenticate(wire: &mut Wire, protocol: &str, mechanism: &str, message: &str) -> String {
    let command = if protocol == "IMAP" { "t1 AUTHENTICATE" } else { "AUTH" };
    wire.ask(&format!("{command} {mechanism} {message}")).unwrap()
}

/// Returns the start of the backend's reply after the client has acknowledged the challenge, and after it has
/// cancelled.
fn refusals(protocol: &str) -> (&'static str, &'static str) {
    match protocol {
        "IMAP" => ("t1 NO [AUTHENTICATIONFAILED]", "t1 BAD "),
        "POP3" => ("-ERR [AUTH]", "-ERR "),
        _ => ("535 5.7.8 ", "5"),
    }
}

#[test]
fn a_backend_takes_a_token_that_mailgress_knows_nothing_of() {
    let edge = Edge::start();
    for endpoint in &edge.endpoints {
        let user = new_user("token");
        let token = token_for(&user);
        for method in ["xoauth2", "oauthbearer-ir"] {
            edge.clients.python_login(endpoint, method, &user, &token).succeeded();
        }
        edge.clients.curl_token(endpoint, &user, &token).succeeded();
    }
}

#[test]
fn a_digest_answers_the_backends_own_challenge() {
    let edge = Edge::start();
    for endpoint in &edge.endpoints {
        let user = new_user("digest");
        edge.clients.python_login(endpoint, "cram-md5", &user, PASSWORD).succeeded();
        let mut wire = edge.connect(endpoint);
        let command = if endpoint.protocol == "IMAP" { "t1 AUTHENTICATE" } else { "AUTH" };
        let challenge = wire.ask(&format!("{command} CRAM-MD5")).unwrap();
        let challenge = STANDARD.decode(challenge.split_once(' ').unwrap().1).unwrap();
        let challenge = String::from_utf8(challenge).unwrap();
        assert!(!challenge.contains("mail.example.test"), "{challenge} is Mailgress's");
        let answer = STANDARD.encode(format!("{user} {}", "0".repeat(32)));
        let told = wire.ask(&answer).unwrap();
        assert!(told.starts_with(refusals(endpoint.protocol).0), "{}: {told}", endpoint.protocol);
    }
}

#[test]
fn a_client_hears_from_the_backend_what_is_wrong_with_its_token() {
    let edge = Edge::start();
    for (endpoint, method) in edge.endpoints.iter().zip(["oauthbearer-ir", "xoauth2", "xoauth2-ir"]) {
        let user = new_user("refused");
        let [(_, forged), ..] = worthless_tokens(&user);
        let ran = edge.clients.python_login(endpoint, method, &user, &forged).failed();
        assert!(ran.output.contains("refused with {\"status\":"), "{method}: {ran:?}");
        assert!(!ran.output.contains("logged in"), "{method}: {ran:?}");
    }
    assert!(!edge.mailgress.log().contains("eyJ"), "a token is in the log");
}

#[test]
fn a_refused_token_counts_although_the_client_leaves_instead_of_answering_the_challenge() {
    let edge = Edge::start();
    for endpoint in &edge.endpoints {
        for (mechanism, _) in MECHANISMS {
            let user = new_user("leaves");
            let [(_, forged), ..] = worthless_tokens(&user);
            let mut wire = edge.connect(endpoint);
            authenticate(&mut wire, endpoint.protocol, mechanism, &message(mechanism, &user, &forged));
            drop(wire);
            let protocol = format!("protocol=\"{}\"", endpoint.protocol.to_lowercase());
            let method = format!("method=\"{}\"", mechanism.to_lowercase());
            edge.mailgress.logs(&["login refused", &protocol, &method, "reason=\"credentials\""]);
        }
    }
}

#[test]
fn the_session_goes_on_behind_a_challenge_that_was_acknowledged_or_cancelled() {
    let edge = Edge::start();
    for (endpoint, (mechanism, acknowledgement)) in
        edge.endpoints.iter().flat_map(|endpoint| MECHANISMS.map(|mechanism| (endpoint, mechanism)))
    {
        let protocol = endpoint.protocol;
        let user = new_user("again");
        let (refused, cancelled) = refusals(protocol);
        let mut wire = edge.connect(endpoint);
        let worthless = worthless_tokens(&user);
        let answers = [(acknowledgement, refused), ("*", cancelled), ("*", cancelled)];
        for ((what, token), (answer, expected)) in worthless.iter().zip(answers) {
            let what = format!("{protocol} {mechanism}, a token that is {what}, answered with {answer:?}");
            let challenge = authenticate(&mut wire, protocol, mechanism, &message(mechanism, &user, token));
            let (sign, text) = challenge.split_once(' ').unwrap();
            assert_eq!(sign, if protocol == "SMTP" { "334" } else { "+" }, "{what}");
            let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
            assert!(text.starts_with("{\"status\":"), "{what}: {text}");
            let told = wire.ask(answer).unwrap();
            assert!(told.starts_with(expected), "{what}: {told}");
        }
        let good = message(mechanism, &user, &token_for(&user));
        let taken = authenticate(&mut wire, protocol, mechanism, &good);
        let success = ["t1 OK", "+OK", "235 "].iter().any(|success| taken.starts_with(success));
        assert!(success, "{protocol} {mechanism}: {taken}");
        assert!(backend_answers(&mut wire, protocol).unwrap());
    }
}
