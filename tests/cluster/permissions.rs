//! What Mailgress can do with the permissions of deploy/, and how it handles missing ones.

use serde_json::json;

use crate::cluster::{Cluster, at, backend, listener, ready};
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::wait;
use crate::support::wire::Wire;

const EDGE: &str = "mailserver/edge";

#[test]
fn a_role_with_the_name_of_a_secret_is_enough_to_read_it() {
    let Some(cluster) = Cluster::new("by-name") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    for name in ["mail-tls", "other-tls", "nobody-asks"] {
        cluster.apply(&cluster.here(tls_secret(name, &AUTHORITY.issue_for_loopback())));
    }
    let may = |verb: &str| {
        let account = "--as=system:serviceaccount:mailgress:mailgress";
        let command =
            cluster.kubectl_command().args(["auth", "can-i", verb, "secrets", "-A", account]).output();
        String::from_utf8(command.unwrap().stdout).unwrap()
    };
    assert_eq!(["get", "list", "watch"].map(may), ["no\n"; 3]);
    let edge = |secret: &str| {
        let tls = json!({ "tls": { "mode": "Implicit", "certificateRefs": [{ "name": secret }] } });
        let listeners = [with(listener("imaps", at.port()), &tls)];
        with(cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } }))
    };
    cluster.apply(&edge("other-tls"));
    let mailgress = cluster.mailgress();
    let message = cluster.comes_to(EDGE, "ResolvedRefs", "False", "RefNotReadable");
    assert!(message.contains("Secret by-name/other-tls cannot be read"), "{message}");
    assert!(message.contains("ServiceAccount"), "{message}");
    assert!(mailgress.status()["problems"].to_string().contains("other-tls"));
    cluster.apply(&edge("mail-tls"));
    cluster.wait_for("Ready", EDGE);
    Wire::connect_tls(at).unwrap();
    wait::eventually("there is no problem any more", || {
        (mailgress.status()["problems"] == json!([])).then_some(())
    });
    assert!(!mailgress.log().contains("nobody-asks"));
    // A permission that is granted later takes effect without a restart.
    cluster.apply(&edge("other-tls"));
    cluster.comes_to(EDGE, "ResolvedRefs", "False", "RefNotReadable");
    cluster.allow_secrets(&["mail-tls", "other-tls"]);
    cluster.wait_for("Ready", EDGE);
}

#[test]
fn one_namespace_is_served_with_the_permissions_of_that_namespace() {
    let Some(cluster) = Cluster::new("one-namespace") else { return };
    let (at, other, backend) = (at(), at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let elsewhere = json!({ "metadata": { "name": "elsewhere", "namespace": "mailgress" } });
    cluster.apply(&with(cluster.edge(&[("imap", other.port())]), &elsewhere));
    cluster.kubectl(&["create", "serviceaccount", "narrow"]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "narrow",
        "--clusterrole=mailgress",
        "--serviceaccount=one-namespace:narrow",
    ]);
    cluster.allow_lease("narrow");
    let arguments = ["--namespaces", cluster.name, "--node-name", "somewhere"];
    let mailgress = cluster.mailgress_as("narrow", &arguments);
    cluster.wait_for("Ready", EDGE);
    mailgress.logs(&["ignoring topology hints for zones", "nodes \"somewhere\" is forbidden"]);
    assert_eq!(mailgress.status()["objects"].as_array().unwrap().len(), 1);
    Wire::connect(at).unwrap();
    assert!(Wire::connect(other).is_err());
}
