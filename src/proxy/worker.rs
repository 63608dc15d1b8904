//! The worker threads of the data plane. A session stays on its worker until it ends. A new session goes to the worker
//! with the fewest sessions, because mail sessions last for hours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::{AuthClient, Quota};
use crate::dns::Dns;
use crate::model::{Auth, SessionId, Snapshot};
use crate::net::Descriptors;

use super::accept::AcceptLoop;
use super::affinity::ExclusiveUsers;
use super::balance::Balancer;
use super::metrics::Metrics;
use super::session::{self, Incoming};
use super::sessions::{Sessions, Shard};
use super::source_addresses::ChangedSources;

/// All workers. Their threads end when this and all accept loops are dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    dispatcher: Arc<Dispatcher>,
    sessions: Arc<Sessions>,
    sources: Arc<ChangedSources>,
    threads: Vec<JoinHandle<()>>,
}

/// Distributes work to the workers. Accept loops share it.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: Vec<Worker>,
    sessions: TaskTracker,
    /// Random, for the ids of sessions.
    process: u64,
    /// Sessions that have started.
    started: AtomicU64,
    /// File descriptors available for sessions.
    descriptors: usize,
    /// Descriptors that one session may need. They are reserved when the session starts.
    each: AtomicUsize,
    /// Limits connections to auth services.
    quota: Quota,
}

#[derive(Debug)]
struct Worker {
    queue: mpsc::Sender<Work>,
    load: Arc<AtomicUsize>,
}

pub(crate) enum Work {
    /// A listening socket to accept from.
    Accept(AcceptLoop),
    /// A connection that another worker accepted.
    Session(Incoming),
}

/// Counts a session on its worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    load: Arc<AtomicUsize>,
    _session: TaskTrackerToken,
}

/// What all sessions of one worker share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    /// Pooled connections to auth services.
    pub(crate) auth: AuthClient,
    /// Resolves the names of backends, auth services and clients.
    pub(crate) dns: Arc<Dns>,
    /// Shared by all workers.
    pub(crate) balancer: Arc<Balancer>,
    /// Client addresses for the report.
    pub(crate) sources: Arc<ChangedSources>,
    /// Permits for refused connections whose close waits for the client.
    pub(crate) lingering: Arc<Semaphore>,
    /// Lists the sessions that are relayed.
    pub(crate) sessions: Arc<Shard>,
    /// Admits exclusive users.
    pub(crate) exclusive: ExclusiveUsers,
}

impl Workers {
    /// Starts `count` threads, at least one. `process` is random.
    ///
    /// # Errors
    /// The system refuses a thread or an event queue.
    pub(crate) fn start(
        (count, process): (usize, u64),
        metrics: &Arc<Metrics>,
        dns: &Arc<Dns>,
        exclusive: &ExclusiveUsers,
    ) -> io::Result<Self> {
        let sessions = Arc::new(Sessions::new(count.max(1)));
        let balancer = Arc::new(Balancer::default());
        let sources = Arc::new(ChangedSources::default());
        let descriptors = Descriptors::of_process(count).sessions;
        let lingering = Arc::new(Semaphore::new(lingering(descriptors)));
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        let mut queues = Vec::new();
        for _ in 0..count.max(1) {
            let (queue, work) = mpsc::channel(QUEUE);
            workers.push(Worker { queue, load: Arc::default() });
            queues.push(work);
        }
        let dispatcher = Arc::new(Dispatcher {
            workers,
            sessions: TaskTracker::new(),
            process,
            started: AtomicU64::new(0),
            descriptors,
            each: AtomicUsize::new(SESSION_DESCRIPTORS),
            quota: Quota::new(usize::MAX),
        });
        for (index, work) in queues.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let context = Arc::new(WorkerContext {
                auth: AuthClient::new(Arc::clone(dns), dispatcher.quota.clone()),
                dns: Arc::clone(dns),
                balancer: Arc::clone(&balancer),
                sources: Arc::clone(&sources),
                lingering: Arc::clone(&lingering),
                sessions: sessions.shard(index),
                exclusive: exclusive.clone(),
            });
            let metrics = Arc::clone(metrics);
            let thread = std::thread::Builder::new()
                .name(format!("mail-{index}"))
                .spawn(move || runtime.block_on(work_off(work, context, metrics)))?;
            threads.push(thread);
        }
        Ok(Self { dispatcher, sessions, sources, threads })
    }

    pub(crate) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub(crate) fn sources(&self) -> &Arc<ChangedSources> {
        &self.sources
    }

    /// Waits until all sessions have ended.
    pub(crate) async fn idle(&self) {
        self.dispatcher.sessions.close();
        self.dispatcher.sessions.wait().await;
    }

    /// Returns the number of threads.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Dispatcher {
    /// Selects the worker with the fewest sessions and reserves a seat there.
    pub(crate) fn seat(&self) -> (usize, Seat) {
        let load = |(_, worker): &(usize, &Worker)| worker.load.load(Ordering::Relaxed);
        let index = self.workers.iter().enumerate().min_by_key(load).map_or(0, |(index, _)| index);
        (index, self.seat_at(index))
    }

    /// Adapts the number of descriptors per session to a snapshot. With an auth service, each session may need a
    /// connection to it. This connection stays counted after the login, because it is kept for the next one: used and
    /// kept connections together are at most as many as sessions.
    pub(crate) fn provide_for(&self, snapshot: &Snapshot) {
        let mut listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
        let asks = listeners.any(|listener| matches!(listener.auth, Auth::Http(_)));
        self.each.store(SESSION_DESCRIPTORS + usize::from(asks), Ordering::Relaxed);
        self.quota.set(self.capacity());
    }

    /// Tells whether another session could leave the open sessions without a descriptor for their backend or auth
    /// service.
    pub(crate) fn is_full(&self) -> bool {
        let open: usize = self.workers.iter().map(|worker| worker.load.load(Ordering::Relaxed)).sum();
        open >= self.capacity()
    }

    /// Returns the maximum number of sessions, at least one.
    pub(crate) fn capacity(&self) -> usize {
        (self.descriptors / self.each.load(Ordering::Relaxed).max(1)).max(1)
    }

    /// Reserves a seat on the worker with this index.
    pub(crate) fn seat_at(&self, index: usize) -> Seat {
        let load = self.workers.get(index).map(|worker| Arc::clone(&worker.load)).unwrap_or_default();
        load.fetch_add(1, Ordering::Relaxed);
        Seat { load, _session: self.sessions.token() }
    }

    /// Returns the id of a new session.
    pub(crate) fn next_id(&self) -> SessionId {
        let before = self.started.fetch_add(1, Ordering::Relaxed);
        SessionId { process: self.process, number: before.wrapping_add(1) }
    }

    /// Hands work over. Waits while the worker has [`QUEUE`] items pending.
    pub(crate) async fn give(&self, index: usize, work: Work) {
        if let Some(worker) = self.workers.get(index) {
            // A worker ends only with the process.
            let _ = worker.queue.send(work).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn work_off(mut queue: mpsc::Receiver<Work>, context: Arc<WorkerContext>, metrics: Arc<Metrics>) {
    while let Some(work) = queue.recv().await {
        match work {
            Work::Session(incoming) => drop(tokio::spawn(session::run(incoming, Arc::clone(&context)))),
            Work::Accept(accept) => {
                drop(tokio::spawn(accept.run(Arc::clone(&context), metrics.accept_pauses.clone())));
            }
        }
    }
}

/// Maximum number of refused connections whose close waits for the client, in the whole process. Each needs a
/// descriptor.
fn lingering(descriptors: usize) -> usize {
    (descriptors / 8).clamp(1, MAX_LINGERING)
}

/// Upper bound of [`lingering`], however many descriptors there are.
const MAX_LINGERING: usize = 256;

/// The client's connection and the backend's.
const SESSION_DESCRIPTORS: usize = 2;

/// Work items pending for each worker.
const QUEUE: usize = 1024;
