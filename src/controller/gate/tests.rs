//! Tests of the gate.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::controller::render::tests::{Fixture, server};
use crate::model::served::ObjectName;
use crate::model::served::{Entry, Page, Problem, Replica};
use crate::model::{BindReport, SocketState};
use crate::net::ListenAddress;

const TIMEOUT: Duration = Duration::from_secs(60);
const VALID: &str = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: Disabled}}";
/// A listener whose Secret is missing.
const WITHOUT_SECRET: &str =
    "{name: b, port: 993, backendAddress: 'b:1', tls: {certificateRefs: [{name: lost}]}}";

/// A starting replica that has bound port 143.
struct Starting {
    fixture: Fixture,
    report: BindReport,
    peers: Option<Peers>,
    leads: bool,
    status: Value,
    unread: Option<String>,
    gate: Gate,
    began: Instant,
}

impl Starting {
    fn new(yaml: &str) -> Self {
        let mut fixture = Fixture::new();
        fixture.render(yaml);
        let bound = |port| (ListenAddress::Any { port }, SocketState::Bound(vec![]));
        let report =
            BindReport { revision: 1, sockets: Arc::new([bound(143)].into()), ..BindReport::default() };
        let (gate, began) = (Gate::new(TIMEOUT), Instant::now());
        Self { fixture, report, peers: None, leads: false, status: Value::Null, unread: None, gate, began }
    }

    /// Adds another ready replica that serves this object.
    fn with_peer(mut self, object: &str, served: ServedObject) -> Self {
        let mut peers = Peers::awaited("own");
        peers.set(&BTreeMap::from([(address(), "pod-a".to_owned())]), self.began);
        let object = ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: object.into() };
        let replica = Replica { name: "pod-a".into(), instance: "other".into(), node_address: None };
        let objects = vec![Entry { object, served: Some(served) }];
        let page =
            Page { replica, version: 1, ready: None, whole: true, objects, totals: None, exclusive: None };
        peers.answered(address(), page, self.began);
        self.peers = Some(peers);
        self
    }

    fn check(&mut self, after: Duration) -> GateState {
        let facts = Facts {
            published: &self.fixture.renderer,
            report: &self.report,
            replicas: None,
            surroundings: None,
            now: 0,
        };
        let view = View {
            facts: &facts,
            peers: self.peers.as_ref(),
            leads: self.leads,
            status: &|_| Some(("", self.status.clone())),
            unread: &|_| self.unread.clone(),
            now: self.began + after,
        };
        self.gate.check(&view)
    }

    /// Returns the text of the wait.
    fn waits(&mut self, after: Duration) -> String {
        match self.check(after) {
            GateState::Waits(missing) => missing.join(" | "),
            other => panic!("{other:?}"),
        }
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 9090))
}

fn served(listeners: &[&str]) -> ServedObject {
    let bound = listeners.iter().map(|name| Bound { listener: (*name).to_owned(), port: None }).collect();
    ServedObject { generation: 1, bound: Some(bound), ..ServedObject::default() }
}

fn two() -> String {
    server(&format!("{VALID}, {WITHOUT_SECRET}"), "")
}

/// Returns a status in which these listeners are programmed in this generation.
fn programmed_status(listeners: &[&str], generation: i64) -> Value {
    status_with(listeners, generation, ("True", "Bound"))
}

fn status_with(listeners: &[&str], generation: i64, (status, reason): (&str, &str)) -> Value {
    let condition = json!({
        "type": "Programmed", "status": status, "observedGeneration": generation, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let listener = |name: &&str| json!({ "name": name, "conditions": [condition] });
    json!({ "listeners": listeners.iter().map(listener).collect::<Vec<_>>() })
}

const LATER: Duration = Duration::from_secs(3600);

#[test]
fn waits_without_a_limit_for_listeners_of_another_ready_replica() {
    let mut replica = Starting::new(&two()).with_peer("s", served(&["a", "b"]));
    for after in [Duration::ZERO, LATER] {
        let summary = replica.waits(after);
        assert!(summary.starts_with("MailServer mail/s listener b: "), "{summary}");
        assert!(
            summary.contains("Secret mail/lost") && summary.ends_with("(replica pod-a serves it)"),
            "{summary}"
        );
    }
    // A replica that serves the last valid generation counts.
    let problem = Problem {
        listener: "b".into(),
        pending: false,
        reason: "UsingLastGood".into(),
        message: "the Secret is gone".into(),
    };
    let degraded = ServedObject { problems: vec![problem], ..served(&["a", "b"]) };
    let mut replica = Starting::new(&two()).with_peer("s", degraded);
    replica.waits(LATER);
    // The other replica is no longer ready, so the time limit starts.
    let peers = replica.peers.as_mut().unwrap();
    peers.set(&BTreeMap::new(), replica.began);
    assert_eq!(
        replica.check(LATER),
        GateState::Ready,
        "nobody serves it, and status does not say that anybody did"
    );
}

#[test]
fn is_ready_at_once_if_no_replica_serves_the_missing_listeners() {
    assert_eq!(Starting::new(&two()).check(Duration::ZERO), GateState::Ready);
    assert_eq!(Starting::new(&two()).with_peer("s", served(&["a"])).check(Duration::ZERO), GateState::Ready);
    let other = ServedObject { uid: "another object of that name".into(), ..served(&["a", "b"]) };
    assert_eq!(Starting::new(&two()).with_peer("s", other).check(Duration::ZERO), GateState::Ready);
    let removed = served(&["a", "removed from the spec"]);
    assert_eq!(Starting::new(&two()).with_peer("s", removed).check(Duration::ZERO), GateState::Ready);
    assert_eq!(
        Starting::new(&two()).with_peer("deleted", served(&["b"])).check(Duration::ZERO),
        GateState::Ready
    );
}

#[test]
fn waits_for_objects_that_it_cannot_read() {
    let mut replica = Starting::new(&two()).with_peer("hidden", served(&["imaps"]));
    replica.unread = Some("MailServer objects in mail cannot be read: forbidden".to_owned());
    let expected = "MailServer mail/hidden listener imaps: MailServer objects in mail cannot be read: forbidden \
                    (replica pod-a serves it)";
    assert_eq!(replica.waits(LATER), expected);
    let newer = ServedObject { generation: 2, ..served(&["a", "new"]) };
    let summary = Starting::new(&two()).with_peer("s", newer).waits(LATER);
    assert!(summary.contains("listener new: generation 2 has not been read yet"), "{summary}");
    let refused = two().replace("backendAddress", "backendAdress");
    let summary = Starting::new(&refused).with_peer("s", served(&["a"])).waits(LATER);
    assert!(summary.contains("listener a: ") && summary.contains("backendAdress"), "{summary}");
}

#[test]
fn waits_until_every_ready_replica_has_answered_or_is_silent() {
    let mut replica = Starting::new(&two());
    replica.peers = Some(Peers::awaited("own"));
    assert!(matches!(replica.check(Duration::ZERO), GateState::AwaitsReplicas(_)));
    let ready = BTreeMap::from([(address(), "pod-a".to_owned())]);
    let began = replica.began;
    replica.peers.as_mut().unwrap().set(&ready, began);
    let asks = GateState::AwaitsReplicas("replica pod-a has not answered yet".to_owned());
    assert_eq!(replica.check(LATER), asks);
    // The other replica is silent, so the status counts, without a limit.
    replica.peers.as_mut().unwrap().apply_timeouts(began + LATER);
    replica.status = programmed_status(&["a", "b"], 1);
    assert!(replica.waits(LATER * 2).ends_with("(it was served before, according to its status)"));
    replica.status = programmed_status(&["a"], 1);
    assert_eq!(replica.check(LATER * 2), GateState::Ready);
}

#[test]
fn waits_a_limited_time_for_earlier_listeners_without_another_ready_replica() {
    let mut replica = Starting::new(&two());
    replica.status = programmed_status(&["a", "b"], 1);
    let summary = replica.waits(Duration::ZERO);
    assert!(summary.ends_with("(it was served before, according to its status)"), "{summary}");
    // This replica leads now, and has written the status itself.
    replica.leads = true;
    replica.status = programmed_status(&["a"], 1);
    assert_eq!(replica.waits(TIMEOUT / 2), summary);
    assert_eq!(replica.check(TIMEOUT), GateState::ReadyWithout(vec![summary]));
    let mut edited = Starting::new(&two());
    edited.status = programmed_status(&["a", "b"], 0);
    assert_eq!(edited.check(Duration::ZERO), GateState::Ready, "that was an earlier generation");
}

#[test]
fn listeners_of_the_last_good_generation_in_status_count() {
    let mut replica = Starting::new(&two());
    replica.status = status_with(&["b"], 1, ("False", "UsingLastGood"));
    assert!(replica.waits(Duration::ZERO).ends_with("(it was served before, according to its status)"));
    assert!(matches!(replica.check(TIMEOUT), GateState::ReadyWithout(_)));
    replica.status = status_with(&["b"], 1, ("False", "RefNotFound"));
    replica.gate = Gate::new(TIMEOUT);
    assert_eq!(replica.check(Duration::ZERO), GateState::Ready);
}

/// Another replica may be ready and serve the listener.
#[test]
fn waits_without_a_limit_for_earlier_listeners_while_the_replicas_cannot_be_read() {
    let mut replica = Starting::new(&two());
    let mut peers = Peers::awaited("own");
    peers.fail("EndpointSlices of namespace mailgress: forbidden".to_owned());
    replica.peers = Some(peers);
    assert_eq!(replica.check(Duration::ZERO), GateState::Ready, "nobody serves what it lacks");
    replica.status = programmed_status(&["a", "b"], 1);
    replica.check(Duration::ZERO);
    let summary = replica.waits(LATER);
    assert!(summary.contains("(it was served before, according to its status)"), "{summary}");
    assert!(summary.ends_with("EndpointSlices of namespace mailgress: forbidden"), "{summary}");
}

#[test]
fn ignores_its_own_status_if_other_replicas_answer() {
    let mut replica = Starting::new(&two());
    replica.status = programmed_status(&["a", "b"], 1);
    replica.waits(Duration::ZERO);
    replica.leads = true;
    let mut replica = replica.with_peer("s", served(&["a"]));
    assert_eq!(replica.check(LATER), GateState::Ready);
}

#[test]
fn a_line_names_a_few_listeners_and_counts_the_others() {
    let missing: Vec<String> = (0..8).map(|number| format!("m{number}")).collect();
    assert_eq!(summary(&missing), "m0 | m1 | m2 | m3 | m4 | and 3 more");
    assert_eq!(summary(&missing[..1]), "m0");
}
