//! Whatever objects refer to by name, and what of it was looked for: a source needs to read no more than that, and
//! nothing else makes another rendering of the same object.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::super::index::{Key, Objects, Reference, ReferenceKind, SecretData};
use super::super::reason::Reason;
use super::super::violation::{Absent, Concern, Violation};
use super::endpoints::Locality;
use super::tls::Certificates;

/// What the rendering of an object depends on, besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// What was looked for by name, whether it is there or not.
    pub(crate) references: BTreeSet<Reference>,
    /// The `MailServer` of a `MailListener`, whether it is there or not: the one that it names and, where that spec
    /// cannot be used, the one that the last good spec names.
    pub(crate) servers: BTreeSet<Key>,
    /// The namespace whose labels decided something.
    pub(crate) namespace: Option<String>,
    /// When something else is to be said with nothing changed: Unix seconds.
    pub(crate) times: BTreeSet<i64>,
}

/// What references are looked up in.
pub(crate) struct References<'a> {
    objects: &'a Objects,
    looked: &'a RefCell<Looked>,
    locality: &'a Locality,
    /// Certificates that are parsed already.
    pub(crate) certificates: &'a mut Certificates,
}

impl<'a> References<'a> {
    /// Everything that is looked for is put down in `looked`, whether it is there or not.
    pub(crate) fn new(
        objects: &'a Objects,
        looked: &'a RefCell<Looked>,
        locality: &'a Locality,
        certificates: &'a mut Certificates,
    ) -> Self {
        Self { objects, looked, locality, certificates }
    }

    /// Where we are, for endpoints that are near.
    pub(crate) fn locality(&self) -> &'a Locality {
        self.locality
    }

    /// A Secret.
    pub(crate) fn secret(&self, key: &Key) -> Option<&'a Arc<SecretData>> {
        self.want(ReferenceKind::Secret, key);
        self.objects.secrets.get(key)
    }

    /// A value of a ConfigMap; the outer `None` is a ConfigMap that is not there.
    pub(crate) fn in_config_map(&self, key: &Key, name: &str) -> Option<Option<&'a [u8]>> {
        self.want(ReferenceKind::ConfigMap, key);
        self.objects.config_maps.get(key).map(|map| map.get(name).map(Vec::as_slice))
    }

    /// A Service.
    pub(crate) fn service(&self, key: &Key) -> Option<&'a Arc<Service>> {
        self.want(ReferenceKind::Service, key);
        self.objects.services.get(key)
    }

    /// Says when something else will have to be said.
    pub(crate) fn until(&self, times: &[i64]) {
        self.looked.borrow_mut().times.extend(times);
    }

    /// All objects, for what goes with a reference.
    pub(crate) fn objects(&self) -> &'a Objects {
        self.objects
    }

    /// Says that something is not there; one that is there and may not be read needs another remedy.
    pub(crate) fn missing(
        &self,
        path: &str,
        (kind, key): (ReferenceKind, &Key),
        problem: String,
        remedy: &str,
    ) -> Violation {
        let reference = Reference::new(kind, key);
        match self.objects.unreadable.get(&reference) {
            None => Violation::absent(path, Absent::Reference(reference), problem, remedy),
            Some(why) => Violation::new(
                Concern::ResolvedRefs,
                Reason::RefNotReadable,
                path,
                format!("{reference} cannot be read: {why}"),
                "correct the name, or let the controller's ServiceAccount get, list and watch it by a Role that names it",
            ),
        }
    }

    fn want(&self, kind: ReferenceKind, key: &Key) {
        self.looked.borrow_mut().references.insert(Reference::new(kind, key));
    }
}
