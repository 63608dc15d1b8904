//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Pauses that double up to a bound.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    is_random: bool,
}

impl Backoff {
    /// From `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, is_random: false }
    }

    /// Draws each pause from its upper half, so that replicas do not try again at the same time.
    #[must_use]
    pub fn random(self) -> Self {
        Self { is_random: true, ..self }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        if self.is_random { pause.mul_f64(rand::random_range(0.5..=1.0)) } else { pause }
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Never ends.
impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LAST: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_double_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::new(FIRST, LAST);
        let pauses: Vec<u128> = backoff.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
    }

    #[test]
    fn random_pauses_are_in_the_upper_half() {
        let mut backoff = Backoff::new(FIRST, LAST).random();
        let pauses: Vec<Duration> = backoff.by_ref().take(20).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses[10..].iter().all(|pause| *pause <= LAST && *pause >= LAST / 2), "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
