//! Tests of conditions.

use super::*;
use crate::controller::render::tests::{World, server};
use crate::net::ListenAddress;

const GOOD: &str = "{name: a, port: 143, backendAddress: 'b:1', tls: {mode: 'Off'}}";

fn status(world: &mut World, yaml: &str, report: &BindReport, previous: &Status, now: i64) -> Status {
    let mut publisher = Publisher::default();
    publisher.take(world.render(yaml));
    Status::new(&Facts { published: &publisher, report, now }, previous)
}

fn bound(port: u16) -> BindReport {
    let state = SocketState::Bound(vec![format!("0.0.0.0:{port}").parse().unwrap()]);
    BindReport {
        revision: 1,
        sockets: [(ListenAddress::Any { port }, state)].into(),
        ..BindReport::default()
    }
}

/// `type=status reason` of every condition.
fn told(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{}={:?} {}", c.type_, c.status, c.reason)).collect()
}

fn of(status: &Status) -> &ObjectStatus {
    status.0.values().next().unwrap()
}

#[test]
fn an_object_is_ready_when_all_its_listeners_are_bound() {
    let mut world = World::new();
    let status = status(&mut world, &server(GOOD, ""), &bound(143), &Status::default(), 0);
    let good = ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", "Programmed=True Programmed"];
    assert_eq!(told(&of(&status).conditions)[..3], good);
    assert_eq!(told(&of(&status).conditions)[3], "Ready=True Ready");
    let listener = &of(&status).listeners[0].1;
    assert_eq!(
        told(listener)[2..],
        ["Conflicted=False NoConflicts", "Programmed=True Bound", "Ready=True Bound"]
    );
    assert_eq!(listener[4].message, "*:143 is bound (0.0.0.0:143)");
    assert_eq!(listener[4].observed_generation, Some(1));
}

#[test]
fn what_an_earlier_process_said_keeps_its_times() {
    let mut world = World::new();
    let before = status(&mut world, &server(GOOD, ""), &bound(143), &Status::default(), 1_000_000);
    let (kind, key, written) = before.each().next().unwrap();
    let mut known = Status::default();
    known.recall(kind, key, &written);
    let after = status(&mut World::new(), &server(GOOD, ""), &bound(143), &known, 2_000_000);
    assert_eq!(after, before);
    // What this process has said itself is newer, and what is no status says nothing.
    known.recall(kind, key, &json!({ "observedGeneration": 7 }));
    assert_eq!(known, before);
    let mut nothing = Status::default();
    nothing.recall(kind, key, &json!({ "conditions": "none" }));
    nothing.recall(kind, key, &Value::Null);
    assert_eq!(nothing, Status::default());
}

#[test]
fn an_object_is_not_ready_before_the_report_of_its_revision() {
    let mut world = World::new();
    let old = BindReport { revision: 0, ..bound(143) };
    let status = status(&mut world, &server(GOOD, ""), &old, &Status::default(), 0);
    assert_eq!(told(&of(&status).conditions)[3], "Ready=Unknown Pending");
}

#[test]
fn a_port_in_use_is_said_for_its_listener_only() {
    let two = format!("{GOOD}, {}", GOOD.replace("name: a", "name: b").replace("143", "110"));
    let mut report = bound(110);
    let failed = SocketState::Failed("address in use".to_owned());
    report.sockets.insert(ListenAddress::Any { port: 143 }, failed);
    let mut world = World::new();
    let status = status(&mut world, &server(&two, ""), &report, &Status::default(), 0);
    let object = of(&status);
    assert_eq!(told(&object.conditions)[3], "Ready=False BindFailed");
    assert_eq!(object.conditions[3].message, "listener a: *:143 cannot be bound: address in use");
    assert_eq!(told(&object.listeners[1].1)[4], "Ready=True Bound");
}

#[test]
fn an_invalid_spec_is_not_accepted_and_degrades() {
    let mut world = World::new();
    world.render(&server(GOOD, ""));
    let bad = server(&GOOD.replace("backendAddress", "backendAdress"), "");
    let status = status(&mut world, &bad, &bound(143), &Status::default(), 0);
    let expected = [
        "Accepted=False UnknownField",
        "ResolvedRefs=True ResolvedRefs",
        "Programmed=False UsingLastGood",
        "Ready=False UsingLastGood",
        "Degraded=True UsingLastGood",
    ];
    assert_eq!(told(&of(&status).conditions), expected);
    assert_eq!(of(&status).generation, 2);
}

#[test]
fn an_object_that_was_never_good_is_not_ready() {
    let mut world = World::new();
    let bad = server("{name: a}", "");
    let status = status(&mut world, &bad, &BindReport::default(), &Status::default(), 0);
    assert_eq!(told(&of(&status).conditions)[3], "Ready=False Invalid");
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut world = World::new();
    let yaml = server(GOOD, "");
    let first = status(&mut world, &yaml, &BindReport::default(), &Status::default(), 100);
    let second = status(&mut world, &yaml, &bound(143), &first, 200);
    assert_eq!(of(&second).conditions[0].last_transition_time, "1970-01-01T00:01:40Z");
    assert_eq!(of(&second).conditions[3].last_transition_time, "1970-01-01T00:03:20Z");
}

#[test]
fn each_changed_condition_is_one_line() {
    let mut world = World::new();
    let yaml = server(GOOD, "");
    let first = status(&mut world, &yaml, &BindReport::default(), &Status::default(), 0);
    assert_eq!(changes(&Status::default(), &first), vec![]);
    let second = status(&mut world, &yaml, &bound(143), &first, 0);
    let lines: Vec<String> = changes(&first, &second).into_iter().map(|change| change.line).collect();
    assert_eq!(
        lines,
        [
            "MailServer mail/s listener a: Ready=True (Bound): *:143 is bound (0.0.0.0:143)",
            "MailServer mail/s: Ready=True (Ready): all listeners are bound and serve this generation",
        ]
    );
    assert_eq!(changes(&second, &second), vec![]);
    let gone = changes(&second, &Status::default());
    assert_eq!((gone[0].line.as_str(), gone[0].alarming), ("MailServer mail/s: removed", false));
}

#[test]
fn the_document_holds_each_objects_status() {
    let mut world = World::new();
    let status = status(&mut world, &server(GOOD, ""), &bound(143), &Status::default(), 0);
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
            "{{name: {name}, protocol: POP3, address: '{}', backendAddress: 'b:1', tls: {{mode: 'Off'}}}}",
            path(name)
        )
    };
    let listeners: Vec<String> = ('a'..='z').map(listener).collect();
    let mut world = World::new();
    let yaml = server(&listeners.join(", "), "");
    let status = status(&mut world, &yaml, &BindReport::default(), &Status::default(), 0);
    assert_eq!(of(&status).address.chars().count(), MAX_ADDRESS);
}
