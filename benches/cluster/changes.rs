//! Measures a change of one object among thousands: how long until clients and operators see it, and its cost.

use std::collections::BTreeMap;
use std::io::Result;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::replica::{Replicas, Requests, difference};
use crate::seen::{PATIENCE, Seen};
use crate::support::pki::AUTHORITY;
use crate::support::talk::log_in;
use crate::support::wire::Wire;
use crate::table::Table;
use crate::world::{World, host};

/// Changes a spec. Measures the time until clients see a new capability, and until Ready has the new generation.
pub async fn specs(world: &World, seen: &Seen, replicas: &Replicas, table: &mut Table) {
    let (mut served, mut told, mut cost) = (Vec::new(), Vec::new(), Cost::new(replicas));
    for round in 0..ROUNDS {
        let (number, word) = (world.pick(round), format!("XROUND{round}"));
        let patch = json!({ "spec": { "imap": { "capabilities": ["IMAP4rev1", word] } } });
        let new = move |wire: &mut Wire| Ok(wire.imap("c", "CAPABILITY")?.concat().contains(&word));
        cost.begin(replicas);
        let generation = world.patch_server(number, &patch).await;
        let patched = Instant::now();
        let serving = until_served(world.imaps, number, new);
        told.push(seen.one(&format!("mail-{number}"), generation).await - patched);
        served.push(serving.await.unwrap() - patched);
        cost.end(replicas).await;
    }
    table.put_median("one spec changed: until it is served", served);
    table.put_median("one spec changed: until Ready with its generation", told);
    table.put("one spec changed: API requests", cost.median());
    table.put("one spec changed: time to render", cost.render(replicas));
}

/// Changes a certificate.
pub async fn secrets(world: &World, replicas: &Replicas, table: &mut Table) {
    let (mut served, mut cost) = (Vec::new(), Cost::new(replicas));
    for round in 0..ROUNDS {
        let number = world.pick(ROUNDS + round);
        let identity = AUTHORITY.issue(&[&host(number)]);
        let patch = json!({ "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key } });
        let new = move |wire: &mut Wire| Ok(wire.certificate() == identity.der);
        cost.begin(replicas);
        world.patch_secret(number, &patch).await;
        let patched = Instant::now();
        served.push(until_served(world.imaps, number, new).await.unwrap() - patched);
        cost.end(replicas).await;
    }
    table.put_median("one Secret renewed: until it is served", served);
    table.put("one Secret renewed: API requests", cost.median());
    table.put("one Secret renewed: time to render", cost.render(replicas));
}

/// Moves a backend.
pub async fn endpoints(world: &World, replicas: &Replicas, table: &mut Table) {
    let (mut served, mut cost) = (Vec::new(), Cost::new(replicas));
    for round in 0..ROUNDS {
        let number = world.pick(2 * ROUNDS + round);
        let new = |wire: &mut Wire| Ok(log_in(wire, "IMAP", "user", "secret")?.contains("elsewhere"));
        cost.begin(replicas);
        world.move_endpoint(number).await;
        let patched = Instant::now();
        served.push(until_served(world.imaps, number, new).await.unwrap() - patched);
        cost.end(replicas).await;
    }
    table.put_median("one endpoint changed: until sessions go there", served);
    table.put("one endpoint changed: API requests", cost.median());
    table.put("one endpoint changed: time to render", cost.render(replicas));
}

/// Returns the time of the first of several consecutive connections for which `new` is true. The kernel gives them to
/// either replica.
fn until_served(
    at: SocketAddr,
    number: usize,
    new: impl Fn(&mut Wire) -> Result<bool> + Send + 'static,
) -> JoinHandle<Instant> {
    spawn_blocking(move || {
        let (begin, client) = (Instant::now(), AUTHORITY.client());
        let (mut first, mut in_a_row) = (begin, 0);
        while in_a_row < IN_A_ROW {
            assert!(begin.elapsed() < PATIENCE, "the change is served within the bound");
            let connected = || {
                let mut wire = Wire::connect(at)?.handshake_as(client.clone(), &host(number))?;
                wire.line()?;
                new(&mut wire)
            };
            if !connected().unwrap_or(false) {
                in_a_row = 0;
            } else if in_a_row == 0 {
                (first, in_a_row) = (Instant::now(), 1);
            } else {
                in_a_row += 1;
            }
            std::thread::sleep(BETWEEN_CONNECTIONS);
        }
        first
    })
}

/// Measures the cost of changes.
struct Cost {
    before: Requests,
    requests: Vec<Requests>,
    renders: (f64, f64),
}

impl Cost {
    fn new(replicas: &Replicas) -> Self {
        Self { before: Requests::new(), requests: Vec::new(), renders: replicas.renders() }
    }

    fn begin(&mut self, replicas: &Replicas) {
        self.before = replicas.requests();
    }

    /// Waits until all effects of the change are over.
    async fn end(&mut self, replicas: &Replicas) {
        sleep(CALM).await;
        self.requests.push(difference(&self.before, &replicas.requests()));
    }

    /// Returns the median number of requests, and which they were.
    fn median(&mut self) -> String {
        let sum = |requests: &Requests| requests.values().sum::<u64>();
        self.requests.sort_by_key(sum);
        let middle = &self.requests[self.requests.len() / 2];
        let which: Vec<_> =
            middle.iter().map(|(labels, count)| format!("{count} {}", words(labels))).collect();
        if which.is_empty() { "0".to_owned() } else { format!("{} ({})", sum(middle), which.join(", ")) }
    }

    fn render(&self, replicas: &Replicas) -> String {
        let (seconds, count) = replicas.renders();
        let (seconds, count) = (seconds - self.renders.0, count - self.renders.1);
        format!("{:.1} ms", seconds / count * 1000.0)
    }
}

/// Formats labels such as `resource="mailservers",verb="patch"`.
fn words(labels: &str) -> String {
    let values: BTreeMap<_, _> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
    let value = |name| values.get(name).copied().unwrap_or_default().trim_matches('"');
    format!("{} {}", value("verb"), value("resource"))
}

/// Changes of each kind.
const ROUNDS: usize = 11;
/// With this many connections, each of two replicas has almost certainly got one.
const IN_A_ROW: usize = 10;
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(4);
/// Time between two changes.
const CALM: Duration = Duration::from_millis(1500);
