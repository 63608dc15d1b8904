//! Which objects a report of the data plane says something new about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{BindReport, ListenerId, Snapshot};

use super::super::index::{Key, Kind, ObjectId};

/// The objects with listeners that `new` says something else about than `old`.
pub(super) fn objects(old: &BindReport, new: &BindReport, snapshot: &Snapshot) -> BTreeSet<ObjectId> {
    let sockets = different(&old.sockets, &new.sockets);
    let of_sockets = sockets.into_iter().filter_map(|address| snapshot.sockets.get(address));
    let of_sockets = of_sockets.flat_map(|socket| &socket.listeners).map(|listener| &listener.id);
    let of_listeners = different(&old.backends, &new.backends).into_iter();
    let of_peers = different(&old.peers, &new.peers);
    of_sockets.chain(of_listeners).chain(of_peers).map(object_of).collect()
}

/// Keys of which the values differ.
fn different<'a, K: Ord, V: PartialEq>(
    old: &'a Arc<BTreeMap<K, V>>,
    new: &'a Arc<BTreeMap<K, V>>,
) -> Vec<&'a K> {
    if Arc::ptr_eq(old, new) {
        return Vec::new();
    }
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(changed).collect()
}

/// Whose listener it is.
fn object_of(id: &ListenerId) -> ObjectId {
    let kind = if id.listener.is_empty() { Kind::Listener } else { Kind::Server };
    ObjectId::new(kind, &Key::new(&id.namespace, &id.object))
}
