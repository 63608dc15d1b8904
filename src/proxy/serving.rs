//! A socket's configuration made ready for sessions: TLS acceptors and connectors built, counters attached.
//!
//! A swap makes a new [`Serving`] and replaces the old one in an `ArcSwap`; sessions keep the one they
//! started with. Counters and metrics are those of the listener and live on over swaps. What a listener may connect to
//! counts at once, for the sessions that began before, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::settings::ClientTls;
use crate::model::snapshot::positions;
use crate::model::{Limits, Listener, ListenerId, Reach, Socket, TlsMode, UpstreamTls};
use crate::tls::{TlsAcceptor, TlsError, connector};

use super::end::End;
use super::health::{CheckedBackend, HealthChecks};
use super::limits::Counters;
use super::metrics::{ListenerMetrics, Metrics};
use super::route::BackendTls;

/// What a new session is given.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The rendered socket.
    pub(crate) socket: Arc<Socket>,
    /// TLS towards clients.
    pub(crate) tls: SocketTls,
    /// What counts for a connection before its listener is known.
    pub(crate) opening: Limits,
    /// Counts the connections of which the handshake has still to say whose they are.
    undecided: Arc<Counters>,
    /// Counts the connections of each peer that have not sent their PROXY header.
    pub(crate) unproxied: Arc<Counters>,
    /// In the order of the socket's listeners.
    served: Vec<Arc<ServedListener>>,
    /// Who speaks before a server name is known.
    first: Arc<ServedListener>,
}

/// TLS towards the clients of a socket.
#[derive(Debug)]
pub(crate) enum SocketTls {
    Disabled,
    /// When the client asks for it.
    StartTls(TlsAcceptor),
    /// From the first byte.
    Implicit(TlsAcceptor),
}

impl SocketTls {
    fn new(socket: &Arc<Socket>, previous: Option<&Self>) -> Result<Self, TlsError> {
        let previous = match previous {
            Some(Self::StartTls(acceptor) | Self::Implicit(acceptor)) => Some(acceptor),
            Some(Self::Disabled) | None => None,
        };
        let acceptor = || TlsAcceptor::new(socket, previous);
        Ok(match socket.tls_mode {
            TlsMode::Disabled => Self::Disabled,
            TlsMode::StartTls | TlsMode::RequireStartTls => Self::StartTls(acceptor()?),
            TlsMode::Implicit => Self::Implicit(acceptor()?),
        })
    }
}

/// One listener with everything that its sessions need.
#[derive(Debug)]
pub(crate) struct ServedListener {
    /// The rendered listener.
    pub(crate) listener: Arc<Listener>,
    /// Bounds over all sessions.
    pub(crate) counters: Arc<Counters>,
    /// What it may connect to now, whatever it was when a session began.
    pub(crate) reach: Arc<ArcSwap<Reach>>,
    /// Metric handles.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Cancelled when its sessions have to say goodbye.
    pub(crate) goodbye: CancellationToken,
    /// TLS towards the backend.
    pub(crate) backend_tls: BackendTls,
    /// What the health checks of its backend say, where there are any.
    pub(crate) health: Option<Arc<CheckedBackend>>,
}

/// What every listener has from its first session to its last, over all its configurations.
#[derive(Debug, Default)]
pub(crate) struct ListenerStates(Mutex<KeptListeners>);

#[derive(Debug, Default)]
struct KeptListeners {
    states: HashMap<ListenerId, ListenerState>,
    /// Those that may have come to their end.
    ending: BTreeSet<ListenerId>,
}

#[derive(Debug)]
struct ListenerState {
    counters: Arc<Counters>,
    reach: Arc<ArcSwap<Reach>>,
    goodbye: CancellationToken,
    /// Present while the listener is gone: will say goodbye to its sessions.
    ending: Option<AbortHandle>,
}

impl ListenerStates {
    /// The state of a listener: it begins with the first call, and goes on for a listener that was gone for
    /// less than the drain timeout. `all` ends all sessions at once.
    fn of(&self, listener: &Listener, all: &CancellationToken) -> KeptState {
        let states = &mut self.0.lock().states;
        let new = || ListenerState {
            counters: Arc::default(),
            reach: Arc::default(),
            goodbye: all.child_token(),
            ending: None,
        };
        let state = states.entry(listener.id.clone()).or_insert_with(new);
        if state.goodbye.is_cancelled() {
            *state = new();
        }
        state.go_on();
        state.reach.store(Arc::new(listener.reach.clone()));
        KeptState {
            counters: Arc::clone(&state.counters),
            reach: Arc::clone(&state.reach),
            goodbye: state.goodbye.clone(),
        }
    }

    /// Whether the listener is wanted.
    pub(crate) fn has(&self, id: &ListenerId) -> bool {
        self.0.lock().states.get(id).is_some_and(|state| state.ending.is_none())
    }

    /// These listeners are gone: their sessions end after `drain`, unless they come back, as those have
    /// that did. Those that were told are forgotten.
    pub(crate) fn turn(&self, gone: &BTreeSet<&ListenerId>, come: &BTreeSet<&ListenerId>, drain: Duration) {
        let KeptListeners { states, ending } = &mut *self.0.lock();
        for id in come {
            if let Some(state) = states.get_mut(*id) {
                state.go_on();
            }
        }
        for id in gone {
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

/// What a listener keeps over its configurations.
struct KeptState {
    counters: Arc<Counters>,
    reach: Arc<ArcSwap<Reach>>,
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

/// What every [`ServedListener`] is built with.
#[derive(Clone, Copy)]
pub(crate) struct ServingContext<'a> {
    /// What goes on over all configurations.
    pub(crate) states: &'a ListenerStates,
    /// Of the process.
    pub(crate) metrics: &'a Metrics,
    /// Of the process.
    pub(crate) health: &'a HealthChecks,
    /// Ends all sessions.
    pub(crate) goodbye: &'a CancellationToken,
}

impl Serving {
    /// Builds what sessions need, and starts the health checks that are new. `previous` gives what it has of listeners
    /// that are the same objects, and its TLS session state where nothing changed.
    ///
    /// # Errors
    /// When a certificate or trust anchor that was parsed cannot be used after all.
    pub(crate) fn new(
        socket: &Arc<Socket>,
        previous: Option<&Self>,
        context: ServingContext<'_>,
    ) -> Result<Self, TlsError> {
        let tls = SocketTls::new(socket, previous.map(|previous| &previous.tls))?;
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

    /// The listener that speaks before a server name is known.
    pub(crate) fn first(&self) -> &Arc<ServedListener> {
        &self.first
    }

    /// What counts a session before the handshake says whose it is: with several listeners it is none's, so
    /// that a full one does not lock out the clients of the others.
    pub(crate) fn counters<'a>(&'a self, first: &'a ServedListener) -> &'a Arc<Counters> {
        if self.is_alone() { &first.counters } else { &self.undecided }
    }

    /// Whether the listener is known before the handshake.
    pub(crate) fn is_alone(&self) -> bool {
        self.served.len() == 1
    }

    /// All listeners, in the order of the socket's.
    pub(crate) fn all(&self) -> &[Arc<ServedListener>] {
        &self.served
    }

    /// The listener that the acceptor chose, by its place among the socket's.
    pub(crate) fn at(&self, position: usize) -> Result<&Arc<ServedListener>, End> {
        self.served.get(position).ok_or(End::Internal("the TLS acceptor chose a listener of another socket"))
    }
}

/// The widest limits of the listeners: a connection may be for any of them. A client is banned by one listener, so
/// several have no bans in common.
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

/// Whom one of the listeners exempts: the connection may be for that one.
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
        let KeptState { counters, reach, goodbye } = context.states.of(listener, context.goodbye);
        let backend_tls = backend_tls(listener, old)?;
        Ok(Self {
            listener: Arc::clone(listener),
            counters,
            reach,
            goodbye,
            metrics: context.metrics.listener(&listener.id, socket.protocol),
            health: context.health.of(listener, &backend_tls),
            backend_tls,
        })
    }
}

/// A connector keeps its session tickets while its configuration stays the same.
fn backend_tls(listener: &Listener, previous: Option<&ServedListener>) -> Result<BackendTls, TlsError> {
    let protocol = listener.frontend.protocol;
    let connector = |tls: &Arc<ClientTls>| {
        let same = previous.filter(|old| old.listener.frontend.protocol == protocol);
        let kept = same.and_then(|old| match (&old.listener.upstream.tls, &old.backend_tls) {
            (
                UpstreamTls::StartTls(before) | UpstreamTls::Implicit(before),
                BackendTls::StartTls(connector) | BackendTls::Implicit(connector),
            ) if before == tls => Some(Arc::clone(connector)),
            _ => None,
        });
        kept.map_or_else(|| connector(tls, Some(protocol)).map(Arc::new), Ok)
    };
    Ok(match &listener.upstream.tls {
        UpstreamTls::Disabled => BackendTls::Disabled,
        UpstreamTls::StartTls(tls) => BackendTls::StartTls(connector(tls)?),
        UpstreamTls::Implicit(tls) => BackendTls::Implicit(connector(tls)?),
    })
}
