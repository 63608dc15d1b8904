//! The backoff of requests to the API server.

use std::time::Duration;

use crate::net::Backoff;

/// For one request or watch.
pub(super) fn backoff() -> Backoff {
    Backoff::new(FIRST, LAST).random()
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

/// After the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// However often it failed.
pub(super) const LAST: Duration = Duration::from_secs(10);
/// A failure that is over is not told for longer: it would have come again by then.
pub(super) const TOLD: Duration = LAST.saturating_mul(3);
