//! The changes between two statuses of an object, for the log and for events.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::gauges::Ready;
use crate::controller::index::ObjectId;
use crate::model::view;

use super::{Listener, ObjectStatus};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub object: ObjectId,
    /// Distinguishes the object from another one with the same name; empty if it was removed.
    pub uid: String,
    /// The listener; `None` for the object as a whole.
    pub listener: Option<String>,
    /// The change.
    pub kind: ChangeKind,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A condition is new or has changed.
    Changed(Condition),
    /// A condition that exists only while it is true was removed.
    Ended(String),
    /// The object or listener was removed.
    Removed,
    /// The object exists, and its class is that of another controller now.
    Released,
}

impl Change {
    /// Creates the change for an object that this controller no longer serves.
    pub(super) fn of_former(object: &ObjectId, kind: ChangeKind) -> Self {
        Self { object: object.clone(), uid: String::new(), listener: None, kind }
    }

    /// Converts the change for the status page, with its time in Unix seconds.
    #[must_use]
    pub fn view(&self, at: i64) -> view::Change {
        let listener = self.listener.as_ref().map(|listener| format!(" listener {listener}"));
        let which = format!("{}{}", self.object, listener.unwrap_or_default());
        let (what, text) = match &self.kind {
            ChangeKind::Changed(condition) => {
                (format!("{}={:?}", condition.type_, condition.status), public(condition))
            }
            ChangeKind::Ended(type_) => (format!("removed condition {type_}"), String::new()),
            ChangeKind::Removed => ("removed".to_owned(), String::new()),
            ChangeKind::Released => ("released".to_owned(), OTHER_CLASS.to_owned()),
        };
        view::Change { at, what, which, text, is_alarming: self.is_alarming() }
    }

    /// Tells whether the change reports a problem.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        matches!(&self.kind, ChangeKind::Changed(condition) if alarming(condition))
    }
}

/// Writes the log message.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if let Some(listener) = &self.listener {
            write!(f, " listener {listener}")?;
        }
        match &self.kind {
            ChangeKind::Changed(Condition { type_, status, reason, message, .. }) => {
                write!(f, ": {type_}={status:?} ({reason}): {message}")
            }
            ChangeKind::Ended(type_) => write!(f, ": removed condition {type_}"),
            ChangeKind::Removed => f.write_str(": removed"),
            ChangeKind::Released => write!(f, ": released: {OTHER_CLASS}"),
        }
    }
}

/// Why an object is released.
const OTHER_CLASS: &str = "the MailServer now has the class of another controller (spec.className)";

/// Returns one change for each condition that has changed. Of new conditions, only problems and Ready are included.
pub(super) fn of_object(
    object: &ObjectId,
    uid: &str,
    old: Option<&ObjectStatus>,
    new: &ObjectStatus,
) -> Vec<Change> {
    let change = |listener, kind| Change { object: object.clone(), uid: uid.to_owned(), listener, kind };
    let before = old.map(|old| old.listeners.as_slice()).unwrap_or_default();
    let mut changes = Vec::new();
    for Listener { name, conditions, .. } in &new.listeners {
        let previous = before.iter().find(|other| other.name == *name);
        let kinds = of_conditions(previous.map(|previous| previous.conditions.as_slice()), conditions);
        changes.extend(kinds.into_iter().map(|kind| change(Some(name.clone()), kind)));
    }
    let removed_listeners = before.iter().filter(|old| !new.listeners.iter().any(|new| new.name == old.name));
    changes
        .extend(removed_listeners.map(|listener| change(Some(listener.name.clone()), ChangeKind::Removed)));
    let kinds = of_conditions(old.map(|old| old.conditions.as_slice()), &new.conditions);
    changes.extend(kinds.into_iter().map(|kind| change(None, kind)));
    changes
}

fn of_conditions(old: Option<&[Condition]>, new: &[Condition]) -> Vec<ChangeKind> {
    let old = old.unwrap_or_default();
    let is_reported = |condition: &&Condition| {
        let previous = old.iter().find(|other| other.type_ == condition.type_);
        let alarming = alarming(condition);
        match previous {
            None => alarming || (condition.type_ == "Ready" && condition.status == ConditionStatus::True),
            Some(previous) => {
                previous.status != condition.status || (alarming && previous.message != condition.message)
            }
        }
    };
    // If Programmed is false, Ready has the reason.
    let changed = new.iter().filter(|condition| condition.type_ != "Programmed").filter(is_reported);
    let ended = old.iter().filter(|condition| !new.iter().any(|other| other.type_ == condition.type_));
    changed
        .cloned()
        .map(ChangeKind::Changed)
        .chain(ended.map(|c| ChangeKind::Ended(c.type_.clone())))
        .collect()
}

/// Returns status and reason of the condition Ready.
pub(super) fn ready(conditions: &[Condition]) -> Ready {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.map_or(Ready { status: ConditionStatus::Unknown, reason: "Pending".to_owned() }, |ready| Ready {
        status: ready.status,
        reason: ready.reason.clone(),
    })
}

/// Returns type and reason of the conditions that report a problem, except Ready and Programmed.
pub(super) fn alarms(conditions: &[Condition]) -> BTreeSet<(String, String)> {
    let alarms = alarming_besides_ready(conditions);
    alarms.map(|condition| (condition.type_.clone(), condition.reason.clone())).collect()
}

/// Returns the conditions that report a problem, except Ready and Programmed.
pub(super) fn alarming_besides_ready(conditions: &[Condition]) -> impl Iterator<Item = &Condition> {
    let is_other = |condition: &&Condition| !["Ready", "Programmed"].contains(&condition.type_.as_str());
    conditions.iter().filter(is_other).filter(|condition| alarming(condition))
}

/// Returns the message for readers who may not see clients' addresses, shortened.
#[must_use]
pub fn public(condition: &Condition) -> String {
    if condition.type_ == "ClientIPPreserved" && condition.status != ConditionStatus::True {
        return "Mailgress does not see the clients' addresses; see the condition ClientIPPreserved of the object".to_owned();
    }
    view::cut(condition.message.clone(), MAX_TEXT)
}

/// The maximum number of characters of a message on the status page.
const MAX_TEXT: usize = 300;

/// Tells whether a condition reports a problem.
#[must_use]
pub fn alarming(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        "Accepted" | "ResolvedRefs" | "Programmed" | "Ready" | "BackendHealthy" | "NameServersAnswer"
        | "ClientIPPreserved" => condition.status == ConditionStatus::False,
        // The progress of a move, not a problem.
        "Drained" => false,
        _ => condition.status == ConditionStatus::True,
    }
}
