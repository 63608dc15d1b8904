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

use super::peers::Picture;

/// The counters of one listener; they live as long as its sessions and over every swap.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU32,
    clients: Mutex<HashMap<IpAddr, u32>>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    /// Whose addresses its clients come with.
    pub(crate) peers: Picture,
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// `limits.maxConnections`.
    #[error("the listener has all of its limits.maxConnections sessions")]
    ListenerFull,
    /// `limits.maxConnectionsPerClient`.
    #[error("the client has all of its limits.maxConnectionsPerClient sessions")]
    ClientFull,
    /// `limits.authFailures`.
    #[error("the client is banned by limits.authFailures")]
    Banned,
}

/// A session that was let in; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    counters: Arc<Counters>,
    client: Option<IpAddr>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
    banned_until: Option<Instant>,
}

impl Counters {
    /// Lets a session in, or says which limit refuses it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        limits: &Limits,
        client: ClientAddress,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        let client = client.ip().map(client_key);
        if limits.auth_failures.is_some() && client.is_some_and(|key| self.is_banned(key, now)) {
            return Err(Refusal::Banned);
        }
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut admission = Admission { counters: Arc::clone(self), client: None };
        if limits.max_connections.is_some_and(|max| open >= max) {
            return Err(Refusal::ListenerFull);
        }
        if let (Some(max), Some(key)) = (limits.max_connections_per_client, client) {
            let mut clients = lock(&self.clients);
            let count = clients.entry(key).or_default();
            if *count >= max {
                return Err(Refusal::ClientFull);
            }
            *count += 1;
            admission.client = Some(key);
        }
        Ok(admission)
    }

    /// Counts a refused login; true when the client is banned from now on.
    pub(crate) fn login_refused(&self, rule: &AuthFailures, client: ClientAddress, now: Instant) -> bool {
        let Some(key) = client.ip().map(client_key) else { return false };
        let mut failures = lock(&self.failures);
        if failures.len() >= MAX_TRACKED {
            failures.retain(|_, failure| failure.is_current(rule, now));
        }
        if failures.len() >= MAX_TRACKED && !failures.contains_key(&key) {
            return false;
        }
        let failure = failures.entry(key).or_insert(Failures { since: now, count: 0, banned_until: None });
        if !failure.is_current(rule, now) {
            *failure = Failures { since: now, count: 0, banned_until: None };
        }
        failure.count += 1;
        if failure.count >= rule.count {
            failure.banned_until = Some(now + rule.ban);
        }
        failure.banned_until.is_some()
    }

    fn is_banned(&self, key: IpAddr, now: Instant) -> bool {
        lock(&self.failures)
            .get(&key)
            .and_then(|failure| failure.banned_until)
            .is_some_and(|until| now < until)
    }
}

impl Failures {
    fn is_current(&self, rule: &AuthFailures, now: Instant) -> bool {
        match self.banned_until {
            Some(until) => now < until,
            None => now.saturating_duration_since(self.since) < rule.window,
        }
    }
}

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

/// Clients whose refused logins are remembered, for each listener; when a flood of addresses fills it, new
/// ones are not counted until old ones expire.
const MAX_TRACKED: usize = 65_536;

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
