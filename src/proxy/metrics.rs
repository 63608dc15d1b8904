//! What the data plane counts, as Prometheus metrics.
//!
//! Label lookups are done once for each listener, when it is first served; a session touches only
//! ready-made handles.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::model::metric::{self, PLAIN};
use crate::model::tls::expiry_alarms;
use crate::model::view::Numbers;
use crate::model::{Certificate, ListenerId};
use crate::protocol::Protocol;

use super::certificates::CertificateId;
use super::end::{End, Fault};
use super::journal::Journal;
use super::rates::{Counted, Rates};
use super::verdicts::{Verdict, Verdicts};

/// All metrics of the data plane.
#[derive(Debug)]
pub(crate) struct Metrics {
    sessions_open: IntGaugeVec,
    sessions: IntCounterVec,
    bytes: IntCounterVec,
    logins: IntCounterVec,
    auth_requests: IntCounterVec,
    timings: [HistogramVec; 3],
    /// Actions of the supervisor, by kind: bind, swap, rebind, drain, failed.
    pub(crate) swaps: IntCounterVec,
    /// Times that accepting paused because file descriptors or memory ran out.
    pub(crate) accept_pauses: IntCounter,
    /// Open sessions that there are descriptors for.
    pub(crate) session_capacity: IntGauge,
    session_limits: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    certificate_warning: IntGaugeVec,
    backend_up: IntGaugeVec,
    backend_checks: IntCounterVec,
    /// What happened lately.
    pub(crate) journal: Arc<Journal>,
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
    /// Sessions that began.
    begun: AtomicU64,
    rates: Rates,
    journal: Arc<Journal>,
    sessions: IntCounterVec,
    /// Labels of ended sessions so far: TLS, outcome, fault.
    outcomes: Mutex<BTreeSet<(&'static str, &'static str, &'static str)>>,
    /// Bytes from clients to backends, in the relay.
    pub(crate) bytes_to_backend: IntCounter,
    /// Bytes from backends to clients, in the relay.
    pub(crate) bytes_to_client: IntCounter,
    logins: Verdicts,
    auth_requests: Verdicts,
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
        Ok(Self {
            sessions_open: metric::SESSIONS_OPEN.gauges(registry)?,
            sessions: metric::SESSIONS.counters(registry)?,
            bytes: metric::RELAYED_BYTES.counters(registry)?,
            logins: metric::LOGINS.counters(registry)?,
            auth_requests: metric::AUTH_SERVICE_REQUESTS.counters(registry)?,
            timings: [
                metric::LOGIN_DURATION.histograms(registry)?,
                metric::AUTH_SERVICE_DURATION.histograms(registry)?,
                metric::BACKEND_CONNECT_DURATION.histograms(registry)?,
            ],
            swaps: metric::LISTENER_CHANGES.counters(registry)?,
            accept_pauses: metric::ACCEPT_PAUSES.counters(registry)?.with_label_values(&PLAIN),
            session_capacity: metric::SESSION_CAPACITY.gauges(registry)?.with_label_values(&PLAIN),
            session_limits: metric::LISTENER_SESSION_LIMIT.gauges(registry)?,
            certificate_expiry: metric::CERTIFICATE_NOT_AFTER.gauges(registry)?,
            certificate_warning: metric::CERTIFICATE_WARNING.gauges(registry)?,
            backend_up: metric::BACKEND_UP.gauges(registry)?,
            backend_checks: metric::BACKEND_CHECKS.counters(registry)?,
            journal: Arc::default(),
            listeners: Mutex::default(),
        })
    }

    /// The handles of a listener; made at its first use. A listener whose protocol changed gets new ones.
    pub(crate) fn listener(&self, id: &ListenerId, protocol: Protocol) -> Arc<ListenerMetrics> {
        let listeners = &mut self.listeners.lock().known;
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
            begun: AtomicU64::new(0),
            rates: Rates::new(Instant::now()),
            journal: Arc::clone(&self.journal),
            sessions: self.sessions.clone(),
            outcomes: Mutex::default(),
            bytes_to_backend: self.bytes.with_label_values(&[name.as_str(), TO_BACKEND]),
            bytes_to_client: self.bytes.with_label_values(&[name.as_str(), TO_CLIENT]),
            logins: Verdicts::new(&self.logins),
            auth_requests: Verdicts::new(&self.auth_requests),
            families: self.timings.clone(),
            timings: Default::default(),
            protocol: protocol.name(),
            id: name,
        });
        listeners.insert(id.clone(), Arc::clone(&made));
        made
    }

    /// What is counted of a listener, if it has been served.
    pub(crate) fn numbers(&self, id: &ListenerId, now: Instant) -> Option<Numbers> {
        let listener = self.listeners.lock().known.get(id).cloned()?;
        Some(listener.numbers(now))
    }

    /// The sum over all listeners.
    pub(crate) fn totals(&self, now: Instant) -> Numbers {
        let listeners = self.listeners.lock();
        let each = listeners.known.values().map(|listener| listener.numbers(now));
        each.fold(Numbers::default(), |a, b| Numbers {
            open: a.open.saturating_add(b.open),
            sessions_per_minute: a.sessions_per_minute + b.sessions_per_minute,
            bytes_per_second: a.bytes_per_second + b.bytes_per_second,
            accepted: a.accepted.saturating_add(b.accepted),
            refused: a.refused.saturating_add(b.refused),
            unavailable: a.unavailable.saturating_add(b.unavailable),
            failed: a.failed.saturating_add(b.failed),
        })
    }

    /// Rates are told over the time since the last mark but one.
    pub(crate) fn mark(&self, now: Instant) {
        for listener in self.listeners.lock().known.values() {
            listener.rates.mark(listener.counted(), now);
        }
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

    /// The `limits.maxConnections` of a listener that is wanted; `None`: it has none, or is gone.
    pub(crate) fn session_limit(&self, listener: &ListenerId, limit: Option<u32>) {
        let listener = listener.to_string();
        match limit {
            Some(limit) => self.session_limits.with_label_values(&[&listener]).set(limit.into()),
            // It may never have had one.
            None => drop(self.session_limits.remove_label_values(&[&listener])),
        }
    }

    /// An object's listeners serve this certificate.
    pub(crate) fn certificate(&self, id: &CertificateId, certificate: &Certificate) {
        self.certificate_expiry.with_label_values(&id.labels()).set(certificate.not_after);
        let [warning, ..] = expiry_alarms(certificate.not_before, certificate.not_after);
        self.certificate_warning.with_label_values(&id.labels()).set(warning);
    }

    /// They do so no longer.
    pub(crate) fn forget_certificate(&self, id: &CertificateId) {
        // They are there: they were set when it was first used.
        let _ = self.certificate_expiry.remove_label_values(&id.labels());
        let _ = self.certificate_warning.remove_label_values(&id.labels());
    }

    /// These listeners are gone. Forgets those that have no sessions any more, so that changes do not grow the process.
    pub(crate) fn leave(&self, gone: &BTreeSet<&ListenerId>) {
        let Listeners { known, leaving } = &mut *self.listeners.lock();
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
        for (tls, outcome, fault) in metrics.outcomes.lock().iter() {
            let labels = [listener, metrics.protocol, tls, outcome, fault];
            let _ = self.sessions.remove_label_values(&labels);
        }
        for direction in [TO_BACKEND, TO_CLIENT] {
            let _ = self.bytes.remove_label_values(&[listener, direction]);
        }
        metrics.logins.remove(listener, metrics.protocol);
        metrics.auth_requests.remove(listener, metrics.protocol);
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
        self.begun.fetch_add(1, Ordering::Relaxed);
        OpenSession(gauge.clone())
    }

    fn numbers(&self, now: Instant) -> Numbers {
        let (sessions_per_minute, bytes_per_second) = self.rates.since(self.counted(), now);
        let open: i64 = self.open.iter().map(IntGauge::get).sum();
        let [accepted, refused, unavailable, failed, _] = self.logins.values();
        let open = u64::try_from(open).unwrap_or_default();
        Numbers { open, sessions_per_minute, bytes_per_second, accepted, refused, unavailable, failed }
    }

    fn counted(&self) -> Counted {
        let bytes = self.bytes_to_backend.get().saturating_add(self.bytes_to_client.get());
        Counted { sessions: self.begun.load(Ordering::Relaxed), bytes }
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

    /// Counts a login, and whose fault it is if it was not accepted.
    pub(crate) fn login(&self, verdict: Verdict, fault: Fault) {
        self.journal.login_failed(fault);
        self.logins.count(&self.id, self.protocol, verdict);
    }

    /// Counts a question to the auth service.
    pub(crate) fn auth_request(&self, verdict: Verdict) {
        self.auth_requests.count(&self.id, self.protocol, verdict);
    }

    /// Counts an ended session.
    pub(crate) fn ended(&self, tls: TlsLabel, end: &End, at: SystemTime) {
        let (outcome, fault) = (end.outcome(), end.fault().name());
        self.journal.failed(end, &self.id, at);
        self.outcomes.lock().insert((tls.name(), outcome, fault));
        self.sessions.with_label_values(&[self.id.as_str(), self.protocol, tls.name(), outcome, fault]).inc();
    }
}

/// Values of the label `direction`.
const TO_BACKEND: &str = "to_backend";
const TO_CLIENT: &str = "to_client";

/// Values of the label `outcome` of health checks.
const CHECK_PASSED: &str = "passed";
const CHECK_FAILED: &str = "failed";

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
        session.login(Verdict::Refused, Fault::Client);
        session.auth_request(Verdict::Failed);
        metrics.session_limit(&id, Some(10));
        for counted in ["logins_total", "auth_service_requests_total"] {
            let accepted = format!(
                "{counted}{{listener=\"mail/example/imap\",outcome=\"accepted\",protocol=\"imap\"}} 0"
            );
            assert!(text().contains(&accepted), "{}", text());
        }
        metrics.session_limit(&id, None);
        metrics.leave(&BTreeSet::from([&id]));
        assert!(text().contains("mail/example/imap"), "a session is still counted");
        drop(open);
        session.ended(TlsLabel::Off, &End::Done, SystemTime::now());
        drop(session);
        metrics.leave(&BTreeSet::new());
        assert!(!text().contains("mail/example/imap"), "{}", text());
    }
}
