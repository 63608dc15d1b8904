//! One object by itself: its listeners as they would be served if there were no others.

use std::cell::RefCell;
use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::server::{Introductions, Listener as ServerListener};
use crate::api::{MailListenerSpec, MailServerSpec, Settings};
use crate::model::ListenerId;

use super::super::index::{Key, Kind, ObjectId, Objects, Owner, Resource};
use super::super::violation::Violation;
use super::references::{Looked, References};
use super::tls::Certificates;
use super::{
    Candidate, Environment, LastGood, ListenerOutcome, ObjectOutcome, Serving, attach, conflicts, listener,
    reach, settings, units,
};

/// What objects are rendered from.
pub(crate) struct Drafting<'a> {
    /// Everything that there is.
    pub(crate) objects: &'a Objects,
    /// What else counts.
    pub(crate) environment: &'a Environment,
    /// What was good when it was last looked.
    pub(crate) last_good: &'a LastGood,
    /// Certificates that are parsed already.
    pub(crate) certificates: &'a mut Certificates,
}

/// An object that is there.
#[derive(Clone, Debug)]
pub(crate) struct Drafted {
    /// What its rendering depends on, besides itself.
    pub(crate) looked: Looked,
    /// The spec that it was made of: its own, or the last good one.
    pub(crate) spec: Option<Spec>,
    /// `None`: it is of another class.
    pub(crate) ours: Option<Ours>,
}

/// A valid spec.
#[derive(Clone, Debug)]
pub(crate) enum Spec {
    Server(Arc<MailServerSpec>),
    Listener(Arc<MailListenerSpec>),
}

/// An object of our class.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    /// Who wins a conflict with another object's listener: the smaller.
    pub(crate) precedence: Precedence,
    /// Every listener that could be rendered, whether it can be served or not.
    pub(crate) good: Vec<Arc<Candidate>>,
    /// By listener: what it wants, unless it has lost it inside its own object.
    pub(crate) claims: Vec<Option<Arc<Candidate>>>,
    /// What is known without looking at other objects.
    pub(crate) outcome: ObjectOutcome,
}

/// `MailServer` before `MailListener`, then the older, then namespace and name.
pub(crate) type Precedence = (Kind, i64, Key);

impl Drafting<'_> {
    /// The object; `None` when it is gone.
    pub(crate) fn object(&mut self, id: &ObjectId) -> Option<Drafted> {
        match id.kind {
            Kind::Server => Some(self.server(&id.key, self.objects.servers.get(&id.key)?)),
            Kind::Listener => Some(self.listener(&id.key, self.objects.listeners.get(&id.key)?)),
        }
    }

    fn server(&mut self, key: &Key, resource: &Resource<MailServerSpec>) -> Drafted {
        let looked = RefCell::default();
        let mut draft = Draft::new(Kind::Server, key, resource);
        let is_ours = self.is_ours(&resource.owner);
        let Some(spec) = self.last_good.server(self.objects, key) else {
            let ours = is_ours.then(|| draft.finish());
            return Drafted { looked: looked.into_inner(), spec: None, ours };
        };
        for ServerListener { name, fields } in spec.listeners.iter().filter(|_| is_ours) {
            let source = listener::Source {
                id: listener_id(key, name),
                path: format!("spec.listeners[{name}]"),
                fields,
                server: None,
                allowed: None,
            };
            let settings = settings::effective(&spec.settings, &fields.settings);
            self.draft(&mut draft, &source, &settings, &looked);
        }
        if let Some(allowed) = spec.allowed_listeners.as_ref().and_then(|allowed| allowed.backends.as_ref()) {
            reach::check_allowed(allowed, &mut draft.outcome.violations);
        }
        let ours = is_ours.then(|| draft.finish());
        Drafted { looked: looked.into_inner(), spec: Some(Spec::Server(spec)), ours }
    }

    fn listener(&mut self, key: &Key, resource: &Resource<MailListenerSpec>) -> Drafted {
        let looked = RefCell::<Looked>::default();
        let mut draft = Draft::new(Kind::Listener, key, resource);
        if let Owner::Server(server) = &resource.owner {
            looked.borrow_mut().servers.insert(server.clone());
        }
        let is_ours = self.is_ours(&resource.owner);
        let Some(spec) = self.last_good.listener(self.objects, key) else {
            draft.refuse(key, vec![]);
            let ours = is_ours.then(|| draft.finish());
            return Drafted { looked: looked.into_inner(), spec: None, ours };
        };
        match attach::server(self.objects, self.last_good, (key, &spec), &looked) {
            _ if !is_ours => {}
            Err(violation) => draft.refuse(key, vec![violation]),
            Ok((server_key, server)) => {
                self.attach(&mut draft, &spec.listener, (&server_key, &server), &looked);
            }
        }
        let ours = is_ours.then(|| draft.finish());
        Drafted { looked: looked.into_inner(), spec: Some(Spec::Listener(spec)), ours }
    }

    /// Whether an object is of our class. One that belongs to nobody yet is told by all, which know the same of it.
    fn is_ours(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Class(class) => *class == self.environment.class,
            Owner::Server(server) => {
                self.objects.servers.get(server).is_none_or(|server| self.is_ours(&server.owner))
            }
            Owner::Unsaid => true,
        }
    }

    fn attach(
        &mut self,
        draft: &mut Draft,
        fields: &ListenerFields,
        (key, server): (&Key, &MailServerSpec),
        looked: &RefCell<Looked>,
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
        let source = listener::Source { id, path: "spec".to_owned(), fields, server: Some(key), allowed };
        self.draft(draft, &source, &settings, looked);
    }

    fn draft(
        &mut self,
        draft: &mut Draft,
        source: &listener::Source<'_>,
        settings: &Settings,
        looked: &RefCell<Looked>,
    ) {
        let old_spec = draft.outcome.violations.iter().any(|v| v.concern.excludes());
        let kept = self.last_good.candidate(&draft.outcome.id(), &source.id);
        let mut references =
            References::new(self.objects, looked, &self.environment.locality, self.certificates);
        let (rendered, violations) = listener::render(source, settings, &mut references, self.environment);
        let (candidate, serving) = match rendered {
            Some(candidate) if old_spec => (Some(candidate), Serving::LastGood),
            Some(candidate) => (Some(candidate), Serving::Current),
            // What is not allowed any more is not served on.
            None => match kept.filter(|_| !violations.iter().any(Violation::is_refusal)) {
                Some(kept) => {
                    let kept = listener::refresh((**kept).clone(), source, settings, &mut references);
                    (Some(kept), Serving::LastGood)
                }
                None => (None, Serving::Nothing),
            },
        };
        let candidate = candidate.map(Arc::new);
        let earlier = self.last_good.claim(&draft.outcome.id(), &source.id).map(|claim| match &candidate {
            Some(candidate) if conflicts::is_same_claim(candidate, claim) => Arc::clone(candidate),
            _ => Arc::new(listener::refresh((**claim).clone(), source, settings, &mut references)),
        });
        let address = candidate.as_ref().map(|candidate| candidate.address.clone());
        draft.candidates.push(candidate);
        draft.earlier.push(earlier);
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

/// An object on its way.
struct Draft {
    precedence: Precedence,
    candidates: Vec<Option<Arc<Candidate>>>,
    /// What each claimed when it was last looked, as that would be rendered now.
    earlier: Vec<Option<Arc<Candidate>>>,
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
        };
        let age = resource.created.unwrap_or(i64::MAX);
        Self { precedence: (kind, age, key.clone()), candidates: vec![], earlier: vec![], outcome }
    }

    /// A `MailListener` that does not get as far as being rendered.
    fn refuse(&mut self, key: &Key, violations: Vec<Violation>) {
        let id = listener_id(key, "");
        self.candidates.push(None);
        self.earlier.push(None);
        self.outcome.listeners.push(ListenerOutcome {
            id,
            address: None,
            wanted: None,
            serving: Serving::Nothing,
            is_backend_service: false,
            violations,
        });
    }

    fn finish(self) -> Ours {
        let Self { precedence, candidates: mut claims, earlier, mut outcome } = self;
        let good = claims.iter().flatten().map(Arc::clone).collect();
        conflicts::among_siblings(&mut claims, &mut outcome.listeners, &earlier);
        Ours { precedence, good, claims, outcome }
    }
}

fn listener_id(key: &Key, listener: &str) -> ListenerId {
    ListenerId { namespace: key.namespace.clone(), object: key.name.clone(), listener: listener.to_owned() }
}
