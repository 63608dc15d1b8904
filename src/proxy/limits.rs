//! What a listener counts over all its configurations: open sessions, sessions of each client, refused
//! logins, addresses. Time comes in as an argument.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::model::Limits;
use crate::model::settings::{AuthFailures, client_key};
use crate::net::ClientAddress;

use super::bans::Bans;
use super::peers::Picture;

/// The counters of one listener; they live as long as its sessions and over every swap.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU32,
    clients: Mutex<HashMap<IpAddr, u32>>,
    bans: Mutex<Bans>,
    /// Whose addresses its clients come with.
    pub(crate) peers: Picture,
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// `limits.maxConnections`.
    #[error("the listener has limits.maxConnections open connections")]
    ListenerFull,
    /// `limits.maxConnectionsPerClient`.
    #[error("the client has limits.maxConnectionsPerClient open connections")]
    ClientFull,
    /// `limits.authFailures`.
    #[error("the client is banned by limits.authFailures")]
    Banned,
    /// [`MAX_AWAITED_HEADERS`].
    #[error("the peer has too many connections that have not sent their PROXY header")]
    HeadersAwaited,
}

/// A connection that was let in; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    counters: Arc<Counters>,
    client: Option<IpAddr>,
}

impl Counters {
    /// Lets a connection in of which only the peer is known, or says that the listener is full.
    pub(crate) fn enter(self: &Arc<Self>, limits: &Limits) -> Result<Admission, Refusal> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { counters: Arc::clone(self), client: None };
        if limits.max_connections.is_some_and(|max| open >= max) {
            return Err(Refusal::ListenerFull);
        }
        Ok(admission)
    }

    /// Lets a client in, or says which limit refuses it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        limits: &Limits,
        client: ClientAddress,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        let mut admission = self.enter(limits)?;
        admission.count(limits, client, now)?;
        Ok(admission)
    }

    /// Counts a refused login; true when the client is banned from now on.
    pub(crate) fn login_refused(&self, rule: &AuthFailures, client: ClientAddress, now: Instant) -> bool {
        client.ip().is_some_and(|ip| lock(&self.bans).refused(rule, ip, now))
    }

    /// Whether `limits.authFailures` refuses the client now.
    pub(crate) fn is_banned(&self, limits: &Limits, client: ClientAddress, now: Instant) -> bool {
        let banned = |ip| lock(&self.bans).is_banned(ip, now);
        limits.auth_failures.is_some() && client.ip().is_some_and(banned)
    }
}

impl Admission {
    /// Counts the connection for its client, or says which limit refuses it.
    pub(crate) fn count(
        &mut self,
        limits: &Limits,
        client: ClientAddress,
        now: Instant,
    ) -> Result<(), Refusal> {
        if self.counters.is_banned(limits, client, now) {
            return Err(Refusal::Banned);
        }
        if let (Some(max), Some(key)) = (limits.max_connections_per_client, client.ip().map(client_key)) {
            let mut clients = lock(&self.counters.clients);
            let count = clients.entry(key).or_default();
            if *count >= max {
                return Err(Refusal::ClientFull);
            }
            *count += 1;
            self.client = Some(key);
        }
        Ok(())
    }
}

/// Connections of one peer that may wait for their PROXY header at once. A load balancer sends the header with the
/// connection, so few ever wait; and its address stands for all its clients, so that their own limit is not its.
pub(crate) const MAX_AWAITED_HEADERS: u32 = 256;

impl Drop for Admission {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.client
            && let Entry::Occupied(mut count) = lock(&self.counters.clients).entry(key)
        {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A poisoned lock holds counters, which stay usable whatever happened to the thread that held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        client_buffer: 4096,
        max_connections: Some(3),
        max_connections_per_client: Some(2),
        auth_failures: Some(RULE),
    };
    const RULE: AuthFailures =
        AuthFailures { count: 2, window: Duration::from_secs(60), ban: Duration::from_secs(300) };

    fn client(text: &str) -> ClientAddress {
        ClientAddress::new(text.parse().unwrap())
    }

    #[test]
    fn bounds_the_listener_and_each_client() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let one = counters.admit(&LIMITS, client("192.0.2.1:1"), now).unwrap();
        let _two = counters.admit(&LIMITS, client("192.0.2.1:2"), now).unwrap();
        assert_eq!(counters.admit(&LIMITS, client("192.0.2.1:3"), now).unwrap_err(), Refusal::ClientFull);
        let _other = counters.admit(&LIMITS, client("192.0.2.2:1"), now).unwrap();
        assert_eq!(counters.admit(&LIMITS, client("192.0.2.3:1"), now).unwrap_err(), Refusal::ListenerFull);
        drop(one);
        assert!(counters.admit(&LIMITS, client("192.0.2.1:4"), now).is_ok());
    }

    #[test]
    fn counts_a_connection_before_its_client_is_known() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let mut unknown: Vec<_> = (0..3).map(|_| counters.enter(&LIMITS).unwrap()).collect();
        assert_eq!(counters.enter(&LIMITS).unwrap_err(), Refusal::ListenerFull);
        let [first, second, third] = &mut unknown[..] else { panic!() };
        first.count(&LIMITS, client("192.0.2.1:1"), now).unwrap();
        second.count(&LIMITS, client("192.0.2.1:2"), now).unwrap();
        assert_eq!(third.count(&LIMITS, client("192.0.2.1:3"), now).unwrap_err(), Refusal::ClientFull);
        drop(unknown);
        assert!(counters.admit(&LIMITS, client("192.0.2.1:3"), now).is_ok());
    }

    #[test]
    fn counts_an_ipv6_client_by_its_prefix() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let _one = counters.admit(&LIMITS, client("[2001:db8::1]:1"), now).unwrap();
        let _two = counters.admit(&LIMITS, client("[2001:db8::2]:1"), now).unwrap();
        assert_eq!(counters.admit(&LIMITS, client("[2001:db8::3]:1"), now).unwrap_err(), Refusal::ClientFull);
    }

    #[test]
    fn bans_a_client_whose_logins_fail_and_forgives_it_in_time() {
        let counters = Arc::new(Counters::default());
        let start = Instant::now();
        let bad = client("192.0.2.1:1");
        assert!(!counters.login_refused(&RULE, bad, start));
        assert!(!counters.login_refused(&RULE, bad, start + Duration::from_secs(61)), "the window is over");
        let banned = start + Duration::from_secs(62);
        assert!(counters.login_refused(&RULE, bad, banned));
        assert_eq!(counters.admit(&LIMITS, bad, banned).unwrap_err(), Refusal::Banned);
        assert!(counters.admit(&LIMITS, bad, banned + RULE.ban).is_ok());
    }
}
