//! Limits the concurrent requests of each kind, in total and for each peer.
//!
//! Probes have no kind; only their connections are limited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::connections::Peer;

/// The kind of a request, by its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Waits for changes at `/served`.
    Poll,
    /// The answer of `/served`, until it is written.
    Served,
    /// `/metrics`, until it is written.
    Metrics,
    /// Any other page, until it is written.
    Page,
}

/// Counts of the requests in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    taken: Mutex<BTreeMap<(Kind, Peer), usize>>,
    freed: Notify,
}

/// Counts one request until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    bounds: Bounds,
    kind: Kind,
    peer: Peer,
}

impl Bounds {
    /// Reserves a place if one is free.
    pub(super) fn take(&self, kind: Kind, peer: Peer) -> Option<Place> {
        let mut taken = self.lock();
        let in_all: usize = taken.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum();
        let of_peer = taken.get(&(kind, peer)).copied().unwrap_or_default();
        if in_all >= kind.at_once() || of_peer >= kind.of_peer() {
            return None;
        }
        *taken.entry((kind, peer)).or_default() += 1;
        Some(Place { bounds: self.clone(), kind, peer })
    }

    /// Reserves a place. Waits for one at most [`PATIENCE`].
    pub(super) async fn wait(&self, kind: Kind, peer: Peer) -> Option<Place> {
        let taken = async {
            loop {
                let freed = self.0.freed.notified();
                if let Some(place) = self.take(kind, peer) {
                    return place;
                }
                freed.await;
            }
        };
        timeout(PATIENCE, taken).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Kind, Peer), usize>> {
        self.0.taken.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.bounds.lock();
        if let Some(count) = taken.get_mut(&(self.kind, self.peer)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&(self.kind, self.peer));
            }
        }
        drop(taken);
        self.bounds.0.freed.notify_waiters();
    }
}

impl Kind {
    fn at_once(self) -> usize {
        match self {
            Self::Poll => 32,
            Self::Served | Self::Metrics | Self::Page => 8,
        }
    }

    fn of_peer(self) -> usize {
        match self {
            Self::Poll => 8,
            Self::Served | Self::Metrics | Self::Page => 4,
        }
    }
}

/// How long a request waits for others of its kind.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::connections::Peer;

    fn peer(last: u8) -> Peer {
        Peer::new([10, 0, 0, last].into())
    }

    #[test]
    fn each_kind_and_each_peer_has_its_bound() {
        let bounds = Bounds::default();
        let mut first: Vec<Place> =
            (0..Kind::Page.of_peer()).map(|_| bounds.take(Kind::Page, peer(1)).unwrap()).collect();
        assert!(bounds.take(Kind::Page, peer(1)).is_none());
        let second: Vec<Place> =
            (0..Kind::Page.of_peer()).map(|_| bounds.take(Kind::Page, peer(2)).unwrap()).collect();
        assert!(bounds.take(Kind::Page, peer(3)).is_none(), "all are taken");
        assert!(bounds.take(Kind::Metrics, peer(1)).is_some(), "another kind");
        first.pop();
        assert!(bounds.take(Kind::Page, peer(3)).is_some());
        drop((first, second));
        assert!(bounds.lock().is_empty(), "nothing is remembered of peers that are gone");
    }

    #[tokio::test]
    async fn a_request_waits_for_a_place() {
        let bounds = Bounds::default();
        let places: Vec<Place> =
            (0..Kind::Page.of_peer()).map(|_| bounds.take(Kind::Page, peer(1)).unwrap()).collect();
        let freed = async { drop(places) };
        let (place, ()) = tokio::join!(bounds.wait(Kind::Page, peer(1)), freed);
        assert!(place.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_for_ever() {
        let bounds = Bounds::default();
        let _places: Vec<Place> =
            (0..Kind::Page.of_peer()).map(|_| bounds.take(Kind::Page, peer(1)).unwrap()).collect();
        assert!(bounds.wait(Kind::Page, peer(1)).await.is_none());
    }
}
