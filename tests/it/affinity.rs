//! `affinity` of a `MailRoute`: each user has one endpoint, which may change while logins go on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::mailboxes::Mailboxes;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, mail_server, passthrough, with};
use crate::support::talk::{backend_answers, greeted, is_success, log_in, send_login};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// A Pod with a server for each protocol.
struct Pod {
    name: &'static str,
    imap: Backend,
    pop3: Backend,
    smtp: Backend,
}

impl Pod {
    fn new(name: &'static str, mailboxes: &Mailboxes) -> Self {
        let imap = Backend::imap_of_users(Ipv4Addr::LOCALHOST.into(), name, mailboxes);
        let pop3 = Backend::pop3_of_users(name, mailboxes);
        Self { name, imap, pop3, smtp: Backend::smtp_of_users(name, mailboxes) }
    }
}

/// One listener for each protocol, and a route for `example.org` to the Services `imap`, `pop3` and `smtp`.
struct Site {
    imap: SocketAddr,
    pop3: SocketAddr,
    smtp: SocketAddr,
    mailgress: Mailgress,
    folder: Folder,
}

const READY: (bool, bool) = (true, false);

impl Site {
    fn start(affinity: &Value, pods: &[&Pod]) -> Self {
        let [imap, pop3, smtp] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], ports::free())));
        let listener = |protocol: &str, at: SocketAddr| {
            json!({
                "name": protocol.to_lowercase(), "protocol": protocol, "address": "127.0.0.1", "port": at.port(),
                "tls": { "mode": "Disabled" },
            })
        };
        let listeners = [listener("IMAP", imap), listener("POP3", pop3), listener("SMTP", smtp)];
        let spec = json!({ "auth": passthrough(), "allowedRoutes": [{}], "listeners": listeners });
        let folder = Folder::new();
        folder.write("server.yaml", &mail_server(&spec));
        for (name, port) in [("imap", 143), ("pop3", 110), ("smtp", 587)] {
            folder.write(&format!("{name}.yaml"), &service(name, port));
        }
        for pod in pods {
            slices(&folder, pod, READY);
        }
        folder.write("route.yaml", &route(affinity));
        let mailgress = Mailgress::start(&folder);
        Self { imap, pop3, smtp, mailgress, folder }
    }

    fn at(&self, protocol: &str) -> SocketAddr {
        match protocol {
            "IMAP" => self.imap,
            "POP3" => self.pop3,
            _ => self.smtp,
        }
    }

    /// Logs in. Returns the final reply and the session.
    fn session(&self, protocol: &str, user: &str) -> (String, Wire) {
        let mut wire = greeted(self.at(protocol)).unwrap();
        let answer = log_in(&mut wire, protocol, user, "secret").unwrap();
        (answer, wire)
    }

    /// Returns the Pod at which a user is logged in, and the session.
    fn log_in(&self, protocol: &str, user: &str) -> (String, Wire) {
        let (answer, wire) = self.session(protocol, user);
        assert!(is_success(protocol, &answer), "{user} {protocol}: {answer}");
        (answer.rsplit(' ').next().unwrap().to_owned(), wire)
    }

    fn condition(&self, type_: &str) -> Value {
        let status = self.mailgress.status();
        let mut objects = status["objects"].as_array().unwrap().iter();
        let Some(route) = objects.find(|object| object["kind"] == "MailRoute") else { return Value::Null };
        let conditions = route["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default()
    }
}

fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "mail" },
        "spec": { "ports": [{ "name": "mail", "port": port, "protocol": "TCP" }] },
    })
}

/// Writes one EndpointSlice for each protocol. `state`: whether the Pod is ready, and whether it terminates.
fn slices(folder: &Folder, pod: &Pod, (ready, terminating): (bool, bool)) {
    for (service, backend) in [("imap", &pod.imap), ("pop3", &pod.pop3), ("smtp", &pod.smtp)] {
        let at = backend.address();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{}", pod.name),
                "namespace": "mail",
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "mail", "port": at.port(), "protocol": "TCP" }],
            "endpoints": [{
                "addresses": [at.ip().to_string()],
                "conditions": { "ready": ready, "serving": true, "terminating": terminating },
                "targetRef": { "kind": "Pod", "namespace": "mail", "name": pod.name },
            }],
        });
        folder.replace(&format!("{service}-{}.yaml", pod.name), &slice);
    }
}

fn remove(folder: &Folder, pod: &Pod) {
    for service in ["imap", "pop3", "smtp"] {
        let file = format!("{service}-{}.yaml", pod.name);
        if folder.path().join(&file).exists() {
            folder.remove(&file);
        }
    }
}

fn route(affinity: &Value) -> Value {
    let services = json!([
        { "protocol": "IMAP", "name": "imap", "port": 143 },
        { "protocol": "POP3", "name": "pop3", "port": 110 },
        { "protocol": "SMTP", "name": "smtp", "port": 587 },
    ]);
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": { "name": "org", "namespace": "mail" },
        "spec": {
            "serverRef": { "name": "edge" },
            "match": { "domains": ["example.org"] },
            "backend": { "services": services, "affinity": affinity },
        },
    })
}

fn exclusive(times: &Value) -> Value {
    with(json!({ "mode": "Exclusive" }), times)
}

fn name(number: usize) -> String {
    format!("user{number}@example.org")
}

#[test]
fn a_user_has_one_pod_in_all_protocols_whatever_its_address() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b", "c"].map(|name| Pod::new(name, &mailboxes));
    let [a, b, c] = &pods;
    let site = Site::start(&json!({ "mode": "User" }), &[a, b, c]);
    let places: Vec<String> = (0..30).map(|number| site.log_in("IMAP", &name(number)).0).collect();
    let mut counts = BTreeMap::new();
    for (number, place) in places.iter().enumerate() {
        *counts.entry(place).or_insert(0) += 1;
        assert_eq!(site.log_in("POP3", &name(number).to_uppercase()).0, *place);
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
    // The Pod b is created again, with other addresses.
    let again = Pod::new("b", &mailboxes);
    slices(&site.folder, &again, READY);
    let of_b = places.iter().position(|place| place == "b").unwrap();
    wait::eventually("the new address is used", || {
        site.log_in("IMAP", &name(of_b));
        (again.imap.accepted() > 0).then_some(())
    });
    for (number, place) in places.iter().enumerate() {
        assert_eq!(site.log_in("IMAP", &name(number)).0, *place);
    }
    // One that cannot be reached is replaced.
    drop((again, pods));
    let others = ["a", "c"].map(|name| Pod::new(name, &mailboxes));
    others.iter().for_each(|pod| slices(&site.folder, pod, READY));
    wait::eventually("another Pod is used", || {
        let (answer, _) = site.session("IMAP", &name(of_b));
        answer.starts_with("a OK ").then_some(())
    });
}

#[test]
fn only_users_that_move_lose_their_sessions_and_reach_their_new_pod() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b", "c"].map(|name| Pod::new(name, &mailboxes));
    let [a, b, c] = &pods;
    let site = Site::start(&exclusive(&json!({})), &[a, b]);
    let mut sessions: Vec<(String, Wire)> =
        (0..30).map(|number| site.log_in("IMAP", &name(number))).collect();
    slices(&site.folder, c, READY);
    let mut moved = 0;
    wait::eventually("users move to the new Pod", || {
        let moves = site.log_in("POP3", &name(29)).0 == "c";
        let ends = c.imap.accepted() + c.pop3.accepted() > 0;
        (moves || ends || site.mailgress.log().contains("moves to another endpoint")).then_some(())
    });
    site.mailgress.logs(&["ending sessions of exclusive users", "mail/org"]);
    for (number, (before, wire)) in sessions.iter_mut().enumerate() {
        let (now, _session) = site.log_in("IMAP", &name(number));
        if now == *before {
            assert!(backend_answers(wire, "IMAP").unwrap(), "{} has not moved", name(number));
        } else {
            assert_eq!(now, "c");
            assert_eq!(wire.line().unwrap(), "* BYE Mailbox has moved to another server, please reconnect");
            moved += 1;
        }
        assert_eq!(site.log_in("POP3", &name(number)).0, now);
    }
    assert!((2..20).contains(&moved), "{moved} of 30 users moved");
    site.mailgress.logs(&["outcome=\"moved\""]);
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
}

#[test]
fn a_restart_of_the_only_pod_is_a_pause_and_an_endpoint_that_stays_away_is_a_temporary_error() {
    let mailboxes = Mailboxes::default();
    let pod = Pod::new("a", &mailboxes);
    let site = Site::start(&exclusive(&json!({ "moveTimeout": "20s" })), &[&pod]);
    let (_, mut open) = site.log_in("IMAP", "bob@example.org");
    slices(&site.folder, &pod, (false, true));
    wait::eventually("the endpoint is not ready", || {
        (site.condition("NoReadyEndpoints")["status"] == "True").then_some(())
    });
    let mut waiting = greeted(site.imap).unwrap();
    send_login(&mut waiting, "IMAP", "bob@example.org", "secret").unwrap();
    assert!(backend_answers(&mut open, "IMAP").unwrap(), "a Pod that ends keeps its sessions");
    let before = pod.imap.accepted();
    drop(open);
    let again = Pod::new("a", &mailboxes);
    slices(&site.folder, &again, READY);
    assert_eq!(waiting.line().unwrap(), "a OK a");
    assert_eq!((pod.imap.accepted(), again.imap.accepted()), (before, 1));
    // Without any endpoint, a login waits for moveTimeout.
    let short = exclusive(&json!({ "moveTimeout": "300ms", "returnGrace": "0s", "grace": "0s" }));
    site.folder.replace("route.yaml", &route(&short));
    remove(&site.folder, &again);
    assert_eq!(waiting.line().unwrap(), "* BYE Mailbox has moved to another server, please reconnect");
    let (began, answer) = (Instant::now(), site.session("IMAP", "bob@example.org").0);
    assert!(answer.starts_with("a NO [UNAVAILABLE] "), "{answer}");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let answer = site.session("POP3", "bob@example.org").0;
    assert!(answer.starts_with("-ERR [SYS/TEMP] "), "{answer}");
    site.mailgress.logs(&["outcome=\"user_held\"", "the backend has no endpoint"]);
}

#[test]
fn a_message_that_is_being_sent_is_finished_before_its_user_moves() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b"].map(|name| Pod::new(name, &mailboxes));
    let [a, b] = &pods;
    let site = Site::start(&exclusive(&json!({ "moveTimeout": "20s", "returnGrace": "0s" })), &[a, b]);
    let (user, mut sending) = wait::eventually("a user has the endpoint a", || {
        let mut users = (0..30).map(|number| (name(number), site.log_in("SMTP", &name(number))));
        users.find_map(|(user, (place, wire))| (place == "a").then_some((user, wire)))
    });
    for command in ["MAIL FROM:<me@example.org>", "RCPT TO:<you@example.net>"] {
        assert!(sending.ask(command).unwrap().starts_with("250 "));
    }
    assert!(sending.ask("DATA").unwrap().starts_with("354 "));
    sending.send("Subject: half\r\n\r\nThe first line\r\n").unwrap();
    slices(&site.folder, a, (false, true));
    site.mailgress.logs(&["ending sessions of exclusive users", "moves to another endpoint"]);
    let mut waiting = greeted(site.imap).unwrap();
    send_login(&mut waiting, "IMAP", &user, "secret").unwrap();
    sending.send("The second line\r\n").unwrap();
    assert_eq!(b.imap.accepted(), 0, "the user moves before the message is finished");
    sending.send(".\r\n").unwrap();
    assert_eq!(sending.line().unwrap(), "250 2.0.0 queued by a");
    let goodbye = sending.line().unwrap();
    assert!(goodbye.starts_with("421 ") && goodbye.contains("has moved"), "{goodbye}");
    assert_eq!(waiting.line().unwrap(), "a OK b");
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
}

#[test]
fn users_of_a_pod_that_is_taken_out_of_service_move_and_come_back() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b", "c"].map(|name| Pod::new(name, &mailboxes));
    let [a, b, c] = &pods;
    for (mode, why) in [
        ("User", "the endpoint is taken out of service"),
        ("Exclusive", "the user moves to another endpoint"),
    ] {
        let site = Site::start(&json!({ "mode": mode }), &[a, b, c]);
        let places: Vec<_> = (0..30).map(|number| site.log_in("IMAP", &name(number))).collect();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "b", "namespace": "mail", "annotations": { "mailgress.dev/drain": "true" },
            },
        });
        site.folder.write("pod.yaml", &pod);
        let mut of_b = None;
        for (number, (place, mut wire)) in places.into_iter().enumerate() {
            if place == "b" {
                let goodbye = "* BYE Mailbox has moved to another server, please reconnect";
                assert_eq!(wire.line().unwrap(), goodbye, "{mode}");
                assert_ne!(site.log_in("POP3", &name(number)).0, "b", "{mode}");
                of_b = Some(number);
            } else {
                assert!(backend_answers(&mut wire, "IMAP").unwrap(), "{mode}");
                assert_eq!(site.log_in("POP3", &name(number)).0, place, "{mode}");
            }
        }
        let leaving = site.condition("EndpointsLeaving");
        assert!(leaving["message"].as_str().unwrap().contains("Pod b of Service mail/imap"), "{leaving}");
        site.folder.remove("pod.yaml");
        // A login during the move may end with the session of the user.
        wait::eventually("the user comes back", || {
            (site.session("IMAP", &name(of_b.unwrap())).0 == "a OK b").then_some(())
        });
        site.mailgress.logs(&["outcome=\"moved\"", why]);
    }
}

#[test]
fn sessions_from_before_a_route_was_exclusive_end_first() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b", "c"].map(|name| Pod::new(name, &mailboxes));
    let [a, b, c] = &pods;
    let site = Site::start(&json!({ "mode": "None" }), &[a, b, c]);
    // Users have sessions everywhere.
    let mut sessions: Vec<_> = (0..12).map(|number| site.log_in("IMAP", &name(number % 2))).collect();
    assert!(!mailboxes.shared().is_empty());
    site.folder.replace("route.yaml", &route(&exclusive(&json!({}))));
    for (_, wire) in &mut sessions {
        assert_eq!(wire.line().unwrap(), "* BYE Mailbox has moved to another server, please reconnect");
    }
    drop(sessions);
    let before = mailboxes.shared().len();
    let places: Vec<_> = (0..12).map(|number| site.log_in("IMAP", &name(number % 2))).collect();
    let of_first = places.iter().step_by(2).map(|(place, _)| place).collect::<Vec<_>>();
    assert!(of_first.iter().all(|place| *place == of_first[0]), "{of_first:?}");
    assert_eq!(mailboxes.shared().len(), before);
}

#[test]
fn a_server_that_the_auth_service_names_is_in_no_group() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "named"].map(|name| Pod::new(name, &mailboxes));
    let [a, named] = &pods;
    let named = named.imap.address();
    let service = AuthService::start(move |_| Answer::Backend(named));
    let site = Site::start(&exclusive(&json!({})), &[a]);
    assert_eq!(site.log_in("IMAP", "bob@example.org").0, "a");
    let text = std::fs::read_to_string(site.folder.path().join("server.yaml")).unwrap();
    let mut server: Value = serde_yaml::from_str(&text).unwrap();
    server["spec"]["auth"] = http_auth(&service.url());
    site.folder.replace("server.yaml", &server);
    let mut wire = wait::eventually("the auth service is asked", || {
        let (place, wire) = site.log_in("IMAP", "bob@example.org");
        (place == "named").then_some(wire)
    });
    assert!(backend_answers(&mut wire, "IMAP").unwrap());
    site.log_in("IMAP", "bob@example.org");
    assert!(backend_answers(&mut wire, "IMAP").unwrap());
}

#[test]
fn a_client_that_leaves_while_its_login_waits_is_forgotten() {
    let mailboxes = Mailboxes::default();
    let pod = Pod::new("a", &mailboxes);
    let site = Site::start(&exclusive(&json!({})), &[]);
    let mut waiting = greeted(site.imap).unwrap();
    send_login(&mut waiting, "IMAP", "bob@example.org", "secret").unwrap();
    drop(waiting);
    site.mailgress.logs(&["outcome=\"client_gone\""]);
    slices(&site.folder, &pod, READY);
    assert_eq!(site.log_in("IMAP", "bob@example.org").0, "a");
    assert_eq!(pod.imap.accepted(), 1);
}

/// Ends threads when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_user_is_on_two_pods_while_pods_come_and_go() {
    let mailboxes = Mailboxes::default();
    let pods = ["a", "b", "c"].map(|name| Pod::new(name, &mailboxes));
    let times = json!({ "moveTimeout": "10s", "returnGrace": "500ms", "grace": "100ms" });
    let site = Site::start(&exclusive(&times), &[&pods[0], &pods[1], &pods[2]]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (site, is_over) = (&site, &is_over);
            scope.spawn(move || {
                let mut kept: Vec<Wire> = Vec::new();
                for number in (worker..).step_by(8) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let protocol = if number % 3 == 0 { "POP3" } else { "IMAP" };
                    let mut wire = greeted(site.at(protocol)).unwrap();
                    // Some logins end with the session of a user that moves, or with a temporary error.
                    if log_in(&mut wire, protocol, &name(number % 20), "secret")
                        .is_ok_and(|answer| is_success(protocol, &answer))
                    {
                        kept.push(wire);
                    }
                    if kept.len() > 5 {
                        kept.remove(0);
                    }
                }
            });
        }
        // Also if an assertion fails.
        let _over = Over(&is_over);
        let leave =
            |pod: &str| wait::eventually("users leave", || (mailboxes.users_at(pod) == 0).then_some(()));
        let come = |pod: &str| wait::eventually("users come", || (mailboxes.users_at(pod) > 0).then_some(()));
        for round in 0..8_usize {
            let pod = &pods[round % 3];
            come(pod.name);
            if round % 2 == 0 {
                slices(&site.folder, pod, (false, true));
            } else {
                remove(&site.folder, pod);
            }
            leave(pod.name);
            slices(&site.folder, pod, READY);
            come(pod.name);
        }
    });
    assert_eq!(mailboxes.shared(), Vec::<String>::new());
    let (opened, moved) = mailboxes.counts();
    assert!(opened > 200 && moved > 40, "{opened} sessions, {moved} at another Pod than before");
    for number in 0..20 {
        site.log_in("IMAP", &name(number));
    }
}
