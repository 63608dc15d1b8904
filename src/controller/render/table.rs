//! The last rendering of each object. It is served if a listener can no longer be rendered. It is kept only in memory,
//! and removed when the object is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{MailListenerSpec, MailRouteSpec, MailServerSpec};
use crate::controller::index::{Key, Kind, ObjectId, Objects, Resource};
use crate::model::ListenerId;

use super::ports::Claims;
use super::references::Dependencies;
use super::route::draft::RouteDraft;
use super::{Candidate, ObjectOutcome, Precedence};

/// The last rendering of one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendering {
    /// The dependencies of the rendering, besides the object itself.
    pub(crate) dependencies: Dependencies,
    /// The last valid spec.
    spec: Option<Spec>,
    /// All listeners that could be rendered, even if they cannot be served.
    good: Vec<Arc<Candidate>>,
    /// The claims of the listeners, without those that lost a conflict within the object.
    pub(crate) claims: Claims,
    /// The route, and its order among the routes of its `MailServer`.
    pub(crate) route: Option<(Precedence, Arc<RouteDraft>)>,
    /// The outcome without regard to other objects; `None` if the object has another class.
    pub(crate) own: Option<Arc<ObjectOutcome>>,
    /// The outcome with the conflicts with other objects.
    pub(crate) outcome: Option<Arc<ObjectOutcome>>,
}

/// The last renderings of all objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<ObjectId, Rendering>);

/// The rendering of an object.
#[derive(Clone, Debug)]
pub(crate) struct Drafted {
    /// The objects on which the rendering depends, besides the object itself.
    pub(crate) dependencies: Dependencies,
    /// The spec that was rendered: the current one or the last valid one.
    pub(crate) spec: Option<Spec>,
    /// `None` if the object has another class.
    pub(crate) ours: Option<Ours>,
}

#[derive(Clone, Debug)]
pub(crate) enum Spec {
    Server(Arc<MailServerSpec>),
    Listener(Arc<MailListenerSpec>),
    Route(Arc<MailRouteSpec>),
}

/// The rendering of an object of our class.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    /// All listeners that could be rendered, even if they cannot be served.
    pub(crate) good: Vec<Arc<Candidate>>,
    /// The claims of its listeners, without those that lost a conflict within the object.
    pub(crate) claims: Claims,
    /// The route, and its order among the routes of its `MailServer`.
    pub(crate) route: Option<(Precedence, Arc<RouteDraft>)>,
    /// The outcome without regard to other objects.
    pub(crate) outcome: ObjectOutcome,
}

impl Rendering {
    /// Stores the result of rendering an object.
    pub(crate) fn new(drafted: Drafted) -> Self {
        let Drafted { dependencies, spec, ours } = drafted;
        let rendering = Self { dependencies, spec, ..Self::default() };
        let Some(Ours { good, claims, route, outcome }) = ours else { return rendering };
        Self { good, claims, route, own: Some(Arc::new(outcome)), ..rendering }
    }

    /// Returns the last rendering of a listener.
    pub(crate) fn good(&self, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.good.iter().find(|candidate| candidate.claim.id == *id)
    }

    /// Returns the claim of a listener, unless it is only a reservation.
    pub(crate) fn claim(&self, id: &ListenerId) -> Option<&Arc<Candidate>> {
        let mut served = self.claims.values().filter(|claim| claim.listener.is_some());
        served.find(|claim| claim.claim.id == *id)
    }
}

impl Table {
    /// Returns the spec of a `MailServer` for rendering: the current one if it is valid, otherwise the last valid one.
    pub(crate) fn server(&self, objects: &Objects, key: &Key) -> Option<Arc<MailServerSpec>> {
        let last = || match self.0.get(&ObjectId::new(Kind::Server, key))?.spec.as_ref()? {
            Spec::Server(spec) => Some(spec),
            Spec::Listener(_) | Spec::Route(_) => None,
        };
        usable(objects.servers.get(key)?, last)
    }

    /// Returns the spec of a `MailListener` for rendering.
    pub(crate) fn listener(&self, objects: &Objects, key: &Key) -> Option<Arc<MailListenerSpec>> {
        let last = || match self.0.get(&ObjectId::new(Kind::Listener, key))?.spec.as_ref()? {
            Spec::Listener(spec) => Some(spec),
            Spec::Server(_) | Spec::Route(_) => None,
        };
        usable(objects.listeners.get(key)?, last)
    }

    /// Returns the spec of a `MailRoute` for rendering.
    pub(crate) fn route_spec(&self, objects: &Objects, key: &Key) -> Option<Arc<MailRouteSpec>> {
        let last = || match self.0.get(&ObjectId::new(Kind::Route, key))?.spec.as_ref()? {
            Spec::Route(spec) => Some(spec),
            Spec::Server(_) | Spec::Listener(_) => None,
        };
        usable(objects.routes.get(key)?, last)
    }

    /// Returns the last rendering of a route.
    pub(crate) fn route(&self, object: &ObjectId) -> Option<&Arc<RouteDraft>> {
        self.0.get(object)?.route.as_ref().map(|(_, route)| route)
    }

    /// Returns the last rendering of a listener.
    pub(crate) fn good(&self, object: &ObjectId, id: &ListenerId) -> Option<&Arc<Candidate>> {
        self.0.get(object)?.good(id)
    }

    /// Returns the claim of a listener in the last rendering, unless it is only a reservation.
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
