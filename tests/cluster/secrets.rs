//! Certificates that are renewed, invalid or removed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, ready, tell};
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::{AUTHORITY, Identity};
use crate::support::talk::{backend_answers, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

const EDGE: &str = "mailserver/edge";

/// An IMAPS listener with the Secret `mail-tls`.
fn edge(cluster: &Cluster, at: SocketAddr) -> Value {
    let tls = json!({ "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] } });
    let imaps = with(listener("imaps", at.port()), &tls);
    with(cluster.edge(&[]), &json!({ "spec": { "listeners": [imaps] } }))
}

fn serves(at: SocketAddr, identity: &Identity) -> bool {
    Wire::connect_tls(at).is_ok_and(|wire| wire.certificate() == identity.der)
}

#[test]
fn a_renewed_certificate_is_served_at_once_and_a_broken_one_not_at_all() {
    let Some(cluster) = Cluster::new("renewal") else { return };
    let (at, backend) = (at(), backend("backend"));
    let [first, second, third] = [(); 3].map(|()| AUTHORITY.issue_for_loopback());
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    let renew = |identity: &Identity| cluster.apply(&cluster.here(tls_secret("mail-tls", identity)));
    renew(&first);
    cluster.apply(&edge(&cluster, at));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    let mut session = Wire::connect_tls(at).unwrap();
    assert_eq!(session.certificate(), first.der);
    session.line().unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    renew(&second);
    let applied = Instant::now();
    wait::eventually("the new certificate is served", || serves(at, &second).then_some(()));
    tell(&format!("a renewed certificate was served {:?} after kubectl apply came back", applied.elapsed()));
    assert!(
        applied.elapsed() < Duration::from_secs(5),
        "it takes well under one on a machine that is not loaded"
    );
    // The certificate of one and the key of another.
    renew(&Identity { key: first.key, ..AUTHORITY.issue_for_loopback() });
    cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    let message = cluster.comes_to(EDGE, "ResolvedRefs", "False", "InvalidRef");
    assert!(message.contains("Secret renewal/mail-tls") && message.contains("key"), "{message}");
    assert!(serves(at, &second));
    renew(&third);
    cluster.wait_for("Ready", EDGE);
    assert!(cluster.condition(EDGE, "Degraded").is_null() && serves(at, &third));
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn an_object_that_is_edited_without_its_secret_keeps_what_it_had() {
    let Some(cluster) = Cluster::new("taken-secret") else { return };
    let (at, backend) = (at(), backend("backend"));
    let identity = AUTHORITY.issue_for_loopback();
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    let secret = cluster.here(tls_secret("mail-tls", &identity));
    cluster.apply(&secret);
    cluster.apply(&edge(&cluster, at));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    cluster.kubectl(&["delete", "secret", "mail-tls"]);
    let changed = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", "XEDITED"] } } });
    let edited = with(edge(&cluster, at), &changed);
    cluster.apply(&edited);
    let message = cluster.comes_to(EDGE, "ResolvedRefs", "False", "RefNotFound");
    assert!(message.contains("Secret taken-secret/mail-tls does not exist"), "{message}");
    cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    let capabilities = || {
        let mut wire = Wire::connect_tls(at).unwrap();
        wire.line().unwrap();
        wire.imap("c", "CAPABILITY").unwrap()[0].clone()
    };
    assert!(serves(at, &identity) && !capabilities().contains("XEDITED"));
    cluster.apply(&secret);
    cluster.wait_for("Ready", EDGE);
    assert!(capabilities().contains("XEDITED"));
}

#[test]
fn a_certificate_that_is_not_for_the_server_name_is_served_with_an_alarm() {
    let Some(cluster) = Cluster::new("server-name") else { return };
    let (at, backend) = (at(), backend("backend"));
    let identity = AUTHORITY.issue_for_loopback();
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    cluster.apply(&cluster.here(tls_secret("mail-tls", &identity)));
    let named = |name: &str| with(edge(&cluster, at), &json!({ "spec": { "serverName": name } }));
    cluster.apply(&named("imap.example.org"));
    let _mailgress = cluster.mailgress();
    let message = cluster.comes_to(EDGE, "HostnameNotCovered", "True", "HostnameNotCovered");
    assert!(
        message.contains("spec.serverName: no certificate of this listener is for imap.example.org"),
        "{message}"
    );
    cluster.wait_for("Ready", EDGE);
    assert!(serves(at, &identity));
    cluster.apply(&named("localhost"));
    wait::eventually("the alarm is over", || {
        cluster.condition(EDGE, "HostnameNotCovered").is_null().then_some(())
    });
    // No client requests the Pod's name.
    cluster.apply(&edge(&cluster, at));
    cluster.wait_for("Ready", EDGE);
    assert!(cluster.condition(EDGE, "HostnameNotCovered").is_null());
}
