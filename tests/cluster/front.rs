//! Ready says whether clients get here by the Service of `--service`.

use serde_json::{Value, json};

use crate::cluster::{Cluster, backend, listener, ready};
use crate::support::manifest::with;
use crate::support::ports;

const EDGE: &str = "mailserver/edge";

/// A MailServer whose listeners others than this host reach.
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
    // Another one on a new port, which Kubernetes has given to the endpoints already.
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
    assert!(message.contains("Service front-deleted/front of --service does not exist"), "{message}");
    let status = cluster.get(EDGE)["status"].clone();
    assert_eq!(status["address"], format!("*:{port}"), "where it is bound");
    assert!(status["listeners"][0]["addresses"].is_null(), "{status}");
    cluster.kubectl(&["create", "service", "clusterip", "front", "--tcp=80"]);
    cluster.front_endpoint("front", &[port]);
    cluster.wait_for("Ready", EDGE);
}
