//! A test's part of the cluster: a namespace and a class of its own, and kubectl.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control_plane::{self, ControlPlane};
use crate::forwarder::Forwarder;
use crate::given::Given;
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{mail_server, passthrough, with};
use crate::support::{ports, wait};

/// The cluster of all tests, with the CRDs and the permissions, or why there is none.
static PLANE: LazyLock<Result<Plane, String>> = LazyLock::new(|| {
    let plane = match Given::find() {
        Some(given) => Plane::Given(given),
        None => Plane::Ours(ControlPlane::start()?),
    };
    apply_crds(&plane);
    succeed(plane.kubectl().args(["apply", "-f"]).arg(root().join("deploy/rbac.yaml")));
    Ok(plane)
});

/// Who runs the cluster.
enum Plane {
    Ours(ControlPlane),
    Given(Given),
}

impl Plane {
    fn kubectl(&self) -> Command {
        match self {
            Self::Ours(plane) => plane.kubectl(),
            Self::Given(plane) => plane.kubectl(),
        }
    }

    fn entry(&self) -> Value {
        match self {
            Self::Ours(plane) => plane.entry(),
            Self::Given(plane) => plane.entry(),
        }
    }
}

fn apply_crds(plane: &Plane) {
    succeed(
        plane.kubectl().args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(root().join("crds")),
    );
    for crd in CRDS {
        wait::eventually(&format!("{crd} is established"), || {
            // kubectl cannot wait for a CRD without a status.
            let wait = ["wait", "--for=condition=Established", "crd", crd];
            plane.kubectl().args(wait).output().unwrap().status.success().then_some(())
        });
    }
}

/// Tests share the API server, unless one stops it.
static SHARED: RwLock<()> = RwLock::new(());

/// A test's part of the cluster.
pub struct Cluster {
    plane: &'static Plane,
    /// The name of its namespace and its class.
    pub name: &'static str,
    files: TempDir,
    _turn: Turn,
}

#[allow(dead_code, reason = "held, not looked at")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A program that ends with the test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// Creates it for the test `name`. Prints a message and returns `None` if there is no control plane.
    pub fn new(name: &'static str) -> Option<Self> {
        let turn = Turn::Shared(SHARED.read());
        Self::with(name, turn)
    }

    /// As [`Self::new`], while no other test uses the API server. Also `None` if the control plane is not ours.
    pub fn alone(name: &'static str) -> Option<Self> {
        let turn = Turn::Alone(SHARED.write());
        if let Ok(Plane::Given(_)) = &*PLANE {
            tell(&format!("SKIPPED the cluster test `{name}`: it would break a cluster that is not its own"));
            return None;
        }
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
        cluster.namespace(name);
        Some(cluster)
    }

    /// Returns the control plane if it is ours.
    pub fn plane(&self) -> &'static ControlPlane {
        match self.plane {
            Plane::Ours(plane) => plane,
            Plane::Given(_) => panic!("this test takes its turn alone"),
        }
    }

    /// Returns a kubectl command as the administrator.
    pub fn kubectl_command(&self) -> Command {
        self.plane.kubectl()
    }

    /// Creates an empty namespace.
    pub fn namespace(&self, name: &str) {
        if let Plane::Given(plane) = self.plane {
            // An earlier run may have left it.
            let delete = ["delete", "namespace", name, "--ignore-not-found", "--timeout=120s"];
            succeed(plane.kubectl().args(delete));
        }
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }

    /// Restores the CRDs of `crds/`.
    pub fn restore_crds(&self) {
        apply_crds(self.plane);
    }

    /// Starts a forwarder to the API server. Returns it with a kubeconfig that uses it.
    pub fn forwarded(&self, account: &str, namespace: &str) -> (Forwarder, PathBuf) {
        let entry = self.plane.entry();
        let url = entry["server"].as_str().unwrap();
        let server = url.trim_start_matches("https://").trim_end_matches('/');
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let to = server.to_socket_addrs().unwrap().next().unwrap();
        let forwarder = Forwarder::start(to);
        let through =
            json!({ "server": format!("https://{}", forwarder.address()), "tls-server-name": host });
        let kubeconfig = self.kubeconfig_to(&with(entry.clone(), &through), account, namespace);
        (forwarder, kubeconfig)
    }

    /// Returns a kubeconfig for the administrator, with which GET requests that contain this text get no answer. It
    /// works while the guard lives.
    pub fn stalled(&self, request: &str) -> (Running, PathBuf) {
        let mut proxy = self.plane.kubectl();
        let mut proxy = Running(proxy.args(["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(proxy.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let to = line.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
        let address = Forwarder::stalling(to, request).address();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        let path = self.files.path().join("stalled.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        (proxy, path)
    }

    /// Returns kubectl's error for an object. Panics if there is none.
    pub fn refused(&self, object: &Value) -> String {
        let text = serde_json::to_string(object).unwrap();
        let output = self.piped(&["apply", "-n", self.name, "-f", "-"], &text);
        assert!(!output.status.success(), "it is taken: {text}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Applies an object, by default in the test's namespace.
    pub fn apply(&self, object: &Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(self.name);
        let text = serde_json::to_string(object).unwrap();
        self.pipe(&["apply", "-n", namespace, "-f", "-"], &text);
    }

    /// Allows an account of the test's namespace to keep a Lease there, as Mailgress can in its own.
    pub fn allow_lease(&self, account: &str) {
        let subject = format!("--serviceaccount={}:{account}", self.name);
        self.kubectl(&["create", "role", "lease", "--verb=get,create,patch", "--resource=leases"]);
        self.kubectl(&["create", "rolebinding", "lease", "--role=lease", &subject]);
    }

    /// Allows Mailgress to read these Secrets, with the Role of deploy/.
    pub fn allow_secrets(&self, names: &[&str]) {
        let text = std::fs::read_to_string(root().join("deploy/references.yaml")).unwrap();
        let text = text.replace("namespace: mail\n", &format!("namespace: {}\n", self.name));
        let text = text.replace("[mail-tls]", &format!("[{}]", names.join(", ")));
        self.pipe(&["apply", "-f", "-"], &text);
    }

    /// Allows Mailgress to keep the keys of session tickets, with the rule of deploy/ for the Lease of the test's class.
    pub fn allow_tickets(&self) {
        let name = self.tickets();
        let verbs = ["get", "list", "watch", "create", "patch"];
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": { "name": name, "namespace": "mailgress" },
            "rules": [{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": verbs }],
        }));
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": name, "namespace": "mailgress" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": "mailgress", "namespace": "mailgress" }],
        }));
    }

    /// Returns the name of the Secret with the keys of session tickets, in Mailgress's own namespace.
    pub fn tickets(&self) -> String {
        format!("{}-session-tickets", self.name)
    }

    /// Tells whether kubectl accepts an object.
    pub fn takes(&self, object: &Value) -> bool {
        let text = serde_json::to_string(object).unwrap();
        self.piped(&["apply", "-n", self.name, "-f", "-"], &text).status.success()
    }

    fn pipe(&self, arguments: &[&str], text: &str) {
        let output = self.piped(arguments, text);
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }

    fn piped(&self, arguments: &[&str], text: &str) -> Output {
        let mut command = self.plane.kubectl();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Returns kubectl's output in the test's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        succeed(self.plane.kubectl().args(["-n", self.name]).args(arguments))
    }

    /// Returns kubectl's output in another namespace.
    pub fn in_namespace(&self, namespace: &str, arguments: &[&str]) -> String {
        succeed(self.plane.kubectl().args(["-n", namespace]).args(arguments))
    }

    /// Waits with `kubectl wait`, as operators do.
    pub fn wait_for(&self, condition: &str, object: &str) {
        self.kubectl(&["wait", &format!("--for=condition={condition}"), object, "--timeout=30s"]);
    }

    /// Returns an object.
    pub fn get(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"])).unwrap()
    }

    /// Returns a condition of an object; null if there is none.
    pub fn condition(&self, object: &str, condition: &str) -> Value {
        let object = self.get(object);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default()
    }

    /// Waits until a condition has this status and reason. Returns its message.
    pub fn comes_to(&self, object: &str, condition: &str, status: &str, reason: &str) -> String {
        wait::eventually(&format!("{object} has {condition}={status} ({reason})"), || {
            let found = self.condition(object, condition);
            let comes = found["status"] == status && found["reason"] == reason;
            comes.then(|| found["message"].as_str().unwrap().to_owned())
        })
    }

    /// Returns a kubeconfig with the token of a ServiceAccount.
    fn kubeconfig(&self, account: &str, namespace: &str) -> PathBuf {
        self.kubeconfig_to(&self.plane.entry(), account, namespace)
    }

    fn kubeconfig_to(&self, entry: &Value, account: &str, namespace: &str) -> PathBuf {
        let token = succeed(self.plane.kubectl().args(["create", "token", account, "-n", namespace]));
        let path = self.files.path().join("kubeconfig");
        std::fs::write(&path, control_plane::kubeconfig(entry, token.trim(), namespace)).unwrap();
        path
    }

    /// Starts Mailgress for the objects of the test's class, with its own ServiceAccount.
    pub fn mailgress(&self) -> Mailgress {
        Self::start(&self.account(), &["--class", self.name])
    }

    /// As [`Self::mailgress`], with a ServiceAccount of the test's namespace and these arguments.
    pub fn mailgress_as(&self, account: &str, arguments: &[&str]) -> Mailgress {
        let own = ["--class", self.name];
        Self::start(&self.kubeconfig(account, self.name), &[own.as_slice(), arguments].concat())
    }

    /// As [`Self::mailgress`], with these arguments, and with an admin address that an EndpointSlice may contain.
    pub fn replica(&self, arguments: &[&str]) -> Mailgress {
        let own = ["--class", self.name];
        let (account, arguments) = (self.account(), [own.as_slice(), arguments].concat());
        Mailgress::start_at(our_address(), ["--kubeconfig".as_ref(), account.as_os_str()], &arguments)
    }

    /// As [`Self::replica`], without waiting until it is ready.
    pub fn unready_replica(&self, arguments: &[&str]) -> Mailgress {
        let own = ["--class", self.name];
        let (account, arguments) = (self.account(), [own.as_slice(), arguments].concat());
        let flag = ["--kubeconfig".as_ref(), account.as_os_str()];
        Mailgress::start_unready_at(our_address(), flag, &arguments)
    }

    /// Returns a kubeconfig with the token of Mailgress's ServiceAccount.
    pub fn account(&self) -> PathBuf {
        self.kubeconfig("mailgress", "mailgress")
    }

    /// Starts Mailgress with this kubeconfig and these arguments.
    pub fn start(kubeconfig: &Path, arguments: &[&str]) -> Mailgress {
        Mailgress::start_from(["--kubeconfig".as_ref(), kubeconfig.as_os_str()], arguments)
    }

    /// Returns a `MailServer` named `edge` of the test's class, with one IMAP listener for each name and port, in front
    /// of the Service `backend`.
    pub fn edge(&self, listeners: &[(&str, u16)]) -> Value {
        let listeners: Vec<Value> = listeners.iter().map(|(name, port)| listener(name, *port)).collect();
        let spec = json!({ "className": self.name, "auth": passthrough(), "listeners": listeners });
        self.here(mail_server(&spec))
    }

    /// Moves an object to the test's namespace.
    pub fn here(&self, object: Value) -> Value {
        with(object, &json!({ "metadata": { "namespace": self.name } }))
    }

    /// Creates the Service `backend` with these endpoints and their conditions.
    pub fn backends(&self, endpoints: &[(&Backend, Value)]) {
        let at: Vec<_> =
            endpoints.iter().map(|(backend, state)| (backend.address(), state.clone())).collect();
        self.service("backend", 143, &at);
    }

    /// Creates the Service `backend` with these endpoints and fields of each.
    pub fn endpoints(&self, endpoints: &[(&Backend, Value)]) {
        let at: Vec<_> = endpoints.iter().map(|(backend, said)| (backend.address(), said.clone())).collect();
        self.slices("backend", 143, &at);
    }

    /// Creates a Service with one port, and an EndpointSlice with conditions for each endpoint.
    pub fn service(&self, name: &str, port: u16, endpoints: &[(SocketAddr, Value)]) {
        let in_state = |(at, conditions): &(SocketAddr, Value)| (*at, json!({ "conditions": conditions }));
        self.slices(name, port, &endpoints.iter().map(in_state).collect::<Vec<_>>());
    }

    /// Creates a Service for clients in the test's namespace, and allows Mailgress to set its ports.
    pub fn front(&self, name: &str) {
        self.kubectl(&["create", "service", "clusterip", name, "--tcp=80"]);
        self.allow_front(name);
    }

    /// Allows Mailgress to set the ports of this Service.
    pub fn allow_front(&self, name: &str) {
        let resource = format!("--resource-name={name}");
        self.kubectl(&["create", "role", "front", "--verb=patch", "--resource=services", &resource]);
        let subject = "--serviceaccount=mailgress:mailgress";
        self.kubectl(&["create", "rolebinding", "front", "--role=front", subject]);
    }

    /// Creates a ready endpoint of this Service with these ports, as Kubernetes does for a pod.
    pub fn front_endpoint(&self, name: &str, ports: &[u16]) {
        let port = |port: &u16| json!({ "name": format!("mail-{port}"), "port": port });
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
            "endpoints": [{ "addresses": [our_address()], "conditions": ready() }],
        }));
    }

    fn slices(&self, name: &str, port: u16, endpoints: &[(SocketAddr, Value)]) {
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name },
            "spec": { "ports": [{ "name": "mail", "port": port, "targetPort": "mail" }] },
        }));
        for (index, (address, endpoint)) in endpoints.iter().enumerate() {
            self.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-{index}"),
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
                "ports": [
                    { "name": "metrics", "port": 9 },
                    { "name": "mail", "port": address.port() },
                ],
                "endpoints": [with(json!({ "addresses": [address.ip()] }), endpoint)],
            }));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Plane::Given(plane) = self.plane {
            let _ = plane.kubectl().args(["delete", "namespace", self.name, "--wait=false"]).output();
        }
    }
}

/// An IMAP listener without TLS in front of the Service `backend`.
pub fn listener(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "protocol": "IMAP",
        "address": "127.0.0.1",
        "port": port,
        "tls": { "mode": "Disabled" },
        "backendRef": { "name": "backend", "port": 143 },
    })
}

/// Starts a backend at an address that Kubernetes accepts for an endpoint. It refuses loopback addresses.
pub fn backend(name: &str) -> Backend {
    Backend::imap_on(our_address(), name)
}

/// The `conditions` of a ready endpoint.
pub fn ready() -> Value {
    json!({ "ready": true, "serving": true, "terminating": false })
}

/// The `conditions` of an endpoint that terminates but still serves.
pub fn terminating() -> Value {
    json!({ "ready": false, "serving": true, "terminating": true })
}

/// Returns an address for a listener.
pub fn at() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()))
}

/// Prints to the terminal even if the test passes.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Returns the address that this machine uses for connections to others. Connecting a UDP socket sends no packet.
pub fn our_address() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect("192.0.2.1:9").expect("the cluster tests need an IPv4 address that is not loopback");
    socket.local_addr().unwrap().ip()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

const CRDS: [&str; 3] =
    ["mailservers.mailgress.dev", "maillisteners.mailgress.dev", "mailroutes.mailgress.dev"];
