//! The conditions of one listener.

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::controller::render::{ListenerOutcome, ObjectOutcome, Serving};
use crate::model::Auth;
use crate::net::BackendAddress;

use super::stamp::Stamp;
use super::{Facts, client_address, health, ready};

/// Returns all conditions of a listener.
pub(super) fn conditions(
    facts: &Facts<'_>,
    object: &ObjectOutcome,
    listener: &ListenerOutcome,
    stamp: &Stamp,
) -> Vec<Condition> {
    let all = || object.violations.iter().chain(&listener.violations);
    let mut conditions = stamp.of_violations(all(), "no other listener uses the same socket");
    conditions.extend(ready::conditions(facts, object, listener, stamp));
    if listener.serving == Serving::LastGood && !listener.waits_for_references() {
        conditions.push(stamp.degraded());
    }
    conditions
        .extend(facts.report.backends.get(&listener.id).map(|health| health::of_listener(health, stamp)));
    conditions.extend(name_servers(facts, listener, stamp));
    conditions.extend(client_address::condition(facts, listener, stamp));
    conditions.extend(stamp.notices(all()));
    conditions
}

/// Returns the condition if no name server answers and the listener uses host names.
fn name_servers(facts: &Facts<'_>, listener: &ListenerOutcome, stamp: &Stamp) -> Option<Condition> {
    let served = facts.published.listener(&listener.id)?;
    let is_name = |address: &BackendAddress| matches!(address, BackendAddress::Name { .. });
    let has_name = |endpoints: &[BackendAddress]| endpoints.iter().any(is_name);
    let backend_has_name = served.backend.as_ref().is_some_and(|backend| has_name(&backend.endpoints));
    let service_has_name = match &served.auth {
        Auth::Http(service) => has_name(&service.endpoints),
        Auth::Passthrough => false,
    };
    let looks_up_names = served.resolver.looks_up_clients || backend_has_name || service_has_name;
    let is_silent = looks_up_names && facts.report.silent_resolvers.contains(&served.resolver);
    is_silent.then(|| {
        let servers: Vec<String> = served.resolver.nameservers.iter().map(ToString::to_string).collect();
        let which = match servers.as_slice() {
            [] => "of resolv.conf".to_owned(),
            servers => format!("of resolver.nameservers ({})", servers.join(", ")),
        };
        let text = format!(
            "no name server {which} answers: host names of SMTP clients, backends and auth services are not \
             resolved; correct resolver.nameservers, or remove it to use the pod's resolv.conf"
        );
        stamp.condition("NameServersAnswer", ConditionStatus::False, Reason::NameServersSilent, &text)
    })
}
