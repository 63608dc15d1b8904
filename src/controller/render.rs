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
pub mod endpoints;
pub mod frontend;
pub mod last_good;
pub mod listener;
pub mod references;
pub mod scope;
pub mod settings;
pub mod socket;
pub mod tls;
pub mod units;
pub mod upstream;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::{MailListenerSpec, Settings};
use crate::model::{Listener, ListenerId, Snapshot, Socket};
use crate::net::ListenAddress;

use super::index::{Key, Objects, Reference, Resource};
use super::violation::Violation;

pub use super::index::{Kind, ObjectId};
pub use endpoints::Locality;
pub use last_good::LastGood;
use references::References;
pub use socket::Candidate;

/// What a render depends on besides the objects.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Only `MailServer`s of this class are ours.
    pub class: String,
    /// The default server name.
    pub hostname: String,
    /// Unix seconds, for certificates' expiry.
    pub now: i64,
    /// Where we are, for endpoints that are near.
    pub locality: Locality,
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
    /// Which rendering is served.
    pub serving: Serving,
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

/// A listener on its way: rendered or not, not yet compared with the others.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Which object of [`Rendered::objects`] it belongs to.
    object: usize,
    /// Who wins a conflict: the smaller.
    precedence: Precedence,
    candidate: Option<Candidate>,
    outcome: ListenerOutcome,
}

/// `MailServer` before `MailListener`, then the older, then namespace and name.
pub(crate) type Precedence = (Kind, i64, Key);

/// Renders everything.
#[must_use]
pub fn render(objects: &Objects, previous: &LastGood, environment: &Environment) -> Rendered {
    let mut last_good = previous.begin(objects);
    let mut pass = Pass {
        objects,
        environment,
        last_good: &mut last_good,
        wanted: RefCell::default(),
        outcomes: vec![],
        drafts: vec![],
    };
    pass.servers();
    pass.attached();
    let Pass { wanted, mut outcomes, mut drafts, .. } = pass;
    last_good.remember(&drafts);
    conflicts::resolve(&mut drafts);
    let snapshot = assemble(&mut drafts);
    for draft in drafts {
        outcomes[draft.object].listeners.push(draft.outcome);
    }
    Rendered { snapshot, objects: outcomes, references: wanted.into_inner(), last_good }
}

/// One render under way.
struct Pass<'a> {
    objects: &'a Objects,
    environment: &'a Environment,
    last_good: &'a mut LastGood,
    wanted: RefCell<BTreeSet<Reference>>,
    outcomes: Vec<ObjectOutcome>,
    drafts: Vec<Draft>,
}

impl Pass<'_> {
    fn servers(&mut self) {
        for (key, resource) in &self.objects.servers {
            let Some(spec) = self.last_good.server(key) else {
                self.outcome(Kind::Server, key, resource);
                continue;
            };
            if spec.class_name != self.environment.class {
                continue;
            }
            let object = self.outcome(Kind::Server, key, resource);
            for listener in &spec.listeners {
                let source = listener::Source {
                    id: id(key, &listener.name),
                    path: format!("spec.listeners[{}]", listener.name),
                    fields: &listener.fields,
                    server: None,
                };
                let settings = settings::effective(&spec.settings, &listener.fields.settings);
                self.draft(object, (Kind::Server, age(resource), key.clone()), &source, &settings);
            }
        }
    }

    fn attached(&mut self) {
        for (key, resource) in &self.objects.listeners {
            let Some(spec) = self.last_good.listener(key) else {
                let object = self.outcome(Kind::Listener, key, resource);
                self.refused(object, key, resource, vec![]);
                continue;
            };
            let (server_key, server) = match attach::server(self.objects, self.last_good, key, &spec) {
                Ok(found) => found,
                Err(violation) => {
                    let object = self.outcome(Kind::Listener, key, resource);
                    self.refused(object, key, resource, vec![violation]);
                    continue;
                }
            };
            if server.class_name == self.environment.class {
                self.attach(key, resource, &spec.listener, (&server_key, &server.settings));
            }
        }
    }

    fn attach(
        &mut self,
        key: &Key,
        resource: &Resource<MailListenerSpec>,
        fields: &ListenerFields,
        server: (&Key, &Settings),
    ) {
        let object = self.outcome(Kind::Listener, key, resource);
        let source =
            listener::Source { id: id(key, ""), path: "spec".to_owned(), fields, server: Some(server.0) };
        let settings = settings::attached(server.1, &fields.settings);
        self.draft(object, (Kind::Listener, age(resource), key.clone()), &source, &settings);
    }

    fn outcome<Spec>(&mut self, kind: Kind, key: &Key, resource: &Resource<Spec>) -> usize {
        let violations = resource.spec.as_ref().err().cloned().unwrap_or_default();
        self.outcomes.push(ObjectOutcome {
            kind,
            key: key.clone(),
            uid: resource.uid.clone(),
            generation: resource.generation,
            violations,
            listeners: vec![],
        });
        self.outcomes.len() - 1
    }

    /// A `MailListener` that does not get as far as being rendered.
    fn refused<Spec>(
        &mut self,
        object: usize,
        key: &Key,
        resource: &Resource<Spec>,
        violations: Vec<Violation>,
    ) {
        let outcome =
            ListenerOutcome { id: id(key, ""), address: None, serving: Serving::Nothing, violations };
        let precedence = (Kind::Listener, age(resource), key.clone());
        self.drafts.push(Draft { object, precedence, candidate: None, outcome });
    }

    fn draft(
        &mut self,
        object: usize,
        precedence: Precedence,
        source: &listener::Source<'_>,
        settings: &Settings,
    ) {
        let old_spec = self.outcomes[object].violations.iter().any(|v| v.concern.excludes());
        let kept = self.last_good.candidate(&source.id);
        let mut references = References::new(
            self.objects,
            &self.wanted,
            &self.environment.locality,
            &mut self.last_good.certificates,
        );
        let (rendered, violations) = listener::render(source, settings, &mut references, self.environment);
        let (candidate, serving) = match rendered {
            Some(candidate) if old_spec => (Some(candidate), Serving::LastGood),
            Some(candidate) => (Some(candidate), Serving::Current),
            None => match kept {
                Some(kept) => {
                    (Some(listener::refresh(kept, source, settings, &mut references)), Serving::LastGood)
                }
                None => (None, Serving::Nothing),
            },
        };
        let address = candidate.as_ref().map(|candidate| candidate.address.clone());
        let outcome = ListenerOutcome { id: source.id.clone(), address, serving, violations };
        self.drafts.push(Draft { object, precedence, candidate, outcome });
    }
}

/// Sockets by address, from what the conflict rules left.
fn assemble(drafts: &mut [Draft]) -> Snapshot {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by(|a, b| drafts[*a].precedence.cmp(&drafts[*b].precedence));
    let mut sockets: BTreeMap<ListenAddress, Socket> = BTreeMap::new();
    for index in order {
        let Some(candidate) = drafts[index].candidate.take() else { continue };
        let Candidate { address, options, protocol, tls_mode, proxy_protocol, listener } = candidate;
        let socket = sockets.entry(address.clone()).or_insert_with(|| Socket {
            address,
            options,
            protocol,
            tls_mode,
            proxy_protocol,
            listeners: Vec::<Arc<Listener>>::new(),
        });
        socket.listeners.push(listener);
    }
    let sockets = sockets.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect();
    Snapshot { revision: 0, sockets }
}

fn id(key: &Key, listener: &str) -> ListenerId {
    ListenerId { namespace: key.namespace.clone(), object: key.name.clone(), listener: listener.to_owned() }
}

fn age<Spec>(resource: &Resource<Spec>) -> i64 {
    resource.created.unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
