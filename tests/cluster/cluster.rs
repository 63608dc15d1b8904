//! What a test has of the cluster: a namespace and a class of its own, and kubectl.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{mail_server, passthrough, with};
use crate::support::{ports, wait};

/// All tests' control plane, with the CRDs and the permissions; or why there is none.
static PLANE: LazyLock<Result<ControlPlane, String>> = LazyLock::new(|| {
    let plane = ControlPlane::start()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["crds", "deploy/rbac.yaml"] {
        succeed(plane.kubectl().args(["apply", "-f"]).arg(root.join(path)));
    }
    for crd in ["mailservers.mailgress.dev", "maillisteners.mailgress.dev"] {
        succeed(plane.kubectl().args(["wait", "--for=condition=Established", "crd", crd]));
    }
    Ok(plane)
});

/// Tests share the API server, unless one stops it.
static SHARED: RwLock<()> = RwLock::new(());

/// A test's part of the cluster.
pub struct Cluster {
    plane: &'static ControlPlane,
    /// Its namespace, and its class.
    pub name: &'static str,
    files: TempDir,
    _turn: Turn,
}

#[allow(dead_code, reason = "held, not looked at")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Cluster {
    /// For the test `name`; `None` where there is no control plane, which is said.
    pub fn new(name: &'static str) -> Option<Self> {
        let turn = Turn::Shared(SHARED.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        Self::with(name, turn)
    }

    /// The same, while no other test uses the API server.
    pub fn alone(name: &'static str) -> Option<Self> {
        let turn = Turn::Alone(SHARED.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        Self::with(name, turn)
    }

    fn with(name: &'static str, turn: Turn) -> Option<Self> {
        let plane = match &*PLANE {
            Ok(plane) => plane,
            Err(why) => {
                tell(&format!("SKIPPED the cluster test `{name}`: {why}"));
                return None;
            }
        };
        let files = tempfile::Builder::new().prefix("mailgress-cluster-").tempdir().unwrap();
        let cluster = Self { plane, name, files, _turn: turn };
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        Some(cluster)
    }

    /// The API server.
    pub fn plane(&self) -> &'static ControlPlane {
        self.plane
    }

    /// Applies an object; one that says no namespace goes into the test's.
    pub fn apply(&self, object: &Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(self.name);
        let text = serde_json::to_string(object).unwrap();
        self.pipe(&["apply", "-n", namespace, "-f", "-"], &text);
    }

    /// Lets Mailgress read these Secrets, by the Role of deploy/.
    pub fn allow_secrets(&self, names: &[&str]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/references.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("namespace: mail\n", &format!("namespace: {}\n", self.name));
        let text = text.replace("[mail-tls]", &format!("[{}]", names.join(", ")));
        self.pipe(&["apply", "-f", "-"], &text);
    }

    fn pipe(&self, arguments: &[&str], text: &str) {
        let mut command = self.plane.kubectl();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }

    /// What kubectl says, in the test's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        succeed(self.plane.kubectl().args(["-n", self.name]).args(arguments))
    }

    /// Waits as operators do, with `kubectl wait`.
    pub fn wait_for(&self, condition: &str, object: &str) {
        self.kubectl(&["wait", &format!("--for=condition={condition}"), object, "--timeout=30s"]);
    }

    /// An object.
    pub fn get(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"])).unwrap()
    }

    /// A condition of an object; null when it has none such.
    pub fn condition(&self, object: &str, condition: &str) -> Value {
        let object = self.get(object);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default()
    }

    /// Waits until a condition has this status and reason, and gives its message.
    pub fn comes_to(&self, object: &str, condition: &str, status: &str, reason: &str) -> String {
        wait::eventually(&format!("{object} has {condition}={status} ({reason})"), || {
            let found = self.condition(object, condition);
            let comes = found["status"] == status && found["reason"] == reason;
            comes.then(|| found["message"].as_str().unwrap().to_owned())
        })
    }

    /// A kubeconfig with the token of a ServiceAccount.
    fn kubeconfig(&self, account: &str, namespace: &str) -> PathBuf {
        let token = succeed(self.plane.kubectl().args(["create", "token", account, "-n", namespace]));
        let path = self.files.path().join("kubeconfig");
        std::fs::write(&path, self.plane.kubeconfig_with(token.trim())).unwrap();
        path
    }

    /// Mailgress for the objects of the test's class, with its own ServiceAccount.
    pub fn mailgress(&self) -> Mailgress {
        Self::start(&self.account(), &["--class", self.name])
    }

    /// The same with a ServiceAccount of the test's namespace, and more arguments.
    pub fn mailgress_as(&self, account: &str, arguments: &[&str]) -> Mailgress {
        let class = ["--class", self.name];
        Self::start(&self.kubeconfig(account, self.name), &[class.as_slice(), arguments].concat())
    }

    /// A kubeconfig with the token of Mailgress's own ServiceAccount.
    pub fn account(&self) -> PathBuf {
        self.kubeconfig("mailgress", "mailgress")
    }

    /// Mailgress with this kubeconfig and these arguments.
    pub fn start(kubeconfig: &Path, arguments: &[&str]) -> Mailgress {
        Mailgress::start_from(["--kubeconfig".as_ref(), kubeconfig.as_os_str()], arguments)
    }

    /// A `MailServer` called `edge` of the test's class with one IMAP listener for each name, on these ports, in
    /// front of the Service `backend`.
    pub fn edge(&self, listeners: &[(&str, u16)]) -> Value {
        let listeners: Vec<Value> = listeners.iter().map(|(name, port)| listener(name, *port)).collect();
        let spec = json!({ "className": self.name, "auth": passthrough(), "listeners": listeners });
        self.here(mail_server(&spec))
    }

    /// An object moved to the test's namespace.
    pub fn here(&self, object: Value) -> Value {
        with(object, &json!({ "metadata": { "namespace": self.name } }))
    }

    /// The Service `backend`, whose endpoints are these, with their conditions.
    pub fn backends(&self, endpoints: &[(&Backend, Value)]) {
        let in_state = |(backend, conditions): &(_, Value)| (*backend, json!({ "conditions": conditions }));
        self.endpoints(&endpoints.iter().map(in_state).collect::<Vec<_>>());
    }

    /// The same with whatever else is to be said of each endpoint.
    pub fn endpoints(&self, endpoints: &[(&Backend, Value)]) {
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "backend" },
            "spec": { "ports": [{ "name": "imap", "port": 143, "targetPort": "imap" }] },
        }));
        for (index, (backend, endpoint)) in endpoints.iter().enumerate() {
            let address = backend.address();
            self.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("backend-{index}"),
                    "labels": { "kubernetes.io/service-name": "backend" },
                },
                "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
                "ports": [
                    { "name": "metrics", "port": 9 },
                    { "name": "imap", "port": address.port() },
                ],
                "endpoints": [with(json!({ "addresses": [address.ip()] }), endpoint)],
            }));
        }
    }
}

/// An IMAP listener in clear in front of the Service `backend`.
pub fn listener(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "protocol": "IMAP",
        "address": "127.0.0.1",
        "port": port,
        "tls": { "mode": "Off" },
        "backendRef": { "name": "backend", "port": 143 },
    })
}

/// A backend where an endpoint may be: Kubernetes takes no loopback address for one.
pub fn backend(name: &str) -> Backend {
    Backend::imap_on(our_address(), name)
}

/// `conditions` of an endpoint that is ready.
pub fn ready() -> Value {
    json!({ "ready": true, "serving": true, "terminating": false })
}

/// `conditions` of an endpoint that finishes what it has.
pub fn terminating() -> Value {
    json!({ "ready": false, "serving": true, "terminating": true })
}

/// A listener's address.
pub fn at() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()))
}

/// To the terminal, also when the test passes.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The address from which this machine talks to others; connecting a UDP socket sends nothing.
fn our_address() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect("192.0.2.1:9").expect("the cluster tests need an IPv4 address that is not loopback");
    socket.local_addr().unwrap().ip()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
