//! What the data plane counts, as Prometheus metrics.
//!
//! Label lookups are done once for each listener, when it is first served; a session touches only
//! ready-made handles.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::model::ListenerId;
use crate::protocol::Protocol;

use super::limits::lock;

/// All metrics of the data plane.
#[derive(Debug)]
pub(crate) struct Metrics {
    sessions_open: IntGaugeVec,
    sessions: IntCounterVec,
    bytes: IntCounterVec,
    timings: [HistogramVec; 3],
    /// Actions of the supervisor, by kind: bind, swap, rebind, drain, failed.
    pub(crate) swaps: IntCounterVec,
    /// Times that accepting paused because file descriptors or memory ran out.
    pub(crate) accept_pauses: IntCounter,
    /// Unix time at which the certificates served expire, by Secret.
    pub(crate) certificate_expiry: IntGaugeVec,
    backend_up: IntGaugeVec,
    backend_checks: IntCounterVec,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    known: HashMap<ListenerId, Arc<ListenerMetrics>>,
    /// Those that are gone, or were, and may still have sessions.
    leaving: BTreeSet<ListenerId>,
}

/// The handles of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    id: String,
    protocol: &'static str,
    open: [IntGauge; 3],
    sessions: IntCounterVec,
    /// Labels of ended sessions so far: TLS, outcome, fault.
    outcomes: Mutex<BTreeSet<(&'static str, &'static str, &'static str)>>,
    /// Bytes from clients to backends, in the relay.
    pub(crate) bytes_to_backend: IntCounter,
    /// Bytes from backends to clients, in the relay.
    pub(crate) bytes_to_client: IntCounter,
    families: [HistogramVec; 3],
    /// Made when there is something to be told, since they are most of what a listener weighs here.
    timings: [OnceLock<Histogram>; 3],
}

/// What is timed. The order is that of the histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// From the credentials to the verdict.
    Login,
    /// One question to the auth service.
    Auth,
    /// From the first connect to the connection that is used, TLS included.
    Connect,
}

/// How a session's bytes are protected towards the client; the `tls` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsLabel {
    /// In clear.
    Off,
    /// After STARTTLS.
    StartTls,
    /// From the first byte.
    Implicit,
}

impl TlsLabel {
    const ALL: [Self; 3] = [Self::Off, Self::StartTls, Self::Implicit];

    /// The label's value.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
        }
    }
}

/// Counted in `mailgress_sessions_open` until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSession(IntGauge);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            sessions_open: gauge("sessions_open", "Open client sessions", &["listener", "protocol", "tls"])?,
            sessions: counter(
                "sessions_total",
                "Ended client sessions by outcome and by whose fault it was",
                &["listener", "protocol", "tls", "outcome", "fault"],
            )?,
            bytes: counter(
                "relayed_bytes_total",
                "Bytes relayed after the login",
                &["listener", "direction"],
            )?,
            timings: [
                histogram("login_duration_seconds", "From the credentials to the verdict")?,
                histogram("auth_service_duration_seconds", "One question to the auth service")?,
                histogram(
                    "backend_connect_duration_seconds",
                    "From the first connect to the connection that is used",
                )?,
            ],
            swaps: counter("listener_changes_total", "What the supervisor did to sockets", &["action"])?,
            accept_pauses: IntCounter::with_opts(Opts::new(
                "mailgress_accept_pauses_total",
                "Times that accepting paused because file descriptors or memory ran out",
            ))?,
            certificate_expiry: gauge(
                "certificate_expiry_timestamp_seconds",
                "Unix time at which a served certificate chain expires",
                &["secret"],
            )?,
            backend_up: gauge(
                "backend_up",
                "Whether an endpoint answers its health checks",
                &["endpoint", "protocol"],
            )?,
            backend_checks: counter(
                "backend_checks_total",
                "Health checks by what came of them",
                &["endpoint", "protocol", "outcome"],
            )?,
            listeners: Mutex::default(),
        };
        registry.register(Box::new(metrics.sessions_open.clone()))?;
        registry.register(Box::new(metrics.sessions.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        for timing in &metrics.timings {
            registry.register(Box::new(timing.clone()))?;
        }
        registry.register(Box::new(metrics.swaps.clone()))?;
        registry.register(Box::new(metrics.accept_pauses.clone()))?;
        registry.register(Box::new(metrics.certificate_expiry.clone()))?;
        registry.register(Box::new(metrics.backend_up.clone()))?;
        registry.register(Box::new(metrics.backend_checks.clone()))?;
        Ok(metrics)
    }

    /// The handles of a listener; made at its first use. A listener whose protocol changed gets new ones.
    pub(crate) fn listener(&self, id: &ListenerId, protocol: Protocol) -> Arc<ListenerMetrics> {
        let listeners = &mut lock(&self.listeners).known;
        if let Some(known) = listeners.get(id)
            && known.protocol == protocol.name()
        {
            return Arc::clone(known);
        }
        let name = id.to_string();
        let open = |tls: TlsLabel| {
            self.sessions_open.with_label_values(&[name.as_str(), protocol.name(), tls.name()])
        };
        let made = Arc::new(ListenerMetrics {
            open: TlsLabel::ALL.map(open),
            sessions: self.sessions.clone(),
            outcomes: Mutex::default(),
            bytes_to_backend: self.bytes.with_label_values(&[name.as_str(), TO_BACKEND]),
            bytes_to_client: self.bytes.with_label_values(&[name.as_str(), TO_CLIENT]),
            families: self.timings.clone(),
            timings: Default::default(),
            protocol: protocol.name(),
            id: name,
        });
        listeners.insert(id.clone(), Arc::clone(&made));
        made
    }

    /// Whether an endpoint answers its health checks.
    pub(crate) fn endpoint_up(&self, endpoint: &str, protocol: Protocol, is_up: bool) {
        self.backend_up.with_label_values(&[endpoint, protocol.name()]).set(i64::from(is_up));
    }

    /// Counts a health check.
    pub(crate) fn checked(&self, endpoint: &str, protocol: Protocol, is_well: bool) {
        let outcome = if is_well { CHECK_PASSED } else { CHECK_FAILED };
        self.backend_checks.with_label_values(&[endpoint, protocol.name(), outcome]).inc();
    }

    /// Forgets an endpoint that is not checked any more.
    pub(crate) fn forget_check(&self, endpoint: &str, protocol: Protocol) {
        // What was never counted is not there to be removed.
        let _ = self.backend_up.remove_label_values(&[endpoint, protocol.name()]);
        for outcome in [CHECK_PASSED, CHECK_FAILED] {
            let _ = self.backend_checks.remove_label_values(&[endpoint, protocol.name(), outcome]);
        }
    }

    /// These listeners are gone. Forgets those that have no sessions any more, so that changes do not grow the process.
    pub(crate) fn leave(&self, gone: &BTreeSet<&ListenerId>) {
        let Listeners { known, leaving } = &mut *lock(&self.listeners);
        leaving.extend(gone.iter().map(|id| (*id).clone()));
        leaving.retain(|id| match known.get(id) {
            Some(metrics) if Arc::strong_count(metrics) > 1 => true,
            _ => {
                if let Some(metrics) = known.remove(id) {
                    self.remove(&metrics);
                }
                false
            }
        });
    }

    fn remove(&self, metrics: &ListenerMetrics) {
        let listener = metrics.id.as_str();
        // What was never counted is not there to be removed.
        for tls in TlsLabel::ALL {
            let _ = self.sessions_open.remove_label_values(&[listener, metrics.protocol, tls.name()]);
        }
        for (tls, outcome, fault) in lock(&metrics.outcomes).iter() {
            let labels = [listener, metrics.protocol, tls, outcome, fault];
            let _ = self.sessions.remove_label_values(&labels);
        }
        for direction in [TO_BACKEND, TO_CLIENT] {
            let _ = self.bytes.remove_label_values(&[listener, direction]);
        }
        for histogram in &self.timings {
            let _ = histogram.remove_label_values(&[listener, metrics.protocol]);
        }
    }
}

impl ListenerMetrics {
    /// Counts an open session.
    pub(crate) fn open(&self, tls: TlsLabel) -> OpenSession {
        let [off, start_tls, implicit] = &self.open;
        let gauge = match tls {
            TlsLabel::Off => off,
            TlsLabel::StartTls => start_tls,
            TlsLabel::Implicit => implicit,
        };
        gauge.inc();
        OpenSession(gauge.clone())
    }

    /// Tells how long something took.
    pub(crate) fn took(&self, what: Timing, duration: Duration) {
        let [login, auth, connect] = &self.timings;
        let [of_login, of_auth, of_connect] = &self.families;
        let (timing, family) = match what {
            Timing::Login => (login, of_login),
            Timing::Auth => (auth, of_auth),
            Timing::Connect => (connect, of_connect),
        };
        let made = || family.with_label_values(&[self.id.as_str(), self.protocol]);
        timing.get_or_init(made).observe(duration.as_secs_f64());
    }

    /// Counts an ended session.
    pub(crate) fn ended(&self, tls: TlsLabel, outcome: &'static str, fault: &'static str) {
        lock(&self.outcomes).insert((tls.name(), outcome, fault));
        self.sessions.with_label_values(&[self.id.as_str(), self.protocol, tls.name(), outcome, fault]).inc();
    }
}

/// Values of the label `direction`.
const TO_BACKEND: &str = "to_backend";
const TO_CLIENT: &str = "to_client";

/// Values of the label `outcome` of health checks.
const CHECK_PASSED: &str = "passed";
const CHECK_FAILED: &str = "failed";

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(format!("mailgress_{name}"), help), labels)
}

fn counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(format!("mailgress_{name}"), help), labels)
}

fn histogram(name: &str, help: &str) -> prometheus::Result<HistogramVec> {
    let buckets = prometheus::exponential_buckets(0.001, 4.0, 9)?;
    HistogramVec::new(
        HistogramOpts::new(format!("mailgress_{name}"), help).buckets(buckets),
        &["listener", "protocol"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_a_listener_that_is_gone_when_its_last_session_has_ended() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let id = ListenerId { namespace: "mail".into(), object: "example".into(), listener: "imap".into() };
        let session = metrics.listener(&id, Protocol::Imap);
        let open = session.open(TlsLabel::Off);
        session.took(Timing::Login, Duration::from_millis(100));
        metrics.leave(&BTreeSet::from([&id]));
        assert!(text().contains("mail/example/imap"), "a session is still counted");
        drop(open);
        session.ended(TlsLabel::Off, "done", "none");
        drop(session);
        metrics.leave(&BTreeSet::new());
        assert!(!text().contains("mail/example/imap"), "{}", text());
    }
}
