//! Single histories of exclusive users, step by step.

use std::time::Duration;

use super::group::SETTLE;
use super::*;

const TIMING: Timing = Timing {
    move_timeout: Duration::from_secs(30),
    grace: Duration::from_secs(5),
    return_grace: Duration::from_secs(60),
};

fn group() -> GroupName {
    "mail/dovecot".into()
}

fn pods(names: &[&str]) -> BTreeMap<String, bool> {
    names.iter().map(|name| ((*name).to_owned(), true)).collect()
}

fn ready(names: &[&str]) -> BTreeMap<EndpointName, EndpointState> {
    names.iter().map(|name| (EndpointName::from(*name), EndpointState::Ready)).collect()
}

fn observe(replica: &mut Exclusive, names: &[&str], now: Instant) {
    replica.observe(&group(), TIMING, &ready(names), now);
}

/// Returns the endpoint or the reason. The number of the session is 1.
fn admit(replica: &mut Exclusive, user: &str, now: Instant) -> Result<String, HoldReason> {
    match replica.admit(&Login { group: &group(), user: user.as_bytes(), session: 1, arrived: now }) {
        Verdict::Admitted(endpoint) => Ok(endpoint.to_string()),
        Verdict::Held(hold) => Err(hold.reason),
    }
}

fn release(replica: &mut Exclusive, user: &str, now: Instant) {
    replica.release(&group(), user.as_bytes(), 1, now);
}

/// The name is the Pod and the instance.
fn tell(from: (&str, &Exclusive), to: &mut Exclusive, now: Instant) {
    to.heard(from.0, from.0, from.1.report(), now);
}

/// Two replicas that agree on these endpoints.
fn pair(names: &[&str], now: Instant) -> (Exclusive, Exclusive) {
    let (mut a, mut b) = (Exclusive::replica("a", "a"), Exclusive::replica("b", "b"));
    for replica in [&mut a, &mut b] {
        replica.list(&pods(&["a", "b"]), now);
        observe(replica, names, now);
    }
    exchange(&mut a, &mut b, now);
    (a, b)
}

fn exchange(a: &mut Exclusive, b: &mut Exclusive, now: Instant) {
    for _ in 0..2 {
        tell(("a", a), b, now);
        tell(("b", b), a, now);
    }
}

/// Returns a user whose endpoint changes from the first to the second with these endpoints.
fn mover(before: &[&str], after: &[&str]) -> String {
    let set = |names: &[&str]| names.iter().map(|name| EndpointName::from(*name)).collect::<EndpointSet>();
    let (before, after) = (set(before), set(after));
    let mut users = (0..).map(|number| format!("user{number}@example.org"));
    users.find(|user| home(&before, user.as_bytes()) != home(&after, user.as_bytes())).unwrap()
}

#[test]
fn an_endpoint_follows_from_the_user_as_with_user_hash() {
    let set = |names: &[&str]| names.iter().map(|name| EndpointName::from(*name)).collect::<EndpointSet>();
    let all = set(&["dovecot-0", "dovecot-1", "dovecot-2"]);
    assert_eq!(home(&all, b"me@example.org").unwrap().as_str(), "dovecot-0");
    assert_eq!(home(&set(&["dovecot-1", "dovecot-2"]), b"me@example.org").unwrap().as_str(), "dovecot-2");
    assert_eq!(home(&set(&[]), b"me@example.org"), None);
}

#[test]
fn a_single_replica_admits_at_once_and_moves_users_when_their_sessions_have_ended() {
    let now = Instant::now();
    let mut alone = Exclusive::alone("a");
    observe(&mut alone, &["x", "y"], now);
    let user = mover(&["x", "y"], &["x", "y", "z"]);
    let before = admit(&mut alone, &user, now).unwrap();
    observe(&mut alone, &["x", "y", "z"], now);
    let ending = Ending { group: group(), session: 1, reason: EndReason::Moving };
    assert_eq!(alone.take_endings(), [ending]);
    assert_eq!(admit(&mut alone, &user, now), Err(HoldReason::Moving));
    release(&mut alone, &user, now);
    assert_eq!(admit(&mut alone, &user, now), Err(HoldReason::Moving), "the endpoint ends its session too");
    assert_eq!(alone.next(), Some(now + SETTLE));
    alone.advance(now + SETTLE);
    assert_eq!(admit(&mut alone, &user, now), Ok("z".into()));
    assert_ne!(before, "z");
    assert_eq!(alone.next(), None);
}

#[test]
fn users_that_do_not_move_notice_nothing() {
    let now = Instant::now();
    let (mut a, mut b) = pair(&["x", "y"], now);
    let moving = mover(&["x", "y"], &["x", "y", "z"]);
    assert!(admit(&mut b, &moving, now).is_ok());
    observe(&mut a, &["x", "y", "z"], now);
    let stays = (0..100).map(|number| format!("user{number}@example.org"));
    let sets = [&["x", "y"][..], &["x", "y", "z"]];
    let sets = sets.map(|names| names.iter().map(|name| EndpointName::from(*name)).collect::<EndpointSet>());
    let stays: Vec<_> =
        stays.filter(|user| home(&sets[0], user.as_bytes()) == home(&sets[1], user.as_bytes())).collect();
    assert!(stays.len() > 40);
    // The other replica knows nothing of the change, and a session there has not ended.
    for user in &stays {
        assert!(admit(&mut a, user, now).is_ok() && admit(&mut b, user, now).is_ok());
    }
    assert_eq!(admit(&mut a, &moving, now), Err(HoldReason::Moving));
}

#[test]
fn a_moving_user_waits_for_sessions_at_the_other_replica() {
    let now = Instant::now();
    let (mut a, mut b) = pair(&["x", "y"], now);
    let user = mover(&["x", "y"], &["x", "y", "z"]);
    admit(&mut b, &user, now).unwrap();
    for replica in [&mut a, &mut b] {
        observe(replica, &["x", "y", "z"], now);
    }
    exchange(&mut a, &mut b, now);
    assert_eq!(admit(&mut a, &user, now), Err(HoldReason::Moving));
    assert_eq!((a.take_endings().len(), b.take_endings().len()), (0, 1));
    release(&mut b, &user, now);
    b.advance(now + SETTLE);
    exchange(&mut a, &mut b, now);
    assert_eq!(admit(&mut a, &user, now), Ok("z".into()));
}

#[test]
fn two_replicas_with_old_reports_of_each_other_do_not_both_act() {
    let now = Instant::now();
    let (mut a, mut b) = pair(&["x", "y"], now);
    let user = mover(&["x", "y"], &["x", "y", "z"]);
    for replica in [&mut a, &mut b] {
        observe(replica, &["x", "y", "z"], now);
    }
    // Each has ended its sessions by the old set, and has an old report of the other.
    tell(("b", &b), &mut a, now);
    observe(&mut b, &["x", "y"], now);
    assert!(admit(&mut a, &user, now).is_err() && admit(&mut b, &user, now).is_err());
}

#[test]
fn a_new_replica_acts_when_the_others_have_read_its_report() {
    let now = Instant::now();
    let mut a = Exclusive::replica("a", "a");
    observe(&mut a, &["x"], now);
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::NotListed));
    a.list(&BTreeMap::from([("c".to_owned(), false)]), now);
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::NotListed));
    a.list(&pods(&["a"]), now);
    assert_eq!(admit(&mut a, "u", now), Ok("x".into()));

    let mut b = Exclusive::replica("b", "b");
    b.list(&pods(&["a", "b"]), now);
    observe(&mut b, &["x"], now);
    assert_eq!(admit(&mut b, "u", now), Err(HoldReason::Replica("a".into())));
    tell(("a", &a), &mut b, now);
    assert_eq!(admit(&mut b, "u", now), Err(HoldReason::Replica("a".into())));
    // The first one does not wait for a new one that is not ready.
    a.list(&BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), false)]), now);
    assert_eq!(admit(&mut a, "u", now), Ok("x".into()));
    tell(("b", &b), &mut a, now);
    tell(("a", &a), &mut b, now);
    assert_eq!(admit(&mut b, "u", now), Ok("x".into()));
}

#[test]
fn a_restarted_replica_is_another_one() {
    let now = Instant::now();
    let (mut a, _) = pair(&["x"], now);
    let mut again = Exclusive::replica("b", "b2");
    observe(&mut again, &["x"], now);
    a.heard("b", "b2", again.report(), now);
    // It has no sessions, but has not read that the other one has sets.
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::Replica("b".into())));
    again.list(&pods(&["a", "b"]), now);
    tell(("a", &a), &mut again, now);
    a.heard("b", "b2", again.report(), now);
    assert_eq!(admit(&mut a, "u", now), Ok("x".into()));
}

#[test]
fn a_silent_replica_delays_only_moving_users_until_it_is_known_to_be_gone() {
    let now = Instant::now();
    let (mut a, _) = pair(&["x", "y"], now);
    let user = mover(&["x", "y"], &["x", "y", "z"]);
    observe(&mut a, &["x", "y", "z"], now);
    a.list(&pods(&["a"]), now);
    let login = Login { group: &group(), user: user.as_bytes(), session: 1, arrived: now };
    let hold = Hold { reason: HoldReason::Moving, until: now + TIMING.move_timeout };
    assert_eq!(a.admit(&login), Verdict::Held(hold));
    let gone = a.next().unwrap();
    a.advance(gone);
    assert_eq!(admit(&mut a, &user, now), Ok("z".into()));
}

#[test]
fn a_replica_that_has_drained_delays_nobody() {
    let now = Instant::now();
    let (mut a, mut b) = pair(&["x", "y"], now);
    let user = mover(&["x", "y"], &["x", "y", "z"]);
    admit(&mut b, &user, now).unwrap();
    b.drain(now);
    assert_eq!(admit(&mut b, "other", now), Err(HoldReason::NotServed));
    release(&mut b, &user, now);
    b.advance(now + SETTLE);
    assert!(b.report().groups.is_empty());
    tell(("b", &b), &mut a, now);
    observe(&mut a, &["x", "y", "z"], now);
    assert_eq!(admit(&mut a, &user, now), Ok("z".into()));
}

#[test]
fn a_replica_that_is_taken_out_of_the_list_ends_its_sessions() {
    let now = Instant::now();
    let (mut a, _) = pair(&["x"], now);
    admit(&mut a, "u", now).unwrap();
    a.list(&BTreeMap::new(), now);
    assert_eq!(a.take_endings(), [], "an empty list is not believed");
    a.list(&pods(&["b"]), now);
    assert_eq!(a.take_endings().len(), 1);
    a.list(&pods(&["a", "b"]), now);
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::Replica("b".into())));
}

#[test]
fn a_restart_of_the_only_pod_is_a_pause() {
    let now = Instant::now();
    let mut alone = Exclusive::alone("a");
    observe(&mut alone, &["x"], now);
    admit(&mut alone, "u", now).unwrap();
    let unready = BTreeMap::from([("x".into(), EndpointState::Unready)]);
    alone.observe(&group(), TIMING, &unready, now);
    let login = Login { group: &group(), user: b"u", session: 2, arrived: now };
    let until = now + TIMING.return_grace + TIMING.move_timeout;
    let hold = Hold { reason: HoldReason::Away("x".into()), until };
    assert_eq!(alone.admit(&login), Verdict::Held(hold));
    assert_eq!(alone.take_endings(), [], "a Pod that ends keeps its sessions");

    let gone = now + Duration::from_secs(10);
    observe(&mut alone, &[], gone);
    alone.advance(gone + TIMING.grace);
    let ending = Ending { group: group(), session: 1, reason: EndReason::EndpointGone };
    assert_eq!(alone.take_endings(), [ending]);
    release(&mut alone, "u", gone + TIMING.grace);
    observe(&mut alone, &["x"], now + Duration::from_secs(59));
    assert_eq!(alone.admit(&login), Verdict::Admitted("x".into()));
}

#[test]
fn users_of_a_pod_that_does_not_come_back_move() {
    let now = Instant::now();
    let mut alone = Exclusive::alone("a");
    observe(&mut alone, &["x", "y"], now);
    let user = mover(&["x", "y"], &["y"]);
    observe(&mut alone, &["y"], now);
    assert_eq!(admit(&mut alone, &user, now), Err(HoldReason::Away("x".into())));
    alone.advance(now + TIMING.return_grace);
    assert_eq!(admit(&mut alone, &user, now), Ok("y".into()));
}

#[test]
fn users_of_an_endpoint_that_leaves_move_at_once() {
    let now = Instant::now();
    let mut alone = Exclusive::alone("a");
    observe(&mut alone, &["x", "y"], now);
    let user = mover(&["x", "y"], &["y"]);
    let mut states = ready(&["y"]);
    states.insert("x".into(), EndpointState::Leaving);
    alone.observe(&group(), TIMING, &states, now);
    assert_eq!(admit(&mut alone, &user, now), Ok("y".into()));
}

#[test]
fn without_endpoints_a_login_waits_and_sessions_end() {
    let now = Instant::now();
    let (mut a, _) = pair(&["x"], now);
    admit(&mut a, "u", now).unwrap();
    observe(&mut a, &[], now);
    a.advance(now + TIMING.return_grace);
    assert_eq!(a.take_endings().len(), 1);
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::NoEndpoint));
    release(&mut a, "u", now + TIMING.return_grace);
    a.advance(now + TIMING.return_grace + SETTLE);
    assert!(a.report().groups.is_empty());
}

#[test]
fn a_closed_group_ends_with_its_last_session() {
    let now = Instant::now();
    let mut alone = Exclusive::alone("a");
    observe(&mut alone, &["x"], now);
    admit(&mut alone, "u", now).unwrap();
    alone.close(&group(), now);
    assert_eq!((alone.take_endings().len(), alone.report().groups.len()), (0, 1));
    assert_eq!(admit(&mut alone, "v", now), Err(HoldReason::NotServed));
    release(&mut alone, "u", now);
    alone.advance(now + SETTLE);
    assert!(alone.report().groups.is_empty() && alone.next().is_none());
}

#[test]
fn a_report_that_exceeds_the_bounds_is_ignored() {
    let now = Instant::now();
    let (mut a, b) = pair(&["x"], now);
    let mut report = b.report();
    report.version += 1;
    report.groups.insert(group(), vec![["y".into()].into_iter().collect(); 9]);
    a.heard("b", "b", report, now);
    assert_eq!(admit(&mut a, "u", now), Ok("x".into()));
}

#[test]
fn a_set_that_waits_for_room_is_used_when_the_others_have_read_the_last_report() {
    let now = Instant::now();
    let (mut a, mut b) = pair(&["x"], now);
    for number in 0..20 {
        let mut states = ready(&["x"]);
        states.insert(format!("y{number}").as_str().into(), EndpointState::Ready);
        states.insert(format!("y{}", number - 1).as_str().into(), EndpointState::Leaving);
        a.observe(&group(), TIMING, &states, now);
    }
    let last = |replica: &Exclusive| replica.report().groups[&group()].last().unwrap().to_owned();
    let newest: EndpointSet = ["x", "y19"].into_iter().map(EndpointName::from).collect();
    assert_ne!(last(&a), newest);
    exchange(&mut a, &mut b, now);
    assert_eq!(last(&a), newest);
}

#[test]
fn a_group_waits_until_all_replicas_know_it() {
    let now = Instant::now();
    let (mut a, mut b) = (Exclusive::replica("a", "a"), Exclusive::replica("b", "b"));
    a.list(&pods(&["a", "b"]), now);
    b.list(&pods(&["a", "b"]), now);
    observe(&mut a, &["x"], now);
    exchange(&mut a, &mut b, now);
    // The other one has read the sets, but may have sessions of users from before the group.
    assert_eq!(admit(&mut a, "u", now), Err(HoldReason::Replica("b".into())));
    assert_eq!(a.obstacle(), Some(HoldReason::Replica("b".into())));
    observe(&mut b, &["x"], now);
    exchange(&mut a, &mut b, now);
    assert_eq!((admit(&mut a, "u", now), a.obstacle()), (Ok("x".into()), None));
    b.close(&group(), now);
    exchange(&mut a, &mut b, now);
    assert_eq!(admit(&mut a, "v", now), Err(HoldReason::Replica("b".into())));
}
