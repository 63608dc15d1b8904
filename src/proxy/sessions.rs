//! The sessions that are relayed: operators can list them, and each can be told to end.
//!
//! Every worker has a [`Shard`] of its own. A worker locks its shard when a session enters the relay and when it leaves
//! it, so workers wait for each other only while somebody lists sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::time::sleep_until;

use crate::model::SessionId;
use crate::model::sessions::{OpenSession, SessionFilter};
use crate::protocol::Protocol;

use super::end::End;
use super::live::{Live, Order, Relayed};
use super::record::{Record, Selector};

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
        let selected = self.selected(filter);
        let kick = |shard: &Arc<Shard>| {
            let sessions = shard.0.lock();
            // The lock keeps a session from leaving the relay without the order.
            let is_listed = |session: &&Arc<RelayedSession>| {
                sessions.get(&session.record.id.number).is_some_and(|listed| Arc::ptr_eq(listed, session))
            };
            selected.iter().filter(is_listed).filter(|session| session.live.end(Order::Kick)).count()
        };
        self.0.iter().map(kick).sum()
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
            // The session may be listed anew, for its next transaction.
            self.end(session.record.id, Order::Drain);
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

    /// Removes the session from the list, because it leaves its backend. Returns its record for the next one, and its end
    /// if it was told to end.
    pub(crate) fn leave(self, relayed: Relayed) -> (Box<Record>, Option<End>) {
        let session = Arc::clone(&self.session);
        drop(self);
        // An order to a session that is not listed any more is not lost: kicks do not count it, and the others come again.
        (session.record.continued(relayed), session.live.ordered())
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
        first.live().moved(
            Relayed { to_backend: 3, to_client: 4, recipients_refused: 0 },
            now + Duration::from_secs(10),
        );
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

    #[test]
    fn a_session_that_leaves_its_backend_is_not_listed_and_takes_its_numbers_and_orders_along() {
        let (sessions, now) = (Sessions::new(1), Instant::now());
        let (shard, all) = (sessions.shard(0), SessionFilter::default());
        let list = || sessions.list(&all, now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let relayed = Relayed { to_backend: 3, to_client: 4, recipients_refused: 1 };
        let (record, order) = shard.enter(record(1, "a", now), now).leave(relayed);
        assert!(order.is_none() && list().is_empty());
        assert_eq!(sessions.kick(&all), 0);
        let again = shard.enter(record, now);
        again.live().moved(relayed, now);
        assert_eq!(list().iter().map(|session| session.to_client).collect::<Vec<_>>(), [8]);
        assert_eq!(sessions.kick(&all), 1);
        assert!(matches!(again.leave(relayed), (_, Some(End::Kicked))));
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
