//! etcd and kube-apiserver, from `KUBEBUILDER_ASSETS` or built once from Go modules; one of each for a test run. The
//! same program has the components of a node.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::{Mutex, MutexGuard};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::go::Module;
use crate::support::pki::AUTHORITY;
use crate::support::process::Daemon;
use crate::support::{ports, wait};

/// A running control plane. It ends with this process in any case.
pub struct ControlPlane {
    programs: Programs,
    directory: PathBuf,
    etcd: String,
    address: SocketAddr,
    /// Additional flags of the API server.
    flags: Vec<String>,
    api_server: Mutex<Option<Daemon>>,
    _etcd: Daemon,
}

/// Where the programs are.
enum Programs {
    /// Separate programs in this folder.
    Folder(PathBuf),
    /// One program, whose first argument is the component's name.
    One(PathBuf),
}

impl ControlPlane {
    /// Starts a control plane. The error says why this is not possible here. Any other failure fails the tests.
    pub fn start() -> Result<Self, String> {
        Ok(Self::start_with(Programs::find()?, Ipv4Addr::LOCALHOST, Vec::new()))
    }

    /// Starts a control plane that nodes and their pods can reach at this local address, with programs that [`build`]
    /// has built: a kubelet must not be newer than its API server.
    #[allow(dead_code, reason = "for the tests that have a node")]
    pub fn start_for_nodes(program: PathBuf, address: Ipv4Addr) -> Self {
        // Logs and exec in pods go through the API server, which connects to the kubelet and needs a client
        // certificate.
        let flags = ["kubelet-preferred-address-types=InternalIP", "allow-privileged"]
            .map(|flag| format!("--{flag}"))
            .to_vec();
        Self::start_with(Programs::One(program), address, flags)
    }

    fn start_with(programs: Programs, address: Ipv4Addr, flags: Vec<String>) -> Self {
        let directory = tempfile::Builder::new().prefix("mailgress-control-plane-").tempdir().unwrap().keep();
        let etcd = format!("http://127.0.0.1:{}", ports::free());
        let peer = format!("http://127.0.0.1:{}", ports::free());
        let data = directory.join("etcd");
        let mut command = programs.command("etcd");
        command
            .extend(["--unsafe-no-fsync", "--name=etcd", "--log-level=error", "--data-dir"].map(Into::into));
        command.push(data.into());
        for (flag, url) in [
            ("--listen-client-urls", &etcd),
            ("--advertise-client-urls", &etcd),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
        ] {
            command.push(format!("{flag}={url}").into());
        }
        command.push(format!("--initial-cluster=etcd={peer}").into());
        let token = format!("{:032x}", rand::random::<u128>());
        write_credentials(&directory, address, &token);
        let plane = Self {
            // Its data are not needed after a crash.
            _etcd: Daemon::start(
                "etcd",
                &directory,
                &strings(&command),
                "exec 2>/dev/null; kill -KILL $pid",
                false,
            ),
            programs,
            etcd,
            address: (address, ports::free()).into(),
            flags,
            api_server: Mutex::new(None),
            directory,
        };
        std::fs::write(plane.kubeconfig(), kubeconfig(&plane.entry(), &token, "default")).unwrap();
        plane.start_api_server();
        plane
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// Returns the cluster's entry for a kubeconfig.
    pub fn entry(&self) -> Value {
        json!({
            "server": format!("https://{}", self.address()),
            "certificate-authority": self.directory.join("ca.crt"),
        })
    }

    /// Returns the address of the API server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a file of the control plane: `ca.crt`, the authority of all its certificates, or `accounts.key`, which
    /// signs the tokens of ServiceAccounts.
    #[allow(dead_code, reason = "for the tests that have a node")]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns a kubectl command as the administrator.
    pub fn kubectl(&self) -> Command {
        let all = self.programs.command("kubectl");
        let mut command = Command::new(&all[0]);
        // Without the caches in the user's home directory.
        command.args(&all[1..]).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.directory);
        command
    }

    /// Starts the API server again, with the same data.
    pub fn start_api_server(&self) {
        let logs = self.directory.join(format!("kube-apiserver-{}", ports::free()));
        std::fs::create_dir(&logs).unwrap();
        let file = |name: &str| self.file(name).display().to_string();
        let mut command = self.programs.command("kube-apiserver");
        command.extend(self.flags.iter().map(Into::into));
        for (flag, value) in [
            ("--etcd-servers", self.etcd.clone()),
            ("--bind-address", self.address.ip().to_string()),
            ("--secure-port", self.address.port().to_string()),
            ("--tls-cert-file", file("server.crt")),
            ("--tls-private-key-file", file("server.key")),
            ("--cert-dir", file("certificates")),
            ("--service-account-key-file", file("accounts.pub")),
            ("--service-account-signing-key-file", file("accounts.key")),
            ("--service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("--service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("--kubelet-client-certificate", file("kubelet-client.crt")),
            ("--kubelet-client-key", file("kubelet-client.key")),
            ("--token-auth-file", file("tokens.csv")),
            ("--authorization-mode", "RBAC".to_owned()),
        ] {
            command.push(format!("{flag}={value}").into());
        }
        // It would wait for its drain, but etcd ends before.
        let daemon = Daemon::start(
            "kube-apiserver",
            &logs,
            &strings(&command),
            "exec 2>/dev/null; kill -KILL $pid",
            false,
        );
        *self.turn() = Some(daemon);
        wait::eventually("the API server is ready", || {
            let ready = self.kubectl().args(["get", "--raw", "/readyz"]).output().unwrap();
            let log = std::fs::read_to_string(logs.join("kube-apiserver.out")).unwrap_or_default();
            assert!(!log.contains("command failed"), "the API server cannot be started:\n{log}");
            ready.status.success().then_some(())
        });
    }

    /// Kills the API server.
    pub fn stop_api_server(&self) {
        drop(self.turn().take());
    }

    fn turn(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.api_server.lock()
    }
}

/// Returns a kubeconfig for this cluster with this token.
pub fn kubeconfig(entry: &Value, token: &str, namespace: &str) -> String {
    let text = serde_yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": namespace } }],
        "clusters": [{ "name": "test", "cluster": entry }],
        "users": [{ "name": "test", "user": { "token": token } }],
    }));
    text.unwrap()
}

impl Programs {
    fn find() -> Result<Self, String> {
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) {
            let missing = NAMES.iter().find(|name| !folder.join(name).is_file());
            assert!(missing.is_none(), "KUBEBUILDER_ASSETS={}: there is no {missing:?}", folder.display());
            return Ok(Self::Folder(folder));
        }
        build().map(Self::One)
    }

    fn command(&self, name: &str) -> Vec<OsString> {
        match self {
            Self::Folder(folder) => vec![folder.join(name).into()],
            Self::One(program) => vec![program.into(), name.into()],
        }
    }
}

/// Builds the program of `tests/cluster/control-plane`, unless it is already built from the same source.
pub fn build() -> Result<PathBuf, String> {
    let version = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let folder = Module {
        source: "cluster/control-plane",
        target: "control-plane",
        files: &["go.mod", "go.sum", "main.go"],
        package: ".",
        link: &[
            version("gitVersion", &format!("v{MAJOR}.{MINOR}.{PATCH}")),
            version("gitMajor", MAJOR),
            version("gitMinor", MINOR),
        ],
        notice: "building Kubernetes and etcd; this takes some minutes, once",
    };
    let instead =
        || format!("there is no control plane: set KUBEBUILDER_ASSETS to a folder with {}", NAMES.join(", "));
    let folder = folder.build().map_err(|reason| format!("{}, or: {reason}", instead()))?;
    Ok(folder.join("control-plane"))
}

fn write_credentials(directory: &Path, address: Ipv4Addr, token: &str) {
    // Pods use the last address.
    let server = AUTHORITY.issue(&["localhost", &address.to_string(), "10.96.0.1"]);
    let client = AUTHORITY.issue(&["kube-apiserver"]);
    let accounts = KeyPair::generate().unwrap();
    let tokens = format!("{token},admin,admin,\"system:masters\"\n");
    for (name, text) in [
        ("ca.crt", AUTHORITY.pem()),
        ("server.crt", server.certificate),
        ("server.key", server.key),
        ("kubelet-client.crt", client.certificate),
        ("kubelet-client.key", client.key),
        ("accounts.key", accounts.serialize_pem()),
        ("accounts.pub", accounts.public_key_pem()),
        ("tokens.csv", tokens),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
}

fn strings(command: &[OsString]) -> Vec<&OsStr> {
    command.iter().map(OsString::as_os_str).collect()
}

const NAMES: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// As in control-plane/go.mod. kubectl needs the version.
const MAJOR: &str = "1";
const MINOR: &str = "35";
const PATCH: &str = "4";
