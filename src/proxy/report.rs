//! Builds the reports for the controller. A report shares unchanged parts with the previous one, so that a change of
//! one listener among thousands does not copy the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{
    BackendHealth, BindReport, ListenerId, Resolver, RouteBackend, RouteId, SocketState, SourceAddresses,
};
use crate::net::ListenAddress;

/// Collects changes for the next report.
#[derive(Debug)]
pub(crate) struct Reporter {
    next: BindReport,
    sender: watch::Sender<Arc<BindReport>>,
}

impl Reporter {
    pub(crate) fn new(sender: watch::Sender<Arc<BindReport>>) -> Self {
        Self { next: BindReport::default(), sender }
    }

    /// Sets the state of a socket; `None` if it is closed.
    pub(crate) fn socket(&mut self, address: &ListenAddress, state: Option<SocketState>) {
        put(&mut self.next.sockets, address, state);
    }

    /// Sets the health of a listener's backend; `None` without health checks.
    pub(crate) fn backend(&mut self, listener: &ListenerId, health: Option<BackendHealth>) {
        put(&mut self.next.backends, listener, health);
    }

    /// Sets the health of the backends of all routes.
    pub(crate) fn routes(&mut self, health: BTreeMap<RouteBackend, BackendHealth>) {
        if *self.next.routes != health {
            self.next.routes = Arc::new(health);
        }
    }

    /// Sets the client addresses of a listener; `None` if it is removed.
    pub(crate) fn source_addresses(&mut self, listener: &ListenerId, sources: Option<SourceAddresses>) {
        put(&mut self.next.source_addresses, listener, sources);
    }

    /// Sets the sessions of held routes. Returns whether they have changed.
    pub(crate) fn held(&mut self, held: BTreeMap<RouteId, u64>) -> bool {
        let has_changed = *self.next.held != held;
        if has_changed {
            self.next.held = Arc::new(held);
        }
        has_changed
    }

    /// Sets the resolvers whose name servers do not answer.
    pub(crate) fn silent_resolvers(&mut self, silent: Arc<Vec<Resolver>>) {
        self.next.silent_resolvers = silent;
    }

    /// Sends a report for the snapshot with this revision.
    pub(crate) fn send(&mut self, revision: u64) {
        self.next.revision = revision;
        self.sender.send_replace(Arc::new(self.next.clone()));
    }
}

/// Changes an entry. Copies the map only if it is shared and the value differs.
fn put<K: Ord + Clone, V: PartialEq + Clone>(map: &mut Arc<BTreeMap<K, V>>, key: &K, value: Option<V>) {
    if map.get(key) == value.as_ref() {
        return;
    }
    let map = Arc::make_mut(map);
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}
