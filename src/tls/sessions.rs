//! The TLS sessions with backends that are stored for resumption, for a limited time.
//!
//! A resumed session verifies no certificate, and every resumption brings a new ticket. Without a limit, a backend whose
//! certificate has become invalid would not be detected when a session is resumed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls_pki_types::ServerName;

/// The sessions of one connector. All are forgotten [`MAX_AGE`] after the first.
#[derive(Debug)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    since: Instant,
    sessions: Arc<ClientSessionMemoryCache>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept::since(Instant::now())))
    }

    fn current(&self) -> Arc<ClientSessionMemoryCache> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Arc<ClientSessionMemoryCache> {
        let mut kept = self.0.lock();
        if now.saturating_duration_since(kept.since) >= MAX_AGE {
            *kept = Kept::since(now);
        }
        Arc::clone(&kept.sessions)
    }
}

impl Kept {
    fn since(since: Instant) -> Self {
        Self { since, sessions: Arc::new(ClientSessionMemoryCache::new(MAX_SESSIONS)) }
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.current().set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.current().kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.current().set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.current().tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.current().remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.current().insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.current().take_tls13_ticket(server_name)
    }
}

/// The time after which a certificate is verified again.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// As rustls by default.
const MAX_SESSIONS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_forgotten_after_their_time() {
        let sessions = Sessions::new();
        let first = sessions.current();
        let began = sessions.0.lock().since;
        assert!(Arc::ptr_eq(&first, &sessions.at(began + MAX_AGE - Duration::from_millis(1))));
        let second = sessions.at(began + MAX_AGE);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &sessions.at(began + MAX_AGE * 2 - Duration::from_millis(1))));
    }
}
