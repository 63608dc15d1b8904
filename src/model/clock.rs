//! Times as everything that is told carries them: Unix seconds.

use std::time::SystemTime;

/// Now, in Unix seconds.
#[must_use]
pub fn unix_now() -> i64 {
    unix_seconds(SystemTime::now())
}

/// Whole Unix seconds; 0 for what lies before 1970.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
