//! Session resumption with an age limit: with tickets (stateless) and with the session cache (stateful).
//!
//! rustls expects the implementation of its two traits to limit the age. The time of issue is stored with the session,
//! encrypted in the ticket or before the cached value.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls_pki_types::UnixTime;

use crate::model::{ServerTls, SharedTicketKeys};
use crate::protocol::Protocol;

use super::stamp::{stamp, unstamp};
use super::tickets::Tickets;

/// Both ways to resume. Several configurations can share it, also over time.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    /// `None`: tickets are disabled.
    tickets: Option<Tickets>,
    /// The cache for TLS 1.2 session ids, and for TLS 1.3 if tickets are disabled.
    pub(super) sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    pub(super) fn new(
        tls: &ServerTls,
        protocol: Protocol,
        shared: &SharedTicketKeys,
    ) -> Result<Self, rustls::Error> {
        let tickets = tls.session_tickets.then(|| Tickets::new(tls, protocol, shared.clone())).transpose()?;
        let sessions: Arc<dyn StoresServerSessions> = if tls.session_cache_size == 0 {
            Arc::new(NoServerSessionStorage {})
        } else {
            let (size, lifetime) = (tls.session_cache_size, tls.session_timeout);
            Arc::new(Sessions { inner: OnceLock::new(), size, lifetime })
        };
        Ok(Self { tickets, sessions })
    }

    /// Returns the same for settings that differ in nothing but the certificates.
    pub(super) fn renewed(&self, tls: &ServerTls, protocol: Protocol) -> Self {
        let tickets = self.tickets.as_ref().map(|tickets| tickets.renewed(tls, protocol));
        Self { tickets, sessions: Arc::clone(&self.sessions) }
    }

    pub(super) fn ticketer(&self) -> Option<Arc<dyn ProducesTickets>> {
        Some(Arc::new(self.tickets.clone()?))
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
