//! The list of MailRoutes: what it shows, and the search.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::{ports, wait};

fn route(name: &str, matches: &Value, backend: SocketAddr) -> Value {
    let check =
        json!({ "interval": "500ms", "timeout": "500ms", "unhealthyThreshold": 1, "healthyThreshold": 1 });
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": name, "namespace": "mail" },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": matches,
            "backend": {
                "services": [{ "protocol": "IMAP", "address": backend.to_string() }],
                "upstream": { "healthCheck": check },
            },
        },
    })
}

#[test]
fn routes_are_shown_with_their_state_and_found_by_name_domain_and_backend() {
    let is_well = Arc::new(AtomicBool::new(true));
    let (own, sick) = (Backend::imap("own"), Backend::imap_while("sick", Arc::clone(&is_well)));
    let folder = Folder::new();
    let port = ports::free();
    let spec = json!({
        "auth": passthrough(), "allowedRoutes": [{}],
        "listeners": [listener("imap", "IMAP", "Disabled", port, own.address())],
    });
    folder.write("server.yaml", &mail_server(&spec));
    let domains = json!({ "domains": ["a.test", "*.b.test", "c.test", "d.test", "münchen.example"] });
    folder.write("tenant.yaml", &route("tenant", &domains, sick.address()));
    let users = json!({ "users": ["planted-login@e.test"] });
    folder.write("single.yaml", &route("single", &users, own.address()));
    let mailgress = Mailgress::start(&folder);
    let shows = |path: &str, parts: &[&str]| {
        wait::eventually(&format!("{path} shows {parts:?}"), || {
            let page = mailgress.page(path);
            parts.iter().all(|part| page.contains(part)).then_some(page)
        })
    };
    let backend = format!("IMAP {}, all ready", sick.address());
    let page = shows("/", &["mail/tenant", "mail/single", "*.b.test", "2 more domains", "1 user", &backend]);
    assert!(!page.contains("planted-login"), "a login is shown");
    for (text, found, other) in [
        ("SINGLE", "mail/single", "mail/tenant"),
        ("d.test", "mail/tenant", "mail/single"),
        ("m%C3%BCnchen.example", "mail/tenant", "mail/single"),
        (&own.address().to_string(), "mail/single", "mail/tenant"),
    ] {
        let page = mailgress.page(&format!("/?q={text}"));
        assert!(lists(&page, found) && !lists(&page, other), "{text}: {page}");
    }
    assert!(!lists(&mailgress.page("/?only=troubled"), "mail/tenant"));

    is_well.store(false, Ordering::SeqCst);
    let backend = format!("IMAP {}, none ready", sick.address());
    let page = shows("/?only=troubled", &["mail/tenant", "AllUnhealthy", &backend]);
    assert!(lists(&page, "mail/tenant") && !lists(&page, "mail/single"), "{page}");
}

/// Tells whether the list has this route. The last changes name it too.
fn lists(page: &str, route: &str) -> bool {
    page.contains(&format!("role=\"rowheader\">{route}<"))
}
