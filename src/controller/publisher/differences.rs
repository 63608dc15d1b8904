//! Finds the objects for which a report of the data plane has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::controller::index::{Key, Kind, ObjectId};
use crate::model::{BindReport, ListenerId, Resolver, Snapshot};

/// Returns the objects with listeners whose state differs between the reports.
pub(super) fn objects(old: &BindReport, new: &BindReport, snapshot: &Snapshot) -> BTreeSet<ObjectId> {
    let sockets = different(&old.sockets, &new.sockets);
    let of_sockets = sockets.into_iter().filter_map(|address| snapshot.sockets.get(address));
    let of_sockets = of_sockets.flat_map(|socket| &socket.listeners).map(|listener| &listener.id);
    let of_listeners = different(&old.backends, &new.backends).into_iter();
    let of_sources = different(&old.source_addresses, &new.source_addresses);
    let of_resolvers = with_resolvers(old, new, snapshot);
    let checked = different(&old.routes, &new.routes).into_iter().map(|backend| &backend.route);
    let routes = different(&old.held, &new.held).into_iter().chain(checked);
    let routes = routes.map(|id| ObjectId::new(Kind::Route, &Key::new(&id.namespace, &id.name)));
    of_sockets
        .chain(of_listeners)
        .chain(of_sources)
        .chain(of_resolvers)
        .map(object_of)
        .chain(routes)
        .collect()
}

/// Returns the listeners with a resolver that has become silent or answers again.
fn with_resolvers<'a>(old: &BindReport, new: &BindReport, snapshot: &'a Snapshot) -> Vec<&'a ListenerId> {
    let (old, new) = (&old.silent_resolvers, &new.silent_resolvers);
    if old == new {
        return Vec::new();
    }
    let listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
    let changes = |resolver: &Resolver| old.contains(resolver) != new.contains(resolver);
    listeners.filter(|listener| changes(&listener.resolver)).map(|listener| &listener.id).collect()
}

/// Returns the keys whose values differ.
fn different<'a, K: Ord, V: PartialEq>(
    old: &'a Arc<BTreeMap<K, V>>,
    new: &'a Arc<BTreeMap<K, V>>,
) -> Vec<&'a K> {
    if Arc::ptr_eq(old, new) {
        return Vec::new();
    }
    let removed = old.keys().filter(|key| !new.contains_key(key));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(key, _)| key);
    removed.chain(changed).collect()
}

/// Returns the object that has a listener.
fn object_of(id: &ListenerId) -> ObjectId {
    let kind = if id.listener.is_empty() { Kind::Listener } else { Kind::Server };
    ObjectId::new(kind, &Key::new(&id.namespace, &id.object))
}
