//! The API server stops and starts again.

use serde_json::json;

use crate::cluster::{Cluster, at, backend, ready};
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;

#[test]
fn what_was_served_is_served_on_without_an_api_server_and_what_changed_is_caught_up_with() {
    let Some(cluster) = Cluster::alone("outage") else { return };
    let (at, late, backend) = (at(), at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let class = json!({ "metadata": { "name": "late" }, "spec": { "className": "outage-late" } });
    cluster.apply(&with(cluster.edge(&[("imap", late.port())]), &class));
    let account = cluster.account();
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    cluster.plane().stop_api_server();
    wait::eventually("it is told", || {
        let problems = mailgress.status()["problems"].as_array()?.clone();
        matches!(problems.as_slice(), [one] if one.as_str()?.contains("cannot be reached")).then_some(())
    });
    assert!(mailgress.is_ready());
    assert!(backend_answers(&mut session, "IMAP").unwrap());
    let mut new = greeted(at).unwrap();
    assert_eq!(log_in(&mut new, "IMAP", "user", "secret").unwrap(), "a OK backend");
    std::thread::scope(|scope| {
        // A process that starts now has no objects yet.
        scope.spawn(|| {
            let _late = Cluster::start(&account, &["--class", "outage-late"]);
            wait::eventually("the late one serves", || greeted(late).ok());
        });
        cluster.plane().start_api_server();
    });
    let changed = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", "XAFTER"] } } });
    cluster.apply(&with(cluster.edge(&[("imap", at.port())]), &changed));
    wait::eventually("the change is served", || {
        let lines = greeted(at).and_then(|mut wire| wire.imap("c", "CAPABILITY")).ok()?;
        lines[0].contains("XAFTER").then_some(())
    });
    wait::eventually("nothing is told any more", || {
        (mailgress.status()["problems"] == json!([])).then_some(())
    });
    assert!(backend_answers(&mut session, "IMAP").unwrap() && backend_answers(&mut new, "IMAP").unwrap());
}
