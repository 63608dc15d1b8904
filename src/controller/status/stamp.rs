//! The common fields of an object's conditions.

use std::collections::BTreeMap;

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::controller::violation::{Concern, Violation};

/// The generation and the time of the conditions.
pub(super) struct Stamp {
    generation: i64,
    time: String,
}

impl Stamp {
    pub(super) fn new(now: i64, generation: i64) -> Self {
        let time = jiff::Timestamp::from_second(now).unwrap_or_default().to_string();
        Self { generation, time }
    }

    pub(super) fn condition(
        &self,
        type_: &str,
        status: ConditionStatus,
        reason: impl AsRef<str>,
        message: &str,
    ) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status,
            observed_generation: Some(self.generation),
            last_transition_time: self.time.clone(),
            reason: reason.as_ref().to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
        }
    }

    pub(super) fn good_unless(
        &self,
        type_: &str,
        violations: &[&Violation],
        good: (Reason, &str),
    ) -> Condition {
        // Definite violations take precedence over pending ones.
        let status = |violation: &Violation| match violation.is_pending() {
            true => ConditionStatus::Unknown,
            false => ConditionStatus::False,
        };
        match violations.iter().min_by_key(|violation| violation.is_pending()) {
            Some(worst) => self.condition(type_, status(worst), worst.reason, &joined(violations)),
            None => self.condition(type_, ConditionStatus::True, good.0, good.1),
        }
    }

    /// Returns Accepted, ResolvedRefs and Conflicted. `no_conflict` is the message if nothing conflicts.
    pub(super) fn of_violations<'a>(
        &self,
        violations: impl Iterator<Item = &'a Violation> + Clone,
        no_conflict: &str,
    ) -> Vec<Condition> {
        let about = |concern| -> Vec<&Violation> {
            violations.clone().filter(|violation| violation.concern == concern).collect()
        };
        let found = (Reason::ResolvedRefs, "all references are resolved");
        let conflicts = about(Concern::Conflicted);
        vec![
            self.good_unless(
                "Accepted",
                &about(Concern::Accepted),
                (Reason::Accepted, "the manifest is valid"),
            ),
            self.good_unless("ResolvedRefs", &about(Concern::ResolvedRefs), found),
            match conflicts.first() {
                Some(first) => {
                    self.condition("Conflicted", ConditionStatus::True, first.reason, &joined(&conflicts))
                }
                None => {
                    self.condition("Conflicted", ConditionStatus::False, Reason::NoConflicts, no_conflict)
                }
            },
        ]
    }

    /// Returns the warnings: a condition for each concern of the violations that exclude nothing.
    pub(super) fn notices<'a>(
        &self,
        violations: impl Iterator<Item = &'a Violation>,
    ) -> impl Iterator<Item = Condition> {
        let mut notices: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
        for violation in violations.filter(|violation| !violation.concern.excludes()) {
            notices.entry(violation.concern.condition()).or_default().push(violation);
        }
        notices.into_iter().map(|(condition, violations)| {
            let reason = violations.last().map_or(condition, |worst| worst.reason.name());
            self.condition(condition, ConditionStatus::True, reason, &joined(&violations))
        })
    }

    pub(super) fn degraded(&self) -> Condition {
        let message = "the current configuration cannot be used; the previous one is still in use";
        self.condition("Degraded", ConditionStatus::True, Reason::UsingLastGood, message)
    }
}

/// Conditions whose status has not changed keep their times.
pub(super) fn keep_times(conditions: &mut [Condition], previous: &[Condition]) {
    for condition in conditions {
        let same = previous.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(old) = same {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
}

/// Joins all violations into one message.
pub(super) fn joined(violations: &[&Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// The maximum number of characters of a message. The limit of Kubernetes is 32,768 bytes.
const MAX_MESSAGE: usize = 8192;
