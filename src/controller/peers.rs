//! What the other replicas serve, for the leader and for a starting replica. Pure.
//!
//! Ready is true only when every ready replica serves the object's generation. A replica is asked while it is ready in
//! the Service's EndpointSlices. If it does not answer for [`SILENT_AFTER`], Ready names it.

mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::served::{ObjectName, Page, ServedObject, Totals};

use member::{Member, MemberState};

/// The ready replicas and what they serve.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The instance of this process.
    instance: String,
    /// Why the list of replicas is unknown; `None` if it is known.
    unknown: Option<Unknown>,
    members: BTreeMap<SocketAddr, Member>,
    /// When timeouts were last applied.
    checked: Option<Instant>,
}

/// Why the list of replicas is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unknown {
    /// The API server has not answered yet.
    Awaited,
    /// The list is empty and has not even this replica. `--replicas` names the wrong Service, or this replica is not
    /// ready yet.
    Nobody,
    /// The list cannot be read.
    Failed(String),
}

/// Whether another replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Not known yet.
    Awaited,
    /// None is, as far as is known.
    None,
    /// At least one is.
    Some,
    /// The list cannot be read, so one may be.
    Unread,
}

/// The objects whose status may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Only these.
    These(BTreeSet<ObjectName>),
    /// All objects.
    All,
}

/// Whether all other replicas serve a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServedByOthers {
    /// All do.
    All,
    /// One has not processed this generation yet.
    Pending(String),
    /// One does not serve it or does not answer.
    Failed {
        /// The reason, one CamelCase word.
        reason: String,
        /// One sentence.
        message: String,
    },
}

/// The state of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The pod's name.
    pub name: String,
    /// The address of its admin server.
    pub address: SocketAddr,
    /// Whether it answers.
    pub state: ReplicaLiveness,
    /// The number of objects whose generation it has not processed yet.
    pub behind: usize,
    /// Its totals, if it sends them.
    pub totals: Option<Totals>,
}

/// Whether a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaLiveness {
    /// It is this process.
    Own,
    /// It has not answered yet.
    Awaited,
    /// It answers.
    Answers,
    /// It has not answered for too long, for this reason.
    Silent(String),
}

/// The object about which the replicas are asked.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The object's name.
    pub object: &'a ObjectName,
    /// Distinguishes the object from another one with the same name.
    pub uid: &'a str,
    /// The expected generation.
    pub generation: i64,
}

impl Affected {
    /// Returns an empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Peers {
    /// Creates the state of a single replica with the instance `instance`.
    #[must_use]
    pub fn alone(instance: &str) -> Self {
        Self { instance: instance.to_owned(), unknown: None, members: BTreeMap::new(), checked: None }
    }

    /// Creates the state in which the list of replicas is not known yet.
    #[must_use]
    pub fn awaited(instance: &str) -> Self {
        Self { unknown: Some(Unknown::Awaited), ..Self::alone(instance) }
    }

    /// Stores that the list of replicas cannot be read. A known list stays.
    pub fn fail(&mut self, why: String) -> Affected {
        match &mut self.unknown {
            None => Affected::none(),
            Some(unknown) => {
                *unknown = Unknown::Failed(why);
                Affected::All
            }
        }
    }

    /// Sets the ready replicas with their names, and removes all others.
    pub fn set(&mut self, ready: &BTreeMap<SocketAddr, String>, now: Instant) -> Affected {
        // A list without this replica is not plausible.
        let unknown = ready.is_empty().then_some(Unknown::Nobody);
        let was_unknown = self.unknown != unknown;
        self.unknown = unknown;
        let before = self.members.len();
        self.members.retain(|address, member| ready.get(address) == Some(&member.name));
        let is_removed = self.members.len() < before;
        for (address, name) in ready {
            self.members.entry(*address).or_insert_with(|| Member::new(name, now));
        }
        if is_removed || was_unknown { Affected::All } else { Affected::none() }
    }

    /// Applies the answer of a replica.
    pub fn answered(&mut self, address: SocketAddr, page: Page, now: Instant) -> Affected {
        let Some(member) = self.members.get_mut(&address) else { return Affected::none() };
        member.last_answer = now;
        member.node_address = page.replica.node_address;
        member.is_ready = page.ready.unwrap_or(true);
        member.totals = page.totals;
        let before = member.state;
        if page.replica.instance == self.instance {
            member.state = MemberState::Own;
            return if before == MemberState::Own { Affected::none() } else { Affected::All };
        }
        member.state = MemberState::Answers;
        if page.whole {
            member.objects.clear();
        }
        let mut affected = BTreeSet::new();
        for entry in page.objects {
            affected.insert(entry.object.clone());
            match entry.served {
                Some(served) => drop(member.objects.insert(entry.object, served)),
                None => drop(member.objects.remove(&entry.object)),
            }
        }
        if page.whole || before != MemberState::Answers { Affected::All } else { Affected::These(affected) }
    }

    /// Stores that a replica could not be asked.
    pub fn failed(&mut self, address: SocketAddr, why: String) {
        if let Some(member) = self.members.get_mut(&address) {
            member.failure = why;
        }
    }

    /// Marks replicas that have not answered for too long as silent. A time in which this process was stopped does not
    /// count: it has not read the answers.
    pub fn apply_timeouts(&mut self, now: Instant) -> Affected {
        let since = self.checked.replace(now).map(|last| now.saturating_duration_since(last));
        if let Some(stopped) = since.filter(|since| *since >= STOPPED_AFTER) {
            // Some may have answered since.
            for member in self.members.values_mut() {
                member.last_answer = (member.last_answer + stopped).min(now);
            }
        }
        let mut affected = Affected::none();
        for member in self.members.values_mut() {
            let is_late = now.saturating_duration_since(member.last_answer) >= SILENT_AFTER;
            if is_late && member.state != MemberState::Silent {
                member.state = MemberState::Silent;
                affected = Affected::All;
            }
        }
        affected
    }

    /// Tells whether all other replicas serve a listener.
    #[must_use]
    pub fn serve(&self, wanted: &Wanted<'_>, listener: &str) -> ServedByOthers {
        let unknown = self.unknown.as_ref();
        let mut pending = unknown.map(ToString::to_string);
        for (address, member) in &self.members {
            match member.serves(*address, wanted, listener) {
                ServedByOthers::All => {}
                ServedByOthers::Pending(why) => pending = pending.or(Some(why)),
                failed @ ServedByOthers::Failed { .. } => return failed,
            }
        }
        pending.map_or(ServedByOthers::All, ServedByOthers::Pending)
    }

    /// Returns the sessions of a held route in all other replicas, or why they are not known.
    ///
    /// # Errors
    /// A sentence that names the replica.
    pub fn sessions(&self, wanted: &Wanted<'_>) -> Result<u64, String> {
        if let Some(unknown) = &self.unknown {
            return Err(unknown.to_string());
        }
        let mut others = self.members.values().filter(|member| member.state != MemberState::Own);
        others.try_fold(0_u64, |sum, member| Ok(sum.saturating_add(member.sessions(wanted)?)))
    }

    /// Tells whether a replica may still have to process the object.
    #[must_use]
    pub fn is_pending(&self, wanted: &Wanted<'_>) -> bool {
        self.unknown.is_some() || self.members.values().any(|member| member.is_pending(wanted))
    }

    /// Tells whether another replica is ready.
    #[must_use]
    pub fn others(&self) -> Others {
        match self.unknown {
            Some(Unknown::Awaited) => Others::Awaited,
            Some(Unknown::Failed(_)) => Others::Unread,
            _ if self.other_members().next().is_some() => Others::Some,
            _ => Others::None,
        }
    }

    /// Returns the first of the other ready replicas that has not answered yet and is not silent.
    #[must_use]
    pub fn first_unanswered(&self) -> Option<&str> {
        self.other_members()
            .find(|member| member.state == MemberState::None)
            .map(|member| member.name.as_str())
    }

    /// Tells whether all other ready replicas answer.
    #[must_use]
    pub fn all_answer(&self) -> bool {
        self.other_members().all(|member| member.state == MemberState::Answers)
    }

    /// Returns the last known objects of the other ready replicas, each with the replica's name.
    pub fn objects_of_others(&self) -> impl Iterator<Item = (&str, &ObjectName, &ServedObject)> {
        self.other_members().flat_map(|member| {
            member.objects.iter().map(|(object, served)| (member.name.as_str(), object, served))
        })
    }

    /// Returns the first of the other ready replicas that serves a listener or is binding it.
    #[must_use]
    pub fn server_of(&self, object: &ObjectName, uid: &str, listener: &str) -> Option<&str> {
        let serves = |served: &ServedObject| served.uid == uid && served.serves(listener);
        let mut servers =
            self.other_members().filter(|member| member.objects.get(object).is_some_and(serves));
        servers.next().map(|member| member.name.as_str())
    }

    /// Tells whether another ready replica may serve a port. A replica that has not answered may serve any port.
    #[must_use]
    pub fn may_serve_port(&self, port: u16) -> bool {
        let is_unknown = self.unknown.as_ref().is_some_and(|unknown| *unknown != Unknown::Nobody);
        let serves = |member: &Member| {
            member.is_unknown() || member.objects.values().any(|served| served.may_serve_port(port))
        };
        is_unknown || self.members.values().filter(|member| member.state != MemberState::Own).any(serves)
    }

    /// Returns the ready replicas that are not known to be this process.
    fn other_members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.state != MemberState::Own && member.is_ready)
    }

    /// Returns the addresses of all ready replicas, including this one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.members.keys().map(SocketAddr::ip)
    }

    /// Returns the known addresses of the replicas' nodes.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.members.values().filter_map(|member| member.node_address)
    }

    /// Returns the state of all replicas, including this one, compared with the objects that this one serves.
    #[must_use]
    pub fn replica_states(&self, ours: &[(ObjectName, &str, i64)]) -> Vec<ReplicaState> {
        let of = |(address, member): (&SocketAddr, &Member)| ReplicaState {
            name: member.name.clone(),
            address: *address,
            state: member.liveness(),
            behind: ours
                .iter()
                .filter(|(object, uid, generation)| member.lacks(object, uid, *generation))
                .count(),
            totals: member.totals,
        };
        self.members.iter().map(of).collect()
    }

    /// Returns the totals of a replica, if it sends them.
    #[must_use]
    pub fn totals(&self, address: SocketAddr) -> Option<Totals> {
        self.members.get(&address)?.totals
    }

    /// Returns problems: replicas that do not answer, or an unknown list.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let unknown = self.unknown.iter().filter(|why| **why != Unknown::Awaited);
        let unknown = unknown.map(ToString::to_string);
        let silent = self.members.iter().filter(|(_, member)| member.state == MemberState::Silent);
        unknown.chain(silent.map(|(address, member)| member.silence_message(*address)))
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Awaited => "the API server has not answered yet",
            Self::Nobody => {
                "the Service of --replicas has no ready endpoint with a port called `admin`; if this replica is ready, \
                 check the Service's selector and port name"
            }
            Self::Failed(why) => why,
        };
        write!(f, "the list of replicas is not known: {why}")
    }
}

/// A replica that does not answer for this time is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// The process was stopped if timeouts are applied so late. They are applied every second or two.
const STOPPED_AFTER: Duration = Duration::from_secs(7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::served::{Entry, Problem, Replica};

    fn object() -> ObjectName {
        ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: "edge".into() }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9090))
    }

    fn page(instance: &str, generation: i64, problems: &[Problem]) -> Page {
        let served = ServedObject {
            uid: "u".into(),
            generation,
            bound: None,
            problems: problems.to_vec(),
            sessions: None,
        };
        Page {
            replica: Replica { name: instance.into(), instance: instance.into(), node_address: None },
            version: 1,
            ready: None,
            whole: false,
            objects: vec![Entry { object: object(), served: Some(served) }],
            totals: None,
            exclusive: None,
        }
    }

    fn peers(now: Instant) -> Peers {
        let mut peers = Peers::awaited("a");
        assert!(matches!(serve(&peers, 1), ServedByOthers::Pending(_)));
        peers.set(&BTreeMap::from([(address(1), "pod-a".into()), (address(2), "pod-b".into())]), now);
        peers.answered(address(1), page("a", 0, &[]), now);
        peers
    }

    fn serve(peers: &Peers, generation: i64) -> ServedByOthers {
        peers.serve(&Wanted { object: &object(), uid: "u", generation }, "imaps")
    }

    #[test]
    fn a_listener_that_all_others_serve_is_served_by_all() {
        let now = Instant::now();
        let mut peers = peers(now);
        assert_eq!(serve(&peers, 2), ServedByOthers::Pending("replica pod-b has not answered yet".into()));
        assert_eq!(peers.answered(address(2), page("b", 1, &[]), now), Affected::All);
        let behind = "replica pod-b serves generation 1 instead of 2";
        assert_eq!(serve(&peers, 2), ServedByOthers::Pending(behind.into()));
        let replica_states = |peers: &Peers| {
            let all = peers.replica_states(&[(object(), "u", 2)]).into_iter();
            all.map(|replica| (replica.name, replica.state, replica.behind)).collect::<Vec<_>>()
        };
        let own = ("pod-a".to_owned(), ReplicaLiveness::Own, 0);
        assert_eq!(replica_states(&peers), [own.clone(), ("pod-b".to_owned(), ReplicaLiveness::Answers, 1)]);
        let affected = peers.answered(address(2), page("b", 2, &[]), now);
        assert_eq!(affected, Affected::These(BTreeSet::from([object()])));
        assert_eq!(replica_states(&peers), [own, ("pod-b".to_owned(), ReplicaLiveness::Answers, 0)]);
        assert_eq!(serve(&peers, 2), ServedByOthers::All);
        let other = Wanted { object: &object(), uid: "another", generation: 2 };
        assert!(matches!(peers.serve(&other, "imaps"), ServedByOthers::Pending(_)));
    }

    #[test]
    fn a_replica_that_cannot_serve_a_listener_is_named_with_its_reason() {
        let now = Instant::now();
        let mut peers = peers(now);
        let problem = |listener: &str, pending| Problem {
            listener: listener.into(),
            pending,
            reason: "BindFailed".into(),
            message: "*:993 cannot be bound".into(),
        };
        peers.answered(address(2), page("b", 1, &[problem("imaps", false)]), now);
        let ServedByOthers::Failed { reason, message } = serve(&peers, 1) else { panic!() };
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("BindFailed", "replica pod-b: *:993 cannot be bound")
        );
        peers.answered(address(2), page("b", 1, &[problem("imaps", true)]), now);
        assert!(matches!(serve(&peers, 1), ServedByOthers::Pending(_)));
        peers.answered(address(2), page("b", 1, &[problem("pop3s", false)]), now);
        assert_eq!(serve(&peers, 1), ServedByOthers::All);
    }

    /// Another version of Mailgress may answer, or something else at its address.
    #[test]
    fn an_answer_with_impossible_values_spoils_no_status() {
        let now = Instant::now();
        let mut peers = peers(now);
        for reason in ["", "no reason", "Colon:", "-", &"x".repeat(1025)] {
            let problem = Problem {
                listener: "imaps".into(),
                pending: false,
                reason: reason.into(),
                message: String::new(),
            };
            peers.answered(address(2), page("b", 1, &[problem]), now);
            let ServedByOthers::Failed { reason: told, .. } = serve(&peers, 1) else { panic!() };
            assert_eq!(told, "NotServed", "{reason}");
        }
        let mut others = Peers::alone("a");
        others.set(&BTreeMap::from([(address(2), "pod-b".into()), (address(3), "pod-c".into())]), now);
        for last in [2, 3] {
            let mut answer = page(&last.to_string(), 1, &[]);
            answer.objects[0].served.as_mut().unwrap().sessions = Some(u64::MAX - 1);
            others.answered(address(last), answer, now);
        }
        let wanted = Wanted { object: &object(), uid: "u", generation: 1 };
        assert_eq!(others.sessions(&wanted), Ok(u64::MAX));
    }

    #[test]
    fn reports_a_silent_replica_until_it_answers() {
        let begin = Instant::now();
        let mut peers = peers(begin);
        peers.answered(address(2), page("b", 1, &[]), begin);
        peers.failed(address(2), "connection refused".into());
        assert_eq!(peers.apply_timeouts(begin + SILENT_AFTER / 2), Affected::none());
        assert_eq!(serve(&peers, 1), ServedByOthers::All);
        let late = begin + SILENT_AFTER;
        peers.answered(address(1), page("a", 0, &[]), late);
        assert_eq!(peers.apply_timeouts(late), Affected::All);
        assert_eq!(peers.apply_timeouts(late), Affected::none());
        let ServedByOthers::Failed { reason, message } = serve(&peers, 1) else { panic!() };
        assert_eq!(reason, "ReplicaUnreachable");
        assert!(message.contains("pod-b") && message.ends_with("connection refused"), "{message}");
        assert_eq!(peers.problems().collect::<Vec<_>>(), [message]);
        assert_eq!(peers.answered(address(2), page("b", 1, &[]), late), Affected::All);
        assert_eq!(serve(&peers, 1), ServedByOthers::All);
    }

    #[test]
    fn a_process_that_was_stopped_does_not_call_the_others_silent() {
        let begin = Instant::now();
        let mut peers = peers(begin);
        for last in [1, 2] {
            peers.answered(address(last), page("b", 1, &[]), begin);
        }
        assert_eq!(peers.apply_timeouts(begin), Affected::none());
        let continues = begin + SILENT_AFTER * 3;
        assert_eq!(peers.apply_timeouts(continues), Affected::none());
        let running = |since: u64| continues + Duration::from_secs(since);
        assert!((1..10).all(|since| peers.apply_timeouts(running(since)) == Affected::none()));
        assert_eq!(peers.apply_timeouts(running(10)), Affected::All);
    }

    #[test]
    fn only_replicas_that_report_ready_count() {
        let now = Instant::now();
        let mut peers = Peers::awaited("a");
        assert_eq!(peers.others(), Others::Awaited);
        peers.set(&BTreeMap::from([(address(1), "pod-a".into()), (address(2), "pod-b".into())]), now);
        peers.answered(address(1), page("a", 1, &[]), now);
        assert_eq!((peers.others(), peers.first_unanswered()), (Others::Some, Some("pod-b")));
        assert!(peers.may_serve_port(993), "it has not said anything");
        peers.answered(address(2), Page { ready: Some(true), ..page("b", 1, &[]) }, now);
        assert_eq!((peers.others(), peers.first_unanswered()), (Others::Some, None));
        assert_eq!(peers.server_of(&object(), "u", "imaps"), Some("pod-b"));
        peers.answered(address(2), Page { ready: Some(false), ..page("b", 1, &[]) }, now);
        assert_eq!(peers.others(), Others::None, "its Service publishes addresses that are not ready");
        assert_eq!(peers.server_of(&object(), "u", "imaps"), None);
        peers.set(&BTreeMap::new(), now);
        assert_eq!(peers.others(), Others::None);
        assert!(!peers.may_serve_port(993));
    }

    #[test]
    fn does_not_wait_for_a_replica_that_is_no_longer_ready() {
        let now = Instant::now();
        let mut peers = peers(now);
        peers.answered(address(2), page("b", 1, &[]), now);
        let one = BTreeMap::from([(address(1), "pod-a".into())]);
        assert_eq!(peers.set(&one, now), Affected::All);
        assert_eq!(serve(&peers, 2), ServedByOthers::All);
        assert_eq!(peers.set(&one, now), Affected::none());
        // If even this replica is not in the list, `--replicas` names the wrong Service.
        assert_eq!(peers.set(&BTreeMap::new(), now), Affected::All);
        let ServedByOthers::Pending(why) = serve(&peers, 2) else { panic!() };
        assert!(why.contains("--replicas") && peers.problems().any(|problem| problem == why), "{why}");
        assert_eq!(peers.set(&one, now), Affected::All);
        assert!(peers.problems().next().is_none());
    }
}
