//! `limits.authFailures`: a ban applies to sessions that were open before it, and to a login in progress. Guesses cause
//! a ban, but the same outdated password does not, and a load balancer's address is never banned.

use std::cell::OnceCell;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::acceptor::Acceptor;
use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, LATER, WRONG};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, with};
use crate::support::ports;
use crate::support::talk::{PROTOCOLS, greeted, is_success, log_in, send_login};
use crate::support::wait::{self, PATIENCE};
use crate::support::wire::Wire;

/// One listener for each protocol without TLS, with a ban after two refused logins.
struct Edge {
    mailgress: Mailgress,
    listeners: Vec<(&'static str, SocketAddr)>,
    backends: [Backend; 3],
    _folder: Folder,
}

impl Edge {
    fn start(auth: impl Fn(&[Backend; 3]) -> Value) -> Self {
        let limits = json!({ "authFailures": { "count": 2, "window": "10m", "ban": "10m" } });
        Self::with(auth, &limits, &json!({}))
    }

    /// Starts it with these limits and listener fields.
    fn with(auth: impl Fn(&[Backend; 3]) -> Value, limits: &Value, fields: &Value) -> Self {
        let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
        let addresses = backends.each_ref().map(Backend::address);
        Self::between(backends, &addresses, auth, limits, fields)
    }

    /// As [`Self::with`], with the backends at these addresses.
    fn between(
        backends: [Backend; 3],
        addresses: &[SocketAddr],
        auth: impl Fn(&[Backend; 3]) -> Value,
        limits: &Value,
        fields: &Value,
    ) -> Self {
        let listeners =
            PROTOCOLS.map(|protocol| (protocol, SocketAddr::from(([127, 0, 0, 1], ports::free()))));
        let wanted: Vec<Value> = listeners
            .iter()
            .zip(addresses)
            .map(|((protocol, at), to)| {
                let base = listener(&protocol.to_lowercase(), protocol, "Disabled", at.port(), *to);
                with(base, fields)
            })
            .collect();
        let folder = Folder::new();
        folder.write(
            "server.yaml",
            &mail_server(&json!({
                "auth": auth(&backends),
                "limits": limits,
                "listeners": wanted,
            })),
        );
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, listeners: listeners.into(), backends, _folder: folder }
    }
}

impl Edge {
    fn refusals_of_the_service(&self) -> u32 {
        let metrics = self.mailgress.metrics();
        let of_service = metrics.lines().filter(|line| {
            line.starts_with("mailgress_auth_service_requests_total{") && line.contains("\"refused\"")
        });
        of_service.filter_map(|line| line.split(' ').nth(1)?.parse::<u32>().ok()).sum()
    }
}

fn too_many(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "* BYE Too many connections, try again later",
        "POP3" => "-ERR Too many connections, try again later",
        _ => "421 4.7.0 Too many connections, try again later",
    }
}

/// Two refused logins, each in its own session.
fn earn_a_ban(protocol: &str, address: SocketAddr) {
    for user in ["user", "another"] {
        let answer = log_in(&mut greeted(address).unwrap(), protocol, user, WRONG).unwrap();
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

/// Holds requests back until it is opened.
#[derive(Default)]
struct Gate {
    /// How many wait, and whether it is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        let _open = self.changed.wait_timeout_while(state, PATIENCE, |(_, is_open)| !*is_open).unwrap();
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().0
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Forwards connections to `backend`, and the first [`GUESSES`] of them only when `gate` opens.
fn held(backend: SocketAddr, gate: Arc<Gate>) -> Acceptor {
    let accepted = AtomicUsize::new(0);
    Acceptor::start_on(Ipv4Addr::LOCALHOST.into(), move |stream| {
        if accepted.fetch_add(1, Ordering::SeqCst) < GUESSES.len() {
            gate.pass();
        }
        let to = TcpStream::connect(backend).unwrap();
        let pump = |mut from: TcpStream, mut to: TcpStream| {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        };
        let (from, back) = (stream.try_clone().unwrap(), to.try_clone().unwrap());
        let forth = std::thread::spawn(move || pump(from, to));
        pump(back, stream);
        forth.join().unwrap();
    })
}

/// Guesses in parallel, gets the client banned, and only then lets the guesses be answered.
fn guesses_get_the_same_answer(protocol: &str, address: SocketAddr, gate: &Gate) {
    let mut guessing = Vec::new();
    for (index, password) in GUESSES.iter().enumerate() {
        let mut wire = greeted(address).unwrap();
        send_login(&mut wire, protocol, "late", password).unwrap();
        wait::eventually("the guess waits", || (gate.waiting() > index).then_some(()));
        guessing.push(wire);
    }
    earn_a_ban(protocol, address);
    gate.open();
    for (wire, password) in guessing.into_iter().zip(GUESSES) {
        assert_eq!(wire.rest(SOON).trim_end(), too_many(protocol), "{protocol}: {password}");
    }
}

#[test]
fn the_auth_services_answers_after_a_ban_do_not_tell_the_right_password_of_parallel_guesses() {
    let gates: [Arc<Gate>; 3] = Default::default();
    let service = OnceCell::new();
    let edge = Edge::start(|backends| {
        let to = backends.each_ref().map(Backend::address);
        let gates = gates.clone();
        let auth = AuthService::start(move |request| {
            if request.header("Auth-User") != Some("late") {
                return Answer::refuse("no");
            }
            let protocol = request.header("Auth-Protocol").unwrap().to_uppercase();
            let index = PROTOCOLS.iter().position(|known| *known == protocol).unwrap();
            gates[index].pass();
            match request.header("Auth-Pass") {
                Some(RIGHT) => Answer::Backend(to[index]),
                Some(WITHOUT_BACKEND) => Answer::Backend(([127, 0, 0, 1], 1).into()),
                Some(WRONG) => Answer::refuse("no"),
                Some(LATER) => Answer::Status("500 Internal Server Error", Vec::new()),
                _ => Answer::Headers(vec![("Auth-Status", "no".to_owned()), ("Auth-Wait", "600".to_owned())]),
            }
        });
        http_auth(&service.get_or_init(|| auth).url())
    });
    for ((protocol, address), gate) in edge.listeners.iter().zip(&gates) {
        guesses_get_the_same_answer(protocol, *address, gate);
    }
}

#[test]
fn the_backends_answers_after_a_ban_do_not_tell_the_right_password_of_parallel_guesses() {
    let gates: [Arc<Gate>; 3] = Default::default();
    let backends = [Backend::imap("imap"), Backend::pop3("pop3"), Backend::smtp("smtp")];
    let held: Vec<Acceptor> =
        backends.iter().zip(&gates).map(|(to, gate)| held(to.address(), Arc::clone(gate))).collect();
    let fronts = held.iter().map(Acceptor::address).collect::<Vec<_>>();
    let edge = Edge::between(backends, &fronts, |_| passthrough(), &ban_after_two(), &json!({}));
    for ((protocol, address), gate) in edge.listeners.iter().zip(&gates) {
        guesses_get_the_same_answer(protocol, *address, gate);
    }
}

/// Refused logins, each in its own connection that starts with `header`.
fn refused(address: SocketAddr, protocol: &str, header: &str, passwords: &[&str]) {
    for password in passwords {
        let mut wire = behind(address, header);
        let answer = log_in(&mut wire, protocol, "user", password).unwrap();
        assert!(!is_success(protocol, &answer) && answer != too_many(protocol), "{protocol}: {answer}");
    }
}

/// Opens a connection that starts with `header`, and reads the greeting.
fn behind(address: SocketAddr, header: &str) -> Wire {
    let mut wire = Wire::connect(address).unwrap();
    wire.send(header).unwrap();
    wire.line().unwrap();
    wire
}

fn ban_after_two() -> Value {
    json!({ "authFailures": { "count": 2, "window": "10m", "ban": "10m" } })
}

#[test]
fn a_device_that_goes_on_with_an_old_password_is_not_banned_and_who_guesses_is() {
    let auth = AuthService::start(|_| Answer::refuse("no"));
    let url = auth.url();
    for by in [http_auth(&url), passthrough()] {
        let edge = Edge::start(|_| by.clone());
        for (protocol, address) in &edge.listeners {
            refused(*address, protocol, "", &[WRONG; 10]);
        }
        if by == http_auth(&url) {
            for (protocol, address) in &edge.listeners {
                refused(*address, protocol, "", &["guess"]);
                let told = Wire::connect(*address).unwrap().rest(SOON);
                assert_eq!(told.trim_end(), too_many(protocol), "{protocol}");
            }
        }
    }
}

#[test]
fn an_exempt_network_is_neither_banned_nor_limited() {
    let limits = json!({ "exempt": ["192.0.2.0/24", "127.0.0.1"], "maxConnectionsPerClient": 1 });
    let edge = Edge::with(|_| passthrough(), &with(ban_after_two(), &limits), &json!({}));
    for (protocol, address) in &edge.listeners {
        let _open = [(); 3].map(|()| greeted(*address).unwrap());
        for user in ["a", "b", "c", "d"] {
            let answer = log_in(&mut greeted(*address).unwrap(), protocol, user, WRONG).unwrap();
            assert!(!is_success(protocol, &answer) && answer != too_many(protocol), "{protocol}: {answer}");
        }
        let mut wire = greeted(*address).unwrap();
        assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
        let other = Ipv4Addr::new(127, 0, 0, 2);
        let mut first = Wire::connect_from(other, *address).unwrap();
        assert_ne!(first.line().unwrap(), too_many(protocol), "{protocol}");
        let mut second = Wire::connect_from(other, *address).unwrap();
        assert_eq!(second.line().unwrap(), too_many(protocol), "{protocol}: another network is limited");
    }
}

#[test]
fn a_load_balancer_that_names_no_client_is_never_banned_for_others_but_one_connection_has_its_limit() {
    let proxy = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.1"] } });
    let limits = json!({ "maxConnectionsPerClient": 2, "maxAuthFailures": 2 });
    let edge = Edge::with(|_| passthrough(), &with(ban_after_two(), &limits), &proxy);
    let local = String::from_utf8(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()).unwrap();
    for header in ["PROXY UNKNOWN\r\n", &local] {
        for (protocol, address) in &edge.listeners {
            let _health_checks = [(); 5].map(|()| behind(*address, header));
            for user in ["a", "b", "c", "d"] {
                let answer = log_in(&mut behind(*address, header), protocol, user, WRONG).unwrap();
                assert!(answer.contains("refused by"), "{protocol}: {answer}");
            }
            let mut wire = behind(*address, header);
            assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
            let mut guessing = behind(*address, header);
            for user in ["a", "b"] {
                log_in(&mut guessing, protocol, user, WRONG).unwrap();
            }
            assert_eq!(guessing.rest(SOON), "", "{protocol}: maxAuthFailures holds");
        }
    }
}

#[test]
fn a_load_balancer_whose_header_is_not_used_is_not_banned_for_one_of_its_clients() {
    let proxy = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.1"], "useAsClientAddress": false } });
    let edge = Edge::with(|_| passthrough(), &ban_after_two(), &proxy);
    let header = "PROXY TCP4 192.0.2.7 203.0.113.1 40000 143\r\n";
    for (protocol, address) in &edge.listeners {
        for user in ["a", "b", "c", "d"] {
            let answer = log_in(&mut behind(*address, header), protocol, user, WRONG).unwrap();
            assert!(answer.contains("refused by"), "{protocol}: {answer}");
        }
    }
}

#[test]
fn a_client_that_leaves_while_its_refusal_is_held_back_is_counted() {
    let (asked, is_asked) = mpsc::channel();
    let asked = Mutex::new(asked);
    let auth = AuthService::start(move |_| {
        asked.lock().unwrap().send(()).unwrap();
        Answer::Headers(vec![("Auth-Status", "no".to_owned()), ("Auth-Wait", "60".to_owned())])
    });
    let url = auth.url();
    let edge = Edge::start(move |_| http_auth(&url));
    let mut answered = 0;
    for (protocol, address) in &edge.listeners {
        for user in ["user", "another"] {
            let mut wire = greeted(*address).unwrap();
            send_login(&mut wire, protocol, user, WRONG).unwrap();
            is_asked.recv_timeout(PATIENCE).unwrap();
            answered += 1;
            wait::eventually("Mailgress has the service's answer", || {
                (edge.refusals_of_the_service() == answered).then_some(())
            });
            drop(wire);
        }
        wait::eventually("the client is banned", || {
            let told = Wire::connect(*address).unwrap().line().unwrap();
            (told == too_many(protocol)).then_some(())
        });
    }
}

/// A correct password is accepted at once, so without this count, a client could guess and leave early without being
/// counted.
#[test]
fn a_client_that_leaves_before_its_refusal_is_there_is_counted() {
    let (asked, is_asked) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    let (asked, is_released) = (Mutex::new(asked), Mutex::new(is_released));
    let auth = AuthService::start(move |_| {
        asked.lock().unwrap().send(()).unwrap();
        is_released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Answer::refuse("no")
    });
    let url = auth.url();
    let edge = Edge::start(move |_| http_auth(&url));
    for (protocol, address) in &edge.listeners {
        for user in ["user", "another"] {
            let mut wire = greeted(*address).unwrap();
            send_login(&mut wire, protocol, user, WRONG).unwrap();
            is_asked.recv_timeout(PATIENCE).unwrap();
            drop(wire);
            release.send(()).unwrap();
        }
        wait::eventually("the client is banned", || {
            let told = Wire::connect(*address).unwrap().line().unwrap();
            (told == too_many(protocol)).then_some(())
        });
    }
}

/// The auth service only names the backend, and the backend checks the password.
#[test]
fn a_password_that_the_backend_refuses_is_counted_if_it_is_the_clients_own() {
    let start = |password: Option<&'static str>| {
        let service = OnceCell::new();
        let edge = Edge::start(|backends| {
            let to = backends.each_ref().map(Backend::address);
            let auth = AuthService::start(move |request| {
                let at = match request.header("Auth-Protocol") {
                    Some("imap") => to[0],
                    Some("pop3") => to[1],
                    _ => to[2],
                };
                let mut headers = vec![
                    ("Auth-Status", "OK".to_owned()),
                    ("Auth-Server", at.ip().to_string()),
                    ("Auth-Port", at.port().to_string()),
                ];
                headers.extend(password.map(|password| ("Auth-Pass", password.to_owned())));
                Answer::Headers(headers)
            });
            http_auth(&service.get_or_init(|| auth).url())
        });
        (edge, service)
    };
    for (password, is_counted) in [(None, true), (Some(WRONG), false)] {
        let (edge, _service) = start(password);
        // By default, a login at an SMTP backend has no password.
        for (protocol, address) in edge.listeners.iter().filter(|(protocol, _)| *protocol != "SMTP") {
            for user in ["user", "another"] {
                let mut wire = greeted(*address).unwrap();
                let answer = log_in(&mut wire, protocol, user, WRONG).unwrap();
                assert!(!is_success(protocol, &answer), "{answer}");
            }
            let told = Wire::connect(*address).unwrap().line().unwrap();
            assert_eq!(told == too_many(protocol), is_counted, "{protocol}: {told}");
        }
    }
}

const SOON: Duration = Duration::from_secs(20);

const RIGHT: &str = "secret";
/// The auth service accepts it and names a backend that is not there.
const WITHOUT_BACKEND: &str = "without-backend";
const GUESSES: [&str; 5] = [WRONG, "held-back", RIGHT, WITHOUT_BACKEND, LATER];
