//! The backoff of requests to the API server.

use std::time::Duration;

use crate::net::Backoff;

/// Returns the backoff for one request or watch.
pub(super) fn backoff() -> Backoff {
    Backoff::new(FIRST, LAST).random()
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

/// The delay after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest delay.
pub(super) const LAST: Duration = Duration::from_secs(10);
/// A failure is no longer reported after this time: if it still existed, it would have occurred again.
pub(super) const REPORTED_FOR: Duration = LAST.saturating_mul(3);
