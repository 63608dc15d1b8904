//! Computes the status of a `MailRoute`.

use std::sync::Arc;

use crate::api::status::{Condition, ConditionStatus, RouteBackendStatus};
use crate::controller::peers::Wanted;
use crate::controller::reason::Reason;
use crate::controller::render::{ObjectOutcome, RouteOutcome, Serving};
use crate::controller::violation::{Concern, Violation};
use crate::model::{Backend, RouteBackend, RouteState};
use crate::protocol::Protocol;

use super::ready::{self, ConditionBody};
use super::stamp::{Stamp, joined};
use super::{Facts, ObjectStatus, backends, health, name};

/// The fields of the status that only a route has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteDetails {
    /// For a held route: the open sessions of its users in all replicas, if they are known.
    pub sessions: Option<u32>,
    /// The number of its domains, with wildcards.
    pub domains: u32,
    /// The number of its users.
    pub users: u32,
    /// The summary of the endpoints of all backends; empty if unknown.
    pub endpoints: String,
    /// Its backends.
    pub backends: Vec<RouteBackendStatus>,
}

/// Computes the status of a route.
pub(super) fn status(facts: &Facts<'_>, outcome: &ObjectOutcome) -> ObjectStatus {
    let stamp = Stamp::new(facts.now, outcome.generation);
    ObjectStatus {
        generation: outcome.generation,
        conditions: conditions(facts, outcome, &stamp),
        route: Some(RouteDetails {
            sessions: outcome.route.as_ref().filter(|route| is_held(route)).and_then(|_| {
                counted(facts, outcome).ok().map(|open| u32::try_from(open).unwrap_or(u32::MAX))
            }),
            ..outcome.route.as_ref().map(|route| details(facts, route)).unwrap_or_default()
        }),
        ..ObjectStatus::default()
    }
}

fn details(facts: &Facts<'_>, route: &RouteOutcome) -> RouteDetails {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let backend = |(protocol, backend): (&Protocol, &Arc<Backend>)| RouteBackendStatus {
        protocol: protocol.label().to_owned(),
        reference: backend.reference.clone(),
        endpoints: backends::of_route(facts, route, *protocol, backend),
    };
    RouteDetails {
        sessions: None,
        domains: count(route.entry.domains.len()),
        users: count(route.entry.user_count()),
        endpoints: backends::summary_of_route(facts, route),
        backends: route.backends.iter().map(backend).collect(),
    }
}

fn conditions(facts: &Facts<'_>, outcome: &ObjectOutcome, stamp: &Stamp) -> Vec<Condition> {
    let violations = outcome.violations.iter();
    let mut conditions = stamp.of_violations(violations, "no conflict with another route");
    let here = programmed(facts, outcome);
    let ready = ready::served_by_others(facts, outcome, "", &here).unwrap_or_else(|| match here.status {
        ConditionStatus::True => ConditionBody::new(here.status, Reason::Ready, here.message.clone()),
        _ => ConditionBody::new(here.status, &here.reason, here.message.clone()),
    });
    for (type_, body) in [("Programmed", here), ("Ready", ready)] {
        conditions.push(stamp.condition(type_, body.status, &body.reason, &body.message));
    }
    conditions.extend(outcome.route.as_ref().and_then(|route| checks(facts, route, stamp)));
    let is_degraded = |route: &RouteOutcome| route.serving == Serving::LastGood;
    conditions.extend(drained(facts, outcome, stamp));
    if outcome.route.as_ref().is_some_and(is_degraded)
        && !outcome.violations.iter().any(Violation::is_pending)
    {
        conditions.push(stamp.degraded());
    }
    conditions.extend(stamp.notices(outcome.violations.iter()));
    conditions
}

/// Returns the results of the health checks of the route's backends, if they are checked.
fn checks(facts: &Facts<'_>, route: &RouteOutcome, stamp: &Stamp) -> Option<Condition> {
    let of_backend = |protocol: &Protocol| {
        let id = RouteBackend { route: route.entry.id.clone(), protocol: *protocol };
        Some((*protocol, facts.report.routes.get(&id)?))
    };
    let checked: Vec<_> = route.backends.keys().filter_map(of_backend).collect();
    health::of_route(&checked, stamp)
}

/// Returns the open sessions of a held route's users in this process, with their logins that are not decided yet.
/// `None` if the route is not held, or they are not counted yet.
pub(super) fn sessions_here(facts: &Facts<'_>, outcome: &ObjectOutcome) -> Option<u64> {
    let route = outcome.route.as_ref().filter(|route| is_held(route))?;
    if is_being_applied(facts, outcome) {
        return None;
    }
    facts.report.held.get(&route.entry.id).copied()
}

fn is_held(route: &RouteOutcome) -> bool {
    matches!(route.entry.state, RouteState::Held { .. })
}

/// Returns the sessions of a held route in all replicas, or why they are not known.
fn sessions(facts: &Facts<'_>, outcome: &ObjectOutcome) -> Result<u64, (Reason, String)> {
    if outcome.violations.iter().any(|violation| violation.concern == Concern::Conflicted) {
        let why = "some domains or users belong to an older route and are not held; see Conflicted";
        return Err((Reason::RouteConflict, why.to_owned()));
    }
    counted(facts, outcome).map_err(|why| (Reason::Pending, why))
}

fn counted(facts: &Facts<'_>, outcome: &ObjectOutcome) -> Result<u64, String> {
    if outcome.route.as_ref().is_some_and(|route| route.entry.unread.is_some()) {
        return Err("the users of the route are not known yet; see ResolvedRefs".to_owned());
    }
    let here = sessions_here(facts, outcome).ok_or("this replica is counting the sessions")?;
    let Some(replicas) = facts.replicas else { return Ok(here) };
    let (object, generation) = (name(&outcome.id()), outcome.generation);
    let others = replicas.sessions(&Wanted { object: &object, uid: &outcome.uid, generation })?;
    Ok(here.saturating_add(others))
}

/// Returns whether all sessions of a held route have ended, in all replicas. There is no such condition in other states.
fn drained(facts: &Facts<'_>, outcome: &ObjectOutcome, stamp: &Stamp) -> Option<Condition> {
    use ConditionStatus::{False, True, Unknown};
    outcome.route.as_ref().filter(|route| is_held(route))?;
    let (status, reason, text) = match sessions(facts, outcome) {
        Ok(0) => (
            True,
            Reason::Drained,
            "no session of its users is open; their mailboxes can be moved".to_owned(),
        ),
        Ok(1) => (False, Reason::SessionsOpen, "1 session of its users is open and will be ended".to_owned()),
        Ok(open) => {
            (False, Reason::SessionsOpen, format!("{open} sessions of its users are open and will be ended"))
        }
        Err((reason, why)) => (Unknown, reason, why),
    };
    Some(stamp.condition("Drained", status, reason, &text))
}

/// Tells whether the listeners of the `MailServer` use the current generation of the route in this process.
pub(super) fn programmed(facts: &Facts<'_>, outcome: &ObjectOutcome) -> ConditionBody {
    use ConditionStatus::{False, True, Unknown};
    let excluding: Vec<&Violation> = outcome
        .violations
        .iter()
        .filter(|violation| violation.concern.excludes() && violation.concern != Concern::Conflicted)
        .collect();
    if !excluding.is_empty() && excluding.iter().all(|violation| violation.is_pending()) {
        return ConditionBody::new(Unknown, Reason::Pending, joined(&excluding));
    }
    let Some(route) = &outcome.route else {
        let text = "this route is not in use; see Accepted and ResolvedRefs";
        return ConditionBody::new(False, Reason::NotServed, text.to_owned());
    };
    if route.serving == Serving::LastGood {
        let text = "the previous configuration is still in use; see the other conditions";
        return ConditionBody::new(False, Reason::UsingLastGood, text.to_owned());
    }
    if !excluding.is_empty() {
        let text = "a part of this route cannot be used, and logins that need it get a temporary error; see ResolvedRefs";
        return ConditionBody::new(False, Reason::NotServed, text.to_owned());
    }
    if is_being_applied(facts, outcome) {
        let text = "the listeners do not use the route yet";
        return ConditionBody::new(Unknown, Reason::Pending, text.to_owned());
    }
    let text = format!("the listeners of MailServer {} use the route", route.server);
    ConditionBody::new(True, Reason::Programmed, text)
}

/// Tells whether the API server has not returned the references of a route yet, or the data plane does not use it yet.
pub(super) fn is_pending(facts: &Facts<'_>, outcome: &ObjectOutcome) -> bool {
    outcome.violations.iter().any(Violation::is_pending) || is_being_applied(facts, outcome)
}

fn is_being_applied(facts: &Facts<'_>, outcome: &ObjectOutcome) -> bool {
    let Some(route) = &outcome.route else { return false };
    let mut listeners = facts.published.with_routes_of(&route.server);
    listeners.any(|listener| {
        facts.published.since(&listener.id).is_some_and(|since| facts.report.revision < since)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use super::*;
    use crate::controller::index::{Key, Kind, ObjectId};
    use crate::controller::peers::Peers;
    use crate::controller::render::tests::{Fixture, server};
    use crate::model::served::{Entry, Page, Replica, ServedObject};
    use crate::model::{BackendHealth, BindReport, RouteId};

    const ROUTE: &str = "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailRoute\nmetadata: {name: wave, namespace: mail}\n\
                         spec: {serverRef: {name: s}, match: {users: [bob@a.example]}, state: STATE, \
                         backend: {services: [{protocol: IMAP, address: 'b:1'}]}}\n";

    /// Returns the conditions of a route in this state, with these sessions here and, if there is one, in another
    /// replica.
    fn conditions_of(state: &str, here: Option<u64>, other: Option<Option<u64>>) -> Vec<String> {
        let mut fixture = Fixture::new();
        let imap = "{name: a, protocol: IMAP, port: 143, backendAddress: 'c:1', tls: {mode: Disabled}}";
        fixture.render(&(server(imap, "") + &ROUTE.replace("STATE", state)));
        let id = ObjectId::new(Kind::Route, &Key::new("mail", "wave"));
        let outcome = fixture.renderer.outcome(&id).unwrap();
        let route = RouteId { namespace: "mail".into(), name: "wave".into() };
        let held = here.map(|sessions| (route, sessions)).into_iter().collect::<Map<_, _>>();
        let report = BindReport { revision: 1, held: Arc::new(held), ..BindReport::default() };
        let peers = other.map(|sessions| with_replica(&id, sessions));
        let facts = Facts {
            published: &fixture.renderer,
            report: &report,
            replicas: peers.as_ref(),
            surroundings: None,
            now: 0,
        };
        let conditions = status(&facts, outcome).conditions.into_iter();
        conditions.map(|c| format!("{}={:?} {}", c.type_, c.status, c.reason)).collect()
    }

    fn with_replica(id: &ObjectId, sessions: Option<u64>) -> Peers {
        let (address, now) = ("10.0.0.2:9090".parse().unwrap(), tokio::time::Instant::now());
        let mut peers = Peers::awaited("own");
        peers.set(&Map::from([(address, "pod-b".to_owned())]), now);
        let served = ServedObject { generation: 1, sessions, ..ServedObject::default() };
        let page = Page {
            replica: Replica { name: "pod-b".into(), instance: "other".into(), node_address: None },
            version: 1,
            ready: None,
            whole: true,
            objects: vec![Entry { object: name(id), served: Some(served) }],
            totals: None,
            exclusive: None,
        };
        peers.answered(address, page, now);
        peers
    }

    #[test]
    fn a_route_is_ready_when_the_listeners_use_it() {
        assert_eq!(
            conditions_of("Active", None, None),
            [
                "Accepted=True Accepted",
                "ResolvedRefs=True ResolvedRefs",
                "Conflicted=False NoConflicts",
                "Programmed=True Programmed",
                "Ready=True Ready"
            ]
        );
    }

    /// Returns the backends, their summary and the condition `BackendHealthy` of a route to IMAP and POP3 endpoints, with
    /// these numbers of unhealthy endpoints among three.
    fn checked(unhealthy: &[(Protocol, usize)]) -> (Vec<Option<String>>, String, Option<Condition>) {
        let mut fixture = Fixture::new();
        let imap = "{name: a, protocol: IMAP, port: 143, backendAddress: 'c:1', tls: {mode: Disabled}}";
        let services = "[{protocol: IMAP, address: '10.0.0.1:143'}, {protocol: POP3, address: 'b:1'}]";
        let route = ROUTE.replace("STATE", "Active").replace("[{protocol: IMAP, address: 'b:1'}]", services);
        fixture.render(&(server(imap, "") + &route));
        let id = ObjectId::new(Kind::Route, &Key::new("mail", "wave"));
        let route = RouteId { namespace: "mail".into(), name: "wave".into() };
        let health = unhealthy.iter().map(|(protocol, out)| {
            let address = || crate::net::BackendAddress::Ip("10.0.0.1:143".parse().unwrap());
            let unhealthy = (0..*out).map(|_| (address(), "refused".to_owned())).collect();
            let id = RouteBackend { route: route.clone(), protocol: *protocol };
            (id, BackendHealth { endpoints: 3, unhealthy })
        });
        let report = BindReport { revision: 1, routes: Arc::new(health.collect()), ..BindReport::default() };
        let (published, surroundings) = (&fixture.renderer, None);
        let facts = Facts { published, report: &report, replicas: None, surroundings, now: 0 };
        let status = status(&facts, fixture.renderer.outcome(&id).unwrap());
        let details = status.route.unwrap();
        let states = details.backends.into_iter().map(|backend| backend.endpoints).collect();
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == "BackendHealthy");
        (states, details.endpoints, condition)
    }

    #[test]
    fn a_route_without_a_healthy_endpoint_says_so() {
        use Protocol::{Imap, Pop3};
        let states = |imap: &str, pop3: &str| [imap, pop3].map(|text| Some(text.to_owned())).to_vec();
        let (unchecked, summary, condition) = checked(&[]);
        assert_eq!(unchecked, [Some("all ready".to_owned()), None], "a host name is not known");
        assert_eq!((summary.as_str(), condition), ("all ready", None));
        let (well, summary, condition) = checked(&[(Imap, 0), (Pop3, 0)]);
        assert_eq!((well, summary.as_str()), (states("all ready", "all ready"), "all ready"));
        assert_eq!(condition.unwrap().status, ConditionStatus::True);
        let (some, summary, condition) = checked(&[(Imap, 1), (Pop3, 3)]);
        assert_eq!((some, summary.as_str()), (states("2/3 ready", "none ready"), "none ready for POP3"));
        let condition = condition.unwrap();
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::False, "AllUnhealthy"));
        let message = condition.message;
        assert!(message.starts_with("IMAP: 1 of 3 endpoints fails its health checks"), "{message}");
        assert!(message.contains("; POP3: 3 of 3 endpoints fail their health checks"), "{message}");
    }

    #[test]
    fn a_held_route_is_drained_when_no_replica_has_a_session_of_its_users() {
        let drained = |here, other| conditions_of("Held", here, other).pop().unwrap();
        assert_eq!(drained(None, None), "Drained=Unknown Pending", "they are not counted yet");
        assert_eq!(drained(Some(2), None), "Drained=False SessionsOpen");
        assert_eq!(drained(Some(0), None), "Drained=True Drained");
        assert_eq!(drained(Some(0), Some(Some(1))), "Drained=False SessionsOpen");
        assert_eq!(drained(Some(0), Some(None)), "Drained=Unknown Pending");
        assert_eq!(drained(Some(0), Some(Some(0))), "Drained=True Drained");
    }
}
