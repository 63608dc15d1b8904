//! Kept connections, and when one may be used again.
//!
//! HTTP/1.1 has no numbers for requests: what arrives next is the answer to what was asked last. So a connection on
//! which a service says more than it was asked would answer the next login with the last one's verdict. Such bytes close
//! the connection, and the service's connections are not kept for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::Target;

use super::connect::{Connection, Silence};

/// Connections kept to all endpoints of a service, by each worker.
const MAX_IDLE: usize = 64;

/// Until a connection that nobody uses is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks for connections that are to be closed, or that the service has closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long a connection rests after an answer before it is used again, so that a second answer close behind is seen.
pub(super) const REST: Duration = Duration::from_millis(20);

/// How long no connection is kept after bytes that nobody asked for.
const DISTRUST: Duration = Duration::from_secs(600);

/// The kept connections of one service.
pub(super) struct Pool {
    /// For the log.
    reference: String,
    keeps: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The longest kept first.
    idle: VecDeque<Idle>,
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
    pub(super) fn new(reference: String, keeps: bool) -> Self {
        Self { reference, keeps, state: Mutex::default() }
    }

    /// Whether connections are kept at present.
    pub(super) fn keeps(&self) -> bool {
        self.keeps && self.state().distrusted_until.is_none_or(|until| until <= Instant::now())
    }

    /// A kept connection to `target` on which nothing has arrived.
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
        if !self.keeps() {
            return;
        }
        let mut state = self.state();
        if state.idle.len() >= MAX_IDLE {
            state.idle.pop_front();
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
                "auth service {} sent bytes that nobody asked for; closed its connections, and every request has a \
                 connection of its own for {DISTRUST:?}",
                self.reference
            );
        }
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The connection to `target` that was used last, among those that have rested.
    fn take(&mut self, target: &Target, now: Instant) -> Option<Connection> {
        let position =
            self.idle.iter().rposition(|idle| idle.since + REST <= now && idle.target == *target)?;
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
    use super::super::connect::Connector;
    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_again_after_its_rest_and_for_its_own_endpoint() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let connection = Connector { tls: None }.connect(&target).await.unwrap();
        let (mut state, since) = (State::default(), Instant::now());
        state.idle.push_back(Idle { target: target.clone(), connection, since });
        assert!(state.take(&target, since).is_none());
        assert!(state.take(&Target::Unix("/run/other.sock".into()), since + REST).is_none());
        assert!(state.take(&target, since + REST).is_some());
    }
}
