//! The state of the other replicas, and what changes when this replica starts or stops to lead.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::controller::index::ObjectId;
use crate::controller::peers::{Affected, Peers, SILENT_AFTER};
use crate::controller::status;

use super::Publisher;

/// The state of the other replicas, by the role of this one: a leader always has it.
#[derive(Debug)]
pub(super) enum KnownPeers {
    /// Statuses describe this replica alone. The others are asked while it starts.
    Follower(Option<Peers>),
    /// Statuses describe all replicas.
    Leader(Peers),
}

impl Publisher {
    /// Sets the state of the other replicas for a replica that does not lead; `None` if they are not asked.
    pub fn set_peers(&mut self, peers: Option<Peers>) {
        self.peers = KnownPeers::Follower(peers);
    }

    /// Returns the state of the other replicas, and stops to use it.
    pub fn take_peers(&mut self) -> Option<Peers> {
        self.peers.take()
    }

    /// Starts to lead: statuses describe all replicas. `previous` returns the status that the last leader wrote.
    pub fn lead(&mut self, peers: Peers, previous: impl Fn(&ObjectId) -> Option<Value>) {
        self.change_role(KnownPeers::Leader(peers));
        // No replica has answered yet, which must not cause new statuses.
        let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
        self.dirty.values_mut().for_each(|old| *old = deadline);
        for id in self.renderer.outcomes().map(|(id, _)| id) {
            if let Some(status) = previous(id) {
                self.status.restore(id, &status);
            }
        }
    }

    /// Stops to lead, or begins as a replica that does not lead.
    pub fn follow(&mut self) {
        let peers = self.take_peers();
        self.change_role(KnownPeers::Follower(peers));
    }

    fn change_role(&mut self, peers: KnownPeers) {
        self.peers = peers;
        self.metrics.leads(self.leads());
        self.are_replica_states_stale = true;
        self.are_ports_stale = true;
        self.mark_all();
    }

    /// Tells whether this replica leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.replicas().is_some()
    }

    /// Updates the state of the other replicas with `update`, and marks the affected objects.
    pub fn update_peers(&mut self, update: impl FnOnce(&mut Peers) -> Affected) {
        let affected = match &mut self.peers {
            KnownPeers::Leader(peers) => update(peers),
            KnownPeers::Follower(peers) => {
                peers.as_mut().map(update);
                return;
            }
        };
        let has_changed = affected != Affected::none();
        self.are_replica_states_stale |= has_changed;
        self.are_ports_stale |= has_changed;
        match affected {
            Affected::All => self.mark_all(),
            Affected::These(objects) => self.mark(objects.iter().filter_map(ObjectId::named).collect()),
        }
    }

    /// Updates the list of replicas and what they have not processed, if it may have changed.
    pub fn count_replicas(&mut self) {
        if !std::mem::take(&mut self.are_replica_states_stale) {
            // The totals change all the time.
            if let Some(peers) = self.peers() {
                for replica in &mut self.channels.status_store.lock().replicas {
                    replica.totals = peers.totals(replica.address);
                }
            }
            return;
        }
        let replica_states = self.replicas().map(|peers| {
            let outcomes = self.renderer.outcomes();
            let ours = outcomes.map(|(id, outcome)| (status::name(id), &*outcome.uid, outcome.generation));
            peers.replica_states(&ours.collect::<Vec<_>>())
        });
        let replica_states = replica_states.unwrap_or_default();
        self.metrics.replicas(&replica_states);
        self.channels.status_store.lock().replicas = replica_states;
    }

    /// Returns the state of the other replicas if this one leads.
    #[must_use]
    pub fn replicas(&self) -> Option<&Peers> {
        self.peers.of_leader()
    }

    /// Returns the state of the other replicas, whether or not this one leads.
    #[must_use]
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.get()
    }
}

impl KnownPeers {
    /// Returns the state that statuses describe.
    pub(super) fn of_leader(&self) -> Option<&Peers> {
        match self {
            Self::Follower(_) => None,
            Self::Leader(peers) => Some(peers),
        }
    }

    pub(super) fn get(&self) -> Option<&Peers> {
        match self {
            Self::Follower(peers) => peers.as_ref(),
            Self::Leader(peers) => Some(peers),
        }
    }

    /// Returns the state, and forgets it.
    pub(super) fn take(&mut self) -> Option<Peers> {
        match std::mem::replace(self, Self::Follower(None)) {
            Self::Follower(peers) => peers,
            Self::Leader(peers) => Some(peers),
        }
    }
}

/// How long a new leader waits for the answers of all replicas before it writes any status.
pub(super) const TAKE_OVER_TIMEOUT: Duration = SILENT_AFTER.saturating_add(Duration::from_secs(1));
