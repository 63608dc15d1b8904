//! Mailgress, nginx's mail proxy and a bare proxy ([`floor`]) at the same work, in one run: the same backend, auth
//! service, certificate and clients, which all live in this process. What is compared is what the kernel charged the
//! proxies: CPU time and memory, each as a ratio.
//!
//! CPU time depends on how busy the machine is. The user-space instructions and the system calls of a login, which
//! Callgrind and strace count in processes of their own, do not.
//!
//! All run with as many workers and with their default logging. Their rounds alternate, and a peer's
//! figure is the median of its rounds. TLS sessions are resumed only where a row says so. Both use X25519 and
//! AES-256-GCM, since OpenSSL 3.0 knows no post-quantum key exchange.

mod account;
mod counts;
mod floor;
mod load;
mod peer;
mod report;
mod services;
mod table;
mod tls;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use counts::Counted;
use load::{Security, Target};
use peer::{Peer, Run};
use services::Protocol;
use table::{PEERS, Row, Unit};

/// How much work; the same for all.
struct Plan {
    /// Whether the results are written into the documentation.
    is_published: bool,
    /// Whether CPU time, latency and memory are measured.
    is_timed: bool,
    login_rounds: usize,
    bulk_rounds: usize,
    /// Login and logout, in clear, for each round.
    plain_logins: usize,
    /// The same, with TLS from the first byte.
    tls_logins: usize,
    /// Logins in the two runs whose instructions and system calls are counted, if they are.
    counted_logins: Option<[usize; 2]>,
    /// Logged in and silent.
    idle_sessions: usize,
    /// From the backend to the client, for each round.
    plain_bytes: u64,
    tls_bytes: u64,
}

const FULL: Plan = Plan {
    is_published: true,
    is_timed: true,
    login_rounds: 9,
    bulk_rounds: 5,
    plain_logins: 4_000,
    tls_logins: 2_000,
    counted_logins: Some([200, 600]),
    idle_sessions: 4_000,
    plain_bytes: 1 << 30,
    tls_bytes: 512 << 20,
};

/// `MAILGRESS_BENCH=quick`: whether it works at all.
const QUICK: Plan = Plan {
    is_published: false,
    is_timed: true,
    login_rounds: 1,
    bulk_rounds: 1,
    plain_logins: 400,
    tls_logins: 200,
    counted_logins: Some([40, 120]),
    idle_sessions: 400,
    plain_bytes: 64 << 20,
    tls_bytes: 64 << 20,
};

/// `MAILGRESS_BENCH=check`: whether each workload works, for the tests, without Callgrind.
const CHECK: Plan = Plan {
    is_published: false,
    is_timed: true,
    login_rounds: 1,
    bulk_rounds: 1,
    plain_logins: 40,
    tls_logins: 40,
    counted_logins: None,
    idle_sessions: 40,
    plain_bytes: 1 << 20,
    tls_bytes: 1 << 20,
};

/// `MAILGRESS_BENCH=counts`: only what does not depend on how busy the machine is.
const COUNTS: Plan = Plan { is_published: false, is_timed: false, ..FULL };

/// Worker processes of nginx, worker threads of the others.
const WORKERS: usize = 2;
/// Sessions at once, for logins.
const CONCURRENCY: usize = 32;
/// Sessions at once with TLS, resumed or not: rustls keeps 8 tickets of a server.
const WITH_TICKETS: usize = 4;
/// Sessions at once, for latency under load.
const CROWD: usize = 512;
/// Logins before memory is measured.
const WARM_UP: usize = 200;
/// Sessions at once, for bulk transfer.
const STREAMS: usize = 4;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(floor::ARGUMENT) {
        return floor::run();
    }
    let plan = match std::env::var("MAILGRESS_BENCH").as_deref() {
        Ok("quick") => QUICK,
        Ok("check") => CHECK,
        Ok("counts") => COUNTS,
        _ => FULL,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(&plan))
}

async fn compare(plan: &Plan) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("mailgress-bench-").tempdir()?;
    let bench = Bench {
        plan,
        directory: directory.path(),
        identity: &tls::Identity::new()?,
        services: &services::Services::start().await?,
    };
    let (mut rows, mut versions) = (Vec::new(), Vec::new());
    if plan.is_timed {
        versions = bench.cpu(&mut rows).await?;
        // New processes: memory that an earlier workload left behind would be used again, and not be counted.
        for security in [Security::Plain, Security::Full] {
            for kind in [Kept::Idle, Kept::Waiting] {
                add(&mut rows, bench.memory(kind, security).await?);
            }
        }
    }
    if let Some(counts) = plan.counted_logins {
        for what in [Counted::SystemCalls, Counted::Instructions] {
            for security in [Security::Plain, Security::Full, Security::Resumed] {
                let directory = bench.directory.join(format!("{what:?}-{security:?}"));
                let shared = (bench.identity, bench.services);
                add(&mut rows, counts::logins(what, counts, &directory, shared, security).await?);
            }
        }
    }
    if cfg!(debug_assertions) {
        println!("a debug build: the numbers mean nothing");
        return Ok(());
    }
    println!();
    table::print_all(&rows);
    if plan.is_published {
        report::write(&rows, &versions)?;
    }
    Ok(())
}

/// Prints a row when it is known.
fn add(rows: &mut Vec<Row>, row: Row) {
    table::print(std::slice::from_ref(&row));
    rows.push(row);
}

/// The logins that are compared.
const LOGINS: [(Protocol, Security); 5] = [
    (Protocol::Imap, Security::Plain),
    (Protocol::Pop3, Security::Plain),
    (Protocol::Smtp, Security::Plain),
    (Protocol::Imap, Security::Full),
    (Protocol::Imap, Security::Resumed),
];

/// The name of a login's row.
fn login_name(protocol: Protocol, security: Security) -> String {
    let protocol = protocol.name();
    match security {
        Security::Plain => format!("{protocol} login, plain"),
        Security::Full => format!("{protocol} login, TLS"),
        Security::Resumed => format!("{protocol} login, TLS resumed"),
    }
}

/// Connections that are kept open to measure their memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Logged in and silent.
    Idle,
    /// Not logged in: greeted, or within the handshake.
    Waiting,
}

/// What all workloads use.
struct Bench<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    identity: &'a tls::Identity,
    services: &'a services::Services,
}

impl Bench<'_> {
    /// All peers, serving.
    async fn start(&self, name: &str) -> Result<Vec<Peer>> {
        let directory = self.directory.join(name);
        std::fs::create_dir(&directory)?;
        let mut peers = Vec::new();
        for (start, name) in peer::ALL.into_iter().zip(PEERS) {
            let started = start(&directory, self.identity, self.services, &Run::Workers(WORKERS));
            let peer = started.context(name)?;
            peer.wait_until_ready(self.identity).await.with_context(|| peer.failure())?;
            peers.push(peer);
        }
        Ok(peers)
    }

    /// CPU time and latency, all of the same processes.
    /// Returns the versions of the peers.
    async fn cpu(&self, rows: &mut Vec<Row>) -> Result<Vec<String>> {
        let peers = self.start("cpu").await?;
        let versions: Vec<_> =
            peers.iter().map(|peer| format!("{}: {}, {WORKERS} workers", peer.name, peer.version)).collect();
        for version in &versions {
            println!("{version}");
        }
        for (protocol, security) in LOGINS {
            add(rows, self.logins(&peers, protocol, security).await?);
        }
        for concurrency in [CONCURRENCY, CROWD] {
            for row in self.latency(&peers, concurrency).await? {
                add(rows, row);
            }
        }
        for security in [Security::Plain, Security::Full] {
            add(rows, self.bulk(&peers, security).await?);
        }
        Ok(versions)
    }

    async fn logins(&self, peers: &[Peer], protocol: Protocol, security: Security) -> Result<Row> {
        let plain = security == Security::Plain;
        let count = if plain { self.plan.plain_logins } else { self.plan.tls_logins };
        let concurrency = if plain { CONCURRENCY } else { WITH_TICKETS };
        let mut rounds = PEERS.map(|_| Vec::new());
        // The first round warms up.
        for round in 0..=self.plan.login_rounds {
            for (index, peer) in turns(round, peers) {
                let target = Target::new(peer, self.identity, protocol, security);
                let before = peer.cpu()?;
                load::logins(&target, count, concurrency).await.with_context(|| peer.failure())?;
                peer.settle().await?;
                let spent = peer.cpu()? - before;
                if round > 0 {
                    let resumed = target.resumed();
                    ensure!(
                        (resumed * 10 >= count * 9) == (security == Security::Resumed),
                        "{} resumed {resumed} of {count} sessions",
                        peer.name
                    );
                    rounds[index].push(spent.as_secs_f64() * 1e6 / count as f64);
                }
            }
        }
        Ok(Row {
            name: login_name(protocol, security),
            unit: Unit::MicrosecondsPerSession,
            rounds,
            bar: if plain { 1.1 } else { 1.0 },
        })
    }

    /// The median and the 99th percentile of the time that a client waits for its login.
    async fn latency(&self, peers: &[Peer], concurrency: usize) -> Result<[Row; 2]> {
        let mut rounds = PERCENTILES.map(|_| PEERS.map(|_| Vec::new()));
        for round in 0..self.plan.login_rounds {
            for (index, peer) in turns(round, peers) {
                let target = Target::new(peer, self.identity, Protocol::Imap, Security::Plain);
                let logins = load::logins(&target, self.plan.plain_logins, concurrency).await;
                let mut times = logins.with_context(|| peer.failure())?;
                times.sort_unstable();
                for (percentile, rounds) in PERCENTILES.into_iter().zip(&mut rounds) {
                    let time = times[(times.len() * percentile / 100).min(times.len() - 1)];
                    rounds[index].push(time.as_secs_f64() * 1e6);
                }
                peer.settle().await?;
            }
        }
        let mut rounds = rounds.into_iter();
        Ok(PERCENTILES.map(|percentile| Row {
            name: format!("IMAP login, {concurrency} at once, p{percentile}"),
            unit: Unit::Microseconds,
            rounds: rounds.next().unwrap_or_default(),
            bar: 1.0,
        }))
    }

    async fn bulk(&self, peers: &[Peer], security: Security) -> Result<Row> {
        let plain = security == Security::Plain;
        let bytes = if plain { self.plan.plain_bytes } else { self.plan.tls_bytes };
        let mut rounds = PEERS.map(|_| Vec::new());
        for round in 0..self.plan.bulk_rounds {
            for (index, peer) in turns(round, peers) {
                let target = Target::new(peer, self.identity, Protocol::Imap, security);
                let before = peer.cpu()?;
                load::bulk(&target, STREAMS, bytes / STREAMS as u64).await.with_context(|| peer.failure())?;
                peer.settle().await?;
                let spent = peer.cpu()? - before;
                rounds[index].push(spent.as_secs_f64() * 1e3 * f64::from(1 << 30) / bytes as f64);
            }
        }
        let name = if plain { "bulk, plain" } else { "bulk, TLS" }.to_owned();
        Ok(Row { name, unit: Unit::MillisecondsPerGibibyte, rounds, bar: 1.0 })
    }

    /// The memory of connections that stay open.
    async fn memory(&self, kept: Kept, security: Security) -> Result<Row> {
        let name = match (kept, security) {
            (Kept::Idle, Security::Plain) => "idle session, plain",
            (Kept::Idle, _) => "idle session, TLS",
            (Kept::Waiting, Security::Plain) => "before the login, plain",
            (Kept::Waiting, _) => "within the TLS handshake",
        };
        let peers = self.start(&name.replace([',', ' '], "-")).await?;
        let mut rounds = PEERS.map(|_| Vec::new());
        for (index, peer) in turns(0, &peers) {
            let target = Target::new(peer, self.identity, Protocol::Imap, security);
            // What the first sessions cost is not what each costs.
            load::logins(&target, WARM_UP, CONCURRENCY).await.with_context(|| peer.failure())?;
            let baseline = peer.settled_memory().await?;
            let count = self.plan.idle_sessions;
            let opened = match kept {
                Kept::Idle => load::idle(&target, count, CONCURRENCY).await,
                Kept::Waiting => load::waiting(&target, count, CONCURRENCY).await,
            };
            let open = opened.with_context(|| peer.failure())?;
            ensure!(open.len() == count, "every connection is open");
            let grown = peer.settled_memory().await?;
            drop(open);
            rounds[index].push(grown.saturating_sub(baseline) as f64 / count as f64);
            peer.settle().await?;
        }
        Ok(Row { name: name.to_owned(), unit: Unit::BytesPerSession, rounds, bar: 1.0 })
    }
}

/// The peers in turn, another one first in each round.
fn turns(round: usize, peers: &[Peer]) -> impl Iterator<Item = (usize, &Peer)> {
    peers.iter().enumerate().cycle().skip(round % peers.len()).take(peers.len())
}

/// The percentiles of latency that are compared.
const PERCENTILES: [usize; 2] = [50, 99];

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(50);

/// For everything that is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
