//! References to objects: what they contribute, and what happens while they are missing, forbidden or pending.

use super::*;
use crate::controller::index::{Key, ReferenceKind};
use crate::model::{Auth, ClientAuthMode, HeaderText};

#[test]
fn names_what_is_missing_or_unusable() {
    let refused = |own: &str, more: &str| messages(&once(&(server(&imap("a", own), "") + more)));
    let tls = "port: 993, tls: {certificateRefs: [{name: t}]}";
    assert!(
        refused(tls, "")
            .contains("RefNotFound spec.listeners[a].tls.certificateRefs[0]: Secret mail/t does not exist")
    );
    assert!(refused(tls, &secret("Opaque", "t", &[("a", "b")])).contains("it has no tls.crt"));
    let (one, other) = (tls_secret("t", &["a"]), tls_secret("t", &["b"]));
    let key = other.lines().find(|line| line.contains("tls.key")).unwrap();
    let mixed: String =
        one.lines().map(|l| if l.contains("tls.key") { key } else { l }.to_owned() + "\n").collect();
    let found = refused(tls, &mixed);
    assert!(found.contains("InvalidRef") && found.contains("Secret mail/t"), "{found}");
    let garbage = secret("kubernetes.io/tls", "t", &[("tls.crt", "x"), ("tls.key", "y")]);
    assert!(refused(tls, &garbage).contains("InvalidRef"));
    let upstream = "port: 143, upstream: {tls: {mode: Implicit, caCertificateRefs: [{name: ca}]}}";
    assert!(refused(upstream, "").contains("ConfigMap mail/ca does not exist"));
    let auth = "port: 143, auth: {http: {url: 'http://a/', headers: [{name: X-Key, valueFrom: \
                {secretKeyRef: {name: k, key: key}}}]}}";
    assert!(refused(auth, "").contains("auth.http.headers[X-Key]: Secret mail/k does not exist"));
    let other = secret("Opaque", "k", &[("other", "x")]);
    assert!(refused(auth, &other).contains("Secret mail/k has no key \"key\"; add the key"));
}

// --- certificates ---

#[test]
fn headers_may_say_what_is_different_for_each_session() {
    let auth = |source: &str| {
        format!(
            "port: 143, auth: {{http: {{url: 'http://a/', headers: [{{name: X, valueFrom: {source}}}]}}}}"
        )
    };
    for (value, text) in [("ListenerName", "a"), ("ListenerPort", "143")] {
        let rendered = once(&server(&imap("a", &auth(&format!("{{session: {value}}}"))), ""));
        let Auth::Http(http) = &listener(&rendered, "a").auth else { panic!() };
        assert_eq!(http.headers[0].value, HeaderText::Fixed(Secret::from(text.as_bytes())));
    }
    let rendered = once(&server(&imap("a", &auth("{session: ClientPort}")), ""));
    let Auth::Http(http) = &listener(&rendered, "a").auth else { panic!() };
    assert_eq!(http.headers[0].value, HeaderText::ClientPort);
    for source in ["{}", "{session: ClientPort, secretKeyRef: {name: k, key: key}}"] {
        let found = messages(&once(&server(&imap("a", &auth(source)), "")));
        assert!(found.contains("neither or both of secretKeyRef and session"), "{found}");
    }
}

#[test]
fn certificates_authorities_and_headers_come_from_their_objects() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}, auth: {http: {url: 'unix:/run/auth:/x', headers: [{name: X-Key, valueFrom: \
               {secretKeyRef: {name: k, key: key}}}]}}";
    let yaml = server(&imap("a", own), "")
        + &tls_secret("t", &["mail.example"])
        + &ca()
        + &secret("Opaque", "k", &[("key", "s3cret\n")]);
    let rendered = once(&yaml);
    let listener = listener(&rendered, "a");
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].names, ["mail.example"]);
    assert_eq!(tls.certificates[0].reference, "mail/t");
    assert_eq!((tls.client_auth.mode, tls.client_auth.authorities.len()), (ClientAuthMode::Required, 1));
    let Auth::Http(http) = &listener.auth else { panic!() };
    assert_eq!(http.headers[0].value, HeaderText::Fixed(Secret::from(&b"s3cret"[..])));
    assert_eq!((http.endpoints[0].to_string().as_str(), http.path.expose()), ("unix:/run/auth", "/x"));
    assert!(!format!("{rendered:?}").contains("s3cret"));
}

#[test]
fn a_rendering_returns_exactly_the_references_it_used() {
    let found = |rendered: &Rendered| rendered.references.iter().map(ToString::to_string).collect::<Vec<_>>();
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}, backendRef: {name: b, port: 143}";
    let listener = format!("{{name: a, protocol: IMAP, {own}}}");
    let other = secret("Opaque", "unasked", &[("key", "s3cret")]);
    let rendered = once(&(server(&listener, "") + &other));
    // A missing object was looked up too. Objects without a reference were not.
    assert_eq!(found(&rendered), ["Secret mail/t", "ConfigMap mail/ca", "Service mail/b"]);
    let foreign = server(&listener, "className: somebody-else");
    assert!(once(&foreign).references.is_empty());
    let refused = attached("team", "l", "port: 993, tls: {certificateRefs: [{name: t}]}");
    assert!(once(&(server("", "") + &refused)).references.is_empty(), "it is not allowed");
}

#[test]
fn a_forbidden_reference_is_not_missing() {
    let mut fixture = Fixture::new();
    let yaml = server(&imap("a", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    fixture.render(&yaml);
    fixture.answers(&secret_t(), Answer::Forbidden("may not list".to_owned()));
    let messages = messages(&fixture.render_index().0);
    let begin = "RefNotReadable spec.tls.certificateRefs[0]: Secret mail/t cannot be read: may not list;";
    assert!(messages.starts_with(begin), "{messages}");
}

fn secret_t() -> Reference {
    Reference::new(ReferenceKind::Secret, &Key::new("mail", "t"))
}

fn pending() -> Answer {
    Answer::Pending("no answer yet".to_owned())
}

#[test]
fn a_listener_with_a_pending_reference_keeps_its_previous_rendering() {
    let mut fixture = Fixture::new();
    let yaml = |secret: &str, port: u16| {
        server(
            &imap("a", &format!("port: {port}")),
            &format!("tls: {{certificateRefs: [{{name: {secret}}}]}}"),
        )
    };
    let (t, u) = (tls_secret("t", &["a"]), tls_secret("u", &["a"]));
    let first = fixture.render(&(yaml("u", 993) + &u));
    assert_eq!((sockets(&first), messages(&first)), (vec!["*:993".to_owned()], String::new()));
    fixture.answers(&secret_t(), pending());
    let waiting = fixture.render(&(yaml("t", 993) + &u + &t));
    assert_eq!(waiting.snapshot.sockets, first.snapshot.sockets);
    assert_eq!(
        messages(&waiting),
        "Pending spec.tls.certificateRefs[0]: waiting for Secret mail/t: no answer yet\n"
    );
    assert_eq!(sockets(&fixture.render(&(yaml("t", 995) + &u + &t))), ["*:993"], "the new port waits too");
    fixture.answers(&secret_t(), Answer::Known);
    assert_eq!(sockets(&fixture.render_index().0), ["*:995"]);
}

#[test]
fn the_socket_of_a_pending_listener_is_reserved() {
    let mut fixture = Fixture::new();
    let waits = named_server("a", &imap("x", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let younger = named_server("b", &imap("y", "port: 993"), "tls: {certificateRefs: [{name: u}]}");
    let secrets = tls_secret("t", &["a"]) + &tls_secret("u", &["a"]);
    fixture.answers(&secret_t(), pending());
    let rendered = fixture.render(&(waits.clone() + &younger + &secrets));
    assert_eq!(sockets(&rendered), Vec::<String>::new());
    assert!(
        messages(&rendered).contains("SocketConflict spec.listeners[y].hostnames")
            || messages(&rendered).contains("HostnameConflict spec.listeners[y].hostnames"),
        "{}",
        messages(&rendered)
    );
    fixture.answers(&secret_t(), Answer::Known);
    let rendered = fixture.render_index().0;
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/a/x");
}

#[test]
fn a_pending_listener_takes_nothing_from_a_served_one() {
    let mut fixture = Fixture::new();
    let served = named_server("b", &imap("y", "port: 993"), "tls: {certificateRefs: [{name: u}]}");
    let stronger = named_server("a", &imap("x", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let secrets = tls_secret("t", &["a"]) + &tls_secret("u", &["a"]);
    fixture.render(&(served.clone() + &secrets));
    fixture.answers(&secret_t(), pending());
    let rendered = fixture.render(&(served.clone() + &stronger + &secrets));
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/b/y");
    fixture.answers(&secret_t(), Answer::Known);
    let rendered = fixture.render_index().0;
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/a/x");
}

#[test]
fn forbidden_endpoints_are_not_missing() {
    let mut fixture = Fixture::new();
    let yaml = server(
        "{name: a, protocol: IMAP, port: 143, backendRef: {name: b, port: 143}}",
        "tls: {mode: Disabled}",
    );
    let service = document("Service", "spec: {ports: [{port: 143}]}", "b", &[]);
    let slices = Reference::new(ReferenceKind::EndpointSlices, &Key::new("mail", "b"));
    fixture.answers(&slices, Answer::Forbidden("may not list".to_owned()));
    let messages = messages(&fixture.render(&(yaml + &service)));
    let begin = "RefNotReadable spec.listeners[a].backendRef: EndpointSlices of Service mail/b cannot be read: may not list;";
    assert!(messages.starts_with(begin), "{messages}");
}
