//! The metrics of routes: logins and open sessions of their users.
//!
//! A route has series from its first login until neither a configuration nor a session uses it any more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::model::{RouteId, metric};
use crate::protocol::Protocol;
use crate::proxy::login_results::{LoginResult, LoginResults};

use super::OTHER;

/// The metrics of all routes.
#[derive(Debug)]
pub(crate) struct RouteFamilies {
    logins: IntCounterVec,
    open: IntGaugeVec,
    known: Mutex<HashMap<Key, Weak<RouteMetrics>>>,
}

/// A route and a protocol. `None`: all routes that have no series of their own.
type Key = (Option<RouteId>, Protocol);

/// The metric handles of one route for one protocol. When the last user drops them, the series are removed.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    key: Key,
    /// The value of the label `route`.
    name: String,
    logins: LoginResults,
    open: IntGauge,
    families: Arc<RouteFamilies>,
}

/// Counts a session of a route's user until it is dropped.
#[derive(Debug)]
pub(crate) struct RouteSession(Arc<RouteMetrics>);

impl RouteFamilies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            logins: metric::ROUTE_LOGINS.counters(registry)?,
            open: metric::ROUTE_SESSIONS_OPEN.gauges(registry)?,
            known: Mutex::default(),
        }))
    }

    /// Returns the handles of a route and creates them on first use.
    pub(crate) fn of(self: &Arc<Self>, route: &RouteId, protocol: Protocol) -> Arc<RouteMetrics> {
        self.within(MAX_ROUTES, route, protocol)
    }

    /// As [`Self::of`], with this limit instead of [`MAX_ROUTES`].
    fn within(self: &Arc<Self>, limit: usize, route: &RouteId, protocol: Protocol) -> Arc<RouteMetrics> {
        let mut known = self.known.lock();
        let mut key = (Some(route.clone()), protocol);
        if !known.contains_key(&key) && known.len() >= limit {
            key.0 = None;
        }
        if let Some(same) = known.get(&key).and_then(Weak::upgrade) {
            return same;
        }
        let name = key.0.as_ref().map_or_else(|| OTHER.to_owned(), RouteId::to_string);
        let made = Arc::new(RouteMetrics {
            logins: LoginResults::new(&self.logins),
            open: self.open.with_label_values(&[name.as_str(), protocol.name()]),
            name,
            key: key.clone(),
            families: Arc::clone(self),
        });
        known.insert(key, Arc::downgrade(&made));
        made
    }
}

impl RouteMetrics {
    pub(crate) fn protocol(&self) -> Protocol {
        self.key.1
    }

    /// Counts a login.
    pub(crate) fn login(&self, result: LoginResult) {
        self.logins.count(&self.name, self.key.1.name(), result);
    }

    /// Counts an open session.
    pub(crate) fn open(self: Arc<Self>) -> RouteSession {
        self.open.inc();
        RouteSession(self)
    }
}

impl Drop for RouteSession {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

impl Drop for RouteMetrics {
    fn drop(&mut self) {
        // Keep the lock, so that the series are not removed after the route has come back and uses them.
        let families = Arc::clone(&self.families);
        let mut known = families.known.lock();
        if known.get(&self.key).is_some_and(|metrics| metrics.strong_count() == 0) {
            known.remove(&self.key);
            let protocol = self.key.1.name();
            self.logins.remove(&self.name, protocol);
            // The series exists since the handles were made.
            let _ = families.open.remove_label_values(&[self.name.as_str(), protocol]);
        }
    }
}

/// Routes, each counted once for each protocol, that have series of their own. Further ones share [`OTHER`].
const MAX_ROUTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RouteId {
        RouteId { namespace: "mail".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_route_is_forgotten_after_its_last_session_and_others_share_the_rest() {
        let registry = Registry::new();
        let families = RouteFamilies::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let of = |name: &str| families.within(2, &id(name), Protocol::Imap);
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
