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

/// Ends threads when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_user_is_on_two_pods_over_two_replicas_while_pods_come_and_go() {
    let Some(mut pair) = Pair::new("affinity") else { return };
    let (mailboxes, at) = (Mailboxes::default(), at());
    let pods = PODS.map(|pod| (pod, Backend::imap_of_users(our_address(), pod, &mailboxes)));
    pair.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "dovecot" },
        "spec": { "ports": [{ "name": "imap", "port": 143 }] },
    }));
    pods.iter().for_each(|(pod, backend)| slice(&pair, pod, backend.address(), true));
    pair.cluster.apply(&edge(&pair, at.port()));
    let times = json!({ "mode": "Exclusive", "moveTimeout": "20s", "returnGrace": "1s", "grace": "500ms" });
    pair.cluster.apply(&route(&pair, &times));
    pair.cluster.wait_for("Ready", "mailroute/org");

    let (is_over, logins, held) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let (is_over, logins, held) = (&is_over, &logins, &held);
            scope.spawn(move || {
                let mut kept: Vec<Wire> = Vec::new();
                for number in (worker..).step_by(16) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    // A replica may end while a client connects.
                    let Ok(mut wire) = greeted(at) else { continue };
                    match log_in(&mut wire, "IMAP", &name(number % USERS), "secret") {
                        Ok(answer) if is_success("IMAP", &answer) => {
                            logins.fetch_add(1, Ordering::SeqCst);
                            kept.push(wire);
                        }
                        Ok(answer) if answer.contains("[UNAVAILABLE]") => {
                            held.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => {}
                    }
                    if kept.len() > 20 {
                        kept.remove(0);
                    }
                }
            });
        }
        // Also if an assertion fails.
        let _over = Over(&is_over);
        let go_on = |what: &str| {
            let before = logins.load(Ordering::SeqCst);
            wait::eventually(what, || (logins.load(Ordering::SeqCst) > before + USERS).then_some(()));
        };
        let leave =
            |pod: &str| wait::eventually("users leave", || (mailboxes.users_at(pod) == 0).then_some(()));
        let come = |pod: &str| wait::eventually("users come", || (mailboxes.users_at(pod) > 0).then_some(()));
        go_on("users log in");
        for round in 0..6_usize {
            let (pod, backend) = &pods[round % 3];
            if round % 2 == 0 {
                slice(&pair, pod, backend.address(), false);
            } else {
                pair.cluster.kubectl(&["delete", "endpointslice", pod]);
            }
            leave(pod);
            pods.iter().for_each(|(pod, backend)| slice(&pair, pod, backend.address(), true));
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
    println!("{opened} sessions, {moved} at another Pod than before, {} temporary errors", held.into_inner());
}

#[test]
fn a_replica_is_ready_when_the_others_have_read_its_report_and_drains_while_users_move() {
    let Some(mut pair) = Pair::with("affinity-drain", &["--ready-timeout", "60s"]) else { return };
    let (mailboxes, at) = (Mailboxes::default(), at());
    let pods = PODS.map(|pod| (pod, Backend::imap_of_users(our_address(), pod, &mailboxes)));
    pair.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "dovecot" },
        "spec": { "ports": [{ "name": "imap", "port": 143 }] },
    }));
    slice(&pair, pods[0].0, pods[0].1.address(), true);
    pair.cluster.apply(&edge(&pair, at.port()));
    pair.cluster.apply(&route(&pair, &json!({ "mode": "Exclusive" })));
    pair.cluster.wait_for("Ready", "mailroute/org");
    let mut wire = greeted(at).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "bob@example.org", "secret").unwrap(), "a OK dovecot-0");
    drop(wire);
    // A new process in the Pod replica-1 is not listed at its address yet.
    pair.kill(1);
    pair.start_unready(1);
    let why = wait::eventually("the new process waits for the list", || {
        let (code, why) = pair.replica(1).readyz();
        (code != 200 && why.contains("exclusive users")).then_some(why)
    });
    assert!(why.contains("replica"), "{why}");
    pair.call_ready(1);
    wait::eventually("the new process is ready", || pair.replica(1).is_ready().then_some(()));
    let mut wire = greeted(at).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "bob@example.org", "secret").unwrap(), "a OK dovecot-0");
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
}
