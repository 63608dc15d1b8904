//! The data plane: serves a snapshot, and the next one without dropping a session.
//!
//! [`plan`] decides (pure), the supervisor obeys: it binds, swaps and drains sockets and reports what
//! became of each. Workers are threads of their own; a session stays on the one it was given.
//!
//! Where things are: a socket is bound in `supervisor`, accepted from in `listener`; STARTTLS is decided by
//! the protocol's frontend and carried out in `session/login`; a login goes to the backend in
//! `session/upstream`, by a `route` to an endpoint that `health` has not taken out; bytes flow in `relay`.

mod balance;
mod bans;
mod certificates;
mod connection;
mod end;
mod guess;
mod health;
mod journal;
mod limits;
mod listener;
mod metrics;
mod observer;
pub mod plan;
mod rates;
mod record;
mod relay;
mod report;
mod route;
mod running;
mod serving;
mod session;
mod source_addresses;
mod supervisor;
#[cfg(test)]
mod tests;
mod uses;
mod verdicts;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dns::{Dns, Host};
use crate::model::{BindReport, Snapshot};

use metrics::Metrics;
pub use observer::Observer;
use supervisor::Supervisor;
use worker::Workers;

/// How the data plane is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub workers: usize,
    /// How long the sessions of a removed listener, and all at the end, may go on before they are told
    /// goodbye.
    pub drain_timeout: Duration,
}

/// The two channels where the controller and the data plane meet.
#[derive(Debug)]
pub struct Channels {
    /// What is wanted.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What became of it.
    pub reports: watch::Sender<Arc<BindReport>>,
}

/// The data plane, its threads started.
#[derive(Debug)]
pub struct Proxy(Supervisor);

/// The data plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread or no event queue.
    #[error("cannot start worker threads: {0}")]
    Threads(#[from] io::Error),
    /// The registry has metrics of these names.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Proxy {
    /// Starts the worker threads; nothing is bound before [`Proxy::run`].
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: Options, channels: Channels, registry: &Registry) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::register(registry)?);
        let dns = Arc::new(Dns::new(Host::default(), registry)?);
        let workers = Workers::start(options.workers, &metrics, &dns)?;
        Ok(Self(Supervisor::new(options, channels, workers, metrics, dns)))
    }

    /// Looks at it while it runs.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer::new(self.0.metrics())
    }

    /// Serves snapshots until `shutdown`; then stops accepting, lets the sessions end until the drain
    /// timeout, says goodbye to those that are left, and returns when all are gone.
    pub async fn run(self, shutdown: CancellationToken) {
        self.0.run(shutdown).await;
    }
}
