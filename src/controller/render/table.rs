//! What is remembered of each object: its last rendering. A listener that cannot be rendered any more is served with
//! what is here. It lives as long as the process, and forgets objects that are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{MailListenerSpec, MailServerSpec};
use crate::controller::index::{Key, Kind, ObjectId, Objects, Resource};
use crate::model::ListenerId;

use super::draft::{Drafted, Ours, Spec};
use super::ports::Claims;
use super::references::Dependencies;
use super::{Candidate, ObjectOutcome};

/// The last rendering of one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendering {
    /// What it depends on, besides the object itself.
    pub(crate) dependencies: Dependencies,
    /// The last valid spec.
    spec: Option<Spec>,
    /// Every listener that could be rendered, whether it can be served or not.
    good: Vec<Arc<Candidate>>,
    /// What its listeners claim, but for what they lost inside the object.
    pub(crate) claims: Claims,
    /// What became of it without regard to other objects; `None`: it is of another class.
    pub(crate) own: Option<Arc<ObjectOutcome>>,
    /// The same with what listeners lost to other objects.
    pub(crate) outcome: Option<Arc<ObjectOutcome>>,
}

/// The last renderings of all objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<ObjectId, Rendering>);

impl Rendering {
    /// Of an object that was just rendered.
    pub(crate) fn new(drafted: Drafted) -> Self {
        let Drafted { dependencies, spec, ours } = drafted;
        let rendering = Self { dependencies, spec, ..Self::default() };
        let Some(Ours { good, claims, outcome }) = ours else { return rendering };
        Self { good, claims, own: Some(Arc::new(outcome)), ..rendering }
    }

    /// The last rendering of a listener.
    pub(crate) fn good(&self, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.good.iter().find(|candidate| candidate.claim.id == *id)
    }

    /// What a listener claimed, unless that was a reservation only.
    pub(crate) fn claim(&self, id: &ListenerId) -> Option<&Arc<Candidate>> {
        let mut served = self.claims.values().filter(|claim| claim.listener.is_some());
        served.find(|claim| claim.claim.id == *id)
    }
}

impl Table {
    /// The spec of a `MailServer` to render: its own where that is valid, and else the last valid one.
    pub(crate) fn server(&self, objects: &Objects, key: &Key) -> Option<Arc<MailServerSpec>> {
        let last = || match self.0.get(&ObjectId::new(Kind::Server, key))?.spec.as_ref()? {
            Spec::Server(spec) => Some(spec),
            Spec::Listener(_) => None,
        };
        usable(objects.servers.get(key)?, last)
    }

    /// The spec of a `MailListener` to render.
    pub(crate) fn listener(&self, objects: &Objects, key: &Key) -> Option<Arc<MailListenerSpec>> {
        let last = || match self.0.get(&ObjectId::new(Kind::Listener, key))?.spec.as_ref()? {
            Spec::Listener(spec) => Some(spec),
            Spec::Server(_) => None,
        };
        usable(objects.listeners.get(key)?, last)
    }

    /// The last rendering of a listener.
    pub(crate) fn good(&self, object: &ObjectId, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.0.get(object)?.good(id)
    }

    /// What a listener claimed in the last rendering, unless that was a reservation only.
    pub(crate) fn claim(&self, object: &ObjectId, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.0.get(object)?.claim(id)
    }
}

fn usable<'a, Spec: 'a>(
    resource: &'a Resource<Spec>,
    last: impl FnOnce() -> Option<&'a Arc<Spec>>,
) -> Option<Arc<Spec>> {
    resource.spec.as_ref().ok().or_else(last).cloned()
}
