//! Updates the objects for a rendering in place with every event, from all watches together.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::controller::cluster::resources::{Scope, Watched, WatchedKind, by_name};
use crate::controller::cluster::watches::{Seen, WatchUpdate};
use crate::controller::index::{self, Index, Key, Reference, ReferenceKind};
use crate::controller::manifest::Content;

use super::state::WatchState;
use super::{ListState, Store};

impl Store {
    /// Updates an object that has changed or is no longer watched. Several watches may have it.
    pub(super) fn show(&mut self, kind: WatchedKind, key: &Key) {
        let scopes = [Scope::Named(key.clone()), Scope::In(key.namespace.clone()), Scope::Everywhere];
        let of = |scope| self.states.get(&Watched { kind, scope })?.held.get(key);
        let seen = scopes.into_iter().find_map(of);
        show(&mut self.index, kind, key, seen.map(AsRef::as_ref));
    }

    /// Updates the answers for all references of a watch whose state has changed.
    pub(super) fn show_answers(&mut self, watched: &Watched) {
        let covered: Vec<Reference> = watched.covered(&self.references).into_iter().cloned().collect();
        for reference in &covered {
            self.show_reference(reference);
        }
    }

    /// Updates the answer for a reference.
    pub(super) fn show_reference(&mut self, reference: &Reference) {
        let answer = self.references.contains(reference).then(|| self.answer(reference));
        self.index.set_answer(reference, answer);
    }

    fn answer(&self, reference: &Reference) -> index::Answer {
        let kind = match reference.kind {
            // No object can have this name.
            ReferenceKind::Secret | ReferenceKind::ConfigMap if by_name(reference).is_none() => {
                return index::Answer::Known;
            }
            ReferenceKind::Secret => WatchedKind::Secret,
            ReferenceKind::ConfigMap => WatchedKind::ConfigMap,
            ReferenceKind::Service => WatchedKind::Service,
            ReferenceKind::EndpointSlices => WatchedKind::Slice,
        };
        let Key { namespace, .. } = &reference.key;
        let scopes = [Scope::In(namespace.clone()), Scope::Named(reference.key.clone()), Scope::Everywhere];
        let states = || {
            let state = |scope: &Scope| self.states.get(&Watched { kind, scope: scope.clone() });
            scopes.iter().filter_map(state)
        };
        if states().any(|state| state.list == ListState::Whole) {
            return index::Answer::Known;
        }
        // If the whole cluster may not be read, a single namespace may still be allowed.
        let is_open = |state: &&WatchState| state.list == ListState::None || !self.accepts_refusals;
        match (states().find(is_open), states().next()) {
            (Some(open), _) => index::Answer::Pending(open.why_unknown()),
            (None, Some(refused)) => index::Answer::Forbidden(refused.why_unknown()),
            (None, None) => index::Answer::Pending(index::UNANSWERED.to_owned()),
        }
    }
}

impl WatchUpdate {
    /// Returns the objects that this update is about.
    pub(super) fn keys<'a>(&'a self, held: impl Iterator<Item = &'a Key>) -> BTreeSet<Key> {
        match self {
            Self::Listed(all) => all.keys().chain(held).cloned().collect(),
            Self::Applied(key, _) | Self::Deleted(key) => BTreeSet::from([key.clone()]),
            Self::Failed(_) => BTreeSet::new(),
        }
    }
}

fn show(index: &mut Index, kind: WatchedKind, key: &Key, seen: Option<&Seen>) {
    let Some(Seen { content, uid, generation, .. }) = seen else { return hide(index, kind, key) };
    match content {
        Content::Server(own) => index.set_server(key, Some(Arc::new(own.resource(uid, *generation)))),
        Content::Listener(own) => index.set_listener(key, Some(Arc::new(own.resource(uid, *generation)))),
        Content::Route(own) => index.set_route(key, Some(Arc::new(own.resource(uid, *generation)))),
        Content::Namespace(labels) => index.set_namespace(&key.name, Some(Arc::clone(labels))),
        Content::Secret(secret) => index.set_secret(key, Some(Arc::clone(secret))),
        Content::ConfigMap(map) => index.set_config_map(key, Some(Arc::clone(map))),
        Content::Service(service) => index.set_service(key, Some(Arc::clone(service))),
        Content::Slice(slice) => index.set_slice(key, Some(Arc::clone(slice))),
        Content::LeavingPod => index.set_leaving(key, true),
        Content::Other => hide(index, kind, key),
    }
}

fn hide(index: &mut Index, kind: WatchedKind, key: &Key) {
    match kind {
        WatchedKind::Server => index.set_server(key, None),
        WatchedKind::Listener => index.set_listener(key, None),
        WatchedKind::Route => index.set_route(key, None),
        WatchedKind::Namespace => index.set_namespace(&key.name, None),
        WatchedKind::Secret => index.set_secret(key, None),
        WatchedKind::ConfigMap => index.set_config_map(key, None),
        WatchedKind::Service => index.set_service(key, None),
        WatchedKind::Slice => index.set_slice(key, None),
        WatchedKind::Pod => index.set_leaving(key, false),
    }
}
