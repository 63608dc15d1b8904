//! Several replicas: one leads, and Ready depends on all of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, our_address, ready};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::{ports, wait};

const EDGE: &str = "mailserver/edge";

/// Two replicas that the Service `replicas` lists.
pub struct Pair {
    pub cluster: Cluster,
    /// `replica-0` and `replica-1`.
    replicas: [Option<Mailgress>; 2],
    /// Additional arguments of both.
    arguments: Vec<String>,
}

impl Pair {
    pub fn new(name: &'static str) -> Option<Self> {
        Self::with(name, &[])
    }

    pub fn with(name: &'static str, arguments: &[&str]) -> Option<Self> {
        let cluster = Cluster::new(name)?;
        cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "replicas" },
            "spec": { "clusterIP": "None", "ports": [{ "name": "admin", "port": 9090 }] },
        }));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut pair = Self { cluster, replicas: [None, None], arguments };
        // The first one leads.
        pair.start(0);
        pair.leads(0);
        pair.start(1);
        Some(pair)
    }

    /// Starts a replica and marks it as ready.
    pub fn start(&mut self, number: usize) {
        self.start_unready(number);
        let replica = self.replica(number);
        wait::eventually("the replica is ready", || replica.is_ready().then_some(()));
        self.call_ready(number);
    }

    /// Starts a replica without marking it as ready.
    pub fn start_unready(&mut self, number: usize) {
        let name = format!("replica-{number}");
        let service = format!("{}/replicas", self.cluster.name);
        let mut arguments = vec!["--pod-name", &name, "--replicas", &service];
        arguments.extend(self.arguments.iter().map(String::as_str));
        if !arguments.contains(&"--drain-timeout") {
            arguments.extend(["--drain-timeout", "1s"]);
        }
        self.replicas[number] = Some(self.cluster.unready_replica(&arguments));
    }

    /// Marks a replica as ready, as the kubelet does.
    pub fn call_ready(&self, number: usize) {
        self.slice(number, self.replica(number).admin().port());
    }

    /// Each replica has its own slice, because on one host their ports differ.
    fn slice(&self, number: usize, port: u16) {
        let name = format!("replica-{number}");
        self.cluster.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "replicas" } },
            "addressType": "IPv4",
            "ports": [{ "name": "admin", "port": port }],
            "endpoints": [{
                "addresses": [our_address()],
                "conditions": ready(),
                "targetRef": { "kind": "Pod", "namespace": self.cluster.name, "name": name },
            }],
        }));
    }

    pub fn replica(&self, number: usize) -> &Mailgress {
        self.replicas[number].as_ref().unwrap()
    }

    pub fn kill(&mut self, number: usize) {
        self.replicas[number] = None;
    }

    /// Waits until a replica has ended, and removes it from the list, as Kubernetes does.
    pub fn ended(&mut self, number: usize) {
        let mut replica = self.replicas[number].take().unwrap();
        let status = replica.wait(wait::PATIENCE);
        assert!(status.success(), "{status}");
        self.forget(number);
    }

    pub fn forget(&self, number: usize) {
        self.cluster.kubectl(&["delete", "endpointslice", &format!("replica-{number}")]);
    }

    fn holder(&self) -> String {
        let lease =
            self.cluster.in_namespace("mailgress", &["get", "lease", self.cluster.name, "-o", "json"]);
        let lease: Value = serde_json::from_str(&lease).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    pub fn leads(&self, number: usize) {
        let prefix = format!("replica-{number}_");
        wait::eventually("the replica leads", || self.holder().starts_with(&prefix).then_some(()));
    }

    /// A MailServer with one listener that both can bind on one host.
    pub fn edge(&self, port: u16) -> Value {
        let shared = json!({ "socket": { "reusePort": true } });
        let listeners = [with(listener("imap", port), &shared)];
        with(self.cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } }))
    }
}

#[test]
fn the_leaders_page_shows_all_replicas_and_the_others_name_the_leader() {
    let Some(pair) = Pair::new("replicas-page") else { return };
    let (cluster, at, backend) = (&pair.cluster, at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&pair.edge(at.port()));
    cluster.wait_for("Ready", EDGE);
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    // Either replica may have the session.
    wait::eventually("the leader shows both replicas with their sums", || {
        let page = pair.replica(0).page("/");
        let told = ["replica-1", "1 on all 2 replicas", "1 of 1 ready", "on all 2: 1 accepted"];
        told.iter().all(|text| page.contains(text)).then_some(())
    });
    wait::eventually("the other one names the leader", || {
        let page = pair.replica(1).page("/");
        (page.contains("Leader: replica-0") && page.contains("kubectl port-forward pod/replica-0"))
            .then_some(())
    });
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn ready_is_true_when_every_replica_serves_it_and_false_with_the_name_of_one_that_cannot() {
    let Some(pair) = Pair::new("all-replicas") else { return };
    let (cluster, at, backend) = (&pair.cluster, at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&pair.edge(at.port()));
    cluster.wait_for("Ready", EDGE);
    for number in [0, 1] {
        pair.replica(number).logs(&["MailServer all-replicas/edge: Ready=True"]);
    }
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    // Without reusePort, only one process of a host can bind the port.
    let port = ports::free();
    cluster.apply(&cluster.edge(&[("imap", port)]));
    let message = wait::eventually("Ready is False for one of them", || {
        let found = cluster.condition(EDGE, "Ready");
        let is_so = found["status"] == "False" && found["reason"] == "BindFailed";
        is_so.then(|| found["message"].as_str().unwrap().to_owned())
    });
    assert!(message.contains(&format!("127.0.0.1:{port} cannot be bound")), "{message}");
    let programmed = cluster.condition(EDGE, "Programmed");
    if programmed["status"] == "True" {
        assert!(message.contains("replica replica-1: "), "{message}");
    }
    assert!(backend_answers(&mut session, "IMAP").unwrap());
    cluster.apply(&pair.edge(at.port()));
    cluster.wait_for("Ready", EDGE);
    let edge = cluster.get(EDGE);
    assert_eq!(edge["status"]["observedGeneration"], edge["metadata"]["generation"]);
}

#[test]
fn a_replica_that_does_not_answer_is_named_until_it_does_or_is_not_ready_any_more() {
    let Some(mut pair) = Pair::new("silent-replica") else { return };
    let (at, backend) = (at(), backend("backend"));
    pair.cluster.backends(&[(&backend, ready())]);
    pair.cluster.apply(&pair.edge(at.port()));
    pair.cluster.wait_for("Ready", EDGE);
    pair.replica(1).stop();
    let message = pair.cluster.comes_to(EDGE, "Ready", "False", "ReplicaUnreachable");
    assert!(message.contains("replica replica-1 does not answer status requests"), "{message}");
    assert_eq!(pair.cluster.condition(EDGE, "Programmed")["status"], "True");
    assert!(pair.replica(0).status()["problems"].to_string().contains("replica-1"));
    pair.replica(1).go_on();
    pair.cluster.wait_for("Ready", EDGE);
    pair.kill(1);
    pair.cluster.comes_to(EDGE, "Ready", "False", "ReplicaUnreachable");
    pair.forget(1);
    pair.cluster.wait_for("Ready", EDGE);
}

#[test]
fn another_replica_leads_within_seconds_and_says_nothing_twice() {
    let Some(mut pair) = Pair::new("failover") else { return };
    let (first, second, backend) = (at(), at(), backend("backend"));
    pair.cluster.backends(&[(&backend, ready())]);
    pair.cluster.apply(&pair.edge(first.port()));
    pair.cluster.wait_for("Ready", EDGE);
    let mut session = greeted(first).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    let before = pair.cluster.get(EDGE);
    let killed = Instant::now();
    pair.kill(0);
    pair.forget(0);
    pair.cluster.apply(&with(pair.edge(second.port()), &json!({ "metadata": { "name": "other" } })));
    pair.cluster.wait_for("Ready", "mailserver/other");
    let took = killed.elapsed();
    assert!(took < FAILOVER, "a status was written after {took:?}");
    pair.leads(1);
    let after = pair.cluster.get(EDGE);
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    // The session was with either replica.
    let _ = backend_answers(&mut session, "IMAP");
    greeted(first).unwrap();
    // A replica that ends normally releases the Lease.
    pair.start(0);
    let mut leader = pair.replicas[1].take().unwrap();
    leader.terminate();
    assert!(leader.wait(wait::PATIENCE).success());
    let log = leader.log();
    assert!(log.contains("released the Lease"), "{log}");
    pair.forget(1);
    pair.leads(0);
}

#[test]
fn a_leader_that_was_stopped_changes_nothing_when_it_goes_on() {
    let Some(pair) = Pair::with("stopped-leader", &["--service", "stopped-leader/front"]) else { return };
    let (first, second, backend) = (ports::free(), ports::free(), backend("backend"));
    pair.cluster.backends(&[(&backend, ready())]);
    pair.cluster.front("front");
    pair.cluster.kubectl(&["patch", "service/front", "-p", r#"{"spec": {"type": "NodePort"}}"#]);
    pair.cluster.front_endpoint("front", &[first, second]);
    let shared = json!({ "address": "*", "socket": { "reusePort": true } });
    let edge = |ports: &[u16]| {
        let listeners: Vec<Value> =
            ports.iter().map(|port| with(listener(&format!("imap-{port}"), *port), &shared)).collect();
        json!({ "spec": { "listeners": listeners } })
    };
    pair.cluster.apply(&with(pair.cluster.edge(&[]), &edge(&[first])));
    pair.cluster.wait_for("Ready", EDGE);
    pair.leads(0);
    pair.replica(0).stop();
    pair.forget(0);
    pair.leads(1);
    pair.cluster.apply(&with(pair.cluster.edge(&[]), &edge(&[first, second])));
    let state = || {
        let (service, edge) = (pair.cluster.get("service/front"), pair.cluster.get(EDGE));
        (service["spec"]["ports"].clone(), edge["metadata"]["resourceVersion"].clone())
    };
    let before = wait::eventually("the new leader has added the port, and says so", || {
        let edge = pair.cluster.get(EDGE);
        let is_told = edge["status"]["observedGeneration"] == edge["metadata"]["generation"];
        let (ports, version) = state();
        let has = ports.as_array().unwrap().iter().any(|port| port["port"] == second);
        let is_ready = pair.cluster.condition(EDGE, "Ready")["status"] == "True";
        (is_told && has && is_ready).then_some((ports, version))
    });
    pair.replica(0).go_on();
    pair.replica(0).logs(&["this replica is no longer the leader"]);
    pair.call_ready(0);
    wait::eventually("the leader asks it again", || {
        let metrics = pair.replica(1).page("/metrics");
        metrics.contains(r#"mailgress_replica_up{replica="replica-0"} 1"#).then_some(())
    });
    assert_eq!(state(), before);
}

#[test]
fn a_status_is_taken_back_when_an_object_goes_to_another_class() {
    let Some(cluster) = Cluster::new("taken-back") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let edge = cluster.edge(&[("imap", at.port())]);
    cluster.apply(&edge);
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    cluster.apply(&with(edge.clone(), &json!({ "spec": { "className": "nobodys" } })));
    wait::eventually("nothing is said of it any more", || {
        cluster.condition(EDGE, "Ready").is_null().then_some(())
    });
    wait::eventually("it is not served any more", || greeted(at).is_err().then_some(()));
    cluster.apply(&edge);
    cluster.wait_for("Ready", EDGE);
}

#[test]
fn an_event_says_what_an_operator_acts_on() {
    let Some(cluster) = Cluster::new("events") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let edge = cluster.edge(&[("imap", at.port())]);
    let lost = json!({ "spec": { "auth": { "passthrough": null, "http": {
        "serviceRef": { "name": "nowhere", "port": 9000 },
    } } } });
    cluster.apply(&with(edge.clone(), &lost));
    let _mailgress = cluster.mailgress();
    let events = |reason: &str| {
        let field = format!("--field-selector=reason={reason},involvedObject.name=edge");
        let events: Value =
            serde_json::from_str(&cluster.kubectl(&["get", "events", &field, "-o", "json"])).unwrap();
        events["items"].as_array().unwrap().clone()
    };
    let warning = wait::eventually("a warning", || events("RefNotFound").first().cloned());
    assert_eq!(warning["type"], "Warning");
    assert!(
        warning["message"].as_str().unwrap().contains("Service events/nowhere does not exist"),
        "{warning}"
    );
    cluster.apply(&edge);
    cluster.wait_for("Ready", EDGE);
    wait::eventually("word that it is ready", || (!events("Ready").is_empty()).then_some(()));
    assert_eq!(events("RefNotFound").len(), 1, "{:?}", events("RefNotFound"));
}

#[test]
fn the_ports_of_the_service_follow_the_listeners_and_leave_others_alone() {
    let Some(cluster) = Cluster::new("service-ports") else { return };
    let backend = backend("backend");
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "mailgress", "namespace": "mailgress" },
        "spec": { "type": "NodePort", "ports": [{ "name": "other", "port": 80 }] },
    }));
    let ports_of = || {
        let service = cluster.in_namespace("mailgress", &["get", "service", "mailgress", "-o", "json"]);
        let service: Value = serde_json::from_str(&service).unwrap();
        let ports = service["spec"]["ports"].as_array().unwrap().clone();
        ports.into_iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let arguments = ["--service", "mailgress/mailgress", "--node-address", "192.0.2.7"];
    let _mailgress = cluster.replica(&arguments);
    let (one, two) = (ports::free(), ports::free());
    let everywhere = |port: u16| with(listener(&format!("imap-{port}"), port), &json!({ "address": "*" }));
    let edge = |listeners: &[Value]| with(cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } }));
    // A port that only this host can reach is not added to the Service.
    cluster.apply(&edge(&[everywhere(one), everywhere(two), listener("local", ports::free())]));
    let names = |ports: &[u16]| {
        let mut names = vec!["other".to_owned()];
        names.extend(ports.iter().map(|port| format!("mail-{port}")));
        names.sort();
        names
    };
    let come_to = |expected: &[u16]| {
        wait::eventually(&format!("the Service has the ports {expected:?}"), || {
            let mut found = ports_of();
            found.sort();
            (found == names(expected)).then_some(())
        });
    };
    come_to(&[one, two]);
    let message = cluster.comes_to(EDGE, "ClientIPPreserved", "False", "ExternalTrafficPolicyCluster");
    assert!(message.contains("externalTrafficPolicy to Local"), "{message}");
    wait::eventually("the node's address is in the status", || {
        let edge = cluster.get(EDGE);
        let address = edge["status"]["listeners"][0]["addresses"][0].as_str()?.to_owned();
        address.starts_with("192.0.2.7:").then_some(())
    });
    assert_eq!(cluster.get(EDGE)["status"]["address"], "192.0.2.7");
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } }).to_string();
    cluster.in_namespace("mailgress", &["patch", "service", "mailgress", "-p", &local]);
    wait::eventually("the clients' addresses are kept", || {
        cluster.condition(EDGE, "ClientIPPreserved").is_null().then_some(())
    });
    cluster.apply(&edge(&[everywhere(two)]));
    come_to(&[two]);
    cluster.kubectl(&["delete", EDGE]);
    come_to(&[]);
}

/// Time limit from the leader's crash to the first status that another replica writes.
const FAILOVER: Duration = Duration::from_secs(15);
