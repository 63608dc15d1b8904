//! Access to the running data plane: counters and recent events for the status page, and the open sessions for operators.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::model::ListenerId;
use crate::model::sessions::{OpenSession, SessionFilter};
use crate::model::view::{Change, Fault, Numbers};
use crate::model::why::{WhyBan, WhyListener, WhyQuery, WhyRefusal};

use super::metrics::Metrics;
use super::refusals::Refusals;
use super::sessions::Sessions;

/// Reads the counters, recent events and open sessions of a data plane. Clones read the same one.
#[derive(Clone, Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    sessions: Arc<Sessions>,
    refusals: Arc<Refusals>,
}

impl Observer {
    pub(crate) fn new(metrics: Arc<Metrics>, sessions: Arc<Sessions>, refusals: Arc<Refusals>) -> Self {
        Self { metrics, sessions, refusals }
    }

    /// Returns the numbers of a listener, or `None` if it has never been served.
    #[must_use]
    pub fn numbers(&self, listener: &ListenerId, now: Instant) -> Option<Numbers> {
        self.metrics.numbers(listener, now)
    }

    /// Returns the sum over all listeners.
    #[must_use]
    pub fn totals(&self, now: Instant) -> Numbers {
        self.metrics.totals(now)
    }

    /// Sets a mark for rates. A rate is computed over the time since the last but one mark, so call this at regular
    /// intervals.
    pub fn mark(&self, now: Instant) {
        self.metrics.mark(now);
    }

    /// Returns the last changes of sockets, newest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.metrics.journal.changes()
    }

    /// Returns counts and texts of failed sessions and logins, grouped by fault.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.metrics.journal.faults()
    }

    /// Returns the selected sessions that are relayed, the oldest first. `now` and `at` are the same moment.
    #[must_use]
    pub fn sessions(&self, filter: &SessionFilter, now: Instant, at: SystemTime) -> Vec<OpenSession> {
        self.sessions.list(filter, now, at)
    }

    /// Returns the last refusals of a user at these listeners, and the bans of their clients. `now` and `at` are the same
    /// moment.
    #[must_use]
    pub fn refusals(
        &self,
        query: &WhyQuery,
        listeners: &[WhyListener],
        now: Instant,
        at: SystemTime,
    ) -> (Vec<WhyRefusal>, Vec<WhyBan>) {
        self.refusals.of(query, listeners, (now, at))
    }

    /// Tells the selected sessions to end with the protocol's closing message. Returns their number, without those that
    /// are ending already.
    #[must_use]
    pub fn kick(&self, filter: &SessionFilter) -> usize {
        self.sessions.kick(filter)
    }
}
