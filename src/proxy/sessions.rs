//! The sessions that are relayed: operators can list them, and each can be told to end.
//!
//! Every worker has a [`Shard`] of its own. A worker locks its shard when a session enters the relay and when it leaves
//! it, so workers wait for each other only while somebody lists sessions.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::sleep_until;

use crate::model::SessionId;
use crate::model::sessions::{OpenSession, SessionFilter};
use crate::protocol::Protocol;

use super::end::End;
use super::exclusive::EndReason;
use super::record::{Record, Selector};
use super::relay::Relayed;

/// The relayed sessions of all workers.
#[derive(Debug)]
pub(crate) struct Sessions(Vec<Arc<Shard>>);

/// The relayed sessions of one worker, by the number of their id.
#[derive(Debug, Default)]
pub(crate) struct Shard(Mutex<HashMap<u64, Arc<RelayedSession>>>);

/// A session in the relay.
#[derive(Debug)]
pub(crate) struct RelayedSession {
    record: Box<Record>,
    live: Live,
}

/// Lists a session until it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    shard: Arc<Shard>,
    session: Arc<RelayedSession>,
}

/// What a session shows of itself while it is relayed, and how it is told to end. Only its own task writes the numbers.
#[derive(Debug)]
pub(crate) struct Live {
    began: Instant,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    /// When bytes moved last, in milliseconds since `began`.
    moved: AtomicU64,
    /// 0, or an [`Order`].
    order: AtomicU8,
    task: AtomicWaker,
}

/// Why a session has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// An operator ended it.
    Kick = 1,
    /// The replica drains.
    Drain = 2,
    /// The session's `MailRoute` is held.
    Hold = 3,
    /// The user has become exclusive.
    Join = 4,
    /// [`EndReason::Moving`].
    Move = 5,
    /// [`EndReason::EndpointGone`].
    EndpointGone = 6,
    /// [`EndReason::ReplicaUnlisted`].
    Unlisted = 7,
}

impl EndReason {
    /// Returns the order for a session that ends for this reason.
    pub(crate) const fn order(self) -> Order {
        match self {
            Self::Moving => Order::Move,
            Self::EndpointGone => Order::EndpointGone,
            Self::ReplicaUnlisted => Order::Unlisted,
        }
    }
}

impl Sessions {
    /// Creates one shard for each worker.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// Returns the shard of a worker.
    pub(crate) fn shard(&self, worker: usize) -> Arc<Shard> {
        self.0.get(worker).map(Arc::clone).unwrap_or_default()
    }

    /// Describes the selected sessions, the oldest first. `now` and `at` are the same moment.
    pub(crate) fn list(&self, filter: &SessionFilter, now: Instant, at: SystemTime) -> Vec<OpenSession> {
        let mut selected = self.selected(filter);
        selected.sort_by_key(|session| session.live.began);
        selected.iter().map(|session| session.view(now, at)).collect()
    }

    /// Tells the selected sessions to end, and returns their number. Sessions that were told before do not count.
    pub(crate) fn kick(&self, filter: &SessionFilter) -> usize {
        self.selected(filter).iter().filter(|session| session.live.end(Order::Kick)).count()
    }

    /// Tells all sessions to end, evenly spread over this time, and returns at its end. IMAP sessions come first, and of
    /// these the one that has been idle the longest: its client loses nothing.
    pub(crate) async fn drain(&self, over: Duration) {
        let start = tokio::time::Instant::now();
        let mut order = self.all();
        order.sort_by_cached_key(|session| {
            (session.record.protocol() != Some(Protocol::Imap), session.live.moved_at())
        });
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX).max(1);
        let step = over / count;
        for (index, session) in (0..count).zip(order) {
            sleep_until(start + step * index).await;
            session.live.end(Order::Drain);
        }
        sleep_until(start + over).await;
    }

    /// Tells a session to end, if it is relayed.
    pub(crate) fn end(&self, id: SessionId, order: Order) {
        for shard in &self.0 {
            let session = shard.0.lock().get(&id.number).cloned();
            if let Some(session) = session {
                session.live.end(order);
                return;
            }
        }
    }

    fn selected(&self, filter: &SessionFilter) -> Vec<Arc<RelayedSession>> {
        let selector = Selector::new(filter);
        let mut all = self.all();
        all.retain(|session| selector.selects(&session.record));
        all
    }

    /// Returns all sessions. The locks are held only while references are copied.
    pub(crate) fn all(&self) -> Vec<Arc<RelayedSession>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            all.extend(shard.0.lock().values().cloned());
        }
        all
    }
}

impl Shard {
    /// Lists a session that enters the relay.
    pub(crate) fn enter(self: &Arc<Self>, record: Box<Record>, now: Instant) -> Listed {
        let number = record.id.number;
        let session = Arc::new(RelayedSession { record, live: Live::new(now) });
        self.0.lock().insert(number, Arc::clone(&session));
        Listed { shard: Arc::clone(self), session }
    }
}

impl Listed {
    pub(crate) fn live(&self) -> &Live {
        &self.session.live
    }

    pub(crate) fn record(&self) -> &Record {
        &self.session.record
    }

    /// Removes the session from the list, writes its log line and counts it.
    pub(crate) fn finish(self, end: End, relayed: Relayed) {
        let session = Arc::clone(&self.session);
        drop(self);
        session.record.finish(&end, relayed);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut sessions = self.shard.0.lock();
        sessions.remove(&self.session.record.id.number);
        // The memory of a flood of sessions does not stay.
        if sessions.capacity() > SMALL_SHARD && sessions.len() < sessions.capacity() / 8 {
            let room = sessions.len() * 2;
            sessions.shrink_to(room);
        }
    }
}

impl RelayedSession {
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    fn view(&self, now: Instant, at: SystemTime) -> OpenSession {
        let idle = now.saturating_duration_since(self.live.moved_at());
        self.record.view(self.live.relayed(), idle, (now, at))
    }
}

impl Live {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            to_backend: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            order: AtomicU8::new(0),
            task: AtomicWaker::new(),
        }
    }

    /// Stores how many bytes have moved, after some have.
    pub(crate) fn moved(&self, relayed: Relayed, at: Instant) {
        let since = at.saturating_duration_since(self.began).as_millis();
        self.to_backend.store(relayed.to_backend, Ordering::Relaxed);
        self.to_client.store(relayed.to_client, Ordering::Relaxed);
        self.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tells the session to end. Returns false if it was told before.
    pub(crate) fn end(&self, order: Order) -> bool {
        let told = self.order.compare_exchange(0, order as u8, Ordering::Release, Ordering::Relaxed).is_ok();
        if told {
            self.task.wake();
        }
        told
    }

    /// Waits until the session is told to end.
    pub(crate) async fn told(&self) -> End {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            match self.order.load(Ordering::Acquire) {
                0 => Poll::Pending,
                order if order == Order::Kick as u8 => Poll::Ready(End::Kicked),
                order if order == Order::Hold as u8 => Poll::Ready(End::Held),
                order if order == Order::Join as u8 => Poll::Ready(End::Joined),
                order if order == Order::Move as u8 => Poll::Ready(End::Moved(EndReason::Moving)),
                order if order == Order::EndpointGone as u8 => {
                    Poll::Ready(End::Moved(EndReason::EndpointGone))
                }
                order if order == Order::Unlisted as u8 => {
                    Poll::Ready(End::Moved(EndReason::ReplicaUnlisted))
                }
                _ => Poll::Ready(End::Drained),
            }
        })
        .await
    }

    pub(crate) fn relayed(&self) -> Relayed {
        Relayed {
            to_backend: self.to_backend.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn moved_at(&self) -> Instant {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.began.checked_add(moved).unwrap_or(self.began)
    }
}

/// A shard with room for this many sessions is never shrunk.
const SMALL_SHARD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ClientAddress;

    fn record(number: u64, login: &str, now: Instant) -> Box<Record> {
        let mut record = Record::new(SessionId { process: 1, number }, ClientAddress::Unix, now);
        record.set_login(login.as_bytes());
        Box::new(record)
    }

    fn of_user(user: &str) -> SessionFilter {
        SessionFilter { user: Some(user.to_owned()), ..SessionFilter::default() }
    }

    #[test]
    fn sessions_of_all_workers_are_listed_until_they_end() {
        let (sessions, now) = (Sessions::new(2), Instant::now());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let first = sessions.shard(0).enter(record(1, "alice", now), now);
        let _second = sessions.shard(1).enter(record(2, "bob", now), now + Duration::from_secs(1));
        first.live().moved(Relayed { to_backend: 3, to_client: 4 }, now + Duration::from_secs(10));
        let list = |filter: &SessionFilter| {
            let list = sessions.list(filter, now + Duration::from_secs(12), at);
            list.into_iter().map(|session| (session.login, session.idle_seconds, session.to_client))
        };
        let all: Vec<_> = list(&SessionFilter::default()).collect();
        assert_eq!(all, [("alice".to_owned(), 2, 4), ("bob".to_owned(), 11, 0)]);
        assert_eq!(list(&of_user("bob")).count(), 1);
        drop(first);
        assert_eq!(list(&SessionFilter::default()).count(), 1);
    }

    #[tokio::test]
    async fn only_the_selected_sessions_are_kicked_and_each_once() {
        let (sessions, now) = (Sessions::new(1), Instant::now());
        let shard = sessions.shard(0);
        let [alice, again, bob] = [(1, "alice"), (2, "alice"), (3, "bob")]
            .map(|(number, login)| shard.enter(record(number, login, now), now));
        assert_eq!(sessions.kick(&of_user("alice")), 2);
        assert_eq!(sessions.kick(&of_user("alice")), 0);
        for kicked in [alice, again] {
            assert!(matches!(kicked.live().told().await, End::Kicked));
        }
        let id = Some(SessionId { process: 1, number: 3 });
        assert_eq!(sessions.kick(&SessionFilter { session: id, ..SessionFilter::default() }), 1);
        assert!(matches!(bob.live().told().await, End::Kicked));
        let other = Some(SessionId { process: 2, number: 3 });
        assert_eq!(sessions.kick(&SessionFilter { session: other, ..SessionFilter::default() }), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_spread_and_begins_with_the_session_that_is_idle_the_longest() {
        let sessions = Sessions::new(2);
        let start = tokio::time::Instant::now();
        let enter = |number: u64, after: u64| {
            let listed = sessions.shard(0).enter(record(number, "u", start.into_std()), start.into_std());
            listed.live().moved(Relayed::default(), start.into_std() + Duration::from_secs(after));
            listed
        };
        let listed = [enter(1, 30), enter(2, 10), enter(3, 20)];
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = tokio::time::Instant::now();
        let told = async {
            let mut seconds = Vec::new();
            for listed in [&listed[1], &listed[2], &listed[0]] {
                assert!(matches!(listed.live().told().await, End::Drained));
                seconds.push(begun.elapsed().as_secs());
            }
            seconds
        };
        let (seconds, ()) = tokio::join!(told, sessions.drain(Duration::from_secs(30)));
        assert_eq!((seconds, begun.elapsed().as_secs()), (vec![0, 10, 20], 30));
    }

    #[test]
    fn a_flood_of_sessions_leaves_no_memory_behind() {
        let (shard, now) = (Arc::new(Shard::default()), Instant::now());
        let flood: Vec<_> = (0..100_000).map(|number| shard.enter(record(number, "u", now), now)).collect();
        assert!(shard.0.lock().capacity() >= 100_000);
        drop(flood);
        assert!(shard.0.lock().capacity() <= 2 * SMALL_SHARD);
    }

    #[test]
    fn a_relayed_session_is_small() {
        let sizes = [size_of::<RelayedSession>(), size_of::<Record>()];
        let bounds = [112, 320];
        assert!(sizes.iter().zip(bounds).all(|(size, bound)| *size <= bound), "{sizes:?} exceed {bounds:?}");
    }
}
