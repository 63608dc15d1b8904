//! The chart in a real API server: Mailgress with its ServiceAccount, all ways to upgrade, and uninstalling.
//!
//! There are no nodes, so no pod runs. Mailgress runs as a process, with the environment that the chart gives to its
//! pods.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::control_plane::{self, ControlPlane};
use crate::support::mailgress::Mailgress;
use crate::support::{ports, wait};
use crate::tools::{CHART, Tools, succeeded, tell};

#[test]
fn no_upgrade_touches_the_ports_of_mailgress() {
    let Some(cluster) = Cluster::new("no_upgrade_touches_the_ports_of_mailgress") else { return };
    cluster.helm(&["install", "mailgress", CHART, "--create-namespace"]);
    let _mailgress = cluster.mailgress();
    let (first, second) = (ports::free(), ports::free());
    cluster.serve("example", &[first, second]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "mailserver/example", "--timeout=60s"]);
    let before = cluster.comes_to_have(&[993, first, second]);

    let upgrade = ["upgrade", "mailgress", CHART, "--set"];
    cluster.helm(&[upgrade.as_slice(), &["podAnnotations.a=b,service.annotations.a=b"]].concat());
    assert_eq!(cluster.service_ports(), before, "helm upgrade with another annotation");
    cluster.helm(&[upgrade.as_slice(), &["service.ports[0].name=smtp,service.ports[0].port=25"]].concat());
    let moved = cluster.service_ports();
    assert_eq!(numbers(&moved), sorted(&[25, first, second]), "helm upgrade with another port of its own");
    assert!(before.iter().filter(|port| port["port"] != 993).all(|port| moved.contains(port)), "{moved:?}");
    cluster.helm(&["rollback", "mailgress", "1"]);
    assert_eq!(numbers(&cluster.service_ports()), sorted(&[993, first, second]), "helm rollback");

    let rendered = cluster.rendered();
    let apply = ["apply", "-f", rendered.to_str().unwrap()];
    // kubectl's first apply to objects of another tool, and a second one.
    for _ in 0..2 {
        cluster.kubectl(&apply);
        assert_eq!(numbers(&cluster.service_ports()), sorted(&[993, first, second]), "kubectl apply");
    }
    let server_side = ["--server-side", "--force-conflicts", "--field-manager=gitops"];
    cluster.kubectl(&[apply.as_slice(), &server_side].concat());
    assert_eq!(numbers(&cluster.service_ports()), sorted(&[993, first, second]), "server-side apply");
    let kept = cluster.service_ports();
    assert!(before.iter().filter(|port| port["port"] != 993).all(|port| kept.contains(port)), "{kept:?}");

    // This replaces the Service and its ports. Mailgress adds them again.
    cluster.helm(&[upgrade.as_slice(), &["service.annotations.a=c", "--force"]].concat());
    cluster.comes_to_have(&[993, first, second]);
}

#[test]
fn mail_servers_of_the_values_are_there_from_the_first_installation_on() {
    let name = "mail_servers_of_the_values_are_there_from_the_first_installation_on";
    let Some(cluster) = Cluster::new(name) else { return };
    let uid = || cluster.get("mailserver/example")["metadata"]["uid"].clone();
    cluster.helm_waits(&[["install"].as_slice(), &WITH_A_SERVER, &["--create-namespace"]].concat());
    let first = uid();
    let release = cluster.get("secret/sh.helm.release.v1.mailgress.v1")["data"]["release"].clone();
    let bytes = release.as_str().unwrap().len() / 4 * 3;
    assert!(bytes < SECRET / 4, "Helm keeps {bytes} bytes of a release in a Secret, which holds {SECRET}");
    // The release manages it with a hook, and later releases take it over. It always stays the same object.
    cluster.helm(&[["upgrade"].as_slice(), &WITH_A_SERVER].concat());
    assert_eq!(uid(), first);
    let other = ["--set", "mailServers.example.labels.a=b"];
    cluster.helm(&[["upgrade"].as_slice(), &WITH_A_SERVER, &other].concat());
    assert_eq!(uid(), first);
    assert_eq!(cluster.get("mailserver/example")["metadata"]["labels"]["a"], "b");
    cluster.helm(&["uninstall", "mailgress"]);
    let crd = |kind: &str| format!("customresourcedefinition.apiextensions.k8s.io/{kind}.mailgress.dev");
    assert_eq!(cluster.left(), [crd("maillisteners"), crd("mailroutes"), crd("mailservers")]);
    // The kept objects are taken over.
    cluster.helm(&[["install"].as_slice(), &WITH_A_SERVER].concat());
    assert_ne!(uid(), first);
    cluster.helm(&["upgrade", "mailgress", CHART, "--set", "crds.keep=false"]);
    cluster.helm(&["uninstall", "mailgress"]);
    wait::eventually("nothing is left", || cluster.left().is_empty().then_some(()));
}

#[test]
fn a_release_that_was_never_upgraded_leaves_no_mail_server() {
    let Some(cluster) = Cluster::new("a_release_that_was_never_upgraded_leaves_no_mail_server") else {
        return;
    };
    cluster.helm_waits(&[["install"].as_slice(), &WITH_A_SERVER, &["--create-namespace"]].concat());
    assert_eq!(cluster.kubectl(&["get", "mailservers", "-o", "name"]), "mailserver.mailgress.dev/example\n");
    cluster.helm(&["uninstall", "mailgress"]);
    assert_eq!(cluster.kubectl(&["get", "mailservers", "-o", "name"]), "");
}

/// As in docs/howto/troubleshooting.md.
#[test]
fn definitions_belong_to_the_first_release_until_they_are_given_to_another() {
    let name = "definitions_belong_to_the_first_release_until_they_are_given_to_another";
    let Some(cluster) = Cluster::new(name) else { return };
    cluster.helm(&["install", "mailgress", CHART, "--create-namespace"]);
    let other = ["install", "other", CHART, "--set", "className=other"];
    let refused = cluster.helm_command(&other).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "it is taken");
    for part in [
        "cannot be imported into the current release: invalid ownership metadata",
        r#"key "meta.helm.sh/release-name" must equal "other": current value is "mailgress""#,
    ] {
        assert!(said.contains(part), "{said}");
    }
    cluster.helm(&[other.as_slice(), &["--set", "crds.enabled=false"]].concat());
    cluster.helm(&["uninstall", "other"]);
    cluster.helm(&["upgrade", "mailgress", CHART, "--set", "crds.enabled=false"]);
    cluster.helm(&["uninstall", "mailgress"]);
    assert_eq!(cluster.left().len(), 3, "they are kept, by both");

    // The release that owned them is removed.
    assert!(!cluster.helm_command(&other).output().unwrap().status.success());
    cluster.kubectl(&[
        "annotate",
        "--overwrite",
        "crd",
        "mailservers.mailgress.dev",
        "maillisteners.mailgress.dev",
        "mailroutes.mailgress.dev",
        "meta.helm.sh/release-name=other",
        &format!("meta.helm.sh/release-namespace={NAMESPACE}"),
    ]);
    cluster.helm(&other);
    let owner = cluster.get("crd/mailservers.mailgress.dev")["metadata"]["labels"].clone();
    assert_eq!(owner["app.kubernetes.io/instance"], "other");
}

/// As in the chart's README.
#[test]
fn with_wait_helm_waits_for_the_address_of_the_load_balancer() {
    let name = "with_wait_helm_waits_for_the_address_of_the_load_balancer";
    let Some(cluster) = Cluster::new(name) else { return };
    let balanced = ["mailgress", CHART, "--set", "kind=DaemonSet"];
    let impatient = ["--create-namespace", "--wait", "--timeout=3s", "--debug"];
    let install = [["install"].as_slice(), &balanced, &impatient].concat();
    let output = cluster.helm_command(&install).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it does not wait");
    assert!(
        said.contains("Service does not have load balancer ingress IP address: mailgress/mailgress"),
        "{said}"
    );
    let address = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}"#;
    cluster.kubectl(&[
        "patch",
        "service",
        "mailgress",
        "--subresource=status",
        "--type=merge",
        "-p",
        address,
    ]);
    cluster.helm_waits(&[["upgrade"].as_slice(), &balanced].concat());
}

/// The chart with a MailServer, with kinds that become ready without controllers and load balancers.
const WITH_A_SERVER: [&str; 6] = [
    "mailgress",
    CHART,
    "--set",
    "kind=DaemonSet,service.type=ClusterIP",
    "--set-json",
    r#"mailServers.example.spec={"auth":{"passthrough":{}},"tls":{"certificateRefs":[{"name":"mail"}]},"listeners":[{"name":"imaps","port":993,"backendAddress":"dovecot.example.com:143"}]}"#,
];

/// A separate control plane, because CRDs are created and deleted.
struct Cluster {
    tools: Tools,
    plane: ControlPlane,
    files: tempfile::TempDir,
}

/// Whether a control plane can be started here.
static POSSIBLE: LazyLock<Result<(), String>> = LazyLock::new(|| ControlPlane::start().map(drop));

impl Cluster {
    fn new(name: &str) -> Option<Self> {
        let tools = Tools::new(name)?;
        if let Err(why) = &*POSSIBLE {
            tell(&format!("SKIPPED the chart test `{name}`: {why}"));
            return None;
        }
        let files = tempfile::Builder::new().prefix("mailgress-chart-").tempdir().unwrap();
        Some(Self { tools, plane: ControlPlane::start().unwrap(), files })
    }

    fn helm(&self, arguments: &[&str]) -> String {
        succeeded(self.helm_command(arguments).output().unwrap())
    }

    /// Runs Helm with `--wait`, and meanwhile writes the status that the DaemonSet's controller would write.
    fn helm_waits(&self, arguments: &[&str]) {
        let patch = ["patch", "daemonset", "mailgress", "--subresource=status", "--type=merge", "-p"];
        let is_seen = r#"{"status":{"observedGeneration":1}}"#;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                wait::eventually("Helm has made the DaemonSet", || {
                    let mut kubectl = self.plane.kubectl();
                    let patched = self.run(kubectl.args(["-n", NAMESPACE]).args(patch).arg(is_seen));
                    (patched.status.success() || done.load(Ordering::SeqCst)).then_some(())
                });
            });
            let output =
                self.helm_command(&[arguments, &["--wait", "--timeout=60s"]].concat()).output().unwrap();
            done.store(true, Ordering::SeqCst);
            succeeded(output);
        });
    }

    fn helm_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.tools.command("helm");
        command.env("KUBECONFIG", self.plane.kubeconfig()).args(["--namespace", NAMESPACE]).args(arguments);
        command
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.run(self.plane.kubectl().args(["-n", NAMESPACE]).args(arguments)))
    }

    fn run(&self, command: &mut Command) -> Output {
        command.current_dir(crate::tools::root()).output().unwrap()
    }

    fn get(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"])).unwrap()
    }

    /// Returns all remaining objects of the release.
    fn left(&self) -> Vec<String> {
        let kinds = "crd,clusterrole,clusterrolebinding,role,rolebinding,serviceaccount,service,deployment,pdb,secret,configmap";
        let text = self.kubectl(&["get", kinds, "-l", "app.kubernetes.io/instance=mailgress", "-o", "name"]);
        text.lines().map(str::to_owned).collect()
    }

    /// Starts Mailgress with the ServiceAccount and the environment of the pods.
    fn mailgress(&self) -> Mailgress {
        let token = self.kubectl(&["create", "token", "mailgress"]);
        let kubeconfig = self.files.path().join("kubeconfig");
        let text = control_plane::kubeconfig(&self.plane.entry(), token.trim(), NAMESPACE);
        std::fs::write(&kubeconfig, text).unwrap();
        let pod = self.get("deployment/mailgress")["spec"]["template"]["spec"].clone();
        let environment = pod["containers"][0]["env"].as_array().unwrap().clone();
        let mut arguments = Vec::new();
        for variable in environment {
            let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str());
            // The test sets the port, and the replicas would be pods. The other variables are those of a pod.
            if let (Some(value), true) =
                (value, ["MAILGRESS_CLASS", "MAILGRESS_LEASE", "MAILGRESS_SERVICE"].contains(&name))
            {
                let flag = name.trim_start_matches("MAILGRESS_").to_lowercase().replace('_', "-");
                arguments.push(format!("--{flag}={value}"));
            }
        }
        assert_eq!(arguments.len(), 3, "{arguments:?}");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let local = IpAddr::from([127, 0, 0, 1]);
        Mailgress::start_at(local, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()], &arguments)
    }

    /// Creates a MailServer with an IMAP listener on each of these ports.
    fn serve(&self, name: &str, ports: &[u16]) {
        let listener = |port: &u16| {
            json!({ "name": format!("imap-{port}"), "protocol": "IMAP", "port": port,
                "tls": { "mode": "Disabled" }, "backendAddress": "127.0.0.1:9" })
        };
        let spec = json!({ "auth": { "passthrough": {} }, "listeners": ports.iter().map(listener).collect::<Vec<_>>() });
        let server = json!({ "apiVersion": "mailgress.dev/v1alpha1", "kind": "MailServer",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec });
        let file = self.files.path().join("server.json");
        std::fs::write(&file, server.to_string()).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// Writes what the chart renders for this cluster to a file.
    fn rendered(&self) -> PathBuf {
        let text = succeeded(self.tools.template(&["--no-hooks"]));
        let file = self.files.path().join("rendered.yaml");
        std::fs::write(&file, text).unwrap();
        file
    }

    fn service_ports(&self) -> Vec<Value> {
        self.get("service/mailgress")["spec"]["ports"].as_array().unwrap().clone()
    }

    fn comes_to_have(&self, wanted: &[u16]) -> Vec<Value> {
        wait::eventually(&format!("the Service has the ports {wanted:?}"), || {
            let ports = self.service_ports();
            (numbers(&ports) == sorted(wanted)).then_some(ports)
        })
    }
}

fn numbers(ports: &[Value]) -> Vec<u16> {
    sorted(
        &ports.iter().map(|port| u16::try_from(port["port"].as_u64().unwrap()).unwrap()).collect::<Vec<_>>(),
    )
}

fn sorted(ports: &[u16]) -> Vec<u16> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports
}

const NAMESPACE: &str = "mailgress";
/// Maximum size of a Secret in the API server, in bytes.
const SECRET: usize = 1 << 20;
