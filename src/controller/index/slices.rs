//! EndpointSlices, grouped by Service, because a namespace may have thousands of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{Key, put, service_of};

/// All EndpointSlices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slices {
    all: BTreeMap<Key, Arc<EndpointSlice>>,
    of_services: BTreeMap<Key, BTreeSet<Key>>,
}

impl Slices {
    /// Sets or removes an EndpointSlice. Returns the Services whose slices have changed.
    pub fn set(&mut self, key: &Key, slice: Option<Arc<EndpointSlice>>) -> BTreeSet<Key> {
        let before = self.all.get(key).and_then(|slice| service(key, slice));
        let after = slice.as_deref().and_then(|slice| service(key, slice));
        if !put(&mut self.all, key, slice) {
            return BTreeSet::new();
        }
        if before != after {
            if let Some(service) = &before {
                self.leave(service, key);
            }
            if let Some(service) = &after {
                self.of_services.entry(service.clone()).or_default().insert(key.clone());
            }
        }
        before.into_iter().chain(after).collect()
    }

    /// Returns the EndpointSlices of a Service.
    pub fn of(&self, service: &Key) -> impl Iterator<Item = &EndpointSlice> {
        let keys = self.of_services.get(service).into_iter().flatten();
        keys.filter_map(|key| self.all.get(key).map(Arc::as_ref))
    }

    /// Returns the Services that have a Pod as an endpoint.
    pub(super) fn services_of(&self, pod: &Key) -> BTreeSet<Key> {
        let in_namespace = self.all.range(Key::new(&pod.namespace, "")..);
        let in_namespace = in_namespace.take_while(|(key, _)| key.namespace == pod.namespace);
        let with_pod = in_namespace.filter(|(_, slice)| {
            slice.endpoints.iter().any(|endpoint| pod_of(endpoint) == Some(pod.name.as_str()))
        });
        with_pod.filter_map(|(key, slice)| service(key, slice)).collect()
    }

    /// Tells whether there is no EndpointSlice.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns all EndpointSlices by their keys.
    #[must_use]
    pub(super) fn all(&self) -> &BTreeMap<Key, Arc<EndpointSlice>> {
        &self.all
    }

    fn leave(&mut self, service: &Key, slice: &Key) {
        let Some(slices) = self.of_services.get_mut(service) else { return };
        slices.remove(slice);
        if slices.is_empty() {
            self.of_services.remove(service);
        }
    }
}

/// Returns the name of an endpoint's Pod, which is in the namespace of the slice.
#[must_use]
pub fn pod_of(endpoint: &Endpoint) -> Option<&str> {
    let target = endpoint.target_ref.as_ref()?;
    target.name.as_deref().filter(|_| target.kind.as_deref() == Some("Pod"))
}

/// Returns the Service that a slice names. It always is in the slice's namespace.
fn service(key: &Key, slice: &EndpointSlice) -> Option<Key> {
    Some(Key::new(&key.namespace, service_of(slice)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(service: &str) -> Option<Arc<EndpointSlice>> {
        let labels = json!({ "kubernetes.io/service-name": service });
        let slice = json!({ "metadata": { "labels": labels }, "addressType": "IPv4", "endpoints": [] });
        Some(Arc::new(serde_json::from_value(slice).unwrap()))
    }

    #[test]
    fn the_services_of_a_pod_are_those_with_it_as_an_endpoint_in_its_namespace() {
        let mut slices = Slices::default();
        for (key, service, kind) in
            [(("mail", "x"), "imap", "Pod"), (("mail", "y"), "pop3", "Node"), (("other", "z"), "imap", "Pod")]
        {
            let slice = json!({
                "metadata": { "labels": { "kubernetes.io/service-name": service } }, "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.1"], "targetRef": { "kind": kind, "name": "a" } }],
            });
            slices.set(&Key::new(key.0, key.1), Some(Arc::new(serde_json::from_value(slice).unwrap())));
        }
        let of = |namespace, name| slices.services_of(&Key::new(namespace, name));
        assert_eq!(of("mail", "a"), [Key::new("mail", "imap")].into());
        assert_eq!(of("other", "a"), [Key::new("other", "imap")].into());
        assert!(of("mail", "b").is_empty());
    }

    #[test]
    fn a_slice_that_moves_to_another_service_is_seen_by_both() {
        let mut slices = Slices::default();
        let key = |name: &str| Key::new("mail", name);
        assert_eq!(slices.set(&key("x"), slice("a")), [key("a")].into());
        assert!(slices.set(&key("x"), slice("a")).is_empty(), "it is the same");
        assert_eq!(slices.set(&key("x"), slice("b")), [key("a"), key("b")].into());
        assert_eq!((slices.of(&key("a")).count(), slices.of(&key("b")).count()), (0, 1));
        assert_eq!(slices.set(&key("x"), None), [key("b")].into());
        assert!(slices.of(&key("b")).next().is_none() && slices.of_services.is_empty());
    }
}
