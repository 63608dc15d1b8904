//! The source with a cluster: watches objects in the Kubernetes API and writes their status.
//!
//! Mailgress watches all of its own kinds and the labels of namespaces, all Services of a namespace, and single Secrets
//! and ConfigMaps by name: a Secret without a reference is never held in memory. A failed watch is tried again without
//! limit. Until it succeeds, the last known objects are used, so the data plane does not depend on the API server.
//!
//! Every replica does this. One replica leads and does what must be done once (`lead.rs`).

mod agreement;
mod backoff;
mod events;
pub(super) mod failure;
mod follow;
mod lead;
mod lease;
mod lists;
mod own_service;
mod replicas;
mod resources;
mod start;
mod store;
mod stored_status;
mod tickets;
mod wanted;
mod watches;
mod writer;
mod zone;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::model::SharedTicketKeys;
use crate::model::exclusive::PeerEvent;

use super::index::Key;
use super::metrics::Metrics;
use super::publisher::{Publisher, REPORT_TIMEOUT};
use super::render::Locality;
use super::validate::{BrokenCrd, Validator};

pub use agreement::ExclusiveLink;
use lead::Lead;
pub use lease::Leadership;
pub use start::Start;
use start::Starting;
use store::Store;
use watches::{Event, Watches};

/// The clients for the API server.
#[derive(Clone)]
pub struct Clients {
    /// For watches: their requests stay open.
    pub watches: Client,
    /// For all other requests, which end within some seconds.
    pub requests: Client,
}

/// The options of the cluster source.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The only namespaces to watch. If empty, all namespaces are watched.
    pub namespaces: Vec<String>,
    /// The Lease that the leading replica holds.
    pub lease: Key,
    /// The Service whose ports Mailgress manages and whose addresses the status shows.
    pub service: Option<Key>,
    /// The Service whose endpoints are the replicas.
    pub replicas: Option<Key>,
    /// How long a starting process waits to serve what was served before, if no other replica is ready.
    pub ready_timeout: Duration,
    /// Where handshakes find the keys of session tickets.
    pub ticket_keys: SharedTicketKeys,
    /// The connection to the decisions about exclusive users; `None` without `replicas`.
    pub exclusive: Option<ExclusiveLink>,
}

/// The source of objects from a cluster.
pub struct ClusterSource {
    publisher: Publisher,
    store: Store,
    watches: Watches,
    events: mpsc::Receiver<Event>,
    clients: Clients,
    options: ClusterOptions,
    problems: Vec<String>,
    /// The missing optional permissions that were logged.
    notices: BTreeSet<String>,
    start: Starting,
    leadership: watch::Sender<Leadership>,
    /// Whether the first rendering with all available answers is done.
    is_settled: bool,
    /// The revision of the first rendering with all answers, until the data plane has applied it.
    settled: Option<u64>,
    /// The task that reads the zone of our node, if the zone is needed and not known.
    zone: Option<AbortOnDropHandle<Option<String>>>,
}

impl ClusterSource {
    /// Creates the source for the objects of the publisher's class.
    ///
    /// # Errors
    ///
    /// Fails if the CRDs of this program are broken.
    pub fn new(
        clients: Clients,
        options: ClusterOptions,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Result<Self, BrokenCrd> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let publisher =
            publisher.with_pending_timeout(REPORT_TIMEOUT).with_lacks_replicas(options.replicas.is_none());
        let field_manager = writer::field_manager(publisher.class());
        let validator = Arc::new(Validator::new()?);
        let watches = Watches::new(clients.watches.clone(), &field_manager, validator, sender, metrics);
        let store = Store::new(resources::base(&options.namespaces));
        let Locality { zone, node } = publisher.locality().clone();
        let zone = node.filter(|_| zone.is_none()).map(|node| zone::of_node(clients.requests.clone(), node));
        let zone = zone.map(|reading| AbortOnDropHandle::new(tokio::spawn(reading)));
        let start = Starting::new(options.ready_timeout);
        Ok(Self {
            publisher,
            store,
            watches,
            events,
            clients,
            options,
            problems: Vec::new(),
            notices: BTreeSet::new(),
            start,
            leadership: watch::Sender::default(),
            is_settled: false,
            settled: None,
            zone,
        })
    }

    /// Returns the state of this replica's start, which decides whether it may get clients.
    #[must_use]
    pub fn start(&self) -> watch::Receiver<Start> {
        self.start.watch()
    }

    /// Returns who leads.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Watches, renders and publishes until `shutdown`. While there are exclusive users, endpoints are followed until
    /// `ended`, when the data plane has no session any more.
    pub async fn run(mut self, shutdown: CancellationToken, ended: CancellationToken) {
        if let (Some(link), Some(service)) = (&self.options.exclusive, &self.options.replicas) {
            let own = self.publisher.ledger().replica().name.clone();
            let client = self.clients.watches.clone();
            tokio::spawn(agreement::agree(
                client,
                service.clone(),
                self.options.ticket_keys.clone(),
                own,
                link.clone(),
            ));
        }
        let leadership = self.leadership.clone();
        let mut lead = Lead::start(&self.clients, &self.options, &mut self.publisher, leadership, &shutdown);
        self.follow();
        let mut resync = interval(RESYNC_INTERVAL);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            let next_deadline = self.publisher.next_deadline();
            let mut changed = false;
            let mut compared = BTreeSet::new();
            tokio::select! {
                () = shutdown.cancelled() => {
                    tokio::join!(lead.end(), self.follow_endpoints(&ended));
                    return;
                }
                Some(event) = self.events.recv() => changed = self.settle(event).await,
                () = self.publisher.reported() => {}
                event = lead.next_event() => lead.take(event, &mut self.publisher, &self.store),
                () = sleep_until(next_deadline.unwrap_or_else(Instant::now)), if next_deadline.is_some() => {}
                _ = resync.tick() => {
                    lead.apply_timeouts(&mut self.publisher);
                    self.publisher.count_replicas();
                    compared = self.store.take_due(Instant::now());
                    changed = self.store.index().has_changed() || rendered.elapsed() > RENDER_ANYWAY;
                }
                zone = read_zone(&mut self.zone) => changed = self.set_zone(zone),
            }
            if changed {
                rendered = Instant::now();
                self.render();
            }
            self.update_problems(&lead);
            let mut updated = self.publisher.update_status(&self.problems);
            updated.append(&mut compared);
            lead.write_status(&updated, &mut self.publisher, &self.store);
            lead.request_replicas(self.start.is_starting(), &mut self.publisher);
            if self.has_settled() {
                self.begin_exclusive().await;
                self.start.check(&self.publisher, &self.store);
                if self.start.may_lead(&self.publisher) {
                    lead.compete(&shutdown);
                }
            }
        }
    }

    /// Lets this replica report its exclusive users as soon as the data plane has applied all objects.
    async fn begin_exclusive(&mut self) {
        let Some(link) = &self.options.exclusive else { return };
        if self.settled.is_some_and(|settled| self.publisher.applied() >= settled) {
            self.settled = None;
            // The receiver ends only with the process.
            let _ = link.events.send(PeerEvent::Begin).await;
        }
    }

    /// Renders changes of endpoints until `ended`, for the exclusive users of a replica that drains.
    async fn follow_endpoints(&mut self, ended: &CancellationToken) {
        if !self.options.exclusive.as_ref().is_some_and(ExclusiveLink::has_groups) {
            return;
        }
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                Some(event) = self.events.recv() => {
                    if self.settle(event).await {
                        self.render();
                    }
                }
            }
        }
    }

    /// Applies events until there are none for [`QUIET`], because one change often causes several events. Returns
    /// whether a new rendering can differ.
    async fn settle(&mut self, first: Event) -> bool {
        let end = Instant::now() + SETTLE_AT_MOST;
        let mut changed = self.store.apply(first, Instant::now());
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(event)) => changed |= self.store.apply(event, Instant::now()),
                Ok(None) | Err(_) => break,
            }
            if Instant::now() >= end {
                break;
            }
        }
        changed
    }

    /// Stores the zone. Returns whether it changes the selection of endpoints.
    fn set_zone(&mut self, zone: Option<String>) -> bool {
        self.zone = None;
        let is_known = zone.is_some();
        self.publisher.set_locality(Locality { zone, ..self.publisher.locality().clone() });
        is_known
    }

    /// Tells whether this replica has rendered everything that it can: each watch has answered, or has not answered for
    /// too long.
    fn has_settled(&mut self) -> bool {
        if !self.is_settled && self.publisher.has_published() && !self.store.awaits_answers(Instant::now()) {
            self.is_settled = true;
            self.store.accept_refusals();
            self.render();
            self.settled = Some(self.publisher.renderer().snapshot().revision);
        }
        self.is_settled
    }

    /// Renders the changes, and watches the objects that they refer to.
    fn render(&mut self) {
        if !self.store.has_base() {
            return;
        }
        // A watch of the whole namespace may already have the object of a new reference.
        for _ in 0..MAX_RENDERS {
            let references = self.publisher.render(self.store.index());
            self.store.refer(&references);
            self.follow();
            if !self.store.index().has_changed() {
                return;
            }
        }
    }

    /// Watches the base and all referenced objects, and ends all other watches.
    fn follow(&mut self) {
        let Some(wanted) = self.store.follow() else { return };
        self.watches.retain(&wanted);
        for watched in wanted {
            if !self.watches.has(&watched) {
                let id = self.watches.start(&watched);
                self.store.started(watched, id, Instant::now());
            }
        }
    }

    /// Logs new problems, and once each optional permission that is missing.
    fn update_problems(&mut self, lead: &Lead) {
        for notice in self.store.notices() {
            if !self.notices.contains(&notice) {
                tracing::warn!("{notice}");
                self.notices.insert(notice);
            }
        }
        let mut problems = self.store.problems(Instant::now());
        problems.extend(lead.problems(&self.publisher));
        if problems == self.problems {
            return;
        }
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        if problems.is_empty() {
            tracing::info!("all problems with objects and the API server are solved");
        }
        self.problems = problems;
    }
}

/// Waits for the zone, or for the result that it cannot be known. Never returns if the zone is not being read.
async fn read_zone(zone: &mut Option<AbortOnDropHandle<Option<String>>>) -> Option<String> {
    match zone {
        Some(reading) => reading.await.ok().flatten(),
        None => std::future::pending().await,
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

/// The capacity of the channel of watch events.
const MAX_EVENTS: usize = 1024;
/// The maximum number of renderings for one change. The next event continues.
const MAX_RENDERS: usize = 3;
/// A rendering waits until there are no events for this time.
const QUIET: Duration = Duration::from_millis(20);
/// The longest time that a change waits for further events.
const SETTLE_AT_MOST: Duration = Duration::from_millis(200);
/// Checks what ends without an event: the wait for watches at the start, and the report of a failure that does not
/// repeat.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Renders again after this time, because certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);
