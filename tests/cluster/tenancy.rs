//! A MailListener in a tenant's namespace, with a real API server and a real Postfix of the owner, which trusts XCLIENT
//! from 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Cluster, at, our_address};
use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::manifest::{mail_server, with};
use crate::support::servers::{new_user, servers_at};
use crate::support::talk::{greeted, internal_error, log_in};
use crate::support::wait;

/// The owner's namespace is that of the test.
struct Tenant<'a> {
    cluster: &'a Cluster,
    namespace: String,
    at: SocketAddr,
}

impl<'a> Tenant<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let namespace = format!("{}-team", cluster.name);
        cluster.namespace(&namespace);
        Self { cluster, namespace, at: at() }
    }

    /// Creates the MailServer, with what it allows listeners of other namespaces.
    fn owner_allows(&self, backends: Option<Value>) {
        let mut allowed = json!({ "namespaces": { "from": "All" } });
        if let Some(backends) = backends {
            allowed["backends"] = backends;
        }
        self.cluster.apply(&self.cluster.here(mail_server(&json!({
            "className": self.cluster.name,
            "auth": { "passthrough": {} },
            "allowedListeners": allowed,
        }))));
    }

    /// Creates the MailListener `guest`.
    fn listens(&self, fields: &Value) {
        let spec = json!({
            "serverRef": { "name": "edge", "namespace": self.cluster.name },
            "address": "127.0.0.1",
            "port": self.at.port(),
            "tls": { "mode": "Disabled" },
        });
        self.cluster.apply(&json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailListener",
            "metadata": { "name": "guest", "namespace": self.namespace },
            "spec": with(spec, fields),
        }));
    }

    /// Creates a Service of the tenant with port 80 and one endpoint, as the endpoints controller does for a Pod.
    fn service(&self, name: &str, selector: &Value, endpoint: SocketAddr, target: &Value) {
        self.cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "selector": selector, "ports": [{ "name": "mail", "port": 80 }] },
        }));
        self.cluster.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-1"),
                "namespace": self.namespace,
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "mail", "port": endpoint.port() }],
            "endpoints": [with(json!({ "addresses": [endpoint.ip()] }), target)],
        }));
    }

    fn pod(&self) -> Value {
        json!({ "targetRef": { "kind": "Pod", "namespace": self.namespace, "name": "pod-0" } })
    }

    /// Returns a condition of the listener; null if there is none.
    fn condition(&self, type_: &str) -> Value {
        let text =
            self.cluster.in_namespace(&self.namespace, &["get", "maillistener", "guest", "-o", "json"]);
        let object: Value = serde_json::from_str(&text).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }

    fn is_ready(&self) {
        let wait = ["wait", "--for=condition=Ready", "maillistener/guest", "--timeout=30s"];
        self.cluster.in_namespace(&self.namespace, &wait);
    }

    fn comes_to(&self, condition: &str, status: &str, reason: &str) -> String {
        wait::eventually(&format!("{condition}={status} ({reason})"), || {
            let found = self.condition(condition);
            let comes = found["status"] == status && found["reason"] == reason;
            comes.then(|| found["message"].as_str().unwrap().to_owned())
        })
    }
}

/// An auth service that accepts everybody and names this server.
fn yes(server: SocketAddr) -> AuthService {
    AuthService::start_on(our_address(), move |_| Answer::Backend(server))
}

/// Sends mail as this user. Returns the reply to the recipient, or to the login.
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

#[test]
fn a_tenant_logs_in_to_the_owners_postfix_only_by_the_owners_permission() {
    let Some(cluster) = Cluster::new("tenancy-login") else { return };
    let postfix = &servers_at(our_address()).postfix;
    let (tenant, auth) = (Tenant::new(&cluster), yes(postfix.submission()));
    tenant.owner_allows(None);
    tenant.service("auth", &json!({ "app": "auth" }), auth.address(), &tenant.pod());
    let http = json!({ "serviceRef": { "name": "auth", "port": 80, "path": "/" } });
    tenant.listens(&json!({ "protocol": "SMTP", "auth": { "http": http } }));
    let mailgress = cluster.mailgress();
    tenant.is_ready();
    let user = new_user("anybody");
    assert_eq!(send_as(tenant.at, &user), internal_error("SMTP"));
    assert_eq!(auth.requests_of(&user).len(), 1, "the tenant's own service is asked");
    mailgress.logs(&["backend_not_allowed", "tenancy-login-team/guest", "spec.allowedListeners.backends"]);
    let seen = postfix.log_of(&user);
    assert!(seen.is_empty(), "{seen:#?}");
    let network = Ipv4Addr::LOCALHOST.to_string();
    tenant.owner_allows(Some(json!({ "networks": [network], "introductions": "Always" })));
    wait::eventually("the login is good", || (send_as(tenant.at, &user) == "250 2.1.5 Ok").then_some(()));
    postfix.logs(&format!("sasl_username={user}"));
}

#[test]
fn a_tenants_backend_is_a_pod_of_its_own() {
    let Some(cluster) = Cluster::new("tenancy-pods") else { return };
    let (tenant, backend) = (Tenant::new(&cluster), Backend::imap_on(our_address(), "own"));
    let fields = json!({
        "protocol": "IMAP",
        "auth": { "passthrough": {} },
        "backendRef": { "name": "dovecot", "port": 80 },
        "upstream": { "imapId": true },
    });
    tenant.owner_allows(None);
    // The endpoint belongs to no Pod. The API server accepts such a Service from anybody who may write EndpointSlices.
    tenant.service("dovecot", &json!({}), backend.address(), &json!({}));
    tenant.listens(&fields);
    let _mailgress = cluster.mailgress();
    let message = tenant.comes_to("BackendNotAllowed", "True", "BackendNotAllowed");
    assert!(message.contains(&backend.address().to_string()), "{message}");
    let mut wire = greeted(tenant.at).unwrap();
    assert!(log_in(&mut wire, "IMAP", "user", "secret").unwrap().starts_with("a NO [UNAVAILABLE]"));
    assert_eq!(backend.accepted(), 0);
    tenant.service("dovecot", &json!({ "app": "dovecot" }), backend.address(), &tenant.pod());
    tenant.comes_to("IntroductionNotAllowed", "True", "IntroductionNotAllowed");
    wait::eventually("the Pod is used", || {
        let mut wire = greeted(tenant.at).ok()?;
        (log_in(&mut wire, "IMAP", "user", "secret").ok()? == "a OK own").then_some(())
    });
    tenant.owner_allows(Some(json!({ "introductions": "OwnServices" })));
    wait::eventually("introductions are allowed", || {
        tenant.condition("IntroductionNotAllowed").is_null().then_some(())
    });
}

#[test]
fn a_tenants_backend_address_is_refused_unless_the_owner_allows_it() {
    let Some(cluster) = Cluster::new("tenancy-address") else { return };
    let (tenant, backend) = (Tenant::new(&cluster), Backend::imap("shared"));
    let address = backend.address().to_string();
    tenant.owner_allows(None);
    tenant.listens(&json!({ "protocol": "IMAP", "auth": { "passthrough": {} }, "backendAddress": address }));
    let _mailgress = cluster.mailgress();
    let message = tenant.comes_to("ResolvedRefs", "False", "BackendNotAllowed");
    assert!(message.contains("spec.allowedListeners.backends"), "{message}");
    assert!(greeted(tenant.at).is_err(), "it is served");
    tenant.owner_allows(Some(json!({ "networks": ["127.0.0.0/8"] })));
    tenant.is_ready();
    let mut wire = greeted(tenant.at).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "user", "secret").unwrap(), "a OK shared");
    tenant.owner_allows(None);
    wait::eventually("what is not allowed any more is not served", || {
        greeted(tenant.at).is_err().then_some(())
    });
}

#[test]
fn networks_and_hosts_that_are_none_are_refused() {
    let Some(cluster) = Cluster::new("tenancy-refused") else { return };
    let server = |backends: &Value| {
        let allowed = json!({ "namespaces": { "from": "All" }, "backends": backends });
        cluster.here(mail_server(&json!({ "allowedListeners": allowed })))
    };
    for network in ["10.0.0.0/33", "10.0.0.256", "fd00::/129", "mail.example.com", "10.0.0"] {
        let said = cluster.refused(&server(&json!({ "networks": [network] })));
        assert!(said.contains("one of these is not a network"), "{network}: {said}");
    }
    let said = cluster.refused(&server(&json!({ "hosts": ["*"] })));
    assert!(said.contains("hosts[0]"), "{said}");
    let good =
        json!({ "networks": ["10.0.0.0/8", "192.0.2.7", "fd00::/64", "::1"], "hosts": ["*.example.com"] });
    assert!(cluster.takes(&server(&good)));
}
