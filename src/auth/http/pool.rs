//! Kept connections, and when one may be used again.
//!
//! HTTP/1.1 has no numbers for requests: what arrives next is the answer to what was asked last. So a connection on
//! which a service says more than it was asked would answer the next login with the last one's verdict. Such bytes close
//! the connection, and the service's connections are not kept for a while. To see them, a connection
//! [rests](super::pace) after each answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::dns::Target;

use super::connect::{Connection, Silence};
use super::pace::Pace;
use super::quota::Quota;

/// Connections kept to all endpoints of a service, by each worker.
const MAX_IDLE: usize = 64;

/// Until a connection that nobody uses is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks for connections that are to be closed, that the service has closed, or that it speaks on unasked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long no connection is kept after bytes that nobody asked for.
const DISTRUST: Duration = Duration::from_secs(600);

/// The kept connections of one service.
pub(super) struct Pool {
    /// For the log.
    reference: String,
    keeps: bool,
    quota: Quota,
    state: Mutex<PoolState>,
}

/// Without the connections, which have nothing to show.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("reference", &self.reference).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct PoolState {
    /// The longest kept first.
    idle: VecDeque<Idle>,
    pace: Pace,
    distrusted_until: Option<Instant>,
    is_swept: bool,
}

struct Idle {
    target: Target,
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// `keeps` is `auth.http.keepAlive`.
    pub(super) fn new(reference: String, keeps: bool, quota: &Quota) -> Arc<Self> {
        let pool = Arc::new(Self { reference, keeps, quota: quota.clone(), state: Mutex::default() });
        quota.join(&pool);
        pool
    }

    /// Whether connections are kept at present.
    pub(super) fn keeps(&self) -> bool {
        self.keeps && self.state().distrusted_until.is_none_or(|until| until <= Instant::now())
    }

    /// An answer has come after this time, on a new connection or on a kept one.
    pub(super) fn answered(&self, took: Duration, is_fresh: bool) {
        self.state().pace.answered(took, is_fresh, Instant::now());
    }

    /// Whether an answer after this time is more likely that of another request.
    pub(super) fn is_too_fast(&self, took: Duration) -> bool {
        self.state().pace.is_too_fast(took)
    }

    /// A kept connection to `target` that has rested, and on which nothing has arrived.
    pub(super) fn take(&self, target: &Target) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let mut connection = self.state().take(target, now)?;
            match connection.silence() {
                Silence::Kept => return Some(connection),
                Silence::Ended => {}
                Silence::Broken => self.distrust(),
            }
        }
    }

    /// Keeps a connection whose answer was read to its end, if nothing has arrived behind it.
    pub(super) fn keep(self: &Arc<Self>, target: Target, connection: Connection) {
        if !self.keeps() || self.quota.is_exceeded() {
            return;
        }
        let mut state = self.state();
        // Those that are kept already have rested for longer than this one.
        if state.idle.len() >= MAX_IDLE || state.pace.rest().is_none() {
            return;
        }
        state.idle.push_back(Idle { target, connection, since: Instant::now() });
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// The service has sent bytes that nobody asked for: closes all kept connections, and keeps none for a while.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        let until = state.distrusted_until.replace(Instant::now() + DISTRUST);
        state.idle.clear();
        if until.is_none_or(|until| until <= Instant::now()) {
            tracing::warn!(
                "auth service {} sent unexpected data; closed its connections, and opening a new one for each request for the next {DISTRUST:?}",
                self.reference
            );
        }
    }

    /// Makes room for a connection elsewhere; false: none is kept.
    pub(super) fn close_longest_kept(&self) -> bool {
        let longest = self.state().idle.pop_front();
        longest.is_some()
    }

    /// Closes all kept connections.
    pub(super) fn close_kept(&self) {
        let closed = std::mem::take(&mut self.state().idle);
        drop(closed);
    }

    /// Closes what is old or ended; false: nothing is left to look after.
    fn sweep(&self) -> bool {
        let mut state = self.state();
        let (now, mut is_broken) = (Instant::now(), false);
        state.idle.retain_mut(|idle| {
            let silence = idle.connection.silence();
            is_broken |= silence == Silence::Broken;
            silence == Silence::Kept && idle.since + IDLE_TIMEOUT > now
        });
        state.is_swept = !state.idle.is_empty();
        let is_swept = state.is_swept;
        drop(state);
        if is_broken {
            self.distrust();
        }
        is_swept
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }
}

impl PoolState {
    /// The connection to `target` that was used last, among those that have rested.
    fn take(&mut self, target: &Target, now: Instant) -> Option<Connection> {
        let rest = self.pace.rest()?;
        let position =
            self.idle.iter().rposition(|idle| idle.since + rest <= now && idle.target == *target)?;
        self.idle.remove(position).map(|idle| idle.connection)
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        match pool.upgrade() {
            Some(pool) if pool.sweep() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::http::connect::Connector;
    use crate::auth::http::pace::MIN_REST;

    #[tokio::test]
    async fn a_connection_is_used_again_after_its_rest_and_for_its_own_endpoint() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let connector = Connector { tls: None, quota: Quota::new(1) };
        let connection = connector.connect(&target).await.unwrap();
        let (mut state, since) = (PoolState::default(), Instant::now());
        state.idle.push_back(Idle { target: target.clone(), connection, since });
        assert!(state.take(&target, since).is_none());
        assert!(state.take(&Target::Unix("/run/other.sock".into()), since + MIN_REST).is_none());
        state.pace.answered(MIN_REST, false, since);
        assert!(state.take(&target, since + MIN_REST).is_none(), "it takes that long to answer");
        assert!(state.take(&target, since + 4 * MIN_REST).is_some());
    }
}
