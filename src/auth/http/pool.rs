//! Keeps connections to auth services, and decides when one may be reused.
//!
//! HTTP/1.1 does not number requests: the next answer belongs to the last request. If a service sent more than one
//! answer to a request, the next login would get the decision about the previous one. Such bytes close the connection,
//! and the service's connections are not kept for some time. To detect them, a connection [rests](super::pace) after
//! each answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::dns::Target;

use super::connect::{Connection, Silence};
use super::pace::Pace;
use super::quota::{KeepsConnections, Quota};

/// Maximum number of connections that each worker keeps to the endpoints of a service.
const MAX_IDLE: usize = 64;

/// An unused connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval of the checks for connections that are old, closed by the service, or have unexpected bytes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long no connection is kept after unexpected bytes.
const DISTRUST: Duration = Duration::from_secs(600);

/// The kept connections of one service.
pub(super) struct Pool {
    /// The service's name for the log.
    reference: String,
    keeps: bool,
    quota: Quota,
    state: Mutex<PoolState>,
}

/// Prints no connections.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("reference", &self.reference).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct PoolState {
    /// Longest kept first.
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

    /// Tells whether connections are kept at present.
    pub(super) fn keeps(&self) -> bool {
        self.keeps && self.state().distrusted_until.is_none_or(|until| until <= Instant::now())
    }

    /// Tells whether a new connection would be kept after its answer.
    pub(super) fn has_room(&self) -> bool {
        self.keeps() && self.state().idle.len() < MAX_IDLE && !self.quota.is_exceeded()
    }

    /// Records an answer time, on a new or a kept connection.
    pub(super) fn answered(&self, took: Duration, is_fresh: bool) {
        self.state().pace.answered(took, is_fresh, Instant::now());
    }

    /// Tells whether an answer with this time is probably for another request.
    pub(super) fn is_too_fast(&self, took: Duration) -> bool {
        self.state().pace.is_too_fast(took)
    }

    /// Takes a kept connection to `target` that has rested and has no unexpected bytes.
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

    /// Keeps a connection whose answer was read completely.
    pub(super) fn keep(self: &Arc<Self>, target: Target, connection: Connection) {
        // If the pool is full, drop this connection: the others have rested longer.
        if !self.has_room() {
            return;
        }
        let mut state = self.state();
        if state.pace.rest().is_none() {
            return;
        }
        state.idle.push_back(Idle { target, connection, since: Instant::now() });
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes all kept connections and keeps none for some time, because the service sent unexpected bytes.
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

    /// Closes connections that are old or ended. Returns false if none is left.
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
    /// Takes the most recently used connection to `target` that has rested.
    fn take(&mut self, target: &Target, now: Instant) -> Option<Connection> {
        let rest = self.pace.rest()?;
        // The longest kept ones come first.
        let rested = self.idle.partition_point(|idle| idle.since + rest <= now);
        let position = self.idle.range(..rested).rposition(|idle| idle.target == *target)?;
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

impl KeepsConnections for Pool {
    fn close_kept(&self) {
        let closed = std::mem::take(&mut self.state().idle);
        drop(closed);
    }

    fn close_longest_kept(&self) -> bool {
        let longest = self.state().idle.pop_front();
        longest.is_some()
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
