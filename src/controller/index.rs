//! The objects that a render sees: parsed, keyed, without a clue of where they came from.

mod answers;
mod changes;
mod slices;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use crate::api::{DEFAULT_CLASS, MailListenerSpec, MailServerSpec};
use crate::model::ListenerId;
use crate::secret::Secret;

use super::violation::Violation;

pub use answers::{Answer, Answers, Lookup, UNANSWERED};
pub use changes::{Changes, Index};
pub use slices::Slices;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace; empty for objects without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// From both parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// `namespace/name`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Our two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `MailServer`.
    Server,
    /// `MailListener`.
    Listener,
}

impl Kind {
    /// As manifests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "MailServer",
            Self::Listener => "MailListener",
        }
    }
}

/// Which of our own objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
}

impl ObjectId {
    /// The object that holds a listener.
    #[must_use]
    pub fn of_listener(id: &ListenerId) -> Self {
        let kind = if id.listener.is_empty() { Kind::Listener } else { Kind::Server };
        Self { kind, key: Key::new(&id.namespace, &id.object) }
    }

    /// From both parts.
    #[must_use]
    pub fn new(kind: Kind, key: &Key) -> Self {
        Self { kind, key: key.clone() }
    }
}

/// `MailServer namespace/name`.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

/// Something that is referred to by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Of which kind it is.
    pub kind: ReferenceKind,
    /// Its namespace and name.
    pub key: Key,
}

/// The kinds that are referred to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A Service.
    Service,
    /// The EndpointSlices of the Service with this name.
    EndpointSlices,
}

impl Reference {
    /// From both parts.
    #[must_use]
    pub fn new(kind: ReferenceKind, key: &Key) -> Self {
        Self { kind, key: key.clone() }
    }
}

/// `Secret namespace/name`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ReferenceKind::Secret => "Secret",
            ReferenceKind::ConfigMap => "ConfigMap",
            ReferenceKind::Service => "Service",
            ReferenceKind::EndpointSlices => "EndpointSlices of Service",
        };
        write!(f, "{kind} {}", self.key)
    }
}

/// Everything that a render may look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// `MailServer`s.
    pub servers: BTreeMap<Key, Arc<Resource<MailServerSpec>>>,
    /// `MailListener`s.
    pub listeners: BTreeMap<Key, Arc<Resource<MailListenerSpec>>>,
    /// Secrets.
    pub secrets: BTreeMap<Key, Arc<SecretData>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<Key, Arc<BTreeMap<String, Vec<u8>>>>,
    /// Services.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// EndpointSlices.
    pub slices: Slices,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, Arc<BTreeMap<String, String>>>,
    /// For which references the maps above can be believed.
    pub answers: Answers,
}

/// Whose an object says that it is, whether the rest of its spec can be used or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// A `MailServer`: the controllers of this class.
    Class(String),
    /// A `MailListener`: whoever this `MailServer` is.
    Server(Key),
    /// It does not say.
    #[default]
    Unsaid,
}

impl Owner {
    /// As a spec in `namespace` says it.
    #[must_use]
    pub fn written(kind: Kind, namespace: &str, spec: &Value) -> Self {
        if kind == Kind::Server {
            return match &spec["className"] {
                Value::Null => Self::Class(DEFAULT_CLASS.to_owned()),
                // Whoever reads a name that no class can have tells it.
                Value::String(class) if is_class(class) => Self::Class(class.clone()),
                _ => Self::Unsaid,
            };
        }
        let server = &spec["serverRef"];
        let namespace = server["namespace"].as_str().unwrap_or(namespace);
        server["name"].as_str().map_or(Self::Unsaid, |name| Self::Server(Key::new(namespace, name)))
    }
}

/// Whether the API takes it for a class.
fn is_class(name: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.iter().all(|byte| is_plain(byte) || b"./-".contains(byte))
        && [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(is_plain))
}

/// One of our own objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<Spec> {
    /// Tells it from another one with its name; empty outside of a cluster.
    pub uid: String,
    /// Whose it is.
    pub owner: Owner,
    /// Counts the changes of the spec.
    pub generation: i64,
    /// Unix seconds; `None` where nobody said, which is younger than any time.
    pub created: Option<i64>,
    /// The spec, or why it cannot be one.
    pub spec: Result<Arc<Spec>, Vec<Violation>>,
}

/// A Secret's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretData {
    /// `kubernetes.io/tls` and so on.
    pub kind: String,
    /// Decoded values.
    pub data: BTreeMap<String, Secret>,
}

/// The Service whose endpoints a slice holds.
#[must_use]
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Whether it is another than before: put in, replaced, or taken out.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: &K, value: Option<Arc<V>>) -> bool {
    let Some(value) = value else { return map.remove(key).is_some() };
    if map.get(key).is_some_and(|old| Arc::ptr_eq(old, &value) || **old == *value) {
        return false;
    }
    map.insert(key.clone(), value);
    true
}
