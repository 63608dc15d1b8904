//! Read access to the running data plane: counters and recent events, for the status page.

use std::sync::Arc;
use std::time::Instant;

use crate::model::ListenerId;
use crate::model::view::{Change, Fault, Numbers};

use super::metrics::Metrics;

/// Reads the counters and recent events of a data plane. Clones read the same one.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Metrics>);

impl Observer {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }

    /// Returns the numbers of a listener, or `None` if it has never been served.
    #[must_use]
    pub fn numbers(&self, listener: &ListenerId, now: Instant) -> Option<Numbers> {
        self.0.numbers(listener, now)
    }

    /// Returns the sum over all listeners.
    #[must_use]
    pub fn totals(&self, now: Instant) -> Numbers {
        self.0.totals(now)
    }

    /// Sets a mark for rates. A rate is computed over the time since the last but one mark, so call this at regular
    /// intervals.
    pub fn mark(&self, now: Instant) {
        self.0.mark(now);
    }

    /// Returns the last changes of sockets, newest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.0.journal.changes()
    }

    /// Returns counts and texts of failed sessions and logins, grouped by fault.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.0.journal.faults()
    }
}
