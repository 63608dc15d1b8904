//! `mailgress sessions`, `mailgress kick` and `mailgress why`, over the control socket of a running process.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, LATER, WRONG};
use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{backend_answers, greeted, is_success, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

const MOMENT: Duration = Duration::from_secs(10);

/// A process with a control socket and an IMAP listener.
struct Edge {
    mailgress: Mailgress,
    address: SocketAddr,
    socket: PathBuf,
    folder: Folder,
    _directory: TempDir,
}

impl Edge {
    fn start(backend: SocketAddr, spec: Value) -> Self {
        let directory = tempfile::Builder::new().prefix("mailgress-control-").tempdir().unwrap();
        let (socket, port) = (directory.path().join("control.sock"), ports::free());
        let mut spec = spec;
        spec["listeners"] = json!([listener("imap", "IMAP", "Disabled", port, backend)]);
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start_with(&folder, &["--control-socket", socket.to_str().unwrap()]);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { mailgress, address, socket, folder, _directory: directory }
    }

    fn log_in(&self, user: &str) -> Wire {
        let mut wire = greeted(self.address).unwrap();
        assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", user, PASSWORD).unwrap()));
        wire
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--control-socket").arg(&self.socket).output().unwrap()
    }

    /// Runs a command and returns what it prints.
    fn says(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    }

    fn sessions(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.says(0, &[&["sessions", "--output", "json"], arguments].concat());
        let list: Value = serde_json::from_str(&said).unwrap();
        assert!(list["replica"].is_string(), "{said}");
        list["sessions"].as_array().unwrap().clone()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn sessions_with_dovecot_are_listed_and_one_user_is_kicked_while_others_stay() {
    let dovecot = servers().dovecot.imap();
    let edge = Edge::start(dovecot, json!({ "auth": passthrough() }));
    assert_eq!(std::fs::metadata(&edge.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let _waiting = greeted(edge.address).unwrap();
    assert_eq!(edge.says(0, &["sessions"]), "There are no sessions.\n");

    let (alice, bob) = (new_user("kicked"), new_user("kept"));
    let (first, second, mut other) = (edge.log_in(&alice), edge.log_in(&alice), edge.log_in(&bob));
    let listed = edge.sessions(&[]);
    let logins: Vec<&str> = listed.iter().map(|session| session["login"].as_str().unwrap()).collect();
    assert_eq!(logins, [&*alice, &*alice, &*bob], "the oldest is first");
    for session in &listed {
        let known = json!({
            "listener": "mail/edge/imap", "protocol": "imap", "client": "127.0.0.1", "tls": "off",
            "backend": dovecot.to_string(),
        });
        for (field, value) in known.as_object().unwrap() {
            assert_eq!(&session[field], value, "{session}");
        }
        assert!(session["toClient"].as_u64() > Some(0), "{session}");
    }
    let table = edge.says(0, &["sessions", "--user", &bob, "--listener", "mail/edge"]);
    assert!(table.contains(listed[2]["id"].as_str().unwrap()) && table.ends_with("\n1 session\n"), "{table}");
    assert_eq!(edge.sessions(&["--backend", &dovecot.to_string()]).len(), 3);
    assert_eq!(edge.says(0, &["sessions", "--listener", "mail/other"]), "No session matches.\n");

    assert_eq!(edge.says(1, &["kick", "--user", "nobody"]), "No session matches.\n");
    assert_eq!(edge.says(0, &["kick", "--user", &alice]), "Ended 2 sessions.\n");
    for wire in [first, second] {
        assert_eq!(wire.rest(MOMENT), "* BYE Session ended by the administrator\r\n");
    }
    assert!(backend_answers(&mut other, "IMAP").unwrap());
    let id = listed[0]["id"].as_str().unwrap();
    let line = edge.mailgress.logs(&[&format!("session={id}"), "outcome=\"kicked\""]);
    assert!(line.contains("fault=\"none\"") && line.contains(&alice), "{line}");

    let id = listed[2]["id"].as_str().unwrap();
    assert_eq!(edge.says(0, &["kick", "--session", id]), "Ended 1 session.\n");
    assert_eq!(other.rest(MOMENT), "* BYE Session ended by the administrator\r\n");
    assert_eq!(edge.says(1, &["kick", "--session", id]), "No session matches.\n");
    assert_eq!(edge.says(1, &["kick", "--backend", "127.0.0.1"]), "No session matches.\n");
}

#[test]
fn the_auth_service_and_the_backend_get_the_id_that_the_log_and_the_list_have() {
    let headers = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&headers);
    let backend = Backend::imap_behind_proxy_v2("imap", move |header| memory.lock().unwrap().push(header));
    let target = backend.address();
    let service = AuthService::start(move |_| Answer::Backend(target));
    let header = json!({ "name": "X-Session", "valueFrom": { "session": "SessionID" } });
    let spec = json!({
        "auth": { "http": { "url": service.url(), "headers": [header] } },
        "upstream": { "proxyProtocol": "V2" },
    });
    let edge = Edge::start(target, spec);
    let (first, _second) = (edge.log_in("one"), edge.log_in("two"));
    let ids: Vec<String> =
        edge.sessions(&[]).iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    let told: Vec<String> = ["one", "two"]
        .iter()
        .map(|user| service.requests_of(user)[0].header("X-Session").unwrap().to_owned())
        .collect();
    assert_eq!(told, ids);
    for (header, id) in headers.lock().unwrap().iter().zip(&ids) {
        let length = u8::try_from(id.len()).unwrap();
        let unique_id = [&[5, 0, length], id.as_bytes()].concat();
        assert!(
            header.windows(unique_id.len()).any(|window| window == unique_id),
            "{}",
            header.escape_ascii()
        );
    }
    drop(first);
    edge.mailgress.logs(&["backend=", &format!("session={}", ids[0])]);
}

#[test]
fn why_tells_the_route_and_the_backend_that_a_login_reaches() {
    let (own, moved) = (Backend::imap("own"), Backend::imap("moved"));
    let edge = Edge::start(own.address(), json!({ "auth": passthrough(), "allowedRoutes": [{}] }));
    let before = edge.says(0, &["why", "al@moved.test"]);
    assert!(before.contains("route:    none matches"), "{before}");
    assert!(before.contains(&format!("{}, the listener's own", own.address())), "{before}");
    edge.folder.write(
        "route.yaml",
        &json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailRoute",
            "metadata": { "name": "moved", "namespace": "mail" },
            "spec": {
                "serverRef": { "name": "edge" },
                "match": { "domains": ["*.test"], "users": ["bob@other.example"] },
                "backend": { "services": [{ "protocol": "IMAP", "address": moved.address().to_string() }] },
            },
        }),
    );
    let endpoint = format!("  endpoint: {}\n", moved.address());
    wait::eventually("the route is served", || {
        edge.says(0, &["why", "al@moved.test"]).contains(&endpoint).then_some(())
    });
    for (user, target, matched) in [
        ("al@moved.test", &moved, "mail/moved, by the domain *.test"),
        ("bob@other.example", &moved, "mail/moved, by the user"),
        ("al@other.example", &own, "none matches"),
    ] {
        let _session = edge.log_in(user);
        let said = edge.says(0, &["why", user, "--protocol", "IMAP"]);
        assert!(said.contains(&format!("  route:    {matched}\n")), "{said}");
        assert!(said.contains("\n1 open session on this replica"), "{said}");
        let reached = edge.sessions(&["--user", user])[0]["backend"].clone();
        let json = edge.says(0, &["why", user, "--output", "json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["listeners"][0]["outcome"]["endpoints"][0]["address"], reached, "{json}");
        assert_eq!(reached, target.address().to_string());
    }
    assert_eq!(edge.says(1, &["why", "al@moved.test", "--recipient"]), "No listener matches.\n");
    edge.says(2, &["why", ""]);
}

#[test]
fn why_tells_the_last_refusals_of_a_user_and_the_bans_of_their_clients() {
    let backend = Backend::imap("imap");
    let limits = json!({ "authFailures": { "count": 2, "window": "10m", "ban": "10m" } });
    let edge = Edge::start(backend.address(), json!({ "auth": passthrough(), "limits": limits }));
    let before = edge.says(0, &["why", "al@a.test"]);
    assert!(before.contains("no refused login is remembered"), "{before}");
    let refuse = |user: &str, password: &str| {
        let mut wire = greeted(edge.address).unwrap();
        assert!(!is_success("IMAP", &log_in(&mut wire, "IMAP", user, password).unwrap()));
    };
    refuse("al@a.test", LATER);
    refuse("al@a.test", WRONG);
    let remembered = |user: &str| -> Value {
        serde_json::from_str(&edge.says(0, &["why", user, "--output", "json"])).unwrap()
    };
    let reasons = |answer: &Value| -> Vec<String> {
        let refusals = answer["refusals"].as_array().unwrap();
        refusals.iter().map(|refusal| refusal["reason"].as_str().unwrap().to_owned()).collect()
    };
    let answer = remembered("al@A.TEST");
    assert_eq!(reasons(&answer), ["credentials", "unavailable"], "{answer}");
    assert_eq!(answer["bans"], json!([]), "{answer}");
    let refusal = &answer["refusals"][1];
    assert_eq!((&refusal["client"], &refusal["listener"]), (&json!("127.0.0.1"), &json!("mail/edge/imap")));
    assert!(refusal["detail"].as_str().unwrap().contains("because of a problem of its own"), "{answer}");

    refuse("bob@a.test", WRONG);
    let answer = remembered("bob@a.test");
    assert_eq!((reasons(&answer).len(), &answer["bans"][0]["client"]), (1, &json!("127.0.0.1")), "{answer}");
    let said = edge.says(0, &["why", "al@a.test"]);
    assert!(said.contains("127.0.0.1 is banned at mail/edge/imap until"), "{said}");
    assert!(reasons(&remembered("carol@a.test")).is_empty());
}

#[test]
fn a_socket_of_a_killed_process_is_replaced_and_one_of_a_living_process_is_not() {
    let backend = Backend::imap("imap");
    let mut edge = Edge::start(backend.address(), json!({ "auth": passthrough() }));
    let second = |edge: &Edge| {
        let mut command = Command::new(binary());
        command
            .args(["run", "--admin-address", "127.0.0.1:0", "--status-address", "127.0.0.1:0", "--manifests"])
            .arg(edge.folder.path());
        command.arg("--control-socket").arg(&edge.socket).output().unwrap()
    };
    let refused = second(&edge);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("--control-socket") && said.contains("another process listens there"), "{said}");
    assert_eq!(edge.says(0, &["sessions"]), "There are no sessions.\n");

    edge.mailgress.signal(9);
    edge.mailgress.wait(MOMENT);
    assert!(edge.socket.exists(), "a killed process leaves it behind");
    let said = edge.says(1, &["sessions"]);
    assert!(said.contains("the process that created the socket has ended"), "{said}");
    let socket = edge.socket.to_str().unwrap().to_owned();
    let mut next = Mailgress::start_with(&edge.folder, &["--control-socket", &socket]);
    assert_eq!(edge.says(0, &["sessions"]), "There are no sessions.\n");
    next.terminate();
    next.wait(MOMENT);
    assert!(!edge.socket.exists(), "a process removes its own");
}

#[test]
fn without_the_flag_there_is_no_socket_and_the_command_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let output = Command::new(binary())
        .args(["kick", "--user", "u", "--control-socket"])
        .arg(&socket)
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("kubectl exec") && said.contains("--control-socket PATH"), "{said}");
    let usage = Command::new(binary()).arg("kick").output().unwrap();
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage));
}
