//! Random histories of two to five replicas, with a virtual clock: reports are delayed and lost, replicas are cut off,
//! crash, drain and start, watches lag, endpoints come and go. After each step, no user has sessions on two endpoints.
//!
//! The simulation must be able to fail: each [`Defect`] breaks one rule, and is found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::group::SETTLE;
use super::*;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// A replica acts although the others have not read its sets.
    NoAcknowledgement,
    /// A replica believes that sessions have ended which it has only told to end.
    EndsNotAwaited,
    /// A replica that drains is forgotten when it is not ready any more.
    DrainingForgotten,
    /// A replica acts before the list has it.
    ActsUnlisted,
    /// A replica starts with a list from before its start.
    OldList,
    /// A user is let in as soon as the last connection is closed.
    NotSettled,
}

/// What happens, as numbers, so that a failing history can be made shorter.
type Step = (u8, u16, u16);

/// What the histories of a run have covered.
#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    admitted: u64,
    held: u64,
    moved: u64,
    ended: u64,
}

struct World {
    now: Instant,
    defect: Defect,
    /// The endpoints after each change. Replicas see the changes late.
    endpoints: Vec<BTreeMap<EndpointName, EndpointState>>,
    /// The list of replicas after each change.
    lists: Vec<BTreeMap<String, bool>>,
    /// All Pods, by their number.
    pods: BTreeMap<u16, Pod>,
    /// Answers that have not arrived: of the second Pod, for the first.
    answers: BTreeMap<(u16, u16), (String, Report)>,
    /// Pods that cannot talk to each other.
    cut: BTreeSet<(u16, u16)>,
    /// Sessions whose connection is closed, but which the endpoint has not ended.
    lingering: Vec<Lingering>,
    numbers: u64,
    last: BTreeMap<u16, EndpointName>,
    coverage: Coverage,
}

struct Pod {
    process: Option<Process>,
    drains: bool,
}

/// A running replica.
struct Process {
    instance: String,
    machine: Exclusive,
    seen_endpoints: usize,
    /// The list is read after the start, and then followed.
    seen_list: Option<usize>,
    sessions: Vec<Session>,
    held: Vec<(u16, Instant)>,
    /// The last report of each other Pod.
    reports: BTreeMap<u16, (String, Report)>,
}

struct Session {
    number: u64,
    user: u16,
    endpoint: EndpointName,
    is_told: bool,
    /// Only with a defect: the machine believes that it has ended.
    is_released: bool,
}

struct Lingering {
    pod: u16,
    user: u16,
    endpoint: EndpointName,
    until: Instant,
}

impl World {
    fn new(replicas: u16, defect: Defect) -> Self {
        let now = Instant::now();
        let ready = (0..3).map(|number| (endpoint(number), EndpointState::Ready)).collect();
        let mut world = Self {
            now,
            defect,
            endpoints: vec![ready],
            lists: vec![BTreeMap::new()],
            pods: BTreeMap::new(),
            answers: BTreeMap::new(),
            cut: BTreeSet::new(),
            lingering: Vec::new(),
            numbers: 0,
            last: BTreeMap::new(),
            coverage: Coverage::default(),
        };
        for choice in 0..replicas {
            // Three replicas are not listed yet.
            world.add_pod(if replicas == 3 { 2 } else { 0 });
            if replicas != 3 {
                world.set_ready(choice, true);
            }
        }
        world
    }

    fn step(&mut self, (kind, a, b): Step) {
        match kind {
            0..=9 => self.login(a, b % USERS),
            10..=19 => self.login_everywhere(b % USERS),
            20..=22 => self.retry(a),
            23..=26 => self.end_session(a, b),
            27..=32 => self.end_told(a, b),
            33..=40 => self.answer(a, b),
            41..=48 => self.deliver(a, b),
            49 => drop(self.answers.remove(&self.pair(a, b))),
            50..=55 => self.see_endpoints(a, b),
            56..=58 => self.see_list(a, b),
            59..=62 => self.change_endpoint(a, b),
            63..=64 => self.flap(a, b),
            65 => self.crash(a),
            66..=68 => self.start(a),
            69 => self.drain(a),
            70 => self.exit(a),
            71..=72 => self.remove_dead(a),
            73 => self.set_ready(a, b % 8 != 0),
            74 if self.lists.last().is_some_and(|list| list.len() < 5) => self.add_pod(b),
            75..=77 => self.pass(b),
            78..=83 => self.advance(a),
            84 => drop(self.cut.insert(self.pair(a, b))),
            85..=86 => self.cut.clear(),
            87 if b % 4 == 0 => self.close(a),
            88..=89 => self.sync(),
            90..=92 => self.gossip(),
            93..=98 => self.calm(),
            _ => {}
        }
        self.take_endings();
    }

    /// Returns the number of one of the Pods.
    fn pod(&self, choice: u16) -> u16 {
        let numbers: Vec<u16> = self.pods.keys().copied().collect();
        numbers[usize::from(choice) % numbers.len()]
    }

    fn pair(&self, a: u16, b: u16) -> (u16, u16) {
        (self.pod(a), self.pod(b))
    }

    fn process(&mut self, choice: u16) -> Option<&mut Process> {
        let pod = self.pod(choice);
        self.pods.get_mut(&pod)?.process.as_mut()
    }

    fn login(&mut self, choice: u16, user: u16) {
        let arrived = self.now;
        self.decide(choice, user, arrived);
    }

    fn login_everywhere(&mut self, user: u16) {
        let pods = u16::try_from(self.pods.len()).unwrap();
        (0..pods).for_each(|choice| self.login(choice, user));
    }

    /// An endpoint changes and changes back while nobody is logged in at two replicas. One of them sees both changes, and
    /// its report from between them reaches the other one late.
    fn flap(&mut self, a: u16, b: u16) {
        for choice in [a, b] {
            (0..20).for_each(|_| self.end_session(choice, 0));
        }
        self.pass(2);
        let before = self.endpoints.last().unwrap().clone();
        self.change_endpoint(a / 4, b / 4);
        for choice in [a, b] {
            self.see_endpoints(choice, 3);
        }
        self.answer(a, b);
        self.endpoints.push(before);
        self.see_endpoints(b, 3);
        self.deliver(a, b);
        for (user, choice) in (0..USERS).flat_map(|user| [(user, a), (user, b)]) {
            self.login(choice, user);
        }
    }

    fn retry(&mut self, choice: u16) {
        let Some(process) = self.process(choice) else { return };
        for (user, arrived) in std::mem::take(&mut process.held) {
            self.decide(choice, user, arrived);
        }
    }

    fn decide(&mut self, choice: u16, user: u16, arrived: Instant) {
        let (now, defect) = (self.now, self.defect);
        self.numbers += 1;
        let session = self.numbers;
        let Some(process) = self.process(choice) else { return };
        if defect == Defect::NoAcknowledgement {
            process.believe_acknowledged(now);
        }
        let login = Login { group: &group(), user: &name_of(user), session, arrived };
        match process.machine.admit(&login) {
            Verdict::Admitted(endpoint) => {
                let (is_told, is_released) = (false, false);
                process.sessions.push(Session {
                    number: session,
                    user,
                    endpoint: endpoint.clone(),
                    is_told,
                    is_released,
                });
                self.coverage.admitted += 1;
                let before = self.last.insert(user, endpoint.clone());
                self.coverage.moved += u64::from(before.is_some_and(|before| before != endpoint));
            }
            Verdict::Held(hold) => {
                if hold.until > now && process.held.len() < 8 {
                    process.held.push((user, arrived));
                }
                self.coverage.held += 1;
            }
        }
    }

    fn end_session(&mut self, choice: u16, index: u16) {
        let Some(process) = self.process(choice).filter(|process| !process.sessions.is_empty()) else {
            return;
        };
        let session = process.sessions.swap_remove(usize::from(index) % process.sessions.len());
        self.ended(choice, &session);
    }

    fn end_told(&mut self, choice: u16, index: u16) {
        let Some(process) = self.process(choice) else { return };
        let mut told: Vec<usize> = (0..process.sessions.len()).collect();
        told.retain(|index| process.sessions[*index].is_told);
        if told.is_empty() {
            return;
        }
        let session = process.sessions.swap_remove(told[usize::from(index) % told.len()]);
        self.ended(choice, &session);
    }

    fn ended(&mut self, choice: u16, session: &Session) {
        let (now, pod) = (self.now, self.pod(choice));
        let Some(process) = self.process(choice) else { return };
        if !session.is_released {
            process.machine.release(&group(), &name_of(session.user), session.number, now);
        }
        if self.defect == Defect::NotSettled {
            self.advance(choice);
        }
        let until = now + SETTLE - Duration::from_millis(1);
        let endpoint = session.endpoint.clone();
        self.lingering.push(Lingering { pod, user: session.user, endpoint, until });
    }

    fn take_endings(&mut self) {
        let (now, defect) = (self.now, self.defect);
        for process in self.pods.values_mut().filter_map(|pod| pod.process.as_mut()) {
            let told: BTreeSet<u64> =
                process.machine.take_endings().iter().map(|ending| ending.session).collect();
            self.coverage.ended += told.len() as u64;
            for session in process.sessions.iter_mut().filter(|session| told.contains(&session.number)) {
                session.is_told = true;
                if defect == Defect::EndsNotAwaited {
                    session.is_released = true;
                    process.machine.release(&group(), &name_of(session.user), session.number, now);
                }
            }
        }
    }

    /// The second Pod writes an answer for the first, which asks it while the list has it.
    fn answer(&mut self, reader: u16, source: u16) {
        let (reader, source) = self.pair(reader, source);
        let asks = self.pods[&reader].process.as_ref().is_some_and(|process| {
            process.seen_list.is_some_and(|seen| self.lists[seen].contains_key(&pod_name(source)))
        });
        let is_cut = self.cut.contains(&(reader, source)) || self.cut.contains(&(source, reader));
        let Some(process) = self.pods[&source].process.as_ref() else { return };
        if asks && !is_cut && reader != source {
            self.answers.insert((reader, source), (process.instance.clone(), process.machine.report()));
        }
    }

    fn deliver(&mut self, reader: u16, source: u16) {
        let ((reader, source), now) = (self.pair(reader, source), self.now);
        let Some((instance, report)) = self.answers.remove(&(reader, source)) else { return };
        let Some(process) = self.pods.get_mut(&reader).and_then(|pod| pod.process.as_mut()) else { return };
        process.reports.insert(source, (instance.clone(), report.clone()));
        process.machine.heard(&pod_name(source), &instance, report, now);
    }

    /// Several changes may be seen at once.
    fn see_endpoints(&mut self, choice: u16, count: u16) {
        let (now, newest) = (self.now, self.endpoints.len() - 1);
        let Some(process) = self.process(choice) else { return };
        process.seen_endpoints = (process.seen_endpoints + usize::from(count % 4)).min(newest);
        if count % 4 == 3 {
            process.seen_endpoints = newest;
        }
        let seen = process.seen_endpoints;
        let states = self.endpoints[seen].clone();
        self.process(choice).unwrap().machine.observe(&group(), TIMING, &states, now);
    }

    /// The replica does not serve the group, until it sees the endpoints again.
    fn close(&mut self, choice: u16) {
        let now = self.now;
        if let Some(process) = self.process(choice) {
            process.machine.close(&group(), now);
        }
    }

    fn see_list(&mut self, choice: u16, count: u16) {
        let (now, newest, defect) = (self.now, self.lists.len() - 1, self.defect);
        let own = pod_name(self.pod(choice));
        let Some(process) = self.process(choice) else { return };
        let first = if defect == Defect::OldList { newest.saturating_sub(3) } else { newest };
        let seen = process.seen_list.map_or(first, |seen| (seen + usize::from(count % 4)).min(newest));
        let seen = if count % 4 == 3 && process.seen_list.is_some() { newest } else { seen };
        process.seen_list = Some(seen);
        let mut list = self.lists[seen].clone();
        if defect == Defect::DrainingForgotten {
            list.retain(|pod, is_ready| *is_ready || *pod == own);
        }
        if defect == Defect::ActsUnlisted {
            list.insert(own, true);
        }
        self.process(choice).unwrap().machine.list(&list, now);
    }

    fn change_endpoint(&mut self, number: u16, state: u16) {
        let mut states = self.endpoints.last().unwrap().clone();
        let name = endpoint(number % ENDPOINTS);
        let change = match state % 8 {
            0..=4 => Some(EndpointState::Ready),
            5 => Some(EndpointState::Unready),
            6 => Some(EndpointState::Leaving),
            _ => None,
        };
        match change {
            // A change more often than not.
            Some(EndpointState::Ready) if states.get(&name) == Some(&EndpointState::Ready) => {
                states.insert(name, EndpointState::Leaving);
            }
            Some(state) => _ = states.insert(name, state),
            None => _ = states.remove(&name),
        }
        self.endpoints.push(states);
    }

    fn change_list(&mut self, change: impl FnOnce(&mut BTreeMap<String, bool>)) {
        let mut list = self.lists.last().unwrap().clone();
        change(&mut list);
        self.lists.push(list);
    }

    fn add_pod(&mut self, choice: u16) {
        let number = self.pods.keys().next_back().map_or(0, |last| last + 1);
        self.pods.insert(number, Pod { process: None, drains: false });
        // The process starts before or after it is listed. `set_ready` lists it too.
        if choice.is_multiple_of(2) {
            self.start_pod(number);
        }
        if choice % 4 != 2 {
            self.change_list(|list| _ = list.insert(pod_name(number), false));
        }
    }

    fn start(&mut self, choice: u16) {
        let pod = self.pod(choice);
        if self.pods[&pod].process.is_none() && !self.pods[&pod].drains {
            self.start_pod(pod);
        }
    }

    fn start_pod(&mut self, number: u16) {
        self.numbers += 1;
        let instance = format!("i{}", self.numbers);
        let mut machine = Exclusive::replica(&pod_name(number), &instance);
        // A replica reports nothing before it knows the groups.
        machine.observe(&group(), TIMING, self.endpoints.last().unwrap(), self.now);
        let process = Process {
            machine,
            instance,
            seen_endpoints: self.endpoints.len() - 1,
            seen_list: None,
            sessions: Vec::new(),
            held: Vec::new(),
            reports: BTreeMap::new(),
        };
        self.pods.get_mut(&number).unwrap().process = Some(process);
    }

    fn crash(&mut self, choice: u16) {
        let pod = self.pod(choice);
        self.end_process(choice);
        // Nobody can wait after the last session of a process that ends without warning.
        self.lingering.retain(|session| session.pod != pod);
    }

    /// The process ends with all its sessions. What it has answered may still arrive.
    fn end_process(&mut self, choice: u16) {
        let pod = self.pod(choice);
        self.answers.retain(|(reader, _), _| *reader != pod);
        self.pods.get_mut(&pod).unwrap().process = None;
    }

    fn drain(&mut self, choice: u16) {
        let (pod, now) = (self.pod(choice), self.now);
        if self.pods.len() > 1 {
            self.pods.get_mut(&pod).unwrap().drains = true;
            self.set_ready(choice, false);
            if let Some(process) = self.process(choice) {
                process.machine.drain(now);
            }
        }
    }

    /// A process that drains ends.
    fn exit(&mut self, choice: u16) {
        if self.pods[&self.pod(choice)].drains {
            self.end_process(choice);
        }
    }

    /// A Pod that drains leaves the list after its process. So does one that is deleted while its process does not run.
    fn remove_dead(&mut self, choice: u16) {
        let pod = self.pod(choice);
        if self.pods[&pod].process.is_none() && self.pods.len() > 1 {
            self.pods.remove(&pod);
            self.change_list(|list| _ = list.remove(&pod_name(pod)));
            self.answers.retain(|(reader, _), _| *reader != pod);
        }
    }

    fn set_ready(&mut self, choice: u16, is_ready: bool) {
        let pod = self.pod(choice);
        let is_ready = is_ready && !self.pods[&pod].drains;
        self.change_list(|list| _ = list.insert(pod_name(pod), is_ready));
    }

    fn pass(&mut self, choice: u16) {
        let steps = [10, 100, 600, 2000, 6000];
        self.now += Duration::from_millis(steps[usize::from(choice) % steps.len()]);
        let now = self.now;
        self.lingering.retain(|session| session.until > now);
    }

    /// A timer of one replica expires, maybe late.
    fn advance(&mut self, choice: u16) {
        let (now, defect) = (self.now, self.defect);
        let at = if defect == Defect::NotSettled { now + SETTLE } else { now };
        if let Some(process) = self.process(choice)
            && process.machine.next().is_some_and(|next| next <= at)
        {
            process.machine.advance(at);
        }
    }

    /// All replicas read all changes.
    fn sync(&mut self) {
        for choice in 0..self.pods.len() {
            let choice = u16::try_from(choice).unwrap();
            self.see_endpoints(choice, 3);
            self.see_list(choice, 3);
        }
    }

    /// All replicas that can talk do so, twice: the second answers acknowledge the first ones.
    fn gossip(&mut self) {
        for _ in 0..2 {
            let pods = u16::try_from(self.pods.len()).unwrap();
            for (reader, source) in (0..pods).flat_map(|reader| (0..pods).map(move |source| (reader, source)))
            {
                self.answer(reader, source);
                self.deliver(reader, source);
            }
        }
    }

    /// A time without faults: sessions that are told to end do so, and moving users can log in.
    fn calm(&mut self) {
        let pods = u16::try_from(self.pods.len()).unwrap();
        self.sync();
        for _ in 0..2 {
            self.take_endings();
            for (choice, index) in (0..pods).flat_map(|choice| (0..20).map(move |index| (choice, index))) {
                self.end_told(choice, index);
            }
            self.pass(2);
            (0..pods).for_each(|choice| self.advance(choice));
            self.gossip();
        }
        (0..pods).for_each(|choice| self.retry(choice));
    }

    fn check(&self) -> Result<(), String> {
        let mut at: BTreeMap<u16, EndpointName> = BTreeMap::new();
        let processes = self.pods.iter().filter_map(|(pod, state)| Some((*pod, state.process.as_ref()?)));
        let open = processes.flat_map(|(pod, process)| {
            process.sessions.iter().map(move |session| (session.user, &session.endpoint, Some(pod)))
        });
        let lingering = self.lingering.iter().map(|session| (session.user, &session.endpoint, None));
        for (user, endpoint, pod) in open.chain(lingering) {
            let other = at.entry(user).or_insert_with(|| endpoint.clone());
            if other != endpoint {
                return Err(format!("user {user} has sessions on {other} and {endpoint} (Pod {pod:?})"));
            }
        }
        Ok(())
    }

    /// After a time without faults, all users can log in at all replicas, at the same endpoint.
    fn check_recovery(&mut self) -> Result<(), String> {
        self.cut.clear();
        let dead: Vec<u16> =
            self.pods.iter().filter(|(_, pod)| pod.process.is_none()).map(|(pod, _)| *pod).collect();
        for pod in dead {
            self.pods.get_mut(&pod).unwrap().drains = false;
            self.start_pod(pod);
        }
        let pods = u16::try_from(self.pods.len()).unwrap();
        (0..pods).for_each(|choice| self.set_ready(choice, true));
        for _ in 0..8 {
            self.pass(3);
            self.calm();
            self.check()?;
        }
        let states = self.endpoints.last().unwrap();
        let set: EndpointSet = states
            .iter()
            .filter(|(_, state)| **state == EndpointState::Ready)
            .map(|(name, _)| name.clone())
            .collect();
        for (choice, user) in (0..pods).flat_map(|choice| (0..USERS).map(move |user| (choice, user))) {
            if self.pods[&self.pod(choice)].drains {
                continue;
            }
            let arrived = self.now;
            self.numbers += 1;
            let session = self.numbers;
            let login = Login { group: &group(), user: &name_of(user), session, arrived };
            let verdict = self.process(choice).unwrap().machine.admit(&login);
            let is_right = match (&verdict, home(&set, &name_of(user))) {
                (Verdict::Admitted(endpoint), Some(home)) => endpoint == home,
                (Verdict::Held(hold), None) => hold.reason == HoldReason::NoEndpoint,
                _ => false,
            };
            if !is_right {
                return Err(format!("user {user} at the replica {choice}: {verdict:?}"));
            }
        }
        Ok(())
    }
}

impl Process {
    /// Changes the last reports so that they acknowledge everything.
    fn believe_acknowledged(&mut self, now: Instant) {
        let version = self.machine.report().version;
        for (pod, (instance, report)) in self.reports.clone() {
            let mut report = report;
            report.acknowledged.insert(self.instance.clone(), version);
            self.machine.heard(&pod_name(pod), &instance, report, now);
        }
    }
}

fn pod_name(number: u16) -> String {
    format!("mailgress-{number}")
}

fn endpoint(number: u16) -> EndpointName {
    format!("dovecot-{number}").as_str().into()
}

fn name_of(user: u16) -> Vec<u8> {
    format!("user{user}@example.org").into_bytes()
}

fn group() -> GroupName {
    "mail/dovecot".into()
}

/// Runs a history.
fn history(replicas: u16, steps: &[Step], defect: Defect) -> Result<Coverage, String> {
    let mut world = World::new(replicas, defect);
    if replicas.is_multiple_of(2) {
        world.sync();
    }
    (0..replicas).for_each(|choice| world.see_list(choice, 3));
    world.gossip();
    for step in steps {
        world.step(*step);
        world.check()?;
    }
    if defect == Defect::None {
        world.check_recovery()?;
    }
    Ok(world.coverage)
}

/// Runs many histories, the same ones each time. Returns what they cover, or the shortest failing history that is found.
fn run(cases: u32, longest: usize, defect: Defect) -> Result<Coverage, String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if defect == Defect::None { SHRINK } else { 0 },
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = prop::collection::vec((0..KINDS, any::<u16>(), any::<u16>()), 0..longest);
    let total = std::cell::Cell::new(Coverage::default());
    let result = runner.run(&(2..=5_u16, steps), |(replicas, steps)| {
        let covered = history(replicas, &steps, defect).map_err(TestCaseError::fail)?;
        let before = total.get();
        total.set(Coverage {
            admitted: before.admitted + covered.admitted,
            held: before.held + covered.held,
            moved: before.moved + covered.moved,
            ended: before.ended + covered.ended,
        });
        Ok(())
    });
    match result {
        Ok(()) => Ok(total.get()),
        Err(TestError::Fail(reason, history)) => Err(format!("{reason}; {history:?}")),
        Err(other) => Err(other.to_string()),
    }
}

#[test]
fn no_user_has_sessions_on_two_endpoints() {
    let covered = run(CASES / 2, 400, Defect::None).unwrap();
    let enough = u64::from(CASES / 2);
    assert!(covered.admitted > 10 * enough && covered.held > 10 * enough, "{covered:?}");
    assert!(covered.moved > enough && covered.ended > enough, "{covered:?}");
}

#[test]
fn replicas_that_do_not_wait_for_an_acknowledgement_are_found() {
    run(CASES, 400, Defect::NoAcknowledgement).unwrap_err();
}

#[test]
fn replicas_that_do_not_wait_for_the_end_of_sessions_are_found() {
    run(CASES, 400, Defect::EndsNotAwaited).unwrap_err();
}

#[test]
fn replicas_that_forget_a_draining_one_are_found() {
    run(CASES, 400, Defect::DrainingForgotten).unwrap_err();
}

#[test]
fn replicas_that_act_before_they_are_listed_are_found() {
    run(CASES, 400, Defect::ActsUnlisted).unwrap_err();
}

#[test]
fn replicas_that_start_with_an_old_list_are_found() {
    run(CASES, 400, Defect::OldList).unwrap_err();
}

#[test]
fn replicas_that_do_not_wait_for_the_endpoint_are_found() {
    run(CASES, 400, Defect::NotSettled).unwrap_err();
}

const USERS: u16 = 4;
/// The first three are ready at the beginning.
const ENDPOINTS: u16 = 4;
const KINDS: u8 = 99;
const CASES: u32 = 800;
/// Tries to make a failing history shorter.
const SHRINK: u32 = 4000;
const TIMING: Timing = Timing {
    move_timeout: Duration::from_secs(30),
    grace: Duration::from_millis(500),
    return_grace: Duration::from_secs(1),
};
