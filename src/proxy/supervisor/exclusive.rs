//! Tells the groups of exclusive users of each snapshot to their owner, and which of them cannot be opened yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::Snapshot;
use crate::net::ListenAddress;
use crate::proxy::affinity::{ExclusiveUsers, Pass, groups};
use crate::proxy::running::Running;

use super::Supervisor;

impl Supervisor {
    /// Tells the endpoints of exclusive users, and ends sessions that began before their users were exclusive.
    pub(super) fn serve_groups(&mut self) {
        let groups = groups(&self.applied);
        if groups.is_empty() && !self.exclusive.are_used() {
            return;
        }
        let new: BTreeSet<_> = groups.keys().filter(|group| !self.exclusive.serves(group)).cloned().collect();
        let serving: Vec<_> = self.running.values().map(|running| running.serving.load_full()).collect();
        let listeners: Vec<_> = serving.iter().flat_map(|serving| serving.all()).collect();
        let is_earlier = |(address, running): (&ListenAddress, &Running)| {
            let wanted = self.applied.sockets.get(address);
            wanted.is_some_and(|wanted| !Arc::ptr_eq(wanted, &running.socket) && **wanted != *running.socket)
        };
        let has_earlier = self.running.iter().any(is_earlier) || self.states.ending() > 0;
        if !new.is_empty() {
            self.states.end_removed();
        }
        let members = self.exclusive.sessions();
        let pass = Pass { groups: &groups, new, members: &members, listeners: &listeners, has_earlier };
        let waiting = self.openings.pass(&pass, self.workers.sessions(), Instant::now());
        self.exclusive.serve(groups, waiting);
    }
}

/// Tells the endpoints of exclusive users while sessions end, because the sessions of users that move must end before.
/// Never returns. A group that begins now waits until this replica has ended.
pub(super) async fn follow_endpoints(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    exclusive: &ExclusiveUsers,
) {
    while snapshots.changed().await.is_ok() {
        let groups = groups(&snapshots.borrow_and_update());
        let new = groups.keys().filter(|group| !exclusive.serves(group)).cloned().collect();
        exclusive.serve(groups, &new);
    }
    std::future::pending().await
}
