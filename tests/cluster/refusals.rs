//! Objects that `kubectl apply` refuses, with the error that an operator reads.

use serde_json::{Value, json};

use crate::cluster::{Cluster, listener};
use crate::support::manifest::{mail_server, with};

/// A `MailServer` with additional fields in its spec.
fn server(spec: &Value) -> Value {
    mail_server(&with(json!({ "listeners": [listener("imap", 143)] }), spec))
}

/// A `MailServer` with one listener with these fields.
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
    let hosts = json!({ "port": 993, "hostnames": ["mail.example.com"], "tls": { "mode": "Disabled" } });
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
            (listening(&hosts), &["hostnames need TLS, which sends them as SNI"]),
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
            (server(&apop), &["APOP needs auth.http"]),
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
                    &json!({ "tls": { "clientAuth": { "mode": "Disabled", "crlRefs": [{ "kind": "ConfigMap", "name": "c" }] } } }),
                ),
                &["crlRefs need client certificates"],
            ),
            (
                server(&json!({ "allowedListeners": { "namespaces": { "from": "Selector" } } })),
                &["selector is required with from: Selector"],
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
            // The value that YAML 1.1 reads from a bare Off.
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

fn passthrough(spec: Value) -> Value {
    with(json!({ "auth": { "passthrough": {} } }), &spec)
}

/// A `MailServer` with one listener that has a backend and these fields.
fn served(fields: &Value) -> Value {
    let backend = json!({ "name": "l", "backendAddress": "b:143" });
    mail_server(&passthrough(json!({ "listeners": [with(backend, fields)] })))
}

/// As [`served`], with additional fields in its spec.
fn settings(spec: &Value) -> Value {
    with(served(&json!({ "port": 143 })), &json!({ "spec": spec }))
}

fn attached(spec: &Value) -> Value {
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailListener",
        "metadata": { "name": "team" },
        "spec": with(json!({ "serverRef": { "name": "edge" }, "port": 143 }), spec),
    })
}

#[test]
fn addresses_networks_and_durations_that_are_none_are_refused_with_a_sentence() {
    let Some(cluster) = Cluster::new("forms") else { return };
    let trusting = |network: &str| {
        served(&json!({ "port": 143, "proxyProtocol": { "trustedPeers": ["::1", network] } }))
    };
    let nameserver = settings(&json!({ "resolver": { "nameservers": ["10.0.0.256"] } }));
    refuses(
        &cluster,
        &[
            (trusting("10.0.0.0/33"), &["trustedPeers", "not a network; write networks such as 10.0.0.0/8"]),
            (trusting("fd00::/129"), &["not a network"]),
            (
                served(&json!({ "port": 143, "address": "192.0.2.256" })),
                &["neither *, an IPv4 or IPv6 address"],
            ),
            (served(&json!({ "port": 143, "backendAddress": "a:65536" })), &["not a backend's address"]),
            (nameserver, &["not a name server"]),
            (settings(&json!({ "upstream": { "tls": { "serverName": "a b" } } })), &["neither a host name"]),
            (
                settings(&json!({ "timeouts": { "client": "0s" } })),
                &["spec.timeouts.client", "not between 1ms and 8760h; write a duration"],
            ),
            (
                settings(&json!({ "upstream": { "healthCheck": { "interval": "10ms" } } })),
                &["not between 100ms and 24h"],
            ),
        ],
    );
}

#[test]
fn settings_that_are_misplaced_or_missing_are_refused_with_a_sentence() {
    let Some(cluster) = Cluster::new("misplaced") else { return };
    let check = |times: Value| settings(&json!({ "upstream": { "healthCheck": times } }));
    let no_backend = json!({ "listeners": [{ "name": "l", "port": 143 }] });
    let limits = json!({ "maxConnections": 1, "maxConnectionsPerClient": 2 });
    refuses(
        &cluster,
        &[
            (
                served(&json!({ "port": 143, "smtp": { "capabilities": [] } })),
                &["smtp is for SMTP, but this listener has another protocol; remove it, or move it to"],
            ),
            (served(&json!({ "port": 995, "smtp": {} })), &["smtp is for SMTP"]),
            (served(&json!({ "port": 25, "pop3": {} })), &["pop3 is for POP3"]),
            (
                check(json!({ "timeout": "20s", "interval": "15s" })),
                &["spec.upstream.healthCheck", "timeout is above interval"],
            ),
            (check(json!({ "timeout": "20s" })), &["above its interval (default 10s)"]),
            (settings(&json!({ "limits": limits })), &["must not be larger than maxConnections"]),
            (mail_server(&no_backend), &["no authentication is configured for a listener; write auth.http"]),
            (mail_server(&passthrough(no_backend)), &["auth.passthrough needs a backend to log in to"]),
            (attached(&json!({ "auth": { "passthrough": {} } })), &["needs a backend to log in to"]),
            (attached(&json!({ "smtp": {} })), &["smtp is for SMTP"]),
        ],
    );
}

#[test]
fn what_a_listener_makes_right_by_itself_is_taken() {
    let Some(cluster) = Cluster::new("taken") else { return };
    let right = json!({
        "upstream": { "healthCheck": { "timeout": "20s" } },
        "smtp": { "capabilities": [] },
        "listeners": [{
            "name": "l", "port": 143, "address": "::1", "backendAddress": "[::1]:143",
            "upstream": { "healthCheck": { "interval": "1m" } },
            "proxyProtocol": { "trustedPeers": ["10.0.0.0/8", "64:ff9b::192.0.2.0/120", "::1"] },
        }],
    });
    assert!(cluster.takes(&cluster.here(mail_server(&passthrough(right)))));
}
