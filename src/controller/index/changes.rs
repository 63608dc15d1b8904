//! The current objects, and the changes since the last rendering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::api::{MailListenerSpec, MailRouteSpec, MailServerSpec};

use super::{
    Answer, Answers, Key, Kind, ObjectId, Objects, Reference, ReferenceKind, Resource, SecretData, put,
};

/// The current objects and their changes. To set an object that equals the previous one is not a change, and keeps the
/// previous allocation.
#[derive(Debug, Default)]
pub struct Index {
    objects: Objects,
    changes: Changes,
}

/// Objects that were changed, added or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Our own objects.
    pub own: BTreeSet<ObjectId>,
    /// Referenced objects.
    pub references: BTreeSet<Reference>,
    /// Namespaces whose labels have changed.
    pub namespaces: BTreeSet<String>,
}

impl Changes {
    /// Tells whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.references.is_empty() && self.namespaces.is_empty()
    }
}

impl Index {
    /// Creates an empty index for a source that reads only referenced objects: each reference is pending until
    /// [`Self::set_answer`].
    #[must_use]
    pub fn of_watched() -> Self {
        let objects = Objects { answers: Answers::of_watched(), ..Objects::default() };
        Self { objects, changes: Changes::default() }
    }

    /// Returns the current objects.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Returns the current objects, and the changes since the last call.
    pub fn take(&mut self) -> (&Objects, Changes) {
        (&self.objects, std::mem::take(&mut self.changes))
    }

    /// Returns the changes since the last [`Self::take`].
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Tells whether anything has changed since the last [`Self::take`].
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Sets a `MailServer`; `None` removes it.
    pub fn set_server(&mut self, key: &Key, server: Option<Arc<Resource<MailServerSpec>>>) {
        if put(&mut self.objects.servers, key, server) {
            self.changes.own.insert(ObjectId::new(Kind::Server, key));
        }
    }

    /// Sets a `MailListener`; `None` removes it.
    pub fn set_listener(&mut self, key: &Key, listener: Option<Arc<Resource<MailListenerSpec>>>) {
        if put(&mut self.objects.listeners, key, listener) {
            self.changes.own.insert(ObjectId::new(Kind::Listener, key));
        }
    }

    /// Sets a `MailRoute`; `None` removes it.
    pub fn set_route(&mut self, key: &Key, route: Option<Arc<Resource<MailRouteSpec>>>) {
        if put(&mut self.objects.routes, key, route) {
            self.changes.own.insert(ObjectId::new(Kind::Route, key));
        }
    }

    /// Sets a Secret; `None` removes it.
    pub fn set_secret(&mut self, key: &Key, secret: Option<Arc<SecretData>>) {
        if put(&mut self.objects.secrets, key, secret) {
            self.refers(ReferenceKind::Secret, key);
        }
    }

    /// Sets a ConfigMap; `None` removes it.
    pub fn set_config_map(&mut self, key: &Key, map: Option<Arc<BTreeMap<String, Vec<u8>>>>) {
        if put(&mut self.objects.config_maps, key, map) {
            self.refers(ReferenceKind::ConfigMap, key);
        }
    }

    /// Sets a Service; `None` removes it.
    pub fn set_service(&mut self, key: &Key, service: Option<Arc<Service>>) {
        if put(&mut self.objects.services, key, service) {
            self.refers(ReferenceKind::Service, key);
        }
    }

    /// Sets an EndpointSlice; `None` removes it.
    pub fn set_slice(&mut self, key: &Key, slice: Option<Arc<EndpointSlice>>) {
        for service in self.objects.slices.set(key, slice) {
            self.refers(ReferenceKind::EndpointSlices, &service);
        }
    }

    /// Sets whether a Pod is taken out of service.
    pub fn set_leaving(&mut self, pod: &Key, leaves: bool) {
        let leaving = &mut self.objects.leaving;
        let changed = if leaves { leaving.insert(pod.clone()) } else { leaving.remove(pod) };
        if changed {
            for service in self.objects.slices.services_of(pod) {
                self.refers(ReferenceKind::EndpointSlices, &service);
            }
        }
    }

    /// Sets the labels of a namespace; `None` removes them.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Arc<BTreeMap<String, String>>>) {
        if put(&mut self.objects.namespaces, &name.to_owned(), labels) {
            self.changes.namespaces.insert(name.to_owned());
        }
    }

    /// Sets what is known of a reference; `None` if nothing refers to it any more.
    pub fn set_answer(&mut self, reference: &Reference, answer: Option<Answer>) {
        if self.objects.answers.set(reference, answer) {
            self.changes.references.insert(reference.clone());
        }
    }

    /// Replaces all objects.
    pub fn replace(&mut self, all: &Objects) {
        let old = self.objects.clone();
        for_each(&old.servers, &all.servers, |key, server| self.set_server(key, server));
        for_each(&old.listeners, &all.listeners, |key, listener| self.set_listener(key, listener));
        for_each(&old.routes, &all.routes, |key, route| self.set_route(key, route));
        for_each(&old.secrets, &all.secrets, |key, secret| self.set_secret(key, secret));
        for_each(&old.config_maps, &all.config_maps, |key, map| self.set_config_map(key, map));
        for_each(&old.services, &all.services, |key, service| self.set_service(key, service));
        for_each(&old.namespaces, &all.namespaces, |name, labels| self.set_namespace(name, labels));
        for_each(old.slices.all(), all.slices.all(), |key, slice| self.set_slice(key, slice));
        for pod in old.leaving.difference(&all.leaving) {
            self.set_leaving(pod, false);
        }
        for pod in &all.leaving {
            self.set_leaving(pod, true);
        }
        for_each(old.answers.listed(), all.answers.listed(), |reference, answer| {
            self.set_answer(reference, answer);
        });
    }

    fn refers(&mut self, kind: ReferenceKind, key: &Key) {
        self.changes.references.insert(Reference::new(kind, key));
    }
}

/// Calls `set` for all removed keys, and then for all values.
fn for_each<K: Ord, V: Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut set: impl FnMut(&K, Option<V>),
) {
    for removed in old.keys().filter(|key| !new.contains_key(key)) {
        set(removed, None);
    }
    for (key, value) in new {
        set(key, Some(value.clone()));
    }
}
