//! Renders objects into a snapshot. Pure: the same objects give the same snapshot, whoever asks and when.
//!
//! A violation excludes its own listener and nothing else. A listener that was good and now cannot be rendered keeps
//! its last good rendering, and an object whose new spec is invalid keeps its last good spec, so that endpoints and
//! certificates stay current for it. The same holds for a listener that refers to something not known yet; its socket
//! and names are reserved meanwhile.

pub mod attach;
pub mod auth;
pub mod backend;
pub mod bounds;
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
pub mod scope;
pub mod settings;
pub mod socket;
pub mod table;
pub mod tls;
pub mod units;
pub mod upstream;

use ipnet::IpNet;

use crate::model::ListenerId;
use crate::net::ListenAddress;

use super::index::Key;
use super::violation::Violation;

pub use super::index::{Kind, ObjectId};
pub use claim::{Candidate, Claim};
pub use endpoints::Locality;
pub use interest::ReferenceChanges;
pub use renderer::{Delta, Renderer};

/// What a render depends on besides the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Only `MailServer`s of this class are ours.
    pub class: String,
    /// The default server name.
    pub hostname: String,
    /// Unix seconds, for certificates' expiry.
    pub now: i64,
    /// Where we are, for endpoints that are near.
    pub locality: Locality,
    /// Whose PROXY headers are believed, and wanted, by listeners on all addresses that do not say it themselves.
    pub trusted_peers: Vec<IpNet>,
    /// Whether the objects are all that there are.
    pub completeness: Completeness,
}

/// Whether the objects are all that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// What is not there does not exist, and excludes what refers to it.
    #[default]
    Whole,
    /// Other objects may exist elsewhere: an absent one excludes nothing.
    Part,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectOutcome {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// Tells it from another one with its name.
    pub uid: String,
    /// The generation that this is about.
    pub generation: i64,
    /// What is wrong with the object as a whole.
    pub violations: Vec<Violation>,
    /// Its listeners, in the manifest's order; exactly one for a `MailListener`.
    pub listeners: Vec<ListenerOutcome>,
}

impl ListenerOutcome {
    /// Whether nothing else keeps it from being rendered than that a reference is not known yet.
    #[must_use]
    pub fn waits_for_references(&self) -> bool {
        let mut excluding =
            self.violations.iter().filter(|violation| violation.concern.excludes()).peekable();
        excluding.peek().is_some() && excluding.all(Violation::is_pending)
    }
}

impl ObjectOutcome {
    /// Which object it is.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId { kind: self.kind, key: self.key.clone() }
    }
}

/// What became of one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerOutcome {
    /// Its identity.
    pub id: ListenerId,
    /// Where it is served, if it is.
    pub address: Option<ListenAddress>,
    /// Where its manifest wants it to be served; `None` where that cannot be read, or may not be.
    pub wanted: Option<ListenAddress>,
    /// Which rendering is served.
    pub serving: Serving,
    /// Whether its backend is a Service, whose endpoints say whether they are ready.
    pub is_backend_service: bool,
    /// What is wrong with it, alarms included.
    pub violations: Vec<Violation>,
}

/// Which rendering of a listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// That of the object's generation.
    Current,
    /// An earlier one, because the current cannot be used.
    LastGood,
    /// None.
    Nothing,
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod tests;
