//! An existing cluster or a private node, with kubectl and Helm.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::{Node, PAUSE, succeed};
use crate::support::go::Module;
use crate::support::wait;
use crate::{images, steps};

/// A cluster with the tools to use it.
pub struct Cluster {
    whose: Whose,
    helm: PathBuf,
    /// Files of the tests.
    pub files: TempDir,
    /// A small machine cannot run two nodes at once.
    _turn: MutexGuard<'static, ()>,
}

enum Whose {
    Ours(Box<Node>),
    Given { kubeconfig: PathBuf, node: IpAddr },
}

impl Cluster {
    /// Returns the cluster in `MAILGRESS_E2E_KUBECONFIG`, or a private one. The error says why there is none.
    pub fn find() -> Result<Self, String> {
        let given = std::env::var_os("MAILGRESS_E2E_KUBECONFIG").filter(|file| !file.is_empty());
        if let Some(file) = given {
            let kubeconfig = std::fs::canonicalize(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
            let node = node_of(&kubeconfig);
            // Not in /tmp, which may be in memory, because it holds images.
            let files = files_in(Path::new("/var/tmp"));
            let whose = Whose::Given { kubeconfig, node };
            return Ok(Self { whose, helm: "helm".into(), files, _turn: turn() });
        }
        Self::of_our_own()
    }

    /// Returns a private cluster. The error says why there is none.
    pub fn of_our_own() -> Result<Self, String> {
        let turn = turn();
        let node = Node::start()?;
        let helm = build_helm()?;
        // They are removed with the node in any case.
        let files = files_in(node.directory());
        let cluster = Self { whose: Whose::Ours(Box::new(node)), helm, files, _turn: turn };
        cluster.load(&images::pause(), PAUSE);
        Ok(cluster)
    }

    /// Creates a folder with this name among the files of the tests.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.files.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Returns the command that runs another one on a private node.
    pub fn enter(&self) -> Vec<String> {
        match &self.whose {
            Whose::Ours(node) => node.enter(),
            Whose::Given { .. } => Vec::new(),
        }
    }

    /// Returns the suitable Helm.
    pub fn helm_program(&self) -> &Path {
        &self.helm
    }

    /// Runs kubectl. Returns its output, and panics if it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        text(succeed(self.kubectl_command().args(arguments)).stdout)
    }

    /// Runs kubectl. Returns its output if it succeeds.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.kubectl_command().args(arguments).output().unwrap();
        output.status.success().then(|| text(output.stdout))
    }

    /// Returns objects as kubectl prints them.
    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], arguments].concat())).unwrap()
    }

    /// Applies an object or a list.
    #[track_caller]
    pub fn apply(&self, objects: &Value) {
        self.apply_with(objects, &[]);
    }

    /// As [`Self::apply`], with additional flags.
    #[track_caller]
    pub fn apply_with(&self, objects: &Value, flags: &[&str]) {
        let mut command = self.kubectl_command();
        command.args(["apply", "-f", "-"]).args(flags);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(objects.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs Helm in this cluster and namespace. Returns its output.
    #[track_caller]
    pub fn helm(&self, namespace: &str, arguments: &[&str]) -> String {
        let home = self.files.path();
        let mut command = Command::new(&self.helm);
        // Without the settings and caches in the user's home directory.
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, home.join("helm"));
        }
        command.env("KUBECONFIG", self.kubeconfig()).args(["--namespace", namespace]).args(arguments);
        text(succeed(&mut command).stdout)
    }

    /// Loads an archive with the image of this name to the cluster's nodes.
    pub fn load(&self, archive: &Path, name: &str) {
        match &self.whose {
            Whose::Ours(node) => node.load(archive),
            Whose::Given { .. } => {
                let mut command = Command::new("sh");
                command.args(["-c", &self.loader(), "load"]).arg(archive).arg(name);
                succeed(&mut command);
            }
        }
    }

    /// Runs `work`, and meanwhile acts as the load balancer of these Services (namespace, name): a Service of type
    /// `LoadBalancer` without an address gets the node's, as with k3s.
    pub fn balancing(&self, services: &[(&str, &str)], work: impl FnOnce()) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    services.iter().for_each(|(namespace, service)| self.balance(namespace, service));
                    std::thread::sleep(LOOK_EVERY);
                }
            });
            let worked = catch_unwind(AssertUnwindSafe(work));
            done.store(true, Ordering::Relaxed);
            worked.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }

    fn balance(&self, namespace: &str, service: &str) {
        let path = "-o=jsonpath={.spec.type}{.status.loadBalancer.ingress[*].ip}";
        let seen = self.try_kubectl(&["get", "service", service, "-n", namespace, path]);
        if seen.is_some_and(|seen| seen == "LoadBalancer") {
            let patch =
                json!({ "status": { "loadBalancer": { "ingress": [{ "ip": self.node_address() }] } } });
            let command = ["patch", "service", service, "-n", namespace, "--subresource=status", "-p"];
            // If this fails, the next iteration tries again.
            let _ = self.try_kubectl(&[&command[..], &[&patch.to_string()]].concat());
        }
    }

    /// Returns the address that the load balancer has for clients.
    pub fn address_of(&self, namespace: &str, service: &str) -> Option<IpAddr> {
        let path = "-o=jsonpath={.status.loadBalancer.ingress[0].ip}";
        self.kubectl(&["get", "service", service, "-n", namespace, path]).parse().ok()
    }

    /// Returns our address as a server in the cluster sees it, if clients' addresses are preserved.
    pub fn our_address(&self) -> IpAddr {
        match &self.whose {
            Whose::Ours(node) => node.our_address().into(),
            Whose::Given { node, .. } => {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                // This sends no packet; the kernel selects a route.
                socket.connect((*node, 9)).unwrap();
                socket.local_addr().unwrap().ip()
            }
        }
    }

    /// Waits until `probe` accepts kubectl's output.
    pub fn eventually<T>(&self, what: &str, arguments: &[&str], probe: impl Fn(String) -> Option<T>) -> T {
        wait::within(BOUND, what, || self.try_kubectl(arguments).and_then(&probe))
    }

    /// Prints everything that may explain a failure.
    pub fn tell(&self, namespaces: &[&str]) {
        for namespace in namespaces {
            for what in [
                &["get", "pods,services,mailservers", "-o", "wide"][..],
                &["get", "events", "--sort-by=.lastTimestamp"],
                &["describe", "mailservers"],
            ] {
                let _ =
                    steps::say(&self.try_kubectl(&[&["-n", *namespace], what].concat()).unwrap_or_default());
            }
            let pods = self.try_kubectl(&["-n", namespace, "get", "pods", "-o", "name"]).unwrap_or_default();
            for pod in pods.lines() {
                let log = self.try_kubectl(&["-n", namespace, "logs", "--tail=40", pod]).unwrap_or_default();
                let _ = steps::say(&format!("--- {namespace} {pod}\n{log}"));
            }
        }
    }

    fn node_address(&self) -> IpAddr {
        match &self.whose {
            Whose::Ours(node) => node.address().into(),
            Whose::Given { node, .. } => *node,
        }
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        match &self.whose {
            Whose::Ours(node) => node.kubeconfig(),
            Whose::Given { kubeconfig, .. } => kubeconfig.clone(),
        }
    }

    /// Returns a kubectl command as the administrator.
    pub fn kubectl_command(&self) -> Command {
        match &self.whose {
            Whose::Ours(node) => node.kubectl(),
            Whose::Given { kubeconfig, .. } => given_kubectl(kubeconfig),
        }
    }

    /// Returns the shell command that loads an archive `$1` with an image `$2` into an existing cluster.
    fn loader(&self) -> String {
        if let Ok(command) = std::env::var("MAILGRESS_E2E_LOAD") {
            return command;
        }
        let context = self.kubectl(&["config", "current-context"]);
        let kind = context.trim().strip_prefix("kind-");
        let kind =
            kind.expect("no kind cluster: say with MAILGRESS_E2E_LOAD how to load the archive $1 into it");
        format!("kind load image-archive --name {kind} \"$1\"")
    }
}

fn turn() -> MutexGuard<'static, ()> {
    static TURNS: Mutex<()> = Mutex::new(());
    // A test that has panicked no longer uses the cluster.
    TURNS.lock()
}

fn files_in(folder: &Path) -> TempDir {
    tempfile::Builder::new().prefix("mailgress-e2e-").tempdir_in(folder).unwrap()
}

fn given_kubectl(kubeconfig: &Path) -> Command {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", kubeconfig);
    command
}

fn node_of(kubeconfig: &Path) -> IpAddr {
    let path = r#"-o=jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
    let addresses = text(succeed(given_kubectl(kubeconfig).args(["get", "nodes", path])).stdout);
    let addresses = addresses.split_whitespace().filter_map(|address| address.parse::<IpAddr>().ok());
    addresses.into_iter().find(IpAddr::is_ipv4).expect("a node with an IPv4 address")
}

fn build_helm() -> Result<PathBuf, String> {
    let module = Module {
        source: "tools",
        target: "tools",
        files: &["go.mod", "go.sum"],
        package: "tool",
        link: &[],
        notice: "building Helm; this takes some minutes, once",
    };
    Ok(module.build()?.join("helm"))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Time limit for a start after another one on a loaded machine.
pub const BOUND: Duration = Duration::from_secs(120);
/// Interval of the load balancer's checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
