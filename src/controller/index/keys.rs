//! The names by which objects and references are looked up.

use std::fmt;

use crate::model::ListenerId;
use crate::model::served::ObjectName;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// Creates a key.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Writes `namespace/name`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds of our own objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `MailServer`.
    Server,
    /// `MailListener`.
    Listener,
    /// `MailRoute`.
    Route,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Server, Self::Listener, Self::Route];

    /// Returns the kind with this name in manifests.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the kind's name in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "MailServer",
            Self::Listener => "MailListener",
            Self::Route => "MailRoute",
        }
    }
}

/// Identifies one of our own objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
}

impl ObjectId {
    /// Returns the object that has a listener.
    #[must_use]
    pub fn of_listener(id: &ListenerId) -> Self {
        let kind = if id.listener.is_empty() { Kind::Listener } else { Kind::Server };
        Self { kind, key: Key::new(&id.namespace, &id.object) }
    }

    /// Returns the object with a name of the ledger; `None` for a kind that this version does not know.
    #[must_use]
    pub fn named(object: &ObjectName) -> Option<Self> {
        Some(Self::new(Kind::named(&object.kind)?, &Key::new(&object.namespace, &object.name)))
    }

    /// Creates an identity.
    #[must_use]
    pub fn new(kind: Kind, key: &Key) -> Self {
        Self { kind, key: key.clone() }
    }
}

/// Writes `MailServer namespace/name`.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

/// A reference to an object by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The kind of the object.
    pub kind: ReferenceKind,
    /// Its namespace and name.
    pub key: Key,
}

/// The kinds of references.
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
    /// Creates a reference.
    #[must_use]
    pub fn new(kind: ReferenceKind, key: &Key) -> Self {
        Self { kind, key: key.clone() }
    }
}

/// Writes `Secret namespace/name`.
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
