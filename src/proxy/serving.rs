//! A socket's configuration made ready for sessions: TLS acceptors and connectors built, counters attached.
//!
//! A swap makes a new [`Serving`] and replaces the old one in an `ArcSwap`; sessions keep the one they
//! started with. Counters and metrics are those of the listener and live on over swaps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::settings::ClientTls;
use crate::model::{BackendHealth, Listener, ListenerId, Socket, UpstreamTls};
use crate::tls::{TlsAcceptor, TlsConnector, TlsError, connector};

use super::health::{CheckedBackend, HealthChecks};
use super::limits::{Counters, lock};
use super::metrics::{ListenerMetrics, Metrics};

/// What a new session is given.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The rendered socket.
    pub(crate) socket: Arc<Socket>,
    /// Present unless the socket's TLS mode is Off.
    pub(crate) acceptor: Option<TlsAcceptor>,
    /// Counts the sessions of which STARTTLS has still to say whose they are.
    undecided: Arc<Counters>,
    served: Vec<Served>,
}

/// One listener with everything that its sessions need; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The rendered listener.
    pub(crate) listener: Arc<Listener>,
    /// Bounds over all sessions.
    pub(crate) counters: Arc<Counters>,
    /// Metric handles.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Cancelled when its sessions have to say goodbye.
    pub(crate) goodbye: CancellationToken,
    /// TLS towards the backend.
    pub(crate) connector: Option<Arc<TlsConnector>>,
    /// What the health checks of its backend say, where there are any.
    pub(crate) health: Option<Arc<CheckedBackend>>,
}

/// What every listener has from its first session to its last, over all its configurations.
#[derive(Debug, Default)]
pub(crate) struct Lives(Mutex<HashMap<ListenerId, Life>>);

#[derive(Debug)]
struct Life {
    counters: Arc<Counters>,
    goodbye: CancellationToken,
    /// Present while the listener is gone: will say goodbye to its sessions.
    ending: Option<AbortHandle>,
}

impl Lives {
    /// The life of a listener: it begins with the first call, and goes on for a listener that was gone for
    /// less than the drain timeout. `all` ends every life at once.
    fn of(&self, id: &ListenerId, all: &CancellationToken) -> (Arc<Counters>, CancellationToken) {
        let mut lives = lock(&self.0);
        if lives.get(id).is_none_or(|life| life.goodbye.is_cancelled()) {
            let life = Life { counters: Arc::default(), goodbye: all.child_token(), ending: None };
            lives.insert(id.clone(), life);
        }
        let Some(life) = lives.get_mut(id) else { return (Arc::default(), all.child_token()) };
        if let Some(ending) = life.ending.take() {
            ending.abort();
        }
        (Arc::clone(&life.counters), life.goodbye.clone())
    }

    /// The listeners that are gone: their sessions are told goodbye after `drain`, unless they come back.
    pub(crate) fn end(&self, keep: impl Fn(&ListenerId) -> bool, drain: Duration) {
        lock(&self.0).retain(|id, life| {
            if keep(id) {
                return true;
            }
            if life.ending.is_none() {
                let goodbye = life.goodbye.clone();
                let ending = tokio::spawn(async move {
                    sleep(drain).await;
                    goodbye.cancel();
                });
                life.ending = Some(ending.abort_handle());
            }
            !life.goodbye.is_cancelled()
        });
    }
}

impl Serving {
    /// Builds what sessions need, and starts the health checks that are new. `previous` gives its TLS session state
    /// where nothing changed; `goodbye` ends all sessions.
    ///
    /// # Errors
    /// When a certificate or trust anchor that was parsed cannot be used after all.
    pub(crate) fn new(
        socket: &Arc<Socket>,
        previous: Option<&Self>,
        lives: &Lives,
        metrics: &Metrics,
        health: &HealthChecks,
        goodbye: &CancellationToken,
    ) -> Result<Self, TlsError> {
        let acceptor = if socket.listeners.iter().any(|listener| listener.tls.is_some()) {
            Some(TlsAcceptor::new(socket, previous.and_then(|previous| previous.acceptor.as_ref()))?)
        } else {
            None
        };
        let serve = |listener: &Arc<Listener>| {
            let (counters, goodbye) = lives.of(&listener.id, goodbye);
            let connector = upstream_connector(listener, previous)?;
            Ok(Served {
                listener: Arc::clone(listener),
                counters,
                goodbye,
                metrics: metrics.listener(&listener.id, socket.protocol),
                health: health.of(listener, connector.as_ref()),
                connector,
            })
        };
        let served = socket.listeners.iter().map(serve).collect::<Result<Vec<_>, TlsError>>()?;
        let undecided = previous.map(|previous| Arc::clone(&previous.undecided)).unwrap_or_default();
        Ok(Self { socket: Arc::clone(socket), acceptor, undecided, served })
    }

    /// The listener that speaks before a server name is known.
    pub(crate) fn first(&self) -> Option<&Served> {
        self.socket.select(None).and_then(|listener| self.of(&listener.id))
    }

    /// What counts a session before the handshake says whose it is: with several listeners it is none's, so
    /// that a full one does not lock out the clients of the others.
    pub(crate) fn counters<'a>(&'a self, first: &'a Served) -> &'a Arc<Counters> {
        if self.is_alone() { &first.counters } else { &self.undecided }
    }

    /// Whether the listener is known before the handshake.
    pub(crate) fn is_alone(&self) -> bool {
        self.served.len() == 1
    }

    /// What the health checks of its listeners' backends say.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (ListenerId, BackendHealth)> {
        self.served
            .iter()
            .filter_map(|served| Some((served.listener.id.clone(), served.health.as_ref()?.report())))
    }

    /// The listener that the acceptor chose.
    pub(crate) fn of(&self, id: &ListenerId) -> Option<&Served> {
        self.served.iter().find(|served| served.listener.id == *id)
    }
}

fn client_tls(listener: &Listener) -> Option<&Arc<ClientTls>> {
    match &listener.upstream.tls {
        UpstreamTls::Off => None,
        UpstreamTls::StartTls(tls) | UpstreamTls::Implicit(tls) => Some(tls),
    }
}

/// A connector keeps its session tickets while its configuration stays the same.
fn upstream_connector(
    listener: &Listener,
    previous: Option<&Serving>,
) -> Result<Option<Arc<TlsConnector>>, TlsError> {
    let Some(tls) = client_tls(listener) else { return Ok(None) };
    let kept = previous.and_then(|previous| previous.of(&listener.id)).filter(|old| {
        client_tls(&old.listener).is_some_and(|before| before == tls)
            && old.listener.frontend.protocol == listener.frontend.protocol
    });
    match kept.and_then(|old| old.connector.clone()) {
        Some(connector) => Ok(Some(connector)),
        None => Ok(Some(Arc::new(connector(tls, Some(listener.frontend.protocol))?))),
    }
}
