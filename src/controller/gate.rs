//! Decides whether a starting replica can get clients: only when it serves what the other ready replicas serve. Pure.
//!
//! A new process does not know the last valid generation of any object. While another replica is ready, or the list of
//! replicas cannot be read, the new one waits without a limit, so that a rollout stops if it would remove listeners.
//! Without another ready replica, it waits a limited time for the listeners that were served before, and then serves
//! what it can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::status::{Condition, ConditionStatus, MailListenerStatus, MailRouteStatus, MailServerStatus};
use crate::model::served::{Bound, ServedObject};

use super::index::{Kind, ObjectId};
use super::peers::{Others, Peers};
use super::reason::Reason;
use super::render::ObjectOutcome;
use super::status::{self, Facts};

/// The state of a replica's start.
#[derive(Debug)]
pub struct Gate {
    /// The longest wait while no other replica is ready.
    timeout: Duration,
    /// Since when no other replica is ready.
    alone_since: Option<Instant>,
    /// The statuses of objects before this replica could have written them.
    before: BTreeMap<ObjectId, Before>,
}

/// The listeners of an object that were served according to its status.
#[derive(Debug)]
struct Before {
    uid: String,
    generation: i64,
    listeners: BTreeSet<String>,
}

/// The input of a check.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The objects that this replica serves.
    pub facts: &'a Facts<'a>,
    /// The other replicas; `None` without `--replicas`.
    pub peers: Option<&'a Peers>,
    /// Whether this replica writes status. If so, a status says only what this replica knows.
    pub leads: bool,
    /// Returns the uid and the status of an object.
    pub status: &'a dyn Fn(&ObjectId) -> Option<(&'a str, Value)>,
    /// Returns why an object that this replica does not know may exist.
    pub unread: &'a dyn Fn(&ObjectId) -> Option<String>,
    /// The time.
    pub now: Instant,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateState {
    /// The replica serves everything that it should.
    Ready,
    /// These listeners are missing, but the time is over and no other replica is ready.
    ReadyWithout(Vec<String>),
    /// These listeners are missing, with their reasons.
    Waits(Vec<String>),
    /// The state of the other replicas is not known yet, for this reason.
    AwaitsReplicas(String),
}

impl Gate {
    /// Creates a gate that waits at most `timeout` while no other replica is ready.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, alone_since: None, before: BTreeMap::new() }
    }

    /// Checks whether the replica can get clients now.
    pub fn check(&mut self, view: &View<'_>) -> GateState {
        let others = view.peers.map_or(Others::None, Peers::others);
        let is_over = match others {
            Others::Some | Others::Unread => {
                self.alone_since = None;
                false
            }
            Others::Awaited | Others::None => {
                let since = *self.alone_since.get_or_insert(view.now);
                view.now.saturating_duration_since(since) >= self.timeout
            }
        };
        self.remember(view);
        if others == Others::Awaited && !is_over {
            return GateState::AwaitsReplicas("the list of replicas is not known yet".to_owned());
        }
        if let Some(replica) = view.peers.and_then(Peers::first_unanswered) {
            return GateState::AwaitsReplicas(format!("replica {replica} has not answered yet"));
        }
        let mut missing = self.missing(view);
        if missing.is_empty() {
            return GateState::Ready;
        }
        if is_over {
            return GateState::ReadyWithout(missing);
        }
        if others == Others::Unread {
            missing.extend(view.peers.into_iter().flat_map(Peers::problems));
        }
        GateState::Waits(missing)
    }

    /// Stores the statuses of objects until this replica may have written them.
    fn remember(&mut self, view: &View<'_>) {
        let published = view.facts.published;
        self.before.retain(|id, before| {
            published.outcome(id).is_some_and(|outcome| before.is_about(outcome)) && view.leads
        });
        if view.leads {
            return;
        }
        for (id, outcome) in published.outcomes() {
            let Some((uid, status)) = (view.status)(id).filter(|(uid, _)| *uid == outcome.uid) else {
                continue;
            };
            let listeners = programmed(id.kind, &status, outcome.generation);
            if !listeners.is_empty() {
                let before = Before { uid: uid.to_owned(), generation: outcome.generation, listeners };
                self.before.insert(id.clone(), before);
            }
        }
    }

    /// Returns the listeners that should be served and are not, each with its reason.
    fn missing(&self, view: &View<'_>) -> Vec<String> {
        let mut missing = Vec::new();
        // A status that this replica has written says nothing about others, whose answers say more.
        let does_status_count = !view.leads
            || view.peers.is_none_or(|peers| peers.others() != Others::Some || !peers.all_answer());
        for (id, outcome) in view.facts.published.outcomes() {
            let Some(ours) = status::served(view.facts, id) else { continue };
            let object = status::name(id);
            let before = self.before.get(id).filter(|_| does_status_count);
            for listener in outcome.parts() {
                if is_bound(&ours, listener) {
                    continue;
                }
                let server = view.peers.and_then(|peers| peers.server_of(&object, &outcome.uid, listener));
                let who = match server {
                    Some(replica) => format!("replica {replica} serves it"),
                    None if before.is_some_and(|before| before.listeners.contains(listener)) => {
                        "it was served before, according to its status".to_owned()
                    }
                    None => continue,
                };
                missing.push(sentence(id, listener, &why(&ours, listener), &who));
            }
        }
        missing.extend(view.peers.into_iter().flat_map(|peers| unknown(view, peers)));
        missing
    }
}

impl Before {
    fn is_about(&self, outcome: &ObjectOutcome) -> bool {
        self.uid == outcome.uid && self.generation == outcome.generation
    }
}

/// Returns the listeners that others serve, of objects or generations that this replica has not read or cannot read.
fn unknown(view: &View<'_>, peers: &Peers) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    for (replica, object, theirs) in peers.objects_of_others() {
        let Some(id) = ObjectId::named(object) else { continue };
        let outcome = view.facts.published.outcome(&id);
        let why = match outcome {
            None => (view.unread)(&id),
            Some(outcome) if outcome.uid != theirs.uid => None,
            Some(outcome) if outcome.generation < theirs.generation => {
                Some(format!("generation {} has not been read yet", theirs.generation))
            }
            // An invalid spec has no listeners.
            Some(outcome) if outcome.parts().next().is_none() => {
                status::served(view.facts, &id).map(|ours| why(&ours, ""))
            }
            Some(_) => None,
        };
        let Some(why) = why else { continue };
        let is_known =
            |listener: &str| outcome.is_some_and(|outcome| outcome.parts().any(|known| known == listener));
        let who = format!("replica {replica} serves it");
        for Bound { listener, .. } in theirs.bound.iter().flatten().filter(|bound| !is_known(&bound.listener))
        {
            missing.insert(sentence(&id, listener, &why, &who));
        }
    }
    missing
}

/// Returns the listeners that are served according to a status, in this generation or in the last valid one.
fn programmed(kind: Kind, status: &Value, generation: i64) -> BTreeSet<String> {
    let is_programmed = |conditions: &[Condition]| {
        conditions.iter().any(|condition| {
            condition.type_ == "Programmed"
                && (condition.status == ConditionStatus::True
                    || condition.reason == Reason::UsingLastGood.to_string())
                && condition.observed_generation == Some(generation)
        })
    };
    match kind {
        Kind::Server => {
            let listeners = MailServerStatus::deserialize(status).unwrap_or_default().listeners.into_iter();
            listeners
                .filter(|listener| is_programmed(&listener.conditions))
                .map(|listener| listener.name)
                .collect()
        }
        Kind::Route => {
            let status = MailRouteStatus::deserialize(status).unwrap_or_default();
            is_programmed(&status.conditions).then(String::new).into_iter().collect()
        }
        Kind::Listener => {
            let status = MailListenerStatus::deserialize(status).unwrap_or_default();
            is_programmed(&status.conditions).then(String::new).into_iter().collect()
        }
    }
}

fn is_bound(served: &ServedObject, listener: &str) -> bool {
    let is_pending = served.problems.iter().any(|problem| problem.pending && problem.listener == listener);
    !is_pending && served.bound.iter().flatten().any(|bound| bound.listener == listener)
}

fn why(ours: &ServedObject, listener: &str) -> String {
    let mut problems = ours.problems.iter();
    let problem = problems.find(|problem| problem.listener == listener || problem.listener.is_empty());
    problem.map_or_else(|| "it is not bound yet".to_owned(), |problem| problem.message.clone())
}

fn sentence(id: &ObjectId, listener: &str, why: &str, who: &str) -> String {
    let listener = if listener.is_empty() { String::new() } else { format!(" listener {listener}") };
    format!("{id}{listener}: {why} ({who})")
}

/// Lists the first few entries, for a log message or the answer to a probe.
#[must_use]
pub fn summary(missing: &[String]) -> String {
    let mut text = missing.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(" | ");
    let more = missing.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        text.push_str(&format!(" | and {more} more"));
    }
    text
}

/// The number of listeners in one message.
const MAX_SHOWN: usize = 5;

#[cfg(test)]
mod tests;
