//! The configuration of a socket, prepared for sessions: TLS acceptors and connectors are built, counters are attached.
//!
//! A swap builds a new [`Serving`] and replaces the old one in an `ArcSwap`. Sessions keep the one they started with.
//! Counters and metrics belong to the listener and survive swaps. A listener's `Reach` is the exception: a change of it
//! applies at once to existing sessions too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::snapshot::positions;
use crate::model::{Limits, Listener, ListenerId, SharedTicketKeys, Socket, TlsMode};
use crate::tls::{TlsAcceptor, TlsError};

use super::connector::BackendTls;
use super::end::End;
use super::health::HealthChecks;
use super::limits::Counters;
use super::metrics::endpoints::UsedEndpoints;
use super::metrics::{ListenerMetrics, Metrics};
use super::upstreams::{CurrentRoutes, ServedRoutes, ServedUpstream};

/// What a new session gets.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The rendered socket.
    pub(crate) socket: Arc<Socket>,
    /// TLS to clients.
    pub(crate) tls: SocketTls,
    /// The limits for a connection before its listener is known.
    pub(crate) opening: Limits,
    /// Counts connections whose handshake has not selected a listener yet.
    undecided: Arc<Counters>,
    /// Counts, by peer, connections that have not sent their PROXY header yet.
    pub(crate) unproxied: Arc<Counters>,
    /// In the order of the socket's listeners.
    served: Vec<Arc<ServedListener>>,
    /// The listener that is used before a server name is known.
    first: Arc<ServedListener>,
}

/// TLS to the clients of a socket.
#[derive(Debug)]
pub(crate) enum SocketTls {
    Disabled,
    /// After the client's STARTTLS.
    StartTls(TlsAcceptor),
    /// From the first byte.
    Implicit(TlsAcceptor),
}

impl SocketTls {
    fn new(
        socket: &Arc<Socket>,
        previous: Option<&Self>,
        tickets: &SharedTicketKeys,
    ) -> Result<Self, TlsError> {
        let previous = match previous {
            Some(Self::StartTls(acceptor) | Self::Implicit(acceptor)) => Some(acceptor),
            Some(Self::Disabled) | None => None,
        };
        let acceptor = || TlsAcceptor::new(socket, previous, tickets);
        Ok(match socket.tls_mode {
            TlsMode::Disabled => Self::Disabled,
            TlsMode::StartTls | TlsMode::RequireStartTls => Self::StartTls(acceptor()?),
            TlsMode::Implicit => Self::Implicit(acceptor()?),
        })
    }
}

/// A listener with everything that its sessions need.
#[derive(Debug)]
pub(crate) struct ServedListener {
    /// The rendered listener.
    pub(crate) listener: Arc<Listener>,
    /// Limits across all sessions of the listener.
    pub(crate) counters: Arc<Counters>,
    /// The configuration that the listener has now; it may have changed since a session began. What protects others
    /// applies to all sessions at once: what the listener may connect to, and bans.
    pub(crate) current: Arc<ArcSwap<Listener>>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Cancelled when the sessions have to end with a closing message.
    pub(crate) goodbye: CancellationToken,
    /// How to talk to its own backend, and to those that its auth service names.
    pub(crate) upstream: Arc<ServedUpstream>,
    /// The routes that the listener has now, if it has some; they may have changed since a session began.
    pub(crate) routes: Arc<CurrentRoutes>,
}

/// The state that each listener keeps across all its configurations, until its last session ends.
#[derive(Debug, Default)]
pub(crate) struct ListenerStates(Mutex<KeptListeners>);

#[derive(Debug, Default)]
struct KeptListeners {
    states: HashMap<ListenerId, ListenerState>,
    /// Listeners that were removed and may be forgotten once their sessions have ended.
    ending: BTreeSet<ListenerId>,
}

#[derive(Debug)]
struct ListenerState {
    counters: Arc<Counters>,
    current: Arc<ArcSwap<Listener>>,
    routes: Arc<CurrentRoutes>,
    goodbye: CancellationToken,
    /// Set while the listener is removed: the task that ends its sessions after the drain timeout.
    ending: Option<AbortHandle>,
}

impl ListenerStates {
    /// Returns the state of a listener and creates it if needed. A listener that comes back within the drain timeout
    /// keeps its state. `all` ends the sessions of all listeners.
    fn of(&self, listener: &Arc<Listener>, all: &CancellationToken) -> KeptState {
        let states = &mut self.0.lock().states;
        let new = || ListenerState {
            counters: Arc::default(),
            current: Arc::new(ArcSwap::new(Arc::clone(listener))),
            routes: Arc::default(),
            goodbye: all.child_token(),
            ending: None,
        };
        let state = states.entry(listener.id.clone()).or_insert_with(new);
        if state.goodbye.is_cancelled() {
            *state = new();
        }
        state.go_on();
        state.current.store(Arc::clone(listener));
        KeptState {
            counters: Arc::clone(&state.counters),
            current: Arc::clone(&state.current),
            routes: Arc::clone(&state.routes),
            goodbye: state.goodbye.clone(),
        }
    }

    /// Tells whether the listener is in the current snapshot.
    pub(crate) fn has(&self, id: &ListenerId) -> bool {
        self.0.lock().states.get(id).is_some_and(|state| state.ending.is_none())
    }

    /// Returns the number of removed listeners that still have connections.
    pub(crate) fn ending(&self) -> u64 {
        let kept = self.0.lock();
        let has_connections = |id: &&ListenerId| {
            kept.states.get(*id).is_some_and(|state| state.ending.is_some() && state.counters.open() > 0)
        };
        u64::try_from(kept.ending.iter().filter(has_connections).count()).unwrap_or(u64::MAX)
    }

    /// Ends the sessions of removed listeners now.
    pub(crate) fn end_removed(&self) {
        let kept = self.0.lock();
        for state in kept.ending.iter().filter_map(|id| kept.states.get(id)) {
            if state.ending.is_some() {
                state.goodbye.cancel();
            }
        }
    }

    /// Handles removed and added listeners. The sessions of a removed one end after `drain`, unless it comes back
    /// before. Listeners whose sessions were ended are forgotten.
    pub(crate) fn turn(
        &self,
        removed: &BTreeSet<&ListenerId>,
        added: &BTreeSet<&ListenerId>,
        drain: Duration,
    ) {
        let KeptListeners { states, ending } = &mut *self.0.lock();
        for id in added {
            if let Some(state) = states.get_mut(*id) {
                state.go_on();
            }
        }
        for id in removed {
            if let Some(state) = states.get_mut(*id) {
                state.end(drain);
                ending.insert((*id).clone());
            }
        }
        ending.retain(|id| {
            let Some(state) = states.get(id) else { return false };
            if state.goodbye.is_cancelled() {
                states.remove(id);
                return false;
            }
            state.ending.is_some()
        });
    }
}

/// The part of [`ListenerState`] that a [`ServedListener`] shares.
struct KeptState {
    counters: Arc<Counters>,
    current: Arc<ArcSwap<Listener>>,
    routes: Arc<CurrentRoutes>,
    goodbye: CancellationToken,
}

impl ListenerState {
    fn go_on(&mut self) {
        if let Some(ending) = self.ending.take() {
            ending.abort();
        }
    }

    fn end(&mut self, drain: Duration) {
        if self.ending.is_none() {
            let goodbye = self.goodbye.clone();
            let ending = tokio::spawn(async move {
                sleep(drain).await;
                goodbye.cancel();
            });
            self.ending = Some(ending.abort_handle());
        }
    }
}

/// Arguments for building a [`ServedListener`].
#[derive(Clone, Copy)]
pub(crate) struct ServingContext<'a> {
    /// The listeners' state across configurations.
    pub(crate) states: &'a ListenerStates,
    /// The process's metrics.
    pub(crate) metrics: &'a Metrics,
    /// The process's health checks.
    pub(crate) health: &'a HealthChecks,
    /// Ends all sessions.
    pub(crate) goodbye: &'a CancellationToken,
    /// The keys of session tickets that the replicas share.
    pub(crate) tickets: &'a SharedTicketKeys,
}

impl Serving {
    /// Builds what sessions need and starts new health checks. Takes unchanged listeners from `previous`, and its TLS
    /// session state where nothing changed.
    ///
    /// # Errors
    /// A certificate or trust anchor was parsed but cannot be used.
    pub(crate) fn new(
        socket: &Arc<Socket>,
        previous: Option<&Self>,
        context: ServingContext<'_>,
    ) -> Result<Self, TlsError> {
        let tls = SocketTls::new(socket, previous.map(|previous| &previous.tls), context.tickets)?;
        let before: &[Arc<Listener>] =
            previous.map(|previous| &*previous.socket.listeners).unwrap_or_default();
        let serve = |listener: &Arc<Listener>, old: Option<usize>| {
            let old = old.and_then(|old| previous?.served.get(old));
            match old.filter(|old| Arc::ptr_eq(&old.listener, listener)) {
                Some(same) => Ok(Arc::clone(same)),
                None => ServedListener::new(listener, socket, old.map(|old| &**old), context).map(Arc::new),
            }
        };
        let default = socket.listeners.default();
        let first = serve(default, before.iter().position(|old| old.id == default.id))?;
        let mut served = Vec::with_capacity(socket.listeners.len());
        for (listener, old) in socket.listeners.iter().zip(positions(before, &socket.listeners)) {
            let is_first = Arc::ptr_eq(listener, default);
            served.push(if is_first { Arc::clone(&first) } else { serve(listener, old)? });
        }
        Ok(Self {
            socket: Arc::clone(socket),
            tls,
            opening: opening(&socket.listeners),
            undecided: previous.map(|previous| Arc::clone(&previous.undecided)).unwrap_or_default(),
            unproxied: previous.map(|previous| Arc::clone(&previous.unproxied)).unwrap_or_default(),
            served,
            first,
        })
    }

    /// Returns the listener that is used before a server name is known.
    pub(crate) fn first(&self) -> &Arc<ServedListener> {
        &self.first
    }

    /// Returns the counters for a connection before the handshake selects a listener. Several listeners have separate
    /// ones for this, so that a full listener does not lock out the clients of the others.
    pub(crate) fn counters<'a>(&'a self, first: &'a ServedListener) -> &'a Arc<Counters> {
        if self.is_alone() { &first.counters } else { &self.undecided }
    }

    /// Tells whether there is only one listener, which is known before the handshake.
    pub(crate) fn is_alone(&self) -> bool {
        self.served.len() == 1
    }

    /// Returns all listeners, in the order of the socket's listeners.
    pub(crate) fn all(&self) -> &[Arc<ServedListener>] {
        &self.served
    }

    /// Returns the listener that the acceptor selected, by its position.
    pub(crate) fn at(&self, position: usize) -> Result<&Arc<ServedListener>, End> {
        self.served.get(position).ok_or(End::Internal("the TLS acceptor chose a listener of another socket"))
    }
}

/// Returns the least strict limits of all listeners, because a connection may be for any of them. Bans apply to one
/// listener, so several listeners have none in common.
fn opening(listeners: &[Arc<Listener>]) -> Limits {
    let each = || listeners.iter().map(|listener| &listener.limits);
    let widest = |limit: fn(&Limits) -> Option<u32>| {
        each().try_fold(0, |widest, limits| limit(limits).map(|limit| limit.max(widest)))
    };
    Limits {
        client_buffer: each().map(|limits| limits.client_buffer).max().unwrap_or_default(),
        max_connections: widest(|limits| limits.max_connections),
        max_connections_per_client: widest(|limits| limits.max_connections_per_client),
        exempt: exempt(listeners),
        auth_failures: match listeners {
            [alone] => alone.limits.auth_failures,
            _ => None,
        },
    }
}

/// Returns the exempt networks of all listeners, because a connection may be for any of them.
fn exempt(listeners: &[Arc<Listener>]) -> Arc<[IpNet]> {
    match listeners {
        [alone] => Arc::clone(&alone.limits.exempt),
        all => all.iter().flat_map(|listener| listener.limits.exempt.iter().copied()).collect(),
    }
}

impl ServedListener {
    fn new(
        listener: &Arc<Listener>,
        socket: &Socket,
        old: Option<&Self>,
        context: ServingContext<'_>,
    ) -> Result<Self, TlsError> {
        let KeptState { counters, current, routes, goodbye } = context.states.of(listener, context.goodbye);
        let protocol = listener.frontend.protocol;
        let old = old.filter(|old| old.listener.frontend.protocol == protocol);
        let tls = BackendTls::new(&listener.upstream, protocol, old.map(|old| &*old.upstream))?;
        let health =
            listener.destination().and_then(|destination| context.health.of(listener, &destination, &tls));
        let used = old.map(|old| &old.upstream.endpoints);
        let addresses = listener.backend.as_ref().map(|backend| &*backend.endpoints).unwrap_or_default();
        let endpoints = UsedEndpoints::new(&context.metrics.endpoints, protocol, used, addresses);
        let settings = Arc::clone(&listener.upstream);
        let refusals = old.map(|old| Arc::clone(&old.upstream.refusals)).unwrap_or_default();
        let upstream = Arc::new(ServedUpstream { settings, tls, health, endpoints, refusals });
        routes.store(ServedRoutes::new(
            listener,
            &routes.load(),
            &upstream,
            (context.health, context.metrics),
        )?);
        Ok(Self {
            listener: Arc::clone(listener),
            counters,
            current,
            goodbye,
            metrics: context.metrics.listener(&listener.id, socket.protocol),
            upstream,
            routes,
        })
    }
}
