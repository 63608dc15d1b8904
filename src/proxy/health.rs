//! Health checks: probes every endpoint of a backend independently of sessions. A failing endpoint gets no new
//! sessions.
//!
//! A check reads the greeting and says goodbye, over the same [`Connector`] that sessions use. Listeners with the same
//! check of the same endpoint share it, so that a thousand listeners cause one check. Checks run on the control
//! threads; a session only reads flags.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::dns::Dns;
use crate::model::settings::ClientTls;
use crate::model::{
    BackendHealth, Destination, HealthCheck, Listener, Reach, Resolver, TrustAnchors, UpstreamTls,
};
use crate::net::BackendAddress;
use crate::protocol::Protocol;
use crate::protocol::backend::{Probe, ProbeStep};
use crate::protocol::proxy_header::{self, Details, ProxyVersion};

use super::connection::Connection;
use super::connector::{BackendTls, Connector, Limit};
use super::end::End;
use super::metrics::Metrics;
use super::uses::{Use, Uses};

pub(crate) struct HealthChecks {
    checks: Checks,
    wanted: Uses<CheckId>,
    /// Checks that differ only in settings share their metrics.
    labels: Uses<(BackendAddress, Protocol)>,
    at_once: Arc<Semaphore>,
    changed: Arc<Notify>,
    dns: Arc<Dns>,
    metrics: Arc<Metrics>,
}

/// The running checks.
type Checks = Arc<Mutex<HashMap<CheckId, Check>>>;

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecks").finish_non_exhaustive()
    }
}

/// The key of a check. Listeners with equal keys share the check.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CheckId {
    address: BackendAddress,
    protocol: Protocol,
    rule: HealthCheck,
    proxy_protocol: Option<ProxyVersion>,
    /// A hash of the TLS settings that the handshake depends on.
    tls: Option<u64>,
    /// For an address that is a name: what resolves it, and which addresses are allowed.
    resolver: Option<(Arc<Resolver>, Reach)>,
}

/// A check that repeats until it is dropped.
struct Check {
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
    _label: Use<(BackendAddress, Protocol)>,
}

/// The state of an endpoint. It is healthy until its checks have failed often enough.
#[derive(Debug)]
struct Endpoint {
    address: BackendAddress,
    is_out: AtomicBool,
    /// Whether the checks have produced a result that counts.
    is_known: AtomicBool,
    /// The reason of the last failed check.
    problem: Mutex<String>,
}

/// The endpoints of one listener's backend.
#[derive(Debug)]
pub(crate) struct CheckedBackend(Vec<Arc<Endpoint>>);

impl HealthChecks {
    /// Starts without any check.
    pub(crate) fn new(dns: Arc<Dns>, metrics: Arc<Metrics>) -> Self {
        let at_once = Arc::new(Semaphore::new(MAX_AT_ONCE));
        let (checks, of_labels) = (Checks::default(), Arc::clone(&metrics));
        let running = Arc::clone(&checks);
        Self {
            checks,
            wanted: Uses::new(move |id| drop(running.lock().remove(id))),
            labels: Uses::new(move |(address, protocol): &(BackendAddress, Protocol)| {
                of_labels.forget_check(&address.to_string(), *protocol);
            }),
            at_once,
            changed: Arc::default(),
            dns,
            metrics,
        }
    }

    /// Returns the checked endpoints of a backend of a listener, if it has health checks, and starts checks that do not
    /// run yet.
    pub(crate) fn of(
        &self,
        listener: &Listener,
        destination: &Destination,
        tls: &BackendTls,
    ) -> Option<Arc<CheckedBackend>> {
        let rule = destination.upstream.health_check?;
        let mut checks = self.checks.lock();
        let endpoints = destination.backend.endpoints.iter().map(|address| {
            let id = CheckId::new(address, rule, listener, destination);
            let connector = |header| {
                let reach = destination.reach.clone();
                Connector::new(&self.dns, &listener.resolver, reach, tls.without_resumption(), header)
            };
            let check = checks.entry(id).or_insert_with_key(|id| self.start(id, connector));
            Arc::clone(&check.endpoint)
        });
        Some(Arc::new(CheckedBackend(endpoints.collect())))
    }

    /// Returns the results for a listener's own backend. `None` without health checks, before all checks have started, or before any
    /// of them has a result.
    pub(crate) fn report(&self, listener: &Listener) -> Option<BackendHealth> {
        listener.upstream.health_check?;
        let destination = listener.destination()?;
        let checks = self.checks.lock();
        let endpoints =
            CheckId::of(listener, &destination).map(|id| Some(Arc::clone(&checks.get(&id)?.endpoint)));
        CheckedBackend(endpoints.collect::<Option<_>>()?).report()
    }

    /// Returns the uses of the listener's checks. A check stops after its last use.
    pub(crate) fn register(&self, listener: &Listener) -> Vec<Use<CheckId>> {
        let begin = |destination: Destination| {
            CheckId::of(listener, &destination).map(|id| self.wanted.begin(id)).collect::<Vec<_>>()
        };
        listener.destinations().flat_map(begin).collect()
    }

    /// Waits until an endpoint fails or recovers, or has its first result.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn start(&self, id: &CheckId, connector: impl FnOnce(Vec<u8>) -> Connector) -> Check {
        let endpoint = Arc::new(Endpoint {
            address: id.address.clone(),
            is_out: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            problem: Mutex::default(),
        });
        let mut header = Vec::new();
        if let Some(version) = id.proxy_protocol {
            proxy_header::encode(version, None, Details::default(), &mut header);
        }
        let checker = Checker {
            endpoint: Arc::clone(&endpoint),
            connector: connector(header),
            protocol: id.protocol,
            rule: id.rule,
            at_once: Arc::clone(&self.at_once),
            changed: Arc::clone(&self.changed),
            metrics: Arc::clone(&self.metrics),
        };
        let label = self.labels.begin((id.address.clone(), id.protocol));
        Check { endpoint, task: tokio::spawn(checker.run()).abort_handle(), _label: label }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CheckId {
    /// Returns the key of each check of a backend of the listener.
    fn of(listener: &Listener, destination: &Destination) -> impl Iterator<Item = Self> {
        destination.upstream.health_check.into_iter().flat_map(move |rule| {
            let endpoints = destination.backend.endpoints.iter();
            endpoints.map(move |address| Self::new(address, rule, listener, destination))
        })
    }

    fn new(
        address: &BackendAddress,
        rule: HealthCheck,
        listener: &Listener,
        destination: &Destination,
    ) -> Self {
        let Destination { upstream, reach, .. } = destination;
        let (is_name, ip) = match address {
            BackendAddress::Name { .. } => (true, None),
            BackendAddress::Ip(ip) => (false, Some(*ip)),
            BackendAddress::Unix(_) => (false, None),
        };
        let takes_header = is_name || reach.introduces(ip);
        Self {
            address: address.clone(),
            protocol: listener.frontend.protocol,
            rule,
            proxy_protocol: upstream.proxy_protocol.filter(|_| takes_header),
            tls: match &upstream.tls {
                UpstreamTls::Implicit(tls) => Some(fingerprint(tls)),
                // A check stops at the greeting, which comes before STARTTLS.
                UpstreamTls::StartTls(_) | UpstreamTls::Disabled => None,
            },
            resolver: is_name.then(|| (Arc::clone(&listener.resolver), reach.clone())),
        }
    }
}

fn fingerprint(tls: &ClientTls) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &tls.trust {
        TrustAnchors::System => {}
        TrustAnchors::Certificates(certificates) => certificates.hash(&mut hasher),
    }
    tls.server_name.hash(&mut hasher);
    tls.certificate.as_ref().map(|certificate| &certificate.chain).hash(&mut hasher);
    hasher.finish()
}

impl CheckedBackend {
    /// Removes failing endpoints from `order`, unless all of them fail.
    pub(crate) fn keep_healthy(&self, order: &mut Vec<BackendAddress>) {
        let is_out = |address: &BackendAddress| {
            self.0.iter().any(|endpoint| endpoint.address == *address && endpoint.is_out())
        };
        if order.iter().any(|address| !is_out(address)) {
            order.retain(|address| !is_out(address));
        }
    }

    /// Returns the results for the status; `None` before any check has a result.
    pub(crate) fn report(&self) -> Option<BackendHealth> {
        let is_known = self.0.iter().any(|endpoint| endpoint.is_known.load(Ordering::Relaxed));
        let out = self.0.iter().filter(|endpoint| endpoint.is_out());
        let why = |endpoint: &Arc<Endpoint>| (endpoint.address.clone(), endpoint.problem.lock().clone());
        is_known.then(|| BackendHealth { endpoints: self.0.len(), unhealthy: out.map(why).collect() })
    }
}

impl Endpoint {
    fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }
}

/// The task that checks one endpoint.
struct Checker {
    endpoint: Arc<Endpoint>,
    connector: Connector,
    protocol: Protocol,
    rule: HealthCheck,
    at_once: Arc<Semaphore>,
    changed: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Checker {
    async fn run(self) {
        let mut tally = Tally::new(self.rule);
        self.metrics.endpoint_up(&self.endpoint.address.to_string(), self.protocol, true);
        // A random delay, so that checks do not all run at once after a start.
        sleep(self.rule.interval.min(FIRST_CHECK).mul_f64(rand::random())).await;
        loop {
            // The semaphore is never closed.
            let permit = self.at_once.acquire().await;
            let problem = self.check().await.err();
            drop(permit);
            self.metrics.checked(&self.endpoint.address.to_string(), self.protocol, problem.is_none());
            let turned = tally.record(problem.is_none());
            let is_known = problem.is_none() || turned.is_some();
            if let Some(problem) = problem {
                *self.endpoint.problem.lock() = problem;
            }
            if let Some(is_healthy) = turned {
                self.turn(is_healthy);
            }
            if is_known && !self.endpoint.is_known.swap(true, Ordering::Relaxed) {
                self.changed.notify_one();
            }
            sleep(self.rule.interval.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
        }
    }

    /// Runs one check. The error is the reason of the failure.
    async fn check(&self) -> Result<(), String> {
        let is_silent = AtomicBool::new(false);
        let until = Instant::now() + self.rule.timeout;
        let limit = Limit { until, field: "healthCheck.timeout" };
        let connected = self.connector.connect_to(&self.endpoint.address, limit).await;
        let connection = connected.map_err(|end| end.to_string())?.connection;
        match timeout_at(until, self.ask(connection, &is_silent)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(end)) => Err(end.to_string()),
            Err(_) if is_silent.load(Ordering::Relaxed) => Err(format!(
                "no greeting within {:?}; {}",
                self.rule.timeout,
                self.connector.silence().hint()
            )),
            Err(_) => Err(format!("no answer within {:?}", self.rule.timeout)),
        }
    }

    /// Sets `is_silent` while the endpoint is connected and has sent nothing.
    async fn ask(&self, mut connection: Connection, is_silent: &AtomicBool) -> Result<(), End> {
        let mut probe = Probe::new(self.protocol);
        let mut out = Vec::new();
        is_silent.store(true, Ordering::Relaxed);
        loop {
            match probe.receive(&mut connection.input, &mut out) {
                ProbeStep::Read(same) => probe = same,
                ProbeStep::Healthy => break,
                ProbeStep::Unhealthy(error) => return Err(error.into()),
            }
            connection.send(&mut out).await.map_err(|_| End::BackendGone)?;
            if connection.fill().await.map_err(|_| End::BackendGone)? == 0 {
                return Err(End::BackendGone);
            }
            is_silent.store(false, Ordering::Relaxed);
        }
        // The endpoint is healthy even if it does not read the goodbye.
        if connection.send(&mut out).await.is_ok() {
            tokio::spawn(connection.close());
        }
        Ok(())
    }

    fn turn(&self, is_healthy: bool) {
        let (address, protocol) = (&self.endpoint.address, self.protocol);
        self.endpoint.is_out.store(!is_healthy, Ordering::Relaxed);
        self.metrics.endpoint_up(&address.to_string(), protocol, is_healthy);
        if is_healthy {
            info!(%address, protocol = protocol.name(), "endpoint passes its health checks again");
        } else {
            let problem = self.endpoint.problem.lock().clone();
            warn!(
                %address, protocol = protocol.name(),
                "endpoint fails its health checks and gets no new sessions while another endpoint is healthy: {problem}"
            );
        }
        self.changed.notify_one();
    }
}

/// Counts consecutive results against the thresholds.
#[derive(Debug)]
struct Tally {
    rule: HealthCheck,
    is_healthy: bool,
    /// Consecutive results that contradict `is_healthy`.
    against: u32,
}

impl Tally {
    fn new(rule: HealthCheck) -> Self {
        Self { rule, is_healthy: true, against: 0 }
    }

    /// Records a result. Returns the new state if it changes.
    fn record(&mut self, is_healthy: bool) -> Option<bool> {
        if is_healthy == self.is_healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let threshold = if is_healthy { self.rule.healthy_threshold } else { self.rule.unhealthy_threshold };
        if self.against < threshold {
            return None;
        }
        (self.is_healthy, self.against) = (is_healthy, 0);
        Some(is_healthy)
    }
}

/// Maximum number of checks that run at once, over all endpoints.
const MAX_AT_ONCE: usize = 64;

/// Upper bound of the random delay before the first check; also bounded by the interval.
const FIRST_CHECK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16, is_out: bool) -> Arc<Endpoint> {
        let address = BackendAddress::Ip(([127, 0, 0, 1], port).into());
        let (is_out, is_known) = (is_out.into(), is_out.into());
        Arc::new(Endpoint { address, is_out, is_known, problem: Mutex::new("why".to_owned()) })
    }

    #[test]
    fn an_endpoint_turns_after_so_many_results_in_a_row() {
        let second = Duration::from_secs(1);
        let rule =
            HealthCheck { interval: second, timeout: second, unhealthy_threshold: 3, healthy_threshold: 2 };
        let mut tally = Tally::new(rule);
        let results = [false, false, true, false, false, false, false, true, false, true, true, true];
        let turns: Vec<_> = results.into_iter().map(|result| tally.record(result)).collect();
        let mut expected = vec![None; results.len()];
        expected[5] = Some(false);
        expected[10] = Some(true);
        assert_eq!(turns, expected);
    }

    #[test]
    fn nothing_is_reported_before_the_first_check() {
        let backend = CheckedBackend(vec![endpoint(1, false), endpoint(2, false)]);
        assert_eq!(backend.report(), None);
        backend.0[0].is_known.store(true, Ordering::Relaxed);
        assert_eq!(backend.report().map(|report| report.endpoints), Some(2));
    }

    #[test]
    fn what_is_out_is_not_tried_unless_all_are() {
        let backend = CheckedBackend(vec![endpoint(1, true), endpoint(2, false)]);
        let all: Vec<_> = [1, 2, 3].map(|port| endpoint(port, false).address.clone()).into();
        let mut order = all.clone();
        backend.keep_healthy(&mut order);
        assert_eq!(order, all[1..]);
        let mut order = all[..1].to_vec();
        backend.keep_healthy(&mut order);
        assert_eq!(order, all[..1]);
        let report = backend.report().unwrap();
        assert_eq!((report.endpoints, report.unhealthy), (2, vec![(all[0].clone(), "why".to_owned())]));
    }
}
