//! What the other replicas say that they serve, as the leader and a replica that starts know it. Pure.
//!
//! Ready is true only when every ready replica serves an object's generation. A replica is asked as long as the
//! Service's EndpointSlices call it ready; one that does not answer for [`SILENT_AFTER`] is named in Ready.

mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::served::{ObjectName, Page, ServedObject, Totals};

use member::{Member, MemberState};

/// The ready replicas, with what each says that it serves.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Which of them we are.
    instance: String,
    /// Why it is not known which there are; `None` when it is.
    unknown: Option<Unknown>,
    members: BTreeMap<SocketAddr, Member>,
}

/// Why it is not known which replicas there are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unknown {
    /// It is too early to know.
    Awaited,
    /// There is none, not even we. Somebody named the wrong Service, or we are not ready yet.
    Nobody,
    /// They cannot be read.
    Failed(String),
}

/// Whether another replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// It is too early to know.
    Awaited,
    /// None is, as far as can be known.
    None,
    /// One is, or more.
    Some,
    /// They cannot be read: one may be.
    Unread,
}

/// Of which objects something may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Of these.
    These(BTreeSet<ObjectName>),
    /// Of all.
    All,
}

/// Whether a listener is served by all other replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// By all of them.
    Everywhere,
    /// One has not got as far.
    Pending(String),
    /// One does not, and says why, or does not answer.
    Not {
        /// One CamelCase word.
        reason: String,
        /// A sentence.
        message: String,
    },
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attendance {
    /// The pod's name.
    pub name: String,
    /// Where it is asked.
    pub address: SocketAddr,
    /// Whether it answers.
    pub state: Attends,
    /// Objects of which it has not got as far as we have.
    pub behind: usize,
    /// Its sums, if it tells them.
    pub totals: Option<Totals>,
}

/// Whether a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attends {
    /// It is this process.
    Own,
    /// It has not answered yet.
    Awaited,
    /// It does.
    Heard,
    /// Not for too long, for this reason.
    Silent(String),
}

/// What is asked of the replicas.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The object.
    pub object: &'a ObjectName,
    /// Tells it from another one with its name.
    pub uid: &'a str,
    /// Of which generation.
    pub generation: i64,
}

impl Touched {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Peers {
    /// Nobody but ourselves; `instance` is ours.
    #[must_use]
    pub fn alone(instance: &str) -> Self {
        Self { instance: instance.to_owned(), unknown: None, members: BTreeMap::new() }
    }

    /// Of which nothing is known yet.
    #[must_use]
    pub fn awaited(instance: &str) -> Self {
        Self { unknown: Some(Unknown::Awaited), ..Self::alone(instance) }
    }

    /// Which replicas there are cannot be found out; what was known before still counts.
    pub fn fail(&mut self, why: String) -> Touched {
        match &mut self.unknown {
            None => Touched::none(),
            Some(unknown) => {
                *unknown = Unknown::Failed(why);
                Touched::All
            }
        }
    }

    /// These are the ready replicas, by name; the others are forgotten.
    pub fn set(&mut self, ready: &BTreeMap<SocketAddr, String>, now: Instant) -> Touched {
        // At least we ourselves are one of them.
        let unknown = ready.is_empty().then_some(Unknown::Nobody);
        let was_unknown = self.unknown != unknown;
        self.unknown = unknown;
        let before = self.members.len();
        self.members.retain(|address, member| ready.get(address) == Some(&member.name));
        let gone = self.members.len() < before;
        for (address, name) in ready {
            self.members.entry(*address).or_insert_with(|| Member::new(name, now));
        }
        if gone || was_unknown { Touched::All } else { Touched::none() }
    }

    /// A replica has answered.
    pub fn heard(&mut self, address: SocketAddr, page: Page, now: Instant) -> Touched {
        let Some(member) = self.members.get_mut(&address) else { return Touched::none() };
        member.heard = now;
        member.node_address = page.replica.node_address;
        member.is_ready = page.ready.unwrap_or(true);
        member.totals = page.totals;
        let before = member.state;
        if page.replica.instance == self.instance {
            member.state = MemberState::Own;
            return if before == MemberState::Own { Touched::none() } else { Touched::All };
        }
        member.state = MemberState::Heard;
        if page.whole {
            member.objects.clear();
        }
        let mut touched = BTreeSet::new();
        for entry in page.objects {
            touched.insert(entry.object.clone());
            match entry.served {
                Some(served) => drop(member.objects.insert(entry.object, served)),
                None => drop(member.objects.remove(&entry.object)),
            }
        }
        if page.whole || before != MemberState::Heard { Touched::All } else { Touched::These(touched) }
    }

    /// A replica could not be asked.
    pub fn failed(&mut self, address: SocketAddr, why: String) {
        if let Some(member) = self.members.get_mut(&address) {
            member.failure = why;
        }
    }

    /// Time passes: whoever has not answered for too long is silent.
    pub fn look(&mut self, now: Instant) -> Touched {
        let mut touched = Touched::none();
        for member in self.members.values_mut() {
            let patience_is_over = now.saturating_duration_since(member.heard) >= SILENT_AFTER;
            if patience_is_over && member.state != MemberState::Silent {
                member.state = MemberState::Silent;
                touched = Touched::All;
            }
        }
        touched
    }

    /// Whether all others serve a listener.
    #[must_use]
    pub fn serve(&self, wanted: &Wanted<'_>, listener: &str) -> Elsewhere {
        let unknown = self.unknown.as_ref();
        let mut pending = unknown.map(ToString::to_string);
        for (address, member) in &self.members {
            match member.serves(*address, wanted, listener) {
                Elsewhere::Everywhere => {}
                Elsewhere::Pending(why) => pending = pending.or(Some(why)),
                failed @ Elsewhere::Not { .. } => return failed,
            }
        }
        pending.map_or(Elsewhere::Everywhere, Elsewhere::Pending)
    }

    /// Whether it is known to be on its way somewhere.
    #[must_use]
    pub fn is_pending(&self, wanted: &Wanted<'_>) -> bool {
        self.unknown.is_some() || self.members.values().any(|member| member.is_pending(wanted))
    }

    /// Whether another replica is ready.
    #[must_use]
    pub fn others(&self) -> Others {
        match self.unknown {
            Some(Unknown::Awaited) => Others::Awaited,
            Some(Unknown::Failed(_)) => Others::Unread,
            _ if self.strangers().next().is_some() => Others::Some,
            _ => Others::None,
        }
    }

    /// The first of the other ready replicas that has not answered yet, and may still.
    #[must_use]
    pub fn first_awaited(&self) -> Option<&str> {
        self.strangers().find(|member| member.state == MemberState::None).map(|member| member.name.as_str())
    }

    /// Whether all other ready replicas answer.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.strangers().all(|member| member.state == MemberState::Heard)
    }

    /// What the other ready replicas serve, as they last said it, each with its name.
    pub fn elsewhere(&self) -> impl Iterator<Item = (&str, &ObjectName, &ServedObject)> {
        self.strangers().flat_map(|member| {
            member.objects.iter().map(|(object, served)| (member.name.as_str(), object, served))
        })
    }

    /// The first of the other ready replicas that serves a listener, or is about to.
    #[must_use]
    pub fn server_of(&self, object: &ObjectName, uid: &str, listener: &str) -> Option<&str> {
        let serves = |served: &ServedObject| served.uid == uid && served.serves(listener);
        let mut servers = self.strangers().filter(|member| member.objects.get(object).is_some_and(serves));
        servers.next().map(|member| member.name.as_str())
    }

    /// Whether another ready replica serves a port, as far as is known: one that has not said anything may serve any.
    #[must_use]
    pub fn may_serve_port(&self, port: u16) -> bool {
        let is_unknown = self.unknown.as_ref().is_some_and(|unknown| *unknown != Unknown::Nobody);
        let serves = |member: &Member| {
            member.is_unheard() || member.objects.values().any(|served| served.may_serve_port(port))
        };
        is_unknown || self.members.values().filter(|member| member.state != MemberState::Own).any(serves)
    }

    /// Ready replicas that are not known to be this process.
    fn strangers(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.state != MemberState::Own && member.is_ready)
    }

    /// Where the ready replicas are, this one among them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.members.keys().map(SocketAddr::ip)
    }

    /// The nodes of all replicas that said theirs.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.members.values().filter_map(|member| member.node_address)
    }

    /// How all of them are, ourselves included, beside the objects that we serve.
    #[must_use]
    pub fn attendance(&self, ours: &[(ObjectName, &str, i64)]) -> Vec<Attendance> {
        let of = |(address, member): (&SocketAddr, &Member)| Attendance {
            name: member.name.clone(),
            address: *address,
            state: member.attends(),
            behind: ours
                .iter()
                .filter(|(object, uid, generation)| member.lacks(object, uid, *generation))
                .count(),
            totals: member.totals,
        };
        self.members.iter().map(of).collect()
    }

    /// The sums of a replica, if it tells them.
    #[must_use]
    pub fn totals(&self, address: SocketAddr) -> Option<Totals> {
        self.members.get(&address)?.totals
    }

    /// Replicas that do not answer, or are not known.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let unknown = self.unknown.iter().filter(|why| **why != Unknown::Awaited);
        let unknown = unknown.map(ToString::to_string);
        let silent = self.members.iter().filter(|(_, member)| member.state == MemberState::Silent);
        unknown.chain(silent.map(|(address, member)| member.silence(*address)))
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
        write!(f, "it is not known which replicas there are: {why}")
    }
}

/// How long a replica may say nothing.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);

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
        let served = ServedObject { uid: "u".into(), generation, bound: None, problems: problems.to_vec() };
        Page {
            replica: Replica { name: instance.into(), instance: instance.into(), node_address: None },
            version: 1,
            ready: None,
            whole: false,
            objects: vec![Entry { object: object(), served: Some(served) }],
            totals: None,
        }
    }

    fn peers(now: Instant) -> Peers {
        let mut peers = Peers::awaited("a");
        assert!(matches!(serve(&peers, 1), Elsewhere::Pending(_)));
        peers.set(&BTreeMap::from([(address(1), "pod-a".into()), (address(2), "pod-b".into())]), now);
        peers.heard(address(1), page("a", 0, &[]), now);
        peers
    }

    fn serve(peers: &Peers, generation: i64) -> Elsewhere {
        peers.serve(&Wanted { object: &object(), uid: "u", generation }, "imaps")
    }

    #[test]
    fn what_all_others_serve_is_served_everywhere() {
        let now = Instant::now();
        let mut peers = peers(now);
        assert_eq!(serve(&peers, 2), Elsewhere::Pending("replica pod-b has not answered yet".into()));
        assert_eq!(peers.heard(address(2), page("b", 1, &[]), now), Touched::All);
        let behind = "replica pod-b is at generation 1, and not at 2";
        assert_eq!(serve(&peers, 2), Elsewhere::Pending(behind.into()));
        let attendance = |peers: &Peers| {
            let all = peers.attendance(&[(object(), "u", 2)]).into_iter();
            all.map(|replica| (replica.name, replica.state, replica.behind)).collect::<Vec<_>>()
        };
        let own = ("pod-a".to_owned(), Attends::Own, 0);
        assert_eq!(attendance(&peers), [own.clone(), ("pod-b".to_owned(), Attends::Heard, 1)]);
        let touched = peers.heard(address(2), page("b", 2, &[]), now);
        assert_eq!(touched, Touched::These(BTreeSet::from([object()])));
        assert_eq!(attendance(&peers), [own, ("pod-b".to_owned(), Attends::Heard, 0)]);
        assert_eq!(serve(&peers, 2), Elsewhere::Everywhere);
        let other = Wanted { object: &object(), uid: "another", generation: 2 };
        assert!(matches!(peers.serve(&other, "imaps"), Elsewhere::Pending(_)));
    }

    #[test]
    fn one_that_cannot_serve_it_is_named_with_its_reason() {
        let now = Instant::now();
        let mut peers = peers(now);
        let problem = |listener: &str, pending| Problem {
            listener: listener.into(),
            pending,
            reason: "BindFailed".into(),
            message: "*:993 cannot be bound".into(),
        };
        peers.heard(address(2), page("b", 1, &[problem("imaps", false)]), now);
        let Elsewhere::Not { reason, message } = serve(&peers, 1) else { panic!() };
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("BindFailed", "replica pod-b: *:993 cannot be bound")
        );
        peers.heard(address(2), page("b", 1, &[problem("imaps", true)]), now);
        assert!(matches!(serve(&peers, 1), Elsewhere::Pending(_)));
        peers.heard(address(2), page("b", 1, &[problem("pop3s", false)]), now);
        assert_eq!(serve(&peers, 1), Elsewhere::Everywhere);
    }

    #[test]
    fn silence_is_told_after_a_while_and_until_it_ends() {
        let begin = Instant::now();
        let mut peers = peers(begin);
        peers.heard(address(2), page("b", 1, &[]), begin);
        peers.failed(address(2), "connection refused".into());
        assert_eq!(peers.look(begin + SILENT_AFTER / 2), Touched::none());
        assert_eq!(serve(&peers, 1), Elsewhere::Everywhere);
        let late = begin + SILENT_AFTER;
        peers.heard(address(1), page("a", 0, &[]), late);
        assert_eq!(peers.look(late), Touched::All);
        assert_eq!(peers.look(late), Touched::none());
        let Elsewhere::Not { reason, message } = serve(&peers, 1) else { panic!() };
        assert_eq!(reason, "ReplicaUnreachable");
        assert!(message.contains("pod-b") && message.ends_with("connection refused"), "{message}");
        assert_eq!(peers.problems().collect::<Vec<_>>(), [message]);
        assert_eq!(peers.heard(address(2), page("b", 1, &[]), late), Touched::All);
        assert_eq!(serve(&peers, 1), Elsewhere::Everywhere);
    }

    #[test]
    fn another_replica_is_one_that_calls_itself_ready() {
        let now = Instant::now();
        let mut peers = Peers::awaited("a");
        assert_eq!(peers.others(), Others::Awaited);
        peers.set(&BTreeMap::from([(address(1), "pod-a".into()), (address(2), "pod-b".into())]), now);
        peers.heard(address(1), page("a", 1, &[]), now);
        assert_eq!((peers.others(), peers.first_awaited()), (Others::Some, Some("pod-b")));
        assert!(peers.may_serve_port(993), "it has not said anything");
        peers.heard(address(2), Page { ready: Some(true), ..page("b", 1, &[]) }, now);
        assert_eq!((peers.others(), peers.first_awaited()), (Others::Some, None));
        assert_eq!(peers.server_of(&object(), "u", "imaps"), Some("pod-b"));
        peers.heard(address(2), Page { ready: Some(false), ..page("b", 1, &[]) }, now);
        assert_eq!(peers.others(), Others::None, "its Service publishes addresses that are not ready");
        assert_eq!(peers.server_of(&object(), "u", "imaps"), None);
        peers.set(&BTreeMap::new(), now);
        assert_eq!(peers.others(), Others::None);
        assert!(!peers.may_serve_port(993));
    }

    #[test]
    fn one_that_is_no_longer_ready_is_not_waited_for() {
        let now = Instant::now();
        let mut peers = peers(now);
        peers.heard(address(2), page("b", 1, &[]), now);
        let one = BTreeMap::from([(address(1), "pod-a".into())]);
        assert_eq!(peers.set(&one, now), Touched::All);
        assert_eq!(serve(&peers, 2), Elsewhere::Everywhere);
        assert_eq!(peers.set(&one, now), Touched::none());
        // Where nobody is, not even we are, somebody named the wrong Service.
        assert_eq!(peers.set(&BTreeMap::new(), now), Touched::All);
        let Elsewhere::Pending(why) = serve(&peers, 2) else { panic!() };
        assert!(why.contains("--replicas") && peers.problems().any(|problem| problem == why), "{why}");
        assert_eq!(peers.set(&one, now), Touched::All);
        assert!(peers.problems().next().is_none());
    }
}
