//! Mailgress installed with Helm: the chart with a user's values, and the certificate as cert-manager writes it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cluster::{BOUND, Cluster};
use crate::images::{MAILGRESS, root};
use crate::mail::{Mail, PASSWORD, list};
use crate::support::pki::{AUTHORITY, Identity};
use crate::traffic::{Doors, HOST, USER};

/// A release.
pub struct Release<'a> {
    cluster: &'a Cluster,
    /// The name of the release and its namespace.
    pub name: String,
    chart: PathBuf,
}

impl<'a> Release<'a> {
    /// Prepares the names, and a copy of the chart that can be changed.
    pub fn prepare(cluster: &'a Cluster, name: &str) -> Self {
        let chart = cluster.files.path().join("chart");
        crate::node::succeed(
            std::process::Command::new("cp").arg("-r").arg(root().join("charts/mailgress")).arg(&chart),
        );
        Self { cluster, name: name.to_owned(), chart }
    }

    /// Runs `helm install --wait` with these mail servers as backends.
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
        // Helm also waits for the load balancer.
        cluster.balancing(&[(&self.name, &self.name)], || self.helm(&["install"], tag));
    }

    /// Runs `helm upgrade --wait` with this image.
    pub fn upgrade(&self, tag: &str) {
        self.helm(&["upgrade"], tag);
    }

    /// Runs `helm uninstall --wait`.
    pub fn uninstall(&self) {
        self.cluster.helm(&self.name, &["uninstall", &self.name, "--wait", "--timeout", TIMEOUT]);
    }

    /// Runs `helm test`. Returns its output with the pod's log.
    pub fn test(&self) -> String {
        self.cluster.helm(&self.name, &["test", &self.name, "--logs", "--timeout", TIMEOUT])
    }

    /// Adds a new field to the chart's definition of MailServer.
    pub fn change_definitions(&self) {
        let file = self.chart.join("files/crds/mailservers.mailgress.dev.yaml");
        let mut crd: Value = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"][NEW_FIELD] =
            json!({ "type": "string", "maxLength": 63, "description": "Of a version to come." });
        std::fs::write(file, serde_yaml::to_string(&crd).unwrap()).unwrap();
    }

    /// Tells whether the API server has this field.
    pub fn has_changed_definitions(&self) -> bool {
        let crd = self.cluster.get(&["crd", "mailservers.mailgress.dev"]);
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["properties"][NEW_FIELD].is_object()
    }

    /// Writes the certificate as cert-manager does: all three keys of the Secret, with its own field manager.
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

    /// Returns the addresses for clients outside the cluster, when all of them exist.
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

    /// Returns the existing pods, including those that are ending.
    pub fn pods(&self) -> Vec<String> {
        let label = format!("app.kubernetes.io/instance={}", self.name);
        let pods = self.cluster.kubectl(&["get", "pods", "-n", &self.name, "-l", &label, "-o", "name"]);
        pods.lines().map(str::to_owned).filter(|pod| !pod.ends_with("-test")).collect()
    }

    /// Returns the Service's address in the cluster.
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
            "drain": { "delay": format!("{DRAIN_DELAY}s"), "timeout": format!("{DRAIN_TIMEOUT}s"), "spread": "0s" },
            // The test's node is small.
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            // This Secret has other keys too.
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

/// Seconds during which an ending replica accepts connections.
pub const DRAIN_DELAY: u64 = 5;
/// Seconds during which sessions continue after this.
pub const DRAIN_TIMEOUT: u64 = 12;
/// Time limit for Helm; a rolling upgrade takes the longest.
const TIMEOUT: &str = "300s";
const CERTIFICATE: &str = "mail-tls";
const LOGIN: &str = "login";
const NEW_FIELD: &str = "ofAVersionToCome";
const _: () = assert!(BOUND.as_secs() > DRAIN_DELAY + DRAIN_TIMEOUT);
