//! Ready depends on whether clients reach Mailgress through the Service of `--service`.

use serde_json::{Value, json};

use crate::cluster::{Cluster, backend, listener, ready};
use crate::support::manifest::with;
use crate::support::{ports, wait};

const EDGE: &str = "mailserver/edge";

/// A MailServer whose listeners other hosts can reach.
fn edge(cluster: &Cluster, ports: &[u16]) -> Value {
    let public = |port: &u16| with(listener(&format!("imap-{port}"), *port), &json!({ "address": "*" }));
    let listeners: Vec<Value> = ports.iter().map(public).collect();
    with(cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } }))
}

fn has_port(cluster: &Cluster, port: u16) -> bool {
    let service = cluster.get("service/front");
    service["spec"]["ports"].as_array().unwrap().iter().any(|found| found["port"] == port)
}

#[test]
fn ready_follows_the_port_of_the_service_and_of_its_endpoints() {
    let Some(cluster) = Cluster::new("front") else { return };
    let (first, second, backend) = (ports::free(), ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.front("front");
    cluster.front_endpoint("front", &[]);
    cluster.apply(&edge(&cluster, &[first]));
    let _mailgress = cluster.replica(&["--service", "front/front"]);
    let message = cluster.comes_to(EDGE, "Ready", "Unknown", "ServicePortPending");
    let why = format!("no ready endpoint of the Service front/front has the port {first} yet");
    assert!(message.contains(&why) || message.contains("does not have the port"), "{message}");
    assert_eq!(cluster.condition(EDGE, "Programmed")["status"], "True");
    cluster.front_endpoint("front", &[first]);
    cluster.wait_for("Ready", EDGE);
    assert!(has_port(&cluster, first));
    // Another listener on a new port that the endpoints already have.
    cluster.front_endpoint("front", &[first, second]);
    cluster.apply(&edge(&cluster, &[first, second]));
    let generation = cluster.get(EDGE)["metadata"]["generation"].to_string();
    cluster.kubectl(&["wait", &format!("--for=jsonpath={{.status.observedGeneration}}={generation}"), EDGE]);
    cluster.wait_for("Ready", EDGE);
    assert!(has_port(&cluster, second));
}

#[test]
fn a_port_that_the_api_server_refuses_is_told_with_its_reason() {
    let Some(cluster) = Cluster::new("front-refused") else { return };
    let (port, backend) = (ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.kubectl(&["create", "service", "clusterip", "front", "--tcp=80"]);
    cluster.front_endpoint("front", &[port]);
    cluster.apply(&edge(&cluster, &[port]));
    let _mailgress = cluster.replica(&["--service", "front-refused/front"]);
    let message = cluster.comes_to(EDGE, "Ready", "False", "ServiceRefused");
    assert!(message.contains(&format!("port {port}")) && message.contains("forbidden"), "{message}");
    cluster.allow_front("front");
    cluster.wait_for("Ready", EDGE);
    assert!(has_port(&cluster, port));
}

#[test]
fn a_port_that_the_api_server_refuses_keeps_no_other_port_away() {
    let Some(cluster) = Cluster::new("front-other") else { return };
    let (gone, refused, good, backend) = (ports::free(), ports::free(), ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.front("front");
    cluster.front_endpoint("front", &[gone, refused, good]);
    cluster.apply(&edge(&cluster, &[gone]));
    let _mailgress = cluster.replica(&["--service", "front-other/front"]);
    cluster.wait_for("Ready", EDGE);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "front-other" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "front-other" } },
                "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["UPDATE"],
                }],
            },
            "validations": [{ "expression": format!("object.spec.ports.all(port, port.port != {refused})") }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "front-other" },
        "spec": { "policyName": "front-other", "validationActions": ["Deny"] },
    });
    cluster.apply(&policy);
    cluster.apply(&binding);
    // A new policy takes effect after a moment.
    wait::eventually("the policy is in force", || {
        let bad = json!({ "spec": { "ports": [{ "name": "x", "port": refused }] } }).to_string();
        let mut tried = cluster.kubectl_command();
        tried.args(["-n", "front-other", "patch", "service/front", "--dry-run=server", "-p", &bad]);
        (!tried.output().unwrap().status.success()).then_some(())
    });
    cluster.apply(&edge(&cluster, &[refused, good]));
    let message = cluster.comes_to(EDGE, "Ready", "False", "ServiceRefused");
    assert!(
        message.contains(&format!("port {refused}")) && !message.contains(&good.to_string()),
        "{message}"
    );
    wait::eventually("the other port is there, and the old one is not", || {
        (has_port(&cluster, good) && !has_port(&cluster, gone)).then_some(())
    });
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding/front-other"]);
    cluster.wait_for("Ready", EDGE);
    assert!(has_port(&cluster, refused));
}

#[test]
fn a_target_port_that_leads_elsewhere_is_told_with_the_field() {
    let Some(cluster) = Cluster::new("front-elsewhere") else { return };
    let (port, backend) = (ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.front("front");
    cluster.front_endpoint("front", &[port]);
    cluster.apply(&edge(&cluster, &[port]));
    let _mailgress = cluster.replica(&["--service", "front-elsewhere/front"]);
    cluster.wait_for("Ready", EDGE);
    // Kubernetes writes the slice with the Service's targetPort.
    let slice = |change: &Value| {
        let change = change.to_string();
        cluster.kubectl(&["patch", "endpointslice", "front", "--type=merge", "-p", &change]);
    };
    let name = format!("mail-{port}");
    slice(&json!({ "ports": [{ "name": name, "port": 1 }] }));
    let message = cluster.comes_to(EDGE, "Ready", "False", "ServiceUnusable");
    let why = format!(
        "Service front-elsewhere/front (set by --service) maps its port {port} to port 1 of the pods"
    );
    assert!(message.contains(&why) && message.contains("set targetPort"), "{message}");
    slice(&json!({ "ports": [{ "name": name, "port": port }] }));
    cluster.wait_for("Ready", EDGE);
}

#[test]
fn a_service_that_is_being_deleted_is_told() {
    let Some(cluster) = Cluster::new("front-going") else { return };
    let (port, backend) = (ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.front("front");
    cluster.front_endpoint("front", &[port]);
    cluster.apply(&edge(&cluster, &[port]));
    let _mailgress = cluster.replica(&["--service", "front-going/front"]);
    cluster.wait_for("Ready", EDGE);
    let patch = |change: &Value| {
        cluster.kubectl(&["patch", "service", "front", "--type=merge", "-p", &change.to_string()]);
    };
    patch(&json!({ "metadata": { "finalizers": ["example.com/wait"] } }));
    cluster.kubectl(&["delete", "service", "front", "--wait=false"]);
    let message = cluster.comes_to(EDGE, "Ready", "False", "ServiceUnusable");
    assert!(message.contains("front-going/front (set by --service) is being deleted"), "{message}");
    patch(&json!({ "metadata": { "finalizers": null } }));
    cluster.comes_to(EDGE, "Ready", "False", "ServiceNotFound");
}

#[test]
fn a_service_that_is_deleted_is_told_and_no_node_stands_in_for_its_address() {
    let Some(cluster) = Cluster::new("front-deleted") else { return };
    let (port, backend) = (ports::free(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.front("front");
    cluster.front_endpoint("front", &[port]);
    cluster.apply(&edge(&cluster, &[port]));
    let arguments = ["--service", "front-deleted/front", "--node-address", "192.0.2.7"];
    let _mailgress = cluster.replica(&arguments);
    cluster.wait_for("Ready", EDGE);
    let address = cluster.get("service/front")["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(cluster.get(EDGE)["status"]["address"], address);
    cluster.kubectl(&["delete", "service", "front"]);
    let message = cluster.comes_to(EDGE, "Ready", "False", "ServiceNotFound");
    assert!(message.contains("Service front-deleted/front (set by --service) not found"), "{message}");
    let status = cluster.get(EDGE)["status"].clone();
    assert_eq!(status["address"], format!("*:{port}"), "where it is bound");
    assert!(status["listeners"][0]["addresses"].is_null(), "{status}");
    cluster.kubectl(&["create", "service", "clusterip", "front", "--tcp=80"]);
    cluster.front_endpoint("front", &[port]);
    cluster.wait_for("Ready", EDGE);
}
