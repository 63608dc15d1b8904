//! Tests of the gate.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::controller::render::tests::{World, server};
use crate::model::served::{Entry, Page, Problem, Replica};
use crate::model::{BindReport, SocketState};
use crate::net::ListenAddress;

const TIMEOUT: Duration = Duration::from_secs(60);
const GOOD: &str = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: Disabled}}";
/// A listener whose Secret is missing.
const LOST: &str = "{name: b, port: 993, backendAddress: 'b:1', tls: {certificateRefs: [{name: lost}]}}";

/// A starting replica that has bound port 143.
struct Here {
    world: World,
    report: BindReport,
    peers: Option<Peers>,
    leads: bool,
    status: Value,
    unread: Option<String>,
    gate: Gate,
    began: Instant,
}

impl Here {
    fn new(yaml: &str) -> Self {
        let mut world = World::new();
        world.render(yaml);
        let bound = |port| (ListenAddress::Any { port }, SocketState::Bound(vec![]));
        let report =
            BindReport { revision: 1, sockets: Arc::new([bound(143)].into()), ..BindReport::default() };
        let (gate, began) = (Gate::new(TIMEOUT), Instant::now());
        Self { world, report, peers: None, leads: false, status: Value::Null, unread: None, gate, began }
    }

    /// Adds another ready replica that serves this object.
    fn beside(mut self, object: &str, served: ServedObject) -> Self {
        let mut peers = Peers::awaited("own");
        peers.set(&BTreeMap::from([(address(), "pod-a".to_owned())]), self.began);
        let object = ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: object.into() };
        let replica = Replica { name: "pod-a".into(), instance: "other".into(), node_address: None };
        let objects = vec![Entry { object, served: Some(served) }];
        let page = Page { replica, version: 1, ready: None, whole: true, objects, totals: None };
        peers.heard(address(), page, self.began);
        self.peers = Some(peers);
        self
    }

    fn look(&mut self, after: Duration) -> GateState {
        let facts = Facts {
            published: &self.world.renderer,
            report: &self.report,
            replicas: None,
            surroundings: None,
            now: 0,
        };
        let view = View {
            facts: &facts,
            peers: self.peers.as_ref(),
            leads: self.leads,
            status: &|_| Some(("", &self.status)),
            unread: &|_| self.unread.clone(),
            now: self.began + after,
        };
        self.gate.look(&view)
    }

    /// Returns the text of the wait.
    fn waits(&mut self, after: Duration) -> String {
        match self.look(after) {
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
    server(&format!("{GOOD}, {LOST}"), "")
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
fn waits_without_a_limit_for_what_another_ready_replica_serves() {
    let mut here = Here::new(&two()).beside("s", served(&["a", "b"]));
    for after in [Duration::ZERO, LATER] {
        let told = here.waits(after);
        assert!(told.starts_with("MailServer mail/s listener b: "), "{told}");
        assert!(told.contains("Secret mail/lost") && told.ends_with("(replica pod-a serves it)"), "{told}");
    }
    // A replica that serves the last valid generation counts.
    let problem = Problem {
        listener: "b".into(),
        pending: false,
        reason: "UsingLastGood".into(),
        message: "the Secret is gone".into(),
    };
    let degraded = ServedObject { problems: vec![problem], ..served(&["a", "b"]) };
    let mut here = Here::new(&two()).beside("s", degraded);
    here.waits(LATER);
    // The other replica is no longer ready, so the time limit starts.
    let peers = here.peers.as_mut().unwrap();
    peers.set(&BTreeMap::new(), here.began);
    assert_eq!(
        here.look(LATER),
        GateState::Ready,
        "nobody serves it, and status does not say that anybody did"
    );
}

#[test]
fn is_ready_at_once_where_nobody_serves_what_it_lacks() {
    assert_eq!(Here::new(&two()).look(Duration::ZERO), GateState::Ready);
    assert_eq!(Here::new(&two()).beside("s", served(&["a"])).look(Duration::ZERO), GateState::Ready);
    let other = ServedObject { uid: "another object of that name".into(), ..served(&["a", "b"]) };
    assert_eq!(Here::new(&two()).beside("s", other).look(Duration::ZERO), GateState::Ready);
    let removed = served(&["a", "removed from the spec"]);
    assert_eq!(Here::new(&two()).beside("s", removed).look(Duration::ZERO), GateState::Ready);
    assert_eq!(Here::new(&two()).beside("deleted", served(&["b"])).look(Duration::ZERO), GateState::Ready);
}

#[test]
fn waits_for_what_it_cannot_read() {
    let mut here = Here::new(&two()).beside("hidden", served(&["imaps"]));
    here.unread = Some("MailServer objects in mail cannot be read: forbidden".to_owned());
    let expected = "MailServer mail/hidden listener imaps: MailServer objects in mail cannot be read: forbidden \
                    (replica pod-a serves it)";
    assert_eq!(here.waits(LATER), expected);
    let newer = ServedObject { generation: 2, ..served(&["a", "new"]) };
    let told = Here::new(&two()).beside("s", newer).waits(LATER);
    assert!(told.contains("listener new: generation 2 has not been read yet"), "{told}");
    let refused = two().replace("backendAddress", "backendAdress");
    let told = Here::new(&refused).beside("s", served(&["a"])).waits(LATER);
    assert!(told.contains("listener a: ") && told.contains("backendAdress"), "{told}");
}

#[test]
fn waits_until_every_ready_replica_has_answered_or_is_silent() {
    let mut here = Here::new(&two());
    here.peers = Some(Peers::awaited("own"));
    assert!(matches!(here.look(Duration::ZERO), GateState::Asks(_)));
    let ready = BTreeMap::from([(address(), "pod-a".to_owned())]);
    let began = here.began;
    here.peers.as_mut().unwrap().set(&ready, began);
    let asks = GateState::Asks("replica pod-a has not said yet what it serves".to_owned());
    assert_eq!(here.look(LATER), asks);
    // The other replica is silent, so the status counts, without a limit.
    here.peers.as_mut().unwrap().look(began + LATER);
    here.status = programmed_status(&["a", "b"], 1);
    assert!(here.waits(LATER * 2).ends_with("(its status says that it was served)"));
    here.status = programmed_status(&["a"], 1);
    assert_eq!(here.look(LATER * 2), GateState::Ready);
}

#[test]
fn waits_for_a_while_for_what_was_served_before_where_no_other_replica_is_ready() {
    let mut here = Here::new(&two());
    here.status = programmed_status(&["a", "b"], 1);
    let told = here.waits(Duration::ZERO);
    assert!(told.ends_with("(its status says that it was served)"), "{told}");
    // This replica leads now, and has written the status itself.
    here.leads = true;
    here.status = programmed_status(&["a"], 1);
    assert_eq!(here.waits(TIMEOUT / 2), told);
    assert_eq!(here.look(TIMEOUT), GateState::ReadyWithout(vec![told]));
    let mut edited = Here::new(&two());
    edited.status = programmed_status(&["a", "b"], 0);
    assert_eq!(edited.look(Duration::ZERO), GateState::Ready, "that was an earlier generation");
}

#[test]
fn what_status_says_is_served_in_the_last_good_generation_counts() {
    let mut here = Here::new(&two());
    here.status = status_with(&["b"], 1, ("False", "UsingLastGood"));
    assert!(here.waits(Duration::ZERO).ends_with("(its status says that it was served)"));
    assert!(matches!(here.look(TIMEOUT), GateState::ReadyWithout(_)));
    here.status = status_with(&["b"], 1, ("False", "RefNotFound"));
    here.gate = Gate::new(TIMEOUT);
    assert_eq!(here.look(Duration::ZERO), GateState::Ready);
}

/// Another replica may be ready and serve the listener.
#[test]
fn waits_without_a_limit_for_what_was_served_before_while_the_replicas_cannot_be_read() {
    let mut here = Here::new(&two());
    let mut peers = Peers::awaited("own");
    peers.fail("EndpointSlices of namespace mailgress: forbidden".to_owned());
    here.peers = Some(peers);
    assert_eq!(here.look(Duration::ZERO), GateState::Ready, "nobody serves what it lacks");
    here.status = programmed_status(&["a", "b"], 1);
    here.look(Duration::ZERO);
    let told = here.waits(LATER);
    assert!(told.contains("(its status says that it was served)"), "{told}");
    assert!(told.ends_with("EndpointSlices of namespace mailgress: forbidden"), "{told}");
}

#[test]
fn does_not_wait_for_its_own_word_beside_replicas_that_answer() {
    let mut here = Here::new(&two());
    here.status = programmed_status(&["a", "b"], 1);
    here.waits(Duration::ZERO);
    here.leads = true;
    let mut here = here.beside("s", served(&["a"]));
    assert_eq!(here.look(LATER), GateState::Ready);
}

#[test]
fn a_line_names_a_few_listeners_and_counts_the_others() {
    let missing: Vec<String> = (0..8).map(|number| format!("m{number}")).collect();
    assert_eq!(told(&missing), "m0 | m1 | m2 | m3 | m4 | and 3 more");
    assert_eq!(told(&missing[..1]), "m0");
}
