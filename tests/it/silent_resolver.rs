//! A resolver that never answers, such as Docker's in a pod: how long clients wait, and what the operator is told.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::talk::greeted;
use crate::support::{ports, wait};

#[test]
fn a_resolver_that_never_answers_is_told_and_keeps_no_client_waiting() {
    // The socket is bound, so that no other process answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = silent.local_addr().unwrap().to_string();
    let backend = Backend::smtp("b");
    let port = ports::free();
    let resolver = json!({ "nameservers": [servers.clone()], "timeout": "600ms" });
    let listener = listener("smtp", "SMTP", CLEAR, port, backend.address());
    let spec = json!({
        "auth": passthrough(),
        "resolver": resolver,
        "listeners": [with(listener, &json!({ "smtp": { "authMethods": ["NONE"] } }))],
    });
    let folder = Folder::new();
    folder.write("mail.json", &mail_server(&spec));
    let mailgress = Mailgress::start(&folder);

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    greeted(address).unwrap();
    wait::eventually("the condition says that no name server answers", || {
        let status = mailgress.status().to_string();
        (status.contains("NameServersAnswer") && status.contains("NameServersSilent")).then_some(())
    });
    let log = mailgress.logs(&["no name server answers", "remove resolver.nameservers"]);
    assert_eq!(log.matches("no name server answers").count(), 1, "{log}");
    let line = format!("mailgress_resolver_silent{{nameservers=\"{servers}\"}} 1");
    assert!(mailgress.metrics().contains(&line));
    for _ in 0..3 {
        let started = Instant::now();
        greeted(address).unwrap();
        assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());
    }
}

/// Without TLS.
const CLEAR: &str = "Disabled";
