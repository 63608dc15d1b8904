//! Limits the open connections of the admin server, in total and for each peer, so that a new one can always be
//! accepted.
//!
//! If there is no room, a new connection replaces another one of the peer with the most connections. Of these, the one
//! is closed whose last request is the oldest, whether it is idle, incomplete, waiting for changes or not reading its
//! answer. A connection that connected or sent a request just now is spared as long as there is a descriptor, unless its
//! peer has its full share: otherwise new connections would wait until those of a peer that sends requests all the time
//! are old. Thus a client that opens many connections does not lock out the kubelet.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// All open connections. Clones share one table.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    /// A connection has ended, or can be ended now.
    changed: Notify,
}

/// The limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Maximum number of connections.
    staying: usize,
    /// Additional connections: those that were told to end, and young ones.
    ending: usize,
    /// Maximum for one peer.
    of_peer: usize,
}

#[derive(Debug)]
struct Table {
    room: Room,
    /// Counts connections and requests, as a logical time.
    clock: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    peer: Peer,
    /// When it connected or sent its last request.
    asked: u64,
    /// It is spared until this time.
    young_until: Instant,
    stage: Stage,
    end: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not been checked for a request yet.
    New,
    Seen,
    /// It was told to end.
    Ending,
}

/// A client, as far as limits distinguish clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer(IpAddr);

/// The place of a connection; dropped with it.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Connections,
    id: u64,
    peer: Peer,
    end: CancellationToken,
}

impl Connections {
    /// Divides this many file descriptors.
    pub(super) fn new(descriptors: usize) -> Self {
        let table = Table { room: Room::within(descriptors), clock: 0, open: BTreeMap::new() };
        Self(Arc::new(Inner { table: Mutex::new(table), changed: Notify::new() }))
    }

    /// Reserves a place for a connection from this address, and waits for one if needed. `None` if after [`ADMISSION`]
    /// no other connection can be ended.
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
        self.0.table.lock()
    }
}

impl Connection {
    /// The client of the connection.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Cancelled when the connection must end.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Records that a request sent right after connecting has been read.
    pub(super) fn seen(&self) {
        if let Some(open) = self.connections.lock().open.get_mut(&self.id)
            && open.stage == Stage::New
        {
            open.stage = Stage::Seen;
        }
        self.connections.0.changed.notify_waiters();
    }

    /// Records a request.
    pub(super) fn asked(&self) {
        let mut table = self.connections.lock();
        let now = table.tick();
        if let Some(open) = table.open.get_mut(&self.id) {
            (open.asked, open.young_until) = (now, Instant::now() + YOUTH);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
        self.connections.0.changed.notify_waiters();
    }
}

impl Room {
    fn within(descriptors: usize) -> Self {
        // One descriptor is for the connection that waits for a place.
        let (ending, others) = (descriptors / 5, descriptors.saturating_sub(1));
        let staying = others.saturating_sub(ending).max(1);
        Self { staying, ending, of_peer: (staying * 3 / 8).max(MIN_OF_PEER) }
    }
}

impl Table {
    /// Tells whether there is room. If there is not, tells connections to end, if possible.
    fn make_room(&mut self, peer: Peer) -> bool {
        let (now, has_share) = (Instant::now(), self.has_share(peer));
        while let Some(first) = self.first_to_go(peer) {
            if !has_share && now < first.young_until {
                self.end_a_young_one(peer);
                break;
            }
            first.end();
        }
        self.has_descriptor()
    }

    /// Ends a young connection, only if there is no other way, and one at a time.
    fn end_a_young_one(&mut self, peer: Peer) {
        let is_ending = self.open.values().any(|open| open.stage == Stage::Ending);
        if !self.has_descriptor()
            && !is_ending
            && let Some(first) = self.first_to_go(peer)
        {
            first.end();
        }
    }

    /// Returns the connection that must end before this peer gets another one. `None` if none must or can.
    fn first_to_go(&mut self, peer: Peer) -> Option<&mut Open> {
        let has_share = self.has_share(peer);
        let mut of_peers = BTreeMap::<Peer, usize>::new();
        for open in self.staying() {
            *of_peers.entry(open.peer).or_default() += 1;
        }
        if !has_share && of_peers.values().sum::<usize>() < self.room.staying {
            return None;
        }
        let of = |peer: Peer| of_peers.get(&peer).copied().unwrap_or_default();
        let may_go = |open: &&mut Open| open.stage == Stage::Seen && (!has_share || open.peer == peer);
        self.open.values_mut().filter(may_go).min_by_key(|open| (Reverse(of(open.peer)), open.asked))
    }

    /// Tells whether the peer has as many connections as one peer may have.
    fn has_share(&self, peer: Peer) -> bool {
        self.staying().filter(|open| open.peer == peer).count() >= self.room.of_peer
    }

    fn has_descriptor(&self) -> bool {
        self.open.len() < self.room.staying + self.room.ending
    }

    fn staying(&self) -> impl Iterator<Item = &Open> {
        self.open.values().filter(|open| open.stage != Stage::Ending)
    }

    fn enter(&mut self, peer: Peer, end: CancellationToken) -> u64 {
        let (id, young_until) = (self.tick(), Instant::now() + YOUTH);
        self.open.insert(id, Open { peer, asked: id, young_until, stage: Stage::New, end });
        id
    }

    fn tick(&mut self) -> u64 {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }
}

impl Open {
    fn end(&mut self) {
        self.stage = Stage::Ending;
        self.end.cancel();
    }
}

impl Peer {
    /// Counts IPv6 clients by their /64, because a host can have all its addresses.
    pub(super) fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(IpAddr::V6((address.to_bits() >> 64 << 64).into())),
        }
    }
}

/// Minimum for one peer, because a kubelet sends several probes at once.
const MIN_OF_PEER: usize = 4;
/// How long a connection is young after connecting or after its last request.
const YOUTH: Duration = Duration::from_millis(250);
/// How long a new connection waits for another one to end.
const ADMISSION: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { staying: 64, ending: 16, of_peer: 24 };

    fn connections() -> Connections {
        Connections::new(81)
    }

    fn peer(last: u8) -> Peer {
        Peer::new([10, 0, 0, last].into())
    }

    /// Opens a connection that has been checked for a request.
    fn connect(connections: &Connections, peer: Peer) -> Connection {
        let connection = connections.enter(peer).unwrap();
        connection.seen();
        connection
    }

    fn ends(connections: &[Connection]) -> Vec<usize> {
        let each = connections.iter().enumerate();
        each.filter(|(_, connection)| connection.end().is_cancelled()).map(|(index, _)| index).collect()
    }

    async fn grow_old() {
        tokio::time::advance(YOUTH).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_makes_room_for_its_own_connections_only() {
        let connections = connections();
        let other = connect(&connections, peer(2));
        let mut open: Vec<Connection> = (0..ROOM.of_peer).map(|_| connect(&connections, peer(1))).collect();
        grow_old().await;
        open[0].asked();
        open.push(connect(&connections, peer(1)));
        assert_eq!(ends(&open), [1], "the first one has asked since");
        open.push(connect(&connections, peer(1)));
        assert_eq!(ends(&open), [1, 2], "one for each newcomer");
        assert!(!other.end().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_the_one_that_asked_the_longest_ago_goes() {
        let connections = connections();
        let peers = (0..ROOM.staying).map(|index| peer((index % 8) as u8));
        let mut open: Vec<Connection> = peers.map(|peer| connect(&connections, peer)).collect();
        grow_old().await;
        open.push(connect(&connections, peer(99)));
        assert_eq!(ends(&open), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_a_peer_with_few_connections_keeps_them() {
        let connections = connections();
        let probe = connect(&connections, peer(1));
        let mut open = Vec::new();
        for index in 0..200 {
            tokio::time::advance(YOUTH / 30).await;
            open.push(connect(&connections, peer(2 + index % 3)));
            open.retain(|connection| !connection.end().is_cancelled());
        }
        assert_eq!(open.len() + 1, ROOM.staying);
        assert!(!probe.end().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_had_no_time_to_ask_stays_while_there_is_a_descriptor() {
        let connections = connections();
        let all = ROOM.staying + ROOM.ending;
        let peers = (0..all).map(|index| peer((index % 8) as u8));
        let mut open: Vec<Connection> = peers.map(|peer| connect(&connections, peer)).collect();
        assert_eq!(ends(&open), [] as [usize; 0]);
        for _ in 0..3 {
            assert!(connections.enter(peer(1)).is_none());
            assert_eq!(ends(&open), [0], "one is enough");
        }
        open.remove(0);
        open.push(connect(&connections, peer(1)));
        grow_old().await;
        assert!(connections.enter(peer(1)).is_none());
        assert_eq!(ends(&open).len(), all - ROOM.staying + 1, "as few as they may be");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_its_full_share_keeps_nobody_waiting() {
        let connections = connections();
        let probe = connect(&connections, peer(2));
        let mut open = Vec::new();
        for _ in 0..500 {
            // Each of them asks all the time.
            open.iter().for_each(Connection::asked);
            open.push(connect(&connections, peer(1)));
            open.retain(|connection| !connection.end().is_cancelled());
            assert!(open.len() <= ROOM.of_peer);
        }
        assert!(connections.enter(peer(3)).is_some());
        assert!(!probe.end().is_cancelled());
    }

    #[test]
    fn as_many_connections_as_there_are_descriptors_for() {
        assert_eq!(Room::within(81), ROOM);
        assert_eq!(Room::within(21), Room { staying: 16, ending: 4, of_peer: 6 });
        for descriptors in 2..100 {
            let Room { staying, ending, .. } = Room::within(descriptors);
            assert_eq!(staying + ending + 1, descriptors, "one waits for a place");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_wait_while_too_many_connections_are_only_just_ending() {
        let connections = connections();
        let mut open = Vec::new();
        for index in 0..ROOM.staying + ROOM.ending {
            grow_old().await;
            open.push(connect(&connections, peer((index % 8) as u8)));
        }
        assert_eq!(ends(&open).len(), ROOM.ending);
        assert!(connections.enter(peer(99)).is_none());
        open.remove(0);
        assert!(connections.enter(peer(99)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_request_nobody_has_looked_for_yet_does_not_go() {
        let connections = connections();
        let all = ROOM.staying + ROOM.ending;
        let mut open: Vec<Connection> = (0..all).map(|_| connections.enter(peer(1)).unwrap()).collect();
        grow_old().await;
        assert!(connections.enter(peer(1)).is_none());
        assert_eq!(ends(&open), [] as [usize; 0]);
        open[5].seen();
        assert!(connections.enter(peer(1)).is_none());
        assert_eq!(ends(&open), [5]);
        open.remove(5);
        assert!(connections.enter(peer(1)).is_some());
    }

    #[test]
    fn ipv6_peers_are_counted_by_their_network() {
        let new = |text: &str| Peer::new(text.parse().unwrap());
        assert_eq!(new("2001:db8::1"), new("2001:db8::2:3:4:5"));
        assert_ne!(new("2001:db8::1"), new("2001:db8:0:1::1"));
        assert_eq!(new("::ffff:10.0.0.1"), peer(1));
    }
}
