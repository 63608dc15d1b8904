//! One group of backends: its endpoints, its sets, its users, and what the replicas agree on.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::exclusive::{EndpointName, EndpointSet, EndpointState, GroupName, Timing};

use super::endpoints::Endpoints;
use super::members::Members;
use super::sets::{Sets, Version};
use super::users::Users;
use super::{EndReason, Ending, Hold, HoldReason, Login, Verdict, home};

/// The state of this replica for one group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    name: GroupName,
    timing: Timing,
    endpoints: Endpoints,
    sets: Sets,
    users: Users,
    service: Service,
    agreement: Agreement,
}

/// Whether the group admits users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Open,
    /// The replica drains: only open sessions continue.
    Draining,
    /// The group is not served any more: only open sessions continue, and its endpoints are not known.
    Closed,
}

/// What decides whether a user may log in: all these sets must have the same endpoint for the user. There is only the
/// target, unless endpoints change.
#[derive(Clone, Debug, Default)]
struct Agreement {
    /// The target comes first.
    sets: Vec<EndpointSet>,
    /// A replica that has not reported, or has not read what this replica reports. Nobody may log in.
    waits_for: Option<String>,
}

impl Group {
    pub(super) fn new(name: GroupName, timing: Timing, now: Instant) -> Self {
        Self {
            name,
            timing,
            endpoints: Endpoints::default(),
            sets: Sets::new(now),
            users: Users::default(),
            service: Service::Open,
            agreement: Agreement::default(),
        }
    }

    pub(super) fn observe(
        &mut self,
        timing: Timing,
        states: &BTreeMap<EndpointName, EndpointState>,
        now: Instant,
    ) {
        self.timing = timing;
        if self.service == Service::Closed {
            self.service = Service::Open;
        }
        self.endpoints.observe(states, now);
    }

    pub(super) fn close(&mut self) {
        self.service = Service::Closed;
    }

    pub(super) fn drain(&mut self) {
        self.service = Service::Draining;
    }

    /// Tells whether the group is closed, and no session needs a set.
    pub(super) fn has_ended(&self) -> bool {
        self.service == Service::Closed && self.sets.active().is_empty()
    }

    /// Tells whether sessions of its users are opened only as members of the group.
    pub(super) fn is_known(&self) -> bool {
        self.service != Service::Closed
    }

    /// Returns the replica for which all logins wait, if there are endpoints.
    pub(super) fn waits_for(&self) -> Option<&str> {
        self.agreement.waits_for.as_deref().filter(|_| !self.sets.target().is_empty())
    }

    pub(super) fn active(&self) -> &[EndpointSet] {
        self.sets.active()
    }

    /// Applies the time: endpoints that do not come back, and sets that no session needs.
    pub(super) fn advance(&mut self, version: &mut Version, now: Instant) -> Vec<Ending> {
        let mut endings = Vec::new();
        self.endpoints.expire(self.timing, now);
        let target = match self.service {
            Service::Closed | Service::Draining if self.users.is_empty() => EndpointSet::default(),
            Service::Closed => self.sets.target().clone(),
            Service::Open | Service::Draining => self.endpoints.set(),
        };
        if self.sets.adopt(target, version, now) {
            endings.extend(self.endings(EndReason::Moving, |users, target| users.aim(target)));
        }
        for endpoint in self.endpoints.gone(self.timing, now) {
            endings.extend(self.endings(EndReason::EndpointGone, |users, _| users.end(Some(&endpoint))));
        }
        if self.settles().is_some_and(|at| at <= now) {
            self.sets.settle(version);
        }
        endings
    }

    /// Applies what the other replicas have reported.
    pub(super) fn agree(&mut self, members: &Members) {
        let mut agreement = Agreement::default();
        let mut read_by_all = Version(u64::MAX);
        agreement.add(self.sets.target());
        self.sets.active().iter().for_each(|set| agreement.add(set));
        for (pod, report) in members.counting() {
            let Some(report) = report else {
                agreement.waits_for = Some(pod.to_owned());
                read_by_all = Version(0);
                continue;
            };
            let read = Version(report.acknowledged.get(members.instance()).copied().unwrap_or_default());
            let sets = report.groups.get(&self.name).map(Vec::as_slice).unwrap_or_default();
            let own = if sets.is_empty() {
                // It has no sessions. It opens none before this replica has read its sets, because it knows that this
                // replica has sets.
                self.sets.are_nonempty_since(read).then(Vec::new)
            } else {
                read_by_all = read_by_all.min(read);
                self.sets.since(read).map(Iterator::collect)
            };
            sets.iter().chain(own.iter().flatten().copied()).for_each(|set| agreement.add(set));
            // A replica that does not know the group may have sessions of its users that are not members.
            let knows = report.known.contains(&self.name);
            if own.is_none() || !knows {
                agreement.waits_for = Some(pod.to_owned());
            }
        }
        self.sets.forget(read_by_all);
        self.agreement = agreement;
    }

    /// Decides a login. An admitted one is a session from now on.
    pub(super) fn admit(&mut self, login: &Login<'_>) -> Verdict {
        let hold = |reason, until| Verdict::Held(Hold { reason, until });
        if self.service != Service::Open {
            return hold(HoldReason::NotServed, login.arrived);
        }
        let longest = login.arrived + self.timing.return_grace + self.timing.move_timeout;
        let moved = (login.arrived.max(self.sets.changed()) + self.timing.move_timeout).min(longest);
        let Some(endpoint) = home(self.sets.target(), login.user) else {
            return hold(HoldReason::NoEndpoint, moved);
        };
        if !self.endpoints.is_ready(endpoint) {
            return hold(HoldReason::Away(endpoint.clone()), longest);
        }
        if let Some(pod) = &self.agreement.waits_for {
            return hold(HoldReason::Replica(pod.clone()), moved);
        }
        let mut others = self.agreement.sets.iter().skip(1);
        if others.any(|set| home(set, login.user) != Some(endpoint))
            || !self.users.add(login.user, endpoint, login.session)
        {
            return hold(HoldReason::Moving, moved);
        }
        Verdict::Admitted(endpoint.clone())
    }

    /// Removes a session that has ended. Returns whether that may change the sets.
    pub(super) fn release(&mut self, user: &[u8], session: u64, now: Instant) -> bool {
        self.users.remove(user, session, now) && (self.service != Service::Open || !self.sets.is_settled())
    }

    pub(super) fn move_timeout(&self) -> Duration {
        self.timing.move_timeout
    }

    /// Returns all sessions, to end them.
    pub(super) fn end_all(&mut self) -> Vec<Ending> {
        self.endings(EndReason::ReplicaUnlisted, |users, _| users.end(None))
    }

    /// Returns when [`Group::advance`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.endpoints.next(self.timing).into_iter().chain(self.settles()).min()
    }

    /// Returns when the sets settle. `None` if they have, or while sessions have to end first.
    fn settles(&self) -> Option<Instant> {
        let is_due = !self.sets.is_settled() && !self.users.any_moves();
        let since = self.users.ended().map(|ended| ended + SETTLE);
        is_due.then(|| since.unwrap_or(self.sets.changed()))
    }

    fn endings(
        &mut self,
        reason: EndReason,
        find: impl FnOnce(&mut Users, &EndpointSet) -> Vec<u64>,
    ) -> Vec<Ending> {
        let group = &self.name;
        let ended = find(&mut self.users, self.sets.target()).into_iter();
        ended.map(|session| Ending { group: group.clone(), session, reason }).collect()
    }
}

impl Agreement {
    fn add(&mut self, set: &EndpointSet) {
        if !self.sets.contains(set) {
            self.sets.push(set.clone());
        }
    }
}

/// How long a moving user waits after the last session has been closed. The backend ends its own process for a session
/// when it has read the end of the connection.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
