//! The ports and addresses of a Service's ready endpoints. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// A port of a Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPort {
    /// The port's name in the Service.
    pub name: String,
    /// The target port; `None` for any port.
    pub number: Option<u16>,
}

/// Returns the ports that the ready endpoints have in every address family in use.
#[must_use]
pub fn ready_ports<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<EndpointPort> {
    let mut families: BTreeMap<&str, BTreeSet<EndpointPort>> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.endpoints.iter().any(is_ready)) {
        let ports = slice.ports.iter().flatten().map(|port| EndpointPort {
            name: port.name.clone().unwrap_or_default(),
            number: port.port.and_then(|port| u16::try_from(port).ok()),
        });
        families.entry(&slice.address_type).or_default().extend(ports);
    }
    families.into_values().reduce(|all, family| &all & &family).unwrap_or_default()
}

/// Returns the addresses of ready endpoints.
#[must_use]
pub fn ready_addresses<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<IpAddr> {
    let endpoints = slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| is_ready(endpoint));
    endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
}

/// Tells whether none of the endpoints is a replica. Only addresses of the same family can be compared, because only
/// one address of each replica is known.
#[must_use]
pub fn have_no_replica(endpoints: &BTreeSet<IpAddr>, replicas: &BTreeSet<IpAddr>) -> bool {
    let is_comparable =
        |address: &&IpAddr| replicas.iter().any(|replica| replica.is_ipv4() == address.is_ipv4());
    let mut comparable = endpoints.iter().filter(is_comparable).peekable();
    comparable.peek().is_some() && comparable.all(|address| !replicas.contains(address))
}

/// An absent condition means ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(family: &str, ready: bool, names: &[&str]) -> EndpointSlice {
        let ports: Vec<Value> = names.iter().map(|name| json!({ "name": name, "port": 1 })).collect();
        serde_json::from_value(json!({
            "addressType": family,
            "ports": ports,
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
        }))
        .unwrap()
    }

    #[test]
    fn ready_ports_are_those_that_every_family_of_addresses_has() {
        let names = |slices: &[EndpointSlice]| {
            let ports = ready_ports(slices.iter()).into_iter();
            ports.map(|port| (port.name, port.number)).collect::<Vec<_>>()
        };
        let port = |name: &str| (name.to_owned(), Some(1));
        let old = slice("IPv4", true, &["a"]);
        let new = slice("IPv4", true, &["a", "b"]);
        assert_eq!(names(&[old.clone(), new.clone()]), [port("a"), port("b")]);
        assert_eq!(names(&[old, slice("IPv4", false, &["a", "b"])]), [port("a")]);
        assert_eq!(names(&[new.clone(), slice("IPv6", true, &["b"])]), [port("b")]);
        assert_eq!(names(&[new, slice("IPv6", false, &["b"])]), [port("a"), port("b")]);
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn endpoints_are_strangers_when_no_replica_is_among_those_of_its_family() {
        let set = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let strangers =
            |endpoints: &[&str], replicas: &[&str]| have_no_replica(&set(endpoints), &set(replicas));
        assert!(strangers(&["10.0.0.9"], &["10.0.0.1", "10.0.0.2"]));
        assert!(strangers(&["10.0.0.9", "fd00::1"], &["10.0.0.1"]));
        assert!(!strangers(&["10.0.0.9", "10.0.0.1"], &["10.0.0.1"]));
        assert!(!strangers(&["fd00::1"], &["10.0.0.1"]), "its address of that family is not known");
        assert!(!strangers(&["10.0.0.9"], &[]), "without --replicas");
        assert!(!strangers(&[], &["10.0.0.1"]));
        let ready = ready_addresses([slice("IPv4", true, &["a"]), slice("IPv4", false, &[])].iter());
        assert_eq!(ready, set(&["10.0.0.1"]));
    }
}
