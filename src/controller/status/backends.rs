//! Summarises the state of an object's backends for a column of `kubectl get`. Ready describes the listener or the route
//! only, and one without a backend is ready as well.
//!
//! If all is well, the summary has no numbers, so that scaling a Service does not cause a write of the status.

use crate::controller::reason::Reason;
use crate::controller::render::{ListenerOutcome, ObjectOutcome, RouteOutcome};
use crate::controller::violation::Concern;
use crate::model::{Backend, BackendHealth, RouteBackend};
use crate::net::BackendAddress;
use crate::protocol::Protocol;

use super::Facts;

/// The known state of one listener's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BackendState {
    /// The numbers of ready endpoints and of all endpoints.
    Ready(usize, usize),
    None,
}

/// Returns `all ready`, `2/3 ready`, `none ready` or `none ready for NAMES`; empty if nothing is known.
pub(super) fn summary(facts: &Facts<'_>, object: &ObjectOutcome) -> String {
    let known = object
        .listeners
        .iter()
        .filter_map(|listener| Some((listener.id.listener.as_str(), backend_state(facts, listener)?)));
    combined(&known.collect::<Vec<_>>())
}

/// As [`summary`], for the backends of a route: `none ready for POP3`.
pub(super) fn summary_of_route(facts: &Facts<'_>, route: &RouteOutcome) -> String {
    let names: Vec<(&str, BackendState)> = route
        .backends
        .iter()
        .filter_map(|(protocol, backend)| {
            let state = route_backend_state(facts, route, *protocol, backend)?;
            Some((protocol.label(), state))
        })
        .collect();
    combined(&names)
}

/// Returns the summary of one backend of a route; `None` if it is not known.
pub(super) fn of_route(
    facts: &Facts<'_>,
    route: &RouteOutcome,
    protocol: Protocol,
    backend: &Backend,
) -> Option<String> {
    Some(combined(&[("", route_backend_state(facts, route, protocol, backend)?)]))
}

/// Combines the known states of named backends.
fn combined(known: &[(&str, BackendState)]) -> String {
    let without: Vec<&str> = known
        .iter()
        .filter(|(_, backend_state)| *backend_state == BackendState::None)
        .map(|(name, _)| *name)
        .collect();
    if !without.is_empty() {
        return if without.len() == known.len() { "none ready".to_owned() } else { none_for(&without) };
    }
    let share =
        |(ready, all): &(usize, usize)| ready.saturating_mul(PARTS).checked_div(*all).unwrap_or(PARTS);
    let counts = known.iter().filter_map(|(_, backend_state)| match backend_state {
        BackendState::Ready(ready, all) => Some((*ready, *all)),
        BackendState::None => None,
    });
    match counts.min_by_key(share) {
        None => String::new(),
        Some((ready, all)) if ready < all => format!("{ready}/{all} ready"),
        Some(_) => "all ready".to_owned(),
    }
}

fn backend_state(facts: &Facts<'_>, listener: &ListenerOutcome) -> Option<BackendState> {
    // A listener that is not served has no backend. Ready has the reason.
    let served = facts.published.listener(&listener.id)?;
    // The last valid rendering has the endpoints of an earlier reference.
    if listener.violations.iter().any(|violation| violation.concern == Concern::ResolvedRefs) {
        return None;
    }
    if listener.violations.iter().any(|violation| violation.reason == Reason::NoReadyEndpoints) {
        return Some(BackendState::None);
    }
    let backend = served.backend.as_ref().filter(|_| listener.is_backend_service);
    let leaving = backend.map_or(0, |backend| backend.leaving.len());
    if let Some(health) = facts.report.backends.get(&listener.id) {
        return Some(of_health(health).beside(leaving));
    }
    Some(of_endpoints(&backend?.endpoints)?.beside(leaving))
}

fn route_backend_state(
    facts: &Facts<'_>,
    route: &RouteOutcome,
    protocol: Protocol,
    backend: &Backend,
) -> Option<BackendState> {
    if backend.endpoints.is_empty() {
        return Some(BackendState::None);
    }
    let id = RouteBackend { route: route.entry.id.clone(), protocol };
    if let Some(health) = facts.report.routes.get(&id) {
        return Some(of_health(health).beside(backend.leaving.len()));
    }
    Some(of_endpoints(&backend.endpoints)?.beside(backend.leaving.len()))
}

impl BackendState {
    /// Adds the endpoints that are taken out of service.
    fn beside(self, leaving: usize) -> Self {
        match self {
            Self::Ready(ready, all) => Self::Ready(ready, all.saturating_add(leaving)),
            Self::None => Self::None,
        }
    }
}

fn of_health(health: &BackendHealth) -> BackendState {
    match health.endpoints.saturating_sub(health.unhealthy.len()) {
        0 => BackendState::None,
        ready => BackendState::Ready(ready, health.endpoints),
    }
}

/// Without health checks, the addresses that the API server has are ready. The endpoints behind a host name are not
/// known.
fn of_endpoints(endpoints: &[BackendAddress]) -> Option<BackendState> {
    let are_known = endpoints.iter().all(|endpoint| matches!(endpoint, BackendAddress::Ip(_)));
    are_known.then_some(match endpoints.len() {
        0 => BackendState::None,
        ready => BackendState::Ready(ready, ready),
    })
}

fn none_for(listeners: &[&str]) -> String {
    let named = listeners.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
    match listeners.len().saturating_sub(MAX_NAMED) {
        0 => format!("none ready for {named}"),
        more => format!("none ready for {named} and {more} more"),
    }
}

/// The maximum number of listeners in the column. Each name has at most 63 characters.
const MAX_NAMED: usize = 3;
/// The precision of the comparison of shares.
const PARTS: usize = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controller::render::tests::{Fixture, server};
    use crate::model::{BackendHealth, BindReport, ListenerId};

    /// Returns a Service and one of its slices with this number of ready endpoints.
    fn service(name: &str, ready: usize) -> String {
        let endpoints: Vec<String> =
            (1..=ready).map(|last| format!("{{addresses: [10.0.0.{last}]}}")).collect();
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: mail}}, \
             spec: {{ports: [{{name: mail, port: 143}}]}}}}\n\
             ---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{name: {name}, namespace: mail, labels: {{kubernetes.io/service-name: {name}}}}}, \
             ports: [{{name: mail, port: 143}}], endpoints: [{}]}}\n",
            endpoints.join(", ")
        )
    }

    fn listener(name: &str, port: u16, service: &str) -> String {
        let backend = format!("backendRef: {{name: {service}, port: 143}}");
        format!("{{name: {name}, protocol: IMAP, port: {port}, {backend}, tls: {{mode: Disabled}}}}")
    }

    /// The unhealthy endpoints of a listener with three endpoints.
    type Unhealthy<'a> = (&'a str, usize);

    fn summary_of(yaml: &str, unhealthy: &[Unhealthy<'_>]) -> String {
        let mut fixture = Fixture::new();
        fixture.render(yaml);
        let health = unhealthy.iter().map(|(listener, out)| {
            let id =
                ListenerId { namespace: "mail".into(), object: "s".into(), listener: (*listener).to_owned() };
            let address = || BackendAddress::Ip("10.0.0.1:143".parse().unwrap());
            let unhealthy = (0..*out).map(|_| (address(), "refused".to_owned())).collect();
            (id, BackendHealth { endpoints: 3, unhealthy })
        });
        let report = BindReport { backends: Arc::new(health.collect()), ..BindReport::default() };
        let facts = Facts {
            published: &fixture.renderer,
            report: &report,
            replicas: None,
            surroundings: None,
            now: 0,
        };
        summary(&facts, facts.published.outcomes().next().unwrap().1)
    }

    #[test]
    fn says_where_no_backend_is_ready_with_and_without_health_checks() {
        let two = format!("{}, {}", listener("a", 1143, "good"), listener("b", 1144, "empty"));
        let objects = service("good", 2) + &service("empty", 0);
        assert_eq!(summary_of(&(server(&two, "") + &objects), &[]), "none ready for b");
        let one = server(&listener("b", 1144, "empty"), "") + &objects;
        assert_eq!(summary_of(&one, &[]), "none ready");
        let good = server(&listener("a", 1143, "good"), "") + &objects;
        assert_eq!(summary_of(&good, &[]), "all ready");
        assert_eq!(summary_of(&good, &[("a", 0)]), "all ready");
        assert_eq!(summary_of(&good, &[("a", 1)]), "2/3 ready");
        assert_eq!(summary_of(&good, &[("a", 3)]), "none ready");
    }

    #[test]
    fn a_host_name_without_health_checks_has_no_summary() {
        let named =
            "{name: a, protocol: IMAP, port: 1143, backendAddress: 'dovecot:143', tls: {mode: Disabled}}";
        assert_eq!(summary_of(&server(named, ""), &[]), "");
        assert_eq!(summary_of(&server(named, ""), &[("a", 1)]), "2/3 ready");
    }

    #[test]
    fn names_a_few_listeners() {
        assert_eq!(none_for(&["a", "b", "c", "d", "e"]), "none ready for a, b, c and 2 more");
    }
}
