//! MailRoutes of tenants in their own namespaces, with a real API server and real mail servers.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, our_address, ready};
use crate::replicas::Pair;
use crate::support::dovecot::Dovecot;
use crate::support::manifest::mail_server;
use crate::support::postfix::Postfix;
use crate::support::servers::PASSWORD;
use crate::support::talk::{PROTOCOLS, backend_answers, greeted, is_success, log_in, send_login};
use crate::support::wait;

/// A MailServer with one listener for each protocol, and no backend of its own.
struct Platform<'a> {
    cluster: &'a Cluster,
    at: [SocketAddr; 3],
    rules: Vec<Value>,
}

impl<'a> Platform<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, at: PROTOCOLS.map(|_| at()), rules: Vec::new() }
    }

    /// Allows a namespace to route a domain, and writes the MailServer.
    fn allow(&mut self, namespace: &str, domain: &str) {
        let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
        let rule = json!({ "namespaces": { "from": "Selector", "selector": selector }, "domains": [domain] });
        self.rules.push(rule);
        let listeners = PROTOCOLS.iter().zip(self.at).map(|(protocol, at)| {
            json!({
                "name": protocol.to_lowercase(), "protocol": protocol, "address": Ipv4Addr::LOCALHOST,
                "port": at.port(), "tls": { "mode": "Disabled" },
            })
        });
        let spec = json!({
            "className": self.cluster.name,
            "auth": { "passthrough": {} },
            "allowedRoutes": self.rules,
            "listeners": listeners.collect::<Vec<_>>(),
        });
        self.cluster.apply(&self.cluster.here(mail_server(&spec)));
    }

    /// Creates a Service of a tenant with one Pod for each of its backends, and the route to them.
    fn route(&self, namespace: &str, domains: &[&str], backends: &[(&str, SocketAddr)]) {
        let mut services = Vec::new();
        for (protocol, address) in backends {
            let name = format!("backend-{}", protocol.to_lowercase());
            self.cluster.apply(&json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": name, "namespace": namespace },
                "spec": { "selector": { "app": name }, "ports": [{ "name": "mail", "port": 80 }] },
            }));
            let target = json!({ "kind": "Pod", "namespace": namespace, "name": format!("{name}-0") });
            self.cluster.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-1"),
                    "namespace": namespace,
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": "IPv4",
                "ports": [{ "name": "mail", "port": address.port() }],
                "endpoints": [{ "addresses": [address.ip()], "targetRef": target }],
            }));
            services.push(json!({ "protocol": protocol, "name": name, "port": 80 }));
        }
        self.cluster.apply(&json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailRoute",
            "metadata": { "name": "route", "namespace": namespace },
            "spec": {
                "serverRef": { "name": "edge", "namespace": self.cluster.name },
                "match": { "domains": domains },
                "backend": { "services": services },
            },
        }));
    }

    fn log_in(&self, protocol: &str, user: &str, password: &str) -> String {
        let position = PROTOCOLS.iter().position(|other| *other == protocol).unwrap();
        log_in(&mut greeted(self.at[position]).unwrap(), protocol, user, password).unwrap()
    }
}

#[test]
fn tenants_in_three_namespaces_share_ports_and_have_servers_of_their_own() {
    let Some(cluster) = Cluster::new("routes") else { return };
    let mut platform = Platform::new(&cluster);
    let tenants = ["a", "b", "c"].map(|name| {
        let namespace = format!("{}-{name}", cluster.name);
        cluster.namespace(&namespace);
        let dovecot = Dovecot::start(Some(our_address()));
        let postfix = Postfix::start(&dovecot, Some(our_address()));
        (namespace, format!("{name}.example.test"), dovecot, postfix)
    });
    for (namespace, domain, ..) in &tenants {
        platform.allow(namespace, domain);
    }
    let reached = |address: SocketAddr| SocketAddr::new(our_address(), address.port());
    for (namespace, domain, dovecot, postfix) in &tenants {
        let backends = [("IMAP", dovecot.imap()), ("POP3", dovecot.pop3()), ("SMTP", postfix.submission())];
        platform.route(namespace, &[domain], &backends.map(|(protocol, at)| (protocol, reached(at))));
    }
    let mailgress = cluster.mailgress();
    for (namespace, domain, dovecot, _) in &tenants {
        let wait = ["wait", "--for=condition=Ready", "mailroute/route", "--timeout=30s"];
        cluster.in_namespace(namespace, &wait);
        let user = format!("user@{domain}");
        for protocol in PROTOCOLS {
            let answer = platform.log_in(protocol, &user, PASSWORD);
            assert!(is_success(protocol, &answer), "{user} {protocol}: {answer}");
        }
        assert!(!dovecot.logs(&user).is_empty());
        for (.., other, _) in tenants.iter().filter(|(.., other, _)| !std::ptr::eq(other, dovecot)) {
            assert!(other.log_of(&user).is_empty(), "{user} reached the server of another tenant");
        }
        let shown = cluster.in_namespace(namespace, &["get", "mailroutes"]);
        let row = shown.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row[..8], ["route", "edge", "Active", "True", "all", "ready", "1", "0"], "{shown}");
    }
    assert!(platform.log_in("IMAP", "user@elsewhere.test", PASSWORD).contains("[AUTHENTICATIONFAILED]"));
    // A domain of another tenant is refused, and its users stay where they are.
    let [(thief, _, stolen, _), (_, domain, ..), _] = &tenants;
    platform.route(thief, &["a.example.test", domain], &[("IMAP", reached(stolen.imap()))]);
    wait::eventually("the route is refused", || {
        let route = cluster.in_namespace(thief, &["get", "mailroute", "route", "-o", "json"]);
        route.contains("DomainNotAllowed").then_some(())
    });
    let user = format!("another@{domain}");
    assert!(is_success("IMAP", &platform.log_in("IMAP", &user, PASSWORD)));
    assert!(stolen.log_of(&user).is_empty());
    assert!(mailgress.is_ready());
}

#[test]
fn a_list_that_may_not_be_read_leaves_its_users_undecided_until_it_may() {
    let Some(cluster) = Cluster::new("routes-list") else { return };
    let (at, org, moved) = (at(), backend("org"), backend("moved"));
    let spec = json!({
        "className": cluster.name,
        "auth": { "passthrough": {} },
        "listeners": [{
            "name": "imap", "protocol": "IMAP", "address": "127.0.0.1", "port": at.port(),
            "backendAddress": org.address().to_string(), "tls": { "mode": "Disabled" },
        }],
    });
    cluster.apply(&cluster.here(mail_server(&spec)));
    cluster.kubectl(&["create", "configmap", "moved", "--from-literal=users=bob@example.org"]);
    cluster.apply(&json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": "moved", "namespace": cluster.name },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": { "usersFrom": [{ "name": "moved", "key": "users" }] },
            "backend": { "services": [{ "protocol": "IMAP", "address": moved.address().to_string() }] },
        },
    }));
    let _mailgress = cluster.mailgress();
    let said = cluster.comes_to("mailroute/moved", "ResolvedRefs", "False", "RefNotReadable");
    assert!(said.contains("ConfigMap routes-list/moved cannot be read"), "{said}");
    let login = |user: &str| log_in(&mut greeted(at).unwrap(), "IMAP", user, "secret").unwrap();
    assert!(login("bob@example.org").starts_with("a NO [UNAVAILABLE]"));
    assert!(login("me@example.org").starts_with("a NO [UNAVAILABLE]"), "the list may have this user");
    let verbs = "--verb=get,list,watch";
    cluster.kubectl(&["create", "role", "moved", verbs, "--resource=configmaps", "--resource-name=moved"]);
    let subject = "--serviceaccount=mailgress:mailgress";
    cluster.kubectl(&["create", "rolebinding", "moved", "--role=moved", subject]);
    cluster.wait_for("Ready", "mailroute/moved");
    assert_eq!(login("bob@example.org"), "a OK moved");
    assert_eq!(login("me@example.org"), "a OK org");
    // One more line, and only this route changes.
    let patch = json!({ "data": { "users": "bob@example.org\nme@example.org\n" } }).to_string();
    cluster.kubectl(&["patch", "configmap", "moved", "--type=merge", "-p", &patch]);
    wait::eventually("the list has the user", || (login("me@example.org") == "a OK moved").then_some(()));
    assert_eq!(cluster.get("mailroute/moved")["status"]["users"], 2);
}

#[test]
fn a_wave_is_drained_when_no_replica_has_a_session_of_its_users() {
    let Some(pair) = Pair::new("routes-wave") else { return };
    let (cluster, at, old, new) = (&pair.cluster, at(), backend("old"), backend("new"));
    cluster.backends(&[(&old, ready())]);
    cluster.apply(&pair.edge(at.port()));
    cluster.wait_for("Ready", "mailserver/edge");
    let user = |number: usize| format!("user{number}@example.org");
    let open = |number: usize| {
        let mut wire = greeted(at).unwrap();
        let answer = log_in(&mut wire, "IMAP", &user(number), "secret").unwrap();
        (answer, wire)
    };
    // Enough sessions for both replicas to have some.
    let mut sessions: Vec<_> = (0..30).map(open).collect();
    let mut other = open(100).1;
    assert!(sessions.iter().all(|(answer, _)| answer == "a OK old"));
    let wave = |state: &str, backend: SocketAddr| {
        json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailRoute",
            "metadata": { "name": "wave", "namespace": cluster.name },
            "spec": {
                "serverRef": { "name": "edge" },
                "match": { "users": (0..30).map(user).collect::<Vec<_>>() },
                "backend": { "services": [{ "protocol": "IMAP", "address": backend.to_string() }] },
                "state": state,
                "spread": "1s",
            },
        })
    };
    cluster.apply(&wave("Held", old.address()));
    cluster.wait_for("Drained", "mailroute/wave");
    for (_, wire) in &mut sessions {
        assert_eq!(wire.line().unwrap(), "* BYE Mailbox is being moved, please reconnect");
    }
    assert_eq!(cluster.get("mailroute/wave")["status"]["sessions"], 0);
    assert!(backend_answers(&mut other, "IMAP").unwrap());
    // Logins wait in both replicas, and go to the new backend.
    let mut waiting: Vec<_> = (0..10)
        .map(|number| {
            let mut wire = greeted(at).unwrap();
            send_login(&mut wire, "IMAP", &user(number), "secret").unwrap();
            wire
        })
        .collect();
    cluster.apply(&wave("Active", new.address()));
    for wire in &mut waiting {
        assert_eq!(wire.line().unwrap(), "a OK new");
    }
}
