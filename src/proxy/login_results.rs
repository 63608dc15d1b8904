//! Counts the results of logins and of requests to auth services, for each listener.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};

/// The result of a login or of a request to the auth service. The order is that of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginResult {
    Accepted,
    /// Refused; the client has to change something.
    Refused,
    /// Refused for now: the backend or the auth service cannot decide, or accepts nobody.
    Unavailable,
    /// Not decided, because something failed.
    Failed,
    /// Not decided, because the client left.
    Abandoned,
}

impl LoginResult {
    const ALL: [Self; 5] = [Self::Accepted, Self::Refused, Self::Unavailable, Self::Failed, Self::Abandoned];

    /// The value of the label `outcome`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The counters of one listener. The first result creates all of them, because Prometheus computes a rate only for a
/// series that it has seen at zero.
#[derive(Debug)]
pub(crate) struct LoginResults {
    family: IntCounterVec,
    counters: OnceLock<[IntCounter; 5]>,
}

impl LoginResults {
    /// Creates no counter yet.
    pub(crate) fn new(family: &IntCounterVec) -> Self {
        Self { family: family.clone(), counters: OnceLock::new() }
    }

    pub(crate) fn count(&self, listener: &str, protocol: &str, result: LoginResult) {
        let make = |result: LoginResult| self.family.with_label_values(&[listener, protocol, result.name()]);
        let counters = self.counters.get_or_init(|| LoginResult::ALL.map(make));
        let [accepted, refused, unavailable, failed, abandoned] = counters;
        match result {
            LoginResult::Accepted => accepted.inc(),
            LoginResult::Refused => refused.inc(),
            LoginResult::Unavailable => unavailable.inc(),
            LoginResult::Failed => failed.inc(),
            LoginResult::Abandoned => abandoned.inc(),
        }
    }

    /// Returns the counts, in the order of [`LoginResult`].
    pub(crate) fn values(&self) -> [u64; 5] {
        self.counters.get().map_or([0; 5], |counters| counters.each_ref().map(IntCounter::get))
    }

    /// Removes the series of a listener.
    pub(crate) fn remove(&self, listener: &str, protocol: &str) {
        for result in LoginResult::ALL {
            // A series that was never counted does not exist.
            let _ = self.family.remove_label_values(&[listener, protocol, result.name()]);
        }
    }
}
