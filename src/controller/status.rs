//! Computes the conditions of every object from what was rendered and what is bound. Pure.
//!
//! A listener is Programmed if the rendering of its object's current generation is bound in this process. It is Ready
//! if this is true in all replicas, which only the leader knows. An object is Programmed or Ready if all its listeners
//! are. Conditions for warnings exist only while they are true.

mod backends;
mod changes;
mod client_address;
mod health;
mod listener;
mod object;
mod ready;
mod route;
mod served;
mod stamp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::status::{Condition, ListenerStatus, MailListenerStatus, MailRouteStatus, MailServerStatus};
use crate::model::served::ObjectName;
use crate::model::{BindReport, SocketState};

use super::gauges::{ListenerSummary, Summary};
use super::index::{Kind, ObjectId};
use super::peers::{Peers, Wanted};
use super::reason;
use super::render::{ListenerOutcome, Renderer};
use super::service::Front;

pub use changes::{Change, ChangeKind, alarming, public};
pub use route::RouteDetails;
pub use served::{listener_ports, served};

/// The input for computing a status.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The renderer with the outcome of every object.
    pub published: &'a Renderer,
    /// The last report of the data plane.
    pub report: &'a BindReport,
    /// The state of the other replicas; `None` if the status describes this replica alone.
    pub replicas: Option<&'a Peers>,
    /// The Service and the nodes; `None` without a cluster.
    pub surroundings: Option<&'a Surroundings>,
    /// The time in Unix seconds.
    pub now: i64,
}

/// The Service and the nodes through which clients connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The Service of `--service`.
    pub front: Front,
    /// The known addresses of the replicas' nodes.
    pub nodes: BTreeSet<IpAddr>,
}

/// The statuses of all objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status(BTreeMap<ObjectId, Arc<ObjectStatus>>);

#[derive(Clone, Debug, Default, PartialEq)]
struct ObjectStatus {
    generation: i64,
    address: String,
    /// The summary of the backends; empty if unknown.
    backends: String,
    conditions: Vec<Condition>,
    listeners: Vec<Listener>,
    /// The addresses of a MailListener for clients.
    addresses: Vec<String>,
    /// Set for a MailRoute.
    route: Option<RouteDetails>,
}

#[derive(Clone, Debug, PartialEq)]
struct Listener {
    name: String,
    conditions: Vec<Condition>,
    addresses: Vec<String>,
}

/// A listener or route with its conditions, for tables.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The object that has it.
    pub object: &'a ObjectId,
    /// Its name. Empty for a `MailListener` or `MailRoute`, and for a `MailServer` without known listeners.
    pub listener: &'a str,
    /// Its conditions.
    pub conditions: &'a [Condition],
    /// Set for a `MailRoute`.
    pub route: Option<&'a RouteDetails>,
}

impl Row<'_> {
    /// Returns the condition Ready.
    #[must_use]
    pub fn ready(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == "Ready")
    }

    /// Returns the conditions that report a problem, except Ready and Programmed.
    pub fn alarms(&self) -> impl Iterator<Item = &Condition> {
        changes::alarming_besides_ready(self.conditions)
    }
}

impl Status {
    /// Computes the status of an object. Conditions that do not change keep their times. Returns the changes.
    pub fn update(&mut self, facts: &Facts<'_>, id: &ObjectId) -> Vec<Change> {
        let Some(outcome) = facts.published.outcome(id) else {
            let kind = if facts.published.exists(id) { ChangeKind::Released } else { ChangeKind::Removed };
            return self.0.remove(id).map(|_| Change::of_former(id, kind)).into_iter().collect();
        };
        let mut status = object::status(facts, outcome);
        let previous = self.0.get(id);
        if let Some(previous) = previous {
            status.keep_times(previous);
        }
        if previous.is_some_and(|previous| **previous == status) {
            return Vec::new();
        }
        let changes = changes::of_object(id, &outcome.uid, previous.map(AsRef::as_ref), &status);
        self.0.insert(id.clone(), Arc::new(status));
        changes
    }

    /// Stores the status that the object already has, so that conditions that are still correct keep their times. A
    /// status of another form is ignored.
    pub fn restore(&mut self, id: &ObjectId, status: &Value) {
        if let Some(status) = ObjectStatus::read(id.kind, status) {
            self.0.insert(id.clone(), Arc::new(status));
        }
    }

    /// Copies the status of an object from `others`.
    pub fn copy(&mut self, others: &Self, id: &ObjectId) {
        match others.0.get(id) {
            Some(status) => self.0.insert(id.clone(), Arc::clone(status)),
            None => self.0.remove(id),
        };
    }

    /// Returns the changes between the status that the object has and the computed one.
    #[must_use]
    pub fn changes_since(&self, id: &ObjectId, uid: &str, previous: &Value) -> Vec<Change> {
        let Some(status) = self.0.get(id) else { return Vec::new() };
        changes::of_object(id, uid, ObjectStatus::read(id.kind, previous).as_ref(), status)
    }

    /// Returns the values of the gauges of an object.
    #[must_use]
    pub fn summary(&self, facts: &Facts<'_>, id: &ObjectId) -> Option<Summary> {
        let (status, outcome) = (self.0.get(id)?, facts.published.outcome(id)?);
        let of_listener = |outcome: &ListenerOutcome| {
            let own = status.listeners.iter().find(|listener| listener.name == outcome.id.listener);
            let conditions = own.map_or(&status.conditions, |own| &own.conditions);
            let socket = outcome.address.as_ref().and_then(|address| facts.report.sockets.get(address));
            let is_bound = matches!(socket, Some(SocketState::Bound(_)));
            (outcome.id.to_string(), ListenerSummary { ready: changes::ready(conditions), is_bound })
        };
        Some(Summary {
            ready: changes::ready(&status.conditions),
            alarms: changes::alarms(&status.conditions),
            listeners: outcome.listeners.iter().map(of_listener).collect(),
        })
    }

    /// Returns the status for the object in the API server.
    #[must_use]
    pub fn value(&self, id: &ObjectId) -> Option<Value> {
        self.0.get(id).map(|status| status.value(id.kind))
    }

    /// Returns all listeners with their conditions. An object without listeners is one row.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.iter().flat_map(|(object, status)| {
            let of_object = status.listeners.is_empty();
            let route = status.route.as_ref();
            let own =
                of_object.then_some(Row { object, listener: "", conditions: &status.conditions, route });
            let each = status.listeners.iter();
            own.into_iter().chain(each.map(move |l| Row {
                object,
                listener: &l.name,
                conditions: &l.conditions,
                route: None,
            }))
        })
    }

    /// Returns the document `/status`.
    #[must_use]
    pub fn document(&self, revision: u64, problems: &[String]) -> Value {
        let object = |(id, status): (&ObjectId, &Arc<ObjectStatus>)| {
            let ObjectId { kind, key } = id;
            json!({ "kind": kind.name(), "namespace": key.namespace, "name": key.name, "status": status.value(*kind) })
        };
        let objects: Vec<Value> = self.0.iter().map(object).collect();
        json!({ "revision": revision, "objects": objects, "problems": problems })
    }
}

/// Tells whether the status of an object will change without a change of an object: the data plane, another replica, or
/// the Service has not processed it yet.
#[must_use]
pub fn is_pending(facts: &Facts<'_>, id: &ObjectId) -> bool {
    let Some(outcome) = facts.published.outcome(id) else { return false };
    let here = outcome.listeners.iter().any(|listener| ready::is_pending(facts, listener))
        || route::is_pending(facts, outcome) && outcome.kind == Kind::Route;
    let wanted = Wanted { object: &name(id), uid: &outcome.uid, generation: outcome.generation };
    let others = facts.replicas.is_some_and(|replicas| replicas.is_pending(&wanted));
    here || others
        || outcome.listeners.iter().any(|listener| ready::waits_for_service(facts, outcome, listener))
}

/// Returns the name of an object in the ledger.
#[must_use]
pub fn name(id: &ObjectId) -> ObjectName {
    let ObjectId { kind, key } = id;
    ObjectName { kind: kind.name().to_owned(), namespace: key.namespace.clone(), name: key.name.clone() }
}

impl ObjectStatus {
    fn keep_times(&mut self, previous: &Self) {
        stamp::keep_times(&mut self.conditions, &previous.conditions);
        for listener in &mut self.listeners {
            let mut others = previous.listeners.iter();
            if let Some(previous) = others.find(|other| other.name == listener.name) {
                stamp::keep_times(&mut listener.conditions, &previous.conditions);
            }
        }
    }

    fn read(kind: Kind, status: &Value) -> Option<Self> {
        Some(match kind {
            Kind::Server => {
                let status = MailServerStatus::deserialize(status).ok()?;
                let listener = |l: ListenerStatus| Listener {
                    name: l.name,
                    conditions: unlinked(l.conditions),
                    addresses: l.addresses,
                };
                Self {
                    generation: status.observed_generation?,
                    address: status.address.unwrap_or_default(),
                    backends: status.backends.unwrap_or_default(),
                    conditions: unlinked(status.conditions),
                    listeners: status.listeners.into_iter().map(listener).collect(),
                    ..Self::default()
                }
            }
            Kind::Route => {
                let status = MailRouteStatus::deserialize(status).ok()?;
                Self {
                    generation: status.observed_generation?,
                    conditions: unlinked(status.conditions),
                    route: Some(RouteDetails {
                        sessions: status.sessions,
                        domains: status.domains.unwrap_or_default(),
                        users: status.users.unwrap_or_default(),
                        endpoints: status.endpoints.unwrap_or_default(),
                        backends: status.backends,
                    }),
                    ..Self::default()
                }
            }
            Kind::Listener => {
                let status = MailListenerStatus::deserialize(status).ok()?;
                Self {
                    generation: status.observed_generation?,
                    address: status.address.unwrap_or_default(),
                    backends: status.backends.unwrap_or_default(),
                    conditions: unlinked(status.conditions),
                    addresses: status.addresses,
                    ..Self::default()
                }
            }
        })
    }

    /// Returns exactly the status that the object gets.
    fn value(&self, kind: Kind) -> Value {
        let known = |text: &String| (!text.is_empty()).then(|| text.clone());
        let (address, backends) = (known(&self.address), known(&self.backends));
        let status = match kind {
            Kind::Server => serde_json::to_value(MailServerStatus {
                observed_generation: Some(self.generation),
                listener_count: i32::try_from(self.listeners.len()).ok(),
                address,
                backends,
                conditions: linked(&self.conditions),
                listeners: self.listeners.iter().map(Listener::value).collect(),
            }),
            Kind::Route => {
                let RouteDetails { sessions, domains, users, endpoints, backends } =
                    self.route.clone().unwrap_or_default();
                serde_json::to_value(MailRouteStatus {
                    observed_generation: Some(self.generation),
                    domains: Some(domains),
                    users: Some(users),
                    sessions,
                    endpoints: known(&endpoints),
                    backends,
                    conditions: linked(&self.conditions),
                })
            }
            Kind::Listener => serde_json::to_value(MailListenerStatus {
                observed_generation: Some(self.generation),
                address,
                backends,
                addresses: self.addresses.clone(),
                conditions: linked(&self.conditions),
            }),
        };
        status.unwrap_or_default()
    }
}

impl Listener {
    fn value(&self) -> ListenerStatus {
        ListenerStatus {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            conditions: linked(&self.conditions),
        }
    }
}

/// Adds the links to the reasons.
fn linked(conditions: &[Condition]) -> Vec<Condition> {
    conditions.iter().map(reason::linked).collect()
}

fn unlinked(mut conditions: Vec<Condition>) -> Vec<Condition> {
    for condition in &mut conditions {
        let length = reason::unlinked(&condition.reason, &condition.message).len();
        condition.message.truncate(length);
    }
    conditions
}

#[cfg(test)]
mod tests;
