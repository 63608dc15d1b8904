//! Objects of a cluster are served, and every change is applied.

use serde_json::json;

use crate::cluster::{Cluster, at, backend, listener, our_address, ready, terminating};
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

/// Returns a new session and the name of its backend.
fn served_by(at: std::net::SocketAddr) -> Option<(Wire, String)> {
    let mut wire = greeted(at).ok()?;
    let answer = log_in(&mut wire, "IMAP", "user", "secret").ok()?;
    Some((wire, answer))
}

#[test]
fn mail_flows_to_the_endpoints_of_a_service() {
    let Some(cluster) = Cluster::new("flow") else { return };
    let (at, first, second) = (at(), backend("first"), backend("second"));
    cluster.backends(&[(&first, ready())]);
    let _mailgress = cluster.mailgress();
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    cluster.wait_for("Ready", "mailserver/edge");
    let (mut session, answer) = served_by(at).unwrap();
    assert_eq!(answer, "a OK first");
    // One endpoint terminates, and another takes over.
    cluster.backends(&[(&first, terminating()), (&second, ready())]);
    wait::eventually("the second backend is used", || {
        served_by(at).filter(|(_, answer)| answer == "a OK second")
    });
    for _ in 0..4 {
        assert_eq!(served_by(at).unwrap().1, "a OK second");
    }
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn endpoints_that_terminate_serve_until_another_is_ready() {
    let Some(cluster) = Cluster::new("terminating") else { return };
    let (at, first, second) = (at(), backend("first"), backend("second"));
    cluster.backends(&[(&first, terminating())]);
    let _mailgress = cluster.mailgress();
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    cluster.wait_for("Ready", "mailserver/edge");
    assert_eq!(served_by(at).unwrap().1, "a OK first");
    let status = cluster.get("mailserver/edge")["status"].to_string();
    assert!(status.contains("no ready endpoint for port 143, so terminating endpoints are used"), "{status}");
    cluster.backends(&[(&first, terminating()), (&second, ready())]);
    wait::eventually("only the one that is ready is used", || {
        (0..4).all(|_| served_by(at).is_some_and(|(_, answer)| answer == "a OK second")).then_some(())
    });
}

#[test]
fn endpoints_with_hints_for_the_zone_of_our_node_are_used() {
    let Some(cluster) = Cluster::new("hints") else { return };
    let (at, near, far) = (at(), backend("near"), backend("far"));
    let labels = json!({ "topology.kubernetes.io/zone": "zone-b" });
    cluster.apply(
        &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "hints-node", "labels": labels } }),
    );
    let zone = |name: &str| json!({ "conditions": ready(), "hints": { "forZones": [{ "name": name }] } });
    cluster.endpoints(&[(&far, zone("zone-a")), (&near, zone("zone-b"))]);
    let arguments = ["--class", cluster.name, "--node-name", "hints-node"];
    let mailgress = Cluster::start(&cluster.account(), &arguments);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    cluster.wait_for("Ready", "mailserver/edge");
    mailgress.logs(&["zone-b", "preferring endpoints"]);
    wait::eventually("only the endpoint for our zone is used", || {
        (0..4).all(|_| served_by(at).is_some_and(|(_, answer)| answer == "a OK near")).then_some(())
    });
    cluster.endpoints(&[(&far, json!({ "conditions": ready() })), (&near, zone("zone-b"))]);
    wait::eventually("all are used while not all have hints", || {
        served_by(at).filter(|(_, answer)| answer == "a OK far")
    });
}

#[test]
fn a_change_is_swapped_in_and_sessions_stay() {
    let Some(cluster) = Cluster::new("change") else { return };
    let (at, other, backend) = (at(), at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    let (mut session, _) = served_by(at).unwrap();
    let changed = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", "XCHANGED"] } } });
    cluster.apply(&with(cluster.edge(&[("imap", at.port()), ("more", other.port())]), &changed));
    wait::eventually("the change is served", || {
        let lines = greeted(at).and_then(|mut wire| wire.imap("c", "CAPABILITY")).ok()?;
        lines[0].contains("XCHANGED").then_some(())
    });
    wait::eventually("the new listener is served", || served_by(other));
    assert!(backend_answers(&mut session, "IMAP").unwrap());
    cluster.kubectl(&["delete", "mailserver", "edge"]);
    wait::eventually("nothing is served any more", || greeted(at).is_err().then_some(()));
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn a_listener_of_another_namespace_is_attached_by_the_labels_of_that() {
    let Some(cluster) = Cluster::new("attached") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.namespace("attached-team");
    let selector = json!({ "matchLabels": { "mail": "edge" } });
    let networks = json!({ "networks": [our_address().to_string()] });
    let allowed = json!({ "namespaces": { "from": "Selector", "selector": selector }, "backends": networks });
    cluster.apply(&with(cluster.edge(&[]), &json!({ "spec": { "allowedListeners": allowed } })));
    let mut spec =
        with(listener("", at.port()), &json!({ "serverRef": { "name": "edge", "namespace": "attached" } }));
    spec.as_object_mut().unwrap().retain(|field, _| field != "name" && field != "backendRef");
    cluster.apply(&json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailListener",
        "metadata": { "name": "team", "namespace": "attached-team" },
        "spec": with(spec, &json!({ "backendAddress": backend.address().to_string() })),
    }));
    let _mailgress = cluster.mailgress();
    wait::eventually("the listener is refused", || {
        let text = cluster.kubectl(&["get", "maillistener", "team", "-n", "attached-team", "-o", "yaml"]);
        text.contains("reason: NotAllowed").then_some(())
    });
    cluster.kubectl(&["label", "namespace", "attached-team", "mail=edge"]);
    wait::eventually("the listener is served", || served_by(at));
    cluster.kubectl(&[
        "wait",
        "-n",
        "attached-team",
        "--for=condition=Ready",
        "maillistener/team",
        "--timeout=30s",
    ]);
}
