//! Sessions of exclusive users, with a paused clock.

use std::time::Duration;

use super::*;
use crate::model::exclusive::{EndpointState, Timing};
use crate::net::ClientAddress;
use crate::proxy::exclusive::home;
use crate::proxy::record::Record;

const TIMING: Timing = Timing {
    move_timeout: Duration::from_secs(30),
    grace: Duration::from_secs(5),
    return_grace: Duration::from_secs(60),
};

fn backend() -> ExclusiveBackend {
    ExclusiveBackend { group: "mail/x".into(), timing: TIMING, endpoints: BTreeMap::new() }
}

fn serve(users: &ExclusiveUsers, names: &[&str]) {
    let endpoints = names.iter().map(|name| (EndpointName::from(*name), EndpointState::Ready)).collect();
    let group = Group { timing: TIMING, endpoints };
    users.serve(BTreeMap::from([("mail/x".into(), group)]), &BTreeSet::new());
}

fn admit(users: &ExclusiveUsers, user: &str, number: u64) -> Result<(Membership, EndpointName), Hold> {
    let session = SessionId { process: 1, number };
    let (backend, arrived) = (backend(), Instant::now());
    users.admit(&Asking { backend: &backend, user: user.as_bytes(), session, arrived })
}

/// Returns a user whose endpoint is `a` of `a` and `b`, and `c` of all three.
fn mover() -> String {
    let of = |names: &[&str], user: &str| {
        let set = names.iter().map(|name| EndpointName::from(*name)).collect();
        home(&set, user.as_bytes()).unwrap().to_string()
    };
    let mut all = (0..).map(|number| format!("user{number}@example.org"));
    all.find(|user| of(&["a", "b"], user) == "a" && of(&["a", "b", "c"], user) == "c").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_to_end_and_the_user_moves_when_it_is_closed() {
    let (users, sessions) = (ExclusiveUsers::alone("1"), Arc::new(Sessions::new(1)));
    tokio::spawn(users.clone().run(Arc::clone(&sessions)));
    serve(&users, &["a", "b"]);
    let user = mover();
    let (relayed, endpoint) = admit(&users, &user, 7).unwrap();
    assert_eq!(endpoint.as_str(), "a");
    let (under_way, _) = admit(&users, &user, 8).unwrap();
    let now = std::time::Instant::now();
    let record = Record::new(SessionId { process: 1, number: 7 }, ClientAddress::Unix, now);
    let listed = sessions.shard(0).enter(Box::new(record), now);

    serve(&users, &["a", "b", "c"]);
    assert!(matches!(listed.live().told().await, End::Moved(EndReason::Moving)));
    assert!(matches!(under_way.told().await, End::Moved(EndReason::Moving)));
    assert_eq!(relayed.reason(), Some(EndReason::Moving));
    let held = admit(&users, &user, 9).unwrap_err();
    assert_eq!(held.reason, HoldReason::Moving);
    drop((relayed, listed));
    assert!(admit(&users, &user, 9).is_err(), "one is left");
    let closed = Instant::now();
    drop(under_way);
    let moved = loop {
        let changed = users.changed();
        match admit(&users, &user, 9) {
            Ok((_, endpoint)) => break endpoint,
            Err(_) => changed.await,
        }
    };
    assert_eq!(moved.as_str(), "c");
    assert!(closed.elapsed() >= Duration::from_millis(500), "{:?}", closed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_not_open_holds_its_users_and_is_not_reported() {
    let (users, sessions) = (ExclusiveUsers::alone("1"), Arc::new(Sessions::new(1)));
    let mut report = users.report();
    tokio::spawn(users.clone().run(sessions));
    let name = GroupName::from("mail/x");
    let group = Group { timing: TIMING, endpoints: BTreeMap::from([("a".into(), EndpointState::Ready)]) };
    users.serve(BTreeMap::from([(name.clone(), group)]), &BTreeSet::from([name.clone()]));
    let held = admit(&users, "bob", 1).unwrap_err();
    assert_eq!((held.reason, held.until), (HoldReason::NotServed, Instant::now() + TIMING.move_timeout));
    assert!(!users.serves(&name));
    let known = report.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().known.clone();
    assert!(known.is_empty());
    serve(&users, &["a"]);
    assert!(admit(&users, "bob", 1).is_ok());
    report
        .wait_for(|report| report.as_ref().is_some_and(|report| report.known.contains(&name)))
        .await
        .unwrap();
    users.drain();
    let refused = admit(&users, "bob", 2).unwrap_err();
    assert_eq!((refused.reason, refused.until), (HoldReason::NotServed, Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_reports_when_it_has_begun_and_tells_what_it_waits_for() {
    let (users, sessions) = (ExclusiveUsers::replica("a", "1"), Arc::new(Sessions::new(1)));
    let (report, mut obstacle) = (users.report(), users.obstacle());
    tokio::spawn(users.clone().run(sessions));
    serve(&users, &["x"]);
    let why = obstacle.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(why.contains("does not list this replica"), "{why}");
    assert_eq!(*report.borrow(), None);
    users.begin();
    users.list(&BTreeMap::from([("a".to_owned(), false)]));
    obstacle.wait_for(Option::is_none).await.unwrap();
    let reported = report.borrow().clone().unwrap();
    assert_eq!(reported.groups.len(), 1);
}
