//! The keys of TLS session tickets that all replicas of a class share.
//!
//! They are not a part of the snapshot: a rotation changes no listener, and a page that shows the snapshot cannot show
//! them. The controller puts them into one place, and every handshake reads them from there.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

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
}

/// A key with its name, which every ticket begins with.
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

    /// Returns the key's bytes, for the code that encrypts.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.key.expose()
    }
}

/// Length of a key's name, in bytes.
pub const NAME_LENGTH: usize = 16;
/// Length of a key without its name, in bytes.
pub const SECRET_LENGTH: usize = 32;

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
}
