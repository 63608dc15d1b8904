//! How every object is: conditions from what was rendered and what is bound. Pure.
//!
//! A listener is Ready when the rendering of its object's own generation is bound; an object is Ready when
//! all its listeners are. Programmed is the same for this process alone; in a cluster, Ready asks all
//! replicas. Alarms are conditions that exist only while they are true.

mod changes;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::status::{Condition, ConditionStatus, ListenerStatus, MailListenerStatus, MailServerStatus};
use crate::model::{BackendHealth, BindReport, SocketState};

use super::index::Key;
use super::publish::Publisher;
use super::render::{Kind, ListenerOutcome, ObjectOutcome, Serving};
use super::violation::{Concern, Violation};

pub use changes::{Change, changes};

/// What is known when a status is made.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What became of every object, and since when.
    pub published: &'a Publisher,
    /// What the data plane last reported.
    pub report: &'a BindReport,
    /// Unix seconds.
    pub now: i64,
}

/// The status of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status(BTreeMap<(Kind, Key), ObjectStatus>);

/// The status of one object.
#[derive(Clone, Debug, PartialEq)]
struct ObjectStatus {
    generation: i64,
    address: String,
    conditions: Vec<Condition>,
    listeners: Vec<(String, Vec<Condition>)>,
}

impl Status {
    /// From the facts; conditions that do not change keep their time.
    #[must_use]
    pub fn new(facts: &Facts<'_>, previous: &Self) -> Self {
        let mut objects = BTreeMap::new();
        for outcome in facts.published.outcomes().values() {
            let id = (outcome.kind, outcome.key.clone());
            let mut status = object(facts, outcome);
            if let Some(previous) = previous.0.get(&id) {
                status.keep_times(previous);
            }
            objects.insert(id, status);
        }
        Self(objects)
    }

    /// Takes over what was said of an object before, unless it is known already: conditions that still hold keep
    /// their times. What is no status of ours is left alone.
    pub fn recall(&mut self, kind: Kind, key: &Key, status: &Value) {
        if let Some(status) = ObjectStatus::read(kind, status) {
            self.0.entry((kind, key.clone())).or_insert(status);
        }
    }

    /// The status of every object, as the object itself has it.
    pub fn each(&self) -> impl Iterator<Item = (Kind, &Key, Value)> {
        self.0.iter().map(|((kind, key), status)| (*kind, key, status.value(*kind)))
    }

    /// The document that `/status` serves.
    #[must_use]
    pub fn document(&self, revision: u64, problems: &[String]) -> Value {
        let objects: Vec<Value> =
            self.each().map(|(kind, key, status)| json!({ "kind": kind.name(), "namespace": key.namespace, "name": key.name, "status": status })).collect();
        json!({ "revision": revision, "objects": objects, "problems": problems })
    }
}

impl ObjectStatus {
    fn keep_times(&mut self, previous: &Self) {
        keep_times(&mut self.conditions, &previous.conditions);
        for (name, conditions) in &mut self.listeners {
            if let Some((_, previous)) = previous.listeners.iter().find(|(other, _)| other == name) {
                keep_times(conditions, previous);
            }
        }
    }

    fn read(kind: Kind, status: &Value) -> Option<Self> {
        let (generation, address, conditions, listeners) = match kind {
            Kind::Server => {
                let status = MailServerStatus::deserialize(status).ok()?;
                let listeners = status.listeners.into_iter().map(|l| (l.name, l.conditions)).collect();
                (status.observed_generation, status.address, status.conditions, listeners)
            }
            Kind::Listener => {
                let status = MailListenerStatus::deserialize(status).ok()?;
                (status.observed_generation, status.address, status.conditions, vec![])
            }
        };
        Some(Self { generation: generation?, address: address.unwrap_or_default(), conditions, listeners })
    }

    /// Exactly as the object's own would be.
    fn value(&self, kind: Kind) -> Value {
        let address = (!self.address.is_empty()).then(|| self.address.clone());
        let status = match kind {
            Kind::Server => serde_json::to_value(MailServerStatus {
                observed_generation: Some(self.generation),
                listener_count: i32::try_from(self.listeners.len()).ok(),
                address,
                conditions: self.conditions.clone(),
                listeners: self
                    .listeners
                    .iter()
                    .map(|(name, conditions)| listener_status(name, conditions))
                    .collect(),
            }),
            Kind::Listener => serde_json::to_value(MailListenerStatus {
                observed_generation: Some(self.generation),
                address,
                conditions: self.conditions.clone(),
            }),
        };
        status.unwrap_or_default()
    }
}

fn listener_status(name: &str, conditions: &[Condition]) -> ListenerStatus {
    ListenerStatus { name: name.to_owned(), conditions: conditions.to_vec() }
}

fn keep_times(conditions: &mut [Condition], previous: &[Condition]) {
    for condition in conditions {
        let same = previous.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(old) = same {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
}

fn object(facts: &Facts<'_>, outcome: &ObjectOutcome) -> ObjectStatus {
    let stamp = Stamp::new(facts.now, outcome.generation);
    let listeners: Vec<(String, Vec<Condition>)> = outcome
        .listeners
        .iter()
        .map(|listener| (listener.id.listener.clone(), conditions(facts, outcome, listener, &stamp)))
        .collect();
    let addresses: Vec<String> = outcome
        .listeners
        .iter()
        .filter_map(|listener| Some(listener.address.as_ref()?.to_string()))
        .collect();
    let address = addresses.join(", ").chars().take(MAX_ADDRESS).collect();
    match (outcome.kind, listeners.first()) {
        (Kind::Listener, Some((_, conditions))) => {
            let conditions = conditions.clone();
            ObjectStatus { generation: outcome.generation, address, conditions, listeners: vec![] }
        }
        _ => {
            let conditions = aggregate(outcome, &listeners, &stamp);
            ObjectStatus { generation: outcome.generation, address, conditions, listeners }
        }
    }
}

/// The conditions of one listener.
fn conditions(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    listener: &ListenerOutcome,
    stamp: &Stamp,
) -> Vec<Condition> {
    let all = || object.violations.iter().chain(&listener.violations);
    let about = |concern| all().filter(move |v| v.concern == concern).collect::<Vec<&Violation>>();
    let accepted = about(Concern::Accepted);
    let resolved = about(Concern::ResolvedRefs);
    let conflicts = about(Concern::Conflicted);
    let mut conditions = vec![
        stamp.good_unless("Accepted", &accepted, ("Accepted", "the manifest is valid")),
        stamp.good_unless(
            "ResolvedRefs",
            &resolved,
            ("ResolvedRefs", "everything that it refers to was found"),
        ),
        match conflicts.first() {
            Some(first) => {
                stamp.condition("Conflicted", ConditionStatus::True, first.reason, &joined(&conflicts))
            }
            None => stamp.condition(
                "Conflicted",
                ConditionStatus::False,
                "NoConflicts",
                "no other listener wants its socket",
            ),
        },
    ];
    let (status, reason, message) = programmed(facts, listener);
    conditions.push(stamp.condition("Programmed", status, reason, &message));
    conditions.push(stamp.condition("Ready", status, reason, &message));
    if listener.serving == Serving::LastGood {
        conditions.push(stamp.degraded());
    }
    conditions.extend(facts.report.backends.get(&listener.id).map(|health| backend_healthy(health, stamp)));
    let mut notices: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in all().filter(|violation| !violation.concern.excludes()) {
        notices.entry(violation.concern.condition()).or_default().push(violation);
    }
    for (condition, violations) in notices {
        conditions.push(stamp.condition(condition, ConditionStatus::True, condition, &joined(&violations)));
    }
    conditions
}

/// Whether the listener's own generation is bound in this process.
fn programmed(facts: &Facts<'_>, listener: &ListenerOutcome) -> (ConditionStatus, &'static str, String) {
    use ConditionStatus::{False, True, Unknown};
    let Some(address) = &listener.address else {
        return (False, "NotServed", "the listener is not served; its other conditions say why".to_owned());
    };
    if listener.serving == Serving::LastGood {
        let text = format!("an earlier generation is served on {address}; the other conditions say why");
        return (False, "UsingLastGood", text);
    }
    let wanted = facts.published.since(&listener.id).unwrap_or(u64::MAX);
    match facts.report.sockets.get(address) {
        Some(state) if facts.report.revision >= wanted => match state {
            SocketState::Bound(bound) => {
                let bound: Vec<String> = bound.iter().map(ToString::to_string).collect();
                let where_ =
                    if bound.is_empty() { String::new() } else { format!(" ({})", bound.join(", ")) };
                (True, "Bound", format!("{address} is bound{where_}"))
            }
            SocketState::Failed(why) => (False, "BindFailed", format!("{address} cannot be bound: {why}")),
        },
        _ => (Unknown, "Pending", format!("{address} is being bound")),
    }
}

/// What the health checks say; nothing that keeps a listener from being ready.
fn backend_healthy(health: &BackendHealth, stamp: &Stamp) -> Condition {
    let (all, out) = (health.endpoints, health.unhealthy.len());
    if out == 0 {
        let text = format!("all {all} endpoints answer their health checks");
        return stamp.condition("BackendHealthy", ConditionStatus::True, "AllHealthy", &text);
    }
    let (reason, consequence) = if out == all {
        ("AllUnhealthy", "sessions are given to all of them anyway")
    } else {
        ("SomeUnhealthy", "they get no sessions")
    };
    let why: Vec<String> =
        health.unhealthy.iter().map(|(address, why)| format!("{address}: {why}")).collect();
    let text =
        format!("{out} of {all} endpoints fail their health checks, {consequence}: {}", why.join(" | "));
    stamp.condition("BackendHealthy", ConditionStatus::False, reason, &text)
}

/// A MailServer's conditions: what holds for all its listeners.
fn aggregate(
    object: &ObjectOutcome,
    listeners: &[(String, Vec<Condition>)],
    stamp: &Stamp,
) -> Vec<Condition> {
    let own: Vec<&Violation> = object.violations.iter().filter(|v| v.concern == Concern::Accepted).collect();
    let mut conditions = Vec::new();
    for (type_, good) in [
        ("Accepted", "the manifest is valid"),
        ("ResolvedRefs", "everything that it refers to was found"),
        ("Programmed", "all listeners are bound"),
        ("Ready", "all listeners are bound and serve this generation"),
    ] {
        if let (Some(first), "Accepted") = (own.first(), type_) {
            conditions.push(stamp.condition(type_, ConditionStatus::False, first.reason, &joined(&own)));
            continue;
        }
        conditions.push(worst(type_, listeners, stamp).unwrap_or_else(|| match own.first() {
            Some(_) if type_ == "Ready" || type_ == "Programmed" => {
                let text = "the manifest is invalid; Accepted says why";
                stamp.condition(type_, ConditionStatus::False, "Invalid", text)
            }
            _ => stamp.condition(type_, ConditionStatus::True, type_, good),
        }));
    }
    let degraded =
        |(_, conditions): &(String, Vec<Condition>)| conditions.iter().any(|c| c.type_ == "Degraded");
    if listeners.iter().any(degraded) {
        conditions.push(stamp.degraded());
    }
    conditions.extend(worst("BackendHealthy", listeners, stamp));
    conditions
}

/// The condition of the listeners for which it does not hold, if there are any.
fn worst(type_: &str, listeners: &[(String, Vec<Condition>)], stamp: &Stamp) -> Option<Condition> {
    let mut bad: Vec<(&str, &Condition)> = listeners
        .iter()
        .filter_map(|(name, conditions)| {
            Some((name.as_str(), conditions.iter().find(|condition| condition.type_ == type_)?))
        })
        .filter(|(_, condition)| condition.status != ConditionStatus::True)
        .collect();
    bad.sort_by_key(|(_, condition)| condition.status == ConditionStatus::Unknown);
    let (_, first) = bad.first()?;
    let messages: Vec<String> =
        bad.iter().map(|(name, condition)| format!("listener {name}: {}", condition.message)).collect();
    Some(stamp.condition(type_, first.status, &first.reason, &messages.join(" | ")))
}

fn joined(violations: &[&Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// What all conditions of an object have in common.
struct Stamp {
    generation: i64,
    time: String,
}

impl Stamp {
    fn new(now: i64, generation: i64) -> Self {
        let time = jiff::Timestamp::from_second(now).unwrap_or_default().to_string();
        Self { generation, time }
    }

    fn condition(&self, type_: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status,
            observed_generation: Some(self.generation),
            last_transition_time: self.time.clone(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
        }
    }

    fn good_unless(&self, type_: &str, violations: &[&Violation], good: (&str, &str)) -> Condition {
        match violations.first() {
            Some(first) => self.condition(type_, ConditionStatus::False, first.reason, &joined(violations)),
            None => self.condition(type_, ConditionStatus::True, good.0, good.1),
        }
    }

    fn degraded(&self) -> Condition {
        let message = "an earlier generation is served, because the current one cannot be used";
        self.condition("Degraded", ConditionStatus::True, "UsingLastGood", message)
    }
}

/// The bound of `status.address` in the schema.
const MAX_ADDRESS: usize = 1024;
/// Of a condition's message; Kubernetes' own bound is 32768 bytes.
const MAX_MESSAGE: usize = 8192;

#[cfg(test)]
mod tests;
