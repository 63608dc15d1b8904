//! The output of every source: publishes snapshots to the data plane, and computes status.
//!
//! Only the objects that a change affects are processed again. If a change of an object is still pending (the data
//! plane is binding a socket, or another replica has not processed it), the status waits until it is complete, or at
//! most `pending_timeout`.

mod differences;
mod leading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::clock::unix_now;
use crate::model::served::Ledger;
use crate::model::{BindReport, Snapshot};

use super::index::{Index, ObjectId};
use super::metrics::Metrics;
use super::ports::ServicePorts;
use super::render::{Delta, Environment, Locality, ReferenceChanges, Renderer};
use super::status::{self, Change, Facts, Status, Surroundings};
use super::status_store::StatusStore;
use leading::KnownPeers;

/// The channels to the other parts of the process.
#[derive(Debug)]
pub struct Channels {
    /// To the data plane.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// From the data plane.
    pub reports: watch::Receiver<Arc<BindReport>>,
    /// For the other replicas.
    pub ledger: Ledger,
    /// For the admin server.
    pub status_store: StatusStore,
}

/// Publishes snapshots and computes status.
#[derive(Debug)]
pub struct Publisher {
    /// The environment of the last rendering, and of the next one except its time.
    environment: Environment,
    channels: Channels,
    renderer: Renderer,
    report: Arc<BindReport>,
    peers: KnownPeers,
    /// The last status of each object.
    status: Status,
    surroundings: Option<Surroundings>,
    /// How long a status may wait for a pending change.
    pending_timeout: Duration,
    /// The objects whose status must be computed, each with its deadline.
    dirty: BTreeMap<ObjectId, Instant>,
    /// The objects whose last status was computed although a change was pending.
    unsettled: BTreeSet<ObjectId>,
    ports: ServicePorts,
    /// Whether the Service may need other ports than at the last check.
    are_ports_stale: bool,
    metrics: Metrics,
    /// Whether the state of the replicas may have changed since the last count.
    are_replica_states_stale: bool,
}

impl Publisher {
    /// Creates a publisher for the class `class`. `hostname` is the default server name.
    #[must_use]
    pub fn new(class: &str, hostname: &str, channels: Channels, metrics: Metrics) -> Self {
        Self {
            environment: Environment::new(class, hostname),
            channels,
            renderer: Renderer::default(),
            report: Arc::default(),
            peers: KnownPeers::Follower(None),
            status: Status::default(),
            surroundings: None,
            pending_timeout: Duration::ZERO,
            dirty: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            ports: ServicePorts::default(),
            are_ports_stale: true,
            metrics,
            are_replica_states_stale: false,
        }
    }

    /// Sets the locality. The next rendering uses it.
    pub fn set_locality(&mut self, locality: Locality) {
        self.environment.locality = locality;
    }

    /// Returns the locality of this replica.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        &self.environment.locality
    }

    /// Sets the peers whose PROXY headers are expected on listeners on all addresses without their own `proxyProtocol`.
    #[must_use]
    pub fn with_trusted_peers(mut self, trusted_peers: Vec<IpNet>) -> Self {
        self.environment.trusted_peers = trusted_peers;
        self
    }

    /// Sets whether there may be other replicas that this process cannot find.
    #[must_use]
    pub fn with_lacks_replicas(mut self, lacks_replicas: bool) -> Self {
        self.environment.lacks_replicas = lacks_replicas;
        self
    }

    /// Sets how long a status may wait for a pending change.
    #[must_use]
    pub fn with_pending_timeout(mut self, pending_timeout: Duration) -> Self {
        self.pending_timeout = pending_timeout;
        self
    }

    /// Returns the class that this process serves.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.environment.class
    }

    /// Returns the ledger, which other replicas read.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.channels.ledger
    }

    /// Renders the changes and publishes a new snapshot. Returns the changes of references.
    pub fn render(&mut self, index: &mut Index) -> ReferenceChanges {
        self.environment.now = unix_now();
        let timed = self.metrics.render();
        let Delta { snapshot, objects, references } = self.renderer.render(index, &self.environment);
        drop(timed);
        self.are_replica_states_stale |= !objects.is_empty();
        self.mark(objects);
        if let Some(snapshot) = snapshot {
            tracing::info!(
                revision = snapshot.revision,
                sockets = snapshot.sockets.len(),
                "serving a new configuration"
            );
            self.channels.snapshots.send_replace(snapshot);
        }
        references
    }

    /// Tells whether a snapshot has been published.
    #[must_use]
    pub fn has_published(&self) -> bool {
        self.renderer.snapshot().revision > 0
    }

    /// Returns the last revision that the data plane has applied, as far as its reports have been read.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.report.revision
    }

    /// Waits for a new report of the data plane. Never returns after the data plane has ended.
    pub async fn reported(&mut self) {
        if self.channels.reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the input for computing a status.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            published: &self.renderer,
            report: &self.report,
            replicas: self.replicas(),
            surroundings: self.surroundings.as_ref(),
            now: unix_now(),
        }
    }

    /// Sets the state of the Service and the nodes.
    pub fn set_surroundings(&mut self, surroundings: Surroundings) {
        if self.surroundings.as_ref() != Some(&surroundings) {
            self.are_ports_stale = true;
            self.surroundings = Some(surroundings);
            self.mark_all();
        }
    }

    /// Returns the next deadline for a status that waits for a pending change.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.dirty.values().min().copied()
    }

    /// Computes the status of all affected objects without a pending change, or whose deadline is over. Logs the
    /// changes and passes the status to the admin server and the ledger. Returns these objects.
    pub fn update_status(&mut self, problems: &[String]) -> BTreeSet<ObjectId> {
        self.read_report();
        let moment = Instant::now();
        let facts = Facts {
            published: &self.renderer,
            report: &self.report,
            replicas: self.peers.of_leader(),
            surroundings: self.surroundings.as_ref(),
            now: unix_now(),
        };
        let (mut updated, mut changes, mut entries) = (BTreeSet::new(), Vec::new(), Vec::new());
        let waiting: Vec<ObjectId> = self.dirty.keys().chain(&self.unsettled).cloned().collect();
        for id in waiting {
            let is_pending = status::is_pending(&facts, &id);
            entries.push((status::name(&id), status::served(&facts, &id)));
            // Ports do not wait: Ready waits for the Service, and existing ports from before a restart must stay.
            self.are_ports_stale |= self.ports.set(&id, status::listener_ports(&facts, &id));
            let may_wait = self.dirty.get(&id).is_some_and(|deadline| moment < *deadline);
            if is_pending && may_wait {
                continue;
            }
            self.dirty.remove(&id);
            if is_pending {
                self.unsettled.insert(id.clone());
            } else {
                self.unsettled.remove(&id);
            }
            changes.extend(self.status.update(&facts, &id));
            self.metrics.objects.show(&id, self.status.summary(&facts, &id));
            updated.insert(id);
        }
        let mut status_store = self.channels.status_store.lock();
        for id in &updated {
            status_store.status.copy(&self.status, id);
        }
        status_store.keep(&changes, facts.now);
        status_store.revision = self.renderer.snapshot().revision;
        problems.clone_into(&mut status_store.problems);
        drop(status_store);
        self.metrics.problems(problems.len());
        self.channels.ledger.enter(entries);
        log(&changes);
        updated
    }

    /// Returns the ports that the Service must have, if they may have changed. Ports in `shown` stay while a listener
    /// uses them or another ready replica may serve them.
    pub fn take_ports(&mut self, shown: &BTreeSet<u16>) -> Option<BTreeSet<u16>> {
        let peers = self.peers.get();
        let served = |port| peers.is_some_and(|peers| peers.may_serve_port(port));
        std::mem::take(&mut self.are_ports_stale).then(|| self.ports.wanted(shown, served))
    }

    /// Marks the ports of the Service for a check.
    pub fn mark_ports_stale(&mut self) {
        self.are_ports_stale = true;
    }

    /// Returns the changes between the status that the object has and the current one.
    #[must_use]
    pub fn changes_since(&self, id: &ObjectId, uid: &str, previous: &Value) -> Vec<Change> {
        self.status.changes_since(id, uid, previous)
    }

    /// Returns the status for the object in the API server.
    #[must_use]
    pub fn status_of(&self, id: &ObjectId) -> Option<Value> {
        self.status.value(id)
    }

    /// Returns the renderer with the outcome of every object.
    #[must_use]
    pub fn renderer(&self) -> &Renderer {
        &self.renderer
    }

    fn mark(&mut self, ids: BTreeSet<ObjectId>) {
        let deadline = Instant::now() + self.pending_timeout;
        for id in ids {
            self.unsettled.remove(&id);
            self.dirty.entry(id).or_insert(deadline);
        }
    }

    fn mark_all(&mut self) {
        let ids = self.renderer.outcomes().map(|(id, _)| id).cloned().collect();
        self.mark(ids);
    }

    /// Marks the objects for which the report of the data plane has changed.
    fn read_report(&mut self) {
        let report = Arc::clone(&self.channels.reports.borrow_and_update());
        let old = std::mem::replace(&mut self.report, Arc::clone(&report));
        let ids = differences::objects(&old, &report, self.renderer.snapshot());
        self.mark(ids);
    }
}

fn log(changes: &[Change]) {
    for change in changes {
        if change.is_alarming() {
            tracing::warn!("{change}");
        } else {
            tracing::info!("{change}");
        }
    }
}

/// How long the data plane may take to bind a socket before the status reports it.
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
