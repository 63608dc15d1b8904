//! Distributes new sessions to the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::auth::Quota;
use crate::model::{Auth, SessionId, Snapshot};

use super::context::{Seat, WorkerContext};
use super::session::Incoming;

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

/// Starts a task on the worker that calls it.
pub(crate) type Start = Box<dyn FnOnce(&Arc<WorkerContext>) + Send>;

/// What a worker is given to do.
pub(crate) enum Work {
    /// To start a task, such as a loop that accepts connections.
    Start(Start),
    /// A connection that another worker accepted.
    Session(Incoming),
}

impl Dispatcher {
    /// Creates the queues of `count` workers. `process` is random. `descriptors` are available for sessions.
    pub(crate) fn new(count: usize, process: u64, descriptors: usize) -> (Self, Vec<mpsc::Receiver<Work>>) {
        let queue = |_| {
            let (queue, work) = mpsc::channel(QUEUE);
            (Worker { queue, load: Arc::default() }, work)
        };
        let (workers, queues) = (0..count).map(queue).unzip();
        let dispatcher = Self {
            workers,
            sessions: TaskTracker::new(),
            process,
            started: AtomicU64::new(0),
            descriptors,
            each: AtomicUsize::new(SESSION_DESCRIPTORS),
            quota: Quota::new(usize::MAX),
        };
        (dispatcher, queues)
    }

    /// Returns the limit of connections to auth services.
    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Waits until all sessions have ended.
    pub(crate) async fn idle(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }

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
        Seat::new(load, self.sessions.token())
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

/// The client's connection and the backend's.
const SESSION_DESCRIPTORS: usize = 2;

/// Work items pending for each worker.
const QUEUE: usize = 1024;
