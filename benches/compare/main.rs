//! Compares Mailgress with nginx's mail proxy under the same load in one run: with the same backend, auth service,
//! certificate and clients, which all run in this process. It compares CPU time and memory of the proxies, as measured
//! by the kernel, each as a ratio.
//!
//! Both have the same number of workers and their default logging. Their rounds alternate, and the result is the median
//! of the rounds. There is no session resumption. Both use X25519 and AES-256-GCM, because OpenSSL 3.0 has no
//! post-quantum key exchange.

mod account;
mod load;
mod peer;
mod services;
mod table;
mod tls;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use load::Target;
use peer::{Peer, mailgress, nginx};
use table::{Row, Unit};

/// The amount of work, which is the same for both.
struct Plan {
    login_rounds: usize,
    bulk_rounds: usize,
    /// Logins and logouts without TLS in each round.
    plain_logins: usize,
    /// Logins and logouts with implicit TLS in each round.
    tls_logins: usize,
    /// Sessions that are logged in and idle.
    idle_sessions: usize,
    /// Bytes from the backend to the client in each round.
    plain_bytes: u64,
    tls_bytes: u64,
}

const FULL: Plan = Plan {
    login_rounds: 9,
    bulk_rounds: 5,
    plain_logins: 4_000,
    tls_logins: 2_000,
    idle_sessions: 4_000,
    plain_bytes: 1 << 30,
    tls_bytes: 512 << 20,
};

/// `MAILGRESS_BENCH=quick`: only checks that the comparison works.
const QUICK: Plan = Plan {
    login_rounds: 1,
    bulk_rounds: 1,
    plain_logins: 400,
    tls_logins: 200,
    idle_sessions: 400,
    plain_bytes: 64 << 20,
    tls_bytes: 64 << 20,
};

/// nginx's worker processes and Mailgress's worker threads.
const WORKERS: usize = 2;
/// Concurrent sessions for logins.
const CONCURRENCY: usize = 32;
/// Logins before memory is measured.
const WARM_UP: usize = 200;
/// Concurrent sessions for bulk transfer.
const STREAMS: usize = 4;

fn main() -> Result<()> {
    let plan = match std::env::var("MAILGRESS_BENCH").as_deref() {
        Ok("quick") => QUICK,
        _ => FULL,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(&plan))
}

async fn compare(plan: &Plan) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("mailgress-bench-").tempdir()?;
    let identity = tls::Identity::new()?;
    let services = services::Services::start().await?;
    let peers = start(&directory.path().join("cpu"), &identity, &services).await?;
    for peer in &peers {
        println!("{}: {}, {WORKERS} workers", peer.name, peer.version);
    }
    let mut rows = Vec::new();
    for secure in [false, true] {
        rows.push(logins(plan, &peers, &identity, secure).await?);
        table::print(&rows[rows.len() - 1..]);
    }
    for secure in [false, true] {
        rows.push(bulk(plan, &peers, &identity, secure).await?);
        table::print(&rows[rows.len() - 1..]);
    }
    drop(peers);
    for secure in [false, true] {
        // Start new processes, because memory left from an earlier workload would be reused and not counted.
        let name = if secure { "idle-tls" } else { "idle-plain" };
        let peers = start(&directory.path().join(name), &identity, &services).await?;
        rows.push(idle(plan, &peers, &identity, secure).await?);
        table::print(&rows[rows.len() - 1..]);
    }
    println!();
    table::print_all(&rows);
    Ok(())
}

/// Starts both proxies and waits until they serve.
async fn start(
    directory: &Path,
    identity: &tls::Identity,
    services: &services::Services,
) -> Result<[Peer; 2]> {
    std::fs::create_dir(directory)?;
    let binary = Path::new(env!("CARGO_BIN_EXE_mailgress"));
    let peers = [
        nginx(directory, identity, services, WORKERS).context("nginx")?,
        mailgress(directory, binary, identity, services, WORKERS).context("Mailgress")?,
    ];
    for peer in &peers {
        peer.wait_until_ready(identity).await.with_context(|| peer.failure())?;
    }
    Ok(peers)
}

/// Returns the order of the peers, which alternates each round.
fn turns(round: usize, peers: &[Peer; 2]) -> [(usize, &Peer); 2] {
    let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    order.map(|index| (index, &peers[index]))
}

async fn logins(plan: &Plan, peers: &[Peer; 2], identity: &tls::Identity, secure: bool) -> Result<Row> {
    let count = if secure { plan.tls_logins } else { plan.plain_logins };
    let mut rounds = [Vec::new(), Vec::new()];
    // The first round is for warming up.
    for round in 0..=plan.login_rounds {
        for (index, peer) in turns(round, peers) {
            let target = Target::new(peer, identity, secure);
            let before = peer.cpu()?;
            load::logins(&target, count, CONCURRENCY).await.with_context(|| peer.failure())?;
            peer.settle().await?;
            let spent = peer.cpu()? - before;
            if round > 0 {
                rounds[index].push(spent.as_secs_f64() * 1e6 / count as f64);
            }
        }
    }
    let (name, bar) = if secure { ("IMAP login, TLS", 1.0) } else { ("IMAP login, plain", 1.1) };
    Ok(Row { name, unit: Unit::MicrosecondsPerSession, rounds, bar })
}

async fn bulk(plan: &Plan, peers: &[Peer; 2], identity: &tls::Identity, secure: bool) -> Result<Row> {
    let bytes = if secure { plan.tls_bytes } else { plan.plain_bytes };
    let mut rounds = [Vec::new(), Vec::new()];
    for round in 0..plan.bulk_rounds {
        for (index, peer) in turns(round, peers) {
            let target = Target::new(peer, identity, secure);
            let before = peer.cpu()?;
            load::bulk(&target, STREAMS, bytes / STREAMS as u64).await.with_context(|| peer.failure())?;
            peer.settle().await?;
            let spent = peer.cpu()? - before;
            rounds[index].push(spent.as_secs_f64() * 1e3 * f64::from(1 << 30) / bytes as f64);
        }
    }
    let name = if secure { "bulk, TLS" } else { "bulk, plain" };
    Ok(Row { name, unit: Unit::MillisecondsPerGibibyte, rounds, bar: 1.0 })
}

async fn idle(plan: &Plan, peers: &[Peer; 2], identity: &tls::Identity, secure: bool) -> Result<Row> {
    let mut rounds = [Vec::new(), Vec::new()];
    for (index, peer) in turns(0, peers) {
        let target = Target::new(peer, identity, secure);
        // Exclude the cost of the first sessions from the cost per session.
        load::logins(&target, WARM_UP, CONCURRENCY).await.with_context(|| peer.failure())?;
        let baseline = peer.settled_memory().await?;
        let sessions =
            load::idle(&target, plan.idle_sessions, CONCURRENCY).await.with_context(|| peer.failure())?;
        ensure!(sessions.len() == plan.idle_sessions, "every session is open");
        let grown = peer.settled_memory().await?.saturating_sub(baseline);
        rounds[index].push(grown as f64 / plan.idle_sessions as f64);
        drop(sessions);
        peer.settle().await?;
    }
    let name = if secure { "idle session, TLS" } else { "idle session, plain" };
    Ok(Row { name, unit: Unit::BytesPerSession, rounds, bar: 1.0 })
}

/// Time limit of every wait.
const PATIENCE: Duration = Duration::from_secs(60);
