//! Connects all parts: objects, renderer, data plane, reports, status, and the admin server. No other module does this.

mod connections;
mod control;
mod exclusive;
mod listeners;
mod log;
mod page;
mod process;
mod reader;
pub mod replicas;
mod signals;
mod source;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, AdminState, Hosts, Readiness, ReadinessGuard};
use crate::controller::Start;
use crate::controller::metrics::Metrics;
use crate::controller::publisher::{Channels as SourceChannels, Publisher};
use crate::controller::render::Locality;
use crate::controller::status_store::StatusStore;
use crate::model::served::{Ledger, Replica};
use crate::model::view::Replica as ShownReplica;
use crate::model::{BindReport, SharedTicketKeys, Snapshot};
use crate::net::Descriptors;
use crate::proxy::{Channels, Observer, Options, Proxy};

use control::Control;
use exclusive::Exclusive;
use listeners::{Listeners, listen};
pub use log::{Encoding, LineFormat, Log};
pub use reader::{Reader, in_a_pod};
use signals::Signals;
use source::Source;
pub use source::{Cluster, ObjectRef, Origin};

/// The options of `mailgress run`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The source of objects.
    pub origin: Origin,
    /// Only objects with this `spec.className` are used.
    pub class: String,
    /// Our location, for preferring near endpoints. In a cluster, the zone is read from the node.
    pub locality: Locality,
    /// Peers whose PROXY headers are trusted and required, for listeners on all addresses without `proxyProtocol`.
    pub trusted_peers: Vec<IpNet>,
    /// The address for health, metrics and the other replicas.
    pub admin_address: SocketAddr,
    /// The address for the status page, `/status` and `/model`. If it is the same, one listener has all pages.
    pub status_address: SocketAddr,
    /// Host names for the admin server, in addition to addresses, localhost and our own name.
    pub admin_hosts: Vec<String>,
    /// The path of the control socket, if there is one.
    pub control_socket: Option<PathBuf>,
    /// Worker threads of the data plane.
    pub workers: usize,
    /// Time between the signal and closing the listeners, so that load balancers notice.
    pub drain_delay: Duration,
    /// Time between closing a listener and ending its sessions.
    pub drain_timeout: Duration,
    /// The last part of `drain_timeout`, over which sessions get their closing message.
    pub drain_spread: Duration,
    /// The name of this replica; the default is the host's name.
    pub replica: Option<String>,
    /// The address of the node that runs this replica.
    pub node_address: Option<IpAddr>,
}

/// Runs until a signal has ended the process and sessions are drained.
///
/// # Errors
/// The admin address cannot be bound, the folder cannot be read or watched, nothing tells how to reach the cluster, or
/// threads cannot be started. A later event does not end the process with an error.
pub fn run(options: &RunOptions, log: &Log) -> anyhow::Result<()> {
    let started = Instant::now();
    raise_descriptor_limit();
    let registry = registry(log)?;
    let (snapshot_sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let (reports, report_receiver) = watch::channel(Arc::new(BindReport::default()));
    let tickets = SharedTicketKeys::default();
    let hostname = hostname();
    let ledger = Ledger::new(replica(options, &hostname));
    let exclusive = Exclusive::new(&options.origin, ledger.replica());
    let (wanted, users) = (snapshots.clone(), exclusive.users());
    let channels = Channels { snapshots: wanted, reports, tickets: tickets.clone(), exclusive: users };
    let proxy = Proxy::start(data_plane(options), channels, &registry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    let done = runtime.block_on(async {
        let observer = proxy.observer();
        let status_store = StatusStore::default();
        let channels = SourceChannels {
            snapshots: snapshot_sender,
            reports: report_receiver.clone(),
            ledger: ledger.clone(),
            status_store: status_store.clone(),
        };
        let metrics = Metrics::register(&registry)?;
        let mut publisher = Publisher::new(&options.class, &hostname, channels, metrics.clone())
            .with_trusted_peers(options.trusted_peers.clone());
        publisher.set_locality(options.locality.clone());
        let readiness = Readiness::new();
        let link = exclusive.start(&ledger, &readiness);
        let source = Source::new(&options.origin, publisher, &metrics, tickets.clone(), link).await?;
        let signals = Signals::new(source.reread())?;
        readiness.register(&registry)?;
        let listeners = listen(options)?;
        let sources = page::Sources {
            status_store,
            snapshots,
            reports: report_receiver.clone(),
            observer: observer.clone(),
            replica: shown_replica(options, ledger.replica(), listeners.status_port()?),
            leadership: source.leadership(),
            ledger,
            started,
        };
        let control = options.control_socket.as_deref();
        let open = |path| Control::open(path, &observer, &sources.snapshots, &sources.replica.name);
        let control = control.map(open).transpose()?;
        tokio::spawn(mark_rates(observer));
        let state = admin_state(sources, tickets, readiness.clone(), registry, options, &hostname);
        let admin = Admin { listeners, state, readiness, reports: report_receiver, control };
        serve(options, proxy, source, admin, End { signals, log: log.clone() }).await
    });
    // A read that blocks (on a network file system) must not delay the end of the process.
    runtime.shutdown_background();
    done
}

/// Returns the options of the data plane.
fn data_plane(options: &RunOptions) -> Options {
    Options {
        workers: options.workers,
        process: rand::random(),
        drain_timeout: options.drain_timeout,
        drain_spread: options.drain_spread,
    }
}

/// Collects what the admin server shows.
fn admin_state(
    sources: page::Sources,
    keys: SharedTicketKeys,
    readiness: Readiness,
    metrics: Registry,
    options: &RunOptions,
    hostname: &str,
) -> AdminState {
    let page::Sources { status_store, snapshots, ledger: served, .. } = sources.clone();
    let counted = sources.clone();
    AdminState {
        page: Arc::new(move |question| sources.view(question)),
        readiness,
        metrics,
        status: Arc::new(move || status_store.document()),
        model: snapshots,
        served,
        keys,
        hosts: admin_hosts(options, hostname),
        totals: Arc::new(move || counted.totals()),
        descriptors: Descriptors::of_process(options.workers).admin,
    }
}

/// The parts of the admin server.
struct Admin {
    listeners: Listeners,
    state: AdminState,
    readiness: Readiness,
    reports: watch::Receiver<Arc<BindReport>>,
    control: Option<Control>,
}

/// What ends the process.
struct End {
    signals: Signals,
    log: Log,
}

async fn serve(
    options: &RunOptions,
    proxy: Proxy,
    source: Source,
    admin: Admin,
    end: End,
) -> anyhow::Result<()> {
    let Admin { listeners, state, readiness, mut reports, control } = admin;
    let End { mut signals, log } = end;
    let draining = CancellationToken::new();
    let ended = CancellationToken::new();
    let first_report = readiness.block("the first snapshot is not served yet");
    if let Some(start) = source.start() {
        tokio::spawn(wait_for_start(start, readiness.block("the controller has not started yet")));
    }
    let mut serving = tokio::spawn(listeners.serve(admin::Server::new(state), ended.clone()));
    let _socket = control.map(|control| control.serve(ended.clone()));
    let mut data_plane = tokio::spawn(proxy.run(draining.clone()));
    let mut source = tokio::spawn(source.run(draining.clone(), ended.clone()));
    let ready = tokio::spawn(async move {
        // Any report means that the first snapshot was applied. An error means that the process is ending.
        let _ = reports.wait_for(|report| report.revision > 0).await;
        drop(first_report);
    });
    tokio::select! {
        () = signals.wait() => {}
        // Each of these tasks lasts as long as the process. If one ends early, the process ends.
        done = &mut source => return early(done.context("the source of objects failed because of a bug in Mailgress")?),
        done = &mut serving => return early(done.context("the admin server failed because of a bug in Mailgress")?),
        done = &mut data_plane => return early(done.context("the data plane failed because of a bug in Mailgress")),
    }
    readiness.drain();
    info!(delay = ?options.drain_delay, "draining: /readyz fails; closing the listeners after the delay");
    tokio::spawn(async move {
        signals.wait().await;
        warn!("second signal: ending at once");
        log.flush();
        std::process::exit(130);
    });
    tokio::time::sleep(options.drain_delay).await;
    draining.cancel();
    data_plane.await.context("the data plane failed because of a bug in Mailgress")?;
    ready.abort();
    ended.cancel();
    // All sessions have ended. Do not wait longer for tasks that read a file or answer a probe.
    let rest = async { tokio::try_join!(source, serving) };
    if let Ok(done) = timeout(LAST_WAIT, rest).await {
        let (source, serving) = done.context("a control task failed because of a bug in Mailgress")?;
        source?;
        serving?;
    }
    Ok(())
}

/// Blocks readiness until the start is complete, and gives the reason.
async fn wait_for_start(mut start: watch::Receiver<Start>, guard: ReadinessGuard) {
    loop {
        match start.borrow_and_update().clone() {
            Start::Waits(why) => guard.say(why),
            Start::Complete => return,
        }
        if start.changed().await.is_err() {
            // The process is ending.
            return std::future::pending().await;
        }
    }
}

/// Returns the error for a task that ended too early.
fn early<E: Into<anyhow::Error>>(done: Result<(), E>) -> anyhow::Result<()> {
    done.map_err(Into::into)?;
    anyhow::bail!("a task of the process ended without a reason; please report this bug")
}

/// Time limit for the control tasks to end, after all sessions have ended.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Creates a registry with the metrics of the process and the log.
fn registry(log: &Log) -> anyhow::Result<Registry> {
    let registry = Registry::new();
    process::register(&registry)?;
    log.register(&registry)?;
    Ok(registry)
}

/// Identifies this replica. After a restart, `instance` differs.
fn replica(options: &RunOptions, hostname: &str) -> Replica {
    let name = options.replica.clone().unwrap_or_else(|| hostname.to_owned());
    let instance = format!("{:016x}", rand::random::<u64>());
    Replica { name, instance, node_address: options.node_address }
}

/// Returns the host names of the admin server.
fn admin_hosts(options: &RunOptions, hostname: &str) -> Hosts {
    let own = options.replica.iter().cloned().chain([hostname.to_owned()]);
    Hosts::new(own.chain(options.admin_hosts.iter().cloned()))
}

/// Describes this replica for the status page.
fn shown_replica(options: &RunOptions, replica: &Replica, status_port: u16) -> ShownReplica {
    ShownReplica {
        name: replica.name.clone(),
        version: process::SHOWN_VERSION.to_owned(),
        class: options.class.clone(),
        status_port,
        ..ShownReplica::default()
    }
}

/// Sets marks for rates until the process ends.
async fn mark_rates(observer: Observer) {
    let mut ticks = tokio::time::interval(MARK_EVERY);
    loop {
        observer.mark(ticks.tick().await.into_std());
    }
}

/// Interval of the marks. Rates are computed over one to two intervals.
const MARK_EVERY: Duration = Duration::from_secs(30);

/// Returns the host's name, the default of `serverName`.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Raises the soft limit of open files to the hard limit, because every session needs two descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}
