//! `MailRoute`s from a folder: every user reaches the backend of the route, and nobody the backend of somebody else.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::{Backend, WRONG};
use crate::support::dovecot::Dovecot;
use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, with};
use crate::support::message::{message, wait_for_mail};
use crate::support::postfix::Postfix;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{
    PROTOCOLS, backend_answers, greeted, is_success, log_in, send_login, temporary_error,
};
use crate::support::tokens::token_for;
use crate::support::{ports, wait};

/// One listener for each protocol, without a backend of its own, and routes.
pub struct Site {
    at: [SocketAddr; 3],
    pub mailgress: Mailgress,
    folder: Folder,
    /// Has the control socket.
    control: TempDir,
}

impl Site {
    pub fn start(spec: &Value, routes: &[Value]) -> Self {
        let at = PROTOCOLS.map(|_| SocketAddr::from(([127, 0, 0, 1], ports::free())));
        let listeners = PROTOCOLS.iter().zip(at).map(|(protocol, at)| {
            json!({
                "name": protocol.to_lowercase(), "protocol": protocol, "address": "127.0.0.1", "port": at.port(),
                "tls": { "mode": "Disabled" },
            })
        });
        let listeners: Value = listeners.collect();
        let base = json!({ "auth": passthrough(), "allowedRoutes": [{}], "listeners": listeners });
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&with(base, spec)));
        for route in routes {
            folder.write(&format!("{}.yaml", route["metadata"]["name"].as_str().unwrap()), route);
        }
        let control = tempfile::Builder::new().prefix("mailgress-control-").tempdir().unwrap();
        let socket = control.path().join("control.sock");
        let mailgress = Mailgress::start_with(&folder, &["--control-socket", socket.to_str().unwrap()]);
        Self { at, mailgress, folder, control }
    }

    /// Returns the final reply to a login.
    fn log_in(&self, protocol: &str, user: &str, password: &str) -> String {
        log_in(&mut greeted(self.of(protocol)).unwrap(), protocol, user, password).unwrap()
    }

    pub fn of(&self, protocol: &str) -> SocketAddr {
        self.at[PROTOCOLS.iter().position(|other| *other == protocol).unwrap()]
    }

    /// Runs a command that uses the control socket, and returns what it prints.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        let socket = self.control.path().join("control.sock");
        let output = command.args(arguments).arg("--control-socket").arg(socket).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the condition of a route; null if there is none.
    fn condition(&self, route: &str, type_: &str) -> Value {
        let status = self.mailgress.status();
        let object = |object: &&Value| object["kind"] == "MailRoute" && object["name"] == route;
        let Some(object) = status["objects"].as_array().unwrap().iter().find(object) else {
            return Value::Null;
        };
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default()
    }

    /// Writes a route, and waits until it is ready.
    pub fn apply(&self, route: &Value) {
        let name = route["metadata"]["name"].as_str().unwrap();
        let generation = || self.condition(name, "Ready")["observedGeneration"].as_u64();
        let before = generation();
        self.folder.replace(&format!("{name}.yaml"), route);
        wait::eventually("the route is ready", || {
            let is_ready = self.condition(name, "Ready")["status"] == "True";
            (generation() != before && is_ready).then_some(())
        });
    }
}

/// Returns a route in the namespace of the `MailServer`.
pub fn route(name: &str, matches: &Value, backends: &[(&str, SocketAddr)]) -> Value {
    let services: Value = backends
        .iter()
        .map(|(protocol, address)| json!({ "protocol": protocol, "address": address.to_string() }))
        .collect();
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": name, "namespace": "mail" },
        "spec": { "serverRef": { "name": "edge" }, "match": matches, "backend": { "services": services } },
    })
}

fn scripted(name: &str) -> [Backend; 3] {
    [Backend::imap(name), Backend::pop3(name), Backend::smtp(name)]
}

fn addresses(backends: &[Backend; 3]) -> Vec<(&'static str, SocketAddr)> {
    PROTOCOLS.into_iter().zip(backends.iter().map(Backend::address)).collect()
}

fn accepted(headers: &[(&'static str, &str)]) -> Answer {
    let all = [&[("Auth-Status", "OK")], headers].concat();
    Answer::Headers(all.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
}

fn users(users: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "moved", "namespace": "mail" },
        "data": { "users": users },
    })
}

#[test]
fn users_reach_the_backend_of_their_route_in_every_protocol() {
    let (org, moved) = (scripted("org"), scripted("moved"));
    let site = Site::start(
        &json!({ "routing": { "defaultDomain": "example.org" } }),
        &[
            route("org", &json!({ "domains": ["Example.ORG", "*.münchen.example"] }), &addresses(&org)),
            route("moved", &json!({ "users": ["bob@example.org"] }), &addresses(&moved)),
        ],
    );
    for protocol in PROTOCOLS {
        for (user, backend) in [
            ("me@example.org", "org"),
            ("me@EXAMPLE.org", "org"),
            ("me", "org"),
            ("me@x.xn--mnchen-3ya.example", "org"),
            ("bob@example.ORG", "moved"),
            ("bob", "moved"),
            ("bob*admin", "moved"),
            ("Bob@example.org", "org"),
        ] {
            let answer = site.log_in(protocol, user, "secret");
            assert!(
                is_success(protocol, &answer) && answer.ends_with(backend),
                "{protocol} {user}: {answer}"
            );
        }
    }
}

#[test]
fn logins_and_sessions_are_counted_by_route_and_connections_by_endpoint() {
    let org = scripted("org");
    let gone = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let site = Site::start(
        &json!({}),
        &[
            route("org", &json!({ "domains": ["example.org"] }), &addresses(&org)),
            route("gone", &json!({ "domains": ["gone.test"] }), &[("IMAP", gone)]),
        ],
    );
    let sample = |series: &str| {
        let metrics = site.mailgress.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<u32>().ok())
    };
    let logins = |route: &str, outcome: &str| {
        sample(&format!(
            "mailgress_route_logins_total{{outcome=\"{outcome}\",protocol=\"imap\",route=\"mail/{route}\"}}"
        ))
    };
    let open =
        || sample("mailgress_route_sessions_open{protocol=\"imap\",route=\"mail/org\"}").unwrap_or_default();
    let connections = |backend: SocketAddr, outcome: &str| {
        sample(&format!(
            "mailgress_backend_connections_total{{backend=\"{backend}\",outcome=\"{outcome}\",protocol=\"imap\"}}"
        ))
    };
    assert_eq!(logins("org", "accepted"), None, "a route without logins has no series");
    let mut wire = greeted(site.of("IMAP")).unwrap();
    assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", "me@example.org", "secret").unwrap()));
    assert!(!is_success("IMAP", &site.log_in("IMAP", "me@example.org", WRONG)));
    assert!(!is_success("IMAP", &site.log_in("IMAP", "me@gone.test", "secret")));
    assert!(!is_success("IMAP", &site.log_in("IMAP", "me@nowhere.test", "secret")));
    let counted = ["accepted", "refused", "failed"].map(|outcome| logins("org", outcome).unwrap());
    assert_eq!(counted, [1, 1, 0]);
    assert_eq!((logins("gone", "failed"), open()), (Some(1), 1));
    assert_eq!(connections(org[0].address(), "answered"), Some(2));
    assert_eq!(connections(gone, "unreachable"), Some(1));
    drop(wire);
    wait::eventually("the session has ended", || (open() == 0).then_some(()));

    // Another route does not reset the counts; without the routes, they are forgotten.
    site.apply(&route("new", &json!({ "domains": ["new.test"] }), &addresses(&org)));
    assert_eq!((logins("org", "refused"), connections(org[0].address(), "answered")), (Some(1), Some(2)));
    for name in ["org", "gone", "new"] {
        site.folder.remove(&format!("{name}.yaml"));
    }
    wait::eventually("the routes are forgotten", || {
        let metrics = site.mailgress.metrics();
        let is_known = |name: &str| metrics.contains(name);
        (!is_known("mailgress_route_") && !is_known("mailgress_backend_connections_total{")).then_some(())
    });
}

#[test]
fn the_authorization_identity_decides() {
    let (org, moved) = (scripted("org"), scripted("moved"));
    let routes = [
        route("org", &json!({ "domains": ["example.org"] }), &addresses(&org)),
        route("moved", &json!({ "users": ["bob@example.org"] }), &addresses(&moved)),
    ];
    let site = Site::start(&json!({}), &routes);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    let response = STANDARD.encode("bob@Example.org\0admin@example.org\0secret");
    let answer = wire.ask(&format!("AUTH PLAIN {response}")).unwrap();
    assert!(answer.ends_with("moved"), "{answer}");
}

#[test]
fn a_user_without_a_route_is_refused_like_a_wrong_password_by_real_servers() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let backends = [("IMAP", dovecot.imap()), ("POP3", dovecot.pop3()), ("SMTP", postfix.submission())];
    let site = Site::start(&json!({}), &[route("known", &json!({ "domains": ["example.test"] }), &backends)]);
    let user = new_user("routed");
    for protocol in PROTOCOLS {
        let answer = site.log_in(protocol, &user, PASSWORD);
        assert!(is_success(protocol, &answer), "{answer}");
        let timed = |user: &str| {
            let started = Instant::now();
            let answer = site.log_in(protocol, user, WRONG);
            (answer, started.elapsed())
        };
        let (wrong, _) = timed(&user);
        let (unknown, took) = timed("somebody@elsewhere.test");
        assert_eq!(unknown, wrong, "{protocol}");
        assert!(took > Duration::from_millis(200), "{protocol}: {took:?}");
    }
    site.mailgress.logs(&["login refused", "somebody@elsewhere.test", "reason=\"credentials\""]);
}

#[test]
fn a_refused_route_refuses_its_users_and_no_others() {
    let org = scripted("org");
    let refused = json!({ "spec": { "state": "Refused" } });
    let site = Site::start(
        &json!({}),
        &[
            route("org", &json!({ "domains": ["example.org"] }), &addresses(&org)),
            with(route("gone", &json!({ "users": ["bob@example.org"] }), &addresses(&org)), &refused),
        ],
    );
    assert!(site.log_in("IMAP", "bob@example.org", "secret").contains("NO [AUTHENTICATIONFAILED]"));
    assert!(site.log_in("IMAP", "me@example.org", "secret").ends_with("org"));
}

#[test]
fn a_login_that_may_be_in_an_unread_list_gets_a_temporary_error_until_the_list_is_there() {
    let (org, moved) = (scripted("org"), scripted("moved"));
    let list = json!({ "usersFrom": [{ "name": "moved", "key": "users" }] });
    let routes = [
        route("org", &json!({ "domains": ["example.org"] }), &addresses(&org)),
        route("moved", &list, &addresses(&moved)),
    ];
    let site = Site::start(&json!({}), &routes);
    assert_eq!(site.condition("moved", "ResolvedRefs")["reason"], "RefNotFound");
    for (protocol, refusal) in
        [("IMAP", "a NO [UNAVAILABLE] "), ("POP3", "-ERR [SYS/TEMP] "), ("SMTP", "454 4.7.0 ")]
    {
        let answer = site.log_in(protocol, "bob@example.org", "secret");
        assert!(answer.starts_with(refusal), "{answer}");
    }
    let line = site.mailgress.logs(&["MailRoute mail/moved", "configuration"]);
    assert!(line.contains("route_undecided"), "{line}");
    // A client may try again in the same session.
    let mut wire = greeted(site.of("IMAP")).unwrap();
    assert!(
        log_in(&mut wire, "IMAP", "bob@example.org", "secret").unwrap().starts_with("a NO [UNAVAILABLE]")
    );
    site.folder.write("users.yaml", &users("# moved on Monday\nbob@example.org\n"));
    wait::eventually("the list is read", || {
        (site.condition("moved", "Ready")["status"] == "True").then_some(())
    });
    assert_eq!(log_in(&mut wire, "IMAP", "bob@example.org", "secret").unwrap(), "a OK moved");
    assert!(site.log_in("IMAP", "me@example.org", "secret").ends_with("org"));
    // A list that is gone keeps its last content.
    site.folder.remove("users.yaml");
    wait::eventually("the list is missed", || {
        (site.condition("moved", "Degraded")["status"] == "True").then_some(())
    });
    assert!(site.log_in("IMAP", "bob@example.org", "secret").ends_with("moved"));
}

/// Returns a route to a Service that has no endpoint.
fn without_endpoints(name: &str, domain: &str) -> Vec<Value> {
    let services: Value = PROTOCOLS
        .iter()
        .map(|protocol| json!({ "protocol": protocol, "name": name, "port": protocol.to_lowercase() }))
        .collect();
    let ports: Value = PROTOCOLS
        .iter()
        .zip(1..)
        .map(|(protocol, port)| json!({ "name": protocol.to_lowercase(), "port": port }))
        .collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("{name}-service"), "namespace": "mail" },
        "spec": { "selector": { "app": name }, "ports": ports },
    });
    let service = with(service, &json!({ "metadata": { "name": name } }));
    let route = route(&format!("route-{name}"), &json!({ "domains": [domain] }), &[]);
    vec![service, with(route, &json!({ "spec": { "backend": { "services": services } } }))]
}

#[test]
fn a_route_whose_backend_cannot_be_used_gives_a_temporary_error_in_every_protocol() {
    let closed = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let (hanging, foreign, gone) =
        (Backend::hanging(), Backend::greeting(b"SSH-2.0-OpenSSH_9.2\r\n"), Backend::saying(b""));
    let full = [
        Backend::greeting(b"* BYE full\r\n"),
        Backend::greeting(b"-ERR [SYS/TEMP] full\r\n"),
        Backend::greeting(b"421 4.3.2 full\r\n"),
    ];
    let to = |address: SocketAddr| PROTOCOLS.map(|protocol| (protocol, address));
    let bad = |name: &str, backends: &[(&str, SocketAddr)]| {
        route(name, &json!({ "domains": [format!("{name}.test")] }), backends)
    };
    let mut objects = without_endpoints("none", "none.test");
    objects.push(bad("closed", &to(closed)));
    objects.push(bad("hanging", &to(hanging.address())));
    objects.push(bad("foreign", &to(foreign.address())));
    objects.push(bad("gone", &to(gone.address())));
    objects.push(bad("full", &addresses(&full)));
    let tls = json!({ "spec": { "backend": { "upstream": { "tls": { "mode": "StartTLS" } } } } });
    objects.push(with(bad("tls", &to(gone.address())), &tls));
    objects.push(bad("missing", &to("192.0.2.1:1".parse().unwrap())));
    let missing = json!({ "spec": { "backend": { "services": [
        { "protocol": "IMAP", "name": "nowhere", "port": 1, "address": null },
        { "protocol": "POP3", "name": "nowhere", "port": 1, "address": null },
        { "protocol": "SMTP", "name": "nowhere", "port": 1, "address": null },
    ] } } });
    let last = objects.pop().unwrap();
    objects.push(with(last, &missing));
    let service = AuthService::start(|_| accepted(&[]));
    for auth in [passthrough(), json!({ "passthrough": null, "http": http_auth(&service.url())["http"] })] {
        let spec = json!({
            "auth": auth, "timeouts": { "connect": "1s" }, "smtp": { "authMethods": ["PLAIN", "NONE"] },
        });
        let site = Site::start(&spec, &objects);
        for domain in ["none", "closed", "hanging", "foreign", "gone", "full", "tls", "missing"] {
            let user = format!("bob@{domain}.test");
            for protocol in PROTOCOLS {
                let mut wire = greeted(site.of(protocol)).unwrap();
                for _ in 0..2 {
                    let answer = log_in(&mut wire, protocol, &user, "secret").unwrap();
                    assert!(answer.starts_with(temporary_error(protocol)), "{protocol} {domain}: {answer}");
                }
                drop(wire);
            }
            let mut wire = greeted(site.of("SMTP")).unwrap();
            wire.smtp("EHLO client.example.test").unwrap();
            wire.smtp("MAIL FROM:<>").unwrap();
            let answer = wire.ask(&format!("RCPT TO:<{user}>")).unwrap();
            assert!(answer.starts_with("451 4.4.3 "), "{domain}: {answer}");
            assert!(wire.ask("QUIT").unwrap().starts_with("221"), "the session goes on");
        }
        // The session's line names the reason, although the client has left.
        site.mailgress.logs(&["no_backend", "mail/none:imap has no ready endpoints"]);
        site.mailgress.logs(&["backend_connect", "fault=\"backend\""]);
    }
}

#[test]
fn a_login_whose_domain_cannot_be_one_does_not_reach_the_listeners_own_backend() {
    let (own, org) = (Backend::imap("own"), Backend::imap("org"));
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let folder = Folder::new();
    folder.write(
        "server.yaml",
        &mail_server(&json!({
            "auth": passthrough(), "listeners": [listener("imap", "IMAP", "Disabled", at.port(), own.address())],
        })),
    );
    folder.write("org.yaml", &route("org", &json!({ "domains": ["a.example"] }), &[("IMAP", org.address())]));
    let _mailgress = Mailgress::start(&folder);
    for user in ["bob@a.example ", "bob@a.example\t", "bob@a..example", "bob@a.example..", "bob@a.example@"] {
        let mut wire = greeted(at).unwrap();
        let answer = wire.ask(&format!("a LOGIN \"{user}\" secret")).unwrap();
        assert_eq!(answer, "a NO [AUTHENTICATIONFAILED] Authentication failed.", "{user:?}");
    }
    assert_eq!(own.accepted() + org.accepted(), 0);
    for (user, backend) in [("bob@a.example.", "org"), ("bob@b.example", "own"), ("bob", "own")] {
        let mut wire = greeted(at).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", user, "secret").unwrap(), format!("a OK {backend}"));
    }
}

#[test]
fn a_user_without_a_route_is_refused_in_the_words_of_the_backends() {
    let org = scripted("org");
    let site =
        Site::start(&json!({}), &[route("org", &json!({ "domains": ["example.org"] }), &addresses(&org))]);
    for (protocol, before, after) in [
        (
            "IMAP",
            "a NO [AUTHENTICATIONFAILED] Authentication failed.",
            "a NO [AUTHENTICATIONFAILED] refused by org",
        ),
        ("POP3", "-ERR [AUTH] Authentication failed.", "-ERR [AUTH] refused by org"),
        ("SMTP", "535 5.7.8 Error: authentication failed: (reason unavailable)", "535 5.7.8 refused by org"),
    ] {
        let refusal = |user: &str| site.log_in(protocol, user, WRONG);
        assert_eq!(refusal("me@elsewhere.test"), before);
        for user in ["bob@example.org", "al@example.org"] {
            assert_eq!(refusal(user), after);
        }
        assert_eq!(refusal("me@elsewhere.test"), after);
    }
}

#[test]
fn within_a_domain_neither_words_nor_time_of_a_refusal_tell_who_is_in_a_list() {
    let (org, net) = (scripted("org"), scripted("net"));
    let listed = json!({ "users": ["bob@example.net", "al@example.net", "joe@example.org"] });
    let site = Site::start(
        &json!({}),
        &[
            route("org", &json!({ "domains": ["example.org", "example.com"] }), &addresses(&org)),
            route("net", &listed, &addresses(&net)),
        ],
    );
    let refused = |protocol, user: &str| {
        let started = Instant::now();
        (site.log_in(protocol, user, WRONG), started.elapsed())
    };
    for (protocol, words) in [
        ("IMAP", "a NO [AUTHENTICATIONFAILED] Authentication failed."),
        ("POP3", "-ERR [AUTH] Authentication failed."),
        ("SMTP", "535 5.7.8 Error: authentication failed: (reason unavailable)"),
    ] {
        // The listener learns the words of `org`, and that its backends refuse at once.
        for user in ["bob", "joe"].into_iter().cycle().take(10) {
            let (answer, _) = refused(protocol, &format!("{user}@example.com"));
            assert!(answer.ends_with("refused by org"), "{protocol}: {answer}");
        }
        // The backend of the list has not refused anybody yet, so its time is two seconds.
        let (unlisted, took) = refused(protocol, "eve@example.net");
        assert_eq!(unlisted, words, "{protocol}");
        assert!(took > Duration::from_millis(1500), "{protocol}: {took:?}");
        for user in ["bob@example.net", "AL@example.net", "joe@example.org", "eve@example.org"] {
            assert_eq!(refused(protocol, user).0, words, "{protocol}: {user}");
        }
        let (elsewhere, took) = refused(protocol, "me@elsewhere.test");
        assert!(elsewhere.ends_with("refused by org"), "{protocol}: {elsewhere}");
        assert!(took < Duration::from_millis(1500), "{protocol}: {took:?}");
    }
}

#[test]
fn a_changed_route_applies_to_the_next_login_and_keeps_open_sessions() {
    let (old, new) = (scripted("old"), scripted("new"));
    let matches = json!({ "domains": ["example.org"] });
    let site = Site::start(&json!({}), &[route("org", &matches, &addresses(&old))]);
    let mut open = greeted(site.of("IMAP")).unwrap();
    assert_eq!(log_in(&mut open, "IMAP", "me@example.org", "secret").unwrap(), "a OK old");
    let mut waiting = greeted(site.of("IMAP")).unwrap();
    site.apply(&route("org", &matches, &addresses(&new)));
    assert_eq!(log_in(&mut waiting, "IMAP", "me@example.org", "secret").unwrap(), "a OK new");
    assert!(backend_answers(&mut open, "IMAP").unwrap(), "the open session stays");
    assert!(site.log_in("IMAP", "me@example.org", "secret").ends_with("new"));
}

#[test]
fn the_auth_service_decides_before_the_routes_and_names_the_user_for_them() {
    let (org, other) = (scripted("org"), scripted("other"));
    let named = other[0].address();
    let service = AuthService::start(move |request| match request.header("Auth-User") {
        Some("named@example.org") => Answer::Backend(named),
        Some("alias") => accepted(&[("Auth-User", "me@example.org")]),
        _ => accepted(&[]),
    });
    let routes = [route("org", &json!({ "domains": ["example.org"] }), &addresses(&org))];
    let site = Site::start(
        &json!({ "auth": { "passthrough": null, "http": http_auth(&service.url())["http"] } }),
        &routes,
    );
    for (user, answer) in
        [("me@example.org", "a OK org"), ("alias", "a OK org"), ("named@example.org", "a OK other")]
    {
        assert_eq!(site.log_in("IMAP", user, "secret"), answer, "{user}");
    }
    assert!(site.log_in("IMAP", "me@elsewhere.test", "secret").starts_with("a NO [AUTHENTICATIONFAILED]"));
}

#[test]
fn a_relayed_exchange_is_routed_by_its_first_message_which_the_client_is_asked_for() {
    let dovecot = &servers().dovecot;
    let user = new_user("token");
    let routes = [route("known", &json!({ "domains": ["example.test"] }), &[("IMAP", dovecot.imap())])];
    let site = Site::start(&json!({ "imap": { "authMethods": ["PLAIN", "OAUTHBEARER"] } }), &routes);
    let token = token_for(&user);
    let message = STANDARD.encode(format!("n,a={user},\x01auth=Bearer {token}\x01\x01"));
    let mut wire = greeted(site.of("IMAP")).unwrap();
    assert_eq!(wire.ask("a AUTHENTICATE OAUTHBEARER").unwrap(), "+ ");
    wire.send(format!("{message}\r\n")).unwrap();
    assert!(wire.line().unwrap().starts_with("a OK"));
    let mut wire = greeted(site.of("IMAP")).unwrap();
    assert!(wire.ask(&format!("a AUTHENTICATE OAUTHBEARER {message}")).unwrap().starts_with("a OK"));
    let mut wire = greeted(site.of("IMAP")).unwrap();
    wire.ask("a AUTHENTICATE OAUTHBEARER").unwrap();
    wire.send("*\r\n").unwrap();
    assert_eq!(wire.line().unwrap(), "a NO Authentication cancelled");
}

#[test]
fn an_exchange_that_hides_its_user_is_not_relayed() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&heard);
    let own = Backend::imap_heard("own", move |line| memory.lock().unwrap().push(line.to_owned()));
    let org = Backend::imap("org");
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let folder = Folder::new();
    folder.write(
        "server.yaml",
        &mail_server(&json!({
            "auth": passthrough(), "imap": { "authMethods": ["PLAIN", "OAUTHBEARER", "XOAUTH2"] },
            "listeners": [listener("imap", "IMAP", "Disabled", at.port(), own.address())],
        })),
    );
    let matches = json!({ "domains": ["a.example"] });
    folder.write("org.yaml", &route("org", &matches, &[("IMAP", org.address())]));
    let _mailgress = Mailgress::start(&folder);
    for (mechanism, message) in [
        ("OAUTHBEARER", "n,,\x01auth=Bearer t\x01\x01"),
        ("OAUTHBEARER", "n,a=bob=40a.example,\x01auth=Bearer t\x01\x01"),
        ("OAUTHBEARER", "n,a=bob@a.example,\x01auth=Bearer t\x01auth=Bearer t\x01\x01"),
        ("XOAUTH2", "auth=Bearer t\x01user=bob@a.example\x01\x01"),
    ] {
        let mut wire = greeted(at).unwrap();
        let command = format!("a AUTHENTICATE {mechanism} {}", STANDARD.encode(message));
        let answer = wire.ask(&command).unwrap();
        assert!(answer.starts_with("a NO [AUTHENTICATIONFAILED]"), "{message:?}: {answer}");
    }
    assert_eq!(*heard.lock().unwrap(), [""; 0], "the listener's own backend gets no token");
    let mut wire = greeted(at).unwrap();
    assert_eq!(log_in(&mut wire, "IMAP", "bob@b.example", "secret").unwrap(), "a OK own");
}

#[test]
fn mail_without_a_login_goes_to_the_backend_of_its_first_recipient() {
    let (one, two) = (Backend::smtp_answering_rcpt("250 one"), Backend::smtp_answering_rcpt("250 two"));
    let routes = [
        route("one", &json!({ "domains": ["one.test"] }), &[("SMTP", one.address())]),
        route("two", &json!({ "users": ["bob@two.test"] }), &[("SMTP", two.address())]),
    ];
    let site = Site::start(&json!({ "smtp": { "authMethods": ["NONE"] } }), &routes);
    let recipient = |path: &str| {
        let mut wire = greeted(site.of("SMTP")).unwrap();
        wire.smtp("EHLO client.example.test").unwrap();
        wire.smtp("MAIL FROM:<>").unwrap();
        wire.ask(&format!("RCPT TO:{path}")).unwrap()
    };
    assert_eq!(recipient("<me@one.test>"), "250 one");
    assert_eq!(recipient("<@relay.test:me@ONE.test>"), "250 one");
    assert_eq!(recipient("<\"a>b\"@one.test>"), "250 one");
    assert_eq!(recipient("<bob+lists@two.test>"), "250 two");
    assert_eq!(recipient("<al@two.test>"), "554 5.7.1 Relay access denied");
}

#[test]
fn three_tenants_share_ports_and_have_servers_of_their_own() {
    let tenants = ["a.example.test", "b.example.test", "c.example.test"];
    let own: Vec<(Dovecot, Postfix)> = tenants
        .iter()
        .map(|_| {
            let dovecot = Dovecot::start(None);
            let postfix = Postfix::start(&dovecot, None);
            (dovecot, postfix)
        })
        .collect();
    let rules: Value = tenants
        .iter()
        .map(|domain| {
            let label = json!({ "kubernetes.io/metadata.name": domain.split('.').next().unwrap() });
            json!({ "namespaces": { "from": "Selector", "selector": { "matchLabels": label } }, "domains": [domain] })
        })
        .collect();
    // Tenants may use addresses on loopback here only because the owner allows it.
    let allowed = json!({ "backends": { "networks": ["127.0.0.1"] } });
    let routes: Vec<Value> = tenants
        .iter()
        .zip(&own)
        .map(|(domain, (dovecot, postfix))| {
            let backends =
                [("IMAP", dovecot.imap()), ("POP3", dovecot.pop3()), ("SMTP", postfix.submission())];
            let namespace = domain.split('.').next().unwrap();
            let metadata = json!({ "metadata": { "name": namespace, "namespace": namespace } });
            let server = json!({ "spec": { "serverRef": { "name": "edge", "namespace": "mail" } } });
            with(with(route(namespace, &json!({ "domains": [domain] }), &backends), &metadata), &server)
        })
        .collect();
    let spec = json!({ "allowedRoutes": rules, "allowedListeners": allowed });
    let site = Site::start(&spec, &routes);
    for (domain, (dovecot, _)) in tenants.iter().zip(&own) {
        let user = format!("user@{domain}");
        for protocol in PROTOCOLS {
            let answer = site.log_in(protocol, &user, PASSWORD);
            assert!(is_success(protocol, &answer), "{domain} {protocol}: {answer}");
        }
        // Each Postfix asks its own Dovecot about a login.
        assert!(!dovecot.logs(&user).is_empty());
        for (other, _) in own.iter().filter(|(other, _)| !std::ptr::eq(other, dovecot)) {
            assert!(other.log_of(&user).is_empty(), "{user} reached the server of another tenant");
        }
    }
    // A tenant who names the domain of another one is refused, and everybody else goes on.
    let (dovecot, _) = &own[0];
    let stolen = route("a", &json!({ "domains": [tenants[0], tenants[1]] }), &[("IMAP", dovecot.imap())]);
    let metadata =
        json!({ "metadata": { "namespace": "a" }, "spec": { "serverRef": { "namespace": "mail" } } });
    site.folder.replace("a.yaml", &with(stolen, &metadata));
    wait::eventually("the route is refused", || {
        (site.condition("a", "Accepted")["reason"] == "DomainNotAllowed").then_some(())
    });
    let user = format!("other@{}", tenants[1]);
    assert!(is_success("IMAP", &site.log_in("IMAP", &user, PASSWORD)));
    assert!(dovecot.log_of(&user).is_empty());
}

#[test]
fn a_message_reaches_the_mailbox_behind_the_route() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let user = new_user("delivered");
    let backends = [("SMTP", postfix.mx()), ("IMAP", dovecot.imap())];
    let routes = [route("known", &json!({ "domains": ["example.test"] }), &backends)];
    let site = Site::start(&json!({ "smtp": { "authMethods": ["NONE"] } }), &routes);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    wire.smtp("MAIL FROM:<sender@example.test>").unwrap();
    assert!(wire.ask(&format!("RCPT TO:<{user}>")).unwrap().starts_with("250"));
    assert!(wire.ask("DATA").unwrap().starts_with("354"));
    wire.send(message(&user, "through a route")).unwrap();
    assert!(wire.ask("\r\n.").unwrap().starts_with("250"));
    wait_for_mail(&user);
    let mut imap = greeted(site.of("IMAP")).unwrap();
    send_login(&mut imap, "IMAP", &user, PASSWORD).unwrap();
    wait::eventually("the login is accepted", || imap.line().unwrap().starts_with("a OK").then_some(()));
}

#[test]
fn logins_of_a_held_route_wait_and_go_to_the_new_backend_when_it_is_active() {
    let (old, new, others) = (scripted("old"), scripted("new"), scripted("others"));
    let matches = json!({ "users": ["bob@example.org"] });
    let held = |timeout: &str| {
        let state = json!({ "spec": { "state": "Held", "holdTimeout": timeout } });
        with(route("wave", &matches, &addresses(&old)), &state)
    };
    let routes = [route("org", &json!({ "domains": ["example.org"] }), &addresses(&others)), held("60s")];
    let site = Site::start(&json!({}), &routes);
    let mut waiting = greeted(site.of("IMAP")).unwrap();
    send_login(&mut waiting, "IMAP", "bob@example.org", "secret").unwrap();
    assert!(site.log_in("IMAP", "me@example.org", "secret").ends_with("others"), "nobody else waits");
    assert_eq!(old[0].accepted() + new[0].accepted(), 0);
    site.apply(&route("wave", &matches, &addresses(&new)));
    assert_eq!(waiting.line().unwrap(), "a OK new");
    // After its time, a login gets a temporary error, and the client may try again.
    site.apply(&held("100ms"));
    for (protocol, refusal) in
        [("IMAP", "a NO [UNAVAILABLE] "), ("POP3", "-ERR [SYS/TEMP] "), ("SMTP", "454 4.7.0 ")]
    {
        let answer = site.log_in(protocol, "bob@example.org", "secret");
        assert!(answer.starts_with(refusal), "{answer}");
    }
    site.mailgress.logs(&["route_held", "MailRoute mail/wave"]);
    let mut again = greeted(site.of("IMAP")).unwrap();
    assert!(log_in(&mut again, "IMAP", "bob@example.org", "secret").unwrap().contains("[UNAVAILABLE]"));
    site.apply(&route("wave", &matches, &addresses(&new)));
    assert_eq!(log_in(&mut again, "IMAP", "bob@example.org", "secret").unwrap(), "a OK new");
}

#[test]
fn open_sessions_of_a_held_route_end_and_it_is_drained_when_none_is_left() {
    let (org, new) = (scripted("org"), scripted("new"));
    let site = Site::start(
        &json!({ "timeouts": { "connect": "3s" } }),
        &[route("org", &json!({ "domains": ["example.org"] }), &addresses(&org))],
    );
    let open = |user: &str| {
        let mut wire = greeted(site.of("IMAP")).unwrap();
        assert_eq!(log_in(&mut wire, "IMAP", user, "secret").unwrap(), "a OK org");
        wire
    };
    let (mut bob, mut al, mut other) =
        (open("bob@example.org"), open("Al@Example.org"), open("me@example.org"));
    // The wave is a new route: until now, these users had the route of their domain.
    let matches = json!({ "users": ["bob@example.org", "Al@example.org"] });
    let state = json!({ "spec": { "state": "Held", "spread": "1s" } });
    let wave = with(route("wave", &matches, &addresses(&org)), &state);
    site.folder.write("wave.yaml", &wave);
    for wire in [&mut bob, &mut al] {
        assert_eq!(wire.line().unwrap(), "* BYE Mailbox is being moved, please reconnect");
    }
    wait::eventually("the route is drained", || {
        (site.condition("wave", "Drained")["status"] == "True").then_some(())
    });
    assert!(backend_answers(&mut other, "IMAP").unwrap(), "others stay");
    site.mailgress.logs(&["outcome=\"held\"", "bob@example.org"]);
    site.apply(&route("wave", &matches, &addresses(&new)));
    assert_eq!(site.condition("wave", "Drained"), Value::Null);
    assert!(site.log_in("IMAP", "bob@example.org", "secret").ends_with("new"));
}

#[test]
fn a_route_with_users_of_an_older_one_is_not_drained() {
    let org = scripted("org");
    let matches = json!({ "users": ["bob@example.org"] });
    let site = Site::start(&json!({}), &[route("a-first", &matches, &addresses(&org))]);
    let mut bob = greeted(site.of("IMAP")).unwrap();
    assert_eq!(log_in(&mut bob, "IMAP", "bob@example.org", "secret").unwrap(), "a OK org");
    let held = json!({ "spec": { "state": "Held", "spread": "0s" } });
    site.folder.write("wave.yaml", &with(route("wave", &matches, &addresses(&org)), &held));
    wait::eventually("the conflict is told", || {
        (site.condition("wave", "Drained")["reason"] == "RouteConflict").then_some(())
    });
    assert_eq!(site.condition("wave", "Drained")["status"], "Unknown");
    assert!(backend_answers(&mut bob, "IMAP").unwrap());
}

#[test]
fn sessions_of_a_removed_listener_count_for_held_routes() {
    let org = scripted("org");
    let org = route("org", &json!({ "domains": ["example.org"] }), &addresses(&org));
    let site = Site::start(&json!({}), std::slice::from_ref(&org));
    let mut bob = greeted(site.of("IMAP")).unwrap();
    assert_eq!(log_in(&mut bob, "IMAP", "bob@example.org", "secret").unwrap(), "a OK org");
    let text = std::fs::read_to_string(site.folder.path().join("server.yaml")).unwrap();
    let mut server: Value = serde_yaml::from_str(&text).unwrap();
    let listeners = server["spec"]["listeners"].as_array_mut().unwrap();
    listeners.retain(|listener| listener["protocol"] != "IMAP");
    site.folder.replace("server.yaml", &server);
    site.mailgress.logs(&["stopped listening"]);
    site.folder.replace("org.yaml", &with(org, &json!({ "spec": { "state": "Held", "spread": "0s" } })));
    wait::eventually("the session counts", || {
        (site.condition("org", "Drained")["reason"] == "SessionsOpen").then_some(())
    });
    assert!(backend_answers(&mut bob, "IMAP").unwrap());
    drop(bob);
    wait::eventually("the route is drained", || {
        (site.condition("org", "Drained")["status"] == "True").then_some(())
    });
}

#[test]
fn a_login_under_way_when_its_route_is_held_counts_until_it_is_over() {
    let org = scripted("org");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = route("slow", &json!({ "domains": ["slow.test"] }), &[("IMAP", silent.local_addr().unwrap())]);
    let site = Site::start(
        &json!({ "timeouts": { "connect": "60s" } }),
        &[route("org", &json!({ "domains": ["example.org"] }), &addresses(&org)), slow.clone()],
    );
    let mut login = greeted(site.of("IMAP")).unwrap();
    send_login(&mut login, "IMAP", "bob@slow.test", "secret").unwrap();
    let (backend, _) = silent.accept().unwrap();
    site.folder.replace("slow.yaml", &with(slow, &json!({ "spec": { "state": "Held" } })));
    wait::eventually("the login counts", || {
        (site.condition("slow", "Drained")["reason"] == "SessionsOpen").then_some(())
    });
    drop(backend);
    wait::eventually("the route is drained", || {
        (site.condition("slow", "Drained")["status"] == "True").then_some(())
    });
}
