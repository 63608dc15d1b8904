//! Measures the data plane with thousands of listeners: the first snapshot, a snapshot after one change, and memory.
//!
//! There are two layouts: all listeners on two sockets, selected by SNI, and each listener with its own socket. Every
//! server has its own certificate. As with the renderer, unchanged listeners keep their allocation.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailgress::api::MailServerSpec;
use mailgress::controller::index::{Index, Key, Owner, Resource, SecretData};
use mailgress::controller::render::Renderer;
use mailgress::model::{BindReport, Listener, Listeners, SharedTicketKeys, Snapshot, Socket, SocketState};
use mailgress::proxy::{Channels, ExclusiveUsers, Options, Proxy};
use mailgress::secret::Secret;
use prometheus::Registry;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource as Bound, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Prints a line for each layout and number of servers. Each is measured in a separate process with fresh memory.
pub(crate) fn run() {
    println!(
        "\n{:>8} {:>12} {:>14} {:>14} {:>14} {:>10} {:>10}",
        "servers", "sockets", "first bind", "one change", "one less", "model", "memory"
    );
    for shape in [Shape::Shared, Shape::Own] {
        for servers in [500, 5000] {
            let asked = format!("{} {servers}", shape.name());
            let status = Command::new(std::env::current_exe().unwrap()).env(ASKED, asked).status().unwrap();
            assert!(status.success());
        }
    }
}

/// In such a process, measures and returns true.
pub(crate) fn is_asked() -> bool {
    let Ok(asked) = std::env::var(ASKED) else { return false };
    let mut limit = getrlimit(Bound::Nofile);
    limit.current = limit.maximum;
    setrlimit(Bound::Nofile, limit).unwrap();
    let (name, servers) = asked.split_once(' ').unwrap();
    let shape = if name == Shape::Shared.name() { Shape::Shared } else { Shape::Own };
    let servers = servers.parse().unwrap();
    Measured::of(shape, servers).print(shape, servers);
    true
}

/// The layout and the number of servers that a process must measure.
const ASKED: &str = "MAILGRESS_SCALE";

/// How listeners are assigned to sockets.
#[derive(Clone, Copy)]
enum Shape {
    /// Two sockets for all.
    Shared,
    /// Two sockets for each server.
    Own,
}

struct Measured {
    first: Duration,
    change: Duration,
    less: Duration,
    /// Memory in KiB of the snapshot, and of what serves it.
    memory: [u64; 2],
}

impl Measured {
    fn of(shape: Shape, servers: usize) -> Self {
        let empty = super::resident_kibibytes();
        let mut snapshot = shape.render(servers);
        let rendered = super::resident_kibibytes();
        let mut plane = DataPlane::start();
        let first = plane.serve(&mut snapshot);
        let memory = [rendered.saturating_sub(empty), super::resident_kibibytes().saturating_sub(rendered)];
        let mut changes: Vec<_> = (0..super::CHANGES)
            .map(|round| {
                change(&mut snapshot, round * 7, |listeners, position| {
                    let mut listener = Listener::clone(&listeners[position]);
                    listener.timeouts.connect += Duration::from_secs(1);
                    listeners[position] = Arc::new(listener);
                });
                plane.serve(&mut snapshot)
            })
            .collect();
        changes.sort();
        change(&mut snapshot, 3, |listeners, position| drop(listeners.remove(position)));
        let less = plane.serve(&mut snapshot);
        plane.end();
        Self { first, change: changes[changes.len() / 2], less, memory }
    }

    fn print(&self, shape: Shape, servers: usize) {
        let Self { first, change, less, memory: [model, serving] } = self;
        let sockets = match shape {
            Shape::Shared => "2".to_owned(),
            Shape::Own => format!("{}", servers * 2),
        };
        let (model, serving) = (model / 1024, serving / 1024);
        println!(
            "{servers:>8} {sockets:>12} {first:>14.1?} {change:>14.1?} {less:>14.1?} {model:>6} MiB {serving:>6} MiB"
        );
    }
}

/// Changes one listener. A socket without listeners is removed.
fn change(snapshot: &mut Snapshot, number: usize, change: impl FnOnce(&mut Vec<Arc<Listener>>, usize)) {
    let sockets = snapshot.sockets.len();
    let address = snapshot.sockets.keys().nth(number % sockets).unwrap().clone();
    let socket = Socket::clone(&snapshot.sockets[&address]);
    let mut listeners = socket.listeners.to_vec();
    change(&mut listeners, number % socket.listeners.len());
    let mut listeners = listeners.into_iter();
    match listeners.next() {
        None => drop(snapshot.sockets.remove(&address)),
        Some(first) => {
            let listeners = Listeners::new(first, listeners);
            snapshot.sockets.insert(address, Arc::new(Socket { listeners, ..socket }));
        }
    }
}

/// A real data plane.
struct DataPlane {
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Receiver<Arc<BindReport>>,
    shutdown: CancellationToken,
    runtime: tokio::runtime::Runtime,
    done: tokio::task::JoinHandle<()>,
}

impl DataPlane {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (snapshots, wanted) = watch::channel(Arc::new(Snapshot::default()));
        let (bound, reports) = watch::channel(Arc::new(BindReport::default()));
        let options = Options {
            workers: 2,
            process: 1,
            drain_timeout: Duration::from_secs(1),
            drain_spread: Duration::ZERO,
        };
        let exclusive = ExclusiveUsers::alone("1");
        let tickets = SharedTicketKeys::default();
        let channels = Channels { snapshots: wanted, reports: bound, tickets, exclusive };
        let proxy = Proxy::start(options, channels, &Registry::new()).unwrap();
        let shutdown = CancellationToken::new();
        let done = runtime.spawn(proxy.run(shutdown.clone()));
        Self { snapshots, reports, shutdown, runtime, done }
    }

    /// Publishes the snapshot and waits for the report that all of it is served.
    fn serve(&mut self, snapshot: &mut Snapshot) -> Duration {
        snapshot.revision += 1;
        let (revision, next) = (snapshot.revision, Arc::new(snapshot.clone()));
        let started = Instant::now();
        self.snapshots.send_replace(next);
        let served = self.reports.wait_for(|report| report.revision == revision);
        let report = Arc::clone(&self.runtime.block_on(served).unwrap());
        let took = started.elapsed();
        let failed = report.sockets.values().find(|state| matches!(state, SocketState::Failed(_)));
        assert_eq!(failed, None);
        took
    }

    fn end(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.done).unwrap();
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Own => "own",
        }
    }

    fn render(self, servers: usize) -> Snapshot {
        let mut index = Index::default();
        let ports = free_ports();
        for number in 0..servers {
            let key = |name: &str| Key::new("mail", &format!("{name}-{number}"));
            index.set_server(&key("mail"), Some(self.server(number, ports)));
            index.set_secret(&key("tls"), Some(secret(number)));
        }
        let mut renderer = Renderer::default();
        renderer.render(&mut index, &super::environment());
        (**renderer.snapshot()).clone()
    }

    fn server(self, number: usize, ports: [u16; 2]) -> Arc<Resource<MailServerSpec>> {
        let [_, _, high, low] = u32::try_from(number + 256).unwrap().to_be_bytes();
        let address = match self {
            Self::Shared => Ipv4Addr::LOCALHOST,
            Self::Own => Ipv4Addr::new(127, 88, high, low),
        };
        let listener = |protocol: &str, port: u16| {
            json!({
                "name": protocol.to_lowercase(), "protocol": protocol, "address": address, "port": port,
                "tls": { "mode": "Implicit" }, "hostnames": [format!("mail-{number}.example.test")],
                "backendAddress": "192.0.2.1:143",
            })
        };
        let spec = json!({
            "serverName": format!("mail-{number}.example.test"),
            "tls": { "certificateRefs": [{ "name": format!("tls-{number}") }] },
            "auth": { "http": { "url": "http://127.0.0.1:9000/auth" } },
            "listeners": [listener("IMAP", ports[0]), listener("POP3", ports[1])],
        });
        Arc::new(Resource {
            uid: String::new(),
            owner: Owner::Class("mailgress".to_owned()),
            generation: 1,
            created: Some(1),
            spec: Ok(Arc::new(serde_json::from_value(spec).unwrap())),
        })
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn secret(number: usize) -> Arc<SecretData> {
    let mut params = CertificateParams::new(vec![format!("mail-{number}.example.test")]).unwrap();
    params.not_after = rcgen::date_time_ymd(2200, 1, 1);
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let data = BTreeMap::from([
        ("tls.crt".to_owned(), Secret::from(chain.as_bytes())),
        ("tls.key".to_owned(), Secret::from(key.serialize_pem().as_bytes())),
    ]);
    Arc::new(SecretData { kind: "kubernetes.io/tls".to_owned(), data })
}
