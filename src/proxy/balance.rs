//! Load balancing: decides which endpoint of a backend is tried first, and in which order the others follow.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use crate::model::{Backend, LoadBalancing};
use crate::net::BackendAddress;
use crate::protocol::user::{Named, ascii_domain};

/// Counts the open sessions of each endpoint. There is one `Balancer` for the whole data plane, so that all workers
/// share the counts.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    turn: AtomicUsize,
    endpoints: Mutex<HashMap<BackendAddress, Arc<AtomicUsize>>>,
}

/// Counts a session on its endpoint until it is dropped.
#[derive(Debug)]
pub(crate) struct EndpointUse(Arc<AtomicUsize>);

impl Balancer {
    /// Returns all endpoints in the order in which to try them. Only [`LoadBalancing::UserHash`] uses `login`.
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
                let counts = self.endpoints.lock();
                let load = |address: &BackendAddress| {
                    counts.get(address).map_or(0, |count| count.load(Ordering::Relaxed))
                };
                order.sort_by_key(load);
            }
            LoadBalancing::UserHash => return order_by_hash(backend, login),
        }
        order
    }

    pub(crate) fn place(&self, address: &BackendAddress) -> EndpointUse {
        let mut endpoints = self.endpoints.lock();
        if endpoints.len() >= PRUNE_AT {
            endpoints.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        }
        let count = Arc::clone(endpoints.entry(address.clone()).or_default());
        count.fetch_add(1, Ordering::Relaxed);
        EndpointUse(count)
    }
}

impl Drop for EndpointUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns all endpoints in the order of [`LoadBalancing::UserHash`].
pub(super) fn order_by_hash(backend: &Backend, login: &[u8]) -> Vec<BackendAddress> {
    let (mut order, login) = (backend.endpoints.clone(), canonical(login));
    order.sort_by_cached_key(|address| weight(&identity(backend, address), &login));
    order
}

/// Returns the user by whom an endpoint is selected (`affinity`): the same for a login, with any protocol, and for mail to
/// any of the user's addresses with an extension.
pub(super) fn user_key(named: &Named) -> Vec<u8> {
    canonical(named.without_extension.as_ref().unwrap_or(&named.user).as_bytes())
}

/// Identifies an endpoint independently of its address: a Pod of a StatefulSet keeps its name when its address changes,
/// and the two addresses of a dual-stack Pod are one endpoint.
fn identity(backend: &Backend, address: &BackendAddress) -> String {
    backend.names.get(address).cloned().unwrap_or_else(|| address.to_string())
}

/// Maps the spellings of one login to one key. Mail servers ignore case in a login, and a domain may end with a dot. A
/// domain has the form of DNS (RFC 5890). Elsewhere only ASCII is folded, because Unicode's case tables change between
/// versions.
fn canonical(login: &[u8]) -> Vec<u8> {
    let Some(at) = login.iter().rposition(|byte| *byte == b'@') else { return login.to_ascii_lowercase() };
    let (user, domain) = login.split_at(at.saturating_add(1));
    [&*user.to_ascii_lowercase(), &*ascii_domain(domain)].concat()
}

/// Rendezvous hashing: when an endpoint is removed, only its users move; a new endpoint only takes over its share of
/// users.
///
/// `SipHash-2-4` with an all-zero key over the endpoint, a NUL and the login, so that all replicas and releases agree.
pub(crate) fn weight(identity: &str, login: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(identity.as_bytes());
    hasher.write(&[0]);
    hasher.write(login);
    hasher.finish()
}

/// Endpoints without sessions are removed when the map has this many entries.
const PRUNE_AT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::user::UserRules;

    fn backend(count: u16) -> Backend {
        let endpoints = (1..=count).map(|port| BackendAddress::Ip(([127, 0, 0, 1], port).into())).collect();
        Backend::new("Service mail/dovecot:143".into(), endpoints)
    }

    /// Pods of a StatefulSet with the addresses 10.0.0.x.
    fn stateful(pods: &[(&str, u8)]) -> Backend {
        let at = |last: u8| BackendAddress::Ip(([10, 0, 0, last], 143).into());
        let endpoints = pods.iter().map(|(_, last)| at(*last)).collect();
        let names = pods.iter().map(|(name, last)| (at(*last), (*name).to_owned())).collect();
        Backend { names, ..Backend::new("Service mail/dovecot:143".into(), endpoints) }
    }

    /// Returns the Pod name that each of 1,000 users is sent to.
    fn homes(backend: &Backend) -> Vec<String> {
        let balancer = Balancer::default();
        let home = |user: u32| {
            let login = format!("user{user}@example.org");
            let order = balancer.order(backend, LoadBalancing::UserHash, login.as_bytes());
            backend.names[&order[0]].clone()
        };
        (0..1000).map(home).collect()
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
            let removed = fewer.endpoints.iter().position(|address| *address != first).unwrap();
            fewer.endpoints.remove(removed);
            assert_eq!(balancer.order(&fewer, LoadBalancing::UserHash, login.as_bytes())[0], first);
        }
    }
    #[test]
    fn a_rescheduled_pod_of_a_stateful_set_keeps_its_users() {
        let before = homes(&stateful(&[("dovecot-0", 1), ("dovecot-1", 2), ("dovecot-2", 3)]));
        let after = homes(&stateful(&[("dovecot-2", 3), ("dovecot-0", 77), ("dovecot-1", 78)]));
        assert_eq!(before, after);
        for name in ["dovecot-0", "dovecot-1", "dovecot-2"] {
            let share = before.iter().filter(|home| *home == name).count();
            assert!((250..420).contains(&share), "{name} has {share} of 1000 users");
        }
    }

    #[test]
    fn a_new_endpoint_takes_its_share_of_users_and_moves_no_other() {
        let before = homes(&stateful(&[("dovecot-0", 1), ("dovecot-1", 2), ("dovecot-2", 3)]));
        let after =
            homes(&stateful(&[("dovecot-0", 1), ("dovecot-1", 2), ("dovecot-2", 3), ("dovecot-3", 4)]));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == "dovecot-3"));
        assert!((180..330).contains(&moved.len()), "{} of 1000 users moved", moved.len());
    }

    #[test]
    fn both_addresses_of_a_dual_stack_pod_are_tried_before_another_pod() {
        let mut backend = stateful(&[("dovecot-0", 1), ("dovecot-1", 2)]);
        for (name, last) in [("dovecot-0", 1), ("dovecot-1", 2)] {
            let address = BackendAddress::Ip(([0xfd00, 0, 0, 0, 0, 0, 0, last], 143).into());
            backend.endpoints.push(address.clone());
            backend.names.insert(address, name.to_owned());
        }
        let order = Balancer::default().order(&backend, LoadBalancing::UserHash, b"me");
        let names: Vec<_> = order.iter().map(|address| backend.names[address].as_str()).collect();
        assert!(names[0] == names[1] && names[2] == names[3] && names[1] != names[2], "{names:?}");
    }

    #[test]
    fn a_login_is_the_same_user_however_it_is_written() {
        assert_eq!(canonical(b"Me@Example.ORG"), b"me@example.org");
        assert_eq!(canonical(b"me@example.org."), b"me@example.org");
        assert_eq!(canonical(b"me."), b"me.", "a dot at the end of a name without a domain is part of it");
        assert_ne!(canonical("Ä@b".as_bytes()), canonical("ä@b".as_bytes()));
    }

    #[test]
    fn a_user_is_the_same_in_a_login_and_in_mail() {
        let rules = UserRules { default_domain: Some("example.org".to_owned()), ..UserRules::default() };
        let mail = user_key(&rules.of_recipient(b"Bob+lists@Example.org"));
        assert_eq!(mail, b"bob@example.org");
        for login in ["bob", "BOB@example.org", "bob@example.org*admin"] {
            assert_eq!(user_key(&rules.of_name(login.as_bytes())), mail, "{login}");
        }
    }

    #[test]
    fn a_domain_is_the_same_in_every_form_that_idna_allows() {
        for login in [
            "a@ÄÖ.example",
            "A@äö.EXAMPLE",
            "a@a\u{308}o\u{308}.example",
            "a@äö\u{3002}example.",
            "a@xn--4ca0b.example",
            "a@XN--4CA0B.example.",
        ] {
            assert_eq!(canonical(login.as_bytes()), b"a@xn--4ca0b.example", "{login}");
        }
        // What has no such form stays as it is.
        assert_eq!(canonical(b"a@B\xff.example"), b"a@b\xff.example");
        assert_eq!(weight("dovecot-0", &canonical("a@ÄÖ.example".as_bytes())), 0xf4bc_92fc_9e51_14dc);
    }

    /// Known results of the reference implementation. A release with different results would move all users.
    #[test]
    fn the_hash_has_known_answers() {
        let mut reference = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(reference.finish(), 0x726f_db47_dd0e_0e31);
        reference.write(&[0, 1, 2]);
        assert_eq!(reference.finish(), 0x8567_6696_d7fb_7e2d);
        assert_eq!(weight("dovecot-0", b"me@example.org"), 0xb885_45cd_45a8_8ce3);
        assert_eq!(weight("10.0.0.1:143", b"me@example.org"), 0x8e8e_3f88_8312_1361);
        let order = Balancer::default().order(
            &stateful(&[("dovecot-0", 1), ("dovecot-1", 2), ("dovecot-2", 3)]),
            LoadBalancing::UserHash,
            b"Me@EXAMPLE.org",
        );
        let last: Vec<String> = order.iter().map(ToString::to_string).collect();
        assert_eq!(last, ["10.0.0.1:143", "10.0.0.3:143", "10.0.0.2:143"]);
    }
}
