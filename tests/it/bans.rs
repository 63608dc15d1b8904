//! `limits.authFailures`: a ban holds for sessions that were open before it, and for a login that is under way.

use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough};
use crate::support::ports;
use crate::support::talk::{PROTOCOLS, greeted, is_success, log_in, send_login};
use crate::support::wait::PATIENCE;
use crate::support::wire::Wire;

/// One listener for every protocol, in clear, with bans after two refused logins.
struct Edge {
    mailgress: Mailgress,
    listeners: Vec<(&'static str, SocketAddr)>,
    backends: [Backend; 3],
    _folder: Folder,
}

impl Edge {
    fn start(auth: impl Fn(&[Backend; 3]) -> Value) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let listeners =
            PROTOCOLS.map(|protocol| (protocol, SocketAddr::from(([127, 0, 0, 1], ports::free()))));
        let wanted: Vec<Value> = listeners
            .iter()
            .zip(&backends)
            .map(|((protocol, at), to)| {
                listener(&protocol.to_lowercase(), protocol, "Disabled", at.port(), to.address())
            })
            .collect();
        let folder = Folder::new();
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "auth": auth(&backends),
                "limits": { "authFailures": { "count": 2, "window": "10m", "ban": "10m" } },
                "listeners": wanted,
            })),
        );
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, listeners: listeners.into(), backends, _folder: folder }
    }
}

fn too_many(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BYE Too many connections, try again later",
        "POP3" => "-ERR Too many connections, try again later",
        _ => "421 4.7.0 Too many connections, try again later",
    }
}

/// Two refused logins, each in a session of its own.
fn earn_a_ban(protocol: &str, address: SocketAddr) {
    for _ in 0..2 {
        let answer = log_in(&mut greeted(address).unwrap(), protocol, "user", WRONG).unwrap();
        assert!(!is_success(protocol, &answer), "{answer}");
    }
}

fn is_turned_out(mut wire: Wire, protocol: &str) {
    let answer = log_in(&mut wire, protocol, "late", "secret").unwrap();
    assert_eq!(answer, too_many(protocol), "{protocol}");
    assert_eq!(wire.rest(SOON), "", "{protocol}: the session ends");
}

#[test]
fn a_session_that_was_open_before_a_ban_is_refused_before_the_backend_is_asked() {
    let edge = Edge::start(|_| passthrough());
    for ((protocol, address), backend) in edge.listeners.iter().zip(&edge.backends) {
        let open: Vec<Wire> = (0..5).map(|_| greeted(*address).unwrap()).collect();
        earn_a_ban(protocol, *address);
        let asked = backend.accepted();
        for wire in open {
            is_turned_out(wire, protocol);
        }
        assert_eq!(backend.accepted(), asked, "{protocol}: nobody is asked");
    }
    edge.mailgress.logs(&["outcome=\"limited\"", "banned by limits.authFailures"]);
}

#[test]
fn a_session_that_was_open_before_a_ban_is_refused_before_the_auth_service_is_asked() {
    let auth = AuthService::start(|_| Answer::refuse("no"));
    let url = auth.url();
    let edge = Edge::start(move |_| http_auth(&url));
    for (protocol, address) in &edge.listeners {
        let open: Vec<Wire> = (0..5).map(|_| greeted(*address).unwrap()).collect();
        earn_a_ban(protocol, *address);
        for wire in open {
            is_turned_out(wire, protocol);
        }
        assert!(auth.requests_of("late").is_empty(), "{protocol}: the auth service is asked");
    }
}

#[test]
fn a_login_that_is_under_way_when_a_ban_begins_is_refused_though_it_is_right() {
    let (banned, until_banned) = mpsc::channel();
    let (asked, is_asked) = mpsc::channel();
    let (until_banned, asked) = (Mutex::new(until_banned), Mutex::new(asked));
    let auth = AuthService::start(move |request| {
        if request.header("Auth-User") != Some("late") {
            return Answer::refuse("no");
        }
        asked.lock().unwrap().send(()).unwrap();
        let backend: SocketAddr = until_banned.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Answer::Backend(backend)
    });
    let url = auth.url();
    let edge = Edge::start(move |_| http_auth(&url));
    for ((protocol, address), backend) in edge.listeners.iter().zip(&edge.backends) {
        let mut late = greeted(*address).unwrap();
        send_login(&mut late, protocol, "late", "secret").unwrap();
        is_asked.recv_timeout(PATIENCE).unwrap();
        earn_a_ban(protocol, *address);
        banned.send(backend.address()).unwrap();
        assert_eq!(late.rest(SOON).trim_end(), too_many(protocol), "{protocol}");
    }
}

const SOON: Duration = Duration::from_secs(20);
