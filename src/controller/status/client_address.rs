//! Whether a listener sees its clients' own addresses. Where it does not, limits punish the wrong peer, and a backend
//! that trusts its neighbours becomes an open relay.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::status::{Condition, ConditionStatus};
use crate::model::Peers;

use super::super::reason::Reason;
use super::super::render::ListenerOutcome;
use super::super::service::OwnService;
use super::stamp::Stamp;
use super::{Facts, Surroundings};

/// The condition; none where nothing is known, or there is no network between.
pub(super) fn condition(facts: &Facts<'_>, listener: &ListenerOutcome, stamp: &Stamp) -> Option<Condition> {
    let surroundings = facts.surroundings?;
    let address = listener.address.as_ref()?;
    let port = address.public_port()?;
    let socket = facts.published.current().sockets.get(address)?;
    let is_told = socket.proxy_protocol.as_ref().is_some_and(|header| header.use_as_client_address);
    let verdict = if is_told {
        Some((
            ConditionStatus::True,
            Reason::ProxyProtocol,
            "clients' addresses come with PROXY headers".to_owned(),
        ))
    } else {
        verdict(surroundings, port, facts.report.peers.get(&listener.id))
    };
    verdict.map(|(status, reason, message)| stamp.condition("ClientIPPreserved", status, reason, &message))
}

fn verdict(
    surroundings: &Surroundings,
    port: u16,
    peers: Option<&Peers>,
) -> Option<(ConditionStatus, Reason, String)> {
    use ConditionStatus::{False, True};
    let many = peers.is_some_and(|peers| peers.more);
    let hidden = |service: &&OwnService| service.hides_clients && service.has(port);
    if let Some(service) = surroundings.service.as_ref().filter(hidden).filter(|_| !many) {
        let text = format!(
            "Service {} lets a node hand connections on to another, in its own name; set its \
             spec.externalTrafficPolicy to Local, or {REMEDY}",
            service.key
        );
        return Some((False, Reason::ExternalTrafficPolicyCluster, text));
    }
    let seen: BTreeSet<IpAddr> =
        peers.map(|peers| peers.addresses.iter().copied().collect()).unwrap_or_default();
    if let Some(node) = surroundings.nodes.intersection(&seen).next() {
        let text = format!("connections come from the node {node} and not from their clients; {REMEDY}");
        return Some((False, Reason::NodeAddress, text));
    }
    if let (Some(peers), [only]) = (peers, seen.iter().collect::<Vec<_>>().as_slice())
        && peers.connections >= ENOUGH
        && !many
    {
        let text = format!("all recent connections come from {only}; if that is not their client, {REMEDY}");
        return Some((False, Reason::OneSourceAddress, text));
    }
    let is_kept =
        surroundings.service.as_ref().is_some_and(|service| !service.hides_clients && service.has(port));
    (many || is_kept)
        .then(|| (True, Reason::Preserved, "connections come from their clients' addresses".to_owned()))
}

/// What helps in every case.
const REMEDY: &str =
    "let what is in front speak the PROXY protocol and name it in proxyProtocol.trustedPeers";

/// Connections from which something can be concluded.
const ENOUGH: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::Key;
    use serde_json::{Value, json};

    fn surroundings(spec: &Value) -> Surroundings {
        let service = json!({ "metadata": { "namespace": "mail", "name": "edge" }, "spec": spec });
        let service = OwnService::read(&serde_json::from_value(service).unwrap(), "us");
        assert_eq!(service.key, Key::new("mail", "edge"));
        let nodes = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
        Surroundings { service: Some(service), nodes }
    }

    fn peers(connections: u64, addresses: &[&str], more: bool) -> Peers {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Peers { connections, addresses, more, ..Peers::default() }
    }

    fn reason(surroundings: &Surroundings, peers: Option<&Peers>) -> Option<&'static str> {
        verdict(surroundings, 993, peers).map(|(_, reason, _)| reason.name())
    }

    #[test]
    fn a_service_that_hides_clients_is_told_with_the_remedy() {
        let balancer = |policy: &str| {
            let ports = json!([{ "port": 993 }]);
            surroundings(&json!({ "type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": ports }))
        };
        let (status, reason_, message) = verdict(&balancer("Cluster"), 993, None).unwrap();
        assert_eq!((status, reason_), (ConditionStatus::False, Reason::ExternalTrafficPolicyCluster));
        assert!(message.contains("Service mail/edge") && message.contains("Local"), "{message}");
        assert_eq!(verdict(&balancer("Cluster"), 995, None), None, "not a port of that Service");
        assert_eq!(reason(&balancer("Local"), None), Some("Preserved"));
        let many = peers(100, &[], true);
        assert_eq!(reason(&balancer("Cluster"), Some(&many)), Some("Preserved"), "what is seen counts more");
    }

    #[test]
    fn one_address_for_everybody_is_suspicious_once_there_are_enough() {
        let nothing = Surroundings::default();
        assert_eq!(reason(&nothing, None), None);
        assert_eq!(reason(&nothing, Some(&peers(10, &["10.0.0.9"], false))), None);
        assert_eq!(reason(&nothing, Some(&peers(100, &["10.0.0.9"], false))), Some("OneSourceAddress"));
        assert_eq!(reason(&nothing, Some(&peers(100, &["10.0.0.9", "10.0.0.8"], false))), None);
        assert_eq!(reason(&nothing, Some(&peers(100, &[], true))), Some("Preserved"));
    }

    #[test]
    fn a_nodes_address_is_no_clients() {
        let surroundings = surroundings(&json!({}));
        let seen = peers(2, &["192.0.2.1", "198.51.100.1"], false);
        assert_eq!(reason(&surroundings, Some(&seen)), Some("NodeAddress"));
    }
}
