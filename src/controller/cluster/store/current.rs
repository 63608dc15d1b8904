//! What the watches say together: the objects that a render sees, changed in place with every event.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::super::index::{Index, Key, Reference, ReferenceKind};
use super::super::super::manifest::Content;
use super::super::resources::{Scope, Watched, WatchedKind};
use super::super::watches::{News, Seen};
use super::{Answer, Store};

impl Store {
    /// An object is another than before, or is not among what is watched any more. Several watches may know it.
    pub(super) fn show(&mut self, kind: WatchedKind, key: &Key) {
        let scopes = [Scope::Named(key.clone()), Scope::In(key.namespace.clone()), Scope::Everywhere];
        let of = |scope| self.states.get(&Watched { kind, scope })?.held.get(key);
        let seen = scopes.into_iter().find_map(of);
        show(&mut self.index, kind, key, seen);
    }

    /// What is known of a watch is another than before.
    pub(super) fn show_unreadable(&mut self, watched: &Watched) {
        let covered: Vec<Reference> = watched.covered(&self.references).into_iter().cloned().collect();
        for reference in &covered {
            self.show_reference(reference);
        }
    }

    /// A reference is there that was not, or is not there any more.
    pub(super) fn show_reference(&mut self, reference: &Reference) {
        let why = self.references.contains(reference).then(|| self.why_unreadable(reference)).flatten();
        self.index.set_unreadable(reference, why);
    }

    fn why_unreadable(&self, reference: &Reference) -> Option<String> {
        let kinds: &[WatchedKind] = match reference.kind {
            ReferenceKind::Secret => &[WatchedKind::Secret],
            ReferenceKind::ConfigMap => &[WatchedKind::ConfigMap],
            ReferenceKind::Service => &[WatchedKind::Service, WatchedKind::Slice],
        };
        let Key { namespace, .. } = &reference.key;
        let scopes = [Scope::Everywhere, Scope::In(namespace.clone()), Scope::Named(reference.key.clone())];
        let watched = |kind| scopes.iter().map(move |scope| Watched { kind, scope: scope.clone() });
        let unknown = |watched: Watched| {
            let why = self.states.get(&watched)?.unknown()?;
            (!self.is_known_otherwise(&watched, reference)).then_some(why)
        };
        kinds.iter().flat_map(|kind| watched(*kind)).find_map(unknown)
    }

    /// Where all of the cluster may not be read, a namespace still may.
    fn is_known_otherwise(&self, watched: &Watched, reference: &Reference) -> bool {
        let scope = Scope::In(reference.key.namespace.clone());
        let narrow = Watched { kind: watched.kind, scope };
        self.states.get(&narrow).is_some_and(|state| state.answer == Answer::Whole)
    }
}

impl News {
    /// The objects that this is about.
    pub(super) fn keys<'a>(&'a self, held: impl Iterator<Item = &'a Key>) -> BTreeSet<Key> {
        match self {
            Self::All(all) => all.keys().chain(held).cloned().collect(),
            Self::Is(key, _) | Self::Gone(key) => BTreeSet::from([key.clone()]),
            Self::Failed(_) => BTreeSet::new(),
        }
    }
}

fn show(index: &mut Index, kind: WatchedKind, key: &Key, seen: Option<&Seen>) {
    let Some(Seen { content, uid, generation, .. }) = seen else { return hide(index, kind, key) };
    match content {
        Content::Server(own) => index.set_server(key, Some(Arc::new(own.resource(uid, *generation)))),
        Content::Listener(own) => index.set_listener(key, Some(Arc::new(own.resource(uid, *generation)))),
        Content::Namespace(labels) => index.set_namespace(&key.name, Some(Arc::clone(labels))),
        Content::Secret(secret) => index.set_secret(key, Some(Arc::clone(secret))),
        Content::ConfigMap(map) => index.set_config_map(key, Some(Arc::clone(map))),
        Content::Service(service) => index.set_service(key, Some(Arc::clone(service))),
        Content::Slice(slice) => index.set_slice(key, Some(Arc::clone(slice))),
        Content::Other => hide(index, kind, key),
    }
}

fn hide(index: &mut Index, kind: WatchedKind, key: &Key) {
    match kind {
        WatchedKind::Server => index.set_server(key, None),
        WatchedKind::Listener => index.set_listener(key, None),
        WatchedKind::Namespace => index.set_namespace(&key.name, None),
        WatchedKind::Secret => index.set_secret(key, None),
        WatchedKind::ConfigMap => index.set_config_map(key, None),
        WatchedKind::Service => index.set_service(key, None),
        WatchedKind::Slice => index.set_slice(key, None),
    }
}
