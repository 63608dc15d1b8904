//! Session resumption with an age limit: with tickets (stateless) and with the session cache (stateful).
//!
//! rustls expects the implementation of its two traits to limit the age. The time of issue is stored with the session,
//! encrypted in the ticket or before the cached value.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls_pki_types::UnixTime;

use crate::model::ServerTls;

/// Both ways to resume. Several configurations can share it, also over time.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    /// `None`: tickets are disabled.
    pub(super) tickets: Option<Arc<dyn ProducesTickets>>,
    /// The cache for TLS 1.2 session ids, and for TLS 1.3 if tickets are disabled.
    pub(super) sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    pub(super) fn new(tls: &ServerTls) -> Result<Self, rustls::Error> {
        let tickets: Option<Arc<dyn ProducesTickets>> = if tls.session_tickets {
            Some(Arc::new(Tickets { inner: Ticketer::new()?, lifetime: tls.session_timeout }))
        } else {
            None
        };
        let sessions: Arc<dyn StoresServerSessions> = if tls.session_cache_size == 0 {
            Arc::new(NoServerSessionStorage {})
        } else {
            let (size, lifetime) = (tls.session_cache_size, tls.session_timeout);
            Arc::new(Sessions { inner: OnceLock::new(), size, lifetime })
        };
        Ok(Self { tickets, sessions })
    }
}

/// rustls' tickets with the time of issue inside. rustls replaces their keys every six hours.
#[derive(Debug)]
struct Tickets {
    inner: Arc<dyn ProducesTickets>,
    lifetime: Duration,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&stamp(plain, UnixTime::now()))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        unstamp(&self.inner.decrypt(cipher)?, UnixTime::now(), self.lifetime)
    }
}

/// rustls' cache with the time of issue before each value. It is created for the first session, because it allocates
/// space for all sessions at once, some tens of kilobytes.
#[derive(Debug)]
struct Sessions {
    inner: OnceLock<Arc<ServerSessionMemoryCache>>,
    size: usize,
    lifetime: Duration,
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let inner = self.inner.get_or_init(|| ServerSessionMemoryCache::new(self.size));
        inner.put(key, stamp(&value, UnixTime::now()))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        unstamp(&self.inner.get()?.get(key)?, UnixTime::now(), self.lifetime)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        unstamp(&self.inner.get()?.take(key)?, UnixTime::now(), self.lifetime)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn stamp(value: &[u8], now: UnixTime) -> Vec<u8> {
    [&now.as_secs().to_be_bytes(), value].concat()
}

/// Returns the value, unless it is older than `lifetime` or from the future (the clock was set back).
fn unstamp(stamped: &[u8], now: UnixTime, lifetime: Duration) -> Option<Vec<u8>> {
    let (issued, value) = stamped.split_first_chunk()?;
    let age = now.as_secs().checked_sub(u64::from_be_bytes(*issued))?;
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
        assert_eq!(unstamp(&stamped, at(999), lifetime), None, "from the future");
        assert_eq!(unstamp(b"short", at(0), lifetime), None);
    }
}
