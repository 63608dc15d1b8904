//! The open connections of the admin server: few in all, fewer of each peer, and always room for one more.
//!
//! A newcomer that finds no room takes the place of the connection that asked for something the longest ago, be it idle,
//! half-sent, waiting for news or not reading its answer. A probe that has just connected is the last one to go, so
//! whoever fills the server does not keep kubelets out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// All open connections; clones share one table.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    /// A connection ended, or may be ended now.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts connections and requests.
    clock: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    peer: Peer,
    /// When it connected, or sent its last request.
    asked: u64,
    stage: Stage,
    end: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has looked yet whether a request is there.
    New,
    Seen,
    /// It is to make room, and ends in a moment.
    Ending,
}

/// One client, as far as bounds go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer(IpAddr);

/// A connection's place; dropped with the connection.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Connections,
    id: u64,
    peer: Peer,
    end: CancellationToken,
}

impl Connections {
    /// A place for a connection from this address, once there is one. `None` where every other connection of this peer
    /// is still to be looked at after [`ADMISSION`].
    pub(super) async fn admit(&self, address: IpAddr) -> Option<Connection> {
        let peer = Peer::new(address);
        let admitted = async {
            loop {
                let changed = self.0.changed.notified();
                if let Some(connection) = self.enter(peer) {
                    return connection;
                }
                changed.await;
            }
        };
        timeout(ADMISSION, admitted).await.ok()
    }

    fn enter(&self, peer: Peer) -> Option<Connection> {
        let mut table = self.lock();
        if !table.make_room(peer) {
            return None;
        }
        let end = CancellationToken::new();
        let id = table.enter(peer, end.clone());
        Some(Connection { connections: self.clone(), id, peer, end })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Whose it is.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Cancelled when it has to make room.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// If it had a request to send with the connect, that request has been seen.
    pub(super) fn seen(&self) {
        if let Some(open) = self.connections.lock().open.get_mut(&self.id)
            && open.stage == Stage::New
        {
            open.stage = Stage::Seen;
        }
        self.connections.0.changed.notify_waiters();
    }

    /// A request of it has come.
    pub(super) fn asked(&self) {
        let mut table = self.connections.lock();
        let now = table.tick();
        if let Some(open) = table.open.get_mut(&self.id) {
            open.asked = now;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
        self.connections.0.changed.notify_waiters();
    }
}

impl Table {
    /// Whether there is room. Where there is none, a connection is told to end, if one may be.
    fn make_room(&mut self, peer: Peer) -> bool {
        let of_peer = self.staying().filter(|open| open.peer == peer).count();
        let staying = self.staying().count();
        let is_peers = |open: &Open| of_peer < MAX_OF_PEER || open.peer == peer;
        if of_peer >= MAX_OF_PEER || staying >= MAX_CONNECTIONS {
            let candidates =
                self.open.values_mut().filter(|open| open.stage == Stage::Seen && is_peers(open));
            let Some(longest_ago) = candidates.min_by_key(|open| open.asked) else { return false };
            longest_ago.stage = Stage::Ending;
            longest_ago.end.cancel();
        }
        self.open.len() < MAX_CONNECTIONS + MAX_ENDING
    }

    fn staying(&self) -> impl Iterator<Item = &Open> {
        self.open.values().filter(|open| open.stage != Stage::Ending)
    }

    fn enter(&mut self, peer: Peer, end: CancellationToken) -> u64 {
        let id = self.tick();
        self.open.insert(id, Open { peer, asked: id, stage: Stage::New, end });
        id
    }

    fn tick(&mut self) -> u64 {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }
}

impl Peer {
    /// IPv6 clients are counted by their /64, which is what one host has.
    pub(super) fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(IpAddr::V6((address.to_bits() >> 64 << 64).into())),
        }
    }
}

/// Connections at once. Probes, scrapes and other replicas need a handful; each has a file descriptor that no session
/// has.
const MAX_CONNECTIONS: usize = 64;
/// Connections besides them that were told to end, and will in a moment.
const MAX_ENDING: usize = 16;
/// Of one peer.
const MAX_OF_PEER: usize = 24;
/// How long a new connection waits for another one to end.
const ADMISSION: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::new([10, 0, 0, last].into())
    }

    /// Connects, and has been looked at.
    fn connect(connections: &Connections, peer: Peer) -> Connection {
        let connection = connections.enter(peer).unwrap();
        connection.seen();
        connection
    }

    fn ends(connections: &[Connection]) -> Vec<usize> {
        let each = connections.iter().enumerate();
        each.filter(|(_, connection)| connection.end().is_cancelled()).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_peer_makes_room_for_its_own_connections_only() {
        let connections = Connections::default();
        let other = connect(&connections, peer(2));
        let mut open: Vec<Connection> = (0..MAX_OF_PEER).map(|_| connect(&connections, peer(1))).collect();
        open[0].asked();
        open.push(connect(&connections, peer(1)));
        assert_eq!(ends(&open), [1], "the first one has asked since");
        open.push(connect(&connections, peer(1)));
        assert_eq!(ends(&open), [1, 2], "one for each newcomer");
        assert!(!other.end().is_cancelled());
    }

    #[test]
    fn when_all_places_are_taken_the_one_that_asked_the_longest_ago_goes() {
        let connections = Connections::default();
        let peers = (0..MAX_CONNECTIONS).map(|index| peer((index % 8) as u8));
        let mut open: Vec<Connection> = peers.map(|peer| connect(&connections, peer)).collect();
        open.push(connect(&connections, peer(99)));
        assert_eq!(ends(&open), [0]);
    }

    #[test]
    fn newcomers_wait_while_too_many_connections_are_only_just_ending() {
        let connections = Connections::default();
        let peers = (0..MAX_CONNECTIONS + MAX_ENDING).map(|index| peer((index % 8) as u8));
        let mut open: Vec<Connection> = peers.map(|peer| connect(&connections, peer)).collect();
        assert_eq!(ends(&open).len(), MAX_ENDING);
        assert!(connections.enter(peer(99)).is_none());
        open.remove(0);
        assert!(connections.enter(peer(99)).is_some());
    }

    #[test]
    fn a_connection_whose_request_nobody_has_looked_for_yet_does_not_go() {
        let connections = Connections::default();
        let open: Vec<Connection> = (0..MAX_OF_PEER).map(|_| connections.enter(peer(1)).unwrap()).collect();
        assert!(connections.enter(peer(1)).is_none());
        assert_eq!(ends(&open), [] as [usize; 0]);
        open[5].seen();
        assert!(connections.enter(peer(1)).is_some());
        assert_eq!(ends(&open), [5]);
    }

    #[test]
    fn ipv6_peers_are_counted_by_their_network() {
        let new = |text: &str| Peer::new(text.parse().unwrap());
        assert_eq!(new("2001:db8::1"), new("2001:db8::2:3:4:5"));
        assert_ne!(new("2001:db8::1"), new("2001:db8:0:1::1"));
        assert_eq!(new("::ffff:10.0.0.1"), peer(1));
    }
}
