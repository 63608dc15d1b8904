//! Objects that are kept current, and what of them has changed since somebody looked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::api::{MailListenerSpec, MailServerSpec};

use super::{
    Answer, Answers, Key, Kind, ObjectId, Objects, Reference, ReferenceKind, Resource, SecretData, put,
};

/// Objects, with a note of each that is not as it was. What is put in and equals what was there is no change, and
/// stays the same allocation.
#[derive(Debug, Default)]
pub struct Index {
    objects: Objects,
    changes: Changes,
}

/// What has changed, or come, or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Our own objects.
    pub own: BTreeSet<ObjectId>,
    /// What they refer to.
    pub references: BTreeSet<Reference>,
    /// Namespaces whose labels changed.
    pub namespaces: BTreeSet<String>,
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.references.is_empty() && self.namespaces.is_empty()
    }
}

impl Index {
    /// An empty index of a source that reads only what is referred to: each reference is pending until
    /// [`Self::set_answer`].
    #[must_use]
    pub fn of_watched() -> Self {
        let objects = Objects { answers: Answers::of_watched(), ..Objects::default() };
        Self { objects, changes: Changes::default() }
    }

    /// The objects as they are now.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The objects, and what changed since this was last asked.
    pub fn take(&mut self) -> (&Objects, Changes) {
        (&self.objects, std::mem::take(&mut self.changes))
    }

    /// What changed since somebody looked.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether anything changed since somebody looked.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A `MailServer` as it is now; `None` when it is gone.
    pub fn set_server(&mut self, key: &Key, server: Option<Arc<Resource<MailServerSpec>>>) {
        if put(&mut self.objects.servers, key, server) {
            self.changes.own.insert(ObjectId::new(Kind::Server, key));
        }
    }

    /// A `MailListener` as it is now.
    pub fn set_listener(&mut self, key: &Key, listener: Option<Arc<Resource<MailListenerSpec>>>) {
        if put(&mut self.objects.listeners, key, listener) {
            self.changes.own.insert(ObjectId::new(Kind::Listener, key));
        }
    }

    /// A Secret as it is now.
    pub fn set_secret(&mut self, key: &Key, secret: Option<Arc<SecretData>>) {
        if put(&mut self.objects.secrets, key, secret) {
            self.refers(ReferenceKind::Secret, key);
        }
    }

    /// A ConfigMap as it is now.
    pub fn set_config_map(&mut self, key: &Key, map: Option<Arc<BTreeMap<String, Vec<u8>>>>) {
        if put(&mut self.objects.config_maps, key, map) {
            self.refers(ReferenceKind::ConfigMap, key);
        }
    }

    /// A Service as it is now.
    pub fn set_service(&mut self, key: &Key, service: Option<Arc<Service>>) {
        if put(&mut self.objects.services, key, service) {
            self.refers(ReferenceKind::Service, key);
        }
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&mut self, key: &Key, slice: Option<Arc<EndpointSlice>>) {
        for service in self.objects.slices.set(key, slice) {
            self.refers(ReferenceKind::EndpointSlices, &service);
        }
    }

    /// The labels of a namespace as they are now.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Arc<BTreeMap<String, String>>>) {
        if put(&mut self.objects.namespaces, &name.to_owned(), labels) {
            self.changes.namespaces.insert(name.to_owned());
        }
    }

    /// Whether a reference can be looked up; `None` when nothing refers to it any more.
    pub fn set_answer(&mut self, reference: &Reference, answer: Option<Answer>) {
        if self.objects.answers.set(reference, answer) {
            self.changes.references.insert(reference.clone());
        }
    }

    /// All objects as they are now.
    pub fn replace(&mut self, all: &Objects) {
        let old = self.objects.clone();
        for_each(&old.servers, &all.servers, |key, server| self.set_server(key, server));
        for_each(&old.listeners, &all.listeners, |key, listener| self.set_listener(key, listener));
        for_each(&old.secrets, &all.secrets, |key, secret| self.set_secret(key, secret));
        for_each(&old.config_maps, &all.config_maps, |key, map| self.set_config_map(key, map));
        for_each(&old.services, &all.services, |key, service| self.set_service(key, service));
        for_each(&old.namespaces, &all.namespaces, |name, labels| self.set_namespace(name, labels));
        for_each(old.slices.all(), all.slices.all(), |key, slice| self.set_slice(key, slice));
        for_each(old.answers.listed(), all.answers.listed(), |reference, answer| {
            self.set_answer(reference, answer);
        });
    }

    fn refers(&mut self, kind: ReferenceKind, key: &Key) {
        self.changes.references.insert(Reference::new(kind, key));
    }
}

/// What is gone, and then all that is there.
fn for_each<K: Ord, V: Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut set: impl FnMut(&K, Option<V>),
) {
    for gone in old.keys().filter(|key| !new.contains_key(key)) {
        set(gone, None);
    }
    for (key, value) in new {
        set(key, Some(value.clone()));
    }
}
