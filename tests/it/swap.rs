//! A thousand edits under load: no session is lost, no connection is refused, and every new session uses the newest
//! configuration.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::auth_service::AuthService;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::{AUTHORITY, Identity};
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{PROTOCOLS, backend_answers, greeted, is_success, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const SESSIONS: usize = 200;
const EDITS: usize = 1000;
/// Time between two commands of one session.
const PACE: Duration = Duration::from_millis(200);

/// The content of the folder after an edit.
#[derive(Clone)]
struct Wanted {
    edit: usize,
    /// The port of the listener that edits add and remove.
    extra: Option<u16>,
    extra_capability: usize,
    certificate: usize,
    second_backend: bool,
    http: bool,
}

/// The parts that stay the same.
struct Edge {
    folder: Folder,
    /// Listeners that no edit removes: each protocol with StartTLS and with implicit TLS.
    stable: Vec<(&'static str, &'static str, SocketAddr)>,
    /// A listener whose backend and auth change.
    routed: SocketAddr,
    backends: [Backend; 3],
    auth: AuthService,
    identities: Vec<Identity>,
}

impl Edge {
    fn new() -> Self {
        let backends = ["first", "second", "by-auth"].map(Backend::imap);
        let by_auth = backends[2].address();
        let auth = AuthService::routing(PASSWORD, move |_| by_auth);
        let each = |tls: &'static str| PROTOCOLS.map(|protocol| (protocol, tls, loopback(ports::free())));
        Self {
            folder: Folder::new(),
            stable: [each("StartTLS"), each("Implicit")].concat(),
            routed: loopback(ports::free()),
            backends,
            auth,
            identities: std::iter::repeat_with(|| AUTHORITY.issue_for_loopback()).take(8).collect(),
        }
    }

    fn mail_server(&self, wanted: &Wanted) -> Value {
        let mut listeners: Vec<Value> = self
            .stable
            .iter()
            .map(|(protocol, tls, address)| {
                let name = format!("{}-{}", protocol.to_lowercase(), tls.to_lowercase());
                listener(&name, protocol, tls, address.port(), backend_of(protocol))
            })
            .collect();
        let backend = self.backends[usize::from(wanted.second_backend)].address();
        let auth = if wanted.http { http_auth(&self.auth.url()) } else { passthrough() };
        let routed = listener("routed", "IMAP", "Disabled", self.routed.port(), backend);
        listeners.push(with(routed, &json!({ "auth": auth })));
        if let Some(port) = wanted.extra {
            let capabilities = ["IMAP4rev1".to_owned(), format!("XEDIT{}", wanted.extra_capability)];
            let extra = listener("extra", "IMAP", "Disabled", port, backend);
            listeners.push(with(extra, &json!({ "imap": { "capabilities": capabilities } })));
        }
        for listener in &mut listeners {
            merge_passthrough(listener);
        }
        mail_server(&json!({
            "serverName": server_name(wanted.edit),
            "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
            "listeners": listeners,
        }))
    }

    fn write(&self, wanted: &Wanted) {
        let object = self.mail_server(wanted);
        // Editors replace a file, scripts overwrite it, and some writes are read incomplete.
        match wanted.edit % 3 {
            0 => self.folder.replace("server.yaml", &object),
            // If a file is overwritten in place, a removed listener is noticed only after two seconds.
            _ if wanted.extra.is_none() => self.folder.replace("server.yaml", &object),
            1 => self.folder.write("server.yaml", &object),
            _ => {
                let text = serde_yaml::to_string(&object).unwrap();
                self.folder
                    .write_text("server.yaml", &text[..text.len() / 2])
                    .write_text("server.yaml", &text)
            }
        };
    }

    fn write_certificate(&self, wanted: &Wanted) {
        self.folder.replace("tls.yaml", &tls_secret("mail-tls", &self.identities[wanted.certificate]));
    }

    /// Tells whether new sessions use the whole configuration.
    fn is_served(&self, wanted: &Wanted, before: &Wanted) -> bool {
        let smtp = self.stable[2].2;
        let expected = format!("220 {} ESMTP ready", server_name(wanted.edit));
        if Wire::connect(smtp).and_then(|mut wire| wire.line()).unwrap() != expected {
            return false;
        }
        let secured = Wire::connect_tls(self.stable[3].2).unwrap();
        if secured.certificate() != self.identities[wanted.certificate].der {
            return false;
        }
        let mut wire = greeted(self.routed).unwrap();
        let name = match (wanted.http, wanted.second_backend) {
            (true, _) => "by-auth",
            (false, true) => "second",
            (false, false) => "first",
        };
        if log_in(&mut wire, "IMAP", "user", PASSWORD).unwrap() != format!("a OK {name}") {
            return false;
        }
        match (wanted.extra, before.extra) {
            (Some(port), _) => {
                let Ok(mut wire) = greeted(loopback(port)) else { return false };
                let capabilities = wire.imap("a", "CAPABILITY").unwrap();
                capabilities[0].contains(&format!("XEDIT{}", wanted.extra_capability))
            }
            (None, Some(port)) => Wire::connect(loopback(port)).is_err(),
            (None, None) => true,
        }
    }
}

fn merge_passthrough(listener: &mut Value) {
    if listener.get("auth").is_none() {
        listener["auth"] = passthrough();
    }
}

fn server_name(edit: usize) -> String {
    format!("edit-{edit}.example.test")
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn backend_of(protocol: &str) -> SocketAddr {
    match protocol {
        "IMAP" => servers().dovecot.imap(),
        "POP3" => servers().dovecot.pop3(),
        _ => servers().postfix.submission(),
    }
}

/// The next edit: add a listener, change it, a certificate, a backend, an auth, or remove the listener.
fn next(before: &Wanted) -> Wanted {
    let mut wanted = Wanted { edit: before.edit + 1, ..before.clone() };
    match wanted.edit % 6 {
        1 => wanted.extra = Some(ports::free()),
        2 => wanted.extra_capability = wanted.edit,
        3 => wanted.certificate = (wanted.certificate + 1) % 8,
        4 => wanted.second_backend = !wanted.second_backend,
        5 => wanted.http = !wanted.http,
        _ => wanted.extra = None,
    }
    wanted
}

fn open_session(index: usize, edge: &Edge) -> (&'static str, Wire) {
    let (protocol, tls, address) = edge.stable[index % edge.stable.len()];
    let mut wire =
        if tls == "Implicit" { Wire::connect_tls(address) } else { Wire::connect(address) }.unwrap();
    wire.line().unwrap();
    let answer = log_in(&mut wire, protocol, &new_user("swap"), PASSWORD).unwrap();
    assert!(is_success(protocol, &answer), "{protocol}: {answer}");
    (protocol, wire)
}

/// Sends commands until `stop`, then logs out. An error means that the session was lost.
fn keep_talking(
    protocol: &str,
    wire: &mut Wire,
    stop: &AtomicBool,
    answers: &AtomicU64,
) -> std::io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        assert!(backend_answers(wire, protocol)?);
        answers.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
    let goodbye =
        if protocol == "IMAP" { wire.imap("z", "LOGOUT")?.pop().unwrap() } else { wire.ask("QUIT")? };
    assert!(goodbye.starts_with(match protocol {
        "IMAP" => "z OK",
        "POP3" => "+OK",
        _ => "221 ",
    }));
    Ok(())
}

/// Connects to every stable port in turn, as fast as greetings arrive.
fn keep_connecting(edge: &Edge, stop: &AtomicBool, connections: &AtomicU64) -> std::io::Result<()> {
    for (_, tls, address) in edge.stable.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut wire =
            if *tls == "Implicit" { Wire::connect_tls(*address)? } else { Wire::connect(*address)? };
        wire.line()?;
        connections.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Makes all edits. Returns for each the time from writing the file until new sessions use it.
fn edit(edge: &Edge, first: Wanted) -> Vec<Duration> {
    let mut times = Vec::with_capacity(EDITS);
    let mut before = first;
    for _ in 0..EDITS {
        let wanted = next(&before);
        if wanted.certificate != before.certificate {
            edge.write_certificate(&wanted);
        }
        edge.write(&wanted);
        let written = Instant::now();
        wait::eventually(&format!("edit {} is served", wanted.edit), || {
            edge.is_served(&wanted, &before).then_some(())
        });
        times.push(written.elapsed());
        assert!(edge.is_served(&wanted, &before), "edit {}: an old configuration came back", wanted.edit);
        before = wanted;
    }
    times
}

#[test]
fn a_thousand_edits_lose_no_session_and_refuse_no_connection() {
    let edge = Edge::new();
    let first = Wanted {
        edit: 0,
        extra: None,
        extra_capability: 0,
        certificate: 0,
        second_backend: false,
        http: false,
    };
    edge.write_certificate(&first);
    edge.write(&first);
    let _mailgress = Mailgress::start_with(&edge.folder, &["--drain-timeout", "600s"]);
    let mut sessions: Vec<_> = (0..SESSIONS).map(|index| open_session(index, &edge)).collect();
    let (stop, answers, connections) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (mut times, lost, refused) = std::thread::scope(|scope| {
        let talking: Vec<_> = sessions
            .iter_mut()
            .map(|(protocol, wire)| scope.spawn(|| keep_talking(protocol, wire, &stop, &answers)))
            .collect();
        let connecting = scope.spawn(|| keep_connecting(&edge, &stop, &connections));
        // Stop the others even if an edit fails.
        let edits = scope.spawn(|| edit(&edge, first)).join();
        stop.store(true, Ordering::Relaxed);
        let lost: Vec<_> = talking.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
        let refused = connecting.join().unwrap().err();
        (edits.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), lost, refused)
    });
    times.sort_unstable();
    println!(
        "{EDITS} edits, file written to serving: median {:?}, maximum {:?}; meanwhile {SESSIONS} sessions got \
         {} answers and {} new ones were greeted",
        times[EDITS / 2],
        times[EDITS - 1],
        answers.load(Ordering::Relaxed),
        connections.load(Ordering::Relaxed),
    );
    assert!(lost.is_empty(), "{} sessions were lost: {lost:?}", lost.len());
    assert!(refused.is_none(), "a new session failed on a port that did not change: {refused:?}");
}
