//! The keys of session tickets, which the replicas share in a Secret.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, ready};
use crate::replicas::Pair;
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::wait;
use crate::support::wire::Wire;

const EDGE: &str = "mailserver/edge";

/// An IMAPS listener that several processes of one host can bind.
fn edge(cluster: &Cluster, at: SocketAddr) -> Value {
    let shared = json!({
        "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] },
        "socket": { "reusePort": true },
    });
    let imaps = with(listener("imaps", at.port()), &shared);
    with(cluster.edge(&[]), &json!({ "spec": { "listeners": [imaps] } }))
}

fn give(cluster: &Cluster) {
    cluster.allow_secrets(&["mail-tls"]);
    cluster.apply(&cluster.here(tls_secret("mail-tls", &AUTHORITY.issue_for_loopback())));
}

/// Does a handshake, and reads the tickets that come before the greeting.
fn handshake(at: SocketAddr, client: &Arc<ClientConfig>) -> HandshakeKind {
    let mut wire = Wire::connect(at).unwrap().handshake_as(Arc::clone(client), "localhost").unwrap();
    wire.line().unwrap();
    wire.tls().handshake_kind().unwrap()
}

/// Returns a client that has a ticket.
fn guest(at: SocketAddr) -> Arc<ClientConfig> {
    let client = AUTHORITY.client();
    assert_eq!(handshake(at, &client), HandshakeKind::Full);
    client
}

fn secret(cluster: &Cluster) -> Value {
    let secret = cluster.in_namespace("mailgress", &["get", "secret", &cluster.tickets(), "-o", "json"]);
    serde_json::from_str(&secret).unwrap()
}

/// Moves the time of the last rotation back, so that the leader rotates once.
fn rotate(cluster: &Cluster) {
    let before = secret(cluster)["data"]["next"].clone();
    let past = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_secs(13 * 3600)).unwrap();
    let patch = json!({ "data": { "rotatedAt": STANDARD.encode(past.to_string()) } }).to_string();
    cluster.in_namespace("mailgress", &["patch", "secret", &cluster.tickets(), "--type=merge", "-p", &patch]);
    wait::eventually("the leader rotates the keys", || {
        (secret(cluster)["data"]["current"] == before).then_some(())
    });
}

#[test]
fn a_client_resumes_at_the_other_replica_and_after_a_restart() {
    let Some(mut pair) = Pair::new("tickets") else { return };
    let (at, backend) = (at(), backend("backend"));
    pair.cluster.backends(&[(&backend, ready())]);
    give(&pair.cluster);
    pair.cluster.apply(&edge(&pair.cluster, at));
    pair.cluster.wait_for("Ready", EDGE);
    // Everything works without the permission, and one that is granted later needs no restart.
    let missing = "no permission for Secret mailgress/tickets-session-tickets";
    pair.replica(0).logs(&[missing, "allow get, list, watch, create and patch"]);
    let client = guest(at);
    wait::eventually("there is no problem", || {
        (pair.replica(0).status()["problems"] == json!([])).then_some(())
    });
    pair.cluster.allow_tickets();
    for number in [0, 1] {
        pair.replica(number).logs(&["sharing the keys of session tickets with other replicas"]);
    }
    // Either replica gives a new ticket.
    handshake(at, &client);
    let keys = secret(&pair.cluster)["data"].clone();
    for kept in [1, 0] {
        let gone = 1 - kept;
        pair.kill(gone);
        pair.forget(gone);
        assert_eq!(handshake(at, &client), HandshakeKind::Resumed, "at replica {kept}");
        pair.leads(kept);
        pair.start(gone);
        pair.replica(gone).logs(&["sharing the keys of session tickets with other replicas"]);
    }
    assert_eq!(secret(&pair.cluster)["data"], keys, "a new leader keeps the keys");
    for number in [0, 1] {
        let replica = pair.replica(number);
        let shown = ["/status", "/model", "/served", "/metrics", "/"].map(|path| replica.page(path)).concat();
        for (name, key) in keys.as_object().unwrap().iter().filter(|(name, _)| *name != "rotatedAt") {
            let key = key.as_str().unwrap();
            assert!(!shown.contains(key) && !replica.log().contains(key), "{name} is shown");
        }
        let told = replica.page("/served");
        assert!(!told.contains("instance"), "other replicas get it encrypted: {told}");
    }
    // The leader understands what the other replica tells it.
    let changed = json!({ "spec": { "limits": { "maxConnections": 50 } } });
    pair.cluster.apply(&with(edge(&pair.cluster, at), &changed));
    pair.cluster.wait_for("Ready", EDGE);
}

#[test]
fn a_ticket_survives_two_rotations_and_not_three() {
    let Some(cluster) = Cluster::new("ticket-rotation") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    give(&cluster);
    cluster.allow_tickets();
    cluster.apply(&edge(&cluster, at));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    mailgress
        .logs(&["wrote new keys of session tickets to Secret mailgress/ticket-rotation-session-tickets"]);
    mailgress.logs(&["sharing the keys of session tickets"]);
    let [first, second] = [(); 2].map(|()| guest(at));
    let mut others: Vec<_> = (0..GUESTS).map(|_| guest(at)).collect();
    for client in [first, second] {
        rotate(&cluster);
        assert_eq!(handshake(at, &client), HandshakeKind::Resumed);
    }
    rotate(&cluster);
    // The process may hear of the new keys a moment after this test.
    wait::eventually("the oldest ticket is not accepted", || {
        let client = others.pop().expect("a guest for each attempt");
        (handshake(at, &client) == HandshakeKind::Full).then_some(())
    });
    assert_eq!(handshake(at, &guest(at)), HandshakeKind::Resumed);
    // A Secret that was deleted, for example because its keys have become known, is made again.
    let client = guest(at);
    cluster.in_namespace("mailgress", &["delete", "secret", &cluster.tickets()]);
    wait::eventually("the leader makes new keys", || {
        let all = cluster.in_namespace("mailgress", &["get", "secrets", "-o", "name"]);
        all.contains(&cluster.tickets()).then_some(())
    });
    assert_eq!(handshake(at, &client), HandshakeKind::Full);
}

#[test]
fn the_secret_of_somebody_else_is_not_touched() {
    let Some(cluster) = Cluster::new("foreign-tickets") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    give(&cluster);
    cluster.allow_tickets();
    cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": cluster.tickets(), "namespace": "mailgress" },
        "data": { "current": STANDARD.encode("of somebody else") },
    }));
    let before = secret(&cluster);
    cluster.apply(&edge(&cluster, at));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    mailgress.logs(&["has the type Opaque and belongs to something else"]);
    wait::eventually("the problem is in the status", || {
        mailgress.status()["problems"].to_string().contains(&cluster.tickets()).then_some(())
    });
    assert_eq!(handshake(at, &guest(at)), HandshakeKind::Resumed, "with keys of the process");
    assert_eq!(secret(&cluster), before);
    // Once the name is free, the leader uses it.
    cluster.in_namespace("mailgress", &["delete", "secret", &cluster.tickets()]);
    mailgress.logs(&["sharing the keys of session tickets"]);
    assert_eq!(secret(&cluster)["type"], "mailgress.dev/session-ticket-keys");
}

/// More attempts than the process needs to hear of a change.
const GUESTS: usize = 60;
