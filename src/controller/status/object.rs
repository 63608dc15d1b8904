//! Computes the status of one object from those of its listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::controller::render::{Kind, ListenerOutcome, ObjectOutcome};
use crate::controller::service::{Front, joined as with_port};
use crate::controller::violation::{Concern, Violation};

use super::stamp::{Stamp, joined};
use super::{Facts, Listener, ObjectStatus, Surroundings, backends, listener, ready, route};

/// Computes the status of an object.
pub(super) fn status(facts: &Facts<'_>, outcome: &ObjectOutcome) -> ObjectStatus {
    if outcome.kind == Kind::Route {
        return route::status(facts, outcome);
    }
    let stamp = Stamp::new(facts.now, outcome.generation);
    let mut listeners: Vec<Listener> = outcome
        .listeners
        .iter()
        .map(|listener| Listener {
            name: listener.id.listener.clone(),
            conditions: listener::conditions(facts, outcome, listener, &stamp),
            addresses: addresses(facts.surroundings, listener),
        })
        .collect();
    let generation = outcome.generation;
    let address = address(facts.surroundings, outcome, &listeners);
    let backends = backends::summary(facts, outcome);
    if outcome.kind == Kind::Listener
        && let Some(Listener { conditions, addresses, .. }) = listeners.pop()
    {
        let listeners = Vec::new();
        return ObjectStatus { generation, address, backends, conditions, listeners, addresses, route: None };
    }
    let mut conditions = aggregate(outcome, &listeners, &stamp);
    if let Some(pending) = facts.replicas.and_then(|_| pending_address(facts.surroundings, outcome))
        && let Some(ready) = conditions.iter_mut().find(|condition| condition.type_ == "Ready")
        && ready.status == ConditionStatus::True
    {
        ready.message = format!("{}; {pending}", ready.message);
    }
    ObjectStatus { generation, address, backends, conditions, listeners, addresses: Vec::new(), route: None }
}

/// Tells whether the object as a whole is refused.
pub(super) fn is_invalid(outcome: &ObjectOutcome) -> bool {
    outcome.violations.iter().any(|violation| violation.concern == Concern::Accepted)
}

/// Returns the addresses of a listener for clients.
fn addresses(surroundings: Option<&Surroundings>, listener: &ListenerOutcome) -> Vec<String> {
    let (Some(surroundings), Some(address)) = (surroundings, &listener.address) else { return Vec::new() };
    let mut addresses = address.public_port().map(|port| surroundings.addresses(port)).unwrap_or_default();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

impl Surroundings {
    fn addresses(&self, port: u16) -> Vec<String> {
        match &self.front {
            Front::Known(service) => service.addresses(port, &self.nodes),
            Front::Awaited(_) | Front::NotFound(_) | Front::NotReadable(..) => Vec::new(),
            // Without --service, clients connect to the nodes' addresses.
            Front::None => {
                self.nodes.iter().map(|node: &IpAddr| with_port(&node.to_string(), port)).collect()
            }
        }
    }
}

/// Returns the message for the first listener whose load balancer has no address yet.
fn pending_address(surroundings: Option<&Surroundings>, outcome: &ObjectOutcome) -> Option<String> {
    outcome.listeners.iter().find_map(|listener| ready::pending_address(surroundings, listener))
}

/// Returns the hosts for clients or, if there are none, the sockets.
fn address(surroundings: Option<&Surroundings>, outcome: &ObjectOutcome, listeners: &[Listener]) -> String {
    let reached = listeners.iter().flat_map(|listener| &listener.addresses);
    let hosts: BTreeSet<&str> = reached.filter_map(|address| Some(address.rsplit_once(':')?.0)).collect();
    let text = if surroundings.is_some() && !hosts.is_empty() {
        hosts.into_iter().collect::<Vec<_>>().join(", ")
    } else if pending_address(surroundings, outcome).is_some() {
        PENDING.to_owned()
    } else {
        let bound = outcome.listeners.iter().filter_map(|listener| listener.address.as_ref());
        bound.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    text.chars().take(MAX_ADDRESS).collect()
}

/// Combines the conditions of all listeners.
fn aggregate(object: &ObjectOutcome, listeners: &[Listener], stamp: &Stamp) -> Vec<Condition> {
    let own: Vec<&Violation> = object.violations.iter().filter(|v| v.concern == Concern::Accepted).collect();
    let mut conditions = Vec::new();
    for (type_, good) in [
        ("Accepted", (Reason::Accepted, "the manifest is valid")),
        ("ResolvedRefs", (Reason::ResolvedRefs, "all references are resolved")),
        ("Programmed", (Reason::Programmed, "all listeners are bound")),
        ("Ready", (Reason::Ready, "all listeners are bound and serve this generation")),
    ] {
        if let (Some(first), "Accepted") = (own.first(), type_) {
            conditions.push(stamp.condition(type_, ConditionStatus::False, first.reason, &joined(&own)));
            continue;
        }
        conditions.push(worst(type_, listeners, stamp).unwrap_or_else(|| match own.first() {
            Some(_) if type_ == "Ready" || type_ == "Programmed" => {
                let text = "the manifest is invalid; see Accepted";
                stamp.condition(type_, ConditionStatus::False, Reason::Invalid, text)
            }
            _ => stamp.condition(type_, ConditionStatus::True, good.0, good.1),
        }));
    }
    let is_degraded = |listener: &Listener| listener.conditions.iter().any(|c| c.type_ == "Degraded");
    if listeners.iter().any(is_degraded) {
        conditions.push(stamp.degraded());
    }
    for type_ in ["BackendHealthy", "NameServersAnswer", "ClientIPPreserved"] {
        conditions.extend(worst(type_, listeners, stamp));
    }
    conditions.extend(alarms(listeners, stamp));
    conditions
}

/// Returns the combined condition of the listeners for which it is not true, if there are any.
fn worst(type_: &str, listeners: &[Listener], stamp: &Stamp) -> Option<Condition> {
    let mut bad: Vec<(&str, &Condition)> = listeners
        .iter()
        .filter_map(|listener| {
            let mut conditions = listener.conditions.iter();
            Some((listener.name.as_str(), conditions.find(|condition| condition.type_ == type_)?))
        })
        .filter(|(_, condition)| condition.status != ConditionStatus::True)
        .collect();
    bad.sort_by_key(|(_, condition)| condition.status == ConditionStatus::Unknown);
    let (_, first) = bad.first()?;
    Some(stamp.condition(type_, first.status, &first.reason, &named(&bad)))
}

/// Combines the warnings of the listeners by type.
fn alarms(listeners: &[Listener], stamp: &Stamp) -> Vec<Condition> {
    let mut alarms: BTreeMap<&str, Vec<(&str, &Condition)>> = BTreeMap::new();
    for listener in listeners {
        for condition in listener.conditions.iter().filter(|c| Concern::is_notice(&c.type_)) {
            alarms.entry(&condition.type_).or_default().push((&listener.name, condition));
        }
    }
    let alarm = |(type_, all): (&str, Vec<(&str, &Condition)>)| {
        let (_, first) = all.first()?;
        Some(stamp.condition(type_, first.status, &first.reason, &named(&all)))
    };
    alarms.into_iter().filter_map(alarm).collect()
}

/// Formats `listeners a, b: message | listener c: message`.
fn named(conditions: &[(&str, &Condition)]) -> String {
    let mut messages: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, condition) in conditions {
        match messages.iter_mut().find(|(message, _)| *message == condition.message) {
            Some((_, names)) => names.push(name),
            None => messages.push((&condition.message, vec![name])),
        }
    }
    let sentence = |(message, names): (&str, Vec<&str>)| {
        let who = if names.len() == 1 { "listener" } else { "listeners" };
        format!("{who} {}: {message}", names.join(", "))
    };
    messages.into_iter().map(sentence).collect::<Vec<_>>().join(" | ")
}

/// The address while a load balancer has none, as in `kubectl get services`.
const PENDING: &str = "<pending>";
/// The limit of `addresses` in the schema.
const MAX_ADDRESSES: usize = 16;
/// The limit of `status.address` in the schema.
const MAX_ADDRESS: usize = 1024;
