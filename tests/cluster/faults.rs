//! The data for alerts: backends with temporary failures, and certificates with a lifetime of a few days.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, ready};
use crate::support::backend::LATER;
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::talk::{greeted, log_in};
use crate::support::wait;

const EDGE: &str = "mailserver/edge";

#[test]
fn a_login_that_a_backend_puts_off_is_the_backends_fault_in_metrics_and_log() {
    let Some(cluster) = Cluster::new("put-off") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    let mut wire = greeted(at).unwrap();
    for _ in 0..2 {
        let told = log_in(&mut wire, "IMAP", "user", LATER).unwrap();
        assert!(told.starts_with("a NO [UNAVAILABLE]"), "{told}");
    }
    drop(wire);
    mailgress.logs(&["backend_unavailable", "fault=\"backend\"", "logins_unavailable=2"]);
    let counted =
        "mailgress_logins_total{listener=\"put-off/edge/imap\",outcome=\"unavailable\",protocol=\"imap\"} 2";
    assert!(mailgress.metrics().contains(counted), "{}", mailgress.metrics());
}

#[test]
fn a_certificate_of_six_days_is_no_alarm_before_most_of_its_life_is_over() {
    let Some(cluster) = Cluster::new("six-days") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let identity = AUTHORITY.issue_for_days(&["localhost"], 6);
    cluster.apply(&cluster.here(tls_secret("mail-tls", &identity)));
    cluster.allow_secrets(&["mail-tls"]);
    let tls = json!({ "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] } });
    let imaps = with(listener("imaps", at.port()), &tls);
    cluster.apply(&with(cluster.edge(&[]), &json!({ "spec": { "listeners": [imaps] } })));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    assert_eq!(cluster.condition(EDGE, "CertificateExpiring"), Value::Null);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let value = |name: &str| -> f64 {
        let metrics = mailgress.metrics();
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let end = wait::eventually("the certificate is counted", || {
        mailgress
            .metrics()
            .contains("mailgress_certificate_not_after")
            .then(|| value("mailgress_certificate_not_after_timestamp_seconds{"))
    });
    let warning = value("mailgress_certificate_warning_timestamp_seconds{");
    assert!(warning > now, "the alert would fire: {warning} is before {now}");
    let share = (end - warning) / (6.0 * 86400.0);
    assert!((0.24..0.26).contains(&share), "with a quarter of its life left, not {share}");
}
