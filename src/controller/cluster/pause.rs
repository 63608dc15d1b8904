//! How long to wait before something that failed is tried again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// Doubles up to a bound. Each pause is drawn from its upper half, so that replicas do not come all at once.
#[derive(Debug)]
pub(super) struct Pause {
    longest: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { longest: FIRST }
    }
}

/// Never ends.
impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.longest.mul_f64(rand::random_range(0.5..=1.0));
        self.longest = self.longest.saturating_mul(2).min(LAST);
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.longest = FIRST;
    }
}

/// After the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// However often it failed.
pub(super) const LAST: Duration = Duration::from_secs(10);
/// A failure that is over is not told for longer: it would have come again by then.
pub(super) const TOLD: Duration = LAST.saturating_mul(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_again() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = pause.by_ref().take(20).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses[10..].iter().all(|pause| *pause <= LAST && *pause >= LAST / 2), "{pauses:?}");
        pause.reset();
        assert!(pause.next().unwrap() <= FIRST);
    }
}
