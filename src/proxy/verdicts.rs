//! What comes of logins, and of questions to auth services, counted for each listener.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};

/// What came of a login, or of a question to the auth service. The order is that of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes.
    Accepted,
    /// No: the client has to change something.
    Refused,
    /// No, for now: the backend or the auth service cannot decide, or takes nobody.
    Unavailable,
    /// None: something broke.
    Failed,
    /// None: the client left meanwhile.
    Abandoned,
}

impl Verdict {
    const ALL: [Self; 5] = [Self::Accepted, Self::Refused, Self::Unavailable, Self::Failed, Self::Abandoned];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The counters of one listener, all made with the first verdict: a rate needs to have seen zero.
#[derive(Debug)]
pub(crate) struct Verdicts {
    family: IntCounterVec,
    counters: OnceLock<[IntCounter; 5]>,
}

impl Verdicts {
    /// Nothing is counted yet.
    pub(crate) fn new(family: &IntCounterVec) -> Self {
        Self { family: family.clone(), counters: OnceLock::new() }
    }

    /// Counts one.
    pub(crate) fn count(&self, listener: &str, protocol: &str, verdict: Verdict) {
        let make = |verdict: Verdict| self.family.with_label_values(&[listener, protocol, verdict.name()]);
        let counters = self.counters.get_or_init(|| Verdict::ALL.map(make));
        let [accepted, refused, unavailable, failed, abandoned] = counters;
        match verdict {
            Verdict::Accepted => accepted.inc(),
            Verdict::Refused => refused.inc(),
            Verdict::Unavailable => unavailable.inc(),
            Verdict::Failed => failed.inc(),
            Verdict::Abandoned => abandoned.inc(),
        }
    }

    /// How many there were of each.
    pub(crate) fn values(&self) -> [u64; 5] {
        self.counters.get().map_or([0; 5], |counters| counters.each_ref().map(IntCounter::get))
    }

    /// Forgets what was counted.
    pub(crate) fn remove(&self, listener: &str, protocol: &str) {
        for verdict in Verdict::ALL {
            // What was never counted is not there to be removed.
            let _ = self.family.remove_label_values(&[listener, protocol, verdict.name()]);
        }
    }
}
