//! Counts failed logins by client network and decides about bans. Pure: time is an argument.
//!
//! The table is bounded and every call takes O(log n). An IPv6 client is counted by its /64. When the table is full and
//! a /56 or /48 has many entries in it, new clients of that network share one entry, and one of the network's own
//! entries is removed for it. Thus a flood from one network bans this network and removes no other client. In all other
//! cases, the entry with the fewest failures is removed, and among those the oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Instant;

use crate::model::settings::AuthFailures;

use super::guess::{Guess, Tried};

/// The failed logins and bans of one listener.
#[derive(Debug)]
pub(crate) struct Bans {
    capacity: usize,
    known: BTreeMap<Network, EntryState>,
    /// Networks that are not banned, sorted by failures, then by the start of the window.
    counting: BTreeSet<(u32, Instant, Network)>,
    /// The same networks, sorted by the end of the window.
    windows: BTreeSet<(Instant, Network)>,
    /// Banned networks, sorted by the end of the ban.
    banned: BTreeSet<(Instant, Network)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Counting {
        /// Refused logins since `since`, without repeated ones.
        failures: u32,
        since: Instant,
        until: Instant,
        /// Recent wrong logins, to recognise a repeated one.
        tried: Tried,
    },
    Banned {
        until: Instant,
    },
}

/// What a refused login means for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The client tried the same login before, so it does not count again.
    Repeated,
    /// It counts as a new failure.
    Counted,
    /// The client is banned from now on.
    Banned,
}

/// The key of an entry: one IPv4 address, or an IPv6 network of 64, 56 or 48 bits. The derived order puts the subnets
/// of a network next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    V4(Ipv4Addr),
    V6 { bits: u64, length: u8 },
}

impl Default for Bans {
    fn default() -> Self {
        Self::with_capacity(MAX_TRACKED)
    }
}

impl Bans {
    /// Creates a table with at most `capacity` entries.
    fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            known: BTreeMap::new(),
            counting: BTreeSet::new(),
            windows: BTreeSet::new(),
            banned: BTreeSet::new(),
        }
    }

    /// Tells whether the client's own network or a wider one is banned.
    pub(crate) fn is_banned(&self, client: IpAddr, now: Instant) -> bool {
        self.banned_until(client, now).is_some()
    }

    /// Returns the end of the ban of the client's own network or a wider one.
    pub(crate) fn banned_until(&self, client: IpAddr, now: Instant) -> Option<Instant> {
        let own = Network::of(client);
        let wider = own.wider().map(|(network, _)| network);
        let ends = std::iter::once(own).chain(wider).filter_map(|network| match self.known.get(&network) {
            Some(EntryState::Banned { until }) if now < *until => Some(*until),
            _ => None,
        });
        ends.max()
    }

    /// Counts a refused login, unless the client has already tried the same `guess` in this window.
    pub(crate) fn refused(
        &mut self,
        rule: &AuthFailures,
        client: IpAddr,
        guess: Option<Guess>,
        now: Instant,
    ) -> Consequence {
        if self.is_banned(client, now) {
            return Consequence::Banned;
        }
        self.forget_expired(now);
        let own = Network::of(client);
        let counted = self.counted_as(own);
        if counted != own {
            self.set(own, None);
        }
        let (failures, since, until, mut tried) = match self.known.get(&counted) {
            Some(EntryState::Counting { failures, since, until, tried }) if now < *until => {
                (*failures, *since, *until, *tried)
            }
            _ => (0, now, now + rule.window, Tried::default()),
        };
        let is_again = guess.is_some_and(|guess| tried.again(guess));
        let failures = failures.saturating_add(u32::from(!is_again));
        let is_banned = !is_again && failures >= rule.count;
        let state = if is_banned {
            EntryState::Banned { until: now + rule.ban }
        } else {
            EntryState::Counting { failures, since, until, tried }
        };
        self.make_room(counted, is_banned);
        self.set(counted, Some(state));
        match (is_banned, is_again) {
            (true, _) => Consequence::Banned,
            (false, true) => Consequence::Repeated,
            (false, false) => Consequence::Counted,
        }
    }

    /// Returns the network that a client is counted as: a wider network that already has an entry, or one with many
    /// entries when the table is full; otherwise its own.
    fn counted_as(&self, own: Network) -> Network {
        let known = own.wider().map(|(network, _)| network).find(|network| self.known.contains_key(network));
        let crowded = || {
            let mut wider = own.wider().filter(|_| self.is_full());
            wider.find(|(network, many)| self.members(*network).count() >= *many).map(|(network, _)| network)
        };
        known.or_else(crowded).unwrap_or(own)
    }

    fn is_full(&self) -> bool {
        self.known.len() >= self.capacity || self.banned.len() >= self.max_banned()
    }

    /// Bans may use three quarters of the table. The rest is for clients that are still being counted, so that new ones
    /// can be banned.
    fn max_banned(&self) -> usize {
        (self.capacity / 4 * 3).max(1)
    }

    /// Removes an entry if there is no room for `newcomer`. It prefers entries inside the newcomer's network.
    fn make_room(&mut self, newcomer: Network, is_banned: bool) {
        if is_banned && self.banned.len() >= self.max_banned() {
            let own = self.members(newcomer).find(|network| self.is_ban(network));
            let victim = own.or_else(|| self.banned.first().map(|(_, network)| *network));
            self.forget(victim);
        }
        if self.known.len() >= self.capacity && !self.known.contains_key(&newcomer) {
            let own = self.members(newcomer).find(|network| !self.is_ban(network));
            let fewest = || self.counting.first().map(|(_, _, network)| *network);
            let victim = own.or_else(|| self.members(newcomer).next()).or_else(fewest);
            self.forget(victim.or_else(|| self.banned.first().map(|(_, network)| *network)));
        }
    }

    fn is_ban(&self, network: &Network) -> bool {
        matches!(self.known.get(network), Some(EntryState::Banned { .. }))
    }

    /// Returns entries inside `network`, at most [`MANY_IN_48`].
    fn members(&self, network: Network) -> impl Iterator<Item = Network> {
        let range = network.members();
        range
            .into_iter()
            .flat_map(|range| self.known.range(range))
            .map(|(member, _)| *member)
            .take(MANY_IN_48)
    }

    /// Removes a few expired entries per call. A call adds fewer than it can remove, so expired entries do not
    /// accumulate.
    fn forget_expired(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let window = self.windows.first().filter(|(until, _)| *until <= now).map(|(_, network)| *network);
            let ban = self.banned.first().filter(|(until, _)| *until <= now).map(|(_, network)| *network);
            self.forget(window);
            self.forget(ban);
        }
    }

    fn forget(&mut self, network: Option<Network>) {
        if let Some(network) = network {
            self.set(network, None);
        }
    }

    /// Changes an entry. All changes go through this function, which keeps the sorted sets consistent with the map.
    fn set(&mut self, network: Network, state: Option<EntryState>) {
        let before = match state {
            Some(state) => self.known.insert(network, state),
            None => self.known.remove(&network),
        };
        match before {
            Some(EntryState::Counting { failures, since, until, .. }) => {
                self.counting.remove(&(failures, since, network));
                self.windows.remove(&(until, network));
            }
            Some(EntryState::Banned { until }) => {
                self.banned.remove(&(until, network));
            }
            None => {}
        }
        match state {
            Some(EntryState::Counting { failures, since, until, .. }) => {
                self.counting.insert((failures, since, network));
                self.windows.insert((until, network));
            }
            Some(EntryState::Banned { until }) => {
                self.banned.insert((until, network));
            }
            None => {}
        }
    }
}

impl Network {
    fn of(client: IpAddr) -> Self {
        match client {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let bits = [a, b, c, d].into_iter().fold(0, |bits, part| bits << 16 | u64::from(part));
                Self::V6 { bits, length: 64 }
            }
        }
    }

    /// Returns the /56 and the /48 around an IPv6 client, each with the number of entries from which it is crowded.
    fn wider(self) -> impl Iterator<Item = (Self, usize)> {
        let bits = match self {
            Self::V4(_) => None,
            Self::V6 { bits, .. } => Some(bits),
        };
        let network =
            |length: u8, many| bits.map(|bits| (Self::V6 { bits: bits & mask(length), length }, many));
        [network(56, MANY_IN_56), network(48, MANY_IN_48)].into_iter().flatten()
    }

    /// Returns the range of all narrower networks inside this one.
    fn members(self) -> Option<RangeInclusive<Self>> {
        match self {
            Self::V6 { bits, length } if length < 64 => {
                let first = Self::V6 { bits, length: length + 1 };
                Some(first..=Self::V6 { bits: bits | !mask(length), length: 64 })
            }
            _ => None,
        }
    }
}

const fn mask(length: u8) -> u64 {
    u64::MAX << (64 - length as u32)
}

/// Networks remembered for each listener; a full table needs about 20 MB.
const MAX_TRACKED: usize = 65_536;

/// A full table counts a /56 with at least this many entries as one network.
const MANY_IN_56: usize = 8;

/// As [`MANY_IN_56`], for a /48.
const MANY_IN_48: usize = 64;

/// Expired windows, and expired bans, that one refused login removes at most.
const FORGOTTEN_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::protocol::LoginRequest;
    use crate::proxy::guess::GuessKey;
    use crate::secret::Secret;

    const RULE: AuthFailures =
        AuthFailures { count: 3, window: Duration::from_secs(60), ban: Duration::from_secs(300) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Returns the `index`th /64 of `2001:db8::/48`.
    fn flooding(index: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, index, 0, 0, 0, 1).into()
    }

    fn other_client(index: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc633_0000 + index).into()
    }

    /// Counts a wrong login that repeats no other. Returns true if it caused a ban.
    fn refused(bans: &mut Bans, client: IpAddr, now: Instant) -> bool {
        bans.refused(&RULE, client, None, now) == Consequence::Banned
    }

    fn ban(bans: &mut Bans, client: IpAddr, now: Instant) {
        for _ in 0..RULE.count {
            refused(bans, client, now);
        }
        assert!(bans.is_banned(client, now), "{client}");
    }

    /// Checks that the sorted sets contain the same networks as the map.
    fn check(bans: &Bans) {
        assert!(bans.known.len() <= bans.capacity);
        assert!(bans.banned.len() <= bans.max_banned());
        assert_eq!(bans.counting.len() + bans.banned.len(), bans.known.len());
        assert_eq!(bans.counting.len(), bans.windows.len());
        for (network, state) in &bans.known {
            assert!(match *state {
                EntryState::Counting { failures, since, until, .. } =>
                    bans.counting.contains(&(failures, since, *network))
                        && bans.windows.contains(&(until, *network)),
                EntryState::Banned { until } => bans.banned.contains(&(until, *network)),
            });
        }
    }

    #[test]
    fn bans_a_client_at_the_last_failure_of_its_window_and_forgives_it_in_time() {
        let mut bans = Bans::default();
        let start = Instant::now();
        let client = ip("192.0.2.1");
        assert!(!refused(&mut bans, client, start));
        assert!(!refused(&mut bans, client, start));
        let later = start + RULE.window;
        assert!(!refused(&mut bans, client, later), "the window is over");
        assert!(!refused(&mut bans, client, later));
        assert!(refused(&mut bans, client, later));
        assert!(bans.is_banned(client, later) && !bans.is_banned(ip("192.0.2.2"), later));
        assert!(!bans.is_banned(client, later + RULE.ban));
        assert!(!refused(&mut bans, client, later + RULE.ban), "counts anew");
    }

    #[test]
    fn the_same_wrong_password_of_a_client_counts_once_for_each_window() {
        let (mut bans, key, start) = (Bans::default(), GuessKey::default(), Instant::now());
        let guess = |login: &str, password: &str| {
            let password = Secret::from(password.as_bytes());
            let login = login.as_bytes().to_vec();
            key.guess(&LoginRequest::Password { login, password, authzid: Vec::new() })
        };
        let phone = ip("192.0.2.1");
        let mut tries = |client, guess, now| bans.refused(&RULE, client, guess, now);
        assert_eq!(tries(phone, guess("ada", "old"), start), Consequence::Counted);
        for second in 1..59 {
            let now = start + Duration::from_secs(second);
            assert_eq!(tries(phone, guess("ada", "old"), now), Consequence::Repeated);
        }
        assert_eq!(
            tries(phone, guess("ada", "old"), start + RULE.window),
            Consequence::Counted,
            "a new window"
        );
        let now = start + RULE.window;
        assert_eq!(tries(ip("192.0.2.2"), guess("ada", "old"), now), Consequence::Counted, "another client");
        assert_eq!(tries(phone, guess("bob", "old"), now), Consequence::Counted, "another login");
        assert_eq!(tries(phone, guess("ada", "old"), now), Consequence::Repeated, "in between");
        assert_eq!(tries(phone, guess("ada", "new"), now), Consequence::Banned, "another password");
    }

    #[test]
    fn counts_ipv6_by_64_while_there_is_room() {
        let mut bans = Bans::default();
        let now = Instant::now();
        ban(&mut bans, ip("2001:db8::1"), now);
        assert!(bans.is_banned(ip("2001:db8::2"), now));
        assert!(!bans.is_banned(ip("2001:db8:0:1::1"), now));
    }

    #[test]
    fn a_full_table_bans_a_flooding_48_and_keeps_everybody_else() {
        for failures_each in 1..=RULE.count {
            let mut bans = Bans::with_capacity(1024);
            let now = Instant::now();
            for index in 0..100 {
                ban(&mut bans, other_client(index), now);
                refused(&mut bans, other_client(1000 + index), now);
            }
            for index in 0..u16::MAX {
                for _ in 0..failures_each {
                    refused(&mut bans, flooding(index), now);
                }
            }
            check(&bans);
            assert!(bans.is_banned(flooding(u16::MAX), now), "{failures_each} failures each");
            for index in 0..100 {
                assert!(bans.is_banned(other_client(index), now), "{failures_each} failures each");
                refused(&mut bans, other_client(1000 + index), now);
                assert!(refused(&mut bans, other_client(1000 + index), now), "{failures_each} failures each");
            }
        }
    }

    #[test]
    fn a_full_table_counts_a_crowded_56_before_its_48() {
        let mut bans = Bans::with_capacity(256);
        let now = Instant::now();
        for index in 0..(256 - MANY_IN_56 as u32) {
            refused(&mut bans, other_client(index), now);
        }
        for index in 0..MANY_IN_56 as u16 {
            refused(&mut bans, flooding(index), now);
        }
        for index in 100..103 {
            refused(&mut bans, flooding(index), now);
        }
        assert!(bans.is_banned(flooding(0xff), now));
        assert!(!bans.is_banned(flooding(0x100), now), "another /56");
    }

    #[test]
    fn a_newcomer_is_banned_though_the_table_is_full_of_bans() {
        let mut bans = Bans::with_capacity(1024);
        let now = Instant::now();
        for index in 0..5000 {
            ban(&mut bans, other_client(index), now + Duration::from_millis(index.into()));
        }
        check(&bans);
        let now = now + Duration::from_secs(10);
        ban(&mut bans, ip("192.0.2.1"), now);
        assert!(bans.is_banned(other_client(4999), now), "the ban that ends first makes room");
    }

    #[test]
    fn a_client_close_to_a_ban_outlasts_any_number_of_others() {
        let mut bans = Bans::with_capacity(1024);
        let now = Instant::now();
        let client = ip("192.0.2.1");
        refused(&mut bans, client, now);
        refused(&mut bans, client, now);
        for index in 0..10_000 {
            refused(&mut bans, other_client(index), now);
        }
        assert!(refused(&mut bans, client, now));
    }

    #[test]
    fn what_is_expired_leaves_by_and_by() {
        let mut bans = Bans::with_capacity(1024);
        let start = Instant::now();
        for index in 0..300 {
            ban(&mut bans, other_client(index), start);
            refused(&mut bans, other_client(1000 + index), start);
        }
        let later = start + RULE.ban;
        for index in 0..200 {
            refused(&mut bans, other_client(2000 + index), later);
        }
        check(&bans);
        assert_eq!(bans.known.len(), 200);
    }

    proptest! {
        #[test]
        fn counts_as_a_table_without_bounds_does_while_there_is_room(
            attempts in prop::collection::vec((0_u16..12, any::<bool>(), 0_u64..40), 0..300),
        ) {
            let mut bans = Bans::with_capacity(64);
            let mut expected: HashMap<IpAddr, (u32, Instant, Option<Instant>)> = HashMap::new();
            let mut now = Instant::now();
            for (index, is_v4, seconds) in attempts {
                now += Duration::from_secs(seconds);
                let client = if is_v4 { other_client(index.into()) } else { flooding(index * 300) };
                let (failures, since, banned) = expected.entry(client).or_insert((0, now, None));
                let is_current = match *banned {
                    Some(until) => now < until,
                    None => now < *since + RULE.window,
                };
                if !is_current {
                    (*failures, *since, *banned) = (0, now, None);
                }
                *failures += 1;
                if *failures >= RULE.count && banned.is_none() {
                    *banned = Some(now + RULE.ban);
                }
                prop_assert_eq!(refused(&mut bans, client, now), banned.is_some());
                prop_assert_eq!(bans.is_banned(client, now), banned.is_some());
                check(&bans);
            }
        }

        #[test]
        fn stays_within_its_bounds_whoever_comes(
            attempts in prop::collection::vec((0_u32..4, any::<u16>(), 0_u64..2), 0..3000),
        ) {
            let mut bans = Bans::with_capacity(128);
            let mut now = Instant::now();
            for (kind, index, seconds) in attempts {
                now += Duration::from_secs(seconds);
                let client = match kind {
                    0 => other_client(index.into()),
                    1 => flooding(index),
                    2 => flooding(index % 16),
                    _ => Ipv6Addr::new(0x2001, 0xdb8, index, index, 0, 0, 0, 1).into(),
                };
                let banned = refused(&mut bans, client, now);
                prop_assert_eq!(bans.is_banned(client, now), banned);
            }
            check(&bans);
        }
    }
}
