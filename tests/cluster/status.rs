//! The status of objects, and when it is written.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, at, backend, listener, ready};
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

const EDGE: &str = "mailserver/edge";

#[test]
fn a_bad_change_is_told_and_what_was_good_is_served_on() {
    let Some(cluster) = Cluster::new("bad-change") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let good = cluster.edge(&[("imap", at.port())]);
    cluster.apply(&good);
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    assert!(cluster.condition(EDGE, "Degraded").is_null());
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    let bad = json!({ "spec": { "auth": { "passthrough": null, "http": {
        "serviceRef": { "name": "nowhere", "port": 9000 },
    } } } });
    cluster.apply(&with(good.clone(), &bad));
    cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    let message = cluster.comes_to(EDGE, "ResolvedRefs", "False", "RefNotFound");
    assert!(message.contains("Service bad-change/nowhere does not exist"), "{message}");
    let edge = cluster.get(EDGE);
    assert_eq!(edge["status"]["observedGeneration"], edge["metadata"]["generation"]);
    assert_eq!(cluster.condition(EDGE, "Ready")["status"], "False");
    assert!(backend_answers(&mut session, "IMAP").unwrap());
    let mut another = greeted(at).unwrap();
    assert_eq!(log_in(&mut another, "IMAP", "user", "secret").unwrap(), "a OK backend");
    cluster.apply(&good);
    cluster.wait_for("Ready", EDGE);
    assert!(cluster.condition(EDGE, "Degraded").is_null());
}

#[test]
fn a_secret_that_is_missing_is_told_until_it_is_there() {
    let Some(cluster) = Cluster::new("missing") else { return };
    let (at, other, backend) = (at(), at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    let tls = json!({ "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] } });
    let listeners = [with(listener("imaps", at.port()), &tls), listener("imap", other.port())];
    cluster.apply(&with(cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } })));
    let _mailgress = cluster.mailgress();
    let message = cluster.comes_to(EDGE, "ResolvedRefs", "False", "RefNotFound");
    assert!(message.contains("Secret missing/mail-tls does not exist"), "{message}");
    // The other listener is not affected.
    wait::eventually("the other listener is served", || greeted(other).ok());
    assert!(greeted(at).is_err());
    cluster.apply(&cluster.here(tls_secret("mail-tls", &AUTHORITY.issue_for_loopback())));
    cluster.wait_for("Ready", EDGE);
    Wire::connect_tls(at).unwrap();
}

#[test]
fn a_status_that_says_nothing_new_is_not_written() {
    let Some(cluster) = Cluster::new("quiet") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    let before = cluster.get(EDGE);
    drop(mailgress);
    // The next process finds the status correct and does not write it.
    let mailgress = cluster.mailgress();
    wait::eventually("the next one says that it is ready", || {
        let status = mailgress.status();
        let conditions = status["objects"][0]["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    // A change of another object shows that the writer has run.
    let other = json!({ "metadata": { "name": "other" } });
    cluster.apply(&with(cluster.edge(&[]), &other));
    cluster.wait_for("Ready", "mailserver/other");
    let after = cluster.get(EDGE);
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(after["status"], before["status"]);
}

#[test]
fn a_status_that_somebody_else_has_written_over_is_put_right() {
    let Some(cluster) = Cluster::new("over") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    let told = cluster.get(EDGE)["status"].clone();
    cluster.kubectl(&[
        "patch",
        EDGE,
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"conditions":[]}}"#,
    ]);
    assert_ne!(cluster.get(EDGE)["status"], told);
    wait::within(COMPARED, "it says again what it said", || {
        (cluster.get(EDGE)["status"] == told).then_some(())
    });
}

#[test]
fn an_object_that_comes_again_under_its_name_gets_a_status_again() {
    let Some(cluster) = Cluster::new("again") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let edge = cluster.edge(&[("imap", at.port())]);
    cluster.apply(&edge);
    let _mailgress = cluster.mailgress();
    for _ in 0..3 {
        cluster.wait_for("Ready", EDGE);
        cluster.kubectl(&["delete", EDGE]);
        cluster.apply(&edge);
    }
    cluster.wait_for("Ready", EDGE);
}

/// Mailgress compares a status a minute after an event about its object.
const COMPARED: Duration = Duration::from_secs(150);

#[test]
fn kubectl_shows_whether_backends_are_ready_beside_whether_it_is_served() {
    let Some(cluster) = Cluster::new("backends-column") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    let columns = |expected: &str| {
        wait::eventually(&format!("kubectl get mail says {expected:?}"), || {
            let said = cluster.kubectl(&["get", "mail"]);
            let [head, row] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
            // Columns are separated by three spaces; cells contain single spaces only.
            let column = |name: &str| {
                head.split("   ").map(str::trim).filter(|t| !t.is_empty()).position(|t| t == name)
            };
            let cells: Vec<&str> = row.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            assert_eq!(cells[column("READY").unwrap()], "True", "{said}");
            (cells.get(column("BACKENDS").unwrap()) == Some(&expected)).then_some(())
        });
    };
    columns("none ready");
    cluster.backends(&[(&backend, ready())]);
    columns("all ready");
}
