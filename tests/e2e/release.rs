//! Mailgress as Helm installs it: the chart with a user's values, the certificate as cert-manager keeps it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cluster::{BOUND, Cluster};
use crate::images::{MAILGRESS, root};
use crate::mail::{Mail, PASSWORD, list};
use crate::support::pki::{AUTHORITY, Identity};
use crate::traffic::{Doors, HOST, USER};

/// The release.
pub struct Release<'a> {
    cluster: &'a Cluster,
    /// Its name, and its namespace's.
    pub name: String,
    chart: PathBuf,
}

impl<'a> Release<'a> {
    /// Nothing yet but the names, and a copy of the chart that may be changed.
    pub fn prepare(cluster: &'a Cluster, name: &str) -> Self {
        let chart = cluster.files.path().join("chart");
        crate::node::succeed(
            std::process::Command::new("cp").arg("-r").arg(root().join("charts/mailgress")).arg(&chart),
        );
        Self { cluster, name: name.to_owned(), chart }
    }

    /// `helm install --wait`, before these mail servers.
    pub fn install(&self, mail: &Mail, tag: &str) {
        let cluster = self.cluster;
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.name } }));
        let login = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": LOGIN, "namespace": self.name },
            "type": "kubernetes.io/basic-auth",
            "stringData": { "username": USER, "password": PASSWORD, "ca.crt": AUTHORITY.pem() },
        });
        cluster.apply(&list(&[login]));
        std::fs::write(self.values(), self.values_for(mail).to_string()).unwrap();
        // Helm waits for the load balancer, too.
        cluster.balancing(&[(&self.name, &self.name)], || self.helm(&["install"], tag));
    }

    /// `helm upgrade --wait` with this image.
    pub fn upgrade(&self, tag: &str) {
        self.helm(&["upgrade"], tag);
    }

    /// `helm uninstall --wait`.
    pub fn uninstall(&self) {
        self.cluster.helm(&self.name, &["uninstall", &self.name, "--wait", "--timeout", TIMEOUT]);
    }

    /// `helm test`: what it prints, with the pod's log.
    pub fn test(&self) -> String {
        self.cluster.helm(&self.name, &["test", &self.name, "--logs", "--timeout", TIMEOUT])
    }

    /// A field that is in no version yet gets into the chart's definition of MailServer, which keeps all others.
    pub fn change_definitions(&self) {
        let file = self.chart.join("files/crds/mailservers.mailgress.dev.yaml");
        let mut crd: Value = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"][NEW_FIELD] =
            json!({ "type": "string", "maxLength": 63, "description": "Of a version to come." });
        std::fs::write(file, serde_yaml::to_string(&crd).unwrap()).unwrap();
    }

    /// Whether the API server has that field.
    pub fn has_changed_definitions(&self) -> bool {
        let crd = self.cluster.get(&["crd", "mailservers.mailgress.dev"]);
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["properties"][NEW_FIELD].is_object()
    }

    /// Writes the certificate as cert-manager does: all three keys of the Secret, as a field manager of its own.
    pub fn issue_certificate(&self, namespace: &str) -> Identity {
        let identity = AUTHORITY.issue(&[HOST]);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": CERTIFICATE,
                "namespace": namespace,
                "annotations": { "cert-manager.io/certificate-name": CERTIFICATE },
            },
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key, "ca.crt": AUTHORITY.pem() },
        });
        self.cluster
            .apply_with(&secret, &["--server-side", "--field-manager=cert-manager-certificates-issuing"]);
        identity
    }

    /// The doors for clients outside the cluster, when all of them are there.
    pub fn doors(&self) -> Doors {
        let address: IpAddr =
            self.cluster.address_of(&self.name, &self.name).expect("the Service has an address");
        let path = "-o=jsonpath={.spec.ports[*].port}";
        let arguments = ["get", "service", &self.name, "-n", &self.name, path];
        self.cluster.eventually("the Service has a port for each listener", &arguments, |ports| {
            let ports: Vec<&str> = ports.split_whitespace().collect();
            ["993", "995", "587"].iter().all(|port| ports.contains(port)).then_some(())
        });
        Doors { imaps: (address, 993).into(), submission: (address, 587).into() }
    }

    /// The pods that are there now, those that are ending too.
    pub fn pods(&self) -> Vec<String> {
        let label = format!("app.kubernetes.io/instance={}", self.name);
        let pods = self.cluster.kubectl(&["get", "pods", "-n", &self.name, "-l", &label, "-o", "name"]);
        pods.lines().map(str::to_owned).filter(|pod| !pod.ends_with("-test")).collect()
    }

    /// Where the Service is within the cluster.
    pub fn inside(&self) -> String {
        self.cluster.kubectl(&[
            "get",
            "service",
            &self.name,
            "-n",
            &self.name,
            "-o=jsonpath={.spec.clusterIP}",
        ])
    }

    fn helm(&self, what: &[&str], tag: &str) {
        let (chart, values) = (self.chart.display().to_string(), self.values().display().to_string());
        let image = format!("image.tag={tag}");
        let arguments =
            [&self.name, &chart, "--values", &values, "--set-string", &image, "--wait", "--timeout", TIMEOUT];
        self.cluster.helm(&self.name, &[what, &arguments].concat());
    }

    fn values(&self) -> PathBuf {
        self.cluster.files.path().join("values.json")
    }

    fn values_for(&self, mail: &Mail) -> Value {
        let (registry, repository) = MAILGRESS.split_once('/').unwrap();
        json!({
            "image": { "registry": registry, "repository": repository },
            "className": self.name,
            "drain": { "delay": format!("{DRAIN_DELAY}s"), "timeout": format!("{DRAIN_TIMEOUT}s") },
            // A node of a test is small.
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            // The Secret's other keys are there, too.
            "test": { "loginSecret": LOGIN, "extraArgs": ["--ca", "/login/ca.crt"] },
            "mailServers": {
                "example": {
                    "namespace": mail.namespace,
                    "spec": {
                        "serverName": HOST,
                        "tls": { "certificateRefs": [{ "name": CERTIFICATE }] },
                        "auth": { "passthrough": {} },
                        "listeners": [
                            { "name": "imaps", "port": 993, "backendRef": { "name": "dovecot", "port": 143 }, "upstream": { "proxyProtocol": "V2" } },
                            { "name": "pop3s", "port": 995, "backendRef": { "name": "dovecot", "port": 110 }, "upstream": { "proxyProtocol": "V1" } },
                            { "name": "submission", "port": 587, "backendRef": { "name": "postfix", "port": 587 } },
                        ],
                    },
                },
            },
        })
    }
}

/// Seconds in which a replica that ends still takes connections.
pub const DRAIN_DELAY: u64 = 5;
/// Seconds in which sessions go on after that.
pub const DRAIN_TIMEOUT: u64 = 12;
/// For Helm, of which a rolling upgrade takes the longest.
const TIMEOUT: &str = "300s";
const CERTIFICATE: &str = "mail-tls";
const LOGIN: &str = "login";
const NEW_FIELD: &str = "ofAVersionToCome";
const _: () = assert!(BOUND.as_secs() > DRAIN_DELAY + DRAIN_TIMEOUT);
