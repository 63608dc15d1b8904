//! `make scale`: measures rendering with thousands of MailServers, the first time and after one change.
//!
//! Everything is in memory: no API server, no sockets. Times depend on the machine; their growth matters. Therefore
//! each number of objects is printed with a tenth of it: a change should cost the same with both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark panics where it cannot go on"
)]

mod data_plane;
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mailgress::api::MailServerSpec;
use mailgress::controller::index::{Index, Key, Owner, Resource, SecretData};
use mailgress::controller::render::{Completeness, Environment, Locality, Renderer};
use mailgress::controller::status::{Facts, Status};
use mailgress::model::{BindReport, SocketState};
use mailgress::secret::Secret;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

fn main() {
    if data_plane::is_asked() {
        return;
    }
    routes::run();
    println!(
        "\n{:>8} {:>7} {:>13} {:>13} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "servers", "ports", "first render", "first status", "spec", "endpoints", "Secret", "status", "memory"
    );
    for ports in [Ports::Shared, Ports::Own] {
        for servers in [500, 5000] {
            let before = resident_kibibytes();
            let mut world = World::new(servers, ports);
            let (first, first_status) = world.render();
            let memory = resident_kibibytes().saturating_sub(before) / 1024;
            let (spec, status) = world.median(World::change_spec);
            let (endpoints, _) = world.median(World::change_endpoints);
            let (secret, _) = world.median(World::renew_secret);
            println!(
                "{servers:>8} {:>7} {first:>13.1?} {first_status:>13.1?} {spec:>10.1?} {endpoints:>10.1?} \
                 {secret:>10.1?} {status:>10.1?} {memory:>5} MiB",
                ports.name()
            );
        }
    }
    data_plane::run();
}

fn environment() -> Environment {
    Environment {
        class: "mailgress".into(),
        hostname: "host".into(),
        now: 1_800_000_000,
        locality: Locality::default(),
        trusted_peers: Vec::new(),
        completeness: Completeness::Whole,
        lacks_replicas: false,
    }
}

/// How listeners are assigned to ports.
#[derive(Clone, Copy)]
enum Ports {
    /// All on two ports, selected by host names.
    Shared,
    /// Each on its own port.
    Own,
}

impl Ports {
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Own => "own",
        }
    }

    fn of(self, number: usize) -> [usize; 2] {
        match self {
            Self::Shared => [993, 995],
            Self::Own => [FIRST_PORT + 2 * number, FIRST_PORT + 2 * number + 1],
        }
    }
}

/// Servers with two listeners each, with their own certificates and Services.
struct World {
    servers: usize,
    ports: Ports,
    certificates: [Certificate; 2],
    generation: i64,
    index: Index,
    renderer: Renderer,
    environment: Environment,
    status: Status,
}

impl World {
    fn new(servers: usize, ports: Ports) -> Self {
        let mut world = Self {
            servers,
            ports,
            certificates: [Certificate::new(), Certificate::new()],
            generation: 1,
            index: Index::default(),
            renderer: Renderer::default(),
            environment: environment(),
            status: Status::default(),
        };
        for number in 0..servers {
            world.index.set_service(&key("dovecot", number), Some(Arc::new(service())));
            world.change_spec(number);
            world.change_endpoints(number);
            world.renew_secret(number);
        }
        world
    }

    fn change_spec(&mut self, number: usize) {
        let server = server(number, self.generation, self.ports);
        self.index.set_server(&key("mail", number), Some(server));
    }

    fn change_endpoints(&mut self, number: usize) {
        let slice = Arc::new(slice(number, self.generation));
        self.index.set_slice(&key("dovecot", number), Some(slice));
    }

    fn renew_secret(&mut self, number: usize) {
        let certificate = &self.certificates[usize::from(self.generation > 1)];
        self.index.set_secret(&key("tls", number), Some(certificate.secret()));
    }

    /// Returns the duration of a render, and of computing the changed statuses.
    fn render(&mut self) -> (Duration, Duration) {
        let started = Instant::now();
        let delta = self.renderer.render(&mut self.index, &self.environment);
        let rendered = started.elapsed();
        let snapshot = delta.snapshot.expect("something changed");
        let sockets = snapshot.sockets.keys().map(|address| (address.clone(), SocketState::Bound(vec![])));
        let report = BindReport {
            revision: snapshot.revision,
            sockets: Arc::new(sockets.collect()),
            ..BindReport::default()
        };
        let facts = Facts {
            published: &self.renderer,
            report: &report,
            replicas: None,
            surroundings: None,
            now: self.environment.now,
        };
        let started = Instant::now();
        for id in &delta.objects {
            std::hint::black_box(self.status.update(&facts, id));
        }
        (rendered, started.elapsed())
    }

    /// Returns the medians after changes of one server.
    fn median(&mut self, change: fn(&mut Self, usize)) -> (Duration, Duration) {
        let time = |round| {
            self.generation += 1;
            change(self, round * 7 % self.servers);
            self.render()
        };
        let (mut renders, mut statuses): (Vec<_>, Vec<_>) = (0..CHANGES).map(time).unzip();
        renders.sort();
        statuses.sort();
        (renders[CHANGES / 2], statuses[CHANGES / 2])
    }
}

fn key(name: &str, number: usize) -> Key {
    Key::new(&format!("tenant-{}", number % 100), &format!("{name}-{number}"))
}

fn server(number: usize, generation: i64, ports: Ports) -> Arc<Resource<MailServerSpec>> {
    let listener = |protocol: &str, port: usize| {
        json!({
            "name": protocol.to_lowercase(), "port": port, "protocol": protocol, "tls": { "mode": "Implicit" },
            "hostnames": [format!("mail-{number}.example.test")],
            "backendRef": { "name": format!("dovecot-{number}"), "port": 143 },
        })
    };
    let [imaps, pop3s] = ports.of(number);
    let spec = json!({
        "serverName": format!("mail-{number}.example.test"),
        "tls": { "certificateRefs": [{ "name": format!("tls-{number}") }] },
        "auth": { "http": { "url": "http://127.0.0.1:9000/auth" } },
        "timeouts": { "connect": format!("{}s", 60 + generation) },
        "listeners": [listener("IMAP", imaps), listener("POP3", pop3s)],
    });
    let spec = Ok(Arc::new(serde_json::from_value(spec).unwrap()));
    let owner = Owner::Class("mailgress".to_owned());
    Arc::new(Resource {
        uid: String::new(),
        owner,
        generation,
        created: Some(i64::try_from(number).unwrap()),
        spec,
    })
}

fn service() -> Service {
    let spec = json!({ "spec": { "ports": [{ "name": "imap", "port": 143 }] } });
    serde_json::from_value(spec).unwrap()
}

fn slice(number: usize, generation: i64) -> EndpointSlice {
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": format!("dovecot-{number}") } },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": 10143 }],
        "endpoints": [{ "addresses": ["192.0.2.1"] }, { "addresses": [format!("192.0.2.{}", 2 + generation % 200)] }],
    });
    serde_json::from_value(slice).unwrap()
}

/// The certificate of all servers. Parsing it is measured, creating it is not.
struct Certificate {
    chain: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec!["*.example.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        Self { chain, key: key.serialize_pem() }
    }

    fn secret(&self) -> Arc<SecretData> {
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), Secret::from(self.chain.as_bytes())),
            ("tls.key".to_owned(), Secret::from(self.key.as_bytes())),
        ]);
        Arc::new(SecretData { kind: "kubernetes.io/tls".to_owned(), data })
    }
}

fn resident_kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The first of 10,000 ports.
const FIRST_PORT: usize = 10_000;
/// Number of changes for a median.
const CHANGES: usize = 11;
