//! Two replicas on one host, and their metrics.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cluster::our_address;
use crate::support::mailgress::binary;
use crate::support::process::Process;
use crate::support::{ports, wait};

/// All replicas. Dropping it kills them.
pub struct Replicas {
    pub all: Vec<Replica>,
    pub started: Instant,
}

/// A process.
pub struct Replica {
    process: Process,
    admin: SocketAddr,
    log: Option<TempDir>,
}

/// Requests to the API server, by verb and resource.
pub type Requests = BTreeMap<String, u64>;

impl Replicas {
    /// Starts one replica for each of these admin addresses, without waiting.
    pub fn start(kubeconfig: &Path, class: &str, admins: &[SocketAddr]) -> Self {
        let started = Instant::now();
        let start = |(number, admin): (usize, &SocketAddr)| {
            let (name, admin_text) = (name(number), admin.to_string());
            let service = format!("{class}/replicas");
            let arguments = [
                "run",
                "--kubeconfig",
                kubeconfig.to_str().unwrap(),
                "--class",
                class,
                "--lease",
                class,
                "--replicas",
                &service,
                "--pod-name",
                &name,
                "--admin-address",
                &admin_text,
                "--status-address",
                &admin_text,
                "--drain-timeout",
                "0s",
            ];
            let log = tempfile::Builder::new().prefix("mailgress-scale-").tempdir().unwrap();
            let arguments = arguments.map(AsRef::as_ref);
            let process = Process::start(&binary(), &arguments, &[], log.path().join("mailgress.log"));
            Replica { process, admin: *admin, log: Some(log) }
        };
        Self { all: admins.iter().enumerate().map(start).collect(), started }
    }

    /// Returns the requests of both to the API server so far, without those for the Lease.
    pub fn requests(&self) -> Requests {
        let mut requests = Requests::new();
        for line in self.all.iter().flat_map(|replica| replica.samples("mailgress_api_requests_total")) {
            let (labels, value) = line;
            if labels.contains("leases") {
                continue;
            }
            *requests.entry(labels).or_default() += value;
        }
        requests
    }

    /// Returns the duration and the number of all renders of both.
    pub fn renders(&self) -> (f64, f64) {
        let sum = |name: &str| self.all.iter().map(|replica| replica.value(name)).sum();
        (sum("mailgress_render_seconds_sum"), sum("mailgress_render_seconds_count"))
    }

    /// Returns the CPU time of both so far, in seconds.
    pub fn cpu(&self) -> f64 {
        self.all.iter().map(Replica::cpu).sum()
    }

    /// Ends them like pods, so that the Lease is released.
    pub fn end(mut self) {
        for replica in &mut self.all {
            replica.process.signal(Signal::TERM);
        }
        for replica in &mut self.all {
            replica.process.wait(wait::PATIENCE);
        }
    }
}

/// Prints the log if the test has failed.
impl Drop for Replica {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(log) = self.log.take()
        {
            eprintln!("{} has the log of a replica", log.keep().display());
        }
    }
}

impl Replica {
    /// Tells whether `/readyz` returns 200.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok()
    }

    /// Returns the number of listeners that it serves.
    pub fn serves(&self) -> usize {
        self.samples("mailgress_listener_bound").iter().filter(|(_, value)| *value == 1).count()
    }

    /// Returns the resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Returns the number of open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Returns the number of running watches.
    pub fn watches(&self) -> u64 {
        self.samples("mailgress_watches").iter().map(|(_, value)| value).sum()
    }

    fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanoseconds = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or_default()
        };
        tasks.map(|task| nanoseconds(task.unwrap())).sum::<f64>() / 1e9
    }

    fn samples(&self, name: &str) -> Vec<(String, u64)> {
        let metrics = self.get("/metrics").unwrap();
        let sample = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
            Some((labels.to_owned(), value.parse().unwrap()))
        };
        metrics.lines().filter_map(sample).collect()
    }

    fn value(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or(ErrorKind::InvalidData)?;
        if head.split(' ').nth(1) != Some("200") {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(body.to_owned())
    }
}

/// Returns the name of a replica.
pub fn name(number: usize) -> String {
    format!("replica-{number}")
}

/// Returns an address for an admin server that an EndpointSlice may contain.
pub fn admin() -> SocketAddr {
    (our_address(), ports::free()).into()
}

/// Returns the requests in `after` that are not in `before`.
pub fn difference(before: &Requests, after: &Requests) -> Requests {
    let more = |(name, count): (&String, &u64)| {
        let more = count - before.get(name).copied().unwrap_or_default();
        (more > 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

const TIMEOUT: Duration = Duration::from_secs(30);
