//! The counters of the data plane, as Prometheus metrics.
//!
//! Labels are looked up once per listener, when it is first served. A session uses the resulting handles.

pub(crate) mod endpoints;
mod families;
pub(crate) mod routes;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
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
use super::login_results::{LoginResult, LoginResults};
use super::rates::{Amounts, Rates};
use super::refused_recipients::{RecipientRefusal, RefusedRecipients};
use endpoints::EndpointFamilies;
use routes::RouteFamilies;

#[derive(Debug)]
pub(crate) struct Metrics {
    sessions_open: IntGaugeVec,
    sessions: IntCounterVec,
    bytes: IntCounterVec,
    logins: IntCounterVec,
    auth_requests: IntCounterVec,
    recipients_refused: IntCounterVec,
    timings: [HistogramVec; 3],
    /// Actions of the supervisor, with the label values `bind`, `swap`, `rebind`, `drain` and `failed`.
    pub(crate) swaps: IntCounterVec,
    /// Pauses of accepting, because file descriptors or memory ran out.
    pub(crate) accept_pauses: IntCounter,
    /// Number of sessions that the file descriptors suffice for.
    pub(crate) session_capacity: IntGauge,
    session_limits: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    certificate_warning: IntGaugeVec,
    backend_up: IntGaugeVec,
    backend_checks: IntCounterVec,
    /// The metrics of endpoints.
    pub(crate) endpoints: Arc<EndpointFamilies>,
    /// The metrics of routes.
    pub(crate) routes: Arc<RouteFamilies>,
    /// Recent events.
    pub(crate) journal: Arc<Journal>,
    listeners: Known,
}

/// The listeners that are registered or have sessions.
type Known = Arc<Mutex<HashMap<ListenerId, Weak<ListenerMetrics>>>>;

/// The metric handles of one listener. When the last user drops them, the series are removed, so that memory does not
/// grow with changes.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    /// `namespace/object/listener`.
    pub(crate) id: String,
    listener: ListenerId,
    known: Known,
    protocol: &'static str,
    open: [IntGauge; 3],
    sessions_open: IntGaugeVec,
    /// Sessions that have started, including those that have ended.
    begun: AtomicU64,
    rates: Rates,
    journal: Arc<Journal>,
    sessions: IntCounterVec,
    /// The counters of ended sessions by TLS, outcome and fault. The labels are needed to remove the series.
    ended: Mutex<BTreeMap<[&'static str; 3], IntCounter>>,
    /// Bytes relayed from clients to backends.
    pub(crate) bytes_to_backend: IntCounter,
    /// Bytes relayed from backends to clients.
    pub(crate) bytes_to_client: IntCounter,
    bytes: IntCounterVec,
    logins: LoginResults,
    auth_requests: LoginResults,
    recipients_refused: RefusedRecipients,
    families: [HistogramVec; 3],
    /// Created on first use, because histograms are the largest part of a listener's metrics.
    timings: [OnceLock<Histogram>; 3],
}

/// What is measured. The order is that of `ListenerMetrics::timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// From the credentials to the decision.
    Login,
    /// One request to the auth service.
    Auth,
    /// From the first connect to the connection that is used, including TLS.
    Connect,
}

/// How the client's connection is protected; the label `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsLabel {
    Off,
    StartTls,
    /// With TLS from the first byte.
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

/// Counts in `mailgress_sessions_open` until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSession(IntGauge);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric with the same name is already registered.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            sessions_open: metric::SESSIONS_OPEN.gauges(registry)?,
            sessions: metric::SESSIONS.counters(registry)?,
            bytes: metric::RELAYED_BYTES.counters(registry)?,
            logins: metric::LOGINS.counters(registry)?,
            auth_requests: metric::AUTH_SERVICE_REQUESTS.counters(registry)?,
            recipients_refused: metric::RECIPIENTS_REFUSED.counters(registry)?,
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
            endpoints: EndpointFamilies::register(registry)?,
            routes: RouteFamilies::register(registry)?,
            journal: Arc::default(),
            listeners: Known::default(),
        })
    }

    /// Returns the handles of a listener and creates them on first use. A listener whose protocol changed gets new
    /// ones.
    pub(crate) fn listener(&self, id: &ListenerId, protocol: Protocol) -> Arc<ListenerMetrics> {
        match self.known(id) {
            Some(same) if same.protocol == protocol.name() => return same,
            Some(other) => other.remove_series(),
            None => {}
        }
        let name = id.to_string();
        let mut known = self.listeners.lock();
        let open = |tls: TlsLabel| {
            self.sessions_open.with_label_values(&[name.as_str(), protocol.name(), tls.name()])
        };
        let made = Arc::new(ListenerMetrics {
            open: TlsLabel::ALL.map(open),
            sessions_open: self.sessions_open.clone(),
            begun: AtomicU64::new(0),
            rates: Rates::new(Instant::now()),
            journal: Arc::clone(&self.journal),
            sessions: self.sessions.clone(),
            ended: Mutex::default(),
            bytes_to_backend: self.bytes.with_label_values(&[name.as_str(), TO_BACKEND]),
            bytes_to_client: self.bytes.with_label_values(&[name.as_str(), TO_CLIENT]),
            bytes: self.bytes.clone(),
            logins: LoginResults::new(&self.logins),
            auth_requests: LoginResults::new(&self.auth_requests),
            recipients_refused: RefusedRecipients::new(&self.recipients_refused),
            families: self.timings.clone(),
            timings: Default::default(),
            protocol: protocol.name(),
            id: name,
            listener: id.clone(),
            known: Arc::clone(&self.listeners),
        });
        known.insert(id.clone(), Arc::downgrade(&made));
        made
    }

    /// Returns the numbers of a listener that is registered or has sessions.
    pub(crate) fn numbers(&self, id: &ListenerId, now: Instant) -> Option<Numbers> {
        Some(self.known(id)?.numbers(now))
    }

    /// Returns the sum over all listeners.
    pub(crate) fn totals(&self, now: Instant) -> Numbers {
        self.all().iter().map(|listener| listener.numbers(now)).fold(Numbers::default(), |a, b| Numbers {
            open: a.open.saturating_add(b.open),
            sessions_per_minute: a.sessions_per_minute + b.sessions_per_minute,
            bytes_per_second: a.bytes_per_second + b.bytes_per_second,
            accepted: a.accepted.saturating_add(b.accepted),
            refused: a.refused.saturating_add(b.refused),
            unavailable: a.unavailable.saturating_add(b.unavailable),
            failed: a.failed.saturating_add(b.failed),
        })
    }

    /// Sets a mark. Rates are computed over the time since the last but one mark.
    pub(crate) fn mark(&self, now: Instant) {
        for listener in self.all() {
            listener.rates.mark(listener.counted(), now);
        }
    }

    /// The handles must not be dropped under the lock, which their `Drop` takes.
    fn known(&self, id: &ListenerId) -> Option<Arc<ListenerMetrics>> {
        self.listeners.lock().get(id).and_then(Weak::upgrade)
    }

    fn all(&self) -> Vec<Arc<ListenerMetrics>> {
        self.listeners.lock().values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn endpoint_up(&self, endpoint: &str, protocol: Protocol, is_up: bool) {
        self.backend_up.with_label_values(&[endpoint, protocol.name()]).set(i64::from(is_up));
    }

    pub(crate) fn checked(&self, endpoint: &str, protocol: Protocol, is_well: bool) {
        let outcome = if is_well { CHECK_PASSED } else { CHECK_FAILED };
        self.backend_checks.with_label_values(&[endpoint, protocol.name(), outcome]).inc();
    }

    /// Removes the metrics of an endpoint that is no longer checked.
    pub(crate) fn forget_check(&self, endpoint: &str, protocol: Protocol) {
        // A series that was never counted does not exist.
        let _ = self.backend_up.remove_label_values(&[endpoint, protocol.name()]);
        for outcome in [CHECK_PASSED, CHECK_FAILED] {
            let _ = self.backend_checks.remove_label_values(&[endpoint, protocol.name(), outcome]);
        }
    }

    /// Sets the `limits.maxConnections` of a listener.
    pub(crate) fn session_limit(&self, listener: &ListenerId, limit: u32) {
        self.session_limits.with_label_values(&[&listener.to_string()]).set(limit.into());
    }

    /// Removes the limit of a listener that has none any more or was removed.
    pub(crate) fn forget_session_limit(&self, listener: &ListenerId) {
        // The series exists since the limit was set.
        let _ = self.session_limits.remove_label_values(&[&listener.to_string()]);
    }

    /// Sets the metrics of a certificate that an object's listeners serve.
    pub(crate) fn certificate(&self, id: &CertificateId, certificate: &Certificate) {
        self.certificate_expiry.with_label_values(&id.labels()).set(certificate.not_after);
        let [warning, ..] = expiry_alarms(certificate.not_before, certificate.not_after);
        self.certificate_warning.with_label_values(&id.labels()).set(warning);
    }

    /// Removes the metrics of a certificate that is no longer served.
    pub(crate) fn forget_certificate(&self, id: &CertificateId) {
        // The series exist since the certificate was first served.
        let _ = self.certificate_expiry.remove_label_values(&id.labels());
        let _ = self.certificate_warning.remove_label_values(&id.labels());
    }
}

/// The listener is removed and its last session has ended.
impl Drop for ListenerMetrics {
    fn drop(&mut self) {
        // Keep the lock, so that the series are not removed after the listener has come back and uses them.
        let known = Arc::clone(&self.known);
        let mut known = known.lock();
        if known.get(&self.listener).is_some_and(|metrics| metrics.strong_count() == 0) {
            known.remove(&self.listener);
            self.remove_series();
        }
    }
}

impl ListenerMetrics {
    /// Removes the series. Sessions that still use the handles count without effect.
    fn remove_series(&self) {
        let listener = self.id.as_str();
        // A series that was never counted does not exist.
        for tls in TlsLabel::ALL {
            let _ = self.sessions_open.remove_label_values(&[listener, self.protocol, tls.name()]);
        }
        for [tls, outcome, fault] in self.ended.lock().keys() {
            let _ = self.sessions.remove_label_values(&[listener, self.protocol, tls, outcome, fault]);
        }
        for direction in [TO_BACKEND, TO_CLIENT] {
            let _ = self.bytes.remove_label_values(&[listener, direction]);
        }
        self.logins.remove(listener, self.protocol);
        self.auth_requests.remove(listener, self.protocol);
        self.recipients_refused.remove(listener);
        for histogram in &self.families {
            let _ = histogram.remove_label_values(&[listener, self.protocol]);
        }
    }

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

    fn counted(&self) -> Amounts {
        let bytes = self.bytes_to_backend.get().saturating_add(self.bytes_to_client.get());
        Amounts { sessions: self.begun.load(Ordering::Relaxed), bytes }
    }

    /// Records a duration.
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

    /// Counts a login, and the fault if it was not accepted.
    pub(crate) fn login(&self, result: LoginResult, fault: Fault) {
        self.journal.login_failed(fault);
        self.logins.count(&self.id, self.protocol, result);
    }

    /// Counts a request to the auth service.
    pub(crate) fn auth_request(&self, result: LoginResult) {
        self.auth_requests.count(&self.id, self.protocol, result);
    }

    /// Counts a recipient that was refused instead of the backend.
    pub(crate) fn recipient_refused(&self, refusal: RecipientRefusal) {
        self.recipients_refused.count(&self.id, refusal);
    }

    /// Counts an ended session.
    pub(crate) fn ended(&self, tls: TlsLabel, end: &End, at: SystemTime) {
        let (outcome, fault) = (end.outcome().name(), end.fault().name());
        self.journal.failed(end, &self.id, at);
        let labels = [self.id.as_str(), self.protocol, tls.name(), outcome, fault];
        let mut ended = self.ended.lock();
        let counter = ended.entry([tls.name(), outcome, fault]);
        counter.or_insert_with(|| self.sessions.with_label_values(&labels)).inc();
    }
}

const TO_BACKEND: &str = "to_backend";
const TO_CLIENT: &str = "to_client";

/// The label value that routes or endpoints share if there are too many of them.
const OTHER: &str = "other";

const CHECK_PASSED: &str = "passed";
const CHECK_FAILED: &str = "failed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_a_removed_listener_when_its_last_session_ends() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let id = ListenerId { namespace: "mail".into(), object: "example".into(), listener: "imap".into() };
        let session = metrics.listener(&id, Protocol::Imap);
        let open = session.open(TlsLabel::Off);
        session.took(Timing::Login, Duration::from_millis(100));
        session.login(LoginResult::Refused, Fault::Client);
        session.auth_request(LoginResult::Failed);
        session.recipient_refused(RecipientRefusal::Held);
        for counted in ["logins_total", "auth_service_requests_total"] {
            let accepted = format!(
                "{counted}{{listener=\"mail/example/imap\",outcome=\"accepted\",protocol=\"imap\"}} 0"
            );
            assert!(text().contains(&accepted), "{}", text());
        }
        drop(metrics.listener(&id, Protocol::Imap));
        assert!(text().contains("mail/example/imap"), "a session is still counted");
        drop(open);
        session.ended(TlsLabel::Off, &End::Done, SystemTime::now());
        drop(session);
        assert!(!text().contains("mail/example/imap"), "{}", text());
    }
}
