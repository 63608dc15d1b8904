//! The data plane: serves a snapshot and changes to the next one without dropping a session.
//!
//! [`plan`] is pure and decides what to do. The supervisor carries it out: it binds, swaps and drains sockets and
//! reports the state of each. Workers are separate threads, and a session stays on its worker.
//!
//! The path of a session: `supervisor` binds a socket and `accept` accepts from it. The protocol's frontend decides
//! about STARTTLS and `session/login` carries it out. `session/upstream` logs in to the backend, through a `connector` to
//! an endpoint that passes its `health` checks. `relay` moves the bytes.

mod accept;
mod affinity;
mod balance;
mod bans;
mod certificates;
mod connection;
mod connector;
mod context;
mod deadline;
mod dispatch;
mod end;
pub mod exclusive;
mod goodbye;
mod guess;
mod health;
mod holds;
mod journal;
mod leaving;
mod limits;
mod live;
mod login_results;
mod metrics;
mod observer;
pub mod plan;
mod rates;
mod record;
mod refusal_words;
mod refusals;
mod refused_recipients;
mod registration;
mod relay;
mod report;
mod running;
mod serving;
mod session;
mod sessions;
mod source_addresses;
mod spreading;
mod supervisor;
#[cfg(test)]
mod tests;
mod upstreams;
mod uses;
mod why;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dns::{Dns, Host};
use crate::model::{BindReport, SharedTicketKeys, Snapshot};

pub use affinity::ExclusiveUsers;
use metrics::Metrics;
pub use observer::Observer;
use supervisor::Supervisor;
pub use why::why;
use worker::Workers;

/// Settings of the data plane as a whole; they cannot change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of worker threads. With 0, one thread is started.
    pub workers: usize,
    /// Random, different in each process: the first part of session ids.
    pub process: u64,
    /// How long the sessions of a removed listener may continue, and all sessions when the process ends. Then they get
    /// the protocol's closing message.
    pub drain_timeout: Duration,
    /// When the process ends, its sessions get their closing message over this time, the last part of `drain_timeout`, so
    /// that clients do not all connect again at once. At most `drain_timeout`.
    pub drain_spread: Duration,
}

/// Where the controller and the data plane meet: two channels, and the places of the ticket keys and the exclusive users.
#[derive(Debug)]
pub struct Channels {
    /// The configuration to serve. The data plane waits for the first one with a revision above 0.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is served: the state of each socket, and what the data plane knows about backends and clients.
    pub reports: watch::Sender<Arc<BindReport>>,
    /// The keys of session tickets that the replicas share.
    pub tickets: SharedTicketKeys,
    /// The exclusive users, about whom the replicas agree.
    pub exclusive: ExclusiveUsers,
}

/// The data plane with its worker threads, before it binds any socket.
#[derive(Debug)]
pub struct Proxy(Supervisor);

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a thread or an event queue.
    #[error("cannot start worker threads: {0}")]
    Threads(#[from] io::Error),
    /// The registry already has metrics with these names.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Proxy {
    /// Starts the worker threads. [`Proxy::run`] binds the sockets.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: Options, channels: Channels, registry: &Registry) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::register(registry)?);
        let dns = Arc::new(Dns::new(Host::default(), registry)?);
        let workers =
            Workers::start((options.workers, options.process), &metrics, &dns, &channels.exclusive)?;
        Ok(Self(Supervisor::new(options, channels, workers, metrics, dns)))
    }

    /// Gives access to counters, recent events and sessions while the data plane runs. Call it before [`Proxy::run`], which
    /// consumes `self`.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.0.observer()
    }

    /// Serves snapshots until `shutdown`. Then it stops accepting, waits for sessions until the drain timeout, sends
    /// the closing message to the rest, and returns when all have ended.
    pub async fn run(self, shutdown: CancellationToken) {
        self.0.run(shutdown).await;
    }
}
