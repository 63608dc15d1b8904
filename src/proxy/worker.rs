//! The worker threads of the data plane. A session stays on its worker until it ends. A new session goes to the worker
//! with the fewest sessions, because mail sessions last for hours.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc};

use crate::auth::AuthClient;
use crate::dns::Dns;
use crate::net::Descriptors;

use super::affinity::ExclusiveUsers;
use super::balance::Balancer;
use super::context::WorkerContext;
use super::dispatch::{Dispatcher, Work};
use super::metrics::Metrics;
use super::refusals::Refusals;
use super::session;
use super::sessions::Sessions;
use super::source_addresses::ChangedSources;

/// All workers. Their threads end when this and all accept loops are dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    dispatcher: Arc<Dispatcher>,
    sessions: Arc<Sessions>,
    sources: Arc<ChangedSources>,
    refusals: Arc<Refusals>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, at least one. `process` is random.
    ///
    /// # Errors
    /// The system refuses a thread or an event queue.
    pub(crate) fn start(
        (count, process): (usize, u64),
        metrics: &Metrics,
        dns: &Arc<Dns>,
        exclusive: &ExclusiveUsers,
    ) -> io::Result<Self> {
        let sessions = Arc::new(Sessions::new(count.max(1)));
        let balancer = Arc::new(Balancer::default());
        let sources = Arc::new(ChangedSources::default());
        let refusals = Arc::new(Refusals::default());
        let descriptors = Descriptors::of_process(count).sessions;
        let lingering = Arc::new(Semaphore::new(lingering(descriptors)));
        let mut threads = Vec::new();
        let (dispatcher, queues) = Dispatcher::new(count.max(1), process, descriptors);
        let dispatcher = Arc::new(dispatcher);
        for (index, work) in queues.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let context = Arc::new(WorkerContext {
                auth: AuthClient::new(Arc::clone(dns), dispatcher.quota().clone()),
                dns: Arc::clone(dns),
                balancer: Arc::clone(&balancer),
                sources: Arc::clone(&sources),
                refusals: Arc::clone(&refusals),
                routes: Arc::clone(&metrics.routes),
                lingering: Arc::clone(&lingering),
                sessions: sessions.shard(index),
                exclusive: exclusive.clone(),
            });
            let thread = std::thread::Builder::new()
                .name(format!("mail-{index}"))
                .spawn(move || runtime.block_on(work_off(work, context)))?;
            threads.push(thread);
        }
        Ok(Self { dispatcher, sessions, sources, refusals, threads })
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

    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Waits until all sessions have ended.
    pub(crate) async fn idle(&self) {
        self.dispatcher.idle().await;
    }

    /// Returns the number of threads.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }
}

async fn work_off(mut queue: mpsc::Receiver<Work>, context: Arc<WorkerContext>) {
    while let Some(work) = queue.recv().await {
        match work {
            Work::Session(incoming) => drop(tokio::spawn(session::run(incoming, Arc::clone(&context)))),
            Work::Start(start) => start(&context),
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
