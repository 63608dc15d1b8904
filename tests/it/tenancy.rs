//! A MailListener in another namespace: what it may connect to, and which backends get the client's identity.
//!
//! The owner's servers are on 127.0.0.1, and its Postfix trusts XCLIENT from there. The tenant's servers are on
//! 127.0.0.2, a network that the owner allows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, mail_server, passthrough, with};
use crate::support::name_server::{NameServer, Reply};
use crate::support::servers::{new_user, servers};
use crate::support::talk::{greeted, internal_error, log_in, temporary_error};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

const TENANT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The tenant's listener with these fields, with what the owner allows.
struct Site {
    at: SocketAddr,
    mailgress: Mailgress,
    folder: Folder,
    _names: NameServer,
}

impl Site {
    fn start(allowed: &Value, fields: &Value, others: &[Value]) -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        // Names in the tenant's own domain.
        let names = NameServer::start(|name, of| match (name, of) {
            ("loopback.tenant.test", RecordType::A) => Reply::Address(Ipv4Addr::LOCALHOST),
            ("own.tenant.test", RecordType::A) => Reply::Address(Ipv4Addr::new(127, 0, 0, 2)),
            _ => Reply::Code(ResponseCode::NXDomain),
        });
        let folder = Folder::new();
        folder.write("owner.yaml", &owner(allowed, names.address()));
        folder.write("tenant.yaml", &tenant(at, fields));
        for (index, object) in others.iter().enumerate() {
            folder.write(&format!("other-{index}.yaml"), object);
        }
        let mailgress = Mailgress::start(&folder);
        Self { at, mailgress, folder, _names: names }
    }

    /// Returns the listener's condition of this type; null if there is none.
    fn condition(&self, type_: &str) -> Value {
        let status = self.mailgress.status();
        let objects = status["objects"].as_array().unwrap();
        let tenant = objects.iter().find(|object| object["kind"] == "MailListener").unwrap();
        let conditions = tenant["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default()
    }
}

fn owner(allowed: &Value, names: SocketAddr) -> Value {
    mail_server(&json!({
        "auth": passthrough(),
        "resolver": { "nameservers": [names.to_string()], "ipv6": false },
        "allowedListeners": { "namespaces": { "from": "All" }, "backends": allowed },
        "listeners": [],
    }))
}

fn tenant(at: SocketAddr, fields: &Value) -> Value {
    let listener = json!({
        "serverRef": { "name": "edge", "namespace": "mail" },
        "address": at.ip().to_string(),
        "port": at.port(),
        "tls": { "mode": "Disabled" },
    });
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailListener",
        "metadata": { "name": "edge", "namespace": "team" },
        "spec": with(listener, fields),
    })
}

/// Allows the tenant's network and these networks.
fn allowing(networks: &[&str], introductions: &str) -> Value {
    let networks: Vec<&str> = ["127.0.0.2"].iter().chain(networks).copied().collect();
    json!({ "networks": networks, "introductions": introductions })
}

/// The tenant's auth service, which accepts everybody and names this server.
fn yes(server: &str, port: u16) -> AuthService {
    let server = server.to_owned();
    AuthService::start_on(TENANT, move |_| {
        Answer::Headers(vec![
            ("Auth-Status", "OK".to_owned()),
            ("Auth-Server", server.clone()),
            ("Auth-Port", port.to_string()),
        ])
    })
}

fn smtp(auth: &AuthService) -> Value {
    json!({ "protocol": "SMTP", "auth": http_auth(&auth.url()) })
}

/// Sends mail as this user. Returns the reply to the recipient.
fn send_as(at: SocketAddr, user: &str) -> String {
    let mut wire = greeted(at).unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    let answer = wire.ask(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0guess")))).unwrap();
    if !answer.starts_with("235") {
        return answer;
    }
    wire.ask(&format!("MAIL FROM:<{user}>")).unwrap();
    wire.ask("RCPT TO:<somebody@example.test>").unwrap()
}

/// The Service `team/d` without a selector, with an endpoint of somebody else.
fn service_without_selector(backend: SocketAddr) -> [Value; 2] {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "d", "namespace": "team" },
        "spec": { "ports": [{ "name": "mail", "port": 25 }] },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "d-1", "namespace": "team", "labels": { "kubernetes.io/service-name": "d" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "mail", "port": backend.port() }],
        "endpoints": [{
            "addresses": [backend.ip().to_string()],
            "targetRef": { "kind": "Pod", "namespace": "team", "name": "d-0" },
        }],
    });
    [service, slice]
}

#[test]
fn a_tenants_auth_service_names_the_owners_postfix_in_vain() {
    let (postfix, user) = (&servers().postfix, new_user("anybody"));
    let port = postfix.submission().port();
    for server in ["127.0.0.1", "loopback.tenant.test"] {
        let auth = yes(server, port);
        let site = Site::start(&allowing(&[], "Always"), &smtp(&auth), &[]);
        assert_eq!(send_as(site.at, &user), internal_error("SMTP"), "{server}");
        let line = site.mailgress.logs(&["backend_not_allowed", "configuration", "team/edge"]);
        assert!(line.contains("spec.allowedListeners.backends"), "{line}");
    }
    let seen = postfix.log_of(&user);
    assert!(seen.is_empty(), "{seen:#?}");
}

#[test]
fn nothing_is_sent_to_what_a_tenant_may_not_reach() {
    let victim = Backend::smtp("victim");
    let port = victim.address().port();
    for server in ["127.0.0.1", "loopback.tenant.test"] {
        let auth = yes(server, port);
        let site = Site::start(&allowing(&[], "Always"), &smtp(&auth), &[]);
        assert_eq!(send_as(site.at, "user"), internal_error("SMTP"), "{server}");
    }
    // Health checks connect in the same way.
    let checked = json!({
        "protocol": "SMTP",
        "auth": passthrough(),
        "backendAddress": format!("loopback.tenant.test:{port}"),
        "upstream": { "healthCheck": { "interval": "100ms" } },
    });
    let site = Site::start(&allowing(&[], "Always"), &checked, &[]);
    wait::eventually("the check fails", || {
        (site.condition("BackendHealthy")["status"] == "False").then_some(())
    });
    assert!(send_as(site.at, "user").starts_with(temporary_error("SMTP")));
    assert_eq!(victim.accepted(), 0);
}

#[test]
fn a_tenant_does_not_reach_the_owners_postfix_by_its_own_backends() {
    let victim = Backend::smtp("victim");
    let address = victim.address();
    let direct = json!({ "protocol": "SMTP", "auth": passthrough(), "backendAddress": address.to_string() });
    let site = Site::start(&allowing(&[], "Always"), &direct, &[]);
    let refused = site.condition("ResolvedRefs");
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("False"), &json!("BackendNotAllowed")));
    assert!(greeted(site.at).is_err(), "it is served");
    let fields =
        json!({ "protocol": "SMTP", "auth": passthrough(), "backendRef": { "name": "d", "port": 25 } });
    let site = Site::start(&allowing(&[], "Always"), &fields, &service_without_selector(address));
    assert_eq!(site.condition("BackendNotAllowed")["status"], "True");
    assert!(send_as(site.at, "user").starts_with(temporary_error("SMTP")));
    assert_eq!(victim.accepted(), 0);
}

#[test]
fn a_tenants_auth_service_is_not_asked_where_the_tenant_may_not_connect_to() {
    let victim = AuthService::start(|_| Answer::refuse("no"));
    let own = AuthService::start_on(TENANT, |_| Answer::refuse("no"));
    let url = |name: &str, of: &AuthService| format!("http://{name}:{}/secret", of.address().port());
    let auth = http_auth(&url("loopback.tenant.test", &victim));
    let site = Site::start(&allowing(&[], "Never"), &json!({ "protocol": "IMAP", "auth": auth }), &[]);
    let log_in = |at| {
        let mut wire = greeted(at).unwrap();
        wire.ask("a LOGIN user secret").unwrap()
    };
    assert!(log_in(site.at).contains(internal_error("IMAP")));
    site.mailgress.logs(&["auth_service_error", "may not connect to 127.0.0.1"]);
    assert_eq!(victim.connections(), 0);
    let auth = http_auth(&url("own.tenant.test", &own));
    let site = Site::start(&allowing(&[], "Never"), &json!({ "protocol": "IMAP", "auth": auth }), &[]);
    assert_eq!(log_in(site.at), "a NO no");
    assert_eq!(own.requests_of("user").len(), 1);
}

#[test]
fn xclient_reaches_the_owners_postfix_only_by_the_owners_permission() {
    let (postfix, port) = (&servers().postfix, servers().postfix.submission().port());
    let auth = yes("127.0.0.1", port);
    let user = new_user("silent");
    let site = Site::start(&allowing(&["127.0.0.1"], "Never"), &smtp(&auth), &[]);
    let answer = send_as(site.at, &user);
    assert!(answer.starts_with("554") || answer.starts_with("454"), "Postfix knows nobody: {answer}");
    let user = new_user("introduced");
    let site = Site::start(&allowing(&["127.0.0.1"], "Always"), &smtp(&auth), &[]);
    assert_eq!(send_as(site.at, &user), "250 2.1.5 Ok");
    postfix.logs(&format!("sasl_username={user}"));
    // A withdrawn permission applies to the next login, even in a session that started before.
    let mut open = greeted(site.at).unwrap();
    open.smtp("EHLO client.example.test").unwrap();
    site.folder.replace("owner.yaml", &owner(&allowing(&[], "Always"), site._names.address()));
    wait::eventually("the permission is gone", || {
        (send_as(site.at, &user) == internal_error("SMTP")).then_some(())
    });
    let answer = open.ask(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0guess")))).unwrap();
    assert_eq!(answer, internal_error("SMTP"));
}

#[test]
fn a_tenants_backend_hears_of_the_client_only_by_the_owners_permission() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&heard);
    let backend = Backend::imap_heard("imap", move |line| memory.lock().unwrap().push(line.to_owned()));
    let fields = |upstream: &Value| {
        json!({
            "protocol": "IMAP",
            "auth": passthrough(),
            "backendAddress": backend.address().to_string(),
            "upstream": upstream,
        })
    };
    let told = |introductions: &str, upstream: Value| {
        let site = Site::start(&allowing(&["127.0.0.1"], introductions), &fields(&upstream), &[]);
        let mut wire = greeted(site.at).unwrap();
        let answer = log_in(&mut wire, "IMAP", "user", "secret").unwrap();
        assert_eq!(answer, "a OK imap");
        (std::mem::take(&mut *heard.lock().unwrap()), site.condition("IntroductionNotAllowed"))
    };
    let id = json!({ "imapId": true });
    let proxy = json!({ "proxyProtocol": "V1" });
    for introductions in ["Never", "OwnServices"] {
        for upstream in [&id, &proxy] {
            let (lines, condition) = told(introductions, upstream.clone());
            assert_eq!(lines, ["a LOGIN {4}"], "{introductions} {upstream}");
            assert_eq!(condition["status"], "True");
        }
    }
    let (lines, condition) = told("Always", id);
    assert!(lines[0].starts_with("mailgress ID (\"x-originating-ip\" "), "{lines:?}");
    assert!(condition.is_null());
}

#[test]
fn a_proxy_header_reaches_a_tenants_backend_by_the_owners_permission() {
    let headers = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&headers);
    let backend = Backend::imap_behind_proxy("imap", move |line| memory.lock().unwrap().push(line));
    let fields = json!({
        "protocol": "IMAP",
        "auth": passthrough(),
        "backendAddress": backend.address().to_string(),
        "upstream": { "proxyProtocol": "V1" },
    });
    let site = Site::start(&allowing(&["127.0.0.1"], "Always"), &fields, &[]);
    let mut wire = Wire::connect_from(Ipv4Addr::new(127, 0, 0, 7), site.at).unwrap();
    wire.line().unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK imap");
    let headers = headers.lock().unwrap();
    assert!(headers[0].starts_with("PROXY TCP4 127.0.0.7 127.0.0.1 "), "{headers:?}");
}
