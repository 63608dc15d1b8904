//! Looks up references and records each lookup. A source reads only these objects, and only they change the rendering
//! of an unchanged object.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::controller::index::{Answer, Key, Lookup, Objects, Reference, ReferenceKind, SecretData};
use crate::controller::reason::Reason;
use crate::controller::violation::{Absent, Concern, Violation};

use super::certificates::Certificates;
use super::endpoints::Locality;
use super::scope::Scope;

/// The dependencies of an object's rendering, besides the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// All references that were looked up, whatever the result.
    pub(crate) references: BTreeSet<Reference>,
    /// The `MailServer` of a `MailListener` or `MailRoute`, even if it does not exist: the one in the spec and, if that spec is not
    /// valid, the one in the last valid spec.
    pub(crate) servers: BTreeSet<Key>,
    /// The namespace whose labels were used for a decision.
    pub(crate) namespace: Option<String>,
    /// The times in Unix seconds at which the rendering changes without a change of an object, because a certificate is
    /// about to expire.
    pub(crate) times: BTreeSet<i64>,
}

/// Looks up references.
pub(crate) struct References<'a> {
    objects: &'a Objects,
    dependencies: &'a RefCell<Dependencies>,
    locality: &'a Locality,
    /// The certificates that are already parsed.
    pub(crate) certificates: &'a mut Certificates,
}

impl<'a> References<'a> {
    /// Creates a lookup that records in `dependencies`.
    pub(crate) fn new(
        objects: &'a Objects,
        dependencies: &'a RefCell<Dependencies>,
        locality: &'a Locality,
        certificates: &'a mut Certificates,
    ) -> Self {
        Self { objects, dependencies, locality, certificates }
    }

    /// Returns the locality of this process, to prefer near endpoints.
    pub(crate) fn locality(&self) -> &'a Locality {
        self.locality
    }

    /// Looks up a Secret.
    pub(crate) fn secret(&self, key: &Key) -> Lookup<&'a Arc<SecretData>> {
        self.look_up(ReferenceKind::Secret, key, self.objects.secrets.get(key))
    }

    /// Looks up a ConfigMap.
    pub(crate) fn config_map(&self, key: &Key) -> Lookup<&'a Arc<BTreeMap<String, Vec<u8>>>> {
        self.look_up(ReferenceKind::ConfigMap, key, self.objects.config_maps.get(key))
    }

    /// Looks up a value of a ConfigMap. The result is `Found(None)` if the ConfigMap has no such key.
    pub(crate) fn in_config_map(&self, key: &Key, name: &str) -> Lookup<Option<&'a [u8]>> {
        self.config_map(key).map(|map| map.get(name).map(Vec::as_slice))
    }

    /// Looks up a Service.
    pub(crate) fn service(&self, key: &Key) -> Lookup<&'a Arc<Service>> {
        self.look_up(ReferenceKind::Service, key, self.objects.services.get(key))
    }

    /// Looks up the EndpointSlices of a Service. They are never missing, because a Service may have none.
    pub(crate) fn slices(&self, service: &Key) -> Lookup<Vec<&'a EndpointSlice>> {
        let slices = self.objects.slices.of(service).collect();
        self.look_up(ReferenceKind::EndpointSlices, service, Some(slices))
    }

    /// Returns the names of the Pods in a namespace that are taken out of service. Whoever uses them looks up the
    /// EndpointSlices of their Service, which count as changed with them.
    pub(crate) fn leaving(&self, namespace: &str) -> BTreeSet<&'a str> {
        let from = self.objects.leaving.range(Key::new(namespace, "")..);
        from.take_while(|pod| pod.namespace == namespace).map(|pod| pod.name.as_str()).collect()
    }

    /// Records times (Unix seconds) at which the rendering changes without a change of an object.
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
    /// Returns the object that was found. Otherwise reports a violation of the field at `path`. `remedy` is used if the
    /// object does not exist.
    pub(crate) fn required(
        self,
        scope: &Scope<'_>,
        (kind, key): (ReferenceKind, &Key),
        path: &str,
        remedy: &str,
    ) -> Option<T> {
        let reference = Reference::new(kind, key);
        scope.report(match self {
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
