//! What a session gets from its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::AuthClient;
use crate::dns::Dns;

use super::affinity::ExclusiveUsers;
use super::balance::Balancer;
use super::metrics::routes::RouteFamilies;
use super::refusals::Refusals;
use super::sessions::Shard;
use super::source_addresses::ChangedSources;

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
    /// The last refused logins of all workers.
    pub(crate) refusals: Arc<Refusals>,
    /// Permits for refused connections whose close waits for the client.
    pub(crate) lingering: Arc<Semaphore>,
    /// The metrics of routes.
    pub(crate) routes: Arc<RouteFamilies>,
    /// Lists the sessions that are relayed.
    pub(crate) sessions: Arc<Shard>,
    /// Admits exclusive users.
    pub(crate) exclusive: ExclusiveUsers,
}

/// Counts a session on its worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    load: Arc<AtomicUsize>,
    _session: TaskTrackerToken,
}

impl Seat {
    /// Takes a seat on the worker with this number of sessions.
    pub(crate) fn new(load: Arc<AtomicUsize>, session: TaskTrackerToken) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self { load, _session: session }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}
