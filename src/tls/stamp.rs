//! The time at which a session was stored or a ticket was issued, so that its lifetime ends.

use std::time::Duration;

use rustls_pki_types::UnixTime;

/// Prefixes a value with the time.
pub(super) fn stamp(value: &[u8], now: UnixTime) -> Vec<u8> {
    [&now.as_secs().to_be_bytes(), value].concat()
}

/// Returns the value, unless its time differs from now by more than `lifetime`. It may be from the future, because the
/// clock was set back or another replica's clock is ahead.
pub(super) fn unstamp(stamped: &[u8], now: UnixTime, lifetime: Duration) -> Option<Vec<u8>> {
    let (issued, value) = stamped.split_first_chunk()?;
    let age = now.as_secs().abs_diff(u64::from_be_bytes(*issued));
    (age <= lifetime.as_secs()).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_is_resumed_until_its_timeout_and_not_after() {
        let lifetime = Duration::from_secs(300);
        let stamped = stamp(b"session", at(1000));
        assert_eq!(unstamp(&stamped, at(1300), lifetime).as_deref(), Some(&b"session"[..]));
        assert_eq!(unstamp(&stamped, at(1301), lifetime), None);
        assert!(unstamp(&stamped, at(990), lifetime).is_some(), "the clock of another replica");
        assert_eq!(unstamp(&stamped, at(699), lifetime), None, "from the future");
        assert_eq!(unstamp(b"short", at(0), lifetime), None);
    }
}
