//! Listeners that want one socket.

use super::*;
use crate::model::ServerNames;

#[test]
fn inside_one_object_neither_listener_wins_a_socket() {
    let listeners = format!(
        "{}, {}, {}",
        imap("a", "port: 143"),
        imap("b", "port: 143, address: 127.0.0.1"),
        imap("c", "port: 1143")
    );
    let rendered = once(&server(&listeners, ""));
    assert_eq!(sockets(&rendered), ["*:1143"]);
    assert!(
        messages(&rendered)
            .contains("SocketConflict spec.listeners[a].address: *:143 overlaps 127.0.0.1:143")
    );
}

#[test]
fn inside_one_object_a_served_listener_stays() {
    let mut fixture = Fixture::new();
    let (a, b) = (imap("a", "port: 143"), imap("b", "port: 144"));
    fixture.render(&server(&format!("{a}, {b}"), ""));
    // A new listener that overlaps.
    let c = imap("c", "port: 143, address: '127.0.0.1'");
    let rendered = fixture.render(&server(&format!("{a}, {b}, {c}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert!(
        messages(&rendered).contains("spec.listeners[c].address: 127.0.0.1:143 overlaps *:143"),
        "{}",
        messages(&rendered)
    );
    assert!(!messages(&rendered).contains("listeners[a]"), "{}", messages(&rendered));
    // A listener that moves to the socket of another one, which changes as well.
    let a = imap("a", "port: 143, limits: {maxConnections: 7}");
    let moved = imap("b", "port: 143, address: '127.0.0.2'");
    let rendered = fixture.render(&server(&format!("{a}, {moved}, {c}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert_eq!(listener(&rendered, "a").limits.max_connections, Some(7));
    assert!(!messages(&rendered).contains("listeners[a]"), "{}", messages(&rendered));
    // If there is no room any more, it is not served.
    let taken = imap("d", "port: 144");
    let rendered = fixture.render(&server(&format!("{a}, {moved}, {taken}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert_eq!(socket(&rendered, "*:144").listeners[0].id.listener, "d");
    // Without its rival, it gets its new socket.
    let rendered = fixture.render(&server(&moved, ""));
    assert_eq!(sockets(&rendered), ["127.0.0.2:143"]);
}

#[test]
fn a_listener_kept_in_a_conflict_has_current_endpoints_and_certificates() {
    let mut fixture = Fixture::new();
    let backend = "backendRef: {name: dovecot, port: 143}";
    let yaml = |port: &str, names: &[&str], address: &str| {
        let listeners = format!("{{name: a, port: 993, {backend}}}, {{name: b, {port}, {backend}}}");
        server(&listeners, "tls: {certificateRefs: [{name: t}]}")
            + SERVICE
            + &tls_secret("t", names)
            + &slice("x", "IPv4", &format!("{{addresses: [{address}]}}"))
    };
    let seen = |rendered: &Rendered| {
        let kept = listener(rendered, "b");
        let endpoint = kept.backend.as_ref().unwrap().endpoints[0].to_string();
        (kept.tls.as_ref().unwrap().certificates[0].names.clone(), endpoint)
    };
    let old = (vec!["old".to_owned()], "10.0.0.1:10143".to_owned());
    let new = (vec!["new".to_owned()], "10.0.0.2:10143".to_owned());
    assert_eq!(seen(&fixture.render(&yaml("port: 995, protocol: IMAP", &["old"], "10.0.0.1"))), old);
    let moved = "port: 993, address: '127.0.0.1'";
    for (names, address, expected) in [("old", "10.0.0.1", old), ("new", "10.0.0.2", new)] {
        let rendered = fixture.render(&yaml(moved, &[names], address));
        assert!(messages(&rendered).contains("127.0.0.1:993 overlaps *:993"), "{}", messages(&rendered));
        assert_eq!(sockets(&rendered), ["*:993", "*:995"]);
        assert_eq!(seen(&rendered), expected);
    }
}

#[test]
fn a_second_listener_on_a_port_takes_nothing_from_the_first() {
    let mut fixture = Fixture::new();
    let (first, second) = (imap("a", "port: 143"), imap("b", "port: 143"));
    assert_eq!(sockets(&fixture.render(&server(&first, ""))), ["*:143"]);
    let rendered = fixture.render(&server(&format!("{first}, {second}"), ""));
    assert_eq!(sockets(&rendered), ["*:143"]);
    assert!(
        messages(&rendered).contains("two listeners have the same address and port"),
        "{}",
        messages(&rendered)
    );
}

#[test]
fn listeners_share_a_port_when_their_host_names_differ() {
    let rendered = once(&with_tls(&[
        ("a", "port: 993, hostnames: [a.example]"),
        ("b", "port: 993, hostnames: [b.example], timeouts: {client: 5s}"),
        ("rest", "port: 993"),
    ]));
    assert_eq!(messages(&rendered), "");
    let socket = socket(&rendered, "*:993");
    assert_eq!(socket.listeners.len(), 3);
    let names = ServerNames::new(&socket.listeners);
    let selected = |name| socket.listeners[names.select(name).unwrap()].id.listener.as_str();
    assert_eq!((selected(Some("b.example")), selected(None)), ("b", "rest"));
}

#[test]
fn a_shared_port_names_the_field_that_differs() {
    let conflict = |a: &str, b: &str| {
        let rendered = once(&with_tls(&[("a", a), ("b", b)]));
        assert!(rendered.snapshot.sockets.is_empty(), "{a} {b}");
        messages(&rendered)
    };
    let a = "port: 993, hostnames: [a.example]";
    assert!(
        conflict(a, "port: 993, hostnames: [a.example, b.example]").contains("both have host name a.example")
    );
    assert!(
        conflict(a, "port: 993, hostnames: [b.example], tls: {mode: StartTLS}").contains("tls.mode differs")
    );
    let proxied = "port: 993, hostnames: [b.example], proxyProtocol: {trustedPeers: ['::1']}";
    assert!(conflict(a, proxied).contains("proxyProtocol differs"));
    assert!(
        conflict(a, "port: 993, hostnames: [b.example], socket: {backlog: 1}").contains("socket differs")
    );
    let a = "port: 143, hostnames: [a.example]";
    let b = |more: &str| format!("port: 143, hostnames: [b.example], {more}");
    assert!(
        conflict(a, &b("timeouts: {client: 5s}")).contains("timeouts.client differs, but clients see it")
    );
    assert!(conflict(a, &b("timeouts: {announce: false}")).contains("timeouts.announce differs"));
    assert!(conflict(a, &b("serverName: b.example")).contains("serverName differs"));
    assert!(conflict(a, &b("limits: {maxErrors: 9}")).contains("limits.maxErrors differs"));
    assert!(conflict(a, &b("limits: {countedErrors: Syntax}")).contains("limits.countedErrors differs"));
    assert!(conflict(a, &b("limits: {maxAuthFailures: 9}")).contains("limits.maxAuthFailures differs"));
    assert!(conflict(a, &b("limits: {maxConnections: 9}")).contains("limits differs"));
    assert!(conflict(a, &b("imap: {capabilities: [IMAP4rev1]}")).contains("imap.capabilities differs"));
    assert!(conflict(a, &b("imap: {authMethods: [LOGIN]}")).contains("imap.authMethods differs"));
}

#[test]
fn between_objects_the_server_wins_then_the_older_then_the_name() {
    let own = server(&imap("a", "port: 143"), "");
    let rendered = once(&(own + &attached("mail", "m", "port: 143")));
    assert_eq!(socket(&rendered, "*:143").listeners[0].id.to_string(), "mail/s/a");
    assert!(
        messages(&rendered).contains("SocketConflict spec.port: listener mail/s/a has *:143 too"),
        "{}",
        messages(&rendered)
    );

    let nameless = once(&(with_tls(&[("a", "port: 993")]) + &attached("mail", "m", "port: 993")));
    assert!(messages(&nameless).contains("neither has host names"), "{}", messages(&nameless));

    let twins = server("", "") + &attached("mail", "m", "port: 143") + &attached("mail", "l", "port: 143");
    assert_eq!(socket(&once(&twins), "*:143").listeners[0].id.to_string(), "mail/l");
    let older = twins.replace("{name: m,", "{name: m, creationTimestamp: '2020-01-01T00:00:00Z',");
    assert_eq!(socket(&once(&older), "*:143").listeners[0].id.to_string(), "mail/m");
}

#[test]
fn of_two_servers_on_one_port_only_the_later_loses_only_that_listener() {
    let listeners = format!("{}, {}", imap("a", "port: 143"), imap("b", "port: 1143"));
    let rendered = once(&(server(&imap("a", "port: 143"), "") + &named_server("t", &listeners, "")));
    assert_eq!(sockets(&rendered), ["*:143", "*:1143"]);
    assert_eq!(socket(&rendered, "*:143").listeners[0].id.to_string(), "mail/s/a");
    assert!(
        messages(&rendered)
            .contains("SocketConflict spec.listeners[a].port: listener mail/s/a has *:143 too")
    );
}

// --- MailListener ---
