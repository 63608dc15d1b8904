//! An API server that answers all requests except one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, ready, tell};
use crate::support::manifest::with;
use crate::support::talk::greeted;
use crate::support::wait;

/// Number of other objects.
const OTHERS: u16 = 499;

fn own_address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 91, high, low)
}

/// A `MailServer` of the test with this listener.
fn server(cluster: &Cluster, name: &str, listener: &Value) -> Value {
    let own = json!({ "metadata": { "name": name }, "spec": { "listeners": [listener] } });
    with(cluster.edge(&[]), &own)
}

/// A MailServer that waits for a Secret whose watch is never answered.
fn waiting(cluster: &Cluster, name: &str, port: u16) -> Value {
    let tls =
        json!({ "tls": { "mode": "Implicit", "certificateRefs": [{ "name": format!("stalled-{name}") }] } });
    server(cluster, name, &with(listener("imaps", port), &tls))
}

#[test]
fn one_unanswered_watch_delays_no_other_object() {
    let Some(cluster) = Cluster::new("pending") else { return };
    let (port, backend) = (at().port(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let other = |number: u16, capability: &str| {
        let own = json!({
            "address": own_address(number).to_string(),
            "imap": { "capabilities": ["IMAP4rev1", capability] },
        });
        server(&cluster, &format!("other-{number}"), &with(listener("imap", port), &own))
    };
    let all: Vec<Value> = (1..=OTHERS).map(|number| other(number, "XFIRST")).collect();
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": all }));
    cluster.apply(&waiting(&cluster, "first", at().port()));
    let (_proxy, kubeconfig) = cluster.stalled("stalled-");
    let lease = format!("mailgress/{}", cluster.name);
    let mailgress = Cluster::start(&kubeconfig, &["--class", cluster.name, "--lease", &lease]);
    let serves = |number: u16, capability: &str| {
        let at = SocketAddr::from((own_address(number), port));
        let lines = greeted(at).and_then(|mut wire| wire.imap("c", "CAPABILITY")).ok()?;
        lines[0].contains(capability).then_some(())
    };
    wait::eventually("the others are served", || serves(OTHERS, "XFIRST"));
    wait::within(Duration::from_secs(60), "the start is over", || mailgress.is_ready().then_some(()));
    let message = cluster.comes_to("mailserver/first", "ResolvedRefs", "Unknown", "Pending");
    assert!(message.contains("waiting for Secret pending/stalled-first"), "{message}");
    cluster.comes_to("mailserver/first", "Ready", "Unknown", "Pending");
    for (number, name) in [(1, "second"), (2, "third")] {
        cluster.apply(&waiting(&cluster, name, at().port()));
        cluster.apply(&other(number, "XSECOND"));
        let applied = Instant::now();
        wait::eventually("the change is served", || serves(number, "XSECOND"));
        tell(&format!(
            "beside a watch that is not answered, a change was served after {:?}",
            applied.elapsed()
        ));
        cluster.comes_to(&format!("mailserver/{name}"), "Ready", "Unknown", "Pending");
    }
}
