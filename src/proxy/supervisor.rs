//! Carries out plans: binds, swaps and drains sockets, and reports their state to the controller.

mod exclusive;
mod shutdown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::dns::{Dns, Target};
use crate::model::{ListenerId, Resolver, SharedTicketKeys, Snapshot, Socket, SocketState};
use crate::net::socket;
use crate::net::{Backoff, ListenAddress};
use crate::tls::TlsError;

use super::accept::AcceptLoop;
use super::affinity::{ExclusiveUsers, Openings};
use super::health::HealthChecks;
use super::holds::Holds;
use super::journal::{FAILED, Journal, difference, names};
use super::leaving::Leaving;
use super::metrics::Metrics;
use super::observer::Observer;
use super::plan::{Action, Diff, plan};
use super::registration::Registrations;
use super::report::Reporter;
use super::running::Running;
use super::serving::{ListenerStates, Serving, ServingContext};
use super::worker::Workers;
use super::{Channels, Options, upstreams};

/// Owns all listening sockets.
#[derive(Debug)]
pub(crate) struct Supervisor {
    options: Options,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    tickets: SharedTicketKeys,
    reporter: Reporter,
    workers: Workers,
    metrics: Arc<Metrics>,
    dns: Arc<Dns>,
    silent: watch::Receiver<Arc<Vec<Resolver>>>,
    states: ListenerStates,
    health: HealthChecks,
    journal: Arc<Journal>,
    running: BTreeMap<ListenAddress, Running>,
    failed: BTreeMap<ListenAddress, String>,
    /// The snapshot that was applied last.
    applied: Arc<Snapshot>,
    registrations: Registrations,
    /// Cancelled when all sessions have to end with a closing message.
    goodbye: CancellationToken,
    holds: Holds,
    leaving: Leaving,
    exclusive: ExclusiveUsers,
    openings: Openings,
}

/// Why the supervisor wakes up.
enum Event {
    Snapshot,
    /// Time to retry sockets that could not be bound.
    Retry,
    Shutdown,
}

impl Supervisor {
    pub(crate) fn new(
        options: Options,
        channels: Channels,
        workers: Workers,
        metrics: Arc<Metrics>,
        dns: Arc<Dns>,
    ) -> Self {
        let journal = Arc::clone(&metrics.journal);
        let health = HealthChecks::new(Arc::clone(&dns), Arc::clone(&metrics));
        let registrations = Registrations::new(&metrics, &dns);
        Self {
            options,
            snapshots: channels.snapshots,
            tickets: channels.tickets,
            reporter: Reporter::new(channels.reports),
            workers,
            metrics,
            silent: dns.silent(),
            dns,
            registrations,
            journal,
            health,
            states: ListenerStates::default(),
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            applied: Arc::default(),
            goodbye: CancellationToken::new(),
            holds: Holds::default(),
            leaving: Leaving::default(),
            exclusive: channels.exclusive,
            openings: Openings::default(),
        }
    }

    pub(crate) fn observer(&self) -> Observer {
        let (sessions, refusals) = (self.workers.sessions(), self.workers.refusals());
        Observer::new(Arc::clone(&self.metrics), Arc::clone(sessions), Arc::clone(refusals))
    }

    /// Applies snapshots until `shutdown`, then drains.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        info!(workers = self.workers.count(), "data plane started");
        let users = self.exclusive.clone().run(Arc::clone(self.workers.sessions()));
        let _users = AbortOnDropHandle::new(tokio::spawn(users));
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            if snapshot.revision > 0 {
                self.apply(snapshot).await;
            }
            let again = Instant::now() + backoff.pause();
            match self.next_event(again, &shutdown).await {
                Event::Snapshot => backoff.reset(),
                Event::Retry => {}
                Event::Shutdown => break,
            }
        }
        self.shut_down().await;
    }

    /// Waits for the next event. Meanwhile it reports changes of health checks, client addresses and resolvers.
    async fn next_event(&mut self, again: Instant, shutdown: &CancellationToken) -> Event {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Event::Shutdown,
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        shutdown.cancelled().await;
                        return Event::Shutdown;
                    }
                    return Event::Snapshot;
                }
                () = sleep_until(again), if !self.failed.is_empty() => return Event::Retry,
                () = self.health.changed() => self.report_health(),
                () = self.holds.next() => {
                    if self.count_held() {
                        self.report();
                    }
                }
                () = self.leaving.next() => self.leaving.pass(self.workers.sessions(), Instant::now()),
                () = self.openings.next() => self.serve_groups(),
                () = self.workers.sources().settled() => self.report(),
                Ok(()) = self.silent.changed() => self.report(),
            }
        }
    }

    async fn apply(&mut self, snapshot: Arc<Snapshot>) {
        let dispatcher = self.workers.dispatcher();
        dispatcher.provide_for(&snapshot);
        self.metrics.session_capacity.set(i64::try_from(dispatcher.capacity()).unwrap_or(i64::MAX));
        let running = self.running.iter().map(|(address, running)| (address, &running.socket));
        let actions = plan(running, &snapshot.sockets);
        let before = std::mem::take(&mut self.failed);
        let mut touched: BTreeSet<ListenAddress> = before.keys().cloned().collect();
        for action in actions {
            self.metrics.swaps.with_label_values(&[action.name()]).inc();
            touched.insert(action.address().clone());
            match action {
                Action::Drain(address) => self.drain(&address).await,
                Action::Swap(socket) => self.swap(socket),
                Action::Rebind(socket) => {
                    self.drain(&socket.address).await;
                    self.bind(socket, &before).await;
                }
                Action::Bind(socket) => self.bind(socket, &before).await,
            }
        }
        if !touched.is_empty() {
            self.dns.refuse(self.own_targets());
        }
        for address in touched {
            self.reporter.socket(&address, self.state(&address));
        }
        self.leaving.observe(&snapshot, Instant::now());
        self.replace_listeners(snapshot);
        self.serve_groups();
        self.report_health_of_routes();
        self.count_held();
        self.report();
    }

    /// Ends sessions of held routes that are due, and counts those that are left. Returns whether their number has
    /// changed.
    fn count_held(&mut self) -> bool {
        let serving = self.serving();
        let listeners = serving.iter().flat_map(|serving| serving.all());
        let held = self.holds.pass(listeners, self.states.ending(), self.workers.sessions(), Instant::now());
        self.reporter.held(held)
    }

    /// Returns the addresses at which clients reach this process.
    fn own_targets(&self) -> BTreeSet<Target> {
        let of = |(address, running): (&ListenAddress, &Running)| match address {
            ListenAddress::Unix(path) => vec![Target::Unix(path.clone())],
            _ => running.bound().into_iter().map(Target::Tcp).collect(),
        };
        self.running.iter().flat_map(of).collect()
    }

    /// Returns what the sessions of each socket get.
    fn serving(&self) -> Vec<Arc<Serving>> {
        self.running.values().map(|running| running.serving.load_full()).collect()
    }

    fn state(&self, address: &ListenAddress) -> Option<SocketState> {
        let failed = self.failed.get(address).map(|why| SocketState::Failed(why.clone()));
        failed.or_else(|| Some(SocketState::Bound(self.running.get(address)?.bound())))
    }

    async fn bind(&mut self, socket: Arc<Socket>, before: &BTreeMap<ListenAddress, String>) {
        let address = socket.address.clone();
        match self.try_bind(&socket).await {
            Ok(running) => {
                info!(
                    listeners = %names(&socket), protocol = socket.protocol.name(),
                    bound = ?running.bound(), "listening on {address}"
                );
                if running.lacks_multipath() {
                    warn!("using plain TCP on {address}: the kernel does not support Multipath TCP");
                }
                self.journal.changed("bound", &address, names(&socket), SystemTime::now());
                self.report_health_of(&running.serving.load_full());
                self.running.insert(address, running);
            }
            Err(reason) => {
                if before.get(&address) != Some(&reason) {
                    warn!(listeners = %names(&socket), "cannot listen on {address}, trying again: {reason}");
                    let text = format!("{}: {reason}", names(&socket));
                    self.journal.changed(FAILED, &address, text, SystemTime::now());
                }
                self.metrics.swaps.with_label_values(&["failed"]).inc();
                self.failed.insert(address, reason);
            }
        }
    }

    async fn try_bind(&self, socket: &Arc<Socket>) -> Result<Running, String> {
        let serving = self.ready(socket, None).map_err(|error| error.to_string())?;
        let serving = Arc::new(ArcSwap::from_pointee(serving));
        let sets = if socket.options.reuse_port { self.workers.count() } else { 1 };
        let mut listening = Vec::new();
        for _ in 0..sets {
            let bound = socket::bind(&socket.address, &socket.options).map_err(|error| error.to_string())?;
            listening.push(bound.into_iter().map(Arc::new).collect::<Vec<_>>());
        }
        let stop = CancellationToken::new();
        let accepting = TaskTracker::new();
        let dispatcher = self.workers.dispatcher();
        for (worker, set) in listening.iter().enumerate() {
            for (index, listening) in set.iter().enumerate() {
                let home = (worker + index + self.running.len()) % self.workers.count().max(1);
                let accept = AcceptLoop {
                    listening: Arc::clone(listening),
                    serving: Arc::clone(&serving),
                    dispatcher: Arc::clone(dispatcher),
                    home,
                    keeps: socket.options.reuse_port,
                    stop: stop.clone(),
                    running: accepting.token(),
                    pauses: self.metrics.accept_pauses.clone(),
                };
                dispatcher.give(home, accept.start()).await;
            }
        }
        accepting.close();
        let listening = listening.into_iter().flatten().collect();
        Ok(Running { socket: Arc::clone(socket), listening, serving, stop, accepting })
    }

    fn ready(&self, socket: &Arc<Socket>, previous: Option<&Serving>) -> Result<Serving, TlsError> {
        let context = ServingContext {
            states: &self.states,
            metrics: &self.metrics,
            health: &self.health,
            goodbye: &self.goodbye,
            tickets: &self.tickets,
        };
        Serving::new(socket, previous, context)
    }

    /// Keeps the socket; new sessions get the new configuration.
    fn swap(&mut self, socket: Arc<Socket>) {
        let Some(running) = self.running.get(&socket.address) else { return };
        let ready = self.ready(&socket, Some(&running.serving.load_full()));
        let Some(running) = self.running.get_mut(&socket.address) else { return };
        match ready {
            Ok(serving) => {
                let other = difference(&running.socket, &socket);
                self.journal.changed("swapped", &socket.address, other, SystemTime::now());
                running.serving.store(Arc::new(serving));
                if running.socket.options != socket.options {
                    running.tune(&socket);
                }
                running.socket = socket;
            }
            Err(error) => {
                warn!(listeners = %names(&socket), "{}: cannot apply the new configuration, keeping the previous one: {error}", socket.address);
                self.journal.changed(FAILED, &socket.address, error.to_string(), SystemTime::now());
                self.failed.insert(socket.address.clone(), error.to_string());
            }
        }
    }

    /// Stops accepting; sessions continue. The socket is closed when this returns.
    async fn drain(&mut self, address: &ListenAddress) {
        let Some(running) = self.running.remove(address) else { return };
        running.close().await;
        info!(listeners = %names(&running.socket), "stopped listening on {address}");
        self.journal.changed("closed", address, names(&running.socket), SystemTime::now());
    }

    /// Sends a report with all changes.
    fn report(&mut self) {
        for (listener, sources) in self.workers.sources().take() {
            // Ignore a session of a removed listener.
            if self.states.has(&listener) {
                self.reporter.source_addresses(&listener, Some(sources));
            }
        }
        self.reporter.silent_resolvers(Arc::clone(&self.silent.borrow_and_update()));
        self.reporter.send(self.applied.revision);
    }

    fn report_health(&mut self) {
        for serving in self.serving() {
            self.report_health_of(&serving);
        }
        self.report_health_of_routes();
        self.report();
    }

    fn report_health_of_routes(&mut self) {
        let serving = self.serving();
        let listeners = serving.iter().flat_map(|serving| serving.all());
        self.reporter.routes(upstreams::health_of_routes(
            listeners.map(|served| (served.routes.load(), served.listener.frontend.protocol)),
        ));
    }

    fn report_health_of(&mut self, serving: &Serving) {
        for served in serving.all() {
            if let Some(health) = &served.upstream.health {
                self.reporter.backend(&served.listener.id, health.report());
            }
        }
    }

    /// Handles removed and added listeners. Sessions of removed ones may continue until the drain timeout.
    fn replace_listeners(&mut self, snapshot: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.applied, Arc::clone(&snapshot));
        let diff = Diff::new(&before, &snapshot);
        let added: BTreeSet<&ListenerId> = diff.added.iter().map(|listener| &listener.id).collect();
        let removed =
            diff.removed.iter().map(|listener| &listener.id).filter(|id| !added.contains(id)).collect();
        self.states.turn(&removed, &added, self.options.drain_timeout);
        self.registrations.turn(&diff, &self.health);
        for id in removed {
            self.reporter.source_addresses(id, None);
            self.reporter.backend(id, None);
        }
        for listener in &diff.added {
            self.reporter.backend(&listener.id, self.health.report(listener));
        }
    }
}

/// Delay before the first retry of a socket that could not be bound.
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Longest delay between two attempts.
const RETRY_MOST: Duration = Duration::from_secs(10);
