//! Where every source ends: what was rendered goes to the data plane, and what is known of it becomes a status.
//!
//! Only what a change touches is looked at again. An object whose change is still under way (the data plane is
//! binding, another replica has not got as far) is told of when that is over, or when patience ends.

mod differences;

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

use super::index::{Index, Key, Kind, ObjectId};
use super::metrics::Metrics;
use super::peers::{Peers, SILENT_AFTER, Touched};
use super::ports::Ports;
use super::render::{Completeness, Delta, Environment, Locality, ReferenceChanges, Renderer};
use super::status::{self, Change, Facts, Surroundings};
use super::status_store::StatusStore;

/// Where snapshots and status go, and where reports come from.
#[derive(Debug)]
pub struct Channels {
    /// To the data plane.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// From the data plane.
    pub reports: watch::Receiver<Arc<BindReport>>,
    /// To the other replicas.
    pub ledger: Ledger,
    /// To the admin server.
    pub status_store: StatusStore,
}

/// The channels, and what must be remembered of them.
#[derive(Debug)]
pub struct Publisher {
    class: String,
    hostname: String,
    locality: Locality,
    trusted_peers: Vec<IpNet>,
    channels: Channels,
    renderer: Renderer,
    report: Arc<BindReport>,
    /// What the other replicas say, while they are asked.
    replicas: Option<Peers>,
    leads: bool,
    surroundings: Option<Surroundings>,
    /// How long a status may wait for what is under way.
    patience: Duration,
    /// What is to be looked at, and until when it may wait.
    dirty: BTreeMap<ObjectId, Instant>,
    /// What was told though it was still under way.
    unsettled: BTreeSet<ObjectId>,
    ports: Ports,
    /// Whether the Service may need other ports than when it was last looked.
    are_ports_stale: bool,
    metrics: Metrics,
    /// Whether the replicas may have got further, or we ourselves.
    is_attendance_stale: bool,
}

impl Publisher {
    /// `hostname` is the default server name, `class` the class that is ours.
    #[must_use]
    pub fn new(class: &str, hostname: &str, channels: Channels, metrics: Metrics) -> Self {
        Self {
            class: class.to_owned(),
            hostname: hostname.to_owned(),
            locality: Locality::default(),
            trusted_peers: Vec::new(),
            channels,
            renderer: Renderer::default(),
            report: Arc::default(),
            replicas: None,
            leads: false,
            surroundings: None,
            patience: Duration::ZERO,
            dirty: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            ports: Ports::default(),
            are_ports_stale: true,
            metrics,
            is_attendance_stale: false,
        }
    }

    /// Says where we are; it counts from the next look.
    pub fn locate(&mut self, locality: Locality) {
        self.locality = locality;
    }

    /// Where we are.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// Expects PROXY headers of these peers on every listener on all addresses that does not say it itself.
    #[must_use]
    pub fn with_trusted_peers(mut self, trusted_peers: Vec<IpNet>) -> Self {
        self.trusted_peers = trusted_peers;
        self
    }

    /// Lets a status wait for what is under way.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The class that is ours.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }

    /// What other replicas are told.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.channels.ledger
    }

    /// Renders what has changed, and hands a new snapshot to the data plane. Returns which references are new.
    pub fn render(&mut self, index: &mut Index) -> ReferenceChanges {
        let environment = Environment {
            class: self.class.clone(),
            hostname: self.hostname.clone(),
            now: unix_now(),
            locality: self.locality.clone(),
            trusted_peers: self.trusted_peers.clone(),
            completeness: Completeness::Whole,
        };
        let timed = self.metrics.render();
        let Delta { snapshot, objects, references } = self.renderer.render(index, &environment);
        drop(timed);
        self.is_attendance_stale |= !objects.is_empty();
        self.touch(objects);
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

    /// Whether the data plane has been given anything yet.
    #[must_use]
    pub fn has_published(&self) -> bool {
        self.renderer.snapshot().revision > 0
    }

    /// Waits for something new from the data plane; forever when that is gone.
    pub async fn reported(&mut self) {
        if self.channels.reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The other replicas are asked from now on, or are not any more.
    pub fn ask(&mut self, peers: Option<Peers>) {
        self.replicas = peers;
    }

    /// Speaks for all replicas from now on, or for this one alone. What was said of an object before, by whoever led,
    /// is taken over.
    pub fn lead<'a>(&mut self, leads: bool, said: impl Fn(&ObjectId) -> Option<&'a Value>) {
        self.leads = leads;
        self.metrics.leads(leads);
        self.channels.status_store.lock().leads = Some(leads);
        self.is_attendance_stale = true;
        self.are_ports_stale = true;
        self.touch_all();
        if !leads {
            return;
        }
        // Nobody has answered yet, which is no news for anybody.
        let deadline = Instant::now() + TAKE_OVER_PATIENCE;
        self.dirty.values_mut().for_each(|old| *old = deadline);
        let mut status_store = self.channels.status_store.lock();
        for id in self.renderer.outcomes().map(|(id, _)| id) {
            if let Some(status) = said(id) {
                status_store.status.recall(id, status);
            }
        }
    }

    /// Something is heard of the other replicas.
    pub fn hear(&mut self, hear: impl FnOnce(&mut Peers) -> Touched) {
        let touched = self.replicas.as_mut().map(hear).filter(|_| self.leads);
        let is_news = touched.as_ref().is_some_and(|touched| *touched != Touched::none());
        self.is_attendance_stale |= is_news;
        self.are_ports_stale |= is_news;
        match touched {
            None => {}
            Some(Touched::All) => self.touch_all(),
            Some(Touched::These(objects)) => {
                let of = |kind: Kind| move |name: &str| kind.name() == name;
                let ids = objects.into_iter().filter_map(|object| {
                    let kind =
                        [Kind::Server, Kind::Listener].into_iter().find(|kind| of(*kind)(&object.kind))?;
                    Some(ObjectId::new(kind, &Key::new(&object.namespace, &object.name)))
                });
                self.touch(ids.collect());
            }
        }
    }

    /// Whether we lead is known from now on: not yet.
    pub fn stand_by(&self) {
        self.metrics.leads(false);
        self.channels.status_store.lock().leads = Some(false);
    }

    /// Counts what the replicas lack, if it may be another number than before.
    pub fn count_replicas(&mut self) {
        if !std::mem::take(&mut self.is_attendance_stale) {
            // Sums change all the time.
            if let Some(peers) = &self.replicas {
                for replica in &mut self.channels.status_store.lock().replicas {
                    replica.totals = peers.totals(replica.address);
                }
            }
            return;
        }
        let attendance = self.replicas().map(|peers| {
            let outcomes = self.renderer.outcomes();
            let ours = outcomes.map(|(id, outcome)| (status::name(id), &*outcome.uid, outcome.generation));
            peers.attendance(&ours.collect::<Vec<_>>())
        });
        let attendance = attendance.unwrap_or_default();
        self.metrics.replicas(&attendance);
        self.channels.status_store.lock().replicas = attendance;
    }

    /// What is known of the other replicas, while we lead.
    #[must_use]
    pub fn replicas(&self) -> Option<&Peers> {
        self.replicas.as_ref().filter(|_| self.leads)
    }

    /// What is known of the other replicas, whether we lead or not.
    #[must_use]
    pub fn asked(&self) -> Option<&Peers> {
        self.replicas.as_ref()
    }

    /// What there is to make a status of.
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

    /// What is between the clients and us has changed.
    pub fn surround(&mut self, surroundings: Surroundings) {
        if self.surroundings.as_ref() != Some(&surroundings) {
            self.are_ports_stale = true;
            self.surroundings = Some(surroundings);
            self.touch_all();
        }
    }

    /// When something that is under way is told of, if it is not over before.
    #[must_use]
    pub fn next_tell(&self) -> Option<Instant> {
        self.dirty.values().min().copied()
    }

    /// Makes the status anew of what was touched and is not under way, or has waited for long enough; logs what has
    /// changed in it, and gives it to the admin server and to the other replicas. The objects of which it was made.
    pub fn tell(&mut self, problems: &[String]) -> BTreeSet<ObjectId> {
        self.read_report();
        let moment = Instant::now();
        let facts = Facts {
            published: &self.renderer,
            report: &self.report,
            replicas: self.replicas.as_ref().filter(|_| self.leads),
            surroundings: self.surroundings.as_ref(),
            now: unix_now(),
        };
        let mut status_store = self.channels.status_store.lock();
        let (mut told, mut changes, mut entries) = (BTreeSet::new(), Vec::new(), Vec::new());
        let waiting: Vec<ObjectId> = self.dirty.keys().chain(&self.unsettled).cloned().collect();
        for id in waiting {
            let is_pending = status::is_pending(&facts, &id);
            entries.push((status::name(&id), status::served(&facts, &id)));
            // The Service does not wait: Ready waits for it, and a port from before a restart stays.
            self.are_ports_stale |= self.ports.set(&id, status::claims(&facts, &id));
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
            changes.extend(status_store.status.update(&facts, &id));
            self.metrics.objects.show(&id, status_store.status.summary(&facts, &id));
            told.insert(id);
        }
        status_store.keep(&changes, facts.now);
        status_store.revision = self.renderer.snapshot().revision;
        problems.clone_into(&mut status_store.problems);
        self.metrics.problems(problems.len());
        drop(status_store);
        self.channels.ledger.enter(entries);
        log(&changes);
        told
    }

    /// The ports that clients should find, where that may be others than before. Those that are `shown` already stay
    /// while a listener wants them or another ready replica may serve them.
    pub fn take_ports(&mut self, shown: &BTreeSet<u16>) -> Option<BTreeSet<u16>> {
        let peers = self.replicas.as_ref();
        let served = |port| peers.is_some_and(|peers| peers.may_serve_port(port));
        std::mem::take(&mut self.are_ports_stale).then(|| self.ports.wanted(shown, served))
    }

    /// The Service is another, and may need other ports.
    pub fn look_at_ports(&mut self) {
        self.are_ports_stale = true;
    }

    /// What is new in the status of an object for who knows only what the object itself says.
    #[must_use]
    pub fn news(&self, id: &ObjectId, uid: &str, said: &Value) -> Vec<Change> {
        self.channels.status_store.lock().status.news(id, uid, said)
    }

    /// As the object itself should have it.
    #[must_use]
    pub fn status_of(&self, id: &ObjectId) -> Option<Value> {
        self.channels.status_store.lock().status.value(id)
    }

    /// What became of every object, and since when.
    #[must_use]
    pub fn renderer(&self) -> &Renderer {
        &self.renderer
    }

    fn touch(&mut self, ids: BTreeSet<ObjectId>) {
        let deadline = Instant::now() + self.patience;
        for id in ids {
            self.unsettled.remove(&id);
            self.dirty.entry(id).or_insert(deadline);
        }
    }

    fn touch_all(&mut self) {
        let ids = self.renderer.outcomes().map(|(id, _)| id).cloned().collect();
        self.touch(ids);
    }

    /// Touches what the data plane says something else about.
    fn read_report(&mut self) {
        let report = Arc::clone(&self.channels.reports.borrow_and_update());
        let old = std::mem::replace(&mut self.report, Arc::clone(&report));
        let ids = differences::objects(&old, &report, self.renderer.snapshot());
        self.touch(ids);
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

/// How long the data plane may take to bind before the status says that it has not done so.
pub(super) const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// For all replicas to answer, or to be found silent, before who leads now says anything.
const TAKE_OVER_PATIENCE: Duration = SILENT_AFTER.saturating_add(Duration::from_secs(1));

#[cfg(test)]
mod tests;
