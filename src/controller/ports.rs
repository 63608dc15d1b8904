//! Decides which ports our Service must have: those that listeners use and every ready replica serves. An existing port
//! stays while a listener uses it or a ready replica may serve it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::index::ObjectId;

/// The ports of all objects.
#[derive(Clone, Debug, Default)]
pub struct ServicePorts {
    of: BTreeMap<ObjectId, Vec<ListenerPort>>,
    all: BTreeMap<u16, PortCounts>,
}

/// The port of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerPort {
    /// The port.
    pub port: u16,
    /// Whether the listener is ready.
    pub is_ready: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct PortCounts {
    all: usize,
    ready: usize,
}

impl ServicePorts {
    /// Sets the ports of an object's listeners. Returns whether anything has changed.
    pub fn set(&mut self, object: &ObjectId, claims: Vec<ListenerPort>) -> bool {
        if self.of.get(object).map(Vec::as_slice).unwrap_or_default() == claims {
            return false;
        }
        for claim in self.of.remove(object).unwrap_or_default() {
            if let Some(claims) = self.all.get_mut(&claim.port) {
                claims.all = claims.all.saturating_sub(1);
                claims.ready = claims.ready.saturating_sub(usize::from(claim.is_ready));
            }
        }
        for claim in &claims {
            let all = self.all.entry(claim.port).or_default();
            all.all = all.all.saturating_add(1);
            all.ready = all.ready.saturating_add(usize::from(claim.is_ready));
        }
        self.all.retain(|_, claims| claims.all > 0);
        if !claims.is_empty() {
            self.of.insert(object.clone(), claims);
        }
        true
    }

    /// Returns the ports that the Service must have. A port in `shown` stays while a listener uses it, or while
    /// `served` is true: a replica that cannot bind a port or cannot read its object must not affect clients of other
    /// replicas.
    #[must_use]
    pub fn wanted(&self, shown: &BTreeSet<u16>, served: impl Fn(u16) -> bool) -> BTreeSet<u16> {
        let ready = self.all.iter().filter(|(_, claims)| claims.ready > 0).map(|(port, _)| *port);
        let kept = shown.iter().copied().filter(|port| self.all.contains_key(port) || served(*port));
        ready.chain(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::{Key, Kind};

    fn wanted(ports: &ServicePorts, shown: &[u16]) -> Vec<u16> {
        ports.wanted(&shown.iter().copied().collect(), |_| false).into_iter().collect()
    }

    #[test]
    fn a_port_is_added_when_it_is_served_and_stays_until_nothing_uses_it() {
        let object = |name: &str| ObjectId::new(Kind::Server, &Key::new("mail", name));
        let mut ports = ServicePorts::default();
        ports.set(
            &object("a"),
            vec![ListenerPort { port: 993, is_ready: true }, ListenerPort { port: 995, is_ready: false }],
        );
        ports.set(&object("b"), vec![ListenerPort { port: 993, is_ready: false }]);
        assert_eq!(wanted(&ports, &[]), [993]);
        assert_eq!(wanted(&ports, &[995, 143]), [993, 995]);
        ports.set(&object("a"), vec![ListenerPort { port: 993, is_ready: false }]);
        assert_eq!(wanted(&ports, &[]), [0_u16; 0]);
        assert_eq!(wanted(&ports, &[993, 995]), [993]);
        ports.set(&object("a"), vec![]);
        ports.set(&object("b"), vec![]);
        assert_eq!(wanted(&ports, &[993]), [0_u16; 0]);
        assert!(ports.of.is_empty());
    }

    #[test]
    fn keeps_a_port_that_a_ready_replica_serves_though_no_listener_is_known() {
        let shown = BTreeSet::from([587, 995]);
        assert_eq!(
            ServicePorts::default().wanted(&shown, |port| port == 587 || port == 25),
            BTreeSet::from([587])
        );
    }
}
