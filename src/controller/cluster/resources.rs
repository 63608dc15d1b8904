//! The watches: their kinds and scopes, as narrow as possible.

use std::collections::BTreeSet;

use kube::api::{Api, ApiResource};
use kube::core::{DynamicResourceScope, GroupVersionKind};
use kube::runtime::watcher::Config;
use kube::{Client, Resource};

use crate::api::{API_VERSION, GROUP, VERSION};
use crate::controller::index::{Key, Reference, ReferenceKind};
use crate::controller::names::is_subdomain;
use crate::controller::render::Kind;

/// The parameters of one watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched {
    /// The kind of the objects.
    pub(super) kind: WatchedKind,
    /// The objects of that kind.
    pub(super) scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchedKind {
    Server,
    Listener,
    Route,
    Namespace,
    Secret,
    ConfigMap,
    Service,
    Slice,
    /// Only their metadata: [`DRAIN`](crate::controller::index::DRAIN).
    Pod,
}

/// The scope of a watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The whole cluster.
    Everywhere,
    /// All objects of a namespace.
    In(String),
    /// One object. If RBAC names it in `resourceNames`, it allows a list or watch with this field selector.
    Named(Key),
}

/// Returns the watches that do not depend on references: our own kinds, and namespaces for their labels.
pub(super) fn base(namespaces: &[String]) -> Vec<Watched> {
    let own = [WatchedKind::Server, WatchedKind::Listener, WatchedKind::Route];
    if namespaces.is_empty() {
        let kinds = own.into_iter().chain([WatchedKind::Namespace]);
        return kinds.map(|kind| Watched { kind, scope: Scope::Everywhere }).collect();
    }
    let of = |namespace: &String| {
        let scope = Scope::Named(Key::new("", namespace));
        let labels = Watched { kind: WatchedKind::Namespace, scope };
        let own = own.map(|kind| Watched { kind, scope: Scope::In(namespace.clone()) });
        own.into_iter().chain([labels])
    };
    namespaces.iter().flat_map(of).collect()
}

/// Returns the watch of a single Secret or ConfigMap. `None` if no object can have the name, because such a name is not
/// a valid selector. Services are watched with their whole namespace.
pub(super) fn by_name(reference: &Reference) -> Option<Watched> {
    let kind = match reference.kind {
        ReferenceKind::Secret => WatchedKind::Secret,
        ReferenceKind::ConfigMap => WatchedKind::ConfigMap,
        ReferenceKind::Service | ReferenceKind::EndpointSlices => return None,
    };
    is_subdomain(&reference.key.name).then(|| Watched { kind, scope: Scope::Named(reference.key.clone()) })
}

/// Returns the watches of Services, EndpointSlices and their Pods.
pub(super) fn services(scope: &Scope) -> [Watched; 3] {
    [WatchedKind::Service, WatchedKind::Slice, WatchedKind::Pod]
        .map(|kind| Watched { kind, scope: scope.clone() })
}

impl Watched {
    /// Returns those of `references` that this watch answers; none for the base.
    pub(super) fn covered<'a>(&self, references: &'a BTreeSet<Reference>) -> Vec<&'a Reference> {
        let kind = match self.kind {
            WatchedKind::Secret => ReferenceKind::Secret,
            WatchedKind::ConfigMap => ReferenceKind::ConfigMap,
            WatchedKind::Service => ReferenceKind::Service,
            WatchedKind::Slice => ReferenceKind::EndpointSlices,
            WatchedKind::Server
            | WatchedKind::Listener
            | WatchedKind::Route
            | WatchedKind::Namespace
            | WatchedKind::Pod => return Vec::new(),
        };
        let from = |namespace: &str| references.range(Reference::new(kind, &Key::new(namespace, ""))..);
        let of_kind = |reference: &&Reference| reference.kind == kind;
        match &self.scope {
            Scope::Everywhere => from("").take_while(of_kind).collect(),
            Scope::In(namespace) => {
                let is_in = |reference: &&Reference| reference.key.namespace == *namespace;
                from(namespace).take_while(of_kind).take_while(is_in).collect()
            }
            Scope::Named(key) => references.get(&Reference::new(kind, key)).into_iter().collect(),
        }
    }

    pub(super) fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        let resource = &self.kind.resource();
        match &self.scope {
            Scope::Everywhere => Api::all_with(client, resource),
            Scope::In(namespace) => Api::namespaced_with(client, namespace, resource),
            Scope::Named(key) if key.namespace.is_empty() => Api::all_with(client, resource),
            Scope::Named(key) => Api::namespaced_with(client, &key.namespace, resource),
        }
    }

    /// Returns the selectors. Bookmarks are enabled by default.
    pub(super) fn config(&self) -> Config {
        match &self.scope {
            Scope::Everywhere | Scope::In(_) => Config::default(),
            Scope::Named(key) => Config::default().fields(&format!("metadata.name={}", key.name)),
        }
    }
}

impl WatchedKind {
    /// Returns `apiVersion` and `kind`.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Server => (API_VERSION, "MailServer"),
            Self::Listener => (API_VERSION, "MailListener"),
            Self::Route => (API_VERSION, "MailRoute"),
            Self::Namespace => ("v1", "Namespace"),
            Self::Secret => ("v1", "Secret"),
            Self::ConfigMap => ("v1", "ConfigMap"),
            Self::Service => ("v1", "Service"),
            Self::Slice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Pod => ("v1", "Pod"),
        }
    }

    /// Returns which of our own kinds it is.
    pub(super) fn own(self) -> Option<Kind> {
        match self {
            Self::Server => Some(Kind::Server),
            Self::Listener => Some(Kind::Listener),
            Self::Route => Some(Kind::Route),
            _ => None,
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Server => resource(Kind::Server),
            Self::Listener => resource(Kind::Listener),
            Self::Route => resource(Kind::Route),
            Self::Namespace => core("Namespace"),
            Self::Secret => core("Secret"),
            Self::ConfigMap => core("ConfigMap"),
            Self::Service => core("Service"),
            Self::Pod => core("Pod"),
            Self::Slice => {
                ApiResource::from_gvk(&GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"))
            }
        }
    }
}

pub(super) fn resource(kind: Kind) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind.name()))
}

fn core(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_watched_by_name_only() {
        let reference = Reference::new(ReferenceKind::Secret, &Key::new("mail", "mail-tls"));
        let secret = by_name(&reference).unwrap();
        assert_eq!(secret.config().field_selector.as_deref(), Some("metadata.name=mail-tls"));
        let other = Reference::new(ReferenceKind::Secret, &Key::new("mail", "other"));
        let all = BTreeSet::from([reference.clone(), other]);
        assert_eq!(secret.covered(&all), [&reference]);
    }

    #[test]
    fn services_are_watched_by_namespace() {
        let kinds = [ReferenceKind::Service, ReferenceKind::EndpointSlices];
        let of = |kind| ["a", "b"].map(|namespace| Reference::new(kind, &Key::new(namespace, "backend")));
        let all: BTreeSet<Reference> = kinds.into_iter().flat_map(of).collect();
        for (kind, position) in kinds.into_iter().zip(0..) {
            let [a, b] = of(kind);
            assert_eq!(by_name(&a), None);
            let watched = |scope: &Scope| services(scope)[position].clone();
            assert_eq!(watched(&Scope::Everywhere).config(), Config::default());
            assert_eq!(watched(&Scope::In("a".to_owned())).covered(&all), [&a]);
            assert_eq!(watched(&Scope::Everywhere).covered(&all), [&a, &b]);
        }
    }

    #[test]
    fn an_invalid_name_is_not_watched() {
        let watched = |name: &str| {
            let key = Key::new("mail", name);
            by_name(&Reference::new(ReferenceKind::ConfigMap, &key))
        };
        assert!(watched("ca-1.mail").is_some());
        for name in ["a,metadata.name!=b", "a b", "A", "-a", "a=b", ""] {
            assert_eq!(watched(name), None, "{name:?}");
        }
    }

    #[test]
    fn named_namespaces_are_watched_one_by_one() {
        let namespaces = ["a".to_owned(), "b".to_owned()];
        let base = base(&namespaces);
        assert_eq!(base.len(), 8);
        assert!(base.iter().all(|watched| watched.scope != Scope::Everywhere));
        let all = BTreeSet::from([Reference::new(ReferenceKind::Service, &Key::new("a", "backend"))]);
        assert!(base.iter().all(|watched| watched.covered(&all).is_empty()));
    }
}
