//! Objects and listeners that become invalid, and what they leave alone.

use std::time::Duration;

use super::*;

#[test]
fn an_object_that_was_good_keeps_its_last_good_spec() {
    let mut fixture = Fixture::new();
    let good = server(&imap("a", "port: 143"), "") + &attached("mail", "m", "port: 1143, protocol: IMAP");
    let before = fixture.render(&good).snapshot;
    assert_eq!(before.sockets.len(), 2);
    let bad = good.replace("port: 143,", "port: 99999,").replace("port: 143}", "port: 99999}");
    let after = fixture.render(&bad);
    assert_eq!(after.snapshot, before);
    assert!(messages(&after).contains("OutOfRange spec.listeners[a].port"), "{}", messages(&after));
    assert_eq!(after.objects[0].listeners[0].serving, Serving::LastGood);
    assert_eq!(after.objects[0].generation, 2);
    let again = fixture.render(&good);
    assert_eq!(again.objects[0].listeners[0].serving, Serving::Current);
}

#[test]
fn a_listener_that_was_good_keeps_its_last_good_rendering() {
    let mut fixture = Fixture::new();
    let yaml = with_tls(&[("a", "port: 993"), ("b", "port: 143")]);
    let before = fixture.render(&yaml).snapshot;
    let without_secret = yaml.replace("metadata: {name: t,", "metadata: {name: gone,");
    let after = fixture.render(&without_secret);
    assert_eq!(after.snapshot, before);
    assert!(messages(&after).contains("Secret mail/t does not exist"));
    assert_eq!(after.objects[0].listeners[0].serving, Serving::LastGood);
    assert!(Fixture::new().render(&without_secret).snapshot.sockets.is_empty());
}

#[test]
fn a_last_good_rendering_has_current_endpoints_and_certificates() {
    let mut fixture = Fixture::new();
    let listener_yaml =
        "{name: a, port: 993, backendRef: {name: dovecot, port: 143}, timeouts: {client: 5s}}";
    let good = server(listener_yaml, "tls: {certificateRefs: [{name: t}]}") + SERVICE;
    fixture.render(
        &(good.clone() + &tls_secret("t", &["old"]) + &slice("x", "IPv4", "{addresses: [10.0.0.1]}")),
    );
    let bad = good.replace("client: 5s", "client: 0s");
    let later = bad + &tls_secret("t", &["new"]) + &slice("x", "IPv4", "{addresses: [10.0.0.2]}");
    let rendered = fixture.render(&later);
    let kept = listener(&rendered, "a");
    assert_eq!(kept.timeouts.client, Duration::from_secs(5));
    assert_eq!(kept.backend.as_ref().unwrap().endpoints[0].to_string(), "10.0.0.2:10143");
    assert_eq!(kept.tls.as_ref().unwrap().certificates[0].names, ["new"]);
}

#[test]
fn deleted_objects_are_not_kept() {
    let mut fixture = Fixture::new();
    let both = format!("{}, {}", imap("a", "port: 143"), imap("b", "port: 1143"));
    fixture.render(&server(&both, ""));
    assert_eq!(sockets(&fixture.render(&server(&imap("a", "port: 143"), ""))), ["*:143"]);
    assert!(fixture.render("").snapshot.sockets.is_empty());
}

#[test]
fn one_bad_object_never_affects_another() {
    let bad = named_server("bad", "{name: x, port: 143, nonsense: 1}", "");
    let rendered = once(&(bad + &server(&imap("a", "port: 1143"), "")));
    assert_eq!(sockets(&rendered), ["*:1143"]);
    assert!(messages(&rendered).contains("UnknownField spec.listeners[x].nonsense"));
}

#[test]
fn a_render_is_the_same_for_the_same_objects() {
    let mut fixture = Fixture::new();
    let yaml = with_tls(&[("a", "port: 993, hostnames: [a.example]"), ("b", "port: 993")]);
    let (first, second) = (fixture.render(&yaml), fixture.render(&yaml));
    assert_eq!(first.snapshot, second.snapshot);
    assert_eq!(first.objects, second.objects);
}
