//! Computes rates from counters: the increase since a mark, divided by the time since then. Time is an argument.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The last two marks of a listener's counters. Two, so that a rate covers at least one whole interval.
#[derive(Debug)]
pub(crate) struct Rates(Mutex<[Mark; 2]>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    counted: Amounts,
}

/// The counters that rates are computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Sessions that have started.
    pub(crate) sessions: u64,
    /// Bytes relayed in both directions.
    pub(crate) bytes: u64,
}

impl Rates {
    /// Starts with counters of zero.
    pub(crate) fn new(now: Instant) -> Self {
        let begin = Mark { at: now, counted: Amounts::default() };
        Self(Mutex::new([begin, begin]))
    }

    /// Sets a mark and drops the last but one.
    pub(crate) fn mark(&self, counted: Amounts, now: Instant) {
        let mut marks = self.0.lock();
        let [_, last] = *marks;
        *marks = [last, Mark { at: now, counted }];
    }

    /// Returns sessions per minute and bytes per second since the last but one mark.
    pub(crate) fn since(&self, counted: Amounts, now: Instant) -> (f64, f64) {
        let [before, _] = *self.0.lock();
        let elapsed = now.saturating_duration_since(before.at).max(SHORTEST).as_secs_f64();
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed;
        let sessions = per_second(counted.sessions, before.counted.sessions);
        (sessions * 60.0, per_second(counted.bytes, before.counted.bytes))
    }
}

/// The shortest time to divide by. Counts of the first moments would give meaningless rates.
const SHORTEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_the_time_since_the_mark_before_the_last() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let rates = Rates::new(start);
        let counted = |sessions, bytes| Amounts { sessions, bytes };
        assert_eq!(rates.since(counted(1, 5), start), (12.0, 1.0), "not less than five seconds");
        rates.mark(counted(10, 1000), after(10));
        assert_eq!(rates.since(counted(20, 3000), after(20)), (60.0, 150.0));
        rates.mark(counted(20, 3000), after(20));
        assert_eq!(rates.since(counted(20, 3000), after(30)), (30.0, 100.0));
        rates.mark(counted(20, 3000), after(30));
        rates.mark(counted(20, 3000), after(40));
        assert_eq!(rates.since(counted(20, 3000), after(50)), (0.0, 0.0));
        let many = 5_000_000_000_u64;
        assert_eq!(rates.since(counted(20, 3000 + many), after(80)).1, 100_000_000.0, "{many}");
    }
}
