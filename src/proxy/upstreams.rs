//! How a listener's sessions talk to its own backend and to those of its routes: settings, TLS and health.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::model::settings::ClientTls;
use crate::model::{Destination, Listener, RouteId, Routes, Upstream, UpstreamTls};
use crate::protocol::Protocol;
use crate::tls::{TlsError, connector};

use super::health::CheckedBackend;
use super::route::BackendTls;
use super::serving::ServingContext;

/// How to talk to a backend.
#[derive(Debug)]
pub(crate) struct ServedUpstream {
    /// The settings.
    pub(crate) settings: Arc<Upstream>,
    /// TLS to the backend.
    pub(crate) tls: BackendTls,
    /// The results of the health checks, if configured.
    pub(crate) health: Option<Arc<CheckedBackend>>,
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
    /// Prepares the routes of a listener. `own` is the listener's own upstream, which most routes share.
    pub(super) fn new(
        listener: &Listener,
        before: &Self,
        own: &Arc<ServedUpstream>,
        context: ServingContext<'_>,
    ) -> Result<Self, TlsError> {
        let Some(routes) = &listener.routes else { return Ok(Self::default()) };
        let before = before.by_route();
        let protocol = listener.frontend.protocol;
        let upstream = |position: usize, destination: &Arc<Destination>| {
            let id = routes.table.entries().get(position).map(|entry| &entry.id);
            let is_shared = Arc::ptr_eq(&destination.upstream, &own.settings);
            let previous = id.and_then(|id| before.get(id).copied()).or_else(|| is_shared.then_some(own));
            let tls = BackendTls::new(&destination.upstream, protocol, previous.map(AsRef::as_ref))?;
            let health = context.health.of(listener, destination, &tls);
            Ok(Arc::new(ServedUpstream { settings: Arc::clone(&destination.upstream), tls, health }))
        };
        let upstreams = routes.destinations.iter().enumerate().map(|(position, destination)| {
            destination.as_ref().map(|destination| upstream(position, destination)).transpose()
        });
        let upstreams = upstreams.collect::<Result<_, TlsError>>()?;
        let mut destinations = routes.destinations.iter().flatten();
        let has_groups = destinations.any(|destination| destination.affinity.group().is_some());
        Ok(Self { routes: Some(Arc::clone(routes)), upstreams, has_groups })
    }

    fn by_route(&self) -> HashMap<&RouteId, &Arc<ServedUpstream>> {
        let entries = self.routes.iter().flat_map(|routes| routes.table.entries());
        let upstreams = entries.map(|entry| &entry.id).zip(&self.upstreams);
        upstreams.filter_map(|(id, upstream)| Some((id, upstream.as_ref()?))).collect()
    }
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
