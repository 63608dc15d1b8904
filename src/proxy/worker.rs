//! The data plane's own threads. A session runs on the worker that it was given until it ends; a new one
//! goes to the worker with the fewest, because mail sessions live for hours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::{AuthClient, Quota};
use crate::dns::Dns;
use crate::model::{Auth, Snapshot};
use crate::net::Descriptors;

use super::balance::Balancer;
use super::listener::AcceptLoop;
use super::metrics::Metrics;
use super::session::{self, Incoming};
use super::source_addresses::ChangedSources;

/// All workers; their threads end when this and every accept loop is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    dispatcher: Arc<Dispatcher>,
    sources: Arc<ChangedSources>,
    threads: Vec<JoinHandle<()>>,
}

/// Where new work is handed over; shared by the accept loops.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: Vec<Worker>,
    sessions: TaskTracker,
    /// File descriptors that sessions may have.
    descriptors: usize,
    /// Descriptors that one session may need: an open session is sure to get those it has not yet.
    each: AtomicUsize,
    /// Connections to auth services.
    quota: Quota,
}

#[derive(Debug)]
struct Worker {
    queue: mpsc::Sender<Work>,
    load: Arc<AtomicUsize>,
}

/// What a worker is given.
pub(crate) enum Work {
    /// A listening socket to accept from.
    Accept(AcceptLoop),
    /// A connection that another worker accepted.
    Session(Incoming),
}

/// A session's place on its worker, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    load: Arc<AtomicUsize>,
    _session: TaskTrackerToken,
}

/// What sessions of one worker share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    /// Pooled connections to auth services.
    pub(crate) auth: AuthClient,
    /// Names of backends.
    pub(crate) dns: Arc<Dns>,
    /// Endpoint choice, over all workers.
    pub(crate) balancer: Arc<Balancer>,
    /// Whose addresses clients come with, for the report.
    pub(crate) sources: Arc<ChangedSources>,
    /// Room for refused connections that are waited for.
    pub(crate) lingering: Arc<Semaphore>,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub(crate) fn start(count: usize, metrics: &Arc<Metrics>, dns: &Arc<Dns>) -> io::Result<Self> {
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
            });
            let metrics = Arc::clone(metrics);
            let thread = std::thread::Builder::new()
                .name(format!("mail-{index}"))
                .spawn(move || runtime.block_on(work_off(work, context, metrics)))?;
            threads.push(thread);
        }
        Ok(Self { dispatcher, sources, threads })
    }

    /// Where accept loops and sessions are handed over.
    pub(crate) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// Whose addresses clients come with.
    pub(crate) fn sources(&self) -> &Arc<ChangedSources> {
        &self.sources
    }

    /// Waits until every session has ended.
    pub(crate) async fn idle(&self) {
        self.dispatcher.sessions.close();
        self.dispatcher.sessions.wait().await;
    }

    /// The number of threads.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Dispatcher {
    /// The worker with the fewest sessions, and a seat there.
    pub(crate) fn seat(&self) -> (usize, Seat) {
        let load = |(_, worker): &(usize, &Worker)| worker.load.load(Ordering::Relaxed);
        let index = self.workers.iter().enumerate().min_by_key(load).map_or(0, |(index, _)| index);
        (index, self.seat_at(index))
    }

    /// Follows what is served from now on: where an auth service is asked, each session may need a connection to it.
    /// It stays counted after the login, since the connection stays open for the next one: of used and kept connections
    /// there are at most as many as sessions.
    pub(crate) fn provide_for(&self, snapshot: &Snapshot) {
        let mut listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
        let asks = listeners.any(|listener| matches!(listener.auth, Auth::Http { .. }));
        self.each.store(SESSION_DESCRIPTORS + usize::from(asks), Ordering::Relaxed);
        self.quota.set(self.capacity());
    }

    /// Whether one session more could leave those that are here without a descriptor for their backend, or for the
    /// auth service.
    pub(crate) fn is_full(&self) -> bool {
        let open: usize = self.workers.iter().map(|worker| worker.load.load(Ordering::Relaxed)).sum();
        open >= self.capacity()
    }

    /// Sessions at once; one is always let in.
    pub(crate) fn capacity(&self) -> usize {
        (self.descriptors / self.each.load(Ordering::Relaxed).max(1)).max(1)
    }

    /// A seat on a certain worker.
    pub(crate) fn seat_at(&self, index: usize) -> Seat {
        let load = self.workers.get(index).map(|worker| Arc::clone(&worker.load)).unwrap_or_default();
        load.fetch_add(1, Ordering::Relaxed);
        Seat { load, _session: self.sessions.token() }
    }

    /// Hands work over; waits when the worker is behind by more than [`QUEUE`].
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

/// Refused connections that may wait for their peers at once, in the whole process. Each is a descriptor.
fn lingering(descriptors: usize) -> usize {
    (descriptors / 8).clamp(1, MAX_LINGERING)
}

/// Refused connections that are waited for, however many descriptors there are.
const MAX_LINGERING: usize = 256;

/// The client's connection and the backend's.
const SESSION_DESCRIPTORS: usize = 2;

/// Connections handed over and not yet taken, for each worker.
const QUEUE: usize = 1024;
