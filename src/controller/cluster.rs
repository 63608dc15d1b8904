//! The source with a cluster: objects from the Kubernetes API, watched; status goes back to it.
//!
//! Our own kinds and the labels of namespaces are watched as a whole, Services with all of their namespace, and Secrets
//! and ConfigMaps by their names alone: one that nothing refers to never enters memory. A watch that fails is tried again for ever, and until then
//! what it said last counts, so that the data plane goes on whatever becomes of the API server.

mod pause;
mod resources;
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

use super::index::Reference;
use super::outlet::Outlet;
use super::render::Locality;
use super::validate::{BrokenCrd, Validator};

use store::Store;
use watches::{Event, Watches};
use writer::{Said, Writer};

/// The API server, and what is known from it.
#[derive(Debug)]
pub struct ClusterSource {
    outlet: Outlet,
    store: Store,
    watches: Watches,
    events: mpsc::Receiver<Event>,
    /// To the writer of status.
    said: watch::Sender<Arc<Vec<Said>>>,
    writer: Option<Writer>,
    /// When what was published is told of, even if the data plane has not said what became of it.
    tell_at: Option<Instant>,
    problems: Vec<String>,
    /// Reads the zone of our node, where that is to be known and is not.
    zone: Option<AbortOnDropHandle<Option<String>>>,
}

impl ClusterSource {
    /// For all objects of the cluster, or those in `namespaces` where any are named.
    ///
    /// # Errors
    /// When our own CRDs are broken.
    pub fn new(client: Client, namespaces: &[String], outlet: Outlet) -> Result<Self, BrokenCrd> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let (said, to_write) = watch::channel(Arc::default());
        let writer = Some(Writer::new(client.clone(), to_write));
        let Locality { zone, node } = outlet.locality().clone();
        let zone = node.filter(|_| zone.is_none()).map(|node| zone::of_node(client.clone(), node));
        let zone = zone.map(|reading| AbortOnDropHandle::new(tokio::spawn(reading)));
        let watches = Watches::new(client, Arc::new(Validator::new()?), sender);
        Ok(Self {
            outlet,
            store: Store::new(resources::base(namespaces)),
            watches,
            events,
            said,
            writer,
            tell_at: None,
            problems: Vec::new(),
            zone,
        })
    }

    /// Watches, renders and publishes until it is told to end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if let Some(writer) = self.writer.take() {
            tokio::spawn(writer.run(shutdown.clone()));
        }
        self.follow(&BTreeSet::new());
        let mut look = interval(LOOK_ANYWAY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            let tell_at = self.tell_at;
            let mut changed = false;
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = self.events.recv() => changed = self.settle(event).await,
                () = self.outlet.reported() => self.tell_if_reported(),
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => self.tell(),
                _ = look.tick() => changed = self.look(rendered),
                zone = known(&mut self.zone) => changed = self.locate(zone),
            }
            if changed {
                rendered = Instant::now();
                self.render();
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
        self.tell_problems();
        changed
    }

    /// What passes by itself: patience with a watch, and the time for which certificates are good.
    fn look(&mut self, rendered: Instant) -> bool {
        self.tell_problems();
        self.store.is_held_up() || rendered.elapsed() > RENDER_ANYWAY
    }

    /// Whether endpoints may be chosen anew.
    fn locate(&mut self, zone: Option<String>) -> bool {
        self.zone = None;
        let is_known = zone.is_some();
        self.outlet.locate(Locality { zone, ..self.outlet.locality().clone() });
        is_known
    }

    fn render(&mut self) {
        let now = Instant::now();
        if !self.store.knows_the_base() {
            return;
        }
        let objects = self.store.objects();
        let rendered = self.outlet.look(&objects);
        self.follow(&rendered.references);
        if self.store.wait(!self.outlet.has_published(), now) {
            return;
        }
        self.outlet.publish(rendered);
        self.outlet.recall(|kind, key| self.store.status_of(kind, key).map(|(_, status)| status));
        self.tell_at = Some(now + REPORT_PATIENCE);
        self.tell_if_reported();
    }

    /// Watches what is referred to and the base, and nothing else.
    fn follow(&mut self, references: &BTreeSet<Reference>) {
        let Some(wanted) = self.store.follow(references) else { return };
        self.watches.retain(&wanted);
        for watched in wanted {
            if !self.watches.has(&watched) {
                let id = self.watches.start(&watched);
                self.store.started(watched, id, Instant::now());
            }
        }
    }

    fn tell_if_reported(&mut self) {
        if self.outlet.is_reported() {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        let status = self.outlet.tell(&self.problems);
        let said = status.each().filter_map(|(kind, key, status)| {
            let (uid, observed) = self.store.status_of(kind, key)?;
            let key = key.clone();
            Some(Said { kind, key, uid: uid.to_owned(), status, observed: observed.clone() })
        });
        self.said.send_replace(Arc::new(said.collect()));
    }

    /// Logs problems that are new, and tells the admin server of all.
    fn tell_problems(&mut self) {
        let problems = self.store.problems(Instant::now());
        if problems == self.problems {
            return;
        }
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        if problems.is_empty() {
            tracing::info!("everything that is watched can be read again");
        }
        self.problems = problems;
        self.tell_if_reported();
    }
}

/// Waits until the zone is known, or known to stay unknown; for ever where it is not asked for.
async fn known(zone: &mut Option<AbortOnDropHandle<Option<String>>>) -> Option<String> {
    match zone {
        Some(reading) => reading.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Events that the watches may be ahead.
const MAX_EVENTS: usize = 1024;
/// How long nothing must happen before a render.
const QUIET: Duration = Duration::from_millis(20);
/// How long a change waits at most.
const SETTLE_AT_MOST: Duration = Duration::from_millis(200);
/// How long the data plane may take to bind before the status says that it has not done so.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// Patience with a watch, and with telling its failure, ends without an event.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// Certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);
