//! Renders objects into a snapshot. Pure: the same objects give the same snapshot, whoever asks and when.
//!
//! A violation excludes its own listener and nothing else. A listener that was good and now cannot be
//! rendered keeps its last good rendering, and an object whose new spec is invalid keeps its last good spec,
//! so that endpoints and certificates stay current for it.

pub mod attach;
pub mod auth;
pub mod backend;
pub mod bounds;
pub mod conflicts;
pub mod draft;
pub mod endpoints;
pub mod frontend;
pub mod incremental;
pub mod interest;
pub mod last_good;
pub mod listener;
pub mod ports;
pub mod reach;
pub mod references;
pub mod scope;
pub mod settings;
pub mod socket;
pub mod tls;
pub mod units;
pub mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{ListenerId, Snapshot, Socket};
use crate::net::ListenAddress;

use super::index::{Key, Objects, Reference};
use super::violation::Violation;

pub use super::index::{Kind, ObjectId};
use draft::{Drafting, Ours};
pub use endpoints::Locality;
pub use incremental::Look;
pub(crate) use incremental::Renderer;
pub use last_good::LastGood;
pub use socket::Candidate;
use tls::Certificates;

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

/// What came of a render.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// What to serve; the publisher gives it its revision.
    pub snapshot: Snapshot,
    /// Every object that is ours, in the order of kind, namespace and name.
    pub objects: Vec<ObjectOutcome>,
    /// What was looked for by name, whether it is there or not.
    pub references: BTreeSet<Reference>,
    /// For the next render.
    pub last_good: LastGood,
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

/// Renders everything.
#[must_use]
pub fn render(objects: &Objects, previous: &LastGood, environment: &Environment) -> Rendered {
    let certificates = &mut Certificates::default();
    let mut drafting = Drafting { objects, environment, last_good: previous, certificates };
    let servers = objects.servers.keys().map(|key| ObjectId::new(Kind::Server, key));
    let listeners = objects.listeners.keys().map(|key| ObjectId::new(Kind::Listener, key));
    let mut rendered = Rendered::default();
    let mut all: Vec<Ours> = Vec::new();
    for id in servers.chain(listeners) {
        let Some(drafted) = drafting.object(&id) else { continue };
        rendered.last_good.keep(&id, Some(&drafted));
        rendered.references.extend(drafted.looked.references);
        all.extend(drafted.ours);
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].precedence.cmp(&all[*b].precedence));
    let of_object = |object: usize| {
        let claims = all[object].claims.iter().enumerate();
        claims.filter_map(move |(listener, claim)| Some((object, listener, Arc::clone(claim.as_ref()?))))
    };
    let claims: Vec<(usize, usize, Arc<Candidate>)> = order.into_iter().flat_map(of_object).collect();
    let lost = conflicts::among_strangers(claims.iter().map(|(_, _, claim)| claim));
    let mut served = Vec::new();
    for ((object, listener, claim), lost) in claims.iter().zip(lost) {
        match lost {
            Some(violation) => all[*object].outcome.listeners[*listener].lose(violation),
            None => served.push(claim),
        }
    }
    rendered.snapshot = assemble(served);
    rendered.objects = all.into_iter().map(|ours| ours.outcome).collect();
    rendered
}

/// Sockets by address, from what the conflict rules left, the strongest first.
fn assemble(claims: Vec<&Arc<Candidate>>) -> Snapshot {
    let mut sockets: BTreeMap<ListenAddress, Socket> = BTreeMap::new();
    for claim in claims {
        let socket = sockets.entry(claim.address.clone()).or_insert_with(|| claim.socket());
        socket.listeners.push(Arc::clone(&claim.listener));
    }
    let sockets = sockets.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect();
    Snapshot { revision: 0, sockets }
}

#[cfg(test)]
pub(crate) mod tests;
