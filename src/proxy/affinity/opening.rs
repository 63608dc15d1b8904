//! Ends the sessions of exclusive users that were opened before they were exclusive, and tells which groups must wait
//! for this.
//!
//! A group is opened when no such session is left in this process, and no login is on its way to a backend by earlier
//! routes. Until then its logins wait, here and, because this replica does not report that it knows the group, in the
//! others. When only the users of an open group change, sessions of new users are ended, but the group does not wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::model::exclusive::{Affinity, GroupName};
use crate::model::{ListenerId, Routes, Routing};
use crate::proxy::live::Order;
use crate::proxy::record::Record;
use crate::proxy::serving::ServedListener;
use crate::proxy::sessions::Sessions;

use super::Group;

/// The groups that cannot be opened yet.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    /// The routes at the last pass.
    seen: HashMap<ListenerId, Arc<Routes>>,
    /// The time of the next pass, while groups wait.
    next: Option<Instant>,
    waiting: BTreeSet<GroupName>,
}

/// The input of a pass.
pub(crate) struct Pass<'a> {
    /// All groups of the snapshot.
    pub(crate) groups: &'a BTreeMap<GroupName, Group>,
    /// Those of them that are not open.
    pub(crate) new: BTreeSet<GroupName>,
    /// The members of groups, by the number of their session.
    pub(crate) members: &'a HashMap<u64, GroupName>,
    /// The listeners of all sockets.
    pub(crate) listeners: &'a [&'a Arc<ServedListener>],
    /// Whether sessions may be opened by earlier routes: a socket has an earlier configuration, or a removed listener
    /// has connections.
    pub(crate) has_earlier: bool,
}

impl Openings {
    /// Ends sessions. Returns the groups that must wait.
    pub(crate) fn pass(
        &mut self,
        pass: &Pass<'_>,
        sessions: &Sessions,
        now: Instant,
    ) -> &BTreeSet<GroupName> {
        let mut waiting = BTreeSet::new();
        let mut current: HashMap<ListenerId, Arc<Routes>> = HashMap::new();
        for served in pass.listeners.iter().filter(|_| !pass.groups.is_empty()) {
            let Some(routes) = served.routes.load().routes.clone() else { continue };
            if routes.destinations.iter().flatten().any(|to| matches!(to.affinity, Affinity::Exclusive(_))) {
                if !pass.new.is_empty() && served.routes.are_earlier_in_use() {
                    let exclusive = routes.destinations.iter().flatten().filter_map(|to| to.affinity.group());
                    waiting.extend(exclusive.filter(|group| pass.new.contains(group)).cloned());
                }
                current.insert(served.listener.id.clone(), routes);
            }
        }
        if pass.has_earlier {
            waiting.extend(pass.new.iter().cloned());
        }
        if !pass.new.is_empty() || !self.has_seen(&current) {
            for session in sessions.all() {
                let record = session.record();
                for group in groups_in(&current, record) {
                    if pass.members.get(&record.id.number) == Some(group) {
                        continue;
                    }
                    session.live().end(Order::Join);
                    if pass.new.contains(group) {
                        waiting.insert(group.clone());
                    }
                }
            }
        }
        self.seen = current;
        for group in waiting.difference(&self.waiting) {
            tracing::info!(group = %group, "logins of exclusive users wait until their earlier sessions have ended");
        }
        self.next = (!waiting.is_empty()).then(|| now + INTERVAL);
        self.waiting = waiting;
        &self.waiting
    }

    /// Waits until the next pass is due; for ever while no group waits.
    pub(crate) async fn next(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    fn has_seen(&self, current: &HashMap<ListenerId, Arc<Routes>>) -> bool {
        let is_same = |old: &Routes, new: &Routes| {
            let groups = |routes: &Routes| -> Vec<Option<GroupName>> {
                let all = routes.destinations.iter();
                all.map(|to| to.as_ref().and_then(|to| to.affinity.group().cloned())).collect()
            };
            Arc::ptr_eq(&old.table, &new.table) && groups(old) == groups(new)
        };
        let mut all = current.iter();
        all.all(|(id, new)| self.seen.get(id).is_some_and(|old| Arc::ptr_eq(old, new) || is_same(old, new)))
    }
}

fn groups_in<'a>(current: &'a HashMap<ListenerId, Arc<Routes>>, record: &Record) -> BTreeSet<&'a GroupName> {
    let routes = record.served.as_ref().and_then(|served| current.get(&served.listener.id));
    routes.map(|routes| groups_of(routes, record)).unwrap_or_default()
}

/// Returns the groups to which routes send the users of a session. A server that the auth service has named is in no
/// group.
pub(crate) fn groups_of<'a>(routes: &'a Routes, record: &Record) -> BTreeSet<&'a GroupName> {
    if record.is_at_named_server() {
        return BTreeSet::new();
    }
    let users = record.users(&routes.rules);
    let groups = users.iter().filter_map(|named| {
        let Routing::Route(position, _) = routes.find(named) else { return None };
        routes.destinations.get(position)?.as_ref()?.affinity.group()
    });
    groups.collect()
}

/// The time between two passes while groups wait.
const INTERVAL: Duration = Duration::from_millis(100);
