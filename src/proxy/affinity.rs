//! Owns the decisions about exclusive users (`exclusive`): sessions ask here before they connect, the supervisor tells
//! the endpoints, and the controller tells what other replicas report.
//!
//! A task applies the time, tells sessions to end, and publishes what the other replicas must know. A session is counted
//! by an [`Membership`], which it drops after its connection to the endpoint is closed.

mod groups;
mod opening;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::model::SessionId;
use crate::model::exclusive::{EndpointName, ExclusiveBackend, GroupName, Report};

use super::end::End;
use super::exclusive::{EndReason, Exclusive, Hold, HoldReason, Login, Verdict};
use super::sessions::Sessions;
pub(crate) use groups::{Group, groups};
pub(crate) use opening::{Openings, Pass, groups_of};

/// The exclusive users of this process. Clones share the same state.
#[derive(Clone, Debug)]
pub struct ExclusiveUsers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something has changed that held logins may have waited for.
    changed: Notify,
    /// The task has something to do.
    poke: Notify,
    report: watch::Sender<Option<Arc<Report>>>,
    /// Why no exclusive user can be admitted.
    obstacle: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct State {
    machine: Exclusive,
    /// The groups as the snapshot has them, without those that wait for [`Openings`].
    served: BTreeMap<GroupName, Group>,
    admitted: HashMap<u64, Arc<Admitted>>,
    admissions: u64,
    is_draining: bool,
    /// Whether the groups are known, so that a report says everything.
    has_begun: bool,
}

/// A user who may have a session at an endpoint.
#[derive(Debug)]
struct Admitted {
    number: u64,
    group: GroupName,
    user: Box<[u8]>,
    session: SessionId,
    reason: OnceLock<EndReason>,
    told: CancellationToken,
}

/// Counts a session until it is dropped. Its connection to the endpoint must be closed before.
#[derive(Debug)]
pub(crate) struct Membership {
    users: ExclusiveUsers,
    admitted: Arc<Admitted>,
}

/// The login of an exclusive user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    /// The backend of the user's route.
    pub(crate) backend: &'a ExclusiveBackend,
    /// The user in its canonical form.
    pub(crate) user: &'a [u8],
    /// The session.
    pub(crate) session: SessionId,
    /// When the login was complete.
    pub(crate) arrived: Instant,
}

impl ExclusiveUsers {
    /// Creates the state of the only replica.
    #[must_use]
    pub fn alone(instance: &str) -> Self {
        Self::of(Exclusive::alone(instance), true)
    }

    /// Creates the state of one of several replicas. It reports nothing before [`Self::begin`].
    #[must_use]
    pub fn replica(pod: &str, instance: &str) -> Self {
        Self::of(Exclusive::replica(pod, instance), false)
    }

    fn of(machine: Exclusive, has_begun: bool) -> Self {
        let (served, admitted) = (BTreeMap::new(), HashMap::new());
        let state = State { machine, served, admitted, admissions: 0, is_draining: false, has_begun };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            poke: Notify::new(),
            report: watch::Sender::new(None),
            obstacle: watch::Sender::new(None),
        }))
    }

    /// Reports to the other replicas from now on: all groups of the cluster are known.
    pub fn begin(&self) {
        self.change(|state, _| state.has_begun = true);
    }

    /// Sets the listed replicas: [`Exclusive::list`].
    pub fn list(&self, pods: &BTreeMap<String, bool>) {
        self.change(|state, now| state.machine.list(pods, now));
    }

    /// Applies the report of another replica: [`Exclusive::heard`].
    pub fn heard(&self, pod: &str, instance: &str, report: Report) {
        self.change(|state, now| state.machine.heard(pod, instance, report, now));
    }

    /// Returns what the other replicas must know; `None` before [`Self::begin`].
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.0.report.subscribe()
    }

    /// Returns why the logins of all exclusive users wait; `None` if they do not, or if there are no groups.
    #[must_use]
    pub fn obstacle(&self) -> watch::Receiver<Option<String>> {
        self.0.obstacle.subscribe()
    }

    /// Tells whether the snapshot has had groups, or sessions of groups are open.
    pub(crate) fn are_used(&self) -> bool {
        !self.lock().machine.report().known.is_empty()
    }

    /// Tells whether a group is served.
    pub(crate) fn serves(&self, group: &GroupName) -> bool {
        self.lock().served.contains_key(group)
    }

    /// Serves these groups and no others. Those in `waiting` are not opened yet.
    pub(crate) fn serve(&self, groups: BTreeMap<GroupName, Group>, waiting: &BTreeSet<GroupName>) {
        self.change(|state, now| {
            let State { machine, served, .. } = state;
            for name in served.keys().filter(|name| !groups.contains_key(name)) {
                machine.close(name, now);
            }
            let before = std::mem::take(served);
            for (name, group) in groups.into_iter().filter(|(name, _)| !waiting.contains(name)) {
                if before.get(&name) != Some(&group) {
                    machine.observe(&name, group.timing, &group.endpoints, now);
                }
                served.insert(name, group);
            }
        });
    }

    /// Admits nobody any more, because the replica ends.
    pub(crate) fn drain(&self) {
        self.change(|state, now| {
            state.is_draining = true;
            state.machine.drain(now);
        });
    }

    /// Decides a login. A held one asks again after each [`Self::changed`].
    pub(crate) fn admit(&self, asking: &Asking<'_>) -> Result<(Membership, EndpointName), Hold> {
        let Asking { backend, user, session, arrived } = *asking;
        let mut state = self.lock();
        let group = &backend.group;
        if !state.served.contains_key(group) && !state.is_draining {
            let until = arrived + backend.timing.move_timeout;
            return Err(Hold { reason: HoldReason::NotServed, until });
        }
        state.admissions = state.admissions.wrapping_add(1);
        let number = state.admissions;
        match state.machine.admit(&Login { group, user, session: number, arrived }) {
            Verdict::Held(hold) => Err(hold),
            Verdict::Admitted(endpoint) => {
                let admitted = Arc::new(Admitted {
                    number,
                    group: group.clone(),
                    user: user.into(),
                    session,
                    reason: OnceLock::new(),
                    told: CancellationToken::new(),
                });
                state.admitted.insert(number, Arc::clone(&admitted));
                Ok((Membership { users: self.clone(), admitted }, endpoint))
            }
        }
    }

    /// Waits for the next change. A change after this call counts, even before the first poll.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Returns the open sessions of all groups, by their number in the process.
    pub(crate) fn sessions(&self) -> HashMap<u64, GroupName> {
        let state = self.lock();
        state.admitted.values().map(|admitted| (admitted.session.number, admitted.group.clone())).collect()
    }

    /// Applies the time, ends sessions and publishes reports, for ever.
    pub(crate) async fn run(self, sessions: Arc<Sessions>) {
        loop {
            let next = self.turn(&sessions, Instant::now());
            let time = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.poke.notified() => {}
                () = time => {}
            }
        }
    }

    /// Applies the time. Returns when there is something to do again.
    fn turn(&self, sessions: &Sessions, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        state.machine.advance(now);
        let endings = state.machine.take_endings();
        let ended: Vec<_> = endings
            .into_iter()
            .filter_map(|ending| Some((Arc::clone(state.admitted.get(&ending.session)?), ending.reason)))
            .collect();
        let report = state.has_begun.then(|| Arc::new(state.machine.report()));
        let obstacle = state.machine.obstacle().map(|reason| reason.to_string());
        let next = state.machine.next();
        drop(state);
        // Who has seen a report sees what it means.
        send_if_other(&self.0.obstacle, obstacle);
        send_if_other(&self.0.report, report);
        self.0.changed.notify_waiters();
        log(&ended);
        for (admitted, reason) in ended {
            // A session that is not listed yet looks at this when it is.
            let _ = admitted.reason.set(reason);
            admitted.told.cancel();
            sessions.end(admitted.session, reason.order());
        }
        next
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        change(&mut self.lock(), Instant::now());
        self.0.poke.notify_one();
    }

    fn release(&self, admitted: &Admitted) {
        let mut state = self.lock();
        state.admitted.remove(&admitted.number);
        if state.admitted.capacity() > SMALL && state.admitted.len() < state.admitted.capacity() / 8 {
            let room = state.admitted.len().saturating_mul(2);
            state.admitted.shrink_to(room);
        }
        let may_change =
            state.machine.release(&admitted.group, &admitted.user, admitted.number, Instant::now());
        drop(state);
        if may_change {
            self.0.poke.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl Membership {
    /// Returns the group.
    pub(crate) fn group(&self) -> &GroupName {
        &self.admitted.group
    }

    /// Returns why the session must end, if it must.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.admitted.reason.get().copied()
    }

    /// Waits until the session must end.
    pub(crate) async fn told(&self) -> End {
        self.admitted.told.cancelled().await;
        End::Moved(self.reason().unwrap_or(EndReason::Moving))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.users.release(&self.admitted);
    }
}

/// Logs how many sessions end, for each group and reason.
fn log(ended: &[(Arc<Admitted>, EndReason)]) {
    let mut counts: BTreeMap<(&GroupName, &'static str), usize> = BTreeMap::new();
    for (admitted, reason) in ended {
        let count = counts.entry((&admitted.group, reason.sentence())).or_default();
        *count = count.saturating_add(1);
    }
    for ((group, why), sessions) in counts {
        tracing::info!(group = %group, sessions, "ending sessions of exclusive users: {why}");
    }
}

/// Sends `value` if it differs from the last one.
fn send_if_other<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|last| {
        let differs = *last != value;
        *last = value;
        differs
    });
}

/// A map with room for this many sessions is never shrunk.
const SMALL: usize = 1024;

#[cfg(test)]
mod tests;
