//! Which endpoint of a Service a session goes to, and the effect of changes of its EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::talk::{backend_answers, greeted, log_in, temporary_error};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

struct Edge {
    mailgress: Mailgress,
    folder: Folder,
    imap: SocketAddr,
}

/// One EndpointSlice for each endpoint, because each has its own port.
fn slice(name: &str, endpoint: SocketAddr, ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("imap-{name}"),
            "namespace": "mail",
            "labels": { "kubernetes.io/service-name": "imap" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": endpoint.port(), "protocol": "TCP" }],
        "endpoints": [{ "addresses": [endpoint.ip().to_string()], "conditions": { "ready": ready } }],
    })
}

impl Edge {
    fn start(policy: &str, endpoints: &[(&str, SocketAddr)]) -> Self {
        let folder = Folder::new();
        folder.write(
            "service.yaml",
            &json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": "imap", "namespace": "mail" },
                "spec": { "ports": [{ "name": "imap", "port": 143, "protocol": "TCP" }] },
            }),
        );
        for (name, address) in endpoints {
            folder.write(&format!("slice-{name}.yaml"), &slice(name, *address, true));
        }
        let imap = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut to_service = listener("imap", "IMAP", "Disabled", imap.port(), imap);
        to_service.as_object_mut().unwrap().remove("backendAddress");
        let wanted = with(to_service, &json!({ "backendRef": { "name": "imap", "port": 143 } }));
        let upstream = json!({ "loadBalancing": policy });
        let spec = json!({ "auth": passthrough(), "upstream": upstream, "listeners": [wanted] });
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, folder, imap }
    }

    /// Logs in. Returns the backend's name and the session.
    fn log_in(&self, user: &str) -> (String, Wire) {
        let mut wire = greeted(self.imap).unwrap();
        let answer = log_in(&mut wire, "IMAP", user, "secret").unwrap();
        let name = answer.strip_prefix("a OK ").unwrap_or_else(|| panic!("{answer}"));
        (name.to_owned(), wire)
    }

    /// Opens `count` sessions. Returns how many each backend got, and the sessions.
    fn spread(&self, count: usize) -> (BTreeMap<String, usize>, Vec<(String, Wire)>) {
        let sessions: Vec<_> = (0..count).map(|index| self.log_in(&format!("user{index}"))).collect();
        let mut counts = BTreeMap::new();
        for (name, _) in &sessions {
            *counts.entry(name.clone()).or_default() += 1;
        }
        (counts, sessions)
    }

    fn waits_for_sessions(&self, count: usize) {
        wait::eventually(&format!("{count} sessions are open"), || {
            let metrics = self.mailgress.metrics();
            let line = metrics
                .lines()
                .find(|line| line.starts_with("mailgress_sessions_open") && line.contains(r#"tls="off""#))?;
            line.ends_with(&format!(" {count}")).then_some(())
        });
    }
}

fn three() -> [Backend; 3] {
    NAMES.map(Backend::imap)
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn named(backends: &[Backend; 3]) -> [(&'static str, SocketAddr); 3] {
    [0, 1, 2].map(|index| (NAMES[index], backends[index].address()))
}

/// An address where nobody listens.
fn dead() -> SocketAddr {
    ([127, 0, 0, 9], ports::free()).into()
}

fn all(count: usize) -> BTreeMap<String, usize> {
    NAMES.iter().map(|name| ((*name).to_owned(), count)).collect()
}

#[test]
fn round_robin_gives_every_endpoint_its_turn() {
    let backends = three();
    let edge = Edge::start("RoundRobin", &named(&backends));
    assert_eq!(edge.spread(12).0, all(4));
}

#[test]
fn least_sessions_fills_up_the_endpoint_that_lost_some() {
    let backends = three();
    let edge = Edge::start("LeastSessions", &named(&backends));
    let (counts, mut sessions) = edge.spread(9);
    assert_eq!(counts, all(3));
    sessions.retain(|(name, _)| name != "b");
    edge.waits_for_sessions(6);
    let (counts, _more) = edge.spread(3);
    assert_eq!(counts, BTreeMap::from([("b".to_owned(), 3)]));
}

#[test]
fn user_hash_keeps_a_user_on_one_endpoint_and_spreads_users() {
    let backends = three();
    let edge = Edge::start("UserHash", &named(&backends));
    let place = |user: &str| edge.log_in(user).0;
    let places: Vec<String> = (0..30).map(|index| place(&format!("user{index}"))).collect();
    let used: BTreeSet<&String> = places.iter().collect();
    assert_eq!(used.len(), 3, "{places:?}");
    for (index, before) in places.iter().enumerate() {
        assert_eq!(place(&format!("user{index}")), *before);
        assert_eq!(place(&format!("USER{index}")), *before, "names differ in case only");
    }
    // When an endpoint is removed, only its users move.
    edge.folder.remove("slice-b.yaml");
    wait::eventually("the endpoint is gone", || {
        let moved = places.iter().position(|name| name == "b").unwrap();
        (place(&format!("user{moved}")) != "b").then_some(())
    });
    for (index, before) in places.iter().enumerate() {
        let now = place(&format!("user{index}"));
        assert!(now == *before || before == "b", "user{index} went from {before} to {now}");
    }
}

/// The EndpointSlice of a StatefulSet's Pod.
fn pod(name: &str, endpoint: SocketAddr) -> Value {
    let mut slice = slice(name, endpoint, true);
    let target = json!({ "kind": "Pod", "name": format!("dovecot-{name}"), "namespace": "mail" });
    slice["endpoints"][0]["targetRef"] = target;
    slice
}

#[test]
fn user_hash_moves_nobody_when_a_pod_of_a_stateful_set_gets_another_address() {
    let backends = three();
    let edge = Edge::start("UserHash", &[]);
    for (name, address) in named(&backends) {
        edge.folder.write(&format!("slice-{name}.yaml"), &pod(name, address));
    }
    wait::eventually("the endpoints are known", || {
        let mut wire = greeted(edge.imap).ok()?;
        log_in(&mut wire, "IMAP", "user", "secret").ok().filter(|answer| answer.starts_with("a OK"))
    });
    let place = |index: usize| edge.log_in(&format!("user{index}@example.org")).0;
    let homes = || (0..30).map(place).collect::<Vec<String>>();
    let mut before = homes();
    wait::eventually("all three are used", || {
        before = homes();
        (before.iter().collect::<BTreeSet<_>>().len() == 3).then_some(())
    });
    let moved = Backend::imap("b");
    edge.folder.replace("slice-b.yaml", &pod("b", moved.address()));
    wait::eventually("the Pod is used at its new address", || {
        assert_eq!(homes(), before);
        (moved.accepted() > 0).then_some(())
    });
    assert_eq!(homes(), before);
    let domain = edge.log_in("user0@EXAMPLE.org").0;
    assert_eq!(domain, before[0], "the domain's case does not count");
}

#[test]
fn the_next_endpoint_is_tried_whatever_the_policy() {
    for policy in ["RoundRobin", "LeastSessions", "UserHash"] {
        let alive = Backend::imap("alive");
        let edge =
            Edge::start(policy, &[("x", dead()), ("a", alive.address()), ("y", dead()), ("z", dead())]);
        let (counts, _sessions) = edge.spread(12);
        assert_eq!(counts, BTreeMap::from([("alive".to_owned(), 12)]), "{policy}");
    }
}

#[test]
fn endpoints_that_come_and_go_in_the_folder_are_followed_and_sessions_stay() {
    let backends = three();
    let edge = Edge::start("RoundRobin", &named(&backends)[..2]);
    let (counts, mut sessions) = edge.spread(4);
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 2)]));
    // Remove one and add one, in separate edits.
    edge.folder.write("slice-c.yaml", &slice("c", backends[2].address(), true));
    edge.folder.replace("slice-a.yaml", &slice("a", backends[0].address(), false));
    wait::eventually("the endpoints have changed", || {
        let used: BTreeSet<String> = edge.spread(6).0.into_keys().collect();
        (used == BTreeSet::from(["b".to_owned(), "c".to_owned()])).then_some(())
    });
    for (name, wire) in &mut sessions {
        assert!(backend_answers(wire, "IMAP").unwrap(), "{name}");
    }
}

#[test]
fn a_service_without_ready_endpoints_is_told_and_served_when_it_has_one() {
    let backend = Backend::imap("a");
    let edge = Edge::start("RoundRobin", &[]);
    let mut wire = greeted(edge.imap).unwrap();
    assert!(log_in(&mut wire, "IMAP", "user", "secret").unwrap().starts_with(temporary_error("IMAP")));
    drop(wire);
    edge.mailgress.logs(&["no_backend", "has no ready endpoints"]);
    let status = edge.mailgress.status().to_string();
    assert!(status.contains("Service mail/imap has no ready endpoint"), "{status}");
    edge.folder.write("slice-a.yaml", &slice("a", backend.address(), true));
    wait::eventually("the endpoint is used", || {
        let mut wire = greeted(edge.imap).unwrap();
        (log_in(&mut wire, "IMAP", "user", "secret").unwrap() == "a OK a").then_some(())
    });
    wait::eventually("the status follows", || {
        (!edge.mailgress.status().to_string().contains("no ready endpoint")).then_some(())
    });
}
