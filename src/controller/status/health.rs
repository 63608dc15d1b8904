//! The condition `BackendHealthy`: the results of health checks, which do not affect Ready.

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::model::BackendHealth;
use crate::protocol::Protocol;
use crate::words::counted;

use super::stamp::Stamp;

/// Returns the condition of a listener.
pub(super) fn of_listener(health: &BackendHealth, stamp: &Stamp) -> Condition {
    let (reason, text) = described(health);
    condition(reason, &text, stamp)
}

/// Returns the condition of a route with these results for its protocols, the worst reason for all of them. `None` if
/// nothing is checked.
pub(super) fn of_route(checked: &[(Protocol, &BackendHealth)], stamp: &Stamp) -> Option<Condition> {
    let all: Vec<(Protocol, Reason, String)> = checked
        .iter()
        .map(|(protocol, health)| {
            let (reason, text) = described(health);
            (*protocol, reason, text)
        })
        .collect();
    let worst = all.iter().map(|(_, reason, _)| *reason).max_by_key(rank)?;
    let text = match all.as_slice() {
        [(_, _, text)] => text.clone(),
        all => {
            let named = all.iter().map(|(protocol, _, text)| format!("{}: {text}", protocol.label()));
            named.collect::<Vec<_>>().join("; ")
        }
    };
    Some(condition(worst, &text, stamp))
}

fn condition(reason: Reason, text: &str, stamp: &Stamp) -> Condition {
    let status = if reason == Reason::AllHealthy { ConditionStatus::True } else { ConditionStatus::False };
    stamp.condition("BackendHealthy", status, reason, text)
}

const fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::AllHealthy => 0,
        Reason::SomeUnhealthy => 1,
        _ => 2,
    }
}

fn described(health: &BackendHealth) -> (Reason, String) {
    let (all, out) = (health.endpoints, health.unhealthy.len());
    if out == 0 {
        let text = match all {
            1 => "the endpoint answers its health checks".to_owned(),
            _ => format!("all {all} endpoints answer their health checks"),
        };
        return (Reason::AllHealthy, text);
    }
    let (reason, consequence) = match (out == all, all, out) {
        (true, 1, _) => (Reason::AllUnhealthy, "connections are still sent to it"),
        (true, ..) => (Reason::AllUnhealthy, "connections are still sent to all of them"),
        (false, _, 1) => (Reason::SomeUnhealthy, "it gets no sessions"),
        (false, ..) => (Reason::SomeUnhealthy, "they get no sessions"),
    };
    let why: Vec<String> =
        health.unhealthy.iter().map(|(address, why)| format!("{address}: {why}")).collect();
    let fail = if out == 1 { "fails its" } else { "fail their" };
    let all = counted(all, "endpoint");
    (reason, format!("{out} of {all} {fail} health checks, {consequence}: {}", why.join(" | ")))
}
