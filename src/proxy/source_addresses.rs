//! Records the addresses that clients connect from, to detect a lost client address. Behind NAT or a load balancer that
//! proxies TCP, all clients appear to have the same few addresses. Rules about addresses then apply to everybody, such
//! as a backend that relays for its own network.
//!
//! Each listener has a small summary of the connections that tried to log in. It is reported when it changes
//! significantly, not for each connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::model::{ListenerId, SourceAddresses};

/// Where a connection's client address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the connection itself: the peer is the client.
    Peer(IpAddr),
    /// From a PROXY header of a trusted peer.
    Header,
}

/// The summary of one listener: the current window and the previous one.
#[derive(Debug, Default)]
pub(crate) struct SourceSummary(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    since: Option<Instant>,
    open: Window,
    previous: Window,
    reported: SourceAddresses,
}

/// The connections of one window.
#[derive(Debug, Default)]
struct Window {
    connections: u64,
    proxied: u64,
    /// Sorted; at most [`SourceAddresses::MOST_ADDRESSES`].
    addresses: Vec<IpAddr>,
    more: bool,
}

/// The summaries that have changed since the last report.
#[derive(Debug, Default)]
pub(crate) struct ChangedSources {
    summaries: Mutex<BTreeMap<ListenerId, SourceAddresses>>,
    changed: Notify,
}

impl SourceSummary {
    /// Adds a connection. Returns the summary if it has changed significantly; otherwise this allocates nothing.
    pub(crate) fn add(&self, origin: Origin, now: Instant) -> Option<SourceAddresses> {
        // Missing one connection is better than blocking a session.
        let mut windows = self.0.try_lock()?;
        let rotated = windows.rotate(now);
        let is_new = windows.open.add(origin);
        if !(rotated || is_new)
            && windows.counts() == (windows.reported.connections, windows.reported.proxied)
        {
            return None;
        }
        let seen = windows.seen();
        if seen == windows.reported {
            return None;
        }
        windows.reported = seen.clone();
        Some(seen)
    }
}

impl Windows {
    /// Starts a new window if the current one is over. Returns true if it did.
    fn rotate(&mut self, now: Instant) -> bool {
        let Some(since) = self.since else {
            self.since = Some(now);
            return true;
        };
        let age = now.saturating_duration_since(since);
        if age < WINDOW {
            return false;
        }
        self.previous = std::mem::take(&mut self.open);
        if age >= WINDOW.saturating_mul(2) {
            self.previous = Window::default();
        }
        self.since = Some(now);
        true
    }

    /// Returns the rounded counts of both windows.
    fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Window) -> u64| rounded(of(&self.previous).saturating_add(of(&self.open)));
        (sum(|window| window.connections), sum(|window| window.proxied))
    }

    /// Merges both windows.
    fn seen(&self) -> SourceAddresses {
        let mut addresses = [self.previous.addresses.as_slice(), self.open.addresses.as_slice()].concat();
        addresses.sort_unstable();
        addresses.dedup();
        let more = self.previous.more || self.open.more || addresses.len() > SourceAddresses::MOST_ADDRESSES;
        if more {
            addresses.clear();
        }
        let (connections, proxied) = self.counts();
        SourceAddresses { connections, proxied, addresses, more }
    }
}

impl Window {
    /// Adds a connection. Returns true if the known addresses have changed.
    fn add(&mut self, origin: Origin) -> bool {
        let Origin::Peer(address) = origin else {
            self.proxied = self.proxied.saturating_add(1);
            return false;
        };
        self.connections = self.connections.saturating_add(1);
        let Err(position) = self.addresses.binary_search(&address) else { return false };
        if self.addresses.len() < SourceAddresses::MOST_ADDRESSES {
            self.addresses.insert(position, address);
            return true;
        }
        !std::mem::replace(&mut self.more, true)
    }
}

impl ChangedSources {
    /// Stores a summary for the next report.
    pub(crate) fn report(&self, listener: &ListenerId, sources: SourceAddresses) {
        self.summaries.lock().insert(listener.clone(), sources);
        self.changed.notify_one();
    }

    /// Waits for a change, then for [`SETTLE`], to report several changes at once.
    pub(crate) async fn settled(&self) {
        self.changed.notified().await;
        sleep(SETTLE).await;
    }

    /// Takes the summaries that have changed since the last call.
    pub(crate) fn take(&self) -> BTreeMap<ListenerId, SourceAddresses> {
        std::mem::take(&mut *self.summaries.lock())
    }
}

fn rounded(count: u64) -> u64 {
    count.checked_ilog10().map_or(0, |digits| 10_u64.saturating_pow(digits)).min(SourceAddresses::MANY)
}

/// Length of a window. An address is forgotten after one to two windows, so that a corrected setup is noticed.
const WINDOW: Duration = Duration::from_secs(600);

/// Minimum time between two reports of source addresses.
const SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Origin {
        Origin::Peer(IpAddr::from([192, 0, 2, last]))
    }

    fn addresses(of: &SourceAddresses) -> Vec<String> {
        of.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_summary_is_reported_when_it_changes_significantly() {
        let (summary, now) = (SourceSummary::default(), Instant::now());
        let reported: Vec<SourceAddresses> = (0..5000).filter_map(|_| summary.add(peer(1), now)).collect();
        assert_eq!(
            reported.iter().map(|sources| sources.connections).collect::<Vec<_>>(),
            [1, 10, 100, 1000]
        );
        let second = summary.add(peer(0), now).unwrap();
        assert_eq!((addresses(&second), second.more), (vec!["192.0.2.0".into(), "192.0.2.1".into()], false));
        assert_eq!(summary.add(peer(1), now), None);
        let header = summary.add(Origin::Header, now).unwrap();
        assert_eq!((header.proxied, header.connections), (1, 1000));
    }

    #[test]
    fn addresses_are_listed_while_they_are_few() {
        let (summary, now) = (SourceSummary::default(), Instant::now());
        let reported: Vec<SourceAddresses> =
            (0..200).filter_map(|last| summary.add(peer(last), now)).collect();
        let few = reported.iter().rfind(|sources| !sources.more).unwrap();
        assert_eq!(few.addresses.len(), SourceAddresses::MOST_ADDRESSES);
        let last = reported.last().unwrap();
        assert_eq!((last.connections, last.addresses.len(), last.more), (100, 0, true));
        assert_eq!(
            reported.iter().filter(|sources| sources.more).count(),
            2,
            "when they become many, and at 100"
        );
    }

    #[test]
    fn what_was_seen_is_forgotten_in_time() {
        let (summary, start) = (SourceSummary::default(), Instant::now());
        summary.add(peer(1), start).unwrap();
        let both = summary.add(peer(2), start + WINDOW).unwrap();
        assert_eq!(addresses(&both), ["192.0.2.1", "192.0.2.2"]);
        let one = summary.add(peer(2), start + 2 * WINDOW).unwrap();
        assert_eq!((addresses(&one), one.connections), (vec!["192.0.2.2".into()], 1));
        let later = summary.add(peer(3), start + 9 * WINDOW).unwrap();
        assert_eq!((addresses(&later), later.connections), (vec!["192.0.2.3".into()], 1));
    }
}
