//! What is asked of the API server: kinds, and of each as little as is needed.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::Config;

use crate::api::{API_VERSION, GROUP, VERSION};

use super::super::index::{Key, Reference, ReferenceKind};
use super::super::render::Kind;

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched {
    /// Objects of this kind.
    pub(super) kind: WatchedKind,
    /// Which of them.
    pub(super) scope: Scope,
}

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchedKind {
    Server,
    Listener,
    Namespace,
    Secret,
    ConfigMap,
    Service,
    Slice,
}

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// All of the cluster.
    Everywhere,
    /// All of a namespace.
    In(String),
    /// One. RBAC takes a list or watch with this field selector for a `resourceNames` of that name.
    Named(Key),
    /// The EndpointSlices of a Service.
    OfService(Key),
}

/// What is watched from the beginning: our own kinds, and namespaces for their labels.
pub(super) fn base(namespaces: &[String]) -> Vec<Watched> {
    let own = [WatchedKind::Server, WatchedKind::Listener];
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

/// What is watched for a reference: nothing where no object can have the name, which would be no selector either.
pub(super) fn of_reference(reference: &Reference) -> Vec<Watched> {
    let key = &reference.key;
    if !is_name(&key.name) {
        return Vec::new();
    }
    let named = |kind| Watched { kind, scope: Scope::Named(key.clone()) };
    match reference.kind {
        ReferenceKind::Secret => vec![named(WatchedKind::Secret)],
        ReferenceKind::ConfigMap => vec![named(WatchedKind::ConfigMap)],
        ReferenceKind::Service => {
            let slices = Watched { kind: WatchedKind::Slice, scope: Scope::OfService(key.clone()) };
            vec![named(WatchedKind::Service), slices]
        }
    }
}

impl Watched {
    /// The reference that it is for; `None` for the base.
    pub(super) fn reference(&self) -> Option<Reference> {
        let (Scope::Named(key) | Scope::OfService(key)) = &self.scope else { return None };
        let kind = match self.kind {
            WatchedKind::Secret => ReferenceKind::Secret,
            WatchedKind::ConfigMap => ReferenceKind::ConfigMap,
            WatchedKind::Service | WatchedKind::Slice => ReferenceKind::Service,
            WatchedKind::Server | WatchedKind::Listener | WatchedKind::Namespace => return None,
        };
        Some(Reference::new(kind, key))
    }

    /// Where it is asked for.
    pub(super) fn api(&self, client: Client) -> Api<DynamicObject> {
        let resource = &self.kind.resource();
        match &self.scope {
            Scope::Everywhere => Api::all_with(client, resource),
            Scope::In(namespace) => Api::namespaced_with(client, namespace, resource),
            Scope::Named(key) | Scope::OfService(key) if key.namespace.is_empty() => {
                Api::all_with(client, resource)
            }
            Scope::Named(key) | Scope::OfService(key) => {
                Api::namespaced_with(client, &key.namespace, resource)
            }
        }
    }

    /// The selectors. Bookmarks are on by default.
    pub(super) fn config(&self) -> Config {
        match &self.scope {
            Scope::Everywhere | Scope::In(_) => Config::default(),
            Scope::Named(key) => Config::default().fields(&format!("metadata.name={}", key.name)),
            Scope::OfService(key) => {
                Config::default().labels(&format!("kubernetes.io/service-name={}", key.name))
            }
        }
    }
}

impl WatchedKind {
    /// As manifests write it: `apiVersion` and `kind`.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Server => (API_VERSION, "MailServer"),
            Self::Listener => (API_VERSION, "MailListener"),
            Self::Namespace => ("v1", "Namespace"),
            Self::Secret => ("v1", "Secret"),
            Self::ConfigMap => ("v1", "ConfigMap"),
            Self::Service => ("v1", "Service"),
            Self::Slice => ("discovery.k8s.io/v1", "EndpointSlice"),
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Server => resource(Kind::Server),
            Self::Listener => resource(Kind::Listener),
            Self::Namespace => core("Namespace"),
            Self::Secret => core("Secret"),
            Self::ConfigMap => core("ConfigMap"),
            Self::Service => core("Service"),
            Self::Slice => {
                ApiResource::from_gvk(&GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"))
            }
        }
    }
}

/// Whether an object may have this name (RFC 1123, as Kubernetes reads it).
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.ends_with(plain) && name.chars().all(|c| plain(c) || c == '-' || c == '.')
}

/// One of our own kinds.
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
    fn secrets_are_asked_for_by_name_only() {
        let reference = Reference::new(ReferenceKind::Secret, &Key::new("mail", "mail-tls"));
        let watched = of_reference(&reference);
        let [secret] = watched.as_slice() else { panic!("{watched:?}") };
        assert_eq!(secret.config().field_selector.as_deref(), Some("metadata.name=mail-tls"));
        assert_eq!(secret.reference(), Some(reference));
    }

    #[test]
    fn what_is_no_name_becomes_no_selector() {
        let watched = |name: &str| {
            let key = Key::new("mail", name);
            of_reference(&Reference::new(ReferenceKind::Service, &key)).len()
        };
        assert_eq!(watched("dovecot-1.mail"), 2);
        for name in ["a,metadata.name!=b", "a b", "A", "-a", "a=b", ""] {
            assert_eq!(watched(name), 0, "{name:?}");
        }
    }

    #[test]
    fn named_namespaces_are_watched_one_by_one() {
        let namespaces = ["a".to_owned(), "b".to_owned()];
        let base = base(&namespaces);
        assert_eq!(base.len(), 6);
        assert!(base.iter().all(|watched| watched.scope != Scope::Everywhere));
        assert!(base.iter().all(|watched| watched.reference().is_none()));
    }
}
