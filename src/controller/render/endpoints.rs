//! Selects the endpoints of a Service that get sessions: by readiness and topology hints, as kube-proxy does. Where each
//! user has one endpoint, all endpoints count, because replicas in different zones must agree. Endpoints whose Pod is
//! taken out of service get none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointSlice};

use crate::controller::index::pod_of;
use crate::model::exclusive::{EndpointName, EndpointState};
use crate::net::BackendAddress;

use super::units;

/// The zone and node of this process, if they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// The zone of its node (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// The name of its node.
    pub node: Option<String>,
}

/// Which endpoints are selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The ready ones, reduced by topology hints; those that terminate while none is ready.
    Nearest,
    /// As `Nearest`, without hints. Each has a name.
    ByUser,
    /// Only the ready ones. Each has a name.
    Exclusive,
}

/// What the selection depends on besides the endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Selection<'a> {
    pub(crate) choice: Choice,
    pub(crate) locality: &'a Locality,
    /// The Pods of the Service's namespace that are taken out of service.
    pub(crate) leaving: BTreeSet<&'a str>,
}

/// The endpoints of a Service for one of its ports.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// Sorted, so that the order does not depend on how endpoints are distributed to slices.
    pub(crate) addresses: Vec<BackendAddress>,
    /// The name of the Pod (or other `targetRef`) at each address.
    pub(crate) names: BTreeMap<BackendAddress, String>,
    /// The endpoints whose Pods are taken out of service, with the names of the Pods. They are not in `addresses`.
    pub(crate) leaving: BTreeMap<BackendAddress, String>,
    /// No endpoint is ready, and these ones are terminating but still serve.
    pub(crate) are_terminating: bool,
    /// For [`Choice::Exclusive`]: all endpoints, ready or not.
    pub(crate) states: BTreeMap<EndpointName, EndpointState>,
    /// Endpoints without a `targetRef`, unless the choice is `Nearest`.
    pub(crate) unnamed: usize,
}

/// An endpoint with the number of the required port.
type Found<'a> = (&'a Endpoint, &'a EndpointSlice, u16);

impl Endpoints {
    /// Selects endpoints of these slices.
    pub(crate) fn of<'a>(
        slices: impl Iterator<Item = &'a EndpointSlice>,
        port_name: &str,
        selection: &Selection<'_>,
    ) -> Self {
        let choice = selection.choice;
        let all: Vec<Found<'a>> = slices.flat_map(|slice| in_slice(slice, port_name)).collect();
        let (leaving, staying): (Vec<&Found<'_>>, Vec<&Found<'_>>) =
            all.iter().partition(|found| selection.is_leaving(found.0));
        let leaving = leaving.iter().filter_map(|found| Some((**found, name(found.0)?)));
        let leaving = leaving.flat_map(|(found, name)| addresses_named(found, name)).collect();
        let mut chosen: Vec<_> =
            staying.iter().copied().filter(|(endpoint, ..)| is_ready(endpoint)).collect();
        let are_terminating = chosen.is_empty() && choice != Choice::Exclusive;
        if are_terminating {
            chosen = staying.into_iter().filter(|(endpoint, ..)| serves_and_terminates(endpoint)).collect();
        } else if choice == Choice::Nearest {
            nearest(&mut chosen, selection.locality);
        }
        let mut addresses: Vec<_> = chosen.iter().flat_map(|found| addresses(**found)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let are_terminating = are_terminating && !addresses.is_empty();
        if choice == Choice::Nearest {
            let named = chosen.iter().filter_map(|found| Some((**found, name(found.0)?)));
            let names = named.flat_map(|(found, name)| addresses_named(found, name)).collect();
            return Self { are_terminating, addresses, names, leaving, ..Self::default() };
        }
        let identities = Identities::new(&all);
        let names = chosen.iter().flat_map(|found| identities.of(**found)).collect();
        let states = match choice {
            Choice::Exclusive => identities.states(&all, selection),
            Choice::Nearest | Choice::ByUser => BTreeMap::new(),
        };
        let unnamed = all.iter().filter(|(endpoint, ..)| name(endpoint).is_none()).count();
        Self { are_terminating, addresses, names, leaving, states, unnamed }
    }
}

impl Selection<'_> {
    fn is_leaving(&self, endpoint: &Endpoint) -> bool {
        pod_of(endpoint).is_some_and(|pod| self.leaving.contains(pod))
    }
}

/// Gives each endpoint a name: that of its Pod, or else its address. The address is without the port, so that protocols
/// agree, unless endpoints differ only in the port.
struct Identities {
    /// Hosts of several endpoints without a Pod.
    shared: BTreeSet<String>,
}

impl Identities {
    fn new(all: &[Found<'_>]) -> Self {
        let unnamed = all.iter().filter(|(endpoint, ..)| name(endpoint).is_none());
        let addresses: BTreeSet<_> = unnamed.flat_map(|found| addresses(*found)).collect();
        let (mut hosts, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for address in &addresses {
            let host = address.host();
            if !hosts.insert(host.clone()) {
                shared.insert(host);
            }
        }
        Self { shared }
    }

    fn of<'a>(&self, found: Found<'a>) -> impl Iterator<Item = (BackendAddress, String)> + use<'a, '_> {
        let name = name(found.0);
        addresses(found).map(move |address| {
            let host = || Some(address.host()).filter(|host| !self.shared.contains(host));
            let identity = name.map(str::to_owned).or_else(host).unwrap_or_else(|| address.to_string());
            (address, identity)
        })
    }

    /// Returns all endpoints. One in several slices is ready if it is ready in all of them.
    fn states(&self, all: &[Found<'_>], selection: &Selection<'_>) -> BTreeMap<EndpointName, EndpointState> {
        let mut states = BTreeMap::new();
        for found in all {
            let state = match is_ready(found.0) {
                _ if selection.is_leaving(found.0) => EndpointState::Leaving,
                true => EndpointState::Ready,
                false => EndpointState::Unready,
            };
            for (_, identity) in self.of(*found) {
                let known = states.entry(EndpointName::from(&*identity)).or_insert(state);
                *known = state.max(*known);
            }
        }
        states
    }
}

fn in_slice<'a>(slice: &'a EndpointSlice, port_name: &str) -> impl Iterator<Item = Found<'a>> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|port| port.name.as_deref().unwrap_or_default() == port_name);
    let port = port.and_then(|port| u16::try_from(port.port?).ok());
    port.into_iter().flat_map(move |port| slice.endpoints.iter().map(move |endpoint| (endpoint, slice, port)))
}

/// An absent condition means ready (`EndpointConditions.ready`).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn serves_and_terminates(endpoint: &Endpoint) -> bool {
    let is = |condition: fn(&EndpointConditions) -> Option<bool>| {
        endpoint.conditions.as_ref().and_then(condition).unwrap_or(false)
    };
    is(|conditions| conditions.serving) && is(|conditions| conditions.terminating)
}

/// Keeps the endpoints with a hint for our node, or else those for our zone. Hints are used only if every endpoint has
/// them and one is for us. Otherwise the hints may be incomplete.
fn nearest(ready: &mut Vec<&Found<'_>>, locality: &Locality) {
    let names: [(&Option<String>, Names); 2] = [
        (&locality.node, |hints| hints.for_nodes.iter().flatten().map(|node| node.name.clone()).collect()),
        (&locality.zone, |hints| hints.for_zones.iter().flatten().map(|zone| zone.name.clone()).collect()),
    ];
    for (ours, hinted) in names {
        let Some(ours) = ours else { continue };
        let names = |found: &Found<'_>| found.0.hints.as_ref().map(hinted).unwrap_or_default();
        let is_ours = |found: &Found<'_>| names(found).contains(ours);
        if ready.iter().all(|found| !names(found).is_empty()) && ready.iter().any(|found| is_ours(found)) {
            ready.retain(|found| is_ours(found));
            return;
        }
    }
}

/// Returns the nodes or zones in hints.
type Names = fn(&EndpointHints) -> Vec<String>;

fn name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref().filter(|name| !name.is_empty())
}

fn addresses_named<'a>(
    found: Found<'a>,
    name: &'a str,
) -> impl Iterator<Item = (BackendAddress, String)> + use<'a> {
    addresses(found).map(move |address| (address, name.to_owned()))
}

fn addresses((endpoint, slice, port): Found<'_>) -> impl Iterator<Item = BackendAddress> + use<'_> {
    endpoint.addresses.iter().filter_map(move |address| match slice.address_type.as_str() {
        "FQDN" => units::named(address, port),
        _ => address.parse().ok().map(|ip| BackendAddress::Ip(SocketAddr::new(ip, port))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Each endpoint has its own slice, because the selection must cover all slices.
    fn slices(endpoints: &[Value]) -> Vec<EndpointSlice> {
        let slice = |endpoint: &Value| {
            let slice = json!({
                "metadata": {}, "addressType": "IPv4", "endpoints": [endpoint],
                "ports": [{ "name": "other", "port": 1 }, { "name": "imap", "port": 143 }],
            });
            serde_json::from_value(slice).unwrap()
        };
        endpoints.iter().map(slice).collect()
    }

    fn selection(choice: Choice, locality: &Locality) -> Selection<'_> {
        Selection { choice, locality, leaving: BTreeSet::new() }
    }

    fn chosen(locality: (&str, &str), endpoints: &[Value]) -> (Vec<String>, bool) {
        let slices = slices(endpoints);
        let known = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let locality = Locality { node: known(locality.0), zone: known(locality.1) };
        let Endpoints { addresses, are_terminating, .. } =
            Endpoints::of(slices.iter(), "imap", &selection(Choice::Nearest, &locality));
        let last = |address: &BackendAddress| {
            let text = address.to_string();
            text.strip_prefix("10.0.0.").unwrap().strip_suffix(":143").unwrap().to_owned()
        };
        (addresses.iter().map(last).collect(), are_terminating)
    }

    /// Returns an endpoint with hints for these nodes and zones.
    fn hinted(last: u8, nodes: &[&str], zones: &[&str]) -> Value {
        let names = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        json!({
            "addresses": [format!("10.0.0.{last}")],
            "hints": { "forNodes": names(nodes), "forZones": names(zones) },
        })
    }

    fn in_state(mut endpoint: Value, ready: bool, serving: bool, terminating: bool) -> Value {
        endpoint["conditions"] = json!({ "ready": ready, "serving": serving, "terminating": terminating });
        endpoint
    }

    #[test]
    fn hints_are_followed_where_all_ready_endpoints_have_them_and_one_is_for_us() {
        let zones = [hinted(1, &[], &["a"]), hinted(2, &[], &["b"]), hinted(3, &[], &["a", "b"])];
        assert_eq!(chosen(("", "a"), &zones).0, ["1", "3"]);
        assert_eq!(chosen(("", ""), &zones).0, ["1", "2", "3"], "our zone is not known");
        assert_eq!(chosen(("", "c"), &zones).0, ["1", "2", "3"], "none is for our zone");
        let mut without = zones.to_vec();
        without.push(json!({ "addresses": ["10.0.0.4"] }));
        assert_eq!(chosen(("", "a"), &without).0, ["1", "2", "3", "4"], "one has no hints");
        without[3] = in_state(without[3].clone(), false, true, true);
        assert_eq!(chosen(("", "a"), &without).0, ["1", "3"], "it is not ready");
        let mut others = zones.to_vec();
        others[0] = in_state(others[0].clone(), false, false, false);
        others[2] = in_state(others[2].clone(), false, false, false);
        assert_eq!(chosen(("", "a"), &others).0, ["2"], "ours are not ready");
    }

    #[test]
    fn hints_for_the_node_precede_those_for_the_zone() {
        let both = [hinted(1, &["n"], &["a"]), hinted(2, &["m"], &["a"]), hinted(3, &["m"], &["b"])];
        assert_eq!(chosen(("n", "a"), &both).0, ["1"]);
        assert_eq!(chosen(("o", "a"), &both).0, ["1", "2"], "none is for our node");
        assert_eq!(chosen(("o", ""), &both).0, ["1", "2", "3"]);
    }

    #[test]
    fn endpoints_that_terminate_are_used_only_while_none_is_ready() {
        let plain = |last| hinted(last, &[], &[]);
        let going = in_state(plain(1), false, true, true);
        let gone = in_state(plain(2), false, false, true);
        let starting = in_state(plain(3), false, false, false);
        assert_eq!(
            chosen(("", ""), &[going.clone(), gone.clone(), starting.clone()]),
            (vec!["1".into()], true)
        );
        assert_eq!(chosen(("", ""), &[gone, starting]), (vec![], false));
        assert_eq!(chosen(("", ""), &[going, plain(4)]), (vec!["4".into()], false));
    }

    #[test]
    fn where_users_have_endpoints_all_count_and_have_names() {
        let named = |last: u8, name: &str| {
            let mut endpoint = hinted(last, &[], &["a"]);
            endpoint["targetRef"] = json!({ "kind": "Pod", "name": name });
            endpoint
        };
        let unready = in_state(named(3, "c"), false, true, true);
        let endpoints = slices(&[named(1, "a"), hinted(2, &[], &["b"]), unready]);
        let locality = Locality { zone: Some("a".to_owned()), node: None };
        let of = |choice| Endpoints::of(endpoints.iter(), "imap", &selection(choice, &locality));
        let exclusive = of(Choice::Exclusive);
        let names: Vec<_> = exclusive.names.values().map(String::as_str).collect();
        assert_eq!((names, exclusive.unnamed), (vec!["a", "10.0.0.2"], 1));
        let states: Vec<_> = exclusive.states.iter().map(|(name, state)| (name.as_str(), *state)).collect();
        let (ready, away) = (EndpointState::Ready, EndpointState::Unready);
        assert_eq!(states, [("10.0.0.2", ready), ("a", ready), ("c", away)]);
        let by_user = of(Choice::ByUser);
        assert_eq!((by_user.names, by_user.states.len()), (exclusive.names, 0));
    }

    #[test]
    fn endpoints_without_a_pod_that_differ_in_the_port_are_different() {
        let mut slices =
            slices(&[json!({ "addresses": ["10.0.0.1"] }), json!({ "addresses": ["10.0.0.1"] })]);
        slices[1].ports.as_mut().unwrap()[1].port = Some(10143);
        let locality = Locality::default();
        let found = Endpoints::of(slices.iter(), "imap", &selection(Choice::Exclusive, &locality));
        let names: Vec<_> = found.states.keys().map(EndpointName::as_str).collect();
        assert_eq!(names, ["10.0.0.1:10143", "10.0.0.1:143"]);
    }

    #[test]
    fn terminating_endpoints_get_no_exclusive_users() {
        let endpoints = slices(&[in_state(hinted(1, &[], &[]), false, true, true)]);
        let locality = Locality::default();
        let found = Endpoints::of(endpoints.iter(), "imap", &selection(Choice::Exclusive, &locality));
        assert!(found.addresses.is_empty() && !found.are_terminating && found.states.len() == 1);
    }

    #[test]
    fn a_pod_that_is_taken_out_of_service_is_no_endpoint_for_new_sessions() {
        let named = |last: u8, name: &str, kind: &str| {
            let mut endpoint = hinted(last, &["n"], &[]);
            endpoint["targetRef"] = json!({ "kind": kind, "name": name });
            endpoint
        };
        let endpoints = slices(&[named(1, "a", "Pod"), named(2, "b", "Pod"), named(3, "a", "Node")]);
        let locality = Locality { node: Some("n".to_owned()), zone: None };
        let of = |choice, leaving: &[&'static str]| {
            let selection =
                Selection { leaving: leaving.iter().copied().collect(), ..selection(choice, &locality) };
            Endpoints::of(endpoints.iter(), "imap", &selection)
        };
        for choice in [Choice::Nearest, Choice::ByUser, Choice::Exclusive] {
            let one = of(choice, &["a", "other"]);
            let left: Vec<_> = one.leaving.iter().map(|(at, pod)| format!("{pod} {at}")).collect();
            assert_eq!((one.addresses.len(), left), (2, vec!["a 10.0.0.1:143".to_owned()]), "{choice:?}");
        }
        let states: Vec<_> = of(Choice::Exclusive, &["b"]).states.into_iter().collect();
        let state = |name: &str, state| (EndpointName::from(name), state);
        assert_eq!(states, [state("a", EndpointState::Ready), state("b", EndpointState::Leaving)]);
        // Also if no other endpoint is left.
        let going = slices(&[in_state(named(1, "a", "Pod"), false, true, true)]);
        let selection = Selection { leaving: ["a"].into(), ..selection(Choice::Nearest, &locality) };
        let none = Endpoints::of(going.iter(), "imap", &selection);
        assert!(none.addresses.is_empty() && !none.are_terminating);
    }
}
