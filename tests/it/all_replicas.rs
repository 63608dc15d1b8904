//! `--all-replicas` of `mailgress sessions`, `kick` and `why`: two real processes behind a scripted API server, which
//! runs the commands of `pods/exec` with the real program. `tests/e2e/all_replicas.rs` does it with a real kubelet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::backend::{Backend, WRONG};
use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::ports;
use crate::support::talk::{greeted, is_success, log_in};
use crate::support::wire::Wire;

/// The replicas `a` and `b`, and the API server.
struct Site {
    imap: [SocketAddr; 2],
    kubeconfig: PathBuf,
    _replicas: [Mailgress; 2],
    _folders: [Folder; 2],
    _backend: Backend,
    _directory: TempDir,
}

impl Site {
    /// Starts it. `others` are further pods, with their phases, in which no command can be run.
    fn start(others: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("mailgress-replicas-").tempdir().unwrap();
        let (backend, at) = (Backend::imap("imap"), [ports::free(), ports::free()]);
        let folders = at.map(|port| {
            let folder = Folder::new();
            let listeners = [listener("imap", "IMAP", "Disabled", port, backend.address())];
            folder.write(
                "server.yaml",
                &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })),
            );
            folder
        });
        let sockets = ["a", "b"].map(|name| directory.path().join(name));
        let start = |index: usize| {
            Mailgress::start_with(&folders[index], &["--control-socket", sockets[index].to_str().unwrap()])
        };
        let replicas = [start(0), start(1)];
        let mut pods: Vec<_> = others.iter().map(|(name, phase)| Pod::new(name, phase, None)).collect();
        pods.extend(["b", "a"].map(|name| Pod::new(name, "Running", Some(directory.path().join(name)))));
        let api = serve(pods);
        let kubeconfig = directory.path().join("kubeconfig");
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{ "name": "here", "cluster": { "server": format!("http://{api}") } }],
            "users": [{ "name": "me", "user": {} }],
            "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "me", "namespace": "mail" } }],
        });
        std::fs::write(&kubeconfig, content.to_string()).unwrap();
        let imap = at.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            imap,
            kubeconfig,
            _replicas: replicas,
            _folders: folders,
            _backend: backend,
            _directory: directory,
        }
    }

    fn log_in(&self, replica: usize, user: &str, password: &str) -> (Wire, bool) {
        let mut wire = greeted(self.imap[replica]).unwrap();
        let is_in = is_success("IMAP", &log_in(&mut wire, "IMAP", user, password).unwrap());
        (wire, is_in)
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--all-replicas").arg("--kubeconfig").arg(&self.kubeconfig);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }
}

#[test]
fn all_replicas_are_asked_and_their_answers_are_one() {
    let site = Site::start(&[("ended", "Succeeded"), ("new", "Pending")]);
    let sessions = ["al@a.test", "bob@a.test"].map(|user| site.log_in(0, user, "secret"));
    let (third, is_in) = site.log_in(1, "al@a.test", "secret");
    assert!(is_in && sessions.iter().all(|(_, is_in)| *is_in));

    let (code, table, stderr) = site.command(&["sessions"]);
    assert_eq!(code, Some(0), "{table}{stderr}");
    assert!(table.starts_with("REPLICA") && table.ends_with("\n3 sessions on 2 replicas\n"), "{table}");
    let (code, json, _) = site.command(&["sessions", "--user", "al@a.test", "--output", "json"]);
    let answers: Value = serde_json::from_str(&json).unwrap();
    let counts: Vec<_> = answers["replicas"].as_array().unwrap().iter().map(|one| &one["sessions"]).collect();
    assert_eq!(code, Some(0));
    assert!(counts.iter().all(|sessions| sessions.as_array().unwrap().len() == 1), "{json}");
    assert_eq!(answers["failed"], json!([]));

    let (code, said, stderr) = site.command(&["kick", "--user", "al@a.test"]);
    assert_eq!((code, said.as_str()), (Some(0), "Ended 2 sessions on 2 replicas.\n"), "{stderr}");
    assert!(third.rest(std::time::Duration::from_secs(10)).starts_with("* BYE"));
    let (code, said, _) = site.command(&["kick", "--user", "al@a.test"]);
    assert_eq!((code, said.as_str()), (Some(1), "No session matches.\n"));

    assert!(!site.log_in(1, "bob@a.test", WRONG).1);
    let (code, said, stderr) = site.command(&["why", "bob@a.test", "--protocol", "IMAP"]);
    assert_eq!(code, Some(0), "{said}{stderr}");
    assert!(
        said.contains("1 open session on 2 replicas: 1 on ") && said.contains("  credentials\n"),
        "{said}"
    );
}

#[test]
fn a_replica_that_cannot_be_asked_is_named_and_the_others_answer() {
    let site = Site::start(&[("c", "Running")]);
    let (_session, is_in) = site.log_in(1, "al@a.test", "secret");
    assert!(is_in);
    let (code, table, stderr) = site.command(&["sessions"]);
    assert_eq!(code, Some(1), "{table}{stderr}");
    assert!(table.ends_with("\n1 session on 2 replicas\n"), "{table}");
    assert!(
        stderr.contains("c: pods \"c\" is forbidden") && stderr.contains("get and create on pods/exec"),
        "{stderr}"
    );
    let (code, json, _) = site.command(&["why", "al@a.test", "-o", "json"]);
    let answers: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &answers["failed"][0]["replica"]), (Some(1), &json!("c")), "{json}");
}

#[test]
fn without_a_pod_the_command_says_what_to_do() {
    let site = Site::start(&[]);
    let (code, _, stderr) = site.command(&["sessions", "-n", "elsewhere"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("runs in namespace elsewhere") && stderr.contains("--selector"), "{stderr}");
    let (code, _, stderr) = site.command(&["sessions", "-n", "forbidden"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the pods in namespace forbidden cannot be listed"), "{stderr}");
}

/// A pod of the scripted API server.
struct Pod {
    name: String,
    phase: String,
    /// The control socket of its process; `None` if no command can be run in it.
    socket: Option<PathBuf>,
}

impl Pod {
    fn new(name: &str, phase: &str, socket: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), phase: phase.to_owned(), socket }
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": self.name, "namespace": "mail" },
            "spec": { "containers": [{ "name": "sidecar" }, { "name": "mailgress" }] },
            "status": { "phase": self.phase },
        })
    }
}

/// Serves lists of pods in the namespace `mail`, and commands in them. Its threads end with the process.
fn serve(pods: Vec<Pod>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, pods) = (listener.local_addr().unwrap(), Arc::new(pods));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pods = Arc::clone(&pods);
            // A client that leaves ends its thread.
            thread::spawn(move || answer(stream, &pods));
        }
    });
    address
}

fn answer(stream: TcpStream, pods: &[Pod]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut key = String::new();
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            key = value.to_owned();
        }
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let forbidden = |message: String| {
        (
            403,
            json!({ "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message }),
        )
    };
    let namespace = path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.split('/').next());
    let (status, body) = match (namespace, path.strip_suffix("/exec")) {
        (Some("mail"), Some(pod)) => {
            let name = pod.rsplit('/').next().unwrap_or_default();
            let socket = pods.iter().find(|pod| pod.name == name).and_then(|pod| pod.socket.as_ref());
            match socket {
                Some(socket) => return execute(stream, &key, query, socket),
                None => forbidden(format!("pods \"{name}\" is forbidden: cannot create pods/exec")),
            }
        }
        (Some("forbidden"), None) => forbidden("pods is forbidden".to_owned()),
        (namespace, _) => {
            assert!(query.contains("labelSelector=app.kubernetes.io%2Fname%3Dmailgress"), "{query}");
            let items: Vec<_> = pods.iter().filter(|_| namespace == Some("mail")).map(Pod::object).collect();
            (200, json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
        }
    };
    let body = body.to_string();
    write!(
        &stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Runs the command and sends what it prints, as a kubelet does: WebSocket (RFC 6455) with `v5.channel.k8s.io`.
fn execute(mut stream: TcpStream, key: &str, query: &str, socket: &Path) -> std::io::Result<()> {
    let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let of = |name: &str| {
        let of_name = parameters.iter().filter(|(other, _)| other == name);
        of_name.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("container"), ["mailgress"]);
    let command = of("command");
    assert_eq!(command[0], "/mailgress");
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
        accepted(key)
    )?;
    let mut program = Command::new(binary());
    let Output { status, stdout, stderr } =
        program.args(&command[1..]).env("MAILGRESS_CONTROL_SOCKET", socket).output()?;
    let ended = if status.success() {
        json!({ "status": "Success" })
    } else {
        let message = format!("command terminated with non-zero exit code: {status}");
        json!({ "status": "Failure", "reason": "NonZeroExitCode", "message": message })
    };
    for (channel, content) in [(1, stdout), (2, stderr), (3, ended.to_string().into_bytes())] {
        frame(&mut stream, channel, &content)?;
    }
    stream.write_all(&[0x88, 2, 3, 0xe8])?;
    // The client answers with a close.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Sends a binary frame with the content of a channel.
fn frame(stream: &mut TcpStream, channel: u8, content: &[u8]) -> std::io::Result<()> {
    let length = u64::try_from(content.len()).unwrap() + 1;
    let mut bytes = vec![0x82, 127];
    bytes.extend(length.to_be_bytes());
    bytes.push(channel);
    bytes.extend(content);
    stream.write_all(&bytes)
}

/// Returns the value of `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2).
fn accepted(key: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha1", "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    STANDARD.encode(openssl.wait_with_output().unwrap().stdout)
}
