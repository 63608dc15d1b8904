//! Exclusive users with two replicas before a real API server, and three Dovecots with one Maildir, while endpoints come
//! and go. The logs of the Dovecots show when each user had a session where.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::affinity::{Clients, USERS, exclusive, route};
use crate::cluster::{at, our_address, tell};
use crate::replicas::Pair;
use crate::support::dovecot::Dovecot;
use crate::support::manifest::with;
use crate::support::servers::PASSWORD;
use crate::support::wait;

const PODS: [&str; 3] = ["dovecot-0", "dovecot-1", "dovecot-2"];
const SERVICES: [(&str, u16); 2] = [("imap", 143), ("pop3", 110)];

/// A session of a Dovecot's log, in Unix seconds.
struct Stay {
    user: String,
    from: f64,
    until: Option<f64>,
}

/// Returns the sessions of a log: from `Login: user=<bob>, …, session=<ID>` of the login process until
/// `imap(bob)<PID><ID>: … Disconnected: …` of its successor. Their lines may be in another order.
fn stays(log: &str) -> Vec<Stay> {
    let (mut began, mut ended) = (Vec::new(), HashMap::new());
    let between =
        |text: &str, start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0.to_owned());
    for line in log.lines() {
        let Some((time, said)) = line.split_once(' ') else { continue };
        let Ok(time) = time.parse::<f64>() else { continue };
        if said.contains("-login: ") && (said.contains("Login: ") || said.contains("Logged in: ")) {
            let (user, id) = (between(said, "user=<", ">"), between(said, "session=<", ">"));
            if let (Some(user), Some(id)) = (user, id) {
                began.push((id, user, time));
            }
        } else if said.contains("Disconnected: ") || said.contains("Logged out") {
            let id = said.split_once(")<").and_then(|(_, rest)| between(rest, "><", ">"));
            ended.extend(id.map(|id| (id, time)));
        }
    }
    let stay = |(id, user, from)| Stay { user, from, until: ended.get(&id).copied() };
    began.into_iter().map(stay).collect()
}

/// Returns for how long each user had sessions at two Dovecots at one time, in seconds.
fn overlaps(logs: &[String]) -> Vec<(String, f64)> {
    let mut of_users: BTreeMap<String, Vec<(usize, f64, f64)>> = BTreeMap::new();
    for (place, log) in logs.iter().enumerate() {
        for Stay { user, from, until } in stays(log) {
            of_users.entry(user).or_default().push((place, from, until.unwrap_or(f64::MAX)));
        }
    }
    let mut found = Vec::new();
    for (user, stays) in of_users {
        for (index, (place, from, until)) in stays.iter().enumerate() {
            for (_, began, ended) in stays.iter().skip(index + 1).filter(|stay| stay.0 != *place) {
                let together = until.min(*ended) - from.max(*began);
                if together > 0.0 {
                    found.push((user.clone(), together));
                }
            }
        }
    }
    found
}

/// Returns the number of sessions, and how many of them were at another Dovecot than the user's last one.
fn moves(logs: &[String]) -> (usize, usize) {
    let mut all = Vec::new();
    for (place, log) in logs.iter().enumerate() {
        all.extend(stays(log).into_iter().map(|stay| (stay.from, place, stay.user)));
    }
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut moved, mut last) = (0, BTreeMap::new());
    for (_, place, user) in &all {
        moved += usize::from(last.insert(user, place).is_some_and(|before| before != place));
    }
    (all.len(), moved)
}

fn slices(pair: &Pair, pod: &str, dovecot: &Dovecot, ready: bool) {
    for ((service, _), at) in SERVICES.into_iter().zip([dovecot.imap(), dovecot.pop3()]) {
        pair.cluster.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{pod}"), "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "ports": [{ "name": service, "port": at.port() }],
            "endpoints": [{
                "addresses": [our_address()],
                "conditions": { "ready": ready, "serving": true, "terminating": !ready },
                "targetRef": { "kind": "Pod", "namespace": pair.cluster.name, "name": pod },
            }],
        }));
    }
}

fn remove(pair: &Pair, pod: &str) {
    let names = SERVICES.map(|(service, _)| format!("{service}-{pod}"));
    pair.cluster.kubectl(&["delete", "endpointslice", &names[0], &names[1]]);
}

/// Applies the MailServer with a listener for each protocol, the Services, and an exclusive route.
fn apply(pair: &Pair, imap: SocketAddr, pop3: SocketAddr) {
    for (service, port) in SERVICES {
        pair.cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": service },
            "spec": { "ports": [{ "name": service, "port": port }] },
        }));
    }
    let edge = pair.edge(imap.port());
    let mut listener = edge["spec"]["listeners"][0].clone();
    listener.as_object_mut().unwrap().remove("backendRef");
    let other = with(listener.clone(), &json!({ "name": "pop3", "protocol": "POP3", "port": pop3.port() }));
    pair.cluster
        .apply(&with(edge, &json!({ "spec": { "listeners": [listener, other], "allowedRoutes": [{}] } })));
    let services: Vec<Value> = SERVICES
        .iter()
        .map(|(name, port)| json!({ "protocol": name.to_uppercase(), "name": name, "port": port }))
        .collect();
    pair.cluster.apply(&route(pair, &json!(services), &exclusive()));
    pair.cluster.wait_for("Ready", "mailroute/org");
}

#[test]
fn no_user_is_on_two_dovecots_of_one_maildir_while_they_come_and_go() {
    let Some(pair) = Pair::new("dovecots") else { return };
    let (imap, pop3) = (at(), at());
    let first = Dovecot::start(Some(our_address()));
    let others = [(); 2].map(|()| Dovecot::beside(&first, Some(our_address())));
    let dovecots = [&first, &others[0], &others[1]];
    apply(&pair, imap, pop3);
    for (pod, dovecot) in PODS.iter().zip(dovecots) {
        slices(&pair, pod, dovecot, true);
    }
    let open = |dovecot: &Dovecot| {
        let stays = stays(&dovecot.log());
        stays.iter().filter(|stay| stay.until.is_none()).count()
    };
    let come = |dovecot: &Dovecot| wait::eventually("users come", || (open(dovecot) > 10).then_some(()));
    let leave = |dovecot: &Dovecot| wait::eventually("users leave", || (open(dovecot) == 0).then_some(()));
    let clients = Clients::new(vec![("IMAP", imap), ("POP3", pop3)], PASSWORD, 6);
    let many_log_in = || {
        let wanted = clients.logins.load(Ordering::SeqCst) + USERS / 2;
        wait::eventually("users log in", || (clients.logins.load(Ordering::SeqCst) >= wanted).then_some(()));
    };
    std::thread::scope(|scope| {
        let _over = clients.start(scope);
        for round in 0..4_usize {
            let (pod, dovecot) = (PODS[round % 3], dovecots[round % 3]);
            come(dovecot);
            if round % 2 == 0 {
                slices(&pair, pod, dovecot, false);
            } else {
                remove(&pair, pod);
            }
            leave(dovecot);
            many_log_in();
            slices(&pair, pod, dovecot, true);
            come(dovecot);
            many_log_in();
        }
    });
    dovecots.iter().for_each(|dovecot| leave(dovecot));
    let logs = dovecots.map(Dovecot::log);
    let (sessions, moved) = moves(&logs);
    // A Dovecot that is busy reads the end of a connection late, which Mailgress cannot see.
    let together = overlaps(&logs);
    let long: Vec<_> = together.iter().filter(|(_, seconds)| *seconds > LATE).collect();
    assert!(long.is_empty(), "{long:?}");
    assert!(
        sessions > USERS && moved > USERS / 4,
        "{moved} of {sessions} sessions were at another Pod than before"
    );
    let held = clients.held.load(Ordering::SeqCst);
    tell(&format!(
        "{sessions} sessions, {moved} at another Dovecot than before, {held} temporary errors, {} ends that were logged late",
        together.len()
    ));
}

#[test]
fn sessions_at_two_dovecots_at_one_time_are_found_in_their_logs() {
    let login = |time: &str, id: &str| {
        format!("{time} imap-login: Info: Login: user=<bob>, method=PLAIN, mpid=7, session=<{id}>\n")
    };
    let end = |time: &str, id: &str| {
        format!("{time} imap(bob)<7><{id}>: Info: Disconnected: Connection closed (No commands sent) in=0\n")
    };
    let first = login("10.000000", "a/1")
        + &end("12.500000", "a/1")
        + &end("19.000000", "b")
        + &login("18.900000", "b");
    assert_eq!(overlaps(&[first.clone(), login("12.600000", "c") + &end("14.000000", "c")]), []);
    let found = overlaps(&[first, login("12.000000", "c") + &end("14.000000", "c")]);
    assert_eq!(found, [("bob".to_owned(), 0.5)]);
}

/// How late a Dovecot may notice and log the end of a connection, beyond the half second that Mailgress waits. A client
/// keeps its sessions for longer.
const LATE: f64 = 1.0;
