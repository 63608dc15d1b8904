//! MailListeners: what they inherit, and which the owner of the MailServer allows.

use super::*;
use crate::model::Auth;

#[test]
fn a_mail_listener_inherits_and_is_served() {
    let yaml = server("", "serverName: mail.example, tls: {certificateRefs: [{name: t}]}")
        + &tls_secret("t", &["mail.example"])
        + &attached("mail", "m", "port: 993, timeouts: {client: 5s}");
    let rendered = once(&yaml);
    let listener = &socket(&rendered, "*:993").listeners[0];
    assert_eq!(listener.id.to_string(), "mail/m");
    assert_eq!(listener.frontend.server_name, "mail.example");
    assert_eq!(messages(&rendered), "");
}

#[test]
fn a_server_says_which_namespaces_may_attach() {
    let attach = |allowed: &str, more: &str| {
        let settings = format!("allowedListeners: {{namespaces: {allowed}, backends: {{hosts: [b]}}}}");
        let rendered = once(&(server("", &settings) + &attached("team", "m", "port: 143") + more));
        (rendered.snapshot.sockets.len(), messages(&rendered))
    };
    let (served, messages) = attach("{}", "");
    assert_eq!(served, 0);
    assert!(messages.contains(
        "NotAllowed spec.serverRef: MailServer mail/s does not allow listeners from namespace team"
    ));
    assert_eq!(attach("{from: All}", "").0, 1);
    let selector = "{from: Selector, selector: {matchLabels: {mail: 'yes'}}}";
    assert_eq!(attach(selector, "").0, 0);
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {mail: 'yes'}}\n";
    assert_eq!(attach(selector, namespace).0, 1);
    let by_name = "{from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, \
                   operator: In, values: [team]}, {key: x, operator: DoesNotExist}]}}";
    assert_eq!(attach(by_name, "").0, 1);
}

#[test]
fn a_mail_listener_refers_to_its_own_namespace_only() {
    let settings = "allowedListeners: {namespaces: {from: All}}";
    let own = "port: 993, tls: {certificateRefs: [{name: t}]}";
    let rendered = once(&(server("", settings) + &tls_secret("t", &["a"]) + &attached("team", "m", own)));
    assert!(messages(&rendered).contains("Secret team/t does not exist"), "{}", messages(&rendered));
}

#[test]
fn a_servers_headers_are_not_sent_to_a_listeners_own_auth_service() {
    let settings = "allowedListeners: {namespaces: {from: All}, backends: {hosts: [b, evil]}}, \
                    auth: {http: {url: 'http://auth/', headers: [{name: X-Key, value: a}]}}";
    let yaml = server("", settings)
        + &attached("team", "same", "port: 143")
        + &attached("team", "own", "port: 1143, protocol: IMAP, auth: {http: {url: 'http://evil/'}}");
    let rendered = once(&yaml);
    let headers = |address: &str| match &socket(&rendered, address).listeners[0].auth {
        Auth::Http(http) => http.headers.len(),
        Auth::Passthrough => panic!(),
    };
    assert_eq!((headers("*:143"), headers("*:1143")), (1, 0));
}

#[test]
fn a_mail_listener_without_its_server_has_a_violation() {
    let rendered = once(&attached("mail", "m", "port: 143"));
    assert!(messages(&rendered).contains("RefNotFound spec.serverRef: MailServer mail/s does not exist"));
}

// --- last good ---
