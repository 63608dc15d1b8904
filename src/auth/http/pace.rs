//! Measures how long a service takes to answer, and decides how long a kept connection must rest.
//!
//! If a service answers a request twice, the second answer arrives later. If the next request is already in progress on
//! this connection, the second answer would be taken as its answer. Therefore a connection rests before it is reused,
//! longer than the service takes for any answer. The second answer arrives during the rest, and so does the answer to a
//! request that got the previous request's second answer.

use std::time::Duration;

use tokio::time::Instant;

/// The answer times of one service.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The longest time since `began`.
    longest: Duration,
    /// The longest time of the previous window.
    before: Duration,
    began: Option<Instant>,
    /// The shortest time on a new connection, where an answer cannot be for another request.
    shortest: Option<Duration>,
    /// The number of answers on new connections, at most [`ENOUGH`].
    fresh: u32,
}

impl Pace {
    /// Records an answer time.
    pub(super) fn answered(&mut self, took: Duration, is_fresh: bool, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if began + WINDOW <= now {
            self.before = if began + 2 * WINDOW <= now { Duration::ZERO } else { self.longest };
            (self.longest, self.began) = (Duration::ZERO, Some(now));
        }
        self.longest = self.longest.max(took);
        if is_fresh {
            self.fresh = ENOUGH.min(self.fresh + 1);
            self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        }
    }

    /// Returns how long a connection rests after an answer. `None` if the service is so slow that connections are not
    /// reused.
    pub(super) fn rest(&self) -> Option<Duration> {
        let longest = self.longest.max(self.before);
        (longest < MAX_REST).then(|| (longest * FACTOR).clamp(MIN_REST, MAX_REST))
    }

    /// Tells whether an answer with this time is probably for another request.
    pub(super) fn is_too_fast(&self, took: Duration) -> bool {
        let is_short = |shortest| shortest >= MEASURABLE && took < shortest / 2;
        self.fresh >= ENOUGH && self.shortest.is_some_and(is_short)
    }
}

/// Minimum rest. Services answer within milliseconds, but later on a busy machine.
pub(super) const MIN_REST: Duration = Duration::from_secs(1);

/// Maximum rest.
const MAX_REST: Duration = Duration::from_secs(15);

/// A rest is the longest answer time multiplied by this.
const FACTOR: u32 = 4;

/// The longest answer time is remembered for one to two windows.
const WINDOW: Duration = Duration::from_secs(600);

/// Shorter answer times vary for other reasons.
const MEASURABLE: Duration = Duration::from_millis(10);

/// Number of answers on new connections before the shortest time is used, because the first answers may be slower.
const ENOUGH: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_rests_for_longer_than_the_service_takes() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.rest(), Some(MIN_REST));
        pace.answered(Duration::from_millis(60), true, now);
        assert_eq!(pace.rest(), Some(MIN_REST));
        pace.answered(Duration::from_secs(2), false, now);
        assert_eq!(pace.rest(), Some(Duration::from_secs(8)));
        pace.answered(Duration::from_secs(14), false, now);
        assert_eq!(pace.rest(), Some(MAX_REST));
        pace.answered(MAX_REST, false, now);
        assert_eq!(pace.rest(), None, "no rest is long enough");
    }

    #[test]
    fn a_slow_answer_is_forgotten_after_two_windows() {
        let (mut pace, now, fast) = (Pace::default(), Instant::now(), Duration::from_millis(1));
        pace.answered(Duration::from_secs(3), true, now);
        pace.answered(fast, true, now + WINDOW);
        assert_eq!(pace.rest(), Some(Duration::from_secs(12)));
        pace.answered(fast, true, now + 2 * WINDOW);
        assert_eq!(pace.rest(), Some(MIN_REST));
        pace.answered(Duration::from_secs(3), true, now + 2 * WINDOW);
        pace.answered(fast, true, now + 5 * WINDOW);
        assert_eq!(pace.rest(), Some(MIN_REST), "also when nobody asked meanwhile");
    }

    #[test]
    fn an_answer_is_too_fast_in_less_than_half_the_shortest_time_of_new_connections() {
        let (mut pace, now, ms) = (Pace::default(), Instant::now(), Duration::from_millis);
        for _ in 0..ENOUGH {
            assert!(!pace.is_too_fast(Duration::ZERO), "too little is known yet");
            pace.answered(ms(60), true, now);
        }
        pace.answered(ms(1), false, now);
        assert!(pace.is_too_fast(ms(29)) && !pace.is_too_fast(ms(30)));
        pace.answered(ms(1), true, now);
        assert!(!pace.is_too_fast(Duration::ZERO), "this service can be fast");
    }
}
