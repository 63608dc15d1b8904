//! Determines whether a listener sees its clients' own addresses. If it does not, limits affect the wrong clients, and
//! a backend that trusts its own network becomes an open relay.
//!
//! The condition is True only if connections prove it: they have PROXY headers, or more addresses than load balancers
//! have. The components in front of the Service are not known, and a few addresses may be those of load balancers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::status::{Condition, ConditionStatus};
use crate::controller::reason::Reason;
use crate::controller::render::ListenerOutcome;
use crate::controller::service::OwnService;
use crate::model::SourceAddresses;

use super::stamp::Stamp;
use super::{Facts, Surroundings};

/// Returns the condition; `None` if nothing is known or there is no network between the client and the listener.
pub(super) fn condition(facts: &Facts<'_>, listener: &ListenerOutcome, stamp: &Stamp) -> Option<Condition> {
    let surroundings = facts.surroundings?;
    let address = listener.address.as_ref()?;
    let port = address.public_port()?;
    let socket = facts.published.snapshot().sockets.get(address)?;
    let has_header = socket.proxy_protocol.as_ref().is_some_and(|header| header.use_as_client_address);
    let sources = facts.report.source_addresses.get(&listener.id);
    let verdict = if has_header { proxied(sources) } else { verdict(surroundings, port, sources) };
    verdict.map(|(status, reason, message)| stamp.condition("ClientIPPreserved", status, reason, &message))
}

fn proxied(sources: Option<&SourceAddresses>) -> Option<(ConditionStatus, Reason, String)> {
    let text = "clients' addresses come with PROXY headers".to_owned();
    sources
        .filter(|sources| sources.proxied > 0)
        .map(|_| (ConditionStatus::True, Reason::ProxyProtocol, text))
}

fn verdict(
    surroundings: &Surroundings,
    port: u16,
    sources: Option<&SourceAddresses>,
) -> Option<(ConditionStatus, Reason, String)> {
    use ConditionStatus::{False, True};
    let has_many = sources.is_some_and(|sources| sources.more);
    let hidden = |service: &&OwnService| service.hides_clients && service.has(port);
    if let Some(service) = surroundings.front.known().filter(hidden).filter(|_| !has_many) {
        let text = format!(
            "Service {} lets nodes forward connections to other nodes and replace the client's address; set its \
             spec.externalTrafficPolicy to Local, or {REMEDY}",
            service.key
        );
        return Some((False, Reason::ExternalTrafficPolicyCluster, text));
    }
    let seen: BTreeSet<IpAddr> =
        sources.map(|sources| sources.addresses.iter().copied().collect()).unwrap_or_default();
    if let Some(node) = surroundings.nodes.intersection(&seen).next() {
        let text = format!("connections have the address of node {node} instead of the client's; {REMEDY}");
        return Some((False, Reason::NodeAddress, text));
    }
    if let (Some(sources), [only]) = (sources, seen.iter().collect::<Vec<_>>().as_slice())
        && sources.connections >= ENOUGH
        && !has_many
    {
        let text = format!("all recent connections come from {only}; if these are many clients, {REMEDY}");
        return Some((False, Reason::OneSourceAddress, text));
    }
    has_many.then(|| (True, Reason::Preserved, "connections come from their clients' addresses".to_owned()))
}

/// The remedy for all cases.
const REMEDY: &str =
    "enable the PROXY protocol on your load balancer and add its addresses to proxyProtocol.trustedPeers";

/// The minimum number of connections for a conclusion.
const ENOUGH: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::Key;
    use crate::controller::service::Front;
    use serde_json::{Value, json};

    fn surroundings(spec: &Value) -> Surroundings {
        let service = json!({ "metadata": { "namespace": "mail", "name": "edge" }, "spec": spec });
        let service = OwnService::read(&serde_json::from_value(service).unwrap(), "us");
        assert_eq!(service.key, Key::new("mail", "edge"));
        let nodes = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
        Surroundings { front: Front::Known(Box::new(service)), nodes }
    }

    fn sources(connections: u64, addresses: &[&str], more: bool) -> SourceAddresses {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        SourceAddresses { connections, addresses, more, ..SourceAddresses::default() }
    }

    fn reason(surroundings: &Surroundings, sources: Option<&SourceAddresses>) -> Option<&'static str> {
        verdict(surroundings, 993, sources).map(|(_, reason, _)| reason.name())
    }

    #[test]
    fn a_service_that_hides_clients_is_reported_with_the_remedy() {
        let balancer = |policy: &str| {
            let ports = json!([{ "port": 993 }]);
            surroundings(&json!({ "type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": ports }))
        };
        let (status, reason_, message) = verdict(&balancer("Cluster"), 993, None).unwrap();
        assert_eq!((status, reason_), (ConditionStatus::False, Reason::ExternalTrafficPolicyCluster));
        assert!(message.contains("Service mail/edge") && message.contains("Local"), "{message}");
        assert_eq!(verdict(&balancer("Cluster"), 995, None), None, "not a port of that Service");
        let has_many = sources(100, &[], true);
        assert_eq!(
            reason(&balancer("Cluster"), Some(&has_many)),
            Some("Preserved"),
            "what is seen counts more"
        );
    }

    #[test]
    fn one_address_of_many_connections_is_a_problem() {
        let nothing = Surroundings::default();
        assert_eq!(reason(&nothing, None), None);
        assert_eq!(reason(&nothing, Some(&sources(10, &["10.0.0.9"], false))), None);
        assert_eq!(reason(&nothing, Some(&sources(100, &["10.0.0.9"], false))), Some("OneSourceAddress"));
        assert_eq!(reason(&nothing, Some(&sources(100, &["10.0.0.9", "10.0.0.8"], false))), None);
        assert_eq!(reason(&nothing, Some(&sources(100, &[], true))), Some("Preserved"));
    }

    #[test]
    fn preserved_needs_more_addresses_than_load_balancers_have() {
        let ports = json!([{ "port": 993 }]);
        for spec in [
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports }),
            json!({ "type": "ClusterIP", "ports": ports }),
        ] {
            let surroundings = surroundings(&spec);
            assert_eq!(reason(&surroundings, None), None);
            // These may be the addresses of three load balancers.
            let few = sources(1000, &["10.0.0.7", "10.0.0.8", "10.0.0.9"], false);
            assert_eq!(reason(&surroundings, Some(&few)), None);
            let has_many = sources(1000, &["10.0.0.7", "10.0.0.8", "10.0.0.9"], true);
            assert_eq!(reason(&surroundings, Some(&has_many)), Some("Preserved"));
        }
        assert_eq!(proxied(None), None);
        assert_eq!(proxied(Some(&sources(0, &[], false))), None);
        let header = SourceAddresses { proxied: 1, ..SourceAddresses::default() };
        let (status, reason, _) = proxied(Some(&header)).unwrap();
        assert_eq!((status, reason), (ConditionStatus::True, Reason::ProxyProtocol));
    }

    #[test]
    fn a_nodes_address_is_not_a_clients() {
        let surroundings = surroundings(&json!({}));
        let seen = sources(2, &["192.0.2.1", "198.51.100.1"], false);
        assert_eq!(reason(&surroundings, Some(&seen)), Some("NodeAddress"));
    }
}
