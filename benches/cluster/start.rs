//! Two replicas that start with objects without a status, and again with objects that are Ready.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::replica::{Replica, Replicas, difference};
use crate::seen::{PATIENCE, Seen};
use crate::table::{Table, mebibytes, short};
use crate::world::{LISTENERS, World};

/// Starts with objects that have no status yet.
pub async fn first(world: &World, seen: &Seen, table: &mut Table) -> Replicas {
    let api_server = world.api_server_bytes().await;
    let replicas = world.start();
    let (ready, served) = served(&replicas, world.servers).await;
    let told = seen.all(world.servers).await.duration_since(replicas.started);
    table.put("start until `/readyz`", short(ready));
    table.put("start until all is served", short(served));
    table.put("start until all is Ready", short(told));
    sleep(CALM).await;
    table.put("API requests of the start", total(&replicas, |_| true));
    table.put("of these, status written", total(&replicas, is_status));
    idle(&replicas, table).await;
    let both = |value: fn(&Replica) -> String| replicas.all.iter().map(value).collect::<Vec<_>>().join(", ");
    table.put("resident memory of each replica", both(|replica| mebibytes(replica.resident_bytes())));
    table.put("file descriptors of each", both(|replica| replica.descriptors().to_string()));
    table.put("watches of each", both(|replica| replica.watches().to_string()));
    let grown = world.api_server_bytes().await.saturating_sub(api_server);
    table.put("kube-apiserver's memory, more than before", mebibytes(grown));
    replicas
}

/// Starts when everything is Ready.
pub async fn second(world: &World, table: &mut Table) -> Replicas {
    let replicas = world.start();
    let (ready, served) = served(&replicas, world.servers).await;
    table.put("second start until `/readyz`", short(ready));
    table.put("second start until all is served", short(served));
    sleep(TAKE_OVER).await;
    table.put("status written by the second start", total(&replicas, is_status));
    replicas
}

/// Waits until both are ready, and until both serve everything.
async fn served(replicas: &Replicas, servers: usize) -> (Duration, Duration) {
    let ready = until("both are ready", replicas, Replica::is_ready).await;
    let served =
        until("both serve everything", replicas, |replica| replica.serves() == servers * LISTENERS).await;
    (ready, served)
}

async fn until(what: &str, replicas: &Replicas, holds: impl Fn(&Replica) -> bool) -> Duration {
    while !replicas.all.iter().all(&holds) {
        let took = replicas.started.elapsed();
        assert!(took < PATIENCE, "{what}: not after {took:?}");
        sleep(PAUSE).await;
    }
    replicas.started.elapsed()
}

/// Measures what they do while nothing changes.
async fn idle(replicas: &Replicas, table: &mut Table) {
    let (requests, cpu, begin) = (replicas.requests(), replicas.cpu(), Instant::now());
    sleep(IDLE).await;
    let share = (replicas.cpu() - cpu) / begin.elapsed().as_secs_f64();
    let requests: u64 = difference(&requests, &replicas.requests()).values().sum();
    table.put("CPU of both while nothing happens", format!("{:.1} % of one", share * 100.0));
    table.put("API requests in 30 s while nothing happens", requests);
}

fn total(replicas: &Replicas, of: impl Fn(&str) -> bool) -> u64 {
    let requests = replicas.requests();
    requests.iter().filter(|(labels, _)| of(labels)).map(|(_, count)| count).sum()
}

/// Tells whether a request writes a status.
fn is_status(labels: &str) -> bool {
    labels.contains("mailservers") && labels.contains("patch")
}

/// Interval of polling.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for effects after the last status.
const CALM: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(30);
/// Time for taking the Lease, for all answers, and for writing what would be written then.
const TAKE_OVER: Duration = Duration::from_secs(20);
