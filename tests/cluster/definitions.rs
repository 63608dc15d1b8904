//! The CustomResourceDefinitions: deleted, restored, and with another schema.

use serde_json::json;

use crate::cluster::{Cluster, at, backend, ready};
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;

const EDGE: &str = "mailserver/edge";
const CRD: &str = "crd/mailservers.mailgress.dev";

#[test]
fn with_the_definitions_the_objects_go_and_sessions_stay() {
    let Some(cluster) = Cluster::alone("definitions") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let edge = cluster.edge(&[("imap", at.port())]);
    cluster.apply(&edge);
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    cluster.kubectl(&["delete", CRD, "crd/maillisteners.mailgress.dev", "crd/mailroutes.mailgress.dev"]);
    wait::eventually("the listener is gone with its object", || greeted(at).is_err().then_some(()));
    wait::eventually("it is told", || {
        mailgress.status()["problems"].to_string().contains("MailServer objects cannot be read").then_some(())
    });
    mailgress.logs(&["WARN", "MailServer objects cannot be read", "mailgress crds"]);
    assert!(mailgress.is_ready() && backend_answers(&mut session, "IMAP").unwrap());
    cluster.restore_crds();
    cluster.apply(&edge);
    cluster.wait_for("Ready", EDGE);
    assert!(greeted(at).is_ok() && backend_answers(&mut session, "IMAP").unwrap());
    wait::eventually("nothing is told any more", || {
        (mailgress.status()["problems"] == json!([])).then_some(())
    });
}

#[test]
fn an_object_of_another_schema_affects_only_itself() {
    let Some(cluster) = Cluster::alone("schema") else { return };
    let (at, other, third, backend) = (at(), at(), at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    let edge = cluster.edge(&[("imap", at.port())]);
    let named = |name: &str, port: u16| {
        with(cluster.edge(&[("imap", port)]), &json!({ "metadata": { "name": name } }))
    };
    cluster.apply(&edge);
    cluster.apply(&named("other", other.port()));
    let mailgress = cluster.mailgress();
    cluster.wait_for("Ready", EDGE);
    cluster.wait_for("Ready", "mailserver/other");
    let _restored = Restored(&cluster);
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let patch = json!([
        { "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": anything },
    ]);
    cluster.kubectl(&["patch", CRD, "--type=json", "-p", &patch.to_string()]);
    // An object of a newer version, or one that was written without a schema.
    let newer = json!({ "spec": { "listeners": "moved to listenerSets", "listenerSets": [{}] } });
    wait::eventually("the API server takes anything", || {
        cluster.takes(&with(edge.clone(), &newer)).then_some(())
    });
    // The API server may or may not keep the field that was unknown before.
    let message = cluster.comes_to(EDGE, "Accepted", "False", "WrongType");
    assert!(message.contains("spec.listeners: this is a string"), "{message}");
    cluster.comes_to(EDGE, "Degraded", "True", "UsingLastGood");
    assert!(greeted(at).is_ok(), "the last good one is served on");
    let nonsense = json!({ "spec": { "listeners": "nothing of the kind" } });
    cluster.apply(&with(named("text", 1), &nonsense));
    cluster.comes_to("mailserver/text", "Accepted", "False", "WrongType");
    // An object without a class is not of this class, so it causes no problem.
    cluster.apply(&with(named("nothing", 1), &json!({ "spec": "nothing of the kind" })));
    cluster.apply(&named("third", third.port()));
    cluster.wait_for("Ready", "mailserver/third");
    cluster.wait_for("Ready", "mailserver/other");
    assert!(greeted(other).is_ok() && mailgress.is_ready());
    cluster.apply(&edge);
    cluster.wait_for("Ready", EDGE);
}

/// Restores the schema for other tests in any case.
struct Restored<'a>(&'a Cluster);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.0.restore_crds();
    }
}
