//! Renders objects into a snapshot. Pure: the same objects always give the same snapshot.
//!
//! A violation excludes only its own listener. A listener that was valid and can no longer be rendered keeps its last
//! valid rendering. An object whose new spec is invalid keeps its last valid spec, so its endpoints and certificates
//! stay current. The same applies to a listener with a reference that is not known yet; its socket and host names are
//! reserved in the meantime.

pub mod attach;
pub mod auth;
pub mod backend;
pub mod bounds;
pub mod certificates;
pub mod claim;
pub mod conflicts;
pub mod draft;
pub mod endpoints;
pub mod frontend;
pub mod interest;
pub mod listener;
pub mod ports;
pub mod reach;
pub mod references;
pub mod renderer;
pub mod route;
pub mod scope;
pub mod service;
pub mod settings;
pub mod socket;
pub mod table;
pub mod tls;
pub mod units;
pub mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Backend, ListenerId, RouteEntry};
use crate::net::ListenAddress;
use crate::protocol::Protocol;

use super::index::Key;
use super::violation::Violation;

pub use super::index::{Kind, ObjectId};
pub use claim::{Candidate, Claim};
pub use endpoints::Locality;
pub use interest::ReferenceChanges;
pub use renderer::{Delta, Renderer};

/// The input of a rendering besides the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Only `MailServer`s of this class are rendered.
    pub class: String,
    /// The default server name.
    pub hostname: String,
    /// Unix seconds, for certificates' expiry.
    pub now: i64,
    /// The zone and node of this process, to prefer near endpoints.
    pub locality: Locality,
    /// The peers whose PROXY headers are expected on listeners on all addresses without their own `proxyProtocol`.
    pub trusted_peers: Vec<IpNet>,
    /// Whether the objects are complete.
    pub completeness: Completeness,
    /// Whether there may be other replicas that this process cannot find, because `--replicas` is not set.
    pub lacks_replicas: bool,
}

impl Environment {
    /// Creates the environment for a class, with defaults for everything else.
    #[must_use]
    pub fn new(class: &str, hostname: &str) -> Self {
        Self {
            class: class.to_owned(),
            hostname: hostname.to_owned(),
            now: 0,
            locality: Locality::default(),
            trusted_peers: Vec::new(),
            completeness: Completeness::default(),
            lacks_replicas: false,
        }
    }
}

/// Whether the objects are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// An object that is absent does not exist, and excludes the listeners that refer to it.
    #[default]
    Whole,
    /// Objects may exist elsewhere, so an absent one excludes nothing.
    Part,
}

/// The order of objects in conflicts: `MailServer` before `MailListener`, then the older object, then namespace and
/// name.
pub(crate) type Precedence = (Kind, i64, Key);

/// The result of rendering an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectOutcome {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// Distinguishes the object from another one with the same name.
    pub uid: String,
    /// The generation that was rendered.
    pub generation: i64,
    /// The violations of the object as a whole.
    pub violations: Vec<Violation>,
    /// The listeners, in the manifest's order; exactly one for a `MailListener`, none for a `MailRoute`.
    pub listeners: Vec<ListenerOutcome>,
    /// Set for a `MailRoute` that is served.
    pub route: Option<RouteOutcome>,
}

/// The result of rendering a `MailRoute`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteOutcome {
    /// Its `MailServer`.
    pub server: Key,
    /// [`Serving::LastGood`] if a part of it is from an earlier rendering.
    pub serving: Serving,
    /// Its domains and users.
    pub entry: Arc<RouteEntry>,
    /// Its backend for each protocol.
    pub backends: BTreeMap<Protocol, Arc<Backend>>,
}

impl ListenerOutcome {
    /// Tells whether only pending references prevent its rendering.
    #[must_use]
    pub fn waits_for_references(&self) -> bool {
        let mut excluding =
            self.violations.iter().filter(|violation| violation.concern.excludes()).peekable();
        excluding.peek().is_some() && excluding.all(Violation::is_pending)
    }
}

impl ObjectOutcome {
    /// Returns the names of the parts that are served one by one: the listeners, or the whole route, whose name is
    /// empty.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let route = (self.kind == Kind::Route).then_some("");
        self.listeners.iter().map(|listener| listener.id.listener.as_str()).chain(route)
    }

    /// Returns the identity of the object.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId { kind: self.kind, key: self.key.clone() }
    }
}

/// The result of rendering a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerOutcome {
    /// Its identity.
    pub id: ListenerId,
    /// The socket on which it is served, if it is.
    pub address: Option<ListenAddress>,
    /// The socket in its manifest; `None` if that is invalid or not allowed.
    pub wanted: Option<ListenAddress>,
    /// The rendering that is served.
    pub serving: Serving,
    /// Whether its backend is a Service, whose endpoints tell whether they are ready.
    pub is_backend_service: bool,
    /// The violations and warnings.
    pub violations: Vec<Violation>,
}

/// Which rendering of a listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// The rendering of the object's generation.
    Current,
    /// An earlier rendering, because the current one cannot be used.
    LastGood,
    /// None.
    Nothing,
}

/// Returns the identity of a listener; `listener` is empty for a `MailListener`.
pub(crate) fn listener_id(key: &Key, listener: &str) -> ListenerId {
    ListenerId { namespace: key.namespace.clone(), object: key.name.clone(), listener: listener.to_owned() }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod tests;
