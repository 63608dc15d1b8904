//! What changed from one status to the next, as lines for the log.

use crate::api::status::{Condition, ConditionStatus};

use super::super::index::Key;
use super::super::render::Kind;
use super::{ObjectStatus, Status};

/// One changed condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether somebody should look.
    pub alarming: bool,
    /// The line.
    pub line: String,
}

/// One line for each condition that changed. Of what is new, only what alarms and what is ready is told.
#[must_use]
pub fn changes(old: &Status, new: &Status) -> Vec<Change> {
    let mut lines = Vec::new();
    for ((kind, key), status) in &new.0 {
        let previous = old.0.get(&(*kind, key.clone()));
        let subject = format!("{} {key}", kind.name());
        of_object(&subject, previous, status, &mut lines);
    }
    let gone = old.0.keys().filter(|id| !new.0.contains_key(id));
    lines.extend(gone.map(|(kind, key)| removed(*kind, key)));
    lines
}

fn of_object(subject: &str, old: Option<&ObjectStatus>, new: &ObjectStatus, lines: &mut Vec<Change>) {
    for (name, conditions) in &new.listeners {
        let previous = old.and_then(|old| old.listeners.iter().find(|(other, _)| other == name));
        let subject = format!("{subject} listener {name}");
        of_conditions(&subject, previous.map(|(_, conditions)| conditions.as_slice()), conditions, lines);
    }
    for (name, _) in old.map(|old| old.listeners.as_slice()).unwrap_or_default() {
        if !new.listeners.iter().any(|(other, _)| other == name) {
            lines.push(Change { alarming: false, line: format!("{subject} listener {name}: removed") });
        }
    }
    of_conditions(subject, old.map(|old| old.conditions.as_slice()), &new.conditions, lines);
}

fn of_conditions(subject: &str, old: Option<&[Condition]>, new: &[Condition], lines: &mut Vec<Change>) {
    let old = old.unwrap_or_default();
    for condition in new {
        let previous = old.iter().find(|other| other.type_ == condition.type_);
        let alarming = alarming(condition);
        let told = match previous {
            None => alarming || (condition.type_ == "Ready" && condition.status == ConditionStatus::True),
            Some(previous) => {
                previous.status != condition.status || (alarming && previous.message != condition.message)
            }
        };
        // Programmed says what Ready says, as long as there is one replica.
        if told && condition.type_ != "Programmed" {
            lines.push(Change { alarming, line: line(subject, condition) });
        }
    }
    let over = old.iter().filter(|condition| !new.iter().any(|other| other.type_ == condition.type_));
    lines.extend(over.map(|condition| Change {
        alarming: false,
        line: format!("{subject}: {} is over", condition.type_),
    }));
}

fn line(subject: &str, condition: &Condition) -> String {
    let Condition { type_, status, reason, message, .. } = condition;
    format!("{subject}: {type_}={status:?} ({reason}): {message}")
}

fn removed(kind: Kind, key: &Key) -> Change {
    Change { alarming: false, line: format!("{} {key}: removed", kind.name()) }
}

fn alarming(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        "Accepted" | "ResolvedRefs" | "Programmed" | "Ready" => condition.status == ConditionStatus::False,
        _ => condition.status == ConditionStatus::True,
    }
}
