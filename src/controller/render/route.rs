//! Renders a `MailRoute` without regard to other routes: its users, and its backend for each protocol.
//!
//! `draft` has the result, `lists` reads lists of users, `affinity` gives users their endpoints, and `routing` combines
//! the routes of a `MailServer`.

mod affinity;
pub(crate) mod draft;
pub mod lists;
pub(crate) mod routing;
pub(crate) mod service;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::common::Duration as Written;
use crate::api::listener::ListenerFields;
use crate::api::route::{self as api, MailRouteSpec, RouteMatch};
use crate::api::server::AllowedBackends;
use crate::api::{MailServerSpec, Settings};
use crate::controller::index::{Key, Objects};
use crate::controller::reason::Reason;
use crate::controller::violation::{Concern, Notice, Violation};
use crate::model::{
    AllowedDomains, Backend, DomainPattern, Reach, RouteEntry, RouteId, RouteState, UserList,
};
use crate::protocol::Protocol;

use super::bounds::{Bounded, duration};
use super::references::{Dependencies, References};
use super::scope::{Scope, Source};
use super::table::Table;
use super::units::protocol;
use super::{attach, listener_id, reach, settings, upstream};
use draft::RouteDraft;
use lists::{LineRules, UserLists};

/// The input of the rendering of a route.
pub(crate) struct RouteDrafting<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) table: &'a Table,
    pub(crate) lists: &'a mut UserLists,
    pub(crate) dependencies: &'a RefCell<Dependencies>,
    /// The last rendering.
    pub(crate) last: Option<&'a RouteDraft>,
    /// Whether there may be other replicas that this process cannot find.
    pub(crate) lacks_replicas: bool,
}

/// The `MailServer` of a route, and the domains that it allows.
struct Attached {
    key: Key,
    server: Arc<MailServerSpec>,
    rules: LineRules,
}

impl RouteDrafting<'_> {
    /// Renders a route. Returns `None` with a violation if its `MailServer` does not exist or does not accept it.
    pub(crate) fn draft(
        &mut self,
        key: &Key,
        spec: &Arc<MailRouteSpec>,
        references: &mut References<'_>,
    ) -> (Option<RouteDraft>, Vec<Violation>) {
        let attached = match self.attach(key, spec) {
            Ok(attached) => attached,
            Err(violation) => return (self.kept(spec, &violation), vec![violation]),
        };
        let fields = Arc::new(fields(spec));
        let source = source(key, &fields, &attached.key, allowed_backends(&attached.server));
        let scope = Scope::new(&source);
        let domains = domains(&scope, &spec.matches, &attached.rules.allowed);
        let own = users(&scope, &spec.matches, &attached.rules);
        let id = RouteId { namespace: key.namespace.clone(), name: key.name.clone() };
        let mut entry = RouteEntry { id, domains, users: own, unread: None, state: state(&scope, spec) };
        let mut is_last_good = self.add_lists(&scope, &mut entry, &spec.matches, &attached.rules, references);
        let reach = reach_of(&scope, spec, &attached, references);
        let affinity = affinity::Rendered::new(&scope, spec);
        let (mut backends, mut usable) = (BTreeMap::new(), BTreeMap::new());
        for service in &spec.backend.services {
            let (protocol, reference) = (protocol(service.protocol), service::reference(&scope, service));
            let rendered = service::render(&scope, service, (&reach, affinity.choice(protocol)), references);
            let last = self.last.and_then(|last| last.usable.get(&protocol));
            let last = last.filter(|last| rendered.is_none() && last.backend.reference == reference);
            is_last_good |= last.is_some();
            let found = rendered.or_else(|| last.cloned());
            let none = || Arc::new(Backend::new(reference, Vec::new()));
            backends.insert(protocol, found.as_ref().map_or_else(none, |found| Arc::clone(&found.backend)));
            usable.extend(found.map(|found| (protocol, found)));
        }
        if self.lacks_replicas {
            affinity.warn_of_replicas(&scope);
        }
        affinity.compare(&scope, usable.iter().map(|(protocol, usable)| (*protocol, &usable.states)));
        let states = |protocol| usable.get(protocol).map(|usable| usable.states.clone()).unwrap_or_default();
        let affinities =
            backends.keys().map(|protocol| (*protocol, affinity.of(*protocol, states(protocol))));
        let affinities = affinities.collect();
        let inherited = inherited(&attached.server.settings, &attached.server, &attached.key, key);
        let settings = settings::effective(&inherited, &fields.settings);
        // Each listener renders it again with its own settings. Here it is rendered to find violations.
        drop(upstream::render(&scope, &settings, true, references));
        warn_of_protocols(&scope, &attached, backends.keys());
        let mut violations = scope.into_violations();
        let refuses = |violation: &Violation| violation.concern == Concern::Accepted;
        if violations.iter().any(refuses) {
            // Warnings about a route that is not served would distract.
            violations.retain(|violation| violation.concern.excludes());
            return (None, violations);
        }
        let entry = Arc::new(entry);
        let (server, spec) = (attached.key, Arc::clone(spec));
        let draft =
            RouteDraft { server, entry, backends, affinities, usable, reach, spec, fields, is_last_good };
        (Some(draft), violations)
    }

    /// Returns the last rendering if only a mistake in the `MailServer` refuses the route.
    fn kept(&self, spec: &MailRouteSpec, refusal: &Violation) -> Option<RouteDraft> {
        let is_same = |last: &&RouteDraft| last.spec.server_ref == spec.server_ref;
        let last = self.last.filter(is_same).filter(|_| refusal.reason == Reason::Invalid)?;
        Some(RouteDraft { is_last_good: true, ..last.clone() })
    }

    fn attach(&self, key: &Key, spec: &MailRouteSpec) -> Result<Attached, Violation> {
        let found =
            attach::find(self.objects, self.table, (&key.namespace, &spec.server_ref), self.dependencies);
        let (server_key, server) = found?;
        if !routing::check_server(&server).is_empty() {
            return Err(Violation::invalid(
                "spec.serverRef",
                format!("MailServer {server_key} has errors in spec.allowedRoutes or spec.routing"),
                "ask its owner to correct them",
            ));
        }
        let default = [Default::default()];
        let rules = server.allowed_routes.as_deref().unwrap_or(&default);
        let of_namespace = rules.iter().filter(|rule| {
            let namespaces = rule.namespaces.clone().unwrap_or_default();
            attach::allows(self.objects, &server_key, &namespaces, &key.namespace, self.dependencies)
        });
        let of_namespace: Vec<_> = of_namespace.collect();
        if of_namespace.is_empty() {
            return Err(attach::refusal(
                self.objects,
                format!("MailServer {server_key} does not allow routes from namespace {}", key.namespace),
                "ask its owner to add the namespace to spec.allowedRoutes",
                self.dependencies,
            ));
        }
        let allowed = if of_namespace.iter().any(|rule| rule.domains.is_none()) {
            AllowedDomains::All
        } else {
            let domains = of_namespace.iter().flat_map(|rule| rule.domains.iter().flatten());
            AllowedDomains::Only(domains.filter_map(|text| DomainPattern::parse(text)).collect())
        };
        let rules = LineRules { allowed, users: routing::rules(&server) };
        Ok(Attached { key: server_key, server, rules })
    }

    /// Adds the lists of `usersFrom`. A list that cannot be read keeps its last content. Returns whether one does.
    fn add_lists(
        &mut self,
        scope: &Scope<'_>,
        entry: &mut RouteEntry,
        matches: &RouteMatch,
        rules: &LineRules,
        references: &References<'_>,
    ) -> bool {
        let mut is_last_good = false;
        for (index, list) in matches.users_from.iter().flatten().enumerate() {
            let path = format!("spec.match.usersFrom[{index}]");
            let (list, is_last) = match self.lists.read(scope, &path, list, rules, references) {
                lists::Read::List(list) => (list, false),
                lists::Read::LastGood(list) => (list, true),
                lists::Read::Never => {
                    entry.unread = Some(rules.allowed.clone());
                    continue;
                }
            };
            is_last_good |= is_last;
            // A list may be named twice.
            if !entry.users.iter().any(|known| Arc::ptr_eq(known, &list)) {
                entry.users.push(list);
            }
        }
        is_last_good
    }
}

/// Returns the route's settings in the form of a listener's fields, which the other parts of a rendering take.
fn fields(spec: &MailRouteSpec) -> ListenerFields {
    let upstream = spec.backend.upstream.clone();
    ListenerFields {
        port: None,
        address: String::new(),
        protocol: None,
        hostnames: None,
        proxy_protocol: None,
        socket: None,
        backend_ref: None,
        backend_address: None,
        settings: Settings { upstream, ..Settings::default() },
    }
}

/// Returns the source of the settings of a route.
pub(crate) fn source<'a>(
    route: &Key,
    fields: &'a ListenerFields,
    server: &'a Key,
    allowed: Option<&'a AllowedBackends>,
) -> Source<'a> {
    let id = listener_id(route, "");
    Source { id, path: "spec.backend".to_owned(), fields, server: Some(server), allowed }
}

/// Returns what a `MailServer` allows to objects of other namespaces.
pub(crate) fn allowed_backends(server: &MailServerSpec) -> Option<&AllowedBackends> {
    server.allowed_listeners.as_ref()?.backends.as_ref()
}

/// Returns a listener's settings as a route inherits them: without the client certificate for backends if the route is
/// in another namespace.
pub(crate) fn inherited(
    settings: &Settings,
    server: &MailServerSpec,
    server_key: &Key,
    route: &Key,
) -> Settings {
    let is_foreign = server_key.namespace != route.namespace;
    if is_foreign && !reach::always_introduces(allowed_backends(server)) {
        settings::without_client_certificate(settings)
    } else {
        settings.clone()
    }
}

fn state(scope: &Scope<'_>, spec: &MailRouteSpec) -> RouteState {
    let read = |name: &str, value: Option<&Written>, default: u64| {
        let (default, most) = (Duration::from_secs(default), Duration::from_secs(3600));
        duration(scope, &format!("spec.{name}"), value, Bounded { default, least: Duration::ZERO, most })
    };
    let timeout = read("holdTimeout", spec.hold_timeout.as_ref(), 60);
    let spread = read("spread", spec.spread.as_ref(), 10);
    match spec.state {
        api::RouteState::Active => RouteState::Active,
        api::RouteState::Held => RouteState::Held { timeout, spread },
        api::RouteState::Refused => RouteState::Refused,
    }
}

fn domains(scope: &Scope<'_>, matches: &RouteMatch, allowed: &AllowedDomains) -> Vec<DomainPattern> {
    let mut domains = Vec::new();
    for (index, text) in matches.domains.iter().flatten().enumerate() {
        let path = format!("spec.match.domains[{index}]");
        match DomainPattern::parse(text) {
            None => scope.report(Violation::invalid(
                &path,
                format!("{text:?} is not a domain"),
                "write a domain such as example.org, or *.example.org for all domains below it",
            )),
            Some(pattern) if !allowed.allow(&pattern) => {
                scope.report(not_allowed(scope, &path, &pattern.to_string()))
            }
            Some(pattern) if domains.contains(&pattern) => {}
            Some(pattern) => domains.push(pattern),
        }
    }
    domains
}

fn users(scope: &Scope<'_>, matches: &RouteMatch, rules: &LineRules) -> Vec<Arc<UserList>> {
    let Some(texts) = &matches.users else { return Vec::new() };
    let mut users = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("spec.match.users[{index}]");
        match lists::user(text.as_bytes()) {
            Err(problem) => scope.report(Violation::invalid(
                &path,
                format!("{text:?} {problem}"),
                "write a login as clients send it, such as bob@example.org",
            )),
            Ok(user) if !rules.allow(&user) => {
                let domain =
                    user.domain().map_or_else(|| format!("{text}, which has no domain"), str::to_owned);
                scope.report(not_allowed(scope, &path, &domain));
            }
            Ok(user) => {
                if rules.users.has_master_user(text.as_bytes()) {
                    scope.report(lists::unmatched(&path, &format!("{text:?}"), &rules.users));
                }
                users.push(rules.users.with_domain(user));
            }
        }
    }
    vec![Arc::new(UserList::new(users))]
}

fn not_allowed(scope: &Scope<'_>, path: &str, domain: &str) -> Violation {
    Violation::new(
        Concern::Accepted,
        Reason::DomainNotAllowed,
        path,
        format!("{} allows no routes of this namespace for {domain}", scope.server_name()),
        "remove it, or ask the owner of the MailServer to extend spec.allowedRoutes",
    )
}

/// Returns what a route may connect to. It may always introduce clients to its own Pods, because the `MailServer`'s
/// listener says who they are, not the author of the route.
fn reach_of(
    scope: &Scope<'_>,
    spec: &MailRouteSpec,
    attached: &Attached,
    references: &References<'_>,
) -> Reach {
    let services = spec.backend.services.iter().filter_map(|service| service.name.as_deref());
    reach::of_services(scope, services, allowed_backends(&attached.server), references).with_own_introduced()
}

/// Warns of backends for protocols that the `MailServer` does not serve.
fn warn_of_protocols<'a>(
    scope: &Scope<'_>,
    attached: &Attached,
    protocols: impl Iterator<Item = &'a Protocol>,
) {
    let listeners = &attached.server.listeners;
    let speaks = |fields: &ListenerFields| {
        fields.protocol.map(protocol).or_else(|| fields.port.and_then(Protocol::of_port))
    };
    for wanted in protocols {
        if listeners.iter().any(|listener| speaks(&listener.fields) == Some(*wanted)) {
            continue;
        }
        let name = wanted.name().to_ascii_uppercase();
        scope.report(Violation::notice(
            Notice::ProtocolNotServed,
            &format!("spec.backend.services[{name}]"),
            format!("MailServer {} has no listener for {name}", attached.key),
            "remove it, or add a listener to the MailServer",
        ));
    }
}
