//! The inventory is the same from a cluster and from an instance.

use serde_json::{Value, json};

use super::cluster::{entries, object};
use super::*;

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn server(class: &str) -> Value {
    json!({
        "className": class,
        "auth": { "passthrough": {} },
        "tls": { "certificateRefs": [{ "name": "t" }] },
        "listeners": [
            { "name": "imaps", "port": 993, "hostnames": ["mail.test"], "backendAddress": "b:143" },
            { "name": "mx", "port": 2525, "protocol": "SMTP", "backendAddress": "b:25" },
        ],
    })
}

fn status() -> Value {
    let ready = condition("Ready", "True", "Bound", "*:993 is bound");
    let missing = condition("ResolvedRefs", "False", "RefNotFound", "Secret mail/t does not exist");
    let unserved = condition("Ready", "False", "NotServed", "its other conditions say why");
    json!({
        "observedGeneration": 2,
        "conditions": [],
        "listeners": [
            { "name": "imaps", "addresses": ["203.0.113.7:993"], "conditions": [ready] },
            { "name": "mx", "conditions": [missing, unserved] },
        ],
    })
}

/// Formats each entry as `listener socket protocol tls ready reasons`.
fn lines(inventory: &Inventory) -> Vec<String> {
    let line = |entry: &Entry| {
        let reasons: Vec<_> = entry.problems.iter().map(|problem| problem.reason.as_str()).collect();
        let Entry { object, listener, socket, protocol, tls, ready, .. } = entry;
        format!("{object}/{listener} {socket} {protocol} {tls} {ready:?} {}", reasons.join(","))
    };
    inventory.listeners.iter().map(line).collect()
}

#[test]
fn a_listener_has_its_socket_and_its_problems() {
    let inventory = entries(&[object(Kind::Server, "s", &server("mailgress"), &status())], "mailgress");
    assert_eq!(
        lines(&inventory),
        ["s/imaps *:993 IMAP Implicit True ", "s/mx *:2525 SMTP RequireStartTLS False RefNotFound"]
    );
    let imaps = &inventory.listeners[0];
    assert_eq!((imaps.port(), imaps.hostnames.as_slice()), (Some(993), &["mail.test".to_owned()][..]));
    let document = json!({
        "revision": 1, "problems": [],
        "objects": [{ "kind": "MailServer", "namespace": "mail", "name": "s", "status": status() }],
    });
    let model = json!({ "sockets": [{
        "address": "*:993", "protocol": "imap", "tlsMode": "Implicit", "proxyProtocol": null,
        "listeners": [{ "id": "mail/s/imaps", "hostnames": ["mail.test"] }],
    }]});
    let of_instance = instance::read(&document, &model).unwrap();
    assert_eq!(lines(&of_instance), ["s/imaps *:993 IMAP Implicit True ", "s/mx    False RefNotFound"]);
    assert_eq!(of_instance.listeners[0], *imaps);
}

#[test]
fn ignores_objects_of_another_class() {
    let attached = json!({ "serverRef": { "name": "s" }, "port": 143, "backendAddress": "b:143" });
    let objects = [
        object(Kind::Server, "s", &server("other"), &status()),
        object(Kind::Listener, "l", &attached, &Value::Null),
        object(Kind::Listener, "lost", &json!({ "serverRef": { "name": "gone" } }), &Value::Null),
    ];
    assert_eq!(lines(&entries(&objects, "mailgress")), ["lost/    Unknown NoStatus"]);
    assert_eq!(lines(&entries(&objects[..2], "other")).len(), 3);
    assert!(
        lines(&entries(&objects, "other"))[2].starts_with("l/ *:143 IMAP RequireStartTLS Unknown NoStatus")
    );
}

#[test]
fn an_object_without_current_status_is_not_ready() {
    let mut old = status();
    old["observedGeneration"] = json!(1);
    let inventory = entries(&[object(Kind::Server, "s", &server("mailgress"), &old)], "mailgress");
    assert_eq!(lines(&inventory)[0], "s/imaps *:993 IMAP Implicit Unknown Pending");
    let none = entries(&[object(Kind::Server, "s", &server("mailgress"), &Value::Null)], "mailgress");
    assert_eq!(lines(&none)[0], "s/imaps *:993 IMAP Implicit Unknown NoStatus");
}
