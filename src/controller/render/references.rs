//! Looks up what objects refer to by name, and notes each lookup: a source reads no more than that, and nothing else
//! changes the rendering of an unchanged object.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::controller::index::{Answer, Key, Lookup, Objects, Reference, ReferenceKind, SecretData};
use crate::controller::reason::Reason;
use crate::controller::violation::{Absent, Concern, Violation};

use super::endpoints::Locality;
use super::tls::Certificates;

/// What the rendering of an object depends on, besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// The references that were looked up, with whatever result.
    pub(crate) references: BTreeSet<Reference>,
    /// The `MailServer` of a `MailListener`, whether it exists or not: the one that the spec names and, where that spec
    /// is invalid, the one that the last valid spec names.
    pub(crate) servers: BTreeSet<Key>,
    /// The namespace whose labels decided something.
    pub(crate) namespace: Option<String>,
    /// Unix seconds at which the rendering changes though no object does: a certificate comes close to its end.
    pub(crate) times: BTreeSet<i64>,
}

/// Where references are looked up.
pub(crate) struct References<'a> {
    objects: &'a Objects,
    dependencies: &'a RefCell<Dependencies>,
    locality: &'a Locality,
    /// Certificates that are parsed already.
    pub(crate) certificates: &'a mut Certificates,
}

impl<'a> References<'a> {
    /// Notes every lookup in `dependencies`.
    pub(crate) fn new(
        objects: &'a Objects,
        dependencies: &'a RefCell<Dependencies>,
        locality: &'a Locality,
        certificates: &'a mut Certificates,
    ) -> Self {
        Self { objects, dependencies, locality, certificates }
    }

    /// Where this process runs, to prefer near endpoints.
    pub(crate) fn locality(&self) -> &'a Locality {
        self.locality
    }

    /// A Secret.
    pub(crate) fn secret(&self, key: &Key) -> Lookup<&'a Arc<SecretData>> {
        self.look_up(ReferenceKind::Secret, key, self.objects.secrets.get(key))
    }

    /// A value of a ConfigMap; `Found(None)` where the ConfigMap has no such key.
    pub(crate) fn in_config_map(&self, key: &Key, name: &str) -> Lookup<Option<&'a [u8]>> {
        let map = self.look_up(ReferenceKind::ConfigMap, key, self.objects.config_maps.get(key));
        map.map(|map| map.get(name).map(Vec::as_slice))
    }

    /// A Service.
    pub(crate) fn service(&self, key: &Key) -> Lookup<&'a Arc<Service>> {
        self.look_up(ReferenceKind::Service, key, self.objects.services.get(key))
    }

    /// The EndpointSlices of a Service; never missing: a Service may have none.
    pub(crate) fn slices(&self, service: &Key) -> Lookup<Vec<&'a EndpointSlice>> {
        let slices = self.objects.slices.of(service).collect();
        self.look_up(ReferenceKind::EndpointSlices, service, Some(slices))
    }

    /// Notes when the rendering changes though no object does: Unix seconds.
    pub(crate) fn until(&self, times: &[i64]) {
        self.dependencies.borrow_mut().times.extend(times);
    }

    fn look_up<T>(&self, kind: ReferenceKind, key: &Key, held: Option<T>) -> Lookup<T> {
        let reference = Reference::new(kind, key);
        let lookup = match self.objects.answers.get(&reference) {
            Answer::Known => held.map_or(Lookup::Missing, Lookup::Found),
            Answer::Forbidden(why) => Lookup::Forbidden(why.clone()),
            Answer::Pending(why) => Lookup::Pending(why.clone()),
        };
        self.dependencies.borrow_mut().references.insert(reference);
        lookup
    }
}

impl<T> Lookup<T> {
    /// What was found. Otherwise the violation of the field at `path` is added to `found`; `remedy` is for a reference
    /// that does not exist.
    pub(crate) fn required(
        self,
        (kind, key): (ReferenceKind, &Key),
        path: &str,
        remedy: &str,
        found: &mut Vec<Violation>,
    ) -> Option<T> {
        let reference = Reference::new(kind, key);
        found.push(match self {
            Self::Found(value) => return Some(value),
            Self::Missing => {
                let problem = format!("{reference} does not exist");
                Violation::absent(path, Absent::Reference(reference), problem, remedy)
            }
            Self::Forbidden(why) => Violation::new(
                Concern::ResolvedRefs,
                Reason::RefNotReadable,
                path,
                format!("{reference} cannot be read: {why}"),
                "grant the controller's ServiceAccount get, list and watch on it, or correct the name",
            ),
            Self::Pending(why) => Violation::pending(path, format!("waiting for {reference}: {why}")),
        });
        None
    }
}
