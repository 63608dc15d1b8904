//! Carries out plans: binds, swaps and drains sockets, and reports what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::dns::Dns;
use crate::model::{BindReport, ListenerId, Snapshot, Socket, SocketState};
use crate::net::ListenAddress;
use crate::net::socket::{self, Listening};
use crate::tls::TlsError;

use super::health::HealthChecks;
use super::listener::AcceptLoop;
use super::metrics::Metrics;
use super::plan::{Action, plan};
use super::serving::{Lives, Serving};
use super::worker::{Work, Workers};
use super::{Channels, Options};

/// The one owner of all listening sockets.
#[derive(Debug)]
pub(crate) struct Supervisor {
    options: Options,
    channels: Channels,
    workers: Workers,
    metrics: Arc<Metrics>,
    dns: Arc<Dns>,
    lives: Lives,
    health: HealthChecks,
    running: BTreeMap<ListenAddress, Running>,
    failed: BTreeMap<ListenAddress, String>,
    /// Cancelled when every session has to say goodbye.
    goodbye: CancellationToken,
}

/// What the supervisor wakes up for.
enum Event {
    Snapshot,
    /// It is time to try again what could not be bound.
    Retry,
    Shutdown,
}

/// A socket that is bound.
#[derive(Debug)]
struct Running {
    socket: Arc<Socket>,
    listening: Vec<Arc<Listening>>,
    serving: Arc<ArcSwap<Serving>>,
    stop: CancellationToken,
    accepting: TaskTracker,
}

impl Supervisor {
    pub(crate) fn new(
        options: Options,
        channels: Channels,
        workers: Workers,
        metrics: Arc<Metrics>,
        dns: Arc<Dns>,
    ) -> Self {
        let health = HealthChecks::new(Arc::clone(&dns), Arc::clone(&metrics));
        Self {
            options,
            channels,
            workers,
            metrics,
            dns,
            health,
            lives: Lives::default(),
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            goodbye: CancellationToken::new(),
        }
    }

    /// Follows the snapshots until `shutdown`, then drains.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        info!(workers = self.workers.count(), "the data plane is up");
        let mut retry = Backoff::default();
        loop {
            let snapshot = Arc::clone(&self.channels.snapshots.borrow_and_update());
            if snapshot.revision > 0 {
                self.apply(&snapshot).await;
            }
            let again = retry.next(self.failed.is_empty());
            match self.next_event(again, &shutdown).await {
                Event::Snapshot => retry.reset(),
                Event::Retry => {}
                Event::Shutdown => break,
            }
        }
        self.shut_down().await;
    }

    /// What there is to do next; meanwhile, what the health checks find is reported.
    async fn next_event(&mut self, again: Instant, shutdown: &CancellationToken) -> Event {
        let revision = self.channels.snapshots.borrow().revision;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Event::Shutdown,
                changed = self.channels.snapshots.changed() => {
                    if changed.is_err() {
                        shutdown.cancelled().await;
                        return Event::Shutdown;
                    }
                    return Event::Snapshot;
                }
                () = sleep_until(again), if !self.failed.is_empty() => return Event::Retry,
                () = self.health.changed() => self.report(revision),
            }
        }
    }

    async fn apply(&mut self, snapshot: &Snapshot) {
        let running =
            self.running.iter().map(|(address, r)| (address.clone(), Arc::clone(&r.socket))).collect();
        let before = std::mem::take(&mut self.failed);
        for action in plan(&running, &snapshot.sockets) {
            let label = match &action {
                Action::Drain(_) => "drain",
                Action::Swap(_) => "swap",
                Action::Rebind(_) => "rebind",
                Action::Bind(_) => "bind",
            };
            self.metrics.swaps.with_label_values(&[label]).inc();
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
        self.forget(snapshot);
        self.report(snapshot.revision);
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
                    warn!("{address} speaks plain TCP: the kernel has no Multipath TCP for it");
                }
                self.running.insert(address, running);
            }
            Err(reason) => {
                if before.get(&address) != Some(&reason) {
                    warn!(listeners = %names(&socket), "cannot listen on {address}, trying again: {reason}");
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
                };
                dispatcher.give(home, Work::Accept(accept)).await;
            }
        }
        accepting.close();
        let listening = listening.into_iter().flatten().collect();
        Ok(Running { socket: Arc::clone(socket), listening, serving, stop, accepting })
    }

    fn ready(&self, socket: &Arc<Socket>, previous: Option<&Serving>) -> Result<Serving, TlsError> {
        Serving::new(socket, previous, &self.lives, &self.metrics, &self.health, &self.goodbye)
    }

    /// The socket stays; new sessions get the new configuration.
    fn swap(&mut self, socket: Arc<Socket>) {
        let Some(running) = self.running.get(&socket.address) else { return };
        let ready = self.ready(&socket, Some(&running.serving.load_full()));
        let Some(running) = self.running.get_mut(&socket.address) else { return };
        match ready {
            Ok(serving) => {
                running.serving.store(Arc::new(serving));
                if running.socket.options != socket.options {
                    running.tune(&socket);
                }
                running.socket = socket;
            }
            Err(error) => {
                warn!(listeners = %names(&socket), "{} keeps its last configuration: {error}", socket.address);
                self.failed.insert(socket.address.clone(), error.to_string());
            }
        }
    }

    /// Stops accepting at once; sessions go on. The socket is closed when this returns.
    async fn drain(&mut self, address: &ListenAddress) {
        let Some(running) = self.running.remove(address) else { return };
        running.close().await;
        info!(listeners = %names(&running.socket), "stopped listening on {address}");
    }

    async fn shut_down(mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            running.close().await;
        }
        info!(timeout = ?self.options.drain_timeout, "stopped listening; waiting for sessions to end");
        if timeout(self.options.drain_timeout, self.workers.idle()).await.is_err() {
            self.goodbye.cancel();
            // Every goodbye is bounded; this is for what is not a session.
            let _ = timeout(LAST_WAIT, self.workers.idle()).await;
        }
        info!("the data plane is down");
    }

    fn report(&self, revision: u64) {
        let bound = self.running.iter().map(|(address, r)| (address.clone(), SocketState::Bound(r.bound())));
        let mut sockets: BTreeMap<_, _> = bound.collect();
        let failed =
            self.failed.iter().map(|(address, why)| (address.clone(), SocketState::Failed(why.clone())));
        sockets.extend(failed);
        let serving: Vec<_> = self.running.values().map(|running| running.serving.load()).collect();
        let backends = serving.iter().flat_map(|serving| serving.backends()).collect();
        self.channels.reports.send_replace(Arc::new(BindReport {
            revision,
            sockets,
            backends,
            ..BindReport::default()
        }));
    }

    /// Listeners that are gone: their sessions may go on until the drain timeout. And the certificates, health checks
    /// and resolvers' zones of those that are served.
    fn forget(&self, snapshot: &Snapshot) {
        let listeners = || snapshot.sockets.values().flat_map(|socket| &socket.listeners);
        let ids: BTreeSet<&ListenerId> = listeners().map(|listener| &listener.id).collect();
        self.lives.end(|id| ids.contains(id), self.options.drain_timeout);
        self.metrics.retain(|id| ids.contains(id));
        self.health.keep(listeners());
        self.dns.keep_zones(&listeners().filter_map(|l| l.resolver.statistics_zone.as_deref()).collect());
        self.metrics.certificate_expiry.reset();
        for certificate in listeners().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificates) {
            self.metrics
                .certificate_expiry
                .with_label_values(&[certificate.reference.as_str()])
                .set(certificate.not_after);
        }
    }
}

impl Running {
    fn bound(&self) -> Vec<SocketAddr> {
        self.listening.iter().filter_map(|listening| listening.local_address()).collect()
    }

    /// Whether Multipath TCP is asked for and the kernel has none; UNIX sockets never have it.
    fn lacks_multipath(&self) -> bool {
        let plain = |l: &Arc<Listening>| l.local_address().is_some() && !l.is_multipath();
        self.socket.options.multipath && self.listening.iter().any(plain)
    }

    /// Ends the accept loops and waits until they have let go of the socket.
    async fn close(&self) {
        self.stop.cancel();
        if timeout(CLOSE_WAIT, self.accepting.wait()).await.is_err() {
            warn!("{} is still accepting", self.socket.address);
        }
    }

    /// Options that a listening socket can change.
    fn tune(&self, socket: &Socket) {
        for listening in &self.listening {
            if let Err(error) = socket::tune(listening, &socket.options) {
                warn!(%error, "cannot change the socket options of {}", socket.address);
            }
        }
    }
}

fn names(socket: &Socket) -> String {
    socket.listeners.iter().map(|listener| listener.id.to_string()).collect::<Vec<_>>().join(", ")
}

/// When failed sockets are tried again: soon, then less and less often.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self, healthy: bool) -> Instant {
        self.0 = if healthy { 0 } else { self.0.saturating_add(1) };
        Instant::now() + RETRY_FIRST.saturating_mul(1 << self.0.min(7)).min(RETRY_MOST)
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The first retry of a socket that could not be bound comes after twice this.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest pause between retries.
const RETRY_MOST: Duration = Duration::from_secs(10);

/// For accept loops to end; they only have to wake up.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// After the goodbye, for sessions to write it and close.
const LAST_WAIT: Duration = Duration::from_secs(6);
