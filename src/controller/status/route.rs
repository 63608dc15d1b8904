//! Computes the status of a `MailRoute`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::status::{Condition, ConditionStatus, RouteBackendStatus};
use crate::controller::reason::Reason;
use crate::controller::render::{ObjectOutcome, RouteOutcome, Serving};
use crate::controller::violation::{Concern, Violation};
use crate::model::Backend;
use crate::net::BackendAddress;
use crate::protocol::Protocol;

use super::ready::{self, ConditionBody};
use super::stamp::{Stamp, joined};
use super::{Facts, ObjectStatus};

/// The fields of the status that only a route has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteDetails {
    /// The number of its domains, with wildcards.
    pub domains: u32,
    /// The number of its users.
    pub users: u32,
    /// Its backends.
    pub backends: Vec<RouteBackendStatus>,
}

/// Computes the status of a route.
pub(super) fn status(facts: &Facts<'_>, outcome: &ObjectOutcome) -> ObjectStatus {
    let stamp = Stamp::new(facts.now, outcome.generation);
    ObjectStatus {
        generation: outcome.generation,
        address: String::new(),
        backends: String::new(),
        conditions: conditions(facts, outcome, &stamp),
        listeners: Vec::new(),
        addresses: Vec::new(),
        route: Some(outcome.route.as_ref().map(details).unwrap_or_default()),
    }
}

fn details(route: &RouteOutcome) -> RouteDetails {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let backend = |(protocol, backend): (&Protocol, &Arc<Backend>)| RouteBackendStatus {
        protocol: protocol.name().to_ascii_uppercase(),
        reference: backend.reference.clone(),
        endpoints: endpoints(backend).map(str::to_owned),
    };
    RouteDetails {
        domains: count(route.entry.domains.len()),
        users: count(route.entry.user_count()),
        backends: route.backends.iter().map(backend).collect(),
    }
}

/// Summarises endpoints without numbers, so that scaling a Service does not cause a write of the status. The endpoints
/// behind a host name are not known.
fn endpoints(backend: &Backend) -> Option<&'static str> {
    if backend.endpoints.is_empty() {
        return Some("none ready");
    }
    let are_known = backend.endpoints.iter().all(|endpoint| matches!(endpoint, BackendAddress::Ip(_)));
    are_known.then_some("all ready")
}

fn conditions(facts: &Facts<'_>, outcome: &ObjectOutcome, stamp: &Stamp) -> Vec<Condition> {
    let about = |concern| outcome.violations.iter().filter(move |violation| violation.concern == concern);
    let of = |concern| about(concern).collect::<Vec<&Violation>>();
    let good = (Reason::Accepted, "the manifest is valid");
    let found = (Reason::ResolvedRefs, "everything that it refers to was found");
    let mut conditions = vec![
        stamp.good_unless("Accepted", &of(Concern::Accepted), good),
        stamp.good_unless("ResolvedRefs", &of(Concern::ResolvedRefs), found),
    ];
    let conflicts = of(Concern::Conflicted);
    conditions.push(match conflicts.first() {
        Some(first) => {
            stamp.condition("Conflicted", ConditionStatus::True, first.reason, &joined(&conflicts))
        }
        None => {
            let text = "no older route has the same domains or users";
            stamp.condition("Conflicted", ConditionStatus::False, Reason::NoConflicts, text)
        }
    });
    let here = programmed(facts, outcome);
    let ready = ready::served_by_others(facts, outcome, "", &here).unwrap_or_else(|| match here.status {
        ConditionStatus::True => ConditionBody::new(here.status, Reason::Ready, here.message.clone()),
        _ => ConditionBody::new(here.status, &here.reason, here.message.clone()),
    });
    for (type_, body) in [("Programmed", here), ("Ready", ready)] {
        conditions.push(stamp.condition(type_, body.status, &body.reason, &body.message));
    }
    let is_degraded = |route: &RouteOutcome| route.serving == Serving::LastGood;
    if outcome.route.as_ref().is_some_and(is_degraded)
        && !outcome.violations.iter().any(Violation::is_pending)
    {
        conditions.push(stamp.degraded());
    }
    let mut notices: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in outcome.violations.iter().filter(|violation| !violation.concern.excludes()) {
        notices.entry(violation.concern.condition()).or_default().push(violation);
    }
    for (condition, violations) in notices {
        let reason = violations.last().map_or(condition, |worst| worst.reason.name());
        conditions.push(stamp.condition(condition, ConditionStatus::True, reason, &joined(&violations)));
    }
    conditions
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
        let text = "the listeners are getting the route";
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
