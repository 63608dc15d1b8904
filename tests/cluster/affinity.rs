//! Exclusive users with two replicas before a real API server, while endpoints come and go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::cluster::{at, our_address};
use crate::replicas::Pair;
use crate::support::backend::Backend;
use crate::support::mailboxes::Mailboxes;
use crate::support::manifest::with;
use crate::support::talk::{greeted, is_success, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

const USERS: usize = 200;
const PODS: [&str; 3] = ["dovecot-0", "dovecot-1", "dovecot-2"];

fn name(number: usize) -> String {
    format!("user{number}@example.org")
}

/// Writes the EndpointSlice of a Pod.
fn slice(pair: &Pair, pod: &str, at: SocketAddr, ready: bool) {
    pair.cluster.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": pod, "labels": { "kubernetes.io/service-name": "dovecot" } },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": at.port() }],
        "endpoints": [{
            "addresses": [at.ip()],
            "conditions": { "ready": ready, "serving": true, "terminating": !ready },
            "targetRef": { "kind": "Pod", "namespace": pair.cluster.name, "name": pod },
        }],
    }));
}

fn route(pair: &Pair, affinity: &Value) -> Value {
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": "org", "namespace": pair.cluster.name },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": { "domains": ["example.org"] },
            "backend": {
                "services": [{ "protocol": "IMAP", "name": "dovecot", "port": 143 }],
                "affinity": affinity,
            },
        },
    })
}

/// A MailServer that both replicas can serve on one host, without a backend of its own.
fn edge(pair: &Pair, port: u16) -> Value {
    let edge = pair.edge(port);
    let mut listeners = edge["spec"]["listeners"].clone();
    listeners[0].as_object_mut().unwrap().remove("backendRef");
    with(edge, &json!({ "spec": { "listeners": listeners, "allowedRoutes": [{}] } }))
}

/// Applies the MailServer, a Service without endpoints, and the route.
fn apply(pair: &Pair, at: SocketAddr, affinity: &Value) {
    pair.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "dovecot" },
        "spec": { "ports": [{ "name": "imap", "port": 143 }] },
    }));
    pair.cluster.apply(&edge(pair, at.port()));
    pair.cluster.apply(&route(pair, affinity));
    pair.cluster.wait_for("Ready", "mailroute/org");
}

/// Clients that log in all the time, and keep their last sessions.
struct Clients {
    at: SocketAddr,
    is_over: AtomicBool,
    logins: AtomicUsize,
    held: AtomicUsize,
}

/// Ends clients when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Clients {
    const COUNT: usize = 16;

    fn run(&self, first: usize) {
        let mut kept: Vec<Wire> = Vec::new();
        for number in (first..).step_by(Self::COUNT) {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            // A replica may end while a client connects.
            let Ok(mut wire) = greeted(self.at) else { continue };
            match log_in(&mut wire, "IMAP", &name(number % USERS), "secret") {
                Ok(answer) if is_success("IMAP", &answer) => {
                    self.logins.fetch_add(1, Ordering::SeqCst);
                    kept.push(wire);
                }
                Ok(answer) if answer.contains("[UNAVAILABLE]") => {
                    self.held.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            if kept.len() > 20 {
                kept.remove(0);
            }
        }
    }
}

#[test]
fn no_user_is_on_two_pods_over_two_replicas_while_pods_come_and_go() {
    let Some(mut pair) = Pair::new("affinity") else { return };
    let (mailboxes, at) = (Mailboxes::default(), at());
    let pods = PODS.map(|pod| (pod, Backend::imap_of_users(our_address(), pod, &mailboxes)));
    let times = json!({ "mode": "Exclusive", "moveTimeout": "20s", "returnGrace": "1s", "grace": "500ms" });
    apply(&pair, at, &times);
    pods.iter().for_each(|(pod, backend)| slice(&pair, pod, backend.address(), true));
    let (is_over, logins, held) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let clients = Clients { at, is_over, logins, held };
    let leave = |pod: &str| wait::eventually("users leave", || (mailboxes.users_at(pod) == 0).then_some(()));
    let come = |pod: &str| wait::eventually("users come", || (mailboxes.users_at(pod) > 20).then_some(()));
    std::thread::scope(|scope| {
        // Also if an assertion fails.
        let _over = Over(&clients.is_over);
        for first in 0..Clients::COUNT {
            let clients = &clients;
            scope.spawn(move || clients.run(first));
        }
        for round in 0..6_usize {
            let (pod, backend) = &pods[round % 3];
            come(pod);
            if round % 2 == 0 {
                slice(&pair, pod, backend.address(), false);
            } else {
                pair.cluster.kubectl(&["delete", "endpointslice", pod]);
            }
            leave(pod);
            slice(&pair, pod, backend.address(), true);
            come(pod);
        }
        // One replica crashes, and leaves the list. Users move afterwards.
        pair.kill(1);
        pair.forget(1);
        let (pod, backend) = &pods[0];
        slice(&pair, pod, backend.address(), false);
        leave(pod);
        slice(&pair, pod, backend.address(), true);
        come(pod);
    });
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
    let (opened, moved) = mailboxes.counts();
    assert!(moved > USERS, "{moved} of {opened} sessions were at another Pod than before");
    let held = clients.held.into_inner();
    println!("{opened} sessions, {moved} at another Pod than before, {held} temporary errors");
}

#[test]
fn a_replica_is_ready_when_the_others_have_read_its_report() {
    let Some(mut pair) = Pair::with("affinity-ready", &["--ready-timeout", "60s"]) else { return };
    let (mailboxes, at) = (Mailboxes::default(), at());
    let pod = Backend::imap_of_users(our_address(), PODS[0], &mailboxes);
    apply(&pair, at, &json!({ "mode": "Exclusive" }));
    slice(&pair, PODS[0], pod.address(), true);
    let reaches = || {
        let mut wire = greeted(at).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", "bob@example.org", "secret").unwrap(), "a OK dovecot-0");
    };
    reaches();
    // The list does not have the address of a new process in the Pod replica-1 yet.
    pair.kill(1);
    pair.start_unready(1);
    let why = wait::eventually("the new process waits for the others", || {
        let (code, why) = pair.replica(1).readyz();
        (code != 200 && why.contains("exclusive users cannot be admitted")).then_some(why)
    });
    assert!(why.contains("replica-0"), "{why}");
    pair.call_ready(1);
    wait::eventually("the new process is ready", || pair.replica(1).is_ready().then_some(()));
    reaches();
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
}
