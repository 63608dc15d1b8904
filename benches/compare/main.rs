//! Mailgress and nginx's mail proxy at the same work, in one run: the same backend, auth service, certificate and
//! clients, which all live in this process. What is compared is what the kernel charged the proxies: CPU time and
//! memory, each as a ratio.
//!
//! CPU time depends on how busy the machine is. The user-space instructions of a login, which Callgrind counts in processes
//! of their own, do not.
//!
//! Both run with as many workers and with their default logging. The rounds of the two alternate, and a peer's
//! figure is the median of its rounds. There is no session resumption, and X25519 and AES-256-GCM for both, since
//! OpenSSL 3.0 knows no post-quantum key exchange.

mod account;
mod instructions;
mod load;
mod peer;
mod services;
mod table;
mod tls;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use load::Target;
use peer::{Peer, Run, mailgress, nginx};
use table::{Row, Unit};

/// How much work; the same for both.
struct Plan {
    login_rounds: usize,
    bulk_rounds: usize,
    /// Login and logout, in clear, for each round.
    plain_logins: usize,
    /// The same, with TLS from the first byte.
    tls_logins: usize,
    /// Logins in the two runs whose instructions are counted.
    counted_logins: [usize; 2],
    /// Logged in and silent.
    idle_sessions: usize,
    /// From the backend to the client, for each round.
    plain_bytes: u64,
    tls_bytes: u64,
}

const FULL: Plan = Plan {
    login_rounds: 9,
    bulk_rounds: 5,
    plain_logins: 4_000,
    tls_logins: 2_000,
    counted_logins: [200, 600],
    idle_sessions: 4_000,
    plain_bytes: 1 << 30,
    tls_bytes: 512 << 20,
};

/// `MAILGRESS_BENCH=quick`: whether it works at all.
const QUICK: Plan = Plan {
    login_rounds: 1,
    bulk_rounds: 1,
    plain_logins: 400,
    tls_logins: 200,
    counted_logins: [20, 60],
    idle_sessions: 400,
    plain_bytes: 64 << 20,
    tls_bytes: 64 << 20,
};

/// Worker processes of nginx, worker threads of Mailgress.
const WORKERS: usize = 2;
/// Sessions at once, for logins.
const CONCURRENCY: usize = 32;
/// Logins before memory is measured.
const WARM_UP: usize = 200;
/// Sessions at once, for bulk transfer.
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
        // New processes: memory that an earlier workload left behind would be used again, and not be counted.
        let name = if secure { "idle-tls" } else { "idle-plain" };
        let peers = start(&directory.path().join(name), &identity, &services).await?;
        rows.push(idle(plan, &peers, &identity, secure).await?);
        table::print(&rows[rows.len() - 1..]);
    }
    for secure in [false, true] {
        let directory = directory.path().join(if secure { "counts-tls" } else { "counts-plain" });
        rows.push(instructions::logins(plan.counted_logins, &directory, &identity, &services, secure).await?);
        table::print(&rows[rows.len() - 1..]);
    }
    println!();
    table::print_all(&rows);
    Ok(())
}

/// Both peers, serving.
async fn start(
    directory: &Path,
    identity: &tls::Identity,
    services: &services::Services,
) -> Result<[Peer; 2]> {
    std::fs::create_dir(directory)?;
    let peers = [
        nginx(directory, identity, services, &Run::Workers(WORKERS)).context("nginx")?,
        mailgress(directory, identity, services, &Run::Workers(WORKERS)).context("Mailgress")?,
    ];
    for peer in &peers {
        peer.wait_until_ready(identity).await.with_context(|| peer.failure())?;
    }
    Ok(peers)
}

/// The peers in turn, the other one first in every other round.
fn turns(round: usize, peers: &[Peer; 2]) -> [(usize, &Peer); 2] {
    let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    order.map(|index| (index, &peers[index]))
}

async fn logins(plan: &Plan, peers: &[Peer; 2], identity: &tls::Identity, secure: bool) -> Result<Row> {
    let count = if secure { plan.tls_logins } else { plan.plain_logins };
    let mut rounds = [Vec::new(), Vec::new()];
    // The first round warms up.
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
        // What the first sessions cost is not what each costs.
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

/// For everything that is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
