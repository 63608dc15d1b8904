//! What others may see of the data plane while it runs: numbers that are counted anyway, and what happened lately.

use std::sync::Arc;
use std::time::Instant;

use crate::model::ListenerId;
use crate::model::view::{Change, Fault, Numbers};

use super::metrics::Metrics;

/// Looks at the data plane; clones look at the same.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Metrics>);

impl Observer {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }

    /// What is counted of a listener, if it has been served.
    #[must_use]
    pub fn numbers(&self, listener: &ListenerId, now: Instant) -> Option<Numbers> {
        self.0.numbers(listener, now)
    }

    /// The sum over all listeners.
    #[must_use]
    pub fn totals(&self, now: Instant) -> Numbers {
        self.0.totals(now)
    }

    /// Rates are told over the time since the last mark but one.
    pub fn mark(&self, now: Instant) {
        self.0.mark(now);
    }

    /// The last changes of sockets, newest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.0.journal.changes()
    }

    /// Sessions that failed, by whose fault it was.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.0.journal.faults()
    }
}
