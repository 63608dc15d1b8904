//! Which endpoint of a backend is tried first, and in which order the others follow.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::model::{Backend, LoadBalancing};
use crate::net::BackendAddress;

use super::limits::lock;

/// Open sessions by endpoint and the turn of each backend; one for the whole data plane.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    turn: AtomicUsize,
    endpoints: Mutex<HashMap<BackendAddress, Arc<AtomicUsize>>>,
}

/// A session that is counted on its endpoint until it is dropped.
#[derive(Debug)]
pub(crate) struct Placement(Arc<AtomicUsize>);

impl Balancer {
    /// The endpoints in the order in which they are tried. `login` steers [`LoadBalancing::UserHash`].
    pub(crate) fn order(
        &self,
        backend: &Backend,
        policy: LoadBalancing,
        login: &[u8],
    ) -> Vec<BackendAddress> {
        let mut order = backend.endpoints.clone();
        if order.len() < 2 {
            return order;
        }
        match policy {
            LoadBalancing::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
                order.rotate_left(turn);
            }
            LoadBalancing::LeastSessions => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
                order.rotate_left(turn);
                let counts = lock(&self.endpoints);
                let load = |address: &BackendAddress| {
                    counts.get(address).map_or(0, |count| count.load(Ordering::Relaxed))
                };
                order.sort_by_key(load);
            }
            LoadBalancing::UserHash => order.sort_by_key(|address| weight(address, login)),
        }
        order
    }

    /// Counts a session on an endpoint.
    pub(crate) fn place(&self, address: &BackendAddress) -> Placement {
        let mut endpoints = lock(&self.endpoints);
        if endpoints.len() >= PRUNE_AT {
            endpoints.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        }
        let count = Arc::clone(endpoints.entry(address.clone()).or_default());
        count.fetch_add(1, Ordering::Relaxed);
        Placement(count)
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rendezvous hashing: only the users of an endpoint that goes are moved. The hasher has fixed keys, so
/// that all replicas agree.
fn weight(address: &BackendAddress, login: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    login.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// Endpoints without sessions are forgotten when so many are known.
const PRUNE_AT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(count: u16) -> Backend {
        let endpoints = (1..=count).map(|port| BackendAddress::Ip(([127, 0, 0, 1], port).into())).collect();
        Backend { reference: "Service mail/dovecot:143".into(), endpoints }
    }

    #[test]
    fn round_robin_gives_each_endpoint_its_turn_and_the_others_after_it() {
        let balancer = Balancer::default();
        let firsts: Vec<_> = (0..3)
            .map(|_| {
                let order = balancer.order(&backend(3), LoadBalancing::RoundRobin, b"");
                assert_eq!(order.len(), 3);
                order[0].clone()
            })
            .collect();
        assert_eq!(firsts, backend(3).endpoints);
    }

    #[test]
    fn least_sessions_prefers_the_endpoint_with_the_fewest() {
        let balancer = Balancer::default();
        let backend = backend(2);
        let held = balancer.place(&backend.endpoints[0]);
        let first = |_| balancer.order(&backend, LoadBalancing::LeastSessions, b"")[0].clone();
        assert!((0..4).map(first).all(|address| address == backend.endpoints[1]));
        drop(held);
        let both: std::collections::BTreeSet<_> = (0..4).map(first).collect();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn a_user_stays_on_one_endpoint_when_another_goes() {
        let balancer = Balancer::default();
        let full = backend(5);
        for user in 0..50 {
            let login = format!("user{user}");
            let first = balancer.order(&full, LoadBalancing::UserHash, login.as_bytes())[0].clone();
            let mut fewer = full.clone();
            let gone = fewer.endpoints.iter().position(|address| *address != first).unwrap();
            fewer.endpoints.remove(gone);
            assert_eq!(balancer.order(&fewer, LoadBalancing::UserHash, login.as_bytes())[0], first);
        }
    }
}
