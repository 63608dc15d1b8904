//! Dovecot and Postfix in pods, with a client.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{BOUND, Cluster};
use crate::images;
use crate::support::pki::AUTHORITY;
use crate::support::wait;

/// Both servers in a namespace.
pub struct Mail<'a> {
    cluster: &'a Cluster,
    /// The namespace.
    pub namespace: String,
}

impl<'a> Mail<'a> {
    /// Starts them and waits until they are ready.
    pub fn start(cluster: &'a Cluster, namespace: &str) -> Self {
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
        let services = [
            server("dovecot", DOVECOT, 24),
            service("dovecot", &[("imap", 143), ("pop3", 110), ("lmtp", 24), ("sasl", 12345)]),
            server("postfix", POSTFIX, 587),
            service("postfix", &[("submission", 587)]),
            client(),
        ];
        let files = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "files" },
            "data": {
                "dovecot.conf": dovecot_conf(PASSWORD),
                "main.cf": include_str!("mail/main.cf").replace("@NAMESPACE@", namespace),
                "master.cf": include_str!("mail/master.cf"),
                "ca.pem": AUTHORITY.pem(),
            },
        });
        let objects: Vec<Value> = [files].into_iter().chain(services).collect();
        cluster.apply_with(&list(&objects), &["-n", namespace]);
        let bound = format!("--timeout={}s", BOUND.as_secs());
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "-n", namespace, &bound]);
        Self { cluster, namespace: namespace.to_owned() }
    }

    /// Returns the log line of Dovecot or Postfix that contains all of `words`.
    pub fn logs(&self, server: &str, words: &[&str]) -> String {
        wait::within(BOUND, &format!("{server} logs {words:?}"), || {
            let log = self.cluster.try_kubectl(&["logs", "-n", &self.namespace, server])?;
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Runs curl in a pod. Returns its output.
    #[track_caller]
    pub fn curl_inside(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&[&self.curl()[..], arguments].concat())
    }

    /// As [`Self::curl_inside`], but returns `None` if it fails.
    pub fn try_curl_inside(&self, arguments: &[&str]) -> Option<String> {
        self.cluster.try_kubectl(&[&self.curl()[..], arguments].concat())
    }

    fn curl(&self) -> Vec<&str> {
        let words = "exec client -- curl -sS --max-time 60 --cacert /files/ca.pem";
        [&["-n", &self.namespace][..], &words.split(' ').collect::<Vec<_>>()].concat()
    }
}

fn server(name: &str, start: &str, port: u16) -> Value {
    let mut pod = pod(name, start);
    let probe = json!({ "tcpSocket": { "port": port }, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 30 });
    pod["spec"]["containers"][0]["readinessProbe"] = probe;
    pod
}

/// A pod that waits for commands.
fn client() -> Value {
    pod("client", "exec sleep infinity")
}

fn pod(name: &str, start: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": name,
                "image": images::MAIL,
                "imagePullPolicy": "IfNotPresent",
                "args": ["-c", start],
                "volumeMounts": [{ "name": "files", "mountPath": "/files" }],
            }],
            "volumes": [{ "name": "files", "configMap": { "name": "files" } }],
        },
    })
}

fn service(name: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": ports },
    })
}

/// Combines objects to a list.
pub fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}

/// Returns Dovecot's configuration for the version installed here, which is also in the image. Every user has this
/// password.
pub fn dovecot_conf(password: &str) -> String {
    let output = Command::new("/usr/sbin/dovecot").arg("--version").output().expect("dovecot is installed");
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let accounts = match version.get(..3) {
        Some("2.3") => include_str!("mail/dovecot-2.3.conf"),
        Some("2.4") => include_str!("mail/dovecot-2.4.conf"),
        _ => panic!("Dovecot {version} is installed; the tests know 2.3 and 2.4"),
    };
    accounts.replace("@PASSWORD@", password) + include_str!("mail/dovecot-services.conf")
}

/// The password of every user.
pub const PASSWORD: &str = "correct-horse";
/// Starts Dovecot with its configuration in `/files`.
pub const DOVECOT: &str = "mkdir -m 777 /tmp/mail && exec dovecot -F -c /files/dovecot.conf";
/// Starts Postfix with its configuration in `/files`.
pub const POSTFIX: &str = "mkdir -p /var/spool/postfix /var/lib/postfix && chown postfix /var/lib/postfix && \
                       cp /files/*.cf /etc/postfix && exec postfix start-fg";
