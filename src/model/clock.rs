//! Unix seconds, the form of times in reports and on pages.

use std::time::SystemTime;

/// Returns the current time in Unix seconds.
#[must_use]
pub fn unix_now() -> i64 {
    unix_seconds(SystemTime::now())
}

/// Converts to whole Unix seconds; 0 for times before 1970.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
