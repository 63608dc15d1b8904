//! The source with a cluster: objects from the Kubernetes API, watched; status goes back to it.
//!
//! Our own kinds and the labels of namespaces are watched as a whole, Services with all of their namespace, and Secrets
//! and ConfigMaps by their names alone: one that nothing refers to never enters memory. A watch that fails is tried
//! again for ever, and until then what it said last counts, so that the data plane goes on whatever becomes of the API
//! server.
//!
//! Every replica does this for itself. One leads, and does what must be done once (`lead.rs`).

mod backoff;
mod events;
pub(super) mod failure;
mod follow;
mod lead;
mod lease;
mod own_service;
mod replicas;
mod resources;
mod start;
mod store;
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

use super::index::Key;
use super::metrics::Metrics;
use super::publisher::{Publisher, REPORT_PATIENCE};
use super::render::Locality;
use super::validate::{BrokenCrd, Validator};

use lead::Lead;
pub use start::Start;
use start::Starting;
use store::Store;
use watches::{Event, Watches};

/// How the API server is talked to.
#[derive(Clone)]
pub struct Clients {
    /// For requests that stay open.
    pub watches: Client,
    /// For all others; each ends after some seconds.
    pub requests: Client,
}

/// What there is besides the objects.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The only namespaces that are looked at; all of them when there are none here.
    pub namespaces: Vec<String>,
    /// The Lease that the leader of several replicas holds.
    pub lease: Key,
    /// The Service whose ports are ours, and whose addresses are told.
    pub service: Option<Key>,
    /// The Service whose endpoints are the replicas.
    pub replicas: Option<Key>,
    /// How long a process that starts waits to serve what was served before, while no other replica is ready.
    pub ready_timeout: Duration,
}

/// The API server, and what is known from it.
pub struct ClusterSource {
    publisher: Publisher,
    store: Store,
    watches: Watches,
    events: mpsc::Receiver<Event>,
    clients: Clients,
    options: ClusterOptions,
    problems: Vec<String>,
    start: Starting,
    /// Whether everything was rendered once that can be.
    is_settled: bool,
    /// Reads the zone of our node, where that is to be known and is not.
    zone: Option<AbortOnDropHandle<Option<String>>>,
}

impl ClusterSource {
    /// For the objects of the publisher's class.
    ///
    /// # Errors
    /// When our own CRDs are broken.
    pub fn new(
        clients: Clients,
        options: ClusterOptions,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Result<Self, BrokenCrd> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let publisher = publisher.with_patience(REPORT_PATIENCE);
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
            start,
            is_settled: false,
            zone,
        })
    }

    /// How far the start of this process is: whether it may be sent clients.
    #[must_use]
    pub fn start(&self) -> watch::Receiver<Start> {
        self.start.watch()
    }

    /// Watches, renders and publishes until it is told to end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut lead = Lead::start(&self.clients, &self.options, &self.publisher, &shutdown);
        self.follow();
        let mut look = interval(RESYNC_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            let next_tell = self.publisher.next_tell();
            let mut changed = false;
            let mut compared = BTreeSet::new();
            tokio::select! {
                () = shutdown.cancelled() => return lead.end().await,
                Some(event) = self.events.recv() => changed = self.settle(event).await,
                () = self.publisher.reported() => {}
                news = lead.news() => lead.take(news, &mut self.publisher, &self.store),
                () = sleep_until(next_tell.unwrap_or_else(Instant::now)), if next_tell.is_some() => {}
                _ = look.tick() => {
                    lead.look(&mut self.publisher);
                    self.publisher.count_replicas();
                    compared = self.store.take_due(Instant::now());
                    changed = self.store.index().has_changed() || rendered.elapsed() > RENDER_ANYWAY;
                }
                zone = known(&mut self.zone) => changed = self.locate(zone),
            }
            if changed {
                rendered = Instant::now();
                self.render();
            }
            self.look_for_problems(&lead);
            let mut told = self.publisher.tell(&self.problems);
            told.append(&mut compared);
            lead.say(&told, &mut self.publisher, &self.store);
            lead.ask(self.start.goes_on(), &mut self.publisher);
            if self.has_settled() {
                self.start.look(&self.publisher, &self.store, lead.leads());
                if self.start.may_lead(&self.publisher) {
                    lead.run_for_it(&shutdown);
                }
            }
        }
    }

    /// Takes events until nothing happens for a while, since one change is often several; whether a render could
    /// differ.
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

    /// Whether endpoints may be chosen anew.
    fn locate(&mut self, zone: Option<String>) -> bool {
        self.zone = None;
        let is_known = zone.is_some();
        self.publisher.locate(Locality { zone, ..self.publisher.locality().clone() });
        is_known
    }

    /// Whether this replica has rendered what it can: the API server has answered, or been silent for too long.
    fn has_settled(&mut self) -> bool {
        if !self.is_settled && self.publisher.has_published() && !self.store.awaits_answers(Instant::now()) {
            self.is_settled = true;
            self.store.believe_refusals();
            self.render();
        }
        self.is_settled
    }

    /// Renders what has changed, and watches what objects refer to from now on.
    fn render(&mut self) {
        if !self.store.knows_the_base() {
            return;
        }
        // What is referred to newly may be watched already, with all of its namespace.
        for _ in 0..MAX_RENDERS {
            let references = self.publisher.render(self.store.index());
            self.store.refer(&references);
            self.follow();
            if !self.store.index().has_changed() {
                return;
            }
        }
    }

    /// Watches what is referred to and the base, and nothing else.
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

    /// Logs problems that are new.
    fn look_for_problems(&mut self, lead: &Lead) {
        let mut problems = self.store.problems(Instant::now());
        problems.extend(lead.problems(&self.publisher));
        if problems == self.problems {
            return;
        }
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        if problems.is_empty() {
            tracing::info!("all watches work again");
        }
        self.problems = problems;
    }
}

/// Waits until the zone is known, or known to stay unknown; for ever where it is not asked for.
async fn known(zone: &mut Option<AbortOnDropHandle<Option<String>>>) -> Option<String> {
    match zone {
        Some(reading) => reading.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Says it to those who listen, where it is not what was said last.
fn send_if_other<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|last| {
        let differs = *last != value;
        *last = value;
        differs
    });
}

/// Events that the watches may be ahead.
const MAX_EVENTS: usize = 1024;
/// Renderings of one change at most; the next event goes on.
const MAX_RENDERS: usize = 3;
/// How long nothing must happen before a render.
const QUIET: Duration = Duration::from_millis(20);
/// How long a change waits at most.
const SETTLE_AT_MOST: Duration = Duration::from_millis(200);
/// Patience with watches at the start, and with a failure that is not repeated, ends without an event.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);
