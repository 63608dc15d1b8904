//! Ports of ready endpoints, and the time from which connections to them can be expected to arrive. Pure.
//!
//! kube-proxy on each node reads the same EndpointSlices, and Kubernetes does not report when it has applied them. By
//! default it waits up to one second between two changes of a node's rules, and a new port of a Service needs two
//! changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::service::EndpointPort;

/// The ports of ready endpoints.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// The time from which each port counts; `None` until endpoints have been read.
    from: Option<BTreeMap<EndpointPort, Instant>>,
}

impl Endpoints {
    /// Stores the current ports. Those of the first call count at once.
    pub(super) fn read(&mut self, ports: BTreeSet<EndpointPort>, now: Instant) {
        let known = self.from.take();
        let from = |port: EndpointPort| {
            let from = match &known {
                None => now,
                Some(known) => known.get(&port).copied().unwrap_or(now + SETTLE),
            };
            (port, from)
        };
        self.from = Some(ports.into_iter().map(from).collect());
    }

    /// Returns the ports that count; `None` if endpoints have not been read.
    pub(super) fn settled(&self, now: Instant) -> Option<BTreeSet<EndpointPort>> {
        let settled = |from: &BTreeMap<EndpointPort, Instant>| {
            from.iter().filter(|(_, from)| **from <= now).map(|(port, _)| port.clone()).collect()
        };
        self.from.as_ref().map(settled)
    }

    /// Returns when the next port will count.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.from.iter().flat_map(BTreeMap::values).filter(|from| **from > now).min().copied()
    }
}

/// Time for kube-proxy: two changes of a node's rules with one second between them, and their duration.
const SETTLE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_port_counts_after_a_delay() {
        let now = Instant::now();
        let port = |name: &&str| EndpointPort { name: (*name).to_owned(), number: Some(993) };
        let names = |names: &[&str]| names.iter().map(port).collect::<BTreeSet<_>>();
        let mut endpoints = Endpoints::default();
        assert_eq!((endpoints.settled(now), endpoints.next(now)), (None, None));
        endpoints.read(names(&["a"]), now);
        assert_eq!((endpoints.settled(now), endpoints.next(now)), (Some(names(&["a"])), None));
        endpoints.read(names(&["a", "b"]), now);
        assert_eq!(endpoints.settled(now), Some(names(&["a"])));
        assert_eq!(endpoints.next(now), Some(now + SETTLE));
        endpoints.read(names(&["a", "b"]), now + SETTLE / 2);
        assert_eq!(endpoints.settled(now + SETTLE), Some(names(&["a", "b"])));
        assert_eq!(endpoints.next(now + SETTLE), None);
        endpoints.read(names(&["b"]), now + SETTLE);
        assert_eq!(endpoints.settled(now + SETTLE), Some(names(&["b"])));
    }
}
