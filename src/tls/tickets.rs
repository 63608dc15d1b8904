//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): encrypted with the keys that the replicas share, or with keys of
//! this process while there are none.
//!
//! A shared ticket is `issued || session`, sealed for the context of the listener, so a ticket of one context means
//! nothing in another.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls_pki_types::UnixTime;

use crate::model::{ClientAuth, ClientAuthMode, Purpose, ServerTls, SharedTicketKeys, TicketKeys};
use crate::protocol::Protocol;

use super::stamp::{stamp, unstamp};

/// The tickets of a listener.
#[derive(Clone, Debug)]
pub(super) struct Tickets {
    /// Keys of this process for this listener. rustls replaces them every six hours.
    own: Arc<dyn ProducesTickets>,
    shared: SharedTicketKeys,
    context: Context,
    lifetime: Duration,
}

impl Tickets {
    pub(super) fn new(
        tls: &ServerTls,
        protocol: Protocol,
        shared: SharedTicketKeys,
    ) -> Result<Self, rustls::Error> {
        let (context, lifetime) = (Context::new(tls, protocol), tls.session_timeout);
        Ok(Self { own: Ticketer::new()?, shared, context, lifetime })
    }

    /// Returns the same with new certificates. Tickets of this process can still be resumed.
    pub(super) fn renewed(&self, tls: &ServerTls, protocol: Protocol) -> Self {
        Self { context: Context::new(tls, protocol), ..self.clone() }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.own.enabled()
    }

    /// The hint tells clients not to keep a ticket longer than its key exists for certain.
    fn lifetime(&self) -> u32 {
        let longest = if self.shared.load().is_some() { LONGEST_SHARED } else { LONGEST_OWN };
        u32::try_from(self.lifetime.min(longest).as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let plain = stamp(plain, UnixTime::now());
        match self.shared.load() {
            Some(keys) => keys.seal(Purpose::SessionTicket, &self.context.0, plain),
            None => self.own.encrypt(&plain),
        }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let open = |keys: Arc<TicketKeys>| keys.open(Purpose::SessionTicket, &self.context.0, cipher);
        let shared = self.shared.load().and_then(open);
        let plain = shared.or_else(|| self.own.decrypt(cipher))?;
        unstamp(&plain, UnixTime::now(), self.lifetime)
    }
}

/// What must be equal for a session of one listener to be resumed at another: a hash of the protocol and of the TLS
/// settings. Equal settings have the same context in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context([u8; digest::SHA256_OUTPUT_LEN]);

impl Context {
    /// Certificates count by the names of their Secrets, so that their renewal does not end sessions. Without them, a
    /// client that is led to the listener of another tenant would resume its session there instead of seeing another
    /// certificate.
    fn new(tls: &ServerTls, protocol: Protocol) -> Self {
        let ServerTls {
            certificates,
            min_version,
            cipher_suites,
            client_auth: ClientAuth { mode, authorities, crls, depth },
            session_tickets: _,
            session_cache_size: _,
            session_timeout: _,
        } = tls;
        let mut fields = Fields(digest::Context::new(&digest::SHA256));
        fields.add(protocol.name().as_bytes());
        fields.add(min_version.name().as_bytes());
        fields.add(&[mode_number(*mode)]);
        fields.add(&depth.to_be_bytes());
        fields.list(certificates.iter().map(|certificate| certificate.reference.as_bytes()));
        fields.list(cipher_suites.iter().map(String::as_bytes));
        fields.list(authorities.iter().map(AsRef::as_ref));
        fields.list(crls.iter().map(Vec::as_slice));
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(fields.0.finish().as_ref());
        Self(hash)
    }
}

/// The same in all versions of Mailgress, because replicas of two versions share tickets during a rollout.
const fn mode_number(mode: ClientAuthMode) -> u8 {
    match mode {
        ClientAuthMode::Disabled => 0,
        ClientAuthMode::Optional => 1,
        ClientAuthMode::Required => 2,
        ClientAuthMode::OptionalNoCa => 3,
    }
}

/// Hashes fields with their lengths, so that different fields never give the same input.
struct Fields(digest::Context);

impl Fields {
    fn add(&mut self, field: &[u8]) {
        self.count(field.len());
        self.0.update(field);
    }

    fn list<'a>(&mut self, fields: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.count(fields.len());
        fields.for_each(|field| self.add(field));
    }

    fn count(&mut self, number: usize) {
        self.0.update(&u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
    }
}

/// A shared key decrypts for two rotations of 12 hours after the last ticket that it has encrypted.
const LONGEST_SHARED: Duration = Duration::from_secs(24 * 3600);
/// rustls' keys decrypt for six hours after the last ticket that they have encrypted.
const LONGEST_OWN: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TicketKey;
    use crate::tls::testing::{Ca, client_auth, server_tls};

    fn key(byte: u8) -> TicketKey {
        TicketKey::from_bytes(&[byte; 48]).unwrap()
    }

    fn keys(current: u8, others: &[u8]) -> TicketKeys {
        TicketKeys { current: key(current), others: others.iter().copied().map(key).collect() }
    }

    fn tickets(tls: &ServerTls, keys: TicketKeys) -> Tickets {
        let shared = SharedTicketKeys::default();
        shared.store(Some(keys));
        Tickets::new(tls, Protocol::Imap, shared).unwrap()
    }

    #[test]
    fn another_process_with_the_same_keys_decrypts_a_ticket() {
        let tls = server_tls(vec![Ca::new("ca").issue(&["a.test"]).model()]);
        let ticket = tickets(&tls, keys(1, &[])).encrypt(b"session").unwrap();
        assert!(!ticket.windows(7).any(|part| part == b"session"));
        let resumed = |keys| tickets(&tls, keys).decrypt(&ticket);
        assert_eq!(resumed(keys(1, &[])).as_deref(), Some(&b"session"[..]));
        assert_eq!(resumed(keys(2, &[3, 1])).as_deref(), Some(&b"session"[..]), "an earlier key");
        assert_eq!(resumed(keys(2, &[3, 4])), None, "a key that no longer exists");
    }

    #[test]
    fn each_ticket_of_a_session_is_different() {
        let tickets = tickets(&server_tls(Vec::new()), keys(1, &[]));
        assert_ne!(tickets.encrypt(b"session"), tickets.encrypt(b"session"));
    }

    #[test]
    fn a_ticket_that_was_changed_is_refused() {
        let tickets = tickets(&server_tls(Vec::new()), keys(1, &[2]));
        let ticket = tickets.encrypt(b"session").unwrap();
        for position in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[position] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {position}");
            assert_eq!(tickets.decrypt(&ticket[..position]), None, "the first {position} bytes");
        }
        assert!(tickets.decrypt(&ticket).is_some());
    }

    #[test]
    fn a_ticket_of_other_settings_is_refused() {
        let ca = Ca::new("ca");
        let tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
        let ticket = tickets(&tls, keys(1, &[])).encrypt(b"session").unwrap();
        let refused = |tls: ServerTls| tickets(&tls, keys(1, &[])).decrypt(&ticket).is_none();
        for mode in [ClientAuthMode::Optional, ClientAuthMode::Required, ClientAuthMode::OptionalNoCa] {
            assert!(refused(ServerTls { client_auth: client_auth(mode, Vec::new()), ..tls.clone() }));
        }
        let trusts = client_auth(ClientAuthMode::Disabled, vec![ca.der()]);
        assert!(refused(ServerTls { client_auth: trusts, ..tls.clone() }));
        assert!(refused(ServerTls { min_version: crate::model::MinVersion::Tls13, ..tls.clone() }));
        assert!(refused(ServerTls { cipher_suites: vec!["a".to_owned()], ..tls.clone() }));
        assert!(refused(ServerTls { certificates: Vec::new(), ..tls.clone() }), "another tenant's");
        let renewed = ServerTls { certificates: vec![ca.issue(&["a.test"]).model()], ..tls.clone() };
        assert!(!refused(renewed), "a certificate in the same Secret");
        let shared = SharedTicketKeys::default();
        shared.store(Some(keys(1, &[])));
        let pop3 = Tickets::new(&tls, Protocol::Pop3, shared).unwrap();
        assert_eq!(pop3.decrypt(&ticket), None);
    }

    #[test]
    fn tickets_of_the_process_are_accepted_after_the_keys_were_shared() {
        let shared = SharedTicketKeys::default();
        let tickets = Tickets::new(&server_tls(Vec::new()), Protocol::Imap, shared.clone()).unwrap();
        let own = tickets.encrypt(b"session").unwrap();
        shared.store(Some(keys(1, &[])));
        let common = tickets.encrypt(b"session").unwrap();
        assert!(common.starts_with(key(1).name()) && !own.starts_with(key(1).name()));
        assert!(tickets.decrypt(&own).is_some() && tickets.decrypt(&common).is_some());
        shared.store(None);
        assert!(tickets.decrypt(&own).is_some() && tickets.decrypt(&common).is_none());
    }

    #[test]
    fn the_hint_is_never_longer_than_the_key_exists() {
        let year = ServerTls { session_timeout: Duration::from_secs(8760 * 3600), ..server_tls(Vec::new()) };
        let shared = SharedTicketKeys::default();
        let tickets = |tls: &ServerTls| Tickets::new(tls, Protocol::Imap, shared.clone()).unwrap();
        assert_eq!(tickets(&server_tls(Vec::new())).lifetime(), 300);
        assert_eq!(tickets(&year).lifetime(), 6 * 3600);
        shared.store(Some(keys(1, &[])));
        assert_eq!(tickets(&year).lifetime(), 24 * 3600);
        assert_eq!(tickets(&server_tls(Vec::new())).lifetime(), 300);
    }
}
