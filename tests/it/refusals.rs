//! The log line of each refused login: its stable form, and the tools that read it.

mod crowdsec;
mod fail2ban;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, LATER, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, with};
use crate::support::ports;
use crate::support::talk::{PROTOCOLS, greeted, is_success, log_in};
use crate::support::wire::Wire;

/// One listener for each protocol without TLS, behind a load balancer at 127.0.0.1.
struct Edge {
    mailgress: Mailgress,
    listeners: [(&'static str, SocketAddr); 3],
    _folder: Folder,
    _backends: [Backend; 3],
}

impl Edge {
    fn start(settings: &Value, arguments: &[&str]) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let listeners =
            PROTOCOLS.map(|protocol| (protocol, SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()))));
        let proxy = json!({ "trustedPeers": ["127.0.0.1"], "untrustedPeers": "Accept" });
        let wanted: Vec<Value> = listeners
            .iter()
            .zip(&backends)
            .map(|((protocol, at), to)| {
                let base = listener(&protocol.to_lowercase(), protocol, "Disabled", at.port(), to.address());
                with(base, &json!({ "proxyProtocol": proxy }))
            })
            .collect();
        let folder = Folder::new();
        let spec = json!({ "auth": passthrough(), "listeners": wanted });
        folder.write("server.yaml", &mail_server(&with(spec, settings)));
        let mailgress = Mailgress::start_with(&folder, arguments);
        Self { mailgress, listeners, _folder: folder, _backends: backends }
    }

    /// Opens a connection for this client, named by the load balancer, and reads the greeting.
    fn client(&self, protocol: &str, source: &str) -> Wire {
        let family = if source.contains(':') { "TCP6" } else { "TCP4" };
        let ours = if source.contains(':') { "2001:db8::1" } else { "203.0.113.1" };
        self.behind(protocol, &format!("PROXY {family} {source} {ours} 40000 143\r\n"))
    }

    fn behind(&self, protocol: &str, header: &str) -> Wire {
        let (_, address) = self.listeners.iter().find(|(name, _)| *name == protocol).unwrap();
        let mut wire = Wire::connect(*address).unwrap();
        wire.send(header).unwrap();
        wire.line().unwrap();
        wire
    }

    /// Returns the lines of refused logins without their time.
    fn lines(&self, expected: usize) -> Vec<String> {
        crate::support::wait::eventually("the lines of all refused logins", || {
            let log = self.mailgress.log();
            let of_login = log.lines().filter(|line| line.contains("login refused"));
            let lines: Vec<String> =
                of_login.filter_map(|line| Some(line.split_once('Z')?.1.to_owned())).collect();
            (lines.len() == expected).then_some(lines)
        })
    }
}

fn is_refused(wire: &mut Wire, protocol: &str, user: &str, password: &str) {
    let answer = log_in(wire, protocol, user, password).unwrap();
    assert!(!is_success(protocol, &answer), "{protocol}: {answer}");
}

#[test]
fn every_refused_login_is_a_line_of_a_form_that_does_not_change() {
    let edge = Edge::start(&json!({}), &[]);
    let mut expected = Vec::new();
    for protocol in PROTOCOLS {
        let mut wire = edge.client(protocol, "192.0.2.7");
        for attempt in 1..=2 {
            is_refused(&mut wire, protocol, "ada@example.com", WRONG);
            let name = protocol.to_lowercase();
            expected.push(format!(
                "  INFO login refused client=192.0.2.7 listener=\"mail/edge/{name}\" protocol=\"{name}\" \
                 login=\"ada@example.com\" method=\"plain\" reason=\"credentials\" attempt={attempt}"
            ));
        }
        // The backend cannot decide, so this is not a guess.
        is_refused(&mut edge.client(protocol, "192.0.2.8"), protocol, "ada@example.com", LATER);
        let answer = log_in(&mut edge.client(protocol, "192.0.2.9"), protocol, "ada@example.com", "secret");
        assert!(is_success(protocol, &answer.unwrap()));
    }
    assert_eq!(edge.lines(expected.len()), expected);
    let metrics = edge.mailgress.metrics();
    let refused = |line: &&str| line.starts_with("mailgress_logins_total{") && line.contains("\"refused\"");
    let counted: Vec<&str> =
        metrics.lines().filter(refused).filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(counted, ["2", "2", "2"], "as the metric counts them");
}

#[test]
fn a_line_says_why_a_login_was_refused() {
    let limits = json!({ "limits": { "authFailures": { "count": 3, "window": "10m", "ban": "10m" } } });
    let edge = Edge::start(&limits, &[]);
    let mut open = edge.client("IMAP", "192.0.2.7");
    for (user, password) in [("ada", WRONG), ("ada", WRONG), ("bob", WRONG), ("ada", WRONG), ("eve", WRONG)] {
        is_refused(&mut edge.client("IMAP", "192.0.2.7"), "IMAP", user, password);
    }
    is_refused(&mut open, "IMAP", "ada", "secret");
    let reasons: Vec<String> = edge.lines(6).iter().map(|line| field(line, "reason")).collect();
    let expected =
        ["credentials", "repeated", "credentials", "repeated", "credentials", "banned"].map(str::to_owned);
    assert_eq!(reasons, expected);
}

#[test]
fn a_login_that_the_auth_service_accepts_and_the_backend_does_not_is_no_guess() {
    let backend = Backend::imap("imap");
    let to = backend.address();
    let auth = AuthService::start(move |_| {
        let address = [("Auth-Server", to.ip().to_string()), ("Auth-Port", to.port().to_string())];
        let rest = [("Auth-Status", "OK".to_owned()), ("Auth-Pass", WRONG.to_owned())];
        Answer::Headers(rest.into_iter().chain(address).collect())
    });
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
    let folder = Folder::new();
    let spec = json!({
        "auth": http_auth(&auth.url()),
        "listeners": [listener("imap", "IMAP", "Disabled", at.port(), to)],
    });
    folder.write("server.yaml", &mail_server(&spec));
    let mailgress = Mailgress::start(&folder);
    is_refused(&mut greeted(at).unwrap(), "IMAP", "ada", "secret");
    mailgress.logs(&["login refused client=127.0.0.1 ", "login=\"ada\"", "reason=\"backend\" attempt=1"]);
}

#[test]
fn the_address_of_a_load_balancer_that_names_no_client_is_not_in_the_line() {
    let edge = Edge::start(&json!({}), &[]);
    is_refused(&mut edge.behind("IMAP", "PROXY UNKNOWN\r\n"), "IMAP", "ada", WRONG);
    let line = &edge.lines(1)[0];
    assert!(line.starts_with("  INFO login refused client=unknown listener="), "{line}");
}

/// Returns a field of a line without quotes.
fn field(line: &str, name: &str) -> String {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
    rest.split(' ').next().unwrap_or_default().trim_matches('"').to_owned()
}

/// The addresses that a tool must find, in this order.
const GUESSERS: [&str; 3] = ["192.0.2.7", "2001:db8::7", "192.0.2.8"];
/// A client that tries to get others banned with forged data.
const FORGED: &str = "203.0.113.9";

/// Returns a log with logins. A tool must find exactly [`GUESSERS`]. One login name looks like another client's log
/// line.
fn log_of_guesses(arguments: &[&str]) -> String {
    let limits = json!({ "limits": { "authFailures": { "count": 100, "window": "10m", "ban": "10m" } } });
    let edge = Edge::start(&limits, arguments);
    is_refused(&mut edge.client("IMAP", GUESSERS[0]), "IMAP", "ada@example.com", WRONG);
    is_refused(&mut edge.client("IMAP", GUESSERS[0]), "IMAP", "ada@example.com", WRONG);
    let forged = format!(
        r#""x\" reason=\"credentials\" attempt=1 INFO login refused client={FORGED} \"timestamp\":\"2020-01-01T00:00:00.0Z\"""#
    );
    is_refused(&mut edge.client("IMAP", GUESSERS[1]), "IMAP", &forged, WRONG);
    is_refused(&mut edge.client("SMTP", GUESSERS[2]), "SMTP", "bob", WRONG);
    is_refused(&mut edge.behind("POP3", "PROXY UNKNOWN\r\n"), "POP3", "bob", WRONG);
    is_refused(&mut edge.client("POP3", "192.0.2.9"), "POP3", "bob", LATER);
    log_in(&mut edge.client("POP3", "192.0.2.10"), "POP3", "bob", "secret").unwrap();
    edge.mailgress.logs(&["192.0.2.10", "done"]);
    edge.mailgress.log()
}

/// Formats the log as in a container's log file.
fn in_a_container(log: &str) -> String {
    log.lines().map(|line| format!("2026-11-28T21:14:19.123456789Z stdout F {line}\n")).collect()
}
