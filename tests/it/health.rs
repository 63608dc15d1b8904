//! Health checks: a failing endpoint gets no sessions, a recovered one does, and status and metrics report it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, ca_config_map, listener, mail_server, passthrough, with};
use crate::support::pki::AUTHORITY;
use crate::support::servers::servers;
use crate::support::talk::{greeted, log_in};
use crate::support::{ports, wait};

/// A backend whose checks can be made to fail while logins still succeed.
struct Patient {
    name: &'static str,
    is_well: Arc<AtomicBool>,
    backend: Backend,
}

impl Patient {
    fn new(name: &'static str) -> Self {
        let is_well = Arc::new(AtomicBool::new(true));
        let backend = Backend::imap_while(name, Arc::clone(&is_well));
        Self { name, is_well, backend }
    }

    fn set_well(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }
}

fn often() -> Value {
    json!({ "healthCheck": { "interval": "500ms", "timeout": "500ms", "unhealthyThreshold": 2, "healthyThreshold": 2 } })
}

/// Returns the condition `BackendHealthy` of a listener: status, reason, message.
fn verdict(mailgress: &Mailgress, listener: &str) -> Option<(String, String, String)> {
    let status = mailgress.status();
    let objects = status["objects"].as_array()?;
    let listeners =
        objects.iter().flat_map(|object| object["status"]["listeners"].as_array().into_iter().flatten());
    let mut conditions = listeners
        .filter(|found| found["name"] == listener)
        .flat_map(|found| found["conditions"].as_array().into_iter().flatten());
    let condition = conditions.find(|condition| condition["type"] == "BackendHealthy")?;
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

fn wait_for(mailgress: &Mailgress, listener: &str, reason: &str) -> String {
    wait::eventually(&format!("BackendHealthy of {listener} has the reason {reason}"), || {
        verdict(mailgress, listener).filter(|(_, found, _)| found == reason).map(|(_, _, message)| message)
    })
}

/// Returns which backend answered each of `logins` logins.
fn answers(imap: SocketAddr, logins: usize) -> Vec<String> {
    let answer = |_| {
        let mut wire = greeted(imap).unwrap();
        log_in(&mut wire, "IMAP", "user", "secret").unwrap().trim_start_matches("a OK ").to_owned()
    };
    let mut names: Vec<String> = (0..logins).map(answer).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_sessions_until_it_is_well_unless_all_are_sick() {
    let patients = [Patient::new("one"), Patient::new("two")];
    let folder = Folder::new();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "imap", "namespace": "mail" },
        "spec": { "ports": [{ "name": "imap", "port": 143 }] },
    });
    folder.write("service.yaml", &service);
    for patient in &patients {
        let address = patient.backend.address();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("imap-{}", patient.name), "namespace": "mail",
                "labels": { "kubernetes.io/service-name": "imap" },
            },
            "ports": [{ "name": "imap", "port": address.port() }],
            "endpoints": [{ "addresses": [address.ip().to_string()] }],
        });
        folder.write(&format!("slice-{}.yaml", patient.name), &slice);
    }
    let imap = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut wanted = listener("imap", "IMAP", "Disabled", imap.port(), imap);
    wanted.as_object_mut().unwrap().remove("backendAddress");
    let wanted = with(wanted, &json!({ "backendRef": { "name": "imap", "port": 143 } }));
    let spec = json!({ "auth": passthrough(), "upstream": often(), "listeners": [wanted] });
    folder.write("server.yaml", &mail_server(&spec));
    let mailgress = Mailgress::start(&folder);
    assert_eq!(wait_for(&mailgress, "imap", "AllHealthy"), "all 2 endpoints answer their health checks");
    assert_eq!(answers(imap, 4), ["one", "two"]);

    patients[0].set_well(false);
    let sick = patients[0].backend.address();
    let message = wait_for(&mailgress, "imap", "SomeUnhealthy");
    let reason = format!("{sick}: the backend answered NOOP with \"mailgress NO one is sick\"");
    assert!(message.starts_with("1 of 2 endpoints fail") && message.contains(&reason), "{message}");
    assert_eq!(answers(imap, 6), ["two"]);
    let up = |value: u8| format!("mailgress_backend_up{{backend=\"{sick}\",protocol=\"imap\"}} {value}");
    assert!(mailgress.metrics().contains(&up(0)), "{}", mailgress.metrics());

    patients[1].set_well(false);
    let message = wait_for(&mailgress, "imap", "AllUnhealthy");
    assert!(message.contains("connections are still sent to all of them"), "{message}");
    assert_eq!(answers(imap, 4), ["one", "two"]);

    for patient in &patients {
        patient.set_well(true);
    }
    wait_for(&mailgress, "imap", "AllHealthy");
    assert_eq!(answers(imap, 4), ["one", "two"]);
    assert!(mailgress.metrics().contains(&up(1)));

    let without = json!({ "auth": passthrough(), "listeners": spec["listeners"] });
    folder.write("server.yaml", &mail_server(&without));
    wait::eventually("nothing is checked", || {
        (verdict(&mailgress, "imap").is_none() && !mailgress.metrics().contains("mailgress_backend_up{"))
            .then_some(())
    });
}

#[test]
fn a_route_whose_endpoint_fails_its_checks_says_so() {
    let patient = Patient::new("moved");
    let folder = Folder::new();
    let imap = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let own = Backend::imap("own");
    let spec = json!({
        "auth": passthrough(), "allowedRoutes": [{}],
        "listeners": [listener("imap", "IMAP", "Disabled", imap.port(), own.address())],
    });
    folder.write("server.yaml", &mail_server(&spec));
    let service = json!({ "protocol": "IMAP", "address": patient.backend.address().to_string() });
    folder.write(
        "route.yaml",
        &json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailRoute",
            "metadata": { "name": "moved", "namespace": "mail" },
            "spec": {
                "serverRef": { "name": "edge" },
                "match": { "domains": ["moved.test"] },
                "backend": { "services": [service], "upstream": often() },
            },
        }),
    );
    let mailgress = Mailgress::start(&folder);
    let status_is = |endpoints: &str, reason: &str| {
        wait::eventually(&format!("the route has {endpoints} and {reason}"), || {
            let status = mailgress.status();
            let objects = status["objects"].as_array()?;
            let route = &objects.iter().find(|object| object["kind"] == "MailRoute")?["status"];
            let conditions = route["conditions"].as_array()?;
            let healthy = conditions.iter().find(|condition| condition["type"] == "BackendHealthy")?;
            let is_so = route["backends"][0]["endpoints"] == endpoints
                && route["endpoints"] == endpoints
                && healthy["reason"] == reason;
            is_so.then_some(())
        });
    };
    status_is("all ready", "AllHealthy");
    patient.set_well(false);
    status_is("none ready", "AllUnhealthy");
    assert_eq!(verdict(&mailgress, "imap"), None, "the listener's own backend is not checked");
    patient.set_well(true);
    status_is("all ready", "AllHealthy");
    folder.remove("route.yaml");
    wait::eventually("nothing is checked", || {
        (!mailgress.metrics().contains("mailgress_backend_up{")).then_some(())
    });
}

#[test]
fn real_servers_pass_their_checks_in_clear_with_tls_and_behind_a_proxy_header() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let tls = |name: &str| json!({ "tls": { "mode": "Implicit", "caCertificateRefs": [{ "name": "ca" }], "serverName": name } });
    let plain = json!({});
    let proxied = json!({ "proxyProtocol": "V2" });
    let backends = [
        ("imap", "IMAP", dovecot.imap(), plain.clone()),
        ("pop3", "POP3", dovecot.pop3(), plain.clone()),
        ("smtp", "SMTP", postfix.submission(), plain),
        ("imaps", "IMAP", dovecot.imaps(), tls("dovecot.example.test")),
        ("pop3s", "POP3", dovecot.pop3s(), tls("dovecot.example.test")),
        ("smtps", "SMTP", postfix.submissions(), tls("postfix.example.test")),
        ("imap-proxied", "IMAP", dovecot.imap_proxied(), proxied.clone()),
        ("pop3-proxied", "POP3", dovecot.pop3_proxied(), proxied.clone()),
        ("smtp-proxied", "SMTP", postfix.submission_proxied(), proxied),
        // A server of another protocol, and one with another name than expected.
        ("mistaken", "IMAP", dovecot.pop3(), json!({})),
        ("foreign", "IMAP", dovecot.imaps(), tls("other.example.test")),
    ];
    let listeners: Vec<Value> = backends
        .iter()
        .map(|(name, protocol, address, upstream)| {
            let upstream = json!({ "upstream": with(upstream.clone(), &often()) });
            with(listener(name, protocol, "Disabled", ports::free(), *address), &upstream)
        })
        .collect();
    let folder = Folder::new();
    folder.write("ca.yaml", &ca_config_map("ca", &AUTHORITY.pem()));
    folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
    let mailgress = Mailgress::start(&folder);
    for (name, protocol, address, _) in &backends[..9] {
        let protocol = protocol.to_lowercase();
        let passed = format!(
            "mailgress_backend_checks_total{{backend=\"{address}\",outcome=\"passed\",protocol=\"{protocol}\"}}"
        );
        wait::eventually(&format!("{name} passes"), || mailgress.metrics().contains(&passed).then_some(()));
        // On a loaded machine, a real server may miss the deadline of a check.
        wait::eventually(&format!("{name} is healthy"), || {
            verdict(&mailgress, name).filter(|(status, ..)| status == "True").map(drop)
        });
    }
    let message = wait_for(&mailgress, "mistaken", "AllUnhealthy");
    assert!(message.contains("the backend answered the connection with \"+OK"), "{message}");
    let message = wait_for(&mailgress, "foreign", "AllUnhealthy");
    assert!(message.contains("certificate"), "{message}");
}
