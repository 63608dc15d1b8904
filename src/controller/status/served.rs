//! What this replica serves of an object, for the other replicas and for the ports of the Service.

use crate::api::status::ConditionStatus;
use crate::controller::index::ObjectId;
use crate::controller::ports::ListenerPort;
use crate::controller::reason::Reason;
use crate::controller::render::{ListenerOutcome, ObjectOutcome, RouteOutcome};
use crate::controller::violation::Violation;
use crate::model::SocketState;
use crate::model::served::{Bound, Problem, ServedObject};

use super::stamp::joined;
use super::{Facts, object, ready, route};

/// Returns the object's entry in the ledger; `None` if this replica does not know the object.
#[must_use]
pub fn served(facts: &Facts<'_>, id: &ObjectId) -> Option<ServedObject> {
    let outcome = facts.published.outcome(id)?;
    let problem = |listener: &ListenerOutcome| {
        let verdict = ready::programmed(facts, listener);
        (verdict.status != ConditionStatus::True).then(|| Problem {
            listener: listener.id.listener.clone(),
            pending: verdict.status == ConditionStatus::Unknown,
            reason: verdict.reason,
            message: cause(outcome, listener).unwrap_or(verdict.message),
        })
    };
    let mut problems: Vec<Problem> = outcome.listeners.iter().filter_map(problem).collect();
    problems.extend(route_problem(facts, outcome));
    if problems.is_empty() && object::is_invalid(outcome) {
        problems.push(Problem {
            listener: String::new(),
            pending: false,
            reason: Reason::Invalid.to_string(),
            message: joined(&outcome.violations.iter().collect::<Vec<_>>()),
        });
    }
    let mut bound: Vec<Bound> =
        outcome.listeners.iter().filter_map(|listener| bound(facts, listener)).collect();
    let is_known = |route: &RouteOutcome| route.entry.unread.is_none();
    if outcome.route.as_ref().is_some_and(is_known) && !route::is_pending(facts, outcome) {
        bound.push(Bound { listener: String::new(), port: None });
    }
    Some(ServedObject {
        uid: outcome.uid.clone(),
        generation: outcome.generation,
        bound: Some(bound),
        problems,
        sessions: route::sessions_here(facts, outcome),
    })
}

/// Returns why a route is not in use.
fn route_problem(facts: &Facts<'_>, outcome: &ObjectOutcome) -> Option<Problem> {
    outcome.route.as_ref()?;
    let verdict = route::programmed(facts, outcome);
    let excluding: Vec<&Violation> =
        outcome.violations.iter().filter(|violation| violation.concern.excludes()).collect();
    (verdict.status != ConditionStatus::True).then(|| Problem {
        listener: String::new(),
        pending: verdict.status == ConditionStatus::Unknown,
        reason: verdict.reason,
        message: if excluding.is_empty() { verdict.message } else { joined(&excluding) },
    })
}

/// Returns the ports that an object's listeners use and that other hosts can reach.
pub fn listener_ports(facts: &Facts<'_>, id: &ObjectId) -> Vec<ListenerPort> {
    let Some(outcome) = facts.published.outcome(id) else { return Vec::new() };
    let claim = |listener: &ListenerOutcome| {
        let port = listener.address.as_ref().or(listener.wanted.as_ref())?.public_port()?;
        Some(ListenerPort { port, is_ready: ready::is_served_everywhere(facts, outcome, listener) })
    };
    outcome.listeners.iter().filter_map(claim).collect()
}

/// Returns the violations that exclude a listener. Other replicas do not see its other conditions.
fn cause(object: &ObjectOutcome, listener: &ListenerOutcome) -> Option<String> {
    let all = object.violations.iter().chain(&listener.violations);
    let causes: Vec<&Violation> = all.filter(|violation| violation.concern.excludes()).collect();
    (!causes.is_empty()).then(|| joined(&causes))
}

/// Returns the entry of a bound listener. During a change it is served with its previous configuration.
fn bound(facts: &Facts<'_>, listener: &ListenerOutcome) -> Option<Bound> {
    let address = listener.address.as_ref()?;
    let is_bound = matches!(facts.report.sockets.get(address), Some(SocketState::Bound(_)));
    is_bound.then(|| Bound { listener: listener.id.listener.clone(), port: address.public_port() })
}
