//! The groups of exclusive users in a snapshot, with the endpoints that all their protocols have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Snapshot;
use crate::model::exclusive::{Affinity, EndpointName, EndpointState, ExclusiveBackend, GroupName, Timing};

/// A group as its routes describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The longest time limits of its routes.
    pub(crate) timing: Timing,
    /// Its endpoints.
    pub(crate) endpoints: BTreeMap<EndpointName, EndpointState>,
}

/// Returns the groups of all routes. A group has the endpoints that all its backends have. A backend without any endpoint
/// does not count: its Service may not exist yet.
pub(crate) fn groups(snapshot: &Snapshot) -> BTreeMap<GroupName, Group> {
    let listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
    let routes = listeners.filter_map(|listener| listener.routes.as_ref());
    let destinations = routes.flat_map(|routes| routes.destinations.iter().flatten());
    let mut backends: BTreeMap<&GroupName, Vec<&Arc<ExclusiveBackend>>> = BTreeMap::new();
    for destination in destinations {
        let Affinity::Exclusive(backend) = &destination.affinity else { continue };
        let of_group = backends.entry(&backend.group).or_default();
        // Usually listeners share the backend of a route.
        if !of_group.iter().any(|known| Arc::ptr_eq(known, backend)) {
            of_group.push(backend);
        }
    }
    backends.into_iter().map(|(name, backends)| (name.clone(), Group::of(&backends))).collect()
}

impl Group {
    fn of(backends: &[&Arc<ExclusiveBackend>]) -> Self {
        let mut group = Self { timing: Timing::default(), endpoints: BTreeMap::new() };
        for backend in backends {
            let Timing { move_timeout, grace, return_grace } = &mut group.timing;
            *move_timeout = backend.timing.move_timeout.max(*move_timeout);
            *grace = backend.timing.grace.max(*grace);
            *return_grace = backend.timing.return_grace.max(*return_grace);
        }
        let mut all = backends.iter().map(|backend| &backend.endpoints).filter(|all| !all.is_empty());
        group.endpoints = all.next().cloned().unwrap_or_default();
        for endpoints in all {
            group.endpoints.retain(|name, state| {
                let other = endpoints.get(name);
                *state = other.copied().unwrap_or(*state).max(*state);
                other.is_some()
            });
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn backend(timeout: u64, endpoints: &[(&str, EndpointState)]) -> Arc<ExclusiveBackend> {
        Arc::new(ExclusiveBackend {
            group: "mail/x".into(),
            timing: Timing { move_timeout: Duration::from_secs(timeout), ..Timing::default() },
            endpoints: endpoints.iter().map(|(name, state)| (EndpointName::from(*name), *state)).collect(),
        })
    }

    #[test]
    fn a_group_has_the_endpoints_of_all_protocols_with_the_longest_times() {
        use EndpointState::{Ready, Unready};
        let imap = backend(3, &[("a", Ready), ("b", Ready), ("c", Ready)]);
        let pop3 = backend(5, &[("a", Ready), ("b", Unready)]);
        let missing = backend(4, &[]);
        let group = Group::of(&[&imap, &missing, &pop3]);
        assert_eq!(group.endpoints, BTreeMap::from([("a".into(), Ready), ("b".into(), Unready)]));
        assert_eq!(group.timing.move_timeout, Duration::from_secs(5));
        assert_eq!(Group::of(&[&pop3, &imap]).endpoints, group.endpoints);
        assert!(Group::of(&[&missing]).endpoints.is_empty());
    }
}
