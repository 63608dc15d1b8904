//! The objects for a rendering: parsed, with keys, and independent of their source.

mod answers;
mod changes;
mod keys;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use crate::api::{DEFAULT_CLASS, MailListenerSpec, MailRouteSpec, MailServerSpec};
use crate::secret::Secret;

use super::violation::Violation;

pub use answers::{Answer, Answers, Lookup, UNANSWERED};
pub use changes::{Changes, Index};
pub use keys::{Key, Kind, ObjectId, Reference, ReferenceKind};
pub use slices::{Slices, pod_of};

/// All objects for a rendering.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// `MailServer`s.
    pub servers: BTreeMap<Key, Arc<Resource<MailServerSpec>>>,
    /// `MailListener`s.
    pub listeners: BTreeMap<Key, Arc<Resource<MailListenerSpec>>>,
    /// `MailRoute`s.
    pub routes: BTreeMap<Key, Arc<Resource<MailRouteSpec>>>,
    /// Secrets.
    pub secrets: BTreeMap<Key, Arc<SecretData>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<Key, Arc<BTreeMap<String, Vec<u8>>>>,
    /// Services.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// EndpointSlices.
    pub slices: Slices,
    /// Pods that are taken out of service: [`DRAIN`].
    pub leaving: BTreeSet<Key>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, Arc<BTreeMap<String, String>>>,
    /// Which references have been looked up.
    pub answers: Answers,
}

/// Who is responsible for an object, even if the rest of its spec is not valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// For a `MailServer`: the controllers of this class.
    Class(String),
    /// For a `MailListener` or `MailRoute`: the controllers of this `MailServer`.
    Server(Key),
    /// The spec does not say.
    #[default]
    Unknown,
}

impl Owner {
    /// Reads the owner from a spec in `namespace`.
    #[must_use]
    pub fn written(kind: Kind, namespace: &str, spec: &Value) -> Self {
        if kind == Kind::Server {
            return match &spec["className"] {
                Value::Null => Self::Class(DEFAULT_CLASS.to_owned()),
                // The validation reports a name that is not valid as a class.
                Value::String(class) if is_class(class) => Self::Class(class.clone()),
                _ => Self::Unknown,
            };
        }
        let server = &spec["serverRef"];
        let namespace = server["namespace"].as_str().unwrap_or(namespace);
        server["name"].as_str().map_or(Self::Unknown, |name| Self::Server(Key::new(namespace, name)))
    }
}

/// Tells whether the API accepts the name as a class.
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
    /// Distinguishes the object from another one with the same name. Empty without a cluster.
    pub uid: String,
    /// Who is responsible for the object.
    pub owner: Owner,
    /// The number of the spec's version.
    pub generation: i64,
    /// In Unix seconds. `None` if unknown, which counts as younger than any time.
    pub created: Option<i64>,
    /// The spec, or its violations if it is not valid.
    pub spec: Result<Arc<Spec>, Vec<Violation>>,
}

/// The content of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretData {
    /// The type, such as `kubernetes.io/tls`.
    pub kind: String,
    /// The decoded values.
    pub data: BTreeMap<String, Secret>,
}

/// Returns the name of the Service to which a slice belongs.
#[must_use]
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The annotation of a Pod that is taken out of service, if its value is `true`.
pub const DRAIN: &str = "mailgress.dev/drain";

/// The label with the name of an EndpointSlice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Adds, replaces or removes a value. Returns whether it has changed.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: &K, value: Option<Arc<V>>) -> bool {
    let Some(value) = value else { return map.remove(key).is_some() };
    if map.get(key).is_some_and(|old| Arc::ptr_eq(old, &value) || **old == *value) {
        return false;
    }
    map.insert(key.clone(), value);
    true
}
