//! Renders one object without regard to other objects.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::api::listener::ListenerFields;
use crate::api::server::{Introductions, Listener as ServerListener};
use crate::api::{MailListenerSpec, MailRouteSpec, MailServerSpec, Settings};
use crate::controller::index::{Key, Kind, ObjectId, Objects, Owner, Resource};
use crate::controller::reason::Reason;
use crate::controller::violation::Violation;

use super::certificates::Certificates;
use super::conflicts::{self, Sibling};
use super::listener::{Obstacle, RoutesOf};
use super::ports::Rank;
use super::references::{Dependencies, References};
use super::route::RouteDrafting;
use super::route::draft::RouteDraft;
use super::route::lists::UserLists;
use super::route::routing::{self, ServerRoutes};
use super::scope::Source;
use super::table::{Drafted, Ours, Spec, Table};
use super::{
    Candidate, Environment, ListenerOutcome, ObjectOutcome, Precedence, RouteOutcome, Serving, attach,
    listener, listener_id, reach, settings, units,
};

/// The input of the rendering of an object.
pub(crate) struct Drafting<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) environment: &'a Environment,
    /// The last renderings.
    pub(crate) table: &'a Table,
    /// Certificates that are already parsed.
    pub(crate) certificates: &'a mut Certificates,
    /// Lists of users that are already parsed.
    pub(crate) lists: &'a mut UserLists,
    /// The routes of each `MailServer`. Routes are rendered before listeners.
    pub(crate) routes: &'a BTreeMap<Key, ServerRoutes>,
}

impl Drafting<'_> {
    /// Renders an object; `None` if it does not exist.
    pub(crate) fn object(&mut self, id: &ObjectId) -> Option<Drafted> {
        match id.kind {
            Kind::Server => Some(self.server(&id.key, self.objects.servers.get(&id.key)?)),
            Kind::Listener => Some(self.listener(&id.key, self.objects.listeners.get(&id.key)?)),
            Kind::Route => Some(self.route(&id.key, self.objects.routes.get(&id.key)?)),
        }
    }

    fn server(&mut self, key: &Key, resource: &Resource<MailServerSpec>) -> Drafted {
        let dependencies = RefCell::default();
        let mut draft = Draft::new(Kind::Server, key, resource);
        let is_ours = self.is_ours(&resource.owner);
        let Some(spec) = self.table.server(self.objects, key) else {
            let ours = is_ours.then(|| draft.finish());
            return Drafted { dependencies: dependencies.into_inner(), spec: None, ours };
        };
        let routes = self.routes.get(key).unwrap_or(&NO_ROUTES);
        for ServerListener { name, fields } in spec.listeners.iter().filter(|_| is_ours) {
            let source = Source {
                id: listener_id(key, name),
                path: format!("spec.listeners[{name}]"),
                fields,
                server: None,
                allowed: None,
            };
            let settings = settings::effective(&spec.settings, &fields.settings);
            let routes = Some(RoutesOf { key, server: &spec, routes });
            self.draft(&mut draft, (&source, routes), &settings, &dependencies);
        }
        if let Some(allowed) = spec.allowed_listeners.as_ref().and_then(|allowed| allowed.backends.as_ref()) {
            draft.outcome.violations.extend(reach::check_allowed(allowed));
        }
        draft.outcome.violations.extend(routing::check_server(&spec));
        let ours = is_ours.then(|| draft.finish());
        Drafted { dependencies: dependencies.into_inner(), spec: Some(Spec::Server(spec)), ours }
    }

    fn listener(&mut self, key: &Key, resource: &Resource<MailListenerSpec>) -> Drafted {
        let dependencies = RefCell::<Dependencies>::default();
        let mut draft = Draft::new(Kind::Listener, key, resource);
        if let Owner::Server(server) = &resource.owner {
            dependencies.borrow_mut().servers.insert(server.clone());
        }
        let is_ours = self.is_ours(&resource.owner);
        let Some(spec) = self.table.listener(self.objects, key) else {
            draft.refuse(key, vec![]);
            let ours = is_ours.then(|| draft.finish());
            return Drafted { dependencies: dependencies.into_inner(), spec: None, ours };
        };
        match attach::server(self.objects, self.table, (key, &spec), &dependencies) {
            _ if !is_ours => {}
            Err(violation) => draft.refuse(key, vec![violation]),
            Ok((server_key, server)) => {
                self.attach(&mut draft, &spec.listener, (&server_key, &server), &dependencies);
            }
        }
        let ours = is_ours.then(|| draft.finish());
        Drafted { dependencies: dependencies.into_inner(), spec: Some(Spec::Listener(spec)), ours }
    }

    fn route(&mut self, key: &Key, resource: &Resource<MailRouteSpec>) -> Drafted {
        let dependencies = RefCell::<Dependencies>::default();
        let mut draft = Draft::new(Kind::Route, key, resource);
        if let Owner::Server(server) = &resource.owner {
            dependencies.borrow_mut().servers.insert(server.clone());
        }
        let is_ours = self.is_ours(&resource.owner);
        let Some(spec) = self.table.route_spec(self.objects, key) else {
            let ours = is_ours.then(|| draft.finish());
            return Drafted { dependencies: dependencies.into_inner(), spec: None, ours };
        };
        if is_ours {
            self.draft_route(&mut draft, &spec, &dependencies);
        }
        let ours = is_ours.then(|| draft.finish());
        Drafted { dependencies: dependencies.into_inner(), spec: Some(Spec::Route(spec)), ours }
    }

    fn draft_route(
        &mut self,
        draft: &mut Draft,
        spec: &Arc<MailRouteSpec>,
        dependencies: &RefCell<Dependencies>,
    ) {
        let is_old_spec = draft.outcome.violations.iter().any(|violation| violation.concern.excludes());
        let key = draft.outcome.key.clone();
        let last = self.table.route(&draft.outcome.id());
        let mut references =
            References::new(self.objects, dependencies, &self.environment.locality, self.certificates);
        let mut drafting = RouteDrafting {
            objects: self.objects,
            table: self.table,
            lists: self.lists,
            dependencies,
            last: last.map(AsRef::as_ref),
            lacks_replicas: self.environment.lacks_replicas,
        };
        let (rendered, violations) = drafting.draft(&key, spec, &mut references);
        // The last valid spec needs the owner's permission too.
        let may_continue = violations.iter().all(|violation| violation.reason == Reason::Invalid);
        let again = match (&rendered, last) {
            (None, Some(last)) if may_continue => drafting.draft(&key, &last.spec, &mut references).0,
            _ => None,
        };
        let (route, serving) = match (rendered, again) {
            (Some(route), _) if is_old_spec || route.is_last_good => {
                (Some(Arc::new(route)), Serving::LastGood)
            }
            (Some(route), _) => (Some(Arc::new(route)), Serving::Current),
            (None, Some(last)) => (Some(Arc::new(last)), Serving::LastGood),
            (None, None) => (None, Serving::Nothing),
        };
        draft.outcome.violations.extend(violations);
        draft.outcome.route = route.as_ref().map(|route| RouteOutcome {
            server: route.server.clone(),
            serving,
            entry: Arc::clone(&route.entry),
            backends: route.backends.clone(),
        });
        draft.route = route;
    }

    /// Tells whether an object is of our class. An object whose owner is unknown is reported by the controllers of all
    /// classes, with the same result.
    fn is_ours(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Class(class) => *class == self.environment.class,
            Owner::Server(server) => {
                self.objects.servers.get(server).is_none_or(|server| self.is_ours(&server.owner))
            }
            Owner::Unknown => true,
        }
    }

    fn attach(
        &mut self,
        draft: &mut Draft,
        fields: &ListenerFields,
        (key, server): (&Key, &MailServerSpec),
        dependencies: &RefCell<Dependencies>,
    ) {
        let id = listener_id(&draft.outcome.key, "");
        let allowed = server.allowed_listeners.as_ref().and_then(|allowed| allowed.backends.as_ref());
        let is_foreign = key.namespace != id.namespace;
        let introductions = allowed.and_then(|allowed| allowed.introductions).unwrap_or_default();
        let settings = if is_foreign && introductions != Introductions::Always {
            let server = settings::without_client_certificate(&server.settings);
            settings::attached(&server, &fields.settings)
        } else {
            settings::attached(&server.settings, &fields.settings)
        };
        let routes = self.routes.get(key).unwrap_or(&NO_ROUTES);
        let routes = (!is_foreign).then_some(RoutesOf { key, server, routes });
        let source = Source { id, path: "spec".to_owned(), fields, server: Some(key), allowed };
        self.draft(draft, (&source, routes), &settings, dependencies);
    }

    fn draft(
        &mut self,
        draft: &mut Draft,
        (source, routes): (&Source<'_>, Option<RoutesOf<'_>>),
        settings: &Settings,
        dependencies: &RefCell<Dependencies>,
    ) {
        let old_spec = draft.outcome.violations.iter().any(|v| v.concern.excludes());
        let object = draft.outcome.id();
        let kept = self.table.good(&object, &source.id);
        let mut references =
            References::new(self.objects, dependencies, &self.environment.locality, self.certificates);
        let (rendered, violations) =
            listener::render(source, routes, settings, &mut references, self.environment);
        let (rendered, reserved) = match rendered {
            Some(candidate) if candidate.listener.is_none() => (None, Some(candidate)),
            other => (other, None),
        };
        let obstacle = if reserved.is_some() { Obstacle::Pending } else { Obstacle::Invalid };
        let mut refresh = |kept: &Candidate| {
            listener::refresh(kept.clone(), source, routes, settings, obstacle, &mut references)
        };
        let (candidate, serving) = match rendered {
            Some(candidate) if old_spec => (Some(candidate), Serving::LastGood),
            Some(candidate) => (Some(candidate), Serving::Current),
            // A refusal of the owner also ends the last valid rendering.
            None => match kept.filter(|_| !violations.iter().any(Violation::is_refusal)) {
                Some(kept) => (Some(refresh(kept)), Serving::LastGood),
                None => (None, Serving::Nothing),
            },
        };
        let candidate = candidate.map(Arc::new);
        let earlier = self.table.claim(&object, &source.id).map(|claim| match &candidate {
            Some(candidate) if candidate.claim == claim.claim => Arc::clone(candidate),
            _ => Arc::new(refresh(claim)),
        });
        let address = candidate.as_ref().map(|candidate| candidate.claim.address.clone());
        draft.claim(candidate, earlier, reserved);
        let wanted = units::listen_address(&source.fields.address, source.fields.port);
        draft.outcome.listeners.push(ListenerOutcome {
            id: source.id.clone(),
            address,
            wanted,
            serving,
            is_backend_service: source.fields.backend_ref.is_some(),
            violations,
        });
    }
}

/// The rendering of an object, not finished.
struct Draft {
    precedence: Precedence,
    good: Vec<Arc<Candidate>>,
    siblings: Vec<Sibling>,
    route: Option<Arc<RouteDraft>>,
    outcome: ObjectOutcome,
}

impl Draft {
    fn new<Spec>(kind: Kind, key: &Key, resource: &Resource<Spec>) -> Self {
        let outcome = ObjectOutcome {
            kind,
            key: key.clone(),
            uid: resource.uid.clone(),
            generation: resource.generation,
            violations: resource.spec.as_ref().err().cloned().unwrap_or_default(),
            listeners: vec![],
            route: None,
        };
        let age = resource.created.unwrap_or(i64::MAX);
        Self { precedence: (kind, age, key.clone()), good: vec![], siblings: vec![], route: None, outcome }
    }

    /// Adds the claims of the next listener: the one with which it is served, and the reservation until its references
    /// are known.
    fn claim(
        &mut self,
        candidate: Option<Arc<Candidate>>,
        earlier: Option<Arc<Candidate>>,
        reserved: Option<Candidate>,
    ) {
        let listener = self.outcome.listeners.len();
        let has_same_claim = |reserved: &Candidate| {
            candidate.as_ref().is_some_and(|candidate| candidate.claim == reserved.claim)
        };
        let reserved = reserved.filter(|reserved| !has_same_claim(reserved));
        if let Some(candidate) = candidate {
            self.good.push(Arc::clone(&candidate));
            self.siblings.push(Sibling { listener, wanted: candidate, earlier });
        }
        if let Some(reserved) = reserved {
            self.siblings.push(Sibling { listener, wanted: Arc::new(reserved), earlier: None });
        }
    }

    /// Adds the listener of a `MailListener` that cannot be rendered.
    fn refuse(&mut self, key: &Key, violations: Vec<Violation>) {
        self.outcome.listeners.push(ListenerOutcome {
            id: listener_id(key, ""),
            address: None,
            wanted: None,
            serving: Serving::Nothing,
            is_backend_service: false,
            violations,
        });
    }

    fn finish(self) -> Ours {
        let Self { precedence, good, siblings, route, mut outcome } = self;
        let claims = conflicts::among_siblings(&siblings, &mut outcome.listeners);
        let claims = siblings.iter().zip(claims).filter_map(|(sibling, claim)| {
            let candidate = claim?;
            let is_reserved = candidate.listener.is_none();
            let rank = Rank { precedence: precedence.clone(), listener: sibling.listener, is_reserved };
            Some((rank, candidate))
        });
        let claims = claims.collect();
        let route = route.map(|route| (precedence, route));
        Ours { good, claims, route, outcome }
    }
}

/// The routes of a `MailServer` without any.
static NO_ROUTES: LazyLock<ServerRoutes> = LazyLock::new(ServerRoutes::default);
