//! Mail between real clients and real servers whose addresses are in EndpointSlices.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, our_address, ready};
use crate::support::clients::{Clients, Endpoint};
use crate::support::manifest::{mail_server, passthrough, tls_secret, with};
use crate::support::message::{AWKWARD, ends_with, message, wait_for_mail};
use crate::support::pki::AUTHORITY;
use crate::support::servers::{PASSWORD, new_user, servers_at};
use crate::support::wait;
use crate::support::wire::Wire;

/// Creates the Services `dovecot` and `postfix`, as if there were pods.
fn serve_mail(cluster: &Cluster) {
    let servers = servers_at(our_address());
    let here = |address: SocketAddr| SocketAddr::new(our_address(), address.port());
    cluster.service("dovecot", 143, &[(here(servers.dovecot.imap()), ready())]);
    cluster.service("postfix", 587, &[(here(servers.postfix.submission()), ready())]);
}

/// IMAPS and submission in front of them.
fn edge(cluster: &Cluster, imap: &Endpoint, submission: &Endpoint) -> Value {
    let listener = |name: &str, at: &Endpoint, service: &str, port: u16| {
        json!({
            "name": name,
            "protocol": at.protocol,
            "address": "127.0.0.1",
            "port": at.address.port(),
            "tls": { "mode": at.tls },
            "backendRef": { "name": service, "port": port },
        })
    };
    cluster.here(mail_server(&json!({
        "className": cluster.name,
        "auth": passthrough(),
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
        "listeners": [
            listener("imaps", imap, "dovecot", 143),
            listener("submission", submission, "postfix", 587),
        ],
    })))
}

#[test]
fn mail_is_submitted_and_read_back_while_a_change_is_swapped_in() {
    let Some(cluster) = Cluster::new("mail-flows") else { return };
    let imap = Endpoint { protocol: "IMAP", tls: "Implicit", address: at() };
    let submission = Endpoint { protocol: "SMTP", tls: "RequireStartTLS", address: at() };
    serve_mail(&cluster);
    cluster.allow_secrets(&["mail-tls"]);
    cluster.apply(&cluster.here(tls_secret("mail-tls", &AUTHORITY.issue_for_loopback())));
    let edge = edge(&cluster, &imap, &submission);
    cluster.apply(&edge);
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    let (clients, user) = (Clients::new(), new_user("cluster"));
    let message = message(&user, AWKWARD);
    let file = clients.file("message");
    std::fs::write(&file, &message).unwrap();
    // A session that was open before.
    let mut session = Wire::connect_tls(imap.address).unwrap();
    session.line().unwrap();
    session.imap("a", &format!("LOGIN {user} {PASSWORD}")).unwrap();
    let arguments = [user.as_str(), &user, file.to_str().unwrap(), &user, PASSWORD];
    clients.python("send.py", &submission, &arguments).succeeded();
    wait_for_mail(&user);
    let changed = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", "XCHANGED"] } } });
    cluster.apply(&with(edge, &changed));
    wait::eventually("the change is served", || {
        let mut wire = Wire::connect_tls(imap.address).ok()?;
        wire.line().ok()?;
        wire.imap("c", "CAPABILITY").ok()?[0].contains("XCHANGED").then_some(())
    });
    cluster.wait_for("Ready", "mailserver/edge");
    let received = clients.file("received");
    clients.python("fetch.py", &imap, &[&user, PASSWORD, received.to_str().unwrap()]).succeeded();
    ends_with(&received, &message, "Python by IMAP");
    clients.curl_fetch(&imap, &user, &received).succeeded();
    ends_with(&received, &message, "curl by IMAP");
    let lines = session.imap("b", "STATUS INBOX (MESSAGES)").unwrap();
    assert!(lines.iter().any(|line| line.contains("MESSAGES 1")), "the first session lives: {lines:?}");
}
