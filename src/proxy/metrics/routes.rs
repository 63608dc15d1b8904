//! The metrics of routes: logins and open sessions of their users.
//!
//! A route has series from its first login until neither a configuration nor a session uses it any more.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::model::{RouteId, metric};
use crate::proxy::login_results::{LoginResult, LoginResults};

use super::families::{Family, Kept, Series};

/// The metrics of all routes.
pub(crate) type RouteFamilies = Family<RouteSeries>;

/// The metric handles of one route for one protocol.
pub(crate) type RouteMetrics = Kept<RouteSeries>;

/// The series with the label `route`.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    logins: IntCounterVec,
    open: IntGaugeVec,
}

/// Counts logins and open sessions.
#[derive(Debug)]
pub(crate) struct RouteHandles {
    logins: LoginResults,
    open: IntGauge,
}

/// Counts a session of a route's user until it is dropped.
#[derive(Debug)]
pub(crate) struct RouteSession(Arc<RouteMetrics>);

impl RouteSeries {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            logins: metric::ROUTE_LOGINS.counters(registry)?,
            open: metric::ROUTE_SESSIONS_OPEN.gauges(registry)?,
        })
    }
}

impl Series for RouteSeries {
    type Id = RouteId;
    type Handles = RouteHandles;

    fn handles(&self, labels: [&str; 2]) -> RouteHandles {
        RouteHandles { logins: LoginResults::new(&self.logins), open: self.open.with_label_values(&labels) }
    }

    fn remove(&self, handles: &RouteHandles, [name, protocol]: [&str; 2]) {
        handles.logins.remove(name, protocol);
        // The series exists since the handles were made.
        let _ = self.open.remove_label_values(&[name, protocol]);
    }
}

impl RouteFamilies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        Ok(Self::new(RouteSeries::register(registry)?, MAX_ROUTES))
    }
}

impl RouteMetrics {
    /// Counts a login.
    pub(crate) fn login(&self, result: LoginResult) {
        self.handles.logins.count(&self.name, self.protocol().name(), result);
    }

    /// Counts an open session.
    pub(crate) fn open(self: Arc<Self>) -> RouteSession {
        self.handles.open.inc();
        RouteSession(self)
    }
}

impl Drop for RouteSession {
    fn drop(&mut self) {
        self.0.handles.open.dec();
    }
}

/// Routes, each counted once for each protocol, that have series of their own.
const MAX_ROUTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn id(name: &str) -> RouteId {
        RouteId { namespace: "mail".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_route_is_forgotten_after_its_last_session_and_others_share_the_rest() {
        let registry = Registry::new();
        let families = RouteFamilies::new(RouteSeries::register(&registry).unwrap(), 2);
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let of = |name: &str| families.of(Some(&id(name)), Protocol::Imap);
        let (one, _two, three) = (of("one"), of("two"), of("three"));
        for metrics in [&one, &three] {
            metrics.login(LoginResult::Refused);
        }
        let session = Arc::clone(&one).open();
        for series in [
            "mailgress_route_logins_total{outcome=\"refused\",protocol=\"imap\",route=\"mail/one\"} 1",
            "mailgress_route_logins_total{outcome=\"refused\",protocol=\"imap\",route=\"other\"} 1",
            "mailgress_route_sessions_open{protocol=\"imap\",route=\"mail/one\"} 1",
        ] {
            assert!(text().contains(series), "{series}: {}", text());
        }
        assert!(!text().contains("mail/three"), "{}", text());
        drop(one);
        assert!(text().contains("mail/one"), "a session is still counted");
        drop(session);
        assert!(!text().contains("mail/one"), "{}", text());
        drop(three);
        assert_eq!(of("three").name, "mail/three", "there is room again");
    }
}
