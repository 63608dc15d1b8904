//! A private node: a kubelet with containerd, kube-proxy and a name server, and the controllers and the scheduler of a
//! cluster, in their own Linux namespaces (network, mounts, processes). The kernel removes all of it with the
//! namespaces' first process in any case.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::control_plane::{self, ControlPlane};
use crate::namespaces::Namespaces;
use crate::support::go::Module;
use crate::support::process::{Process, root_command};
use crate::support::wait;

/// A cluster with one node.
pub struct Node {
    plane: ControlPlane,
    processes: Vec<Process>,
    namespaces: Namespaces,
}

impl Node {
    /// Starts a node that is ready for pods. The error says why this is not possible here.
    pub fn start() -> Result<Self, String> {
        check_machine()?;
        let program = control_plane::build()?;
        let name_server = build_name_server()?;
        let namespaces = Namespaces::make();
        let plane = ControlPlane::start_for_nodes(program.clone(), namespaces.network.host);
        let mut node = Self { plane, processes: Vec::new(), namespaces };
        node.start_containerd();
        node.start_controllers(&program);
        node.start_kubelet(&program);
        node.start_proxy(&program);
        node.start_name_server(&name_server);
        node.wait_until_ready();
        Ok(node)
    }

    /// Returns a kubectl command as the administrator.
    pub fn kubectl(&self) -> Command {
        self.plane.kubectl()
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.kubeconfig()
    }

    /// Returns the node's address.
    pub fn address(&self) -> Ipv4Addr {
        self.namespaces.network.node
    }

    /// Returns our address as the node sees it.
    pub fn our_address(&self) -> Ipv4Addr {
        self.namespaces.network.host
    }

    /// Returns the command that runs another one on the node.
    pub fn enter(&self) -> Vec<String> {
        let (program, arguments) = self.namespaces.enter();
        std::iter::once(program).chain(arguments).collect()
    }

    /// Returns the folder of its files, which is removed with it.
    pub fn directory(&self) -> &Path {
        &self.namespaces.directory
    }

    /// Loads the images of an archive to the node.
    pub fn load(&self, archive: &Path) {
        let socket = self.file("containerd.sock");
        let mut command = self.namespaces.inside("ctr");
        command.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", "import"]);
        succeed(command.args(["--snapshotter", SNAPSHOTTER]).arg(archive));
    }

    fn start_containerd(&mut self) {
        std::fs::create_dir(self.file("cni")).unwrap();
        std::fs::write(self.file("cni/pods.conflist"), self.pod_network().to_string()).unwrap();
        std::fs::write(self.file("containerd.toml"), self.containerd_toml()).unwrap();
        let configuration = self.file("containerd.toml");
        self.run("containerd", &["containerd".as_ref(), "--config".as_ref(), configuration.as_ref()]);
        let socket = self.file("containerd.sock");
        wait::within(BOUND, "containerd answers", || {
            let mut command = self.namespaces.inside("ctr");
            command.arg("--address").arg(&socket).arg("version");
            command.output().unwrap().status.success().then_some(())
        });
    }

    fn start_controllers(&mut self, program: &Path) {
        let plane = |name: &str| self.plane.file(name).display().to_string();
        let kubeconfig = self.kubeconfig().display().to_string();
        let common = [format!("--kubeconfig={kubeconfig}"), "--leader-elect=false".to_owned()];
        let controllers = [
            format!("--service-account-private-key-file={}", plane("accounts.key")),
            format!("--root-ca-file={}", plane("ca.crt")),
            "--controllers=*,-node-ipam-controller".to_owned(),
        ];
        self.run_kubernetes(program, "kube-controller-manager", &[&common[..], &controllers].concat());
        self.run_kubernetes(program, "kube-scheduler", &common);
    }

    fn start_kubelet(&mut self, program: &Path) {
        std::fs::write(self.file("kubelet.json"), self.kubelet_configuration().to_string()).unwrap();
        let path = |name: &str| self.file(name).display().to_string();
        let flags = [
            format!("--config={}", path("kubelet.json")),
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--root-dir={}", path("kubelet")),
            format!("--cert-dir={}", path("kubelet-certificates")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", self.address()),
        ];
        self.run_kubernetes(program, "kubelet", &flags);
    }

    fn start_proxy(&mut self, program: &Path) {
        let configuration = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": self.kubeconfig() },
            "hostnameOverride": NODE,
            "clusterCIDR": PODS,
            "mode": "iptables",
            // These kernel settings apply to the whole machine and must not change.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        });
        std::fs::write(self.file("kube-proxy.json"), configuration.to_string()).unwrap();
        let flag = format!("--config={}", self.file("kube-proxy.json").display());
        self.run_kubernetes(program, "kube-proxy", &[flag]);
    }

    /// Starts a process on the node that resolves the cluster's names, with a Service without a selector.
    fn start_name_server(&mut self, program: &Path) {
        let (address, kubeconfig) = (self.address(), self.kubeconfig());
        let configuration = format!(
            "cluster.local:53 in-addr.arpa:53 {{\n  bind {address}\n  errors\n  \
             kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n  }}\n}}\n",
            kubeconfig.display()
        );
        std::fs::write(self.file("Corefile"), configuration).unwrap();
        let corefile = self.file("Corefile");
        self.run("name-server", &[program.as_ref(), "-conf".as_ref(), corefile.as_ref()]);
        let ports = json!([
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        ]);
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system" },
            "spec": { "clusterIP": NAME_SERVER, "ports": ports },
        });
        let endpoints = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address] }],
            "ports": ports,
        });
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [service, endpoints] });
        std::fs::write(self.file("kube-dns.json"), objects.to_string()).unwrap();
        succeed(self.kubectl().args(["apply", "-f"]).arg(self.file("kube-dns.json")));
    }

    fn wait_until_ready(&self) {
        wait::within(BOUND, "the node is ready (its log is shown above)", || {
            let mut command = self.kubectl();
            command.args(["wait", "--for=condition=Ready", "--timeout=10s", "node", NODE]);
            let output = command.output().unwrap();
            if !output.status.success() {
                eprintln!("{}{}", text(&output), self.last_words("kubelet"));
            }
            output.status.success().then_some(())
        });
        // Pods of a namespace wait for it.
        wait::within(BOUND, "there are ServiceAccounts", || {
            let mut command = self.kubectl();
            command
                .args(["get", "serviceaccount", "default"])
                .output()
                .unwrap()
                .status
                .success()
                .then_some(())
        });
    }

    fn run_kubernetes(&mut self, program: &Path, name: &str, flags: &[String]) {
        let mut command: Vec<&OsStr> = vec![program.as_ref(), name.as_ref()];
        command.extend(flags.iter().map(AsRef::<OsStr>::as_ref));
        self.run(name, &command);
    }

    fn run(&mut self, name: &str, command: &[&OsStr]) {
        let (program, arguments) = self.namespaces.enter();
        let arguments: Vec<&OsStr> =
            arguments.iter().map(AsRef::as_ref).chain(command.iter().copied()).collect();
        let log = self.file(&format!("{name}.log"));
        self.processes.push(Process::start(program.as_ref(), &arguments, &[], log));
    }

    fn last_words(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.file(&format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.namespaces.directory.join(name)
    }

    fn containerd_toml(&self) -> String {
        let path = |name: &str| self.file(name).display().to_string();
        format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\n  address = {socket:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {opt:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{PAUSE}\"\n  restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"{SNAPSHOTTER}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{CNI}\"\n  conf_dir = {cni:?}\n",
            root = path("containerd"),
            state = path("containerd-state"),
            socket = path("containerd.sock"),
            opt = path("containerd-opt"),
            cni = path("cni"),
        )
    }

    fn pod_network(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods0",
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.file("addresses"),
                        "ranges": [[{ "subnet": PODS }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn kubelet_configuration(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{}", self.file("containerd.sock").display()),
            "podLogsDir": self.file("logs"),
            "volumePluginDir": self.file("volume-plugins"),
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": false },
                "x509": { "clientCAFile": self.plane.file("ca.crt") },
            },
            "authorization": { "mode": "AlwaysAllow" },
            "clusterDNS": [NAME_SERVER],
            "clusterDomain": "cluster.local",
            "resolvConf": "/dev/null",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.namespaces.cgroup),
            "failCgroupV1": false,
            "failSwapOn": false,
            "enforceNodeAllocatable": [],
            // A full disk is a problem of this machine, not of the test.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
        })
    }
}

fn check_machine() -> Result<(), String> {
    if !root_command("true").status().is_ok_and(|status| status.success()) {
        return Err("a node of its own needs root, or a sudo that asks nothing".to_owned());
    }
    let there = |name: &&&str| {
        !Path::new("/usr/bin").join(name).exists() && !Path::new("/usr/sbin").join(name).exists()
    };
    if let Some(missing) = PROGRAMS.iter().find(there) {
        return Err(format!(
            "{missing} is missing: tests/install-packages.sh e2e installs what a node needs"
        ));
    }
    if !Path::new(CNI).join("bridge").exists() {
        return Err(format!("{CNI} is missing: tests/install-packages.sh e2e installs what a node needs"));
    }
    let apart =
        root_command("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output().unwrap();
    if !apart.status.success() {
        return Err(format!("this machine allows no namespaces: {}", text(&apart)));
    }
    Ok(())
}

fn build_name_server() -> Result<PathBuf, String> {
    let module = Module {
        source: "e2e/name-server",
        target: "name-server",
        files: &["go.mod", "go.sum", "main.go"],
        package: ".",
        link: &[],
        notice: "building CoreDNS; this takes some minutes, once",
    };
    Ok(module.build()?.join("name-server"))
}

/// Runs a command. Panics with its output if it fails.
#[track_caller]
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/mailgress-e2e/pause:1";

const PROGRAMS: [&str; 8] =
    ["containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare"];
const CNI: &str = "/usr/lib/cni";
/// The only snapshotter that works on every file system.
const SNAPSHOTTER: &str = "native";
const NODE: &str = "node";
const PODS: &str = "10.244.0.0/24";
const NAME_SERVER: &str = "10.96.0.10";
/// Time limit for a start on a loaded machine.
const BOUND: Duration = Duration::from_secs(120);
