//! A new port, and a rollout that must stop.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{BOUND, Cluster};
use crate::mail::Mail;
use crate::release::Release;
use crate::steps::say;
use crate::support::wait;
use crate::traffic::Doors;

/// Clients of a listener on a new port reach it through the Service as soon as it is Ready.
pub fn new_ports_are_reached_when_ready(cluster: &Cluster, mail: &Mail, doors: Doors) {
    for port in NEW_PORTS {
        let name = format!("late-{port}");
        cluster.apply(&json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailListener",
            "metadata": { "name": name, "namespace": mail.namespace },
            "spec": {
                "serverRef": { "name": "example" },
                "protocol": "IMAP",
                "port": port,
                "backendRef": { "name": "dovecot", "port": 143 },
            },
        }));
        let listener = format!("maillistener/{name}");
        let bound = format!("--timeout={}s", BOUND.as_secs());
        cluster.kubectl(&["wait", "--for=condition=Ready", &listener, "-n", &mail.namespace, &bound]);
        let ready = Instant::now();
        let at = SocketAddr::new(doors.imaps.ip(), port);
        let connected = TcpStream::connect_timeout(&at, BOUND);
        let _ = say(&format!("    port {port}: {connected:?} {:?} after Ready", ready.elapsed()));
        assert!(connected.is_ok(), "port {port}: {connected:?}");
        cluster.kubectl(&["delete", &listener, "-n", &mail.namespace]);
    }
}

/// Without the permission to read the certificate, new pods are not ready and the old ones stay. After it is granted,
/// the rollout continues.
pub fn a_rollout_without_the_certificate_stops(cluster: &Cluster, release: &Release<'_>, mail: &Mail) {
    let before = release.pods();
    let binding = format!("rolebinding/{}-references", release.name);
    let kept = cluster.kubectl(&["get", &binding, "-n", &mail.namespace, "-o", "json"]);
    cluster.kubectl(&["delete", &binding, "-n", &mail.namespace]);
    let deployment = format!("deployment/{}", release.name);
    cluster.kubectl(&["rollout", "restart", &deployment, "-n", &release.name]);
    let new = wait::within(BOUND, "there is a new pod", || {
        release.pods().into_iter().find(|pod| !before.contains(pod))
    });
    wait::within(BOUND, "the new pod says what it does not serve", || {
        let log = cluster.try_kubectl(&["logs", &new, "-n", &release.name])?;
        (log.contains("not ready") && log.contains("serves it")).then_some(())
    });
    // The kubelet has probed several times during this time.
    let until = Instant::now() + LOOKED_AT;
    while Instant::now() < until {
        let ready = cluster.kubectl(&[
            "get",
            &new,
            "-n",
            &release.name,
            "-o=jsonpath={.status.containerStatuses[0].ready}",
        ]);
        assert_eq!(ready, "false");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(before.iter().all(|pod| release.pods().contains(pod)), "an old pod is gone");
    let mut binding: serde_json::Value = serde_json::from_str(&kept).unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        binding["metadata"].as_object_mut().unwrap().remove(field);
    }
    cluster.apply(&binding);
    let bound = format!("--timeout={}s", BOUND.as_secs());
    cluster.kubectl(&["rollout", "status", &deployment, "-n", &release.name, &bound]);
    wait::within(BOUND, "the old pods are gone", || {
        release.pods().iter().all(|pod| !before.contains(pod)).then_some(())
    });
}

/// Ports that were not used before.
const NEW_PORTS: [u16; 3] = [2143, 2144, 2145];
/// Longer than a readiness probe needs to detect a ready pod.
const LOOKED_AT: Duration = Duration::from_secs(15);
