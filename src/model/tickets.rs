//! The keys that all replicas of a class share: for TLS session tickets, and for what replicas tell each other
//! ([`Purpose`]).
//!
//! Sealed bytes are `name || salt || AES-256-GCM(plain)`. The cipher's key is derived (HKDF, RFC 5869) from the shared
//! key, the salt, the purpose and a context, so what is sealed for one context means nothing in another.
//!
//! They are not a part of the snapshot: a rotation changes no listener, and a page that shows the snapshot cannot show
//! them. The controller puts them into one place, and every handshake reads them from there.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};

use crate::secret::Secret;

/// The place from which handshakes take the shared keys. All clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct SharedTicketKeys(Arc<ArcSwapOption<TicketKeys>>);

impl SharedTicketKeys {
    /// Returns the keys. `None`: there are no shared keys, and tickets have keys of this process.
    #[must_use]
    pub fn load(&self) -> Option<Arc<TicketKeys>> {
        self.0.load_full()
    }

    /// Replaces the keys. The next handshake uses the new ones.
    pub fn store(&self, keys: Option<TicketKeys>) {
        self.0.store(keys.map(Arc::new));
    }
}

/// The key for new tickets, and the keys of tickets that are still accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys {
    /// Encrypts new tickets.
    pub current: TicketKey,
    /// Earlier keys, and the next one, which another replica may use already.
    pub others: Vec<TicketKey>,
}

impl TicketKeys {
    /// Returns the key with this name.
    #[must_use]
    pub fn named(&self, name: &[u8; NAME_LENGTH]) -> Option<&TicketKey> {
        std::iter::once(&self.current).chain(&self.others).find(|key| key.name() == name)
    }

    /// Encrypts with the current key. `None` if there is no randomness, or the context is too long for HKDF (more than 64
    /// bytes).
    #[must_use]
    pub fn seal(&self, purpose: Purpose, context: &[u8], mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let key = &self.current;
        let mut salt = [0; SALT_LENGTH];
        rand::fill(&mut salt).ok()?;
        let cipher = key.cipher(purpose, context, &salt)?;
        cipher.seal_in_place_append_tag(nonce(), Aad::from(key.name()), &mut plain).ok()?;
        Some([&key.name()[..], &salt, &plain].concat())
    }

    /// Decrypts what was sealed with one of the keys for the same purpose and context. `None` if it was not.
    #[must_use]
    pub fn open(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = sealed.split_first_chunk()?;
        let (salt, sealed) = rest.split_first_chunk()?;
        let cipher = self.named(name)?.cipher(purpose, context, salt)?;
        let mut plain = sealed.to_vec();
        let length = cipher.open_in_place(nonce(), Aad::from(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// What shared keys are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// TLS session tickets. The context is that of the listener.
    SessionTicket,
    /// The answer of one replica to another. The context is that of the request.
    ReplicaAnswer,
}

impl Purpose {
    /// The same in all versions of Mailgress, because replicas of two versions run side by side during a rollout.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::SessionTicket => b"mailgress session ticket v1",
            Self::ReplicaAnswer => b"mailgress replica answer v1",
        }
    }
}

/// A key with its name, which everything that it has sealed begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKey {
    name: [u8; NAME_LENGTH],
    key: Secret,
}

impl TicketKey {
    /// Creates a key. The caller wipes its own copy of `key`.
    #[must_use]
    pub fn new(name: [u8; NAME_LENGTH], key: &[u8; SECRET_LENGTH]) -> Self {
        Self { name, key: Secret::from(&key[..]) }
    }

    /// Reads name and key. `None` if the number of bytes is wrong.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (name, key) = bytes.split_first_chunk()?;
        Some(Self::new(*name, key.try_into().ok()?))
    }

    /// Returns name and key, for [`Self::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Secret {
        Secret::new([&self.name[..], self.key.expose()].concat())
    }

    /// Returns the name, which is public.
    #[must_use]
    pub const fn name(&self) -> &[u8; NAME_LENGTH] {
        &self.name
    }

    /// Derives the cipher for one message. With a random nonce alone, one AES-GCM key must not encrypt more than 2^32
    /// messages (NIST SP 800-38D), and the tickets of all replicas together may come near to that between two rotations.
    fn cipher(&self, purpose: Purpose, context: &[u8], salt: &[u8; SALT_LENGTH]) -> Option<LessSafeKey> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.key.expose());
        let info = [purpose.label(), context];
        let derived = derived.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

/// Each cipher encrypts one message, so all messages can have the same nonce.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Length of a key's name, in bytes.
pub const NAME_LENGTH: usize = 16;
/// Length of a key without its name, in bytes.
pub const SECRET_LENGTH: usize = 32;
const SALT_LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_printed() {
        let bytes: Vec<u8> = (0..48).collect();
        let key = TicketKey::from_bytes(&bytes).unwrap();
        assert_eq!(key.to_bytes().expose(), bytes);
        assert!(!format!("{key:?}").contains("16, 17"), "{key:?}");
        for wrong in [&bytes[..47], &[0; 49], &[]] {
            assert_eq!(TicketKey::from_bytes(wrong), None);
        }
    }

    fn keys(current: u8, other: u8) -> TicketKeys {
        let [current, other] = [current, other].map(|byte| TicketKey::from_bytes(&[byte; 48]).unwrap());
        TicketKeys { current, others: vec![other] }
    }

    #[test]
    fn only_the_same_keys_purpose_and_context_open_what_was_sealed() {
        let (purpose, context) = (Purpose::ReplicaAnswer, &[7; 32]);
        let sealed = keys(1, 2).seal(purpose, context, b"page".to_vec()).unwrap();
        assert_eq!(
            keys(3, 1).open(purpose, context, &sealed).as_deref(),
            Some(&b"page"[..]),
            "an earlier key"
        );
        assert_eq!(keys(2, 3).open(purpose, context, &sealed), None);
        assert_eq!(keys(1, 2).open(Purpose::SessionTicket, context, &sealed), None);
        assert_eq!(keys(1, 2).open(purpose, &[8; 32], &sealed), None);
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert_eq!(keys(1, 2).open(purpose, context, &changed), None, "byte {position}");
        }
    }
}
