//! Recipients of mail without a login that the proxy refuses instead of the backend: their replies and counters.

use std::sync::{LazyLock, OnceLock};

use prometheus::{IntCounter, IntCounterVec};

use crate::protocol::notices::{self, RefusalText};

/// Why a recipient is refused, after the first one of its transaction. The order is that of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecipientRefusal {
    /// Another backend has the recipient.
    OtherDestination,
    /// The list of users that may have the recipient was never read.
    Undecided,
    /// The recipient's route is held.
    Held,
    /// No backend has the recipient.
    Unknown,
    /// The transaction has as many recipients as are counted.
    TooMany,
}

impl RecipientRefusal {
    const ALL: [Self; 5] =
        [Self::OtherDestination, Self::Undecided, Self::Held, Self::Unknown, Self::TooMany];

    const fn name(self) -> &'static str {
        match self {
            Self::OtherDestination => "other_destination",
            Self::Undecided => "undecided",
            Self::Held => "held",
            Self::Unknown => "unknown",
            Self::TooMany => "too_many",
        }
    }

    /// Returns the reply for the client.
    pub(crate) fn reply(self) -> &'static [u8] {
        match self {
            Self::OtherDestination => &OTHER_DESTINATION,
            Self::Undecided | Self::Held => &LATER,
            Self::Unknown => &UNKNOWN,
            Self::TooMany => &TOO_MANY,
        }
    }
}

/// The counters of one listener. The first refusal creates all of them, because Prometheus computes a rate only for a
/// series that it has seen at zero.
#[derive(Debug)]
pub(crate) struct RefusedRecipients {
    family: IntCounterVec,
    counters: OnceLock<[IntCounter; 5]>,
}

impl RefusedRecipients {
    /// Creates no counter yet.
    pub(crate) fn new(family: &IntCounterVec) -> Self {
        Self { family: family.clone(), counters: OnceLock::new() }
    }

    pub(crate) fn count(&self, listener: &str, refusal: RecipientRefusal) {
        let make = |refusal: RecipientRefusal| self.family.with_label_values(&[listener, refusal.name()]);
        let counters = self.counters.get_or_init(|| RecipientRefusal::ALL.map(make));
        let [other, undecided, held, unknown, too_many] = counters;
        match refusal {
            RecipientRefusal::OtherDestination => other.inc(),
            RecipientRefusal::Undecided => undecided.inc(),
            RecipientRefusal::Held => held.inc(),
            RecipientRefusal::Unknown => unknown.inc(),
            RecipientRefusal::TooMany => too_many.inc(),
        }
    }

    /// Removes the series of a listener.
    pub(crate) fn remove(&self, listener: &str) {
        for refusal in RecipientRefusal::ALL {
            // A series that was never counted does not exist.
            let _ = self.family.remove_label_values(&[listener, refusal.name()]);
        }
    }
}

fn line(RefusalText { code, text }: RefusalText) -> Vec<u8> {
    format!("{code} {text}\r\n").into_bytes()
}

static OTHER_DESTINATION: LazyLock<Vec<u8>> = LazyLock::new(|| line(notices::OTHER_DESTINATION));
static LATER: LazyLock<Vec<u8>> = LazyLock::new(|| line(notices::UNAVAILABLE_RECIPIENT));
static TOO_MANY: LazyLock<Vec<u8>> = LazyLock::new(|| line(notices::TOO_MANY_RECIPIENTS));
static UNKNOWN: LazyLock<Vec<u8>> = LazyLock::new(|| line(notices::UNKNOWN_RECIPIENT));
