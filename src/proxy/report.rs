//! Makes the reports: each shares with the one before what did not change, so that one change among thousands of
//! listeners costs no copy of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{BackendHealth, BindReport, ListenerId, Resolver, SocketState, SourceAddresses};
use crate::net::ListenAddress;

/// The next report, as far as it is known.
#[derive(Debug)]
pub(crate) struct Reporter {
    next: BindReport,
    sender: watch::Sender<Arc<BindReport>>,
}

impl Reporter {
    pub(crate) fn new(sender: watch::Sender<Arc<BindReport>>) -> Self {
        Self { next: BindReport::default(), sender }
    }

    /// A socket is in this state now; `None`: it is gone.
    pub(crate) fn socket(&mut self, address: &ListenAddress, state: Option<SocketState>) {
        put(&mut self.next.sockets, address, state);
    }

    /// What the health checks of a listener's backend say now; `None`: there are none.
    pub(crate) fn backend(&mut self, listener: &ListenerId, health: Option<BackendHealth>) {
        put(&mut self.next.backends, listener, health);
    }

    /// Whose addresses the listener's clients come with; `None`: it is gone.
    pub(crate) fn source_addresses(&mut self, listener: &ListenerId, sources: Option<SourceAddresses>) {
        put(&mut self.next.source_addresses, listener, sources);
    }

    /// The resolvers whose name servers do not answer.
    pub(crate) fn silent_resolvers(&mut self, silent: Arc<Vec<Resolver>>) {
        self.next.silent_resolvers = silent;
    }

    /// Sends what is known, as the state of this snapshot.
    pub(crate) fn send(&mut self, revision: u64) {
        self.next.revision = revision;
        self.sender.send_replace(Arc::new(self.next.clone()));
    }
}

/// Copies the map only if it is shared and really changes.
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
