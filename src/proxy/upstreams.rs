//! How a listener's sessions talk to its own backend and to those of its routes: settings, TLS and health.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::model::settings::ClientTls;
use crate::model::{
    Backend, BackendHealth, Destination, Listener, RouteBackend, RouteId, Routes, Upstream, UpstreamTls,
};
use crate::protocol::Protocol;
use crate::tls::{TlsError, connector};

use super::connector::BackendTls;
use super::health::{CheckedBackend, HealthChecks};
use super::limits::RefusalTime;
use super::metrics::Metrics;
use super::metrics::endpoints::UsedEndpoints;
use super::metrics::routes::{RouteFamilies, RouteMetrics};

/// How to talk to a backend.
#[derive(Debug)]
pub(crate) struct ServedUpstream {
    /// The settings.
    pub(crate) settings: Arc<Upstream>,
    /// TLS to the backend.
    pub(crate) tls: BackendTls,
    /// The results of the health checks, if configured.
    pub(crate) health: Option<Arc<CheckedBackend>>,
    /// The metrics of its endpoints.
    pub(crate) endpoints: UsedEndpoints,
    /// How long it took to refuse a wrong password.
    pub(crate) refusals: Arc<RefusalTime>,
}

/// The routes of a listener.
#[derive(Debug, Default)]
pub(crate) struct ServedRoutes {
    /// The rendered routes; `None` if the listener has none.
    pub(crate) routes: Option<Arc<Routes>>,
    /// How to talk to the backend of each route, in the order of `routes.destinations`.
    pub(crate) upstreams: Vec<Option<Arc<ServedUpstream>>>,
    /// Whether a route has exclusive users.
    pub(crate) has_groups: bool,
    /// The backend of users without a route, if the listener has routes and a backend.
    pub(crate) own: Option<OwnBackend>,
    /// The metrics of the routes that logins have matched.
    used: Mutex<HashMap<RouteId, Arc<RouteMetrics>>>,
}

/// The listener's own backend.
#[derive(Clone, Debug)]
pub(crate) struct OwnBackend {
    pub(crate) backend: Arc<Backend>,
    pub(crate) upstream: Arc<ServedUpstream>,
}

/// The routes that a listener has now. They may change while a session lasts.
#[derive(Debug, Default)]
pub(crate) struct CurrentRoutes {
    current: ArcSwap<ServedRoutes>,
    /// Earlier routes, by which logins may still be on their way to a backend.
    earlier: Mutex<Vec<Weak<ServedRoutes>>>,
    changed: Notify,
}

impl CurrentRoutes {
    /// Returns the current routes.
    pub(crate) fn load(&self) -> Arc<ServedRoutes> {
        self.current.load_full()
    }

    /// Tells whether the listener has routes.
    pub(crate) fn exist(&self) -> bool {
        self.current.load().routes.is_some()
    }

    /// Tells whether a login may be on its way to a backend by earlier routes. Such a login holds these routes until
    /// its session is listed.
    pub(crate) fn are_earlier_in_use(&self) -> bool {
        let mut earlier = self.earlier.lock();
        earlier.retain(|routes| routes.strong_count() > 0);
        !earlier.is_empty()
    }

    /// Replaces the routes, and wakes those who wait for a change.
    pub(super) fn store(&self, routes: ServedRoutes) {
        let before = self.current.swap(Arc::new(routes));
        let mut earlier = self.earlier.lock();
        earlier.retain(|routes| routes.strong_count() > 0);
        earlier.push(Arc::downgrade(&before));
        drop(earlier);
        self.changed.notify_waiters();
    }

    /// Waits for the next change. A change after this call counts, even before the first poll.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl ServedRoutes {
    /// Prepares the routes of a listener. `own_upstream` is the listener's own, which most routes share.
    pub(super) fn new(
        listener: &Listener,
        before: &Self,
        own_upstream: &Arc<ServedUpstream>,
        (health, metrics): (&HealthChecks, &Metrics),
    ) -> Result<Self, TlsError> {
        let Some(routes) = &listener.routes else { return Ok(Self::default()) };
        let protocol = listener.frontend.protocol;
        let used = before.still_used(routes, protocol);
        let before = before.by_route();
        let upstream = |position: usize, destination: &Arc<Destination>| {
            let id = routes.table.entries().get(position).map(|entry| &entry.id);
            let is_shared = Arc::ptr_eq(&destination.upstream, &own_upstream.settings);
            let same = id.and_then(|id| before.get(id).copied());
            let refusals = same.map(|same| Arc::clone(&same.refusals)).unwrap_or_default();
            let previous = same.or_else(|| is_shared.then_some(own_upstream));
            let tls = BackendTls::new(&destination.upstream, protocol, previous.map(AsRef::as_ref))?;
            let health = health.of(listener, destination, &tls);
            let used = previous.map(|previous| &previous.endpoints);
            let addresses = &destination.backend.endpoints;
            let endpoints = UsedEndpoints::new(&metrics.endpoints, protocol, used, addresses);
            let settings = Arc::clone(&destination.upstream);
            Ok(Arc::new(ServedUpstream { settings, tls, health, endpoints, refusals }))
        };
        let upstreams = routes.destinations.iter().enumerate().map(|(position, destination)| {
            destination.as_ref().map(|destination| upstream(position, destination)).transpose()
        });
        let upstreams = upstreams.collect::<Result<_, TlsError>>()?;
        let own = listener.backend.as_ref();
        let own = own
            .map(|backend| OwnBackend { backend: Arc::clone(backend), upstream: Arc::clone(own_upstream) });
        let mut destinations = routes.destinations.iter().flatten();
        let has_groups = destinations.any(|destination| destination.affinity.group().is_some());
        let (routes, used) = (Some(Arc::clone(routes)), Mutex::new(used));
        Ok(Self { routes, upstreams, own, has_groups, used })
    }

    /// Returns the metrics of a route of `routes`, by its position.
    pub(crate) fn metrics(
        &self,
        position: usize,
        families: &Arc<RouteFamilies>,
        protocol: Protocol,
    ) -> Option<Arc<RouteMetrics>> {
        let id = &self.routes.as_ref()?.table.entries().get(position)?.id;
        let mut used = self.used.lock();
        if let Some(known) = used.get(id) {
            return Some(Arc::clone(known));
        }
        let made = families.of(Some(id), protocol);
        used.insert(id.clone(), Arc::clone(&made));
        Some(made)
    }

    /// Returns the metrics of those routes that `next` still has.
    fn still_used(&self, next: &Routes, protocol: Protocol) -> HashMap<RouteId, Arc<RouteMetrics>> {
        let used = self.used.lock();
        if used.is_empty() {
            return HashMap::new();
        }
        let ids: HashSet<&RouteId> = next.table.entries().iter().map(|entry| &entry.id).collect();
        let is_still = |(id, metrics): &(&RouteId, &Arc<RouteMetrics>)| {
            metrics.protocol() == protocol && ids.contains(id)
        };
        let kept = used.iter().filter(is_still);
        kept.map(|(id, metrics)| (id.clone(), Arc::clone(metrics))).collect()
    }

    fn by_route(&self) -> HashMap<&RouteId, &Arc<ServedUpstream>> {
        let entries = self.routes.iter().flat_map(|routes| routes.table.entries());
        let upstreams = entries.map(|entry| &entry.id).zip(&self.upstreams);
        upstreams.filter_map(|(id, upstream)| Some((id, upstream.as_ref()?))).collect()
    }
}

/// Returns the results of the health checks of routes, from the routes and the protocol of each listener. Listeners may
/// check a backend in different ways: then the worst result counts.
pub(super) fn health_of_routes(
    listeners: impl Iterator<Item = (Arc<ServedRoutes>, Protocol)>,
) -> BTreeMap<RouteBackend, BackendHealth> {
    let mut all: BTreeMap<RouteBackend, BackendHealth> = BTreeMap::new();
    for (current, protocol) in listeners {
        for (id, upstream) in current.by_route() {
            let Some(health) = upstream.health.as_ref().and_then(|health| health.report()) else { continue };
            let known = all.entry(RouteBackend { route: id.clone(), protocol }).or_default();
            if known.endpoints == 0 || health.unhealthy.len() > known.unhealthy.len() {
                *known = health;
            }
        }
    }
    all
}

impl BackendTls {
    /// Returns the TLS setup to a backend. An unchanged connector of `previous` is kept, with its session tickets.
    ///
    /// # Errors
    /// A certificate or trust anchor was parsed but cannot be used.
    pub(super) fn new(
        upstream: &Upstream,
        protocol: Protocol,
        previous: Option<&ServedUpstream>,
    ) -> Result<BackendTls, TlsError> {
        let connector = |tls: &Arc<ClientTls>| {
            let kept = previous.and_then(|old| match (&old.settings.tls, &old.tls) {
                (
                    UpstreamTls::StartTls(before) | UpstreamTls::Implicit(before),
                    BackendTls::StartTls(connector) | BackendTls::Implicit(connector),
                ) if before == tls => Some(Arc::clone(connector)),
                _ => None,
            });
            kept.map_or_else(|| connector(tls, Some(protocol)).map(Arc::new), Ok)
        };
        Ok(match &upstream.tls {
            UpstreamTls::Disabled => BackendTls::Disabled,
            UpstreamTls::StartTls(tls) => BackendTls::StartTls(connector(tls)?),
            UpstreamTls::Implicit(tls) => BackendTls::Implicit(connector(tls)?),
        })
    }
}
