//! Polls for a condition with a time limit.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine. Nothing that works takes so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `probe` returns a value. Panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Polls until `probe` returns a value. Panics with `what` after `bound`.
pub fn within<T>(bound: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {bound:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const LONGEST_PAUSE: Duration = Duration::from_millis(50);
