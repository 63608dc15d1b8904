//! The only wiring: objects -> renderer -> data plane -> reports -> status, and the admin server beside it.

mod connections;
mod log;
mod page;
mod process;
mod reader;
mod signals;
mod source;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use prometheus::Registry;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, AdminState, Hosts, Readiness, ReadinessGuard};
use crate::controller::Start;
use crate::controller::board::Board;
use crate::controller::metrics::Metrics;
use crate::controller::print;
use crate::controller::publisher::{Channels as SourceChannels, Publisher};
use crate::controller::render::Locality;
use crate::model::served::{Ledger, Replica};
use crate::model::view::Replica as ShownReplica;
use crate::model::{BindReport, Snapshot};
use crate::net::Descriptors;
use crate::proxy::{Channels, Observer, Options, Proxy};

pub use log::Log;
pub use reader::{Reader, in_a_pod};
use signals::Signals;
use source::Source;
pub use source::{Cluster, ObjectRef, Origin};

/// Everything that `run` is told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where objects come from.
    pub origin: Origin,
    /// `spec.className` of the objects that are taken.
    pub class: String,
    /// Where we are, for endpoints that are near. In a cluster, the zone of a node is looked up.
    pub locality: Locality,
    /// Whose PROXY headers are believed, and wanted, by listeners on all addresses that do not say it themselves.
    pub trusted_peers: Vec<IpNet>,
    /// Where health, metrics and status are served.
    pub admin_address: SocketAddr,
    /// Names by which it is served, besides addresses, localhost and our own.
    pub admin_hosts: Vec<String>,
    /// Worker threads of the data plane.
    pub workers: usize,
    /// Between the signal and the closing of the listeners, so that load balancers notice.
    pub drain_delay: Duration,
    /// Between the closing of a listener and the goodbye to its sessions.
    pub drain_timeout: Duration,
    /// What this replica is called; by default as the host is.
    pub replica: Option<String>,
    /// The address of the node that it runs on.
    pub node_address: Option<IpAddr>,
}

/// Runs until a signal and a drain.
///
/// # Errors
/// When the admin address cannot be bound, the folder cannot be read or watched, nothing says how to reach the
/// cluster, or threads cannot be started. Nothing that happens later is an error of the process.
pub fn run(options: &RunOptions, log: &Log) -> anyhow::Result<()> {
    let started = Instant::now();
    raise_descriptor_limit();
    let registry = registry(log)?;
    let (snapshot_sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let (reports, report_receiver) = watch::channel(Arc::new(BindReport::default()));
    let proxy = Proxy::start(
        Options { workers: options.workers, drain_timeout: options.drain_timeout },
        Channels { snapshots: snapshots.clone(), reports },
        &registry,
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    let done = runtime.block_on(async {
        let hostname = hostname();
        let observer = proxy.observer();
        let (board, ledger) = (Board::default(), Ledger::new(replica(options, &hostname)));
        let channels = SourceChannels {
            snapshots: snapshot_sender,
            reports: report_receiver.clone(),
            ledger: ledger.clone(),
            board: board.clone(),
        };
        let metrics = Metrics::register(&registry)?;
        let mut publisher = Publisher::new(&options.class, &hostname, channels, metrics.clone())
            .with_trusted_peers(options.trusted_peers.clone());
        publisher.locate(options.locality.clone());
        let source = Source::new(&options.origin, publisher, &metrics).await?;
        let signals = Signals::new(source.reread())?;
        let readiness = Readiness::new();
        readiness.register(&registry)?;
        let admin = listen(options.admin_address)?;
        let sources = page::Sources {
            board,
            snapshots,
            reports: report_receiver.clone(),
            observer: observer.clone(),
            replica: shown_replica(options, ledger.replica(), admin.local_addr()?.port()),
            ledger,
            started,
        };
        tokio::spawn(mark_rates(observer));
        let state = admin_state(sources, readiness.clone(), registry, options, &hostname);
        let admin = Admin { listener: admin, state, readiness, reports: report_receiver };
        serve(options, proxy, source, admin, End { signals, log: log.clone() }).await
    });
    // A read that hangs (a network file system) does not keep the process.
    runtime.shutdown_background();
    done
}

/// What the admin server shows.
fn admin_state(
    sources: page::Sources,
    readiness: Readiness,
    metrics: Registry,
    options: &RunOptions,
    hostname: &str,
) -> AdminState {
    let page::Sources { board, snapshots, ledger: served, .. } = sources.clone();
    let counted = sources.clone();
    AdminState {
        page: Arc::new(move |question| sources.view(question)),
        readiness,
        metrics,
        status: Arc::new(move || board.document()),
        model: Arc::new(move || print::snapshot(&snapshots.borrow())),
        served,
        hosts: admin_hosts(options, hostname),
        totals: Arc::new(move || counted.totals()),
        descriptors: Descriptors::of_process(options.workers).admin,
    }
}

/// What the admin server is made of.
struct Admin {
    listener: TcpListener,
    state: AdminState,
    readiness: Readiness,
    reports: watch::Receiver<Arc<BindReport>>,
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
    let Admin { listener, state, readiness, mut reports } = admin;
    let End { mut signals, log } = end;
    let draining = CancellationToken::new();
    let ended = CancellationToken::new();
    let first_report = readiness.block("the first snapshot is not served yet");
    if let Some(start) = source.start() {
        tokio::spawn(wait_for_start(start, readiness.block("the controller has not started yet")));
    }
    let mut serving = tokio::spawn(admin::serve(listener, state, ended.clone()));
    let mut data_plane = tokio::spawn(proxy.run(draining.clone()));
    let mut source = tokio::spawn(source.run(draining.clone()));
    let ready = tokio::spawn(async move {
        // Any report means that a first snapshot was applied; an error means that the process ends.
        let _ = reports.wait_for(|report| report.revision > 0).await;
        drop(first_report);
    });
    tokio::select! {
        () = signals.wait() => {}
        // Each of these lasts as long as the process: one that ends early takes the process with it.
        done = &mut source => return early(done.context("the source of objects ended in an error of ours")?),
        done = &mut serving => return early(done.context("the admin server ended in an error of ours")?),
        done = &mut data_plane => return early(done.context("the data plane ended in an error of ours")),
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
    data_plane.await.context("the data plane ended in an error of ours")?;
    ready.abort();
    ended.cancel();
    // All sessions have ended: what still reads a file or answers a probe is not waited for any longer.
    let rest = async { tokio::try_join!(source, serving) };
    if let Ok(done) = timeout(LAST_WAIT, rest).await {
        let (source, serving) = done.context("a control task ended in an error of ours")?;
        source?;
        serving?;
    }
    Ok(())
}

/// Blocks readiness until the start is over, and says why.
async fn wait_for_start(mut start: watch::Receiver<Start>, guard: ReadinessGuard) {
    loop {
        match start.borrow_and_update().clone() {
            Start::Waits(why) => guard.say(why),
            Start::Over => return,
        }
        if start.changed().await.is_err() {
            // The process ends.
            return std::future::pending().await;
        }
    }
}

/// The end of a task that should have lasted.
fn early<E: Into<anyhow::Error>>(done: Result<(), E>) -> anyhow::Result<()> {
    done.map_err(Into::into)?;
    anyhow::bail!("a part of the process ended without a reason; this is an error of ours")
}

/// For the control tasks, when all sessions have ended.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A registry with what is known of the process as a whole.
fn registry(log: &Log) -> anyhow::Result<Registry> {
    let registry = Registry::new();
    process::register(&registry)?;
    log.register(&registry)?;
    Ok(registry)
}

/// Opens the admin server's socket.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A process that ended just now leaves connections behind that would keep the address.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = listen().with_context(|| {
        format!(
            "cannot listen on --admin-address {address}; if another process uses it (`ss -ltnp` shows which), choose another \
             address or port"
        )
    })?;
    info!(address = %listener.local_addr()?, "admin server is listening; the status page is at /");
    Ok(listener)
}

/// Connections to the admin server that wait to be accepted. When the queue is full, the kernel drops a probe's first
/// packet, and the probe is a second late.
const BACKLOG: u32 = 4096;

/// Who we are among the replicas. A process that is started anew is somebody else.
fn replica(options: &RunOptions, hostname: &str) -> Replica {
    let name = options.replica.clone().unwrap_or_else(|| hostname.to_owned());
    let instance = format!("{:016x}", rand::random::<u64>());
    Replica { name, instance, node_address: options.node_address }
}

/// By which names people may look at us.
fn admin_hosts(options: &RunOptions, hostname: &str) -> Hosts {
    let own = options.replica.iter().cloned().chain([hostname.to_owned()]);
    Hosts::new(own.chain(options.admin_hosts.iter().cloned()))
}

/// Who we are, for people.
fn shown_replica(options: &RunOptions, replica: &Replica, admin_port: u16) -> ShownReplica {
    ShownReplica {
        name: replica.name.clone(),
        version: process::SHOWN_VERSION.to_owned(),
        class: options.class.clone(),
        admin_port,
        ..ShownReplica::default()
    }
}

/// Until the process ends.
async fn mark_rates(observer: Observer) {
    let mut ticks = tokio::time::interval(MARK_EVERY);
    loop {
        observer.mark(ticks.tick().await.into_std());
    }
}

/// Rates are told over once to twice this.
const MARK_EVERY: Duration = Duration::from_secs(30);

/// The default of `serverName`.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Every session needs two descriptors: the soft limit is raised to the hard one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}
