//! Events about objects, for changes that need an operator's action. The conditions have more details.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::API_VERSION;
use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::controller::status::{Change, ChangeKind};

use super::failure::answered;

/// Publishes events for `changes`, at a limited rate, until the channel is closed.
pub(super) async fn publish(client: Client, replica: String, mut changes: mpsc::Receiver<Change>) {
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(replica) };
    let recorder = Recorder::new(client, reporter);
    let mut allowance = Allowance::new(Instant::now());
    let mut failing = false;
    while let Some(change) = changes.recv().await {
        let Some(event) = event(&change).filter(|_| allowance.take(Instant::now())) else { continue };
        let failure = answered(recorder.publish(&event, &reference(&change))).await.err();
        if let Some(why) = failure.as_ref().filter(|_| !failing) {
            tracing::warn!("cannot write events: {why}");
        }
        failing = failure.is_some();
    }
}

/// Returns the event for a change that needs an operator's action (a warning about the whole object), or for an object
/// that is ready. A problem of a replica does not cause one event for each of thousands of objects: it is in the log
/// and in the conditions.
fn event(change: &Change) -> Option<Event> {
    let ChangeKind::Changed(Condition { type_, status, reason, message, .. }) = &change.kind else {
        return None;
    };
    // If an object is degraded, it is not ready either, and the message of Ready names the listener.
    let is_in_ready = type_ == "Degraded";
    if is_in_ready || change.listener.is_some() || reason == Reason::ReplicaUnreachable.name() {
        return None;
    }
    let type_is_ready = type_ == "Ready" && *status == ConditionStatus::True;
    let kind = match (change.is_alarming(), type_is_ready) {
        (true, _) => EventType::Warning,
        (false, true) => EventType::Normal,
        (false, false) => return None,
    };
    Some(Event {
        type_: kind,
        reason: reason.clone(),
        note: Some(shortened(message)),
        action: type_.clone(),
        secondary: None,
    })
}

fn reference(change: &Change) -> ObjectReference {
    let key = &change.object.key;
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(change.object.kind.name().to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(change.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Shortens a message to the API server's limit, at a character boundary.
fn shortened(message: &str) -> String {
    let mut end = message.len().min(LONGEST_NOTE);
    while !message.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    message.get(..end).unwrap_or_default().to_owned()
}

/// A token bucket for events, because thousands of objects may change at once.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_millis() / EACH.as_millis();
        if let Ok(earned @ 1..) = u32::try_from(earned) {
            self.left = self.left.saturating_add(earned).min(AT_ONCE);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

const CONTROLLER: &str = "mailgress.dev/controller";
/// The maximum number of events in a burst.
const AT_ONCE: u32 = 25;
/// The time after which another event is allowed.
const EACH: Duration = Duration::from_secs(2);
/// The API server's limit for the note of an event, in bytes.
const LONGEST_NOTE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::{Key, Kind, ObjectId};

    fn change(listener: Option<&str>, type_: &str, status: ConditionStatus, reason: &str) -> Change {
        let condition = Condition {
            type_: type_.into(),
            status,
            observed_generation: Some(1),
            last_transition_time: String::new(),
            reason: reason.into(),
            message: "why".into(),
        };
        Change {
            object: ObjectId::new(Kind::Server, &Key::new("mail", "edge")),
            uid: "u".into(),
            listener: listener.map(Into::into),
            kind: ChangeKind::Changed(condition),
        }
    }

    #[test]
    fn only_what_an_operator_acts_on_is_an_event() {
        use ConditionStatus::{False, True, Unknown};
        let kind = |change: Change| event(&change).map(|event| event.type_);
        assert_eq!(kind(change(None, "Ready", False, "BindFailed")), Some(EventType::Warning));
        assert_eq!(kind(change(None, "CertificateExpiring", True, "x")), Some(EventType::Warning));
        assert_eq!(kind(change(None, "Ready", True, "Ready")), Some(EventType::Normal));
        assert_eq!(kind(change(None, "Ready", Unknown, "Pending")), None);
        assert_eq!(kind(change(None, "Accepted", True, "Accepted")), None);
        assert_eq!(kind(change(Some("imaps"), "Ready", False, "BindFailed")), None);
        assert_eq!(kind(change(None, "Ready", False, "ReplicaUnreachable")), None);
        assert_eq!(kind(change(None, "Ready", False, "UsingLastGood")), Some(EventType::Warning));
        assert_eq!(kind(change(None, "Degraded", True, "UsingLastGood")), None);
    }

    #[test]
    fn a_burst_is_cut_and_time_earns_more() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin);
        assert_eq!((0..100).filter(|_| allowance.take(begin)).count(), 25);
        assert!(allowance.take(begin + EACH));
        assert!(!allowance.take(begin + EACH));
        assert!(allowance.take(begin + EACH * 2));
    }

    #[test]
    fn a_long_note_is_cut_on_a_whole_character() {
        assert_eq!(shortened("kurz"), "kurz");
        assert_eq!(shortened(&"ü".repeat(600)), "ü".repeat(500));
    }
}
