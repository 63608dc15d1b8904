//! What was good: the specs that were valid and the listeners that could be rendered. It lives as long as the
//! process, and forgets what is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{MailListenerSpec, MailServerSpec};
use crate::model::ListenerId;

use super::super::index::{Key, Kind, ObjectId, Objects, Resource};
use super::Candidate;
use super::draft::{Drafted, Spec};

/// What the last render leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct LastGood {
    servers: BTreeMap<Key, Arc<MailServerSpec>>,
    listeners: BTreeMap<Key, Arc<MailListenerSpec>>,
    candidates: BTreeMap<ObjectId, Vec<Arc<Candidate>>>,
    /// Those that did not lose inside their own object.
    claims: BTreeMap<ObjectId, Vec<Arc<Candidate>>>,
}

impl LastGood {
    /// The spec to render: the object's own where that is valid, and else the last that was.
    pub(crate) fn server(&self, objects: &Objects, key: &Key) -> Option<Arc<MailServerSpec>> {
        usable(objects.servers.get(key)?, self.servers.get(key))
    }

    /// The spec to render.
    pub(crate) fn listener(&self, objects: &Objects, key: &Key) -> Option<Arc<MailListenerSpec>> {
        usable(objects.listeners.get(key)?, self.listeners.get(key))
    }

    /// The last rendering of a listener.
    pub(crate) fn candidate(&self, object: &ObjectId, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.candidates.get(object)?.iter().find(|candidate| candidate.listener.id == *id)
    }

    /// What a listener claimed in the last render.
    pub(crate) fn claim(&self, object: &ObjectId, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.claims.get(object)?.iter().find(|claim| claim.listener.id == *id)
    }

    /// Keeps what is good of an object now, which includes what was good before and was used again.
    pub(crate) fn keep(&mut self, id: &ObjectId, drafted: Option<&Drafted>) {
        match id.kind {
            Kind::Server => drop(self.servers.remove(&id.key)),
            Kind::Listener => drop(self.listeners.remove(&id.key)),
        }
        match drafted.and_then(|drafted| drafted.spec.as_ref()) {
            Some(Spec::Server(spec)) => drop(self.servers.insert(id.key.clone(), Arc::clone(spec))),
            Some(Spec::Listener(spec)) => drop(self.listeners.insert(id.key.clone(), Arc::clone(spec))),
            None => {}
        }
        let ours = drafted.and_then(|drafted| drafted.ours.as_ref());
        let good = ours.map(|ours| ours.good.clone()).unwrap_or_default();
        let claims = ours.map(|ours| ours.claims.iter().flatten().cloned().collect()).unwrap_or_default();
        for (kept, new) in [(&mut self.candidates, good), (&mut self.claims, claims)] {
            if new.is_empty() {
                kept.remove(id);
            } else {
                kept.insert(id.clone(), new);
            }
        }
    }
}

fn usable<Spec>(resource: &Resource<Spec>, previous: Option<&Arc<Spec>>) -> Option<Arc<Spec>> {
    resource.spec.as_ref().ok().or(previous).cloned()
}
