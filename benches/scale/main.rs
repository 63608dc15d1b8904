//! `make scale`: what rendering costs with thousands of MailServers: the first time, and after one change.
//!
//! Everything is in memory: no API server, no sockets. Times are of this machine; what counts is how they grow, so
//! each number of objects is printed beside a tenth of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark panics where it cannot go on"
)]

mod data_plane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mailgress::api::MailServerSpec;
use mailgress::controller::index::{Key, Objects, Resource, SecretData};
use mailgress::controller::publish::Publisher;
use mailgress::controller::render::{Environment, Locality};
use mailgress::controller::status::{Facts, Status, changes};
use mailgress::model::{BindReport, SocketState};
use mailgress::secret::Secret;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

fn main() {
    if data_plane::is_asked() {
        return;
    }
    println!(
        "{:>8} {:>14} {:>14} {:>14} {:>14} {:>10}",
        "servers", "first render", "first status", "one change", "its status", "memory"
    );
    for servers in [500, 5000] {
        let before = resident_kibibytes();
        let mut world = World::new(servers);
        let (first, first_status) = world.render();
        let changes: Vec<_> = (0..CHANGES).map(|round| world.change(round * 7 % servers)).collect();
        let median = |pick: fn(&(Duration, Duration)) -> Duration| {
            let mut times: Vec<_> = changes.iter().map(pick).collect();
            times.sort();
            times[times.len() / 2]
        };
        let memory = resident_kibibytes().saturating_sub(before) / 1024;
        let (change, status) = (median(|times| times.0), median(|times| times.1));
        println!(
            "{servers:>8} {first:>14.1?} {first_status:>14.1?} {change:>14.1?} {status:>14.1?} {memory:>6} MiB"
        );
    }
    data_plane::run();
}

/// Servers with two listeners each, told apart by host names, each with a certificate and a Service of its own.
struct World {
    objects: Objects,
    publisher: Publisher,
    environment: Environment,
    status: Status,
}

impl World {
    fn new(servers: usize) -> Self {
        let certificate = Certificate::new();
        let mut objects = Objects::default();
        for number in 0..servers {
            let key = |name: &str| Key::new(&format!("tenant-{}", number % 100), &format!("{name}-{number}"));
            objects.servers.insert(key("mail"), server(number, 1, 60));
            objects.secrets.insert(key("tls"), certificate.secret());
            objects.services.insert(key("dovecot"), Arc::new(service()));
            objects.slices.insert(key("dovecot"), Arc::new(slice(number)));
        }
        let environment = Environment {
            class: "mailgress".into(),
            hostname: "host".into(),
            now: 1_800_000_000,
            locality: Locality::default(),
        };
        Self { objects, publisher: Publisher::default(), environment, status: Status::default() }
    }

    /// How long a render takes, and the status after it.
    fn render(&mut self) -> (Duration, Duration) {
        let started = Instant::now();
        let rendered = self.publisher.look(&self.objects, &self.environment);
        let snapshot = self.publisher.take(rendered).snapshot.expect("something changed");
        let rendered = started.elapsed();
        let started = Instant::now();
        let sockets = snapshot.sockets.keys().map(|address| (address.clone(), SocketState::Bound(vec![])));
        let report = BindReport {
            revision: snapshot.revision,
            sockets: Arc::new(sockets.collect()),
            ..BindReport::default()
        };
        let facts = Facts { published: &self.publisher, report: &report, now: self.environment.now };
        let status = Status::new(&facts, &self.status);
        std::hint::black_box(changes(&self.status, &status));
        self.status = status;
        (rendered, started.elapsed())
    }

    /// One server's spec changes.
    fn change(&mut self, number: usize) -> (Duration, Duration) {
        let key = Key::new(&format!("tenant-{}", number % 100), &format!("mail-{number}"));
        let generation = self.objects.servers[&key].generation + 1;
        self.objects.servers.insert(key, server(number, generation, 60 + generation));
        self.render()
    }
}

fn server(number: usize, generation: i64, timeout: i64) -> Arc<Resource<MailServerSpec>> {
    let listener = |name: &str, port: u16| {
        json!({
            "name": name, "port": port, "hostnames": [format!("mail-{number}.example.test")],
            "backendRef": { "name": format!("dovecot-{number}"), "port": 143 },
        })
    };
    let spec = json!({
        "serverName": format!("mail-{number}.example.test"),
        "tls": { "certificateRefs": [{ "name": format!("tls-{number}") }] },
        "auth": { "http": { "url": "http://127.0.0.1:9000/auth" } },
        "timeouts": { "connect": format!("{timeout}s") },
        "listeners": [listener("imaps", 993), listener("pop3s", 995)],
    });
    let spec = Ok(Arc::new(serde_json::from_value(spec).unwrap()));
    Arc::new(Resource { uid: String::new(), generation, created: Some(i64::try_from(number).unwrap()), spec })
}

fn service() -> Service {
    let spec = json!({ "spec": { "ports": [{ "name": "imap", "port": 143 }] } });
    serde_json::from_value(spec).unwrap()
}

fn slice(number: usize) -> EndpointSlice {
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": format!("dovecot-{number}") } },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": 10143 }],
        "endpoints": [{ "addresses": ["192.0.2.1"] }, { "addresses": ["192.0.2.2"] }],
    });
    serde_json::from_value(slice).unwrap()
}

/// One for all: parsing it is measured, making it is not.
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

/// Of which the median is printed.
const CHANGES: usize = 11;
