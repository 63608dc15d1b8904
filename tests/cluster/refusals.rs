//! What `kubectl apply` refuses, with the words that an operator reads.

use serde_json::{Value, json};

use crate::cluster::{Cluster, listener};
use crate::support::manifest::{mail_server, with};

/// A `MailServer` with more in its spec.
fn server(spec: &Value) -> Value {
    mail_server(&with(json!({ "listeners": [listener("imap", 143)] }), spec))
}

/// A `MailServer` with one listener of these fields.
fn listening(fields: &Value) -> Value {
    mail_server(&json!({ "listeners": [with(json!({ "name": "l" }), fields)] }))
}

fn refuses(cluster: &Cluster, cases: &[(Value, &[&str])]) {
    for (object, expected) in cases {
        let said = cluster.refused(&cluster.here(object.clone()));
        for words in *expected {
            assert!(said.contains(words), "{object} is refused without the words {words:?}:\n{said}");
        }
    }
}

#[test]
fn a_listener_that_contradicts_itself_is_refused() {
    let Some(cluster) = Cluster::new("listeners") else { return };
    let hosts = json!({ "port": 993, "hostnames": ["mail.example.com"], "tls": { "mode": "Off" } });
    let both = json!({ "port": 143, "backendRef": { "name": "b", "port": 143 }, "backendAddress": "b:143" });
    let twice = json!({ "listeners": [{ "name": "l", "port": 143 }, { "name": "l", "port": 993 }] });
    refuses(
        &cluster,
        &[
            (
                listening(&json!({ "protocol": "IMAP" })),
                &["spec.listeners[0]", "needs a port, unless its address"],
            ),
            (
                listening(&json!({ "protocol": "IMAP", "port": 143, "address": "unix:/run/imap" })),
                &["needs a port, unless its address"],
            ),
            (
                listening(&json!({ "port": 1143 })),
                &["protocol is required unless port is one of 25, 465, 587"],
            ),
            (listening(&both), &["backendRef and backendAddress exclude each other"]),
            (listening(&hosts), &["hostnames are told apart by TLS's SNI"]),
            (mail_server(&twice), &["spec.listeners[1]", "Duplicate value"]),
        ],
    );
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    let Some(cluster) = Cluster::new("settings") else { return };
    let http = |fields: &Value| server(&json!({ "auth": { "http": fields } }));
    let service = json!({ "name": "auth", "port": 9000 });
    let methods = |protocol: &str, method: &str| server(&json!({ protocol: { "authMethods": [method] } }));
    let apop = json!({ "auth": { "passthrough": {} }, "pop3": { "authMethods": ["APOP"] } });
    refuses(
        &cluster,
        &[
            (server(&json!({ "auth": {} })), &["spec.auth", "exactly one of http and passthrough"]),
            (http(&json!({ "serviceRef": service, "url": "http://a/" })), &["serviceRef and url exclude"]),
            (
                http(
                    &json!({ "serviceRef": service, "caCertificateRefs": [{ "kind": "ConfigMap", "name": "ca" }] }),
                ),
                &["caCertificateRefs is for an https url"],
            ),
            (
                http(&json!({ "url": "http://a/", "headers": [{ "name": "X-Key" }] })),
                &["exactly one of value and valueFrom"],
            ),
            (server(&apop), &["APOP needs an auth service"]),
            (methods("imap", "APOP"), &["APOP exists in POP3 only"]),
            (methods("imap", "NONE"), &["NONE exists in SMTP only"]),
            (methods("pop3", "NONE"), &["NONE exists in SMTP only"]),
            (methods("smtp", "APOP"), &["APOP exists in POP3 only"]),
            (
                server(&json!({ "resolver": { "ipv4": false, "ipv6": false } })),
                &["a resolver needs one of ipv4 and ipv6"],
            ),
            (
                server(
                    &json!({ "tls": { "clientAuth": { "mode": "Off", "crlRefs": [{ "kind": "ConfigMap", "name": "c" }] } } }),
                ),
                &["crlRefs without client certificates have no meaning"],
            ),
            (
                server(&json!({ "allowedListeners": { "namespaces": { "from": "Selector" } } })),
                &["selector goes with from: Selector"],
            ),
        ],
    );
}

#[test]
fn what_the_schema_does_not_know_is_refused() {
    let Some(cluster) = Cluster::new("unknown") else { return };
    let many: Vec<Value> = (0..65_u16)
        .map(|n| json!({ "name": format!("l{n}"), "protocol": "IMAP", "port": 1000 + n }))
        .collect();
    refuses(
        &cluster,
        &[
            (server(&json!({ "listner": [] })), &["unknown field", "spec.listner"]),
            // What YAML 1.1 makes of a bare Off.
            (
                listening(&json!({ "port": 993, "tls": { "mode": false } })),
                &["spec.listeners[0].tls.mode", "string"],
            ),
            (
                listening(&json!({ "port": 993, "tls": { "mode": "On" } })),
                &["Unsupported value: \"On\"", "Implicit"],
            ),
            (listening(&json!({ "port": 0, "protocol": "IMAP" })), &["port", "greater than or equal to 1"]),
            (server(&json!({ "timeouts": { "client": "soon" } })), &["spec.timeouts.client"]),
            (server(&json!({ "limits": { "clientBuffer": "large" } })), &["spec.limits.clientBuffer"]),
            (mail_server(&json!({ "listeners": many })), &["spec.listeners", "at most 64 items"]),
        ],
    );
}

#[test]
fn a_mail_listener_has_the_rules_of_a_listener() {
    let Some(cluster) = Cluster::new("mail-listeners") else { return };
    let object = |spec: Value| {
        json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailListener",
            "metadata": { "name": "team" },
            "spec": with(json!({ "serverRef": { "name": "edge" } }), &spec),
        })
    };
    refuses(
        &cluster,
        &[
            (object(json!({ "port": 1143 })), &["protocol is required unless port is one of"]),
            (object(json!({ "port": 143, "auth": {} })), &["exactly one of http and passthrough"]),
            (object(json!({ "port": 143, "name": "imap" })), &["unknown field", "spec.name"]),
        ],
    );
}
