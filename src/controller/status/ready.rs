//! The conditions Programmed (this replica) and Ready (all replicas and the Service).

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::peers::{ServedByOthers, Wanted};
use crate::controller::reason::Reason;
use crate::controller::render::{ListenerOutcome, ObjectOutcome, Serving};
use crate::controller::service::Reach;
use crate::controller::violation::{Concern, Violation};
use crate::model::SocketState;

use super::stamp::{Stamp, joined};
use super::{Facts, Surroundings, name};

/// The fields of a condition that [`Stamp`] does not add.
pub(super) struct ConditionBody {
    pub(super) status: ConditionStatus,
    pub(super) reason: String,
    pub(super) message: String,
}

impl ConditionBody {
    pub(super) fn new(status: ConditionStatus, reason: impl AsRef<str>, message: String) -> Self {
        Self { status, reason: reason.as_ref().to_owned(), message }
    }
}

/// Returns Programmed, which describes this process, and Ready, which describes all replicas.
pub(super) fn conditions(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    listener: &ListenerOutcome,
    stamp: &Stamp,
) -> [Condition; 2] {
    let here = programmed(facts, listener);
    let all_replicas = served_by_others(facts, object, &listener.id.listener, &here)
        .or_else(|| reached(facts, listener, &here))
        .or_else(|| inside_only(facts, listener, &here));
    let condition = |type_, verdict: &ConditionBody| {
        stamp.condition(type_, verdict.status, &verdict.reason, &verdict.message)
    };
    [condition("Programmed", &here), condition("Ready", all_replicas.as_ref().unwrap_or(&here))]
}

/// Tells whether the current generation of the listener is bound in this process.
pub(super) fn programmed(facts: &Facts<'_>, listener: &ListenerOutcome) -> ConditionBody {
    use ConditionStatus::{False, True, Unknown};
    if listener.waits_for_references() {
        let meanwhile = match &listener.address {
            Some(address) => format!("; the previous configuration is still in use on {address}"),
            None => String::new(),
        };
        let waits: Vec<&Violation> = listener.violations.iter().filter(|v| v.is_pending()).collect();
        return ConditionBody::new(Unknown, Reason::Pending, format!("{}{meanwhile}", joined(&waits)));
    }
    let Some(address) = &listener.address else {
        let conflicts: Vec<&Violation> =
            listener.violations.iter().filter(|v| v.concern == Concern::Conflicted).collect();
        if !conflicts.is_empty() {
            return ConditionBody::new(False, Reason::NotServed, joined(&conflicts));
        }
        let text = "this listener is not running, and this pod has no earlier working version; see Accepted, ResolvedRefs and Conflicted";
        return ConditionBody::new(False, Reason::NotServed, text.to_owned());
    };
    if listener.serving == Serving::LastGood {
        let text =
            format!("the previous configuration is still in use on {address}; see the other conditions");
        return ConditionBody::new(False, Reason::UsingLastGood, text);
    }
    if is_pending(facts, listener) {
        let text = match facts.report.sockets.get(address) {
            Some(SocketState::Bound(_)) => format!("the new configuration is being applied on {address}"),
            _ => format!("{address} is being bound"),
        };
        return ConditionBody::new(Unknown, Reason::Pending, text);
    }
    match facts.report.sockets.get(address) {
        Some(SocketState::Bound(bound)) => {
            let bound: Vec<String> = bound.iter().map(ToString::to_string).collect();
            let (bound, wanted) = (bound.join(", "), address.to_string());
            let sockets =
                if bound.is_empty() || bound == wanted { String::new() } else { format!(" ({bound})") };
            ConditionBody::new(True, Reason::Bound, format!("{address} is bound{sockets}"))
        }
        Some(SocketState::Failed(why)) => {
            ConditionBody::new(False, Reason::BindFailed, format!("{address} cannot be bound: {why}"))
        }
        None => ConditionBody::new(Unknown, Reason::Pending, format!("{address} is being bound")),
    }
}

/// Tells whether the API server has not returned the listener's references yet, or the data plane has not reported on
/// the current listener yet.
pub(super) fn is_pending(facts: &Facts<'_>, listener: &ListenerOutcome) -> bool {
    if listener.waits_for_references() {
        return true;
    }
    let Some(address) = &listener.address else { return false };
    let wanted = facts.published.since(&listener.id).unwrap_or(u64::MAX);
    facts.report.revision < wanted || !facts.report.sockets.contains_key(address)
}

/// Tells whether all ready replicas serve the current generation of the listener.
pub(super) fn is_served_everywhere(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    listener: &ListenerOutcome,
) -> bool {
    let here = programmed(facts, listener);
    here.status == ConditionStatus::True
        && served_by_others(facts, object, &listener.id.listener, &here).is_none()
}

/// Tells whether all replicas serve the listener, but the Service does not lead to it yet.
pub(super) fn waits_for_service(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    listener: &ListenerOutcome,
) -> bool {
    let here = programmed(facts, listener);
    let is_pending = |verdict: ConditionBody| verdict.status == ConditionStatus::Unknown;
    served_by_others(facts, object, &listener.id.listener, &here).is_none()
        && reached(facts, listener, &here).is_some_and(is_pending)
}

/// Returns the problem with the Service of `--service`, if this replica leads. `None` if clients can connect to the
/// listener.
fn reached(facts: &Facts<'_>, listener: &ListenerOutcome, here: &ConditionBody) -> Option<ConditionBody> {
    let surroundings = facts.surroundings.filter(|_| facts.replicas.is_some())?;
    let port = listener.address.as_ref().filter(|_| here.status == ConditionStatus::True)?.public_port()?;
    let (status, reason, message) = match surroundings.front.reach(port) {
        Reach::Reached => return None,
        Reach::Pending(why) => (ConditionStatus::Unknown, Reason::ServicePortPending, why),
        Reach::Refused(why) => (ConditionStatus::False, Reason::ServiceRefused, why),
        Reach::Unusable(why) => (ConditionStatus::False, Reason::ServiceUnusable, why),
        Reach::NotFound(why) => (ConditionStatus::False, Reason::ServiceNotFound, why),
    };
    Some(ConditionBody::new(status, reason, message))
}

/// Returns Ready with a note that the Service's load balancer has no address yet.
fn inside_only(facts: &Facts<'_>, listener: &ListenerOutcome, here: &ConditionBody) -> Option<ConditionBody> {
    facts.replicas.filter(|_| here.status == ConditionStatus::True)?;
    let pending = pending_address(facts.surroundings, listener)?;
    Some(ConditionBody::new(ConditionStatus::True, &here.reason, format!("{}; {pending}", here.message)))
}

/// Returns the message if the listener's load balancer has no address yet.
pub(super) fn pending_address(
    surroundings: Option<&Surroundings>,
    listener: &ListenerOutcome,
) -> Option<String> {
    let port = listener.address.as_ref()?.public_port()?;
    surroundings?.front.known()?.pending_address(port)
}

/// Returns the state of the other replicas if this replica leads and serves the listener itself. `None` if all of them
/// serve it too. `part` is the listener's name; empty for a `MailListener` or `MailRoute`.
pub(super) fn served_by_others(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    part: &str,
    here: &ConditionBody,
) -> Option<ConditionBody> {
    let replicas = facts.replicas.filter(|_| here.status == ConditionStatus::True)?;
    let id = object.id();
    let wanted = Wanted { object: &name(&id), uid: &object.uid, generation: object.generation };
    match replicas.serve(&wanted, part) {
        ServedByOthers::All => None,
        ServedByOthers::Pending(why) => {
            Some(ConditionBody::new(ConditionStatus::Unknown, Reason::Pending, why))
        }
        ServedByOthers::Failed { reason, message } => {
            Some(ConditionBody::new(ConditionStatus::False, &reason, message))
        }
    }
}
