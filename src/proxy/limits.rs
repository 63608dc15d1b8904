//! What a listener counts across all its configurations: open sessions, sessions of each client, refused logins, client
//! addresses. Time is an argument.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::Limits;
use crate::model::settings::client_key;
use crate::net::ClientAddress;
use crate::protocol::LoginRequest;

use super::bans::{self, Bans};
use super::guess::{Guess, GuessKey};
use super::refusal_words::RefusalWords;
use super::source_addresses::SourceSummary;

/// The counters of one listener. They survive swaps, and last as long as the listener's sessions.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU32,
    clients: Mutex<HashMap<IpAddr, u32>>,
    bans: Mutex<Bans>,
    guesses: GuessKey,
    /// How long the backends took to refuse a wrong password.
    pub(crate) refusals: RefusalTime,
    /// Their words.
    pub(crate) words: RefusalWords,
    /// The addresses of the clients that tried to log in.
    pub(crate) sources: SourceSummary,
}

/// How long backends take to refuse a wrong password, in milliseconds: a moving average. A login without a backend is
/// refused after this time, so that the time does not tell which users exist.
#[derive(Debug)]
pub(crate) struct RefusalTime(AtomicU64);

/// Before any refusal: Dovecot's default delay.
impl Default for RefusalTime {
    fn default() -> Self {
        Self(AtomicU64::new(2000))
    }
}

impl RefusalTime {
    /// Adds the time of a refusal.
    pub(crate) fn add(&self, took: Duration) {
        let took = u64::try_from(took.min(MAX_REFUSAL_TIME).as_millis()).unwrap_or(u64::MAX);
        // A lost update does not matter.
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.saturating_mul(3).saturating_add(took) / 4, Ordering::Relaxed);
    }

    /// Returns the average time.
    pub(crate) fn average(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The longest time that is counted for a refusal.
const MAX_REFUSAL_TIME: Duration = Duration::from_secs(10);

/// The limit that refuses a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitReached {
    #[error("too many open connections to the listener (limits.maxConnections)")]
    ListenerFull,
    #[error("too many open connections of the client (limits.maxConnectionsPerClient)")]
    ClientFull,
    #[error("the client is banned by limits.authFailures")]
    Banned,
    /// More than [`MAX_AWAITED_HEADERS`] connections, or the client's own limit, wait for a PROXY header.
    #[error("the peer has too many connections that have not sent their PROXY header")]
    HeadersAwaited,
}

/// The addresses under which limits count a client. An address is absent if it stands for other clients too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedAs {
    /// For `limits.maxConnectionsPerClient`.
    connections: Option<IpAddr>,
    /// For `limits.authFailures`.
    failures: Option<IpAddr>,
}

/// An accepted connection; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    counters: Arc<Counters>,
    client: Option<IpAddr>,
}

impl Counters {
    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection before its client is known. Fails if the listener is full.
    pub(crate) fn enter(self: &Arc<Self>, limits: &Limits) -> Result<Admission, LimitReached> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { counters: Arc::clone(self), client: None };
        if limits.max_connections.is_some_and(|max| open >= max) {
            return Err(LimitReached::ListenerFull);
        }
        Ok(admission)
    }

    /// Counts a connection and its client. Fails with the limit that refuses it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        limits: &Limits,
        client: CountedAs,
        now: Instant,
    ) -> Result<Admission, LimitReached> {
        let mut admission = self.enter(limits)?;
        admission.count(limits, client, now)?;
        Ok(admission)
    }

    /// Hashes a login, so that a repetition can be recognised.
    pub(crate) fn guess(&self, request: &LoginRequest) -> Option<Guess> {
        self.guesses.guess(request)
    }

    /// Counts a refused login. `None` if no rule applies to this client.
    pub(crate) fn login_refused(
        &self,
        limits: &Limits,
        client: CountedAs,
        guess: Option<Guess>,
        now: Instant,
    ) -> Option<bans::Consequence> {
        let (rule, ip) = (limits.auth_failures?, client.failures.filter(|ip| !limits.exempts(*ip))?);
        Some(self.bans.lock().refused(&rule, ip, guess, now))
    }

    /// Tells whether `limits.authFailures` refuses the client now.
    pub(crate) fn is_banned(&self, limits: &Limits, client: CountedAs, now: Instant) -> bool {
        self.banned_until(limits, client, now).is_some()
    }

    /// Returns until when `limits.authFailures` refuses the client.
    pub(crate) fn banned_until(&self, limits: &Limits, client: CountedAs, now: Instant) -> Option<Instant> {
        limits.auth_failures?;
        let ip = client.failures.filter(|ip| !limits.exempts(*ip))?;
        self.bans.lock().banned_until(ip, now)
    }
}

impl CountedAs {
    /// Counts a client by its own address.
    pub(crate) fn client(client: ClientAddress) -> Self {
        Self { connections: client.ip(), failures: client.ip() }
    }

    /// Counts a connection of a trusted peer whose header is not used. Its address stands for all its clients. The
    /// connection limit applies to it, because the operator chose this address as the client's; a ban does not, because
    /// one client could then lock out all others.
    pub(crate) fn trusted_peer(peer: ClientAddress) -> Self {
        Self { connections: peer.ip(), failures: None }
    }

    /// Counts nothing: a trusted peer connects without naming a client, for a health check or an unknown client.
    pub(crate) const fn nobody() -> Self {
        Self { connections: None, failures: None }
    }

    /// The address that a ban would apply to.
    pub(crate) const fn failures(self) -> Option<IpAddr> {
        self.failures
    }
}

impl Admission {
    /// Counts the connection for its client. Fails with the limit that refuses it.
    pub(crate) fn count(
        &mut self,
        limits: &Limits,
        client: CountedAs,
        now: Instant,
    ) -> Result<(), LimitReached> {
        if self.counters.is_banned(limits, client, now) {
            return Err(LimitReached::Banned);
        }
        let counted = client.connections.filter(|ip| !limits.exempts(*ip)).map(client_key);
        if let (Some(max), Some(key)) = (limits.max_connections_per_client, counted) {
            let mut clients = self.counters.clients.lock();
            let count = clients.entry(key).or_default();
            if *count >= max {
                return Err(LimitReached::ClientFull);
            }
            *count += 1;
            self.client = Some(key);
        }
        Ok(())
    }
}

/// Connections of one peer that may wait for their PROXY header at once. A load balancer sends the header when it
/// connects, so few of them wait. It needs a higher limit than a client, because its address stands for all its
/// clients.
pub(crate) const MAX_AWAITED_HEADERS: u32 = 256;

impl Drop for Admission {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.client
            && let Entry::Occupied(mut count) = self.counters.clients.lock().entry(key)
        {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::model::settings::AuthFailures;

    fn limits() -> Limits {
        Limits {
            max_connections: Some(3),
            max_connections_per_client: Some(2),
            auth_failures: Some(RULE),
            exempt: ["198.51.100.0/24", "2001:db8:5::/48"].map(|network| network.parse().unwrap()).into(),
            ..Limits::default()
        }
    }
    const RULE: AuthFailures =
        AuthFailures { count: 2, window: Duration::from_secs(60), ban: Duration::from_secs(300) };

    fn client(text: &str) -> CountedAs {
        CountedAs::client(ClientAddress::new(text.parse().unwrap()))
    }

    #[test]
    fn bounds_the_listener_and_each_client() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let one = counters.admit(&limits(), client("192.0.2.1:1"), now).unwrap();
        let _two = counters.admit(&limits(), client("192.0.2.1:2"), now).unwrap();
        assert_eq!(
            counters.admit(&limits(), client("192.0.2.1:3"), now).unwrap_err(),
            LimitReached::ClientFull
        );
        let _other = counters.admit(&limits(), client("192.0.2.2:1"), now).unwrap();
        assert_eq!(
            counters.admit(&limits(), client("192.0.2.3:1"), now).unwrap_err(),
            LimitReached::ListenerFull
        );
        drop(one);
        assert!(counters.admit(&limits(), client("192.0.2.1:4"), now).is_ok());
    }

    #[test]
    fn counts_a_connection_before_its_client_is_known() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let mut unknown: Vec<_> = (0..3).map(|_| counters.enter(&limits()).unwrap()).collect();
        assert_eq!(counters.enter(&limits()).unwrap_err(), LimitReached::ListenerFull);
        let [first, second, third] = &mut unknown[..] else { panic!() };
        first.count(&limits(), client("192.0.2.1:1"), now).unwrap();
        second.count(&limits(), client("192.0.2.1:2"), now).unwrap();
        assert_eq!(third.count(&limits(), client("192.0.2.1:3"), now).unwrap_err(), LimitReached::ClientFull);
        drop(unknown);
        assert!(counters.admit(&limits(), client("192.0.2.1:3"), now).is_ok());
    }

    #[test]
    fn counts_an_ipv6_client_by_its_prefix() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let _one = counters.admit(&limits(), client("[2001:db8::1]:1"), now).unwrap();
        let _two = counters.admit(&limits(), client("[2001:db8::2]:1"), now).unwrap();
        assert_eq!(
            counters.admit(&limits(), client("[2001:db8::3]:1"), now).unwrap_err(),
            LimitReached::ClientFull
        );
    }

    #[test]
    fn bans_a_client_whose_logins_fail_and_forgives_it_in_time() {
        let counters = Arc::new(Counters::default());
        let start = Instant::now();
        let bad = client("192.0.2.1:1");
        let refused = |now| counters.login_refused(&limits(), bad, None, now).unwrap();
        assert_eq!(refused(start), bans::Consequence::Counted);
        assert_eq!(
            refused(start + Duration::from_secs(61)),
            bans::Consequence::Counted,
            "the window is over"
        );
        let banned = start + Duration::from_secs(62);
        assert_eq!(refused(banned), bans::Consequence::Banned);
        assert_eq!(counters.admit(&limits(), bad, banned).unwrap_err(), LimitReached::Banned);
        assert!(counters.admit(&limits(), bad, banned + RULE.ban).is_ok());
    }

    #[test]
    fn neither_limits_nor_bans_exempt_networks() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        for exempt in ["198.51.100.7:1", "[2001:db8:5::7]:1"] {
            let exempt = client(exempt);
            for _ in 0..5 {
                assert_eq!(counters.login_refused(&limits(), exempt, None, now), None);
            }
            let all: Vec<_> = (0..3).map(|_| counters.admit(&limits(), exempt, now).unwrap()).collect();
            assert_eq!(counters.admit(&limits(), exempt, now).unwrap_err(), LimitReached::ListenerFull);
            drop(all);
        }
    }

    #[test]
    fn a_banned_client_whose_network_becomes_exempt_is_let_in() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let before = Limits { exempt: [].into(), ..limits() };
        let exempt = client("198.51.100.7:1");
        for _ in 0..RULE.count {
            counters.login_refused(&before, exempt, None, now);
        }
        assert!(counters.is_banned(&before, exempt, now));
        assert!(counters.admit(&limits(), exempt, now).is_ok());
    }

    #[test]
    fn a_trusted_peers_own_address_is_never_banned() {
        let counters = Arc::new(Counters::default());
        let now = Instant::now();
        let peer = ClientAddress::new("192.0.2.1:1".parse().unwrap());
        for counted in [CountedAs::nobody(), CountedAs::trusted_peer(peer)] {
            for _ in 0..5 {
                assert_eq!(counters.login_refused(&limits(), counted, None, now), None);
            }
            assert!(!counters.is_banned(&limits(), counted, now));
        }
        let _all = [(); 2].map(|()| counters.admit(&limits(), CountedAs::trusted_peer(peer), now).unwrap());
        let full = counters.admit(&limits(), CountedAs::trusted_peer(peer), now);
        assert_eq!(full.unwrap_err(), LimitReached::ClientFull);
        assert!(counters.admit(&limits(), CountedAs::nobody(), now).is_ok());
    }
}
