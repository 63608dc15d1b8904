//! Exclusive users: a user never has sessions on two endpoints of a group at one time, over all replicas and protocols.
//! Pure: it decides who may log in and which sessions must end. `affinity` beside it asks it. `docs/architecture.md`,
//! "Exclusive users", has the argument for its safety, which comments here call *the argument*.
//!
//! The endpoint of a user follows from a set of endpoints by rendezvous hashing. Each replica reports its *active* sets,
//! those by which it may have sessions, with a version, and the versions that it has read of the others. A replica
//! admits a user at an endpoint if all its own active sets, and all those in the last report of each other replica, have
//! this endpoint for the user; and if each other replica with a set has read a version since which all own sets have it.
//! Thus two replicas never act at the same time, each with an old report of the other.

mod endpoints;
mod group;
mod members;
mod sets;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use crate::model::exclusive::{EndpointName, EndpointSet, EndpointState, GroupName, Report, Timing};

use super::balance::weight;
use group::Group;
use members::Members;
use sets::Version;

/// The state of this replica.
#[derive(Clone, Debug)]
pub struct Exclusive {
    members: Members,
    groups: BTreeMap<GroupName, Group>,
    version: Version,
    is_draining: bool,
    /// Sessions to end that have not been taken yet. Each session is here at most once.
    endings: Vec<Ending>,
}

/// A login that is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The group of its backend.
    pub group: &'a GroupName,
    /// The user in its canonical form.
    pub user: &'a [u8],
    /// The number of the session, which no other session of the process has.
    pub session: u64,
    /// When the login was complete.
    pub arrived: Instant,
}

/// What happens to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to this endpoint, and to no other. It counts as a session until [`Exclusive::release`].
    Admitted(EndpointName),
    /// It waits for the next change.
    Held(Hold),
}

/// Why a login waits, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The reason.
    pub reason: HoldReason,
    /// Then the login gets the temporary error of its protocol.
    pub until: Instant,
}

/// Why a login waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The group is not served, or the replica drains.
    NotServed,
    /// The list of replicas is not known, or does not have this replica.
    NotListed,
    /// The group has no endpoint.
    NoEndpoint,
    /// The user's endpoint is not ready, and may come back.
    Away(EndpointName),
    /// The user's endpoint changes.
    Moving,
    /// The replica with this name has not reported, or has not read what this replica reports.
    Replica(String),
}

/// A session that must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its group.
    pub group: GroupName,
    /// Its number.
    pub session: u64,
    /// The reason.
    pub reason: EndReason,
}

/// Why a session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The user has another endpoint now.
    Moving,
    /// The endpoint does not exist any more.
    EndpointGone,
    /// This replica is not in the list of replicas any more, and the others do not know of the session.
    ReplicaUnlisted,
}

impl EndReason {
    /// Returns one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Moving => "the user moves to another endpoint",
            Self::EndpointGone => "the endpoint does not exist any more",
            Self::ReplicaUnlisted => "the Service of --replicas does not list this replica any more",
        }
    }
}

/// Continues the sentence "the user's endpoint cannot be used now".
impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServed => f.write_str(
                "this replica is ending, or waits until earlier sessions of the route's users have ended",
            ),
            Self::NotListed => f.write_str("the Service of --replicas does not list this replica"),
            Self::NoEndpoint => f.write_str("the backend has no endpoint"),
            Self::Away(endpoint) => write!(f, "{endpoint} is not ready"),
            Self::Moving => f.write_str(
                "the user is moving to another endpoint, and some replicas have not ended the sessions yet",
            ),
            Self::Replica(name) => {
                write!(f, "replica {name} has not reported, or has not read what this replica reports")
            }
        }
    }
}

impl Exclusive {
    /// Creates the state of the only replica.
    #[must_use]
    pub fn alone(instance: &str) -> Self {
        Self::of(Members::alone(instance))
    }

    /// Creates the state of one of several replicas. It admits nobody before [`Exclusive::list`].
    #[must_use]
    pub fn replica(pod: &str, instance: &str) -> Self {
        Self::of(Members::unlisted(pod, instance))
    }

    fn of(members: Members) -> Self {
        let (groups, version, endings) = (BTreeMap::new(), Version::default(), Vec::new());
        Self { members, groups, version, is_draining: false, endings }
    }

    /// Sets the listed replicas, and whether each is ready. A Pod is listed until its containers have ended. Lists must
    /// come in the order of their changes, and the first one must not be older than this process.
    pub fn list(&mut self, pods: &BTreeMap<String, bool>, now: Instant) {
        if self.members.list(pods, now) {
            for group in self.groups.values_mut() {
                self.endings.extend(group.end_all());
            }
        }
        self.advance(now);
    }

    /// Applies the report of the process `instance` in a Pod. Reports of a process come after those of earlier processes
    /// in the same Pod. A report that exceeds the bounds is ignored: the replica counts as silent.
    pub fn heard(&mut self, pod: &str, instance: &str, report: Report, now: Instant) {
        if self.members.heard(pod, instance, report) {
            // An acknowledgement can make room for a set that waits.
            self.agree();
            self.advance(now);
        }
    }

    /// Sets the endpoints of a group. The first call opens the group; before it, all sessions must have ended that were
    /// opened without this state.
    pub fn observe(
        &mut self,
        name: &GroupName,
        timing: Timing,
        states: &BTreeMap<EndpointName, EndpointState>,
        now: Instant,
    ) {
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(name.clone(), timing, now));
        group.observe(timing, states, now);
        if self.is_draining {
            group.drain();
        }
        self.advance(now);
    }

    /// Admits nobody any more, because the replica ends. Its sessions continue, and endpoints are still observed. After
    /// the last session, the others need not wait for this replica.
    pub fn drain(&mut self, now: Instant) {
        self.is_draining = true;
        self.groups.values_mut().for_each(Group::drain);
        self.advance(now);
    }

    /// Closes a group that is not served any more. Its sessions continue.
    pub fn close(&mut self, name: &GroupName, now: Instant) {
        if let Some(group) = self.groups.get_mut(name) {
            group.close();
            self.advance(now);
        }
    }

    /// Decides a login. The caller asks again after each change of a [`Verdict::Held`], until [`Hold::until`].
    pub fn admit(&mut self, login: &Login<'_>) -> Verdict {
        let Some(group) = self.groups.get_mut(login.group) else {
            return Verdict::Held(Hold { reason: HoldReason::NotServed, until: login.arrived });
        };
        if !self.members.may_act() {
            let until = login.arrived + group.move_timeout();
            return Verdict::Held(Hold { reason: HoldReason::NotListed, until });
        }
        group.admit(login)
    }

    /// Removes a session. Its connection to the endpoint must be closed. Returns whether that may change anything else.
    pub fn release(&mut self, group: &GroupName, user: &[u8], session: u64, now: Instant) -> bool {
        let may_change = self.groups.get_mut(group).is_some_and(|group| group.release(user, session, now));
        if may_change {
            self.advance(now);
        }
        may_change
    }

    /// Applies the time. To be called at [`Exclusive::next`].
    pub fn advance(&mut self, now: Instant) {
        self.members.expire(now);
        for group in self.groups.values_mut() {
            self.endings.extend(group.advance(&mut self.version, now));
        }
        self.groups.retain(|_, group| !group.has_ended());
        self.agree();
    }

    /// Returns why this replica cannot admit users of any of its groups: the replicas do not agree yet. `None` if it can.
    #[must_use]
    pub fn obstacle(&self) -> Option<HoldReason> {
        let mut groups = self.groups.values().filter(|group| group.is_known());
        if !self.members.may_act() {
            return groups.next().map(|_| HoldReason::NotListed);
        }
        groups.find_map(Group::waits_for).map(|pod| HoldReason::Replica(pod.to_owned()))
    }

    /// Returns when [`Exclusive::advance`] has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.groups.values().filter_map(Group::next).chain(self.members.next()).min()
    }

    /// Takes the sessions that must end.
    #[must_use]
    pub fn take_endings(&mut self) -> Vec<Ending> {
        std::mem::take(&mut self.endings)
    }

    /// Returns what the other replicas must know. The caller publishes it when it has changed.
    #[must_use]
    pub fn report(&self) -> Report {
        let groups = self.groups.iter().filter(|(_, group)| !group.active().is_empty());
        let groups = groups.map(|(name, group)| (name.clone(), group.active().to_vec()));
        let known = self.groups.iter().filter(|(_, group)| group.is_known());
        Report {
            version: self.version.0,
            acknowledged: self.members.acknowledged(),
            groups: groups.collect(),
            known: known.map(|(name, _)| name.clone()).collect(),
        }
    }

    fn agree(&mut self) {
        for group in self.groups.values_mut() {
            group.agree(&self.members);
        }
    }
}

/// Returns the endpoint of a user: the first in the order of `UserHash`.
#[must_use]
pub fn home<'a>(set: &'a EndpointSet, user: &[u8]) -> Option<&'a EndpointName> {
    set.names().iter().min_by_key(|name| weight(name.as_str(), user))
}
