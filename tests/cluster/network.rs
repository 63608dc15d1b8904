//! Failing connections to the API server affect nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, at, backend, ready, tell};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::with;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

/// Opens a session that is logged in.
fn session(at: SocketAddr) -> Wire {
    let mut session = greeted(at).unwrap();
    log_in(&mut session, "IMAP", "user", "secret").unwrap();
    session
}

/// Waits until a change of this capability is served.
fn change_is_served(cluster: &Cluster, at: SocketAddr, capability: &str, bound: Duration) {
    let changed = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", capability] } } });
    cluster.apply(&with(cluster.edge(&[("imap", at.port())]), &changed));
    wait::within(bound, "the change is served", || {
        let lines = greeted(at).and_then(|mut wire| wire.imap("c", "CAPABILITY")).ok()?;
        lines[0].contains(capability).then_some(())
    });
}

fn tells(mailgress: &Mailgress, problem: &str) {
    wait::eventually(&format!("/status says {problem:?}"), || {
        mailgress.status()["problems"].to_string().contains(problem).then_some(())
    });
}

fn tells_nothing(mailgress: &Mailgress) {
    wait::within(Duration::from_secs(60), "nothing is told any more", || {
        (mailgress.status()["problems"] == json!([])).then_some(())
    });
}

#[test]
fn a_watch_that_is_cut_goes_on_where_it_was() {
    let Some(cluster) = Cluster::new("cut") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let (forwarder, kubeconfig) = cluster.forwarded("mailgress", "mailgress");
    let lease = format!("mailgress/{}", cluster.name);
    let mailgress = Cluster::start(&kubeconfig, &["--class", cluster.name, "--lease", &lease]);
    cluster.wait_for("Ready", "mailserver/edge");
    let mut session = session(at);
    for capability in ["XFIRST", "XSECOND"] {
        forwarder.cut();
        change_is_served(&cluster, at, capability, wait::PATIENCE);
    }
    forwarder.refuse(true);
    forwarder.cut();
    tells(&mailgress, "cannot be reached");
    assert!(mailgress.is_ready() && greeted(at).is_ok());
    forwarder.refuse(false);
    change_is_served(&cluster, at, "XTHIRD", wait::PATIENCE);
    tells_nothing(&mailgress);
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn a_connection_that_hangs_is_noticed() {
    let Some(cluster) = Cluster::new("hung") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let (forwarder, kubeconfig) = cluster.forwarded("mailgress", "mailgress");
    let lease = format!("mailgress/{}", cluster.name);
    let _mailgress = Cluster::start(&kubeconfig, &["--class", cluster.name, "--lease", &lease]);
    cluster.wait_for("Ready", "mailserver/edge");
    let mut session = session(at);
    forwarder.hang();
    let began = Instant::now();
    change_is_served(&cluster, at, "XAFTER", 2 * wait::PATIENCE);
    tell(&format!(
        "a connection that hangs is noticed, and what it kept back is served, after {:?}",
        began.elapsed()
    ));
    assert!(backend_answers(&mut session, "IMAP").unwrap());
}

#[test]
fn permissions_that_are_taken_away_stop_nothing_and_may_come_back() {
    let Some(cluster) = Cluster::new("taken") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    cluster.kubectl(&["create", "serviceaccount", "narrow"]);
    let bind = || {
        let role = ["--clusterrole=mailgress", "--serviceaccount=taken:narrow"];
        cluster.kubectl(&[["create", "clusterrolebinding", "taken"].as_slice(), &role].concat());
    };
    cluster.kubectl(&["delete", "clusterrolebinding", "taken", "--ignore-not-found"]);
    bind();
    cluster.allow_lease("narrow");
    let (forwarder, kubeconfig) = cluster.forwarded("narrow", "taken");
    let lease = format!("taken/{}", cluster.name);
    let mailgress = Cluster::start(&kubeconfig, &["--class", cluster.name, "--lease", &lease]);
    cluster.wait_for("Ready", "mailserver/edge");
    let mut session = session(at);
    cluster.kubectl(&["delete", "clusterrolebinding", "taken"]);
    // A running watch may continue, but the next one is refused.
    forwarder.cut();
    tells(&mailgress, "MailServer objects cannot be read");
    tells(&mailgress, "Service objects in taken cannot be read");
    assert!(mailgress.is_ready());
    let mut another = greeted(at).unwrap();
    assert_eq!(log_in(&mut another, "IMAP", "user", "secret").unwrap(), "a OK backend");
    bind();
    change_is_served(&cluster, at, "XBACK", wait::PATIENCE);
    tells_nothing(&mailgress);
    cluster.wait_for("Ready", "mailserver/edge");
    assert!(backend_answers(&mut session, "IMAP").unwrap());
    cluster.kubectl(&["delete", "clusterrolebinding", "taken"]);
}
