//! Tests of conditions.

use std::sync::Arc;

use super::*;
use crate::controller::render::tests::{Fixture, server};
use crate::controller::service::OwnService;
use crate::model::SocketState;
use crate::model::served::{Bound, Entry, Page, Problem, Replica, ServedObject};
use crate::net::ListenAddress;

const VALID: &str = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: Disabled}}";

/// Returns the status of a manifest, and its changes.
fn updated(
    fixture: &mut Fixture,
    yaml: &str,
    report: &BindReport,
    previous: &Status,
    now: i64,
) -> (Status, Vec<Change>) {
    fixture.render(yaml);
    let publisher = &fixture.renderer;
    let facts = Facts { published: publisher, report, replicas: None, surroundings: None, now };
    let mut status = previous.clone();
    let ids: BTreeSet<ObjectId> =
        publisher.outcomes().map(|(id, _)| id).chain(previous.0.keys()).cloned().collect();
    let changes = ids.iter().flat_map(|id| status.update(&facts, id)).collect();
    (status, changes)
}

fn status(fixture: &mut Fixture, yaml: &str, report: &BindReport, previous: &Status, now: i64) -> Status {
    updated(fixture, yaml, report, previous, now).0
}

fn bound(port: u16) -> BindReport {
    let state = SocketState::Bound(vec![format!("0.0.0.0:{port}").parse().unwrap()]);
    BindReport {
        revision: 1,
        sockets: Arc::new([(ListenAddress::Any { port }, state)].into()),
        ..BindReport::default()
    }
}

/// Formats each condition as `type=status reason`.
fn lines(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{}={:?} {}", c.type_, c.status, c.reason)).collect()
}

fn of(status: &Status) -> &ObjectStatus {
    status.0.values().next().unwrap()
}

#[test]
fn an_object_is_ready_when_all_its_listeners_are_bound() {
    let mut fixture = Fixture::new();
    let status = status(&mut fixture, &server(VALID, ""), &bound(143), &Status::default(), 0);
    let good = ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", "Programmed=True Programmed"];
    assert_eq!(lines(&of(&status).conditions)[..3], good);
    assert_eq!(lines(&of(&status).conditions)[3], "Ready=True Ready");
    let listener = &of(&status).listeners[0].conditions;
    assert_eq!(
        lines(listener)[2..],
        ["Conflicted=False NoConflicts", "Programmed=True Bound", "Ready=True Bound"]
    );
    assert_eq!(listener[4].message, "*:143 is bound (0.0.0.0:143)");
    assert_eq!(listener[4].observed_generation, Some(1));
}

#[test]
fn conditions_of_an_earlier_process_keep_their_times() {
    let mut fixture = Fixture::new();
    let before = status(&mut fixture, &server(VALID, ""), &bound(143), &Status::default(), 1_000_000);
    let id = before.0.keys().next().unwrap();
    let written = before.value(id).unwrap();
    let mut known = Status::default();
    known.restore(id, &written);
    let after = status(&mut Fixture::new(), &server(VALID, ""), &bound(143), &known, 2_000_000);
    assert_eq!(after, before);
    assert_eq!(after.changes_since(id, "", &written), vec![]);
    // A value of another form is ignored.
    let mut nothing = Status::default();
    nothing.restore(id, &json!({ "conditions": "none" }));
    nothing.restore(id, &Value::Null);
    assert_eq!(nothing, Status::default());
}

#[test]
fn an_object_is_not_ready_before_the_report_of_its_revision() {
    let mut fixture = Fixture::new();
    let old = BindReport { revision: 0, ..bound(143) };
    let status = status(&mut fixture, &server(VALID, ""), &old, &Status::default(), 0);
    assert_eq!(lines(&of(&status).conditions)[3], "Ready=Unknown Pending");
}

#[test]
fn a_port_in_use_is_reported_for_its_listener_only() {
    let two = format!("{VALID}, {}", VALID.replace("name: a", "name: b").replace("143", "110"));
    let mut report = bound(110);
    let failed = SocketState::Failed("address in use".to_owned());
    Arc::make_mut(&mut report.sockets).insert(ListenAddress::Any { port: 143 }, failed);
    let mut fixture = Fixture::new();
    let status = status(&mut fixture, &server(&two, ""), &report, &Status::default(), 0);
    let object = of(&status);
    assert_eq!(lines(&object.conditions)[3], "Ready=False BindFailed");
    assert_eq!(object.conditions[3].message, "listener a: *:143 cannot be bound: address in use");
    assert_eq!(lines(&object.listeners[1].conditions)[4], "Ready=True Bound");
}

#[test]
fn an_invalid_spec_is_not_accepted_and_degrades() {
    let mut fixture = Fixture::new();
    fixture.render(&server(VALID, ""));
    let bad = server(&VALID.replace("backendAddress", "backendAdress"), "");
    let status = status(&mut fixture, &bad, &bound(143), &Status::default(), 0);
    let expected = [
        "Accepted=False UnknownField",
        "ResolvedRefs=True ResolvedRefs",
        "Programmed=False UsingLastGood",
        "Ready=False UsingLastGood",
        "Degraded=True UsingLastGood",
    ];
    assert_eq!(lines(&of(&status).conditions), expected);
    assert_eq!(of(&status).generation, 2);
}

#[test]
fn an_object_that_was_never_good_is_not_ready() {
    let mut fixture = Fixture::new();
    let bad = server("{name: a}", "");
    let status = status(&mut fixture, &bad, &BindReport::default(), &Status::default(), 0);
    assert_eq!(lines(&of(&status).conditions)[3], "Ready=False Invalid");
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut fixture = Fixture::new();
    let yaml = server(VALID, "");
    let first = status(&mut fixture, &yaml, &BindReport::default(), &Status::default(), 100);
    let second = status(&mut fixture, &yaml, &bound(143), &first, 200);
    assert_eq!(of(&second).conditions[0].last_transition_time, "1970-01-01T00:01:40Z");
    assert_eq!(of(&second).conditions[3].last_transition_time, "1970-01-01T00:03:20Z");
}

#[test]
fn each_changed_condition_is_one_line() {
    let mut fixture = Fixture::new();
    let yaml = server(VALID, "");
    let (first, changes) = updated(&mut fixture, &yaml, &BindReport::default(), &Status::default(), 0);
    assert_eq!(changes, vec![]);
    let (second, changes) = updated(&mut fixture, &yaml, &bound(143), &first, 0);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "MailServer mail/s listener a: Ready=True (Bound): *:143 is bound (0.0.0.0:143)",
            "MailServer mail/s: Ready=True (Ready): all listeners are bound and serve this generation",
        ]
    );
    let (same, changes) = updated(&mut fixture, &yaml, &bound(143), &second, 9);
    assert_eq!((same, changes), (second.clone(), vec![]));
    let (nothing, changes) = updated(&mut fixture, "", &bound(143), &second, 0);
    assert_eq!(nothing, Status::default());
    assert_eq!(
        (changes[0].to_string().as_str(), changes[0].is_alarming()),
        ("MailServer mail/s: removed", false)
    );
    let other = server(VALID, "className: other");
    let (nothing, changes) = updated(&mut fixture, &other, &bound(143), &second, 0);
    assert_eq!(nothing, Status::default());
    let released = "MailServer mail/s: released: the MailServer now has the class of another controller (spec.className)";
    assert_eq!(changes[0].to_string(), released);
}

#[test]
fn a_problem_of_several_listeners_is_reported_once() {
    let two = format!("{VALID}, {}", VALID.replace("name: a", "name: b").replace("143", "110"));
    let clear = two.replace(", tls: {mode: Disabled}", "");
    let status = status(&mut Fixture::new(), &server(&clear, ""), &bound(143), &Status::default(), 0);
    let conditions = &of(&status).conditions;
    let alarm = conditions.iter().find(|condition| condition.type_ == "ClearText").unwrap();
    assert!(
        alarm.message.starts_with("listener a: ") || alarm.message.starts_with("listeners a, b: "),
        "{alarm:?}"
    );
}

/// Two replicas, of which the other one has this entry in its ledger.
fn led(fixture: &mut Fixture, yaml: &str, other: Option<ServedObject>) -> Status {
    led_behind(fixture, yaml, other, None)
}

/// The same with this Service.
fn led_behind(
    fixture: &mut Fixture,
    yaml: &str,
    other: Option<ServedObject>,
    surroundings: Option<&Surroundings>,
) -> Status {
    fixture.render(yaml);
    let publisher = &fixture.renderer;
    let (id, outcome) = publisher.outcomes().next().unwrap();
    let now = tokio::time::Instant::now();
    let address = "10.0.0.2:9090".parse().unwrap();
    let mut peers = Peers::awaited("own");
    peers.set(&BTreeMap::from([(address, "pod-b".to_owned())]), now);
    let object = name(id);
    let replica = Replica { name: "pod-b".into(), instance: "other".into(), node_address: None };
    let objects = vec![Entry { object, served: other }];
    let page = Page { replica, version: 1, ready: None, whole: true, objects, totals: None, exclusive: None };
    peers.answered(address, page, now);
    assert_eq!(outcome.generation, 1);
    let report = bound(143);
    let facts = Facts { published: publisher, report: &report, replicas: Some(&peers), surroundings, now: 0 };
    let mut status = Status::default();
    status.update(&facts, id);
    status
}

#[test]
fn ready_depends_on_all_replicas_and_programmed_on_this_one() {
    let here = |other| {
        let status = led(&mut Fixture::new(), &server(VALID, ""), other);
        let conditions = lines(&of(&status).conditions);
        assert_eq!(conditions[2], "Programmed=True Programmed");
        (conditions[3].clone(), of(&status).conditions[3].message.clone())
    };
    let served = |generation, problems| {
        Some(ServedObject { uid: String::new(), generation, bound: None, problems, sessions: None })
    };
    assert_eq!(here(served(1, vec![])).0, "Ready=True Ready");
    let (ready, message) = here(served(0, vec![]));
    assert_eq!(ready, "Ready=Unknown Pending");
    assert_eq!(message, "listener a: replica pod-b serves generation 0 instead of 1");
    assert_eq!(here(None).0, "Ready=Unknown Pending");
    let problem = Problem {
        listener: "a".into(),
        pending: false,
        reason: "BindFailed".into(),
        message: "address in use".into(),
    };
    let (ready, message) = here(served(1, vec![problem]));
    assert_eq!(ready, "Ready=False BindFailed");
    assert_eq!(message, "listener a: replica pod-b: address in use");
}

/// Returns Ready, its message and the address of a listener on port 143 with this Service.
fn behind(spec: &Value) -> [String; 3] {
    let service = json!({ "metadata": { "namespace": "mail", "name": "edge" }, "spec": spec });
    let service = OwnService::read(&serde_json::from_value(service).unwrap(), "us");
    let front = Front::Known(Box::new(service));
    let surroundings = Surroundings { front, ..Surroundings::default() };
    let served =
        ServedObject { uid: String::new(), generation: 1, bound: None, problems: vec![], sessions: None };
    let yaml = server(VALID, "");
    let status = led_behind(&mut Fixture::new(), &yaml, Some(served), Some(&surroundings));
    let object = of(&status);
    [lines(&object.conditions)[3].clone(), object.conditions[3].message.clone(), object.address.clone()]
}

#[test]
fn a_load_balancer_without_an_address_is_reported_and_leaves_ready_true() {
    let ports = json!([{ "port": 143 }]);
    let [ready, message, address] = behind(&json!({ "type": "LoadBalancer", "ports": ports }));
    assert_eq!((ready.as_str(), address.as_str()), ("Ready=True Ready", "<pending>"));
    assert!(message.contains("; the Service mail/edge of type LoadBalancer has no address"), "{message}");
    let [ready, message, address] = behind(&json!({ "clusterIPs": ["10.96.0.9"], "ports": ports }));
    assert_eq!((ready.as_str(), address.as_str()), ("Ready=True Ready", "10.96.0.9"));
    assert_eq!(message, "all listeners are bound and serve this generation");
}

#[test]
fn a_service_that_leads_to_another_port_is_not_ready_though_the_listener_is_programmed() {
    let ports = json!([{ "port": 143, "targetPort": 10143 }]);
    let [ready, message, _] = behind(&json!({ "clusterIPs": ["10.96.0.9"], "ports": ports }));
    assert_eq!(ready, "Ready=False ServiceUnusable");
    assert!(message.contains("maps its port 143 to port 10143 of the pods"), "{message}");
}

#[test]
fn the_ledger_names_the_listeners_that_do_not_serve() {
    let mut fixture = Fixture::new();
    fixture.render(&server(VALID, ""));
    let publisher = &fixture.renderer;
    let id = publisher.outcomes().map(|(id, _)| id).next().unwrap();
    let lines = |report: &BindReport| {
        let facts = Facts { published: publisher, report, replicas: None, surroundings: None, now: 0 };
        served(&facts, id).unwrap()
    };
    let bound_here = |port| Some(vec![Bound { listener: "a".into(), port }]);
    let good = ServedObject { generation: 1, bound: bound_here(Some(143)), ..ServedObject::default() };
    assert_eq!(lines(&bound(143)), good);
    let pending = lines(&BindReport::default());
    assert_eq!((pending.problems[0].listener.as_str(), pending.problems[0].pending), ("a", true));
    assert_eq!(pending.bound, Some(vec![]));
    // During a change, the port is still served.
    let changing = lines(&BindReport { revision: 0, ..bound(143) });
    assert!(changing.problems[0].pending && changing.bound == bound_here(Some(143)), "{changing:?}");
    // A listener that can no longer be used is still served. The reason is this replica's own.
    fixture.render(&server(&VALID.replace("'b:1'", "'nowhere'"), ""));
    let publisher = &fixture.renderer;
    let report = BindReport { revision: 9, ..bound(143) };
    let facts = Facts { published: publisher, report: &report, replicas: None, surroundings: None, now: 0 };
    let degraded = served(&facts, publisher.outcomes().map(|(id, _)| id).next().unwrap()).unwrap();
    assert_eq!(degraded.bound, bound_here(Some(143)));
    assert_eq!(degraded.problems[0].reason, "UsingLastGood");
    assert!(
        degraded.problems[0].message.contains("backendAddress: this is not a backend's address"),
        "{degraded:?}"
    );
}

#[test]
fn keeps_the_port_of_a_listener_that_cannot_be_served() {
    let mut fixture = Fixture::new();
    let lost = "{name: b, port: 993, backendAddress: 'b:1', tls: {certificateRefs: [{name: lost}]}}";
    fixture.render(&server(&format!("{VALID}, {lost}"), ""));
    let publisher = &fixture.renderer;
    let report = bound(143);
    let facts = Facts { published: publisher, report: &report, replicas: None, surroundings: None, now: 0 };
    let claims = listener_ports(&facts, publisher.outcomes().map(|(id, _)| id).next().unwrap());
    let claims: Vec<(u16, bool)> = claims.into_iter().map(|claim| (claim.port, claim.is_ready)).collect();
    assert_eq!(claims, [(143, true), (993, false)]);
}

#[test]
fn the_document_holds_each_objects_status() {
    let mut fixture = Fixture::new();
    let status = status(&mut fixture, &server(VALID, ""), &bound(143), &Status::default(), 0);
    let document = status.document(7, &["a.yaml: broken".to_owned()]);
    assert_eq!(document["revision"], 7);
    assert_eq!(document["problems"][0], "a.yaml: broken");
    let object = &document["objects"][0];
    assert_eq!((object["kind"].as_str(), object["name"].as_str()), (Some("MailServer"), Some("s")));
    assert_eq!(object["status"]["listenerCount"], 1);
    assert_eq!(object["status"]["address"], "*:143");
    assert_eq!(object["status"]["listeners"][0]["conditions"][4]["type"], "Ready");
}

#[test]
fn the_address_column_is_cut_between_characters() {
    let path = |name: char| format!("unix:/run/{name}{}", "é".repeat(40));
    let listener = |name| {
        format!(
            "{{name: {name}, protocol: POP3, address: '{}', backendAddress: 'b:1', tls: {{mode: Disabled}}}}",
            path(name)
        )
    };
    let listeners: Vec<String> = ('a'..='z').map(listener).collect();
    let mut fixture = Fixture::new();
    let yaml = server(&listeners.join(", "), "");
    let status = status(&mut fixture, &yaml, &BindReport::default(), &Status::default(), 0);
    assert_eq!(of(&status).address.chars().count(), 1024);
}
