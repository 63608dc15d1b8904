//! A starting replica is not ready before it serves what the others serve.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{backend, listener, ready};
use crate::replicas::Pair;
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const EDGE: &str = "mailserver/edge";

/// Makes both serve an IMAPS listener on all addresses of this port, with the Secret `mail-tls`.
fn served(pair: &Pair, at: SocketAddr) {
    pair.cluster.allow_secrets(&["mail-tls"]);
    pair.cluster.apply(&secret(pair));
    let tls = json!({
        "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] },
        "address": "*",
        "socket": { "reusePort": true },
    });
    let listeners = [with(listener("imaps", at.port()), &tls)];
    pair.cluster.apply(&with(pair.cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } })));
    pair.cluster.wait_for("Ready", EDGE);
}

fn secret(pair: &Pair) -> Value {
    pair.cluster.here(tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()))
}

/// Waits until `/readyz` contains all of these texts. Returns its text.
fn not_ready(pair: &Pair, number: usize, texts: &[&str]) -> String {
    wait::eventually(&format!("/readyz says {texts:?}"), || {
        let (status, text) = pair.replica(number).readyz();
        (status == 503 && texts.iter().all(|part| text.contains(part))).then_some(text)
    })
}

/// Checks for longer than `--ready-timeout` that it does not become ready.
fn stays_unready(pair: &Pair, number: usize) {
    let until = Instant::now() + 3 * READY_TIMEOUT;
    while Instant::now() < until {
        assert!(!pair.replica(number).is_ready(), "{}", pair.replica(number).log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_replica_without_the_secret_of_what_others_serve_is_not_ready_until_it_is_there() {
    let Some(mut pair) = Pair::with("lost-secret", &["--ready-timeout", "1s"]) else { return };
    let backend = backend("backend");
    pair.cluster.backends(&[(&backend, ready())]);
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    served(&pair, at);
    pair.cluster.kubectl(&["delete", "secret", "mail-tls"]);
    pair.cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    pair.kill(1);
    pair.forget(1);
    pair.start_unready(1);
    let listener = "MailServer lost-secret/edge listener imaps: ";
    let why = ["Secret lost-secret/mail-tls does not exist", "replica replica-0 serves it"];
    not_ready(&pair, 1, &[&[listener][..], &why].concat());
    pair.replica(1).logs(&[&["not ready", listener][..], &why].concat());
    stays_unready(&pair, 1);
    Wire::connect_tls(at).unwrap();
    assert!(pair.replica(1).metrics().contains("\nmailgress_ready 0\n"));
    pair.cluster.apply(&secret(&pair));
    wait::eventually("it is ready", || pair.replica(1).is_ready().then_some(()));
    pair.replica(1).logs(&["ready: this replica serves all listeners that it waited for"]);
    pair.call_ready(1);
    pair.cluster.wait_for("Ready", EDGE);
    // A ready replica stays ready.
    pair.cluster.kubectl(&["delete", "secret", "mail-tls"]);
    pair.cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    assert!(pair.replica(1).is_ready());
}

#[test]
fn a_rollout_without_the_permission_on_secrets_stops_and_no_port_leaves_the_service() {
    let arguments = ["--ready-timeout", "1s", "--service", "lost-permission/edge"];
    let Some(mut pair) = Pair::with("lost-permission", &arguments) else { return };
    let backend = backend("backend");
    pair.cluster.backends(&[(&backend, ready())]);
    pair.cluster.front("edge");
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    pair.cluster.front_endpoint("edge", &[at.port()]);
    served(&pair, at);
    assert!(has_port(&pair, at.port()), "Ready follows the port of the Service");
    pair.cluster.kubectl(&["delete", "rolebinding", "mailgress-references"]);
    // The old leader ends first.
    pair.kill(0);
    pair.forget(0);
    pair.leads(1);
    pair.start_unready(0);
    not_ready(&pair, 0, &["listener imaps", "mail-tls", "cannot be read", "replica replica-1 serves it"]);
    stays_unready(&pair, 0);
    assert!(has_port(&pair, at.port()));
    // No replica serves it now. The new one leads and is ready with what it has, which is nothing.
    pair.kill(1);
    pair.forget(1);
    wait::eventually("it is ready", || pair.replica(0).is_ready().then_some(()));
    pair.replica(0).logs(&[
        "ready although listeners are missing that were served before",
        "--ready-timeout (1s) is over",
    ]);
    pair.call_ready(0);
    pair.cluster.comes_to(EDGE, "Ready", "False", "NotServed");
    assert!(has_port(&pair, at.port()));
}

fn has_port(pair: &Pair, port: u16) -> bool {
    let service = pair.cluster.get("service/edge");
    service["spec"]["ports"].as_array().unwrap().iter().any(|found| found["port"] == port)
}

/// The `--ready-timeout` of these tests.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
