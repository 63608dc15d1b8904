//! Exclusive users with two replicas before a real API server, while endpoints come and go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;

use serde_json::{Value, json};

use crate::cluster::{at, our_address};
use crate::replicas::Pair;
use crate::support::backend::Backend;
use crate::support::mailboxes::Mailboxes;
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, is_success, log_in, temporary_error};
use crate::support::wait;
use crate::support::wire::Wire;

pub const USERS: usize = 200;
const PODS: [&str; 3] = ["dovecot-0", "dovecot-1", "dovecot-2"];

pub fn name(number: usize) -> String {
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

/// The route of all users, with these services.
pub fn route(pair: &Pair, services: &Value, affinity: &Value) -> Value {
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": "org", "namespace": pair.cluster.name },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": { "domains": ["example.org"] },
            "backend": { "services": services, "affinity": affinity },
        },
    })
}

fn imap_route(pair: &Pair, affinity: &Value) -> Value {
    route(pair, &json!([{ "protocol": "IMAP", "name": "dovecot", "port": 143 }]), affinity)
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
    pair.cluster.apply(&imap_route(pair, affinity));
    pair.cluster.wait_for("Ready", "mailroute/org");
}

/// How exclusive users are moved in these tests.
pub fn exclusive() -> Value {
    json!({ "mode": "Exclusive", "moveTimeout": "20s", "returnGrace": "1s", "grace": "500ms" })
}

/// Starts all Pods, with exclusive users, and applies all objects.
fn exclusive_pods(pair: &Pair, at: SocketAddr) -> (Mailboxes, [(&'static str, Backend); 3]) {
    let mailboxes = Mailboxes::default();
    let pods = PODS.map(|pod| (pod, Backend::imap_of_users(our_address(), pod, &mailboxes)));
    apply(pair, at, &exclusive());
    pods.iter().for_each(|(pod, backend)| slice(pair, pod, backend.address(), true));
    (mailboxes, pods)
}

/// Clients that log in all the time, and keep their last sessions.
pub struct Clients {
    /// The listeners, which clients use in turn, with their protocols.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    pub password: &'static str,
    /// The number of sessions that each client keeps.
    pub kept: usize,
    is_over: AtomicBool,
    pub logins: AtomicUsize,
    pub held: AtomicUsize,
}

/// Ends clients when it is dropped.
pub struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Clients {
    const COUNT: usize = 16;

    pub fn new(listeners: Vec<(&'static str, SocketAddr)>, password: &'static str, kept: usize) -> Self {
        let (is_over, logins, held) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { listeners, password, kept, is_over, logins, held }
    }

    /// Starts the clients. They end when the result is dropped, also if an assertion fails.
    pub fn start<'a>(&'a self, scope: &'a Scope<'a, '_>) -> Over<'a> {
        for first in 0..Self::COUNT {
            scope.spawn(move || self.run(first));
        }
        Over(&self.is_over)
    }

    fn run(&self, first: usize) {
        let mut kept: Vec<Wire> = Vec::new();
        for number in (first..).step_by(Self::COUNT) {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            // A replica may end while a client connects.
            let (protocol, at) = self.listeners[number / Self::COUNT % self.listeners.len()];
            let Ok(mut wire) = greeted(at) else { continue };
            match log_in(&mut wire, protocol, &name(number % USERS), self.password) {
                Ok(answer) if is_success(protocol, &answer) => {
                    self.logins.fetch_add(1, Ordering::SeqCst);
                    kept.push(wire);
                }
                Ok(answer) if answer.starts_with(temporary_error(protocol)) => {
                    self.held.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            if kept.len() > self.kept {
                kept.remove(0);
            }
        }
    }
}

#[test]
fn no_user_is_on_two_pods_over_two_replicas_while_pods_come_and_go() {
    let Some(mut pair) = Pair::new("affinity") else { return };
    let at = at();
    let (mailboxes, pods) = exclusive_pods(&pair, at);
    let clients = Clients::new(vec![("IMAP", at)], "secret", 20);
    let leave = |pod: &str| wait::eventually("users leave", || (mailboxes.users_at(pod) == 0).then_some(()));
    let come = |pod: &str| wait::eventually("users come", || (mailboxes.users_at(pod) > 20).then_some(()));
    std::thread::scope(|scope| {
        let _over = clients.start(scope);
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
fn a_replica_that_ends_while_users_move_does_not_bring_them_to_two_pods() {
    let Some(mut pair) = Pair::with("affinity-drain", &["--drain-timeout", "3s", "--drain-spread", "2s"])
    else {
        return;
    };
    let at = at();
    let (mailboxes, pods) = exclusive_pods(&pair, at);
    let clients = Clients::new(vec![("IMAP", at)], "secret", 20);
    let leave = |pod: &str| wait::eventually("users leave", || (mailboxes.users_at(pod) == 0).then_some(()));
    let come = |pod: &str| wait::eventually("users come", || (mailboxes.users_at(pod) > 20).then_some(()));
    std::thread::scope(|scope| {
        let _over = clients.start(scope);
        for (round, (pod, backend)) in pods.iter().enumerate() {
            come(pod);
            // The replica learns of the change before, during or after its end begins.
            if round == 2 {
                pair.replica(1).terminate();
            }
            slice(&pair, pod, backend.address(), false);
            if round == 1 {
                pair.replica(1).logs(&["ending sessions of exclusive users"]);
            }
            if round < 2 {
                pair.replica(1).terminate();
            }
            pair.ended(1);
            leave(pod);
            slice(&pair, pod, backend.address(), true);
            pair.start_unready(1);
            pair.call_ready(1);
            wait::eventually("the new process is ready", || pair.replica(1).is_ready().then_some(()));
            come(pod);
        }
    });
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
    let (opened, moved) = mailboxes.counts();
    assert!(moved > USERS / 2, "{moved} of {opened} sessions were at another Pod than before");
    println!("{opened} sessions, {moved} at another Pod than before, {:?} temporary errors", clients.held);
}

/// Creates a Pod. Nothing runs it.
fn create_pod(pair: &Pair, name: &str) {
    pair.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{ "name": "dovecot", "image": "dovecot.example.test/dovecot" }],
        },
    }));
}

#[test]
fn a_pod_with_the_annotation_gets_no_new_sessions_and_its_open_ones_end() {
    let Some(pair) = Pair::new("leaving") else { return };
    let (mailboxes, at) = (Mailboxes::default(), at());
    let pods = PODS.map(|pod| (pod, Backend::imap_of_users(our_address(), pod, &mailboxes)));
    pair.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" },
    }));
    PODS.iter().for_each(|pod| create_pod(&pair, pod));
    apply(&pair, at, &json!({ "mode": "None" }));
    pods.iter().for_each(|(pod, backend)| slice(&pair, pod, backend.address(), true));
    let log_in = |number: usize| {
        let mut wire = greeted(at).unwrap();
        let answer = log_in(&mut wire, "IMAP", &name(number), "secret").unwrap();
        let place = answer.strip_prefix("a OK ").map(str::to_owned);
        (place.ok_or(answer), wire)
    };
    let of_first = || {
        let all = (0..30).map(log_in);
        all.map(|(place, wire)| (place.expect("the login is accepted"), wire)).collect::<Vec<_>>()
    };
    let [_, leaving, _] = PODS;
    for mode in ["None", "User", "Exclusive"] {
        pair.cluster.apply(&imap_route(&pair, &json!({ "mode": mode })));
        pair.cluster.wait_for("Ready", "mailroute/org");
        assert_eq!(pair.cluster.condition("mailroute/org", "EndpointsUnnamed"), Value::Null);
        let (before, sessions) = (mailboxes.shared().len(), of_first());
        pair.cluster.kubectl(&["annotate", "pod", leaving, "mailgress.dev/drain=true"]);
        let (mut ended, mut stayed) = (Vec::new(), Vec::new());
        for (number, (place, mut wire)) in sessions.into_iter().enumerate() {
            if place == leaving {
                let goodbye = "* BYE Mailbox has moved to another server, please reconnect";
                assert_eq!(wire.line().unwrap(), goodbye, "{mode}");
                ended.push(number);
            } else {
                stayed.push((number, place, wire));
            }
        }
        assert!(ended.len() > 2, "{mode}: {ended:?}");
        let message = pair.cluster.comes_to("mailroute/org", "EndpointsLeaving", "True", "EndpointsLeaving");
        assert!(message.contains("Pod dovecot-1 of Service leaving/dovecot"), "{message}");
        wait::eventually("the column counts the Pod", || {
            pair.cluster.kubectl(&["get", "mailroute", "org"]).contains("2/3 ready").then_some(())
        });
        for (number, (place, _wire)) in of_first().into_iter().enumerate() {
            assert_ne!(place, leaving, "{mode}: {number}");
            let before = stayed.iter_mut().find(|(stayed, ..)| *stayed == number);
            if let Some((_, before, wire)) = before {
                assert!(backend_answers(wire, "IMAP").unwrap(), "{mode}: {number}");
                assert!(mode == "None" || place == *before, "{mode}: {number}");
            }
        }
        pair.cluster.kubectl(&["annotate", "pod", leaving, "mailgress.dev/drain-"]);
        // A login during the move may end with the session of the user.
        wait::eventually("the Pod is used again", || {
            log_in(ended[0]).0.is_ok_and(|place| place == leaving).then_some(())
        });
        assert!(mode != "Exclusive" || mailboxes.shared().len() == before, "{:?}", mailboxes.shared());
    }
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
