//! The keys of session tickets that the replicas share: their form in a Secret, and when they are replaced (pure).
//!
//! There are always four keys. A rotation makes `next` the `current` one, which encrypts, and moves the others on. Thus
//! every replica knows a key for a whole period before any replica encrypts with it, and a ticket can be decrypted for
//! at least two periods. Only the leader's clock decides, against the time in the Secret.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use rand::CryptoRng;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::model::tickets::{NAME_LENGTH, SECRET_LENGTH};
use crate::model::{TicketKey, TicketKeys};
use crate::secret::Secret;

use super::index::Key;

/// The keys of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    /// Will encrypt after the next rotation.
    next: TicketKey,
    /// Encrypts.
    current: TicketKey,
    previous: TicketKey,
    oldest: TicketKey,
    /// The time of the last rotation.
    rotated: Timestamp,
}

/// What a Secret with the name of ours contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is ours, and has no keys yet.
    Empty,
    /// It is ours.
    Keys(KeyRing),
}

/// Why a Secret cannot be used. It is never overwritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is of somebody else.
    #[error(
        "has the type {0} and belongs to something else; rename it, or give --lease another name, after which this \
         Secret is named"
    )]
    Foreign(String),
    /// It is ours, and was changed by hand or by another version.
    #[error("has no valid `{0}`; delete it, and the leader makes new keys")]
    Malformed(&'static str),
}

impl KeyRing {
    /// Makes new keys.
    pub fn new(random: &mut impl CryptoRng, now: Timestamp) -> Self {
        let [next, current, previous, oldest] = [(); 4].map(|()| fresh(random));
        Self { next, current, previous, oldest, rotated: now }
    }

    /// Rotates once for every period that has passed, so that after a long pause no old key remains. `None` if no
    /// rotation is due. A time that is far in the future comes from a wrong clock, and does not stop the rotation.
    #[must_use]
    pub fn rotated(&self, random: &mut impl CryptoRng, now: Timestamp) -> Option<Self> {
        let age = now.duration_since(self.rotated);
        let periods = age.as_secs().unsigned_abs().checked_div(ROTATION.as_secs()).unwrap_or_default();
        if periods == 0 {
            return None;
        }
        let mut ring = self.clone();
        for _ in 0..periods.min(KEYS) {
            let Self { next, current, previous, .. } = ring;
            ring = Self {
                next: fresh(random),
                current: next,
                previous: current,
                oldest: previous,
                rotated: now,
            };
        }
        Some(ring)
    }

    /// Tells whether nobody has rotated for so long that the keys must not be used any more.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now.duration_since(self.rotated) > STALE_AFTER
    }

    /// Returns the keys for handshakes.
    #[must_use]
    pub fn keys(&self) -> TicketKeys {
        let others = vec![self.next.clone(), self.previous.clone(), self.oldest.clone()];
        TicketKeys { current: self.current.clone(), others }
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// The Secret is not ours or not valid.
    pub fn read(secret: v1::Secret) -> Result<Content, Unusable> {
        // Taken first, so that all of it is wiped in any case.
        let data = secret.data.unwrap_or_default().into_iter();
        let data: BTreeMap<String, Secret> =
            data.map(|(name, ByteString(bytes))| (name, Secret::new(bytes))).collect();
        let kind = secret.type_.unwrap_or_else(|| "Opaque".to_owned());
        if kind != SECRET_TYPE {
            return Err(Unusable::Foreign(kind));
        }
        if data.is_empty() {
            return Ok(Content::Empty);
        }
        let key = |name: &'static str| {
            let bytes = data.get(name).map(Secret::expose);
            bytes.and_then(TicketKey::from_bytes).ok_or(Unusable::Malformed(name))
        };
        let time = data.get(ROTATED).and_then(|bytes| std::str::from_utf8(bytes.expose()).ok());
        let rotated = time.and_then(|text| text.parse().ok()).ok_or(Unusable::Malformed(ROTATED))?;
        let [next, current, previous, oldest] = NAMES;
        Ok(Content::Keys(Self {
            next: key(next)?,
            current: key(current)?,
            previous: key(previous)?,
            oldest: key(oldest)?,
            rotated,
        }))
    }

    /// Returns the Secret for server-side apply. With `version`, the API server refuses the change if the Secret has
    /// changed since. It also refuses to change the type of a Secret that belongs to something else.
    #[must_use]
    pub fn applied(&self, key: &Key, version: Option<&str>) -> Value {
        let keys = [&self.next, &self.current, &self.previous, &self.oldest];
        let values = keys.map(|key| json!(ByteString(key.to_bytes().expose().to_vec())));
        let mut data: serde_json::Map<String, Value> =
            NAMES.into_iter().map(str::to_owned).zip(values).collect();
        data.insert(ROTATED.to_owned(), json!(ByteString(self.rotated.to_string().into_bytes())));
        let mut metadata = json!({ "name": key.name, "namespace": key.namespace });
        if let Some(version) = version {
            metadata["resourceVersion"] = json!(version);
        }
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": SECRET_TYPE, "data": data })
    }
}

fn fresh(random: &mut impl CryptoRng) -> TicketKey {
    let mut name = [0; NAME_LENGTH];
    let mut key = Zeroizing::new([0; SECRET_LENGTH]);
    random.fill_bytes(&mut name);
    random.fill_bytes(&mut *key);
    TicketKey::new(name, &key)
}

/// Returns the Secret of the replicas that compete for this Lease.
#[must_use]
pub fn secret_of(lease: &Key) -> Key {
    Key::new(&lease.namespace, &format!("{}-session-tickets", lease.name))
}

/// The type of our Secret. The API server does not allow to change a Secret's type.
pub const SECRET_TYPE: &str = "mailgress.dev/session-ticket-keys";
/// The keys in the Secret, in the order of a rotation.
const NAMES: [&str; 4] = ["next", "current", "previous", "oldest"];
const KEYS: u64 = NAMES.len() as u64;
/// The time of the last rotation in the Secret.
const ROTATED: &str = "rotatedAt";
/// A key exists for four periods. It encrypts in the second one.
const ROTATION: Duration = Duration::from_secs(12 * 3600);
/// With it, no key decrypts later than six days after its first use: RFC 8446 section 4.6.1 allows seven. It is much
/// longer than clocks of replicas differ.
const STALE_AFTER: SignedDuration = SignedDuration::from_hours(5 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn random() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn key() -> Key {
        secret_of(&Key::new("mailgress", "edge"))
    }

    fn secret(ring: &KeyRing) -> v1::Secret {
        serde_json::from_value(ring.applied(&key(), Some("7"))).unwrap()
    }

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        let ring = KeyRing::new(&mut random(), at(0));
        let secret = secret(&ring);
        assert_eq!(secret.metadata.name.as_deref(), Some("edge-session-tickets"));
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(KeyRing::read(secret), Ok(Content::Keys(ring)));
    }

    #[test]
    fn a_key_is_known_before_it_encrypts_and_for_two_rotations_after() {
        let mut random = random();
        let mut ring = KeyRing::new(&mut random, at(0));
        let key = ring.next.clone();
        let knows = |ring: &KeyRing| ring.keys().named(key.name()).is_some();
        assert!(knows(&ring) && ring.keys().current != key);
        let mut encrypted = 0;
        for hours in [12, 24, 36] {
            ring = ring.rotated(&mut random, at(hours)).unwrap();
            assert!(knows(&ring), "after {hours} hours");
            encrypted += u32::from(ring.keys().current == key);
        }
        assert_eq!(encrypted, 1);
        assert!(!knows(&ring.rotated(&mut random, at(48)).unwrap()));
    }

    #[test]
    fn another_leader_goes_on_with_the_rotation_whatever_its_clock_says() {
        let mut random = random();
        let ring = KeyRing::new(&mut random, at(0));
        for early in [-11, 0, 11] {
            assert_eq!(ring.rotated(&mut random, at(early)), None, "{early}");
        }
        let once = ring.rotated(&mut random, at(13)).unwrap();
        assert_eq!((&once.current, &once.previous), (&ring.next, &ring.current));
        assert!(ring.rotated(&mut random, at(-13)).is_some(), "a time far in the future");
        let late = ring.rotated(&mut random, at(1000)).unwrap();
        let old = ring.keys();
        let kept = |key: &TicketKey| old.named(key.name()).is_some();
        assert!(!kept(&late.current) && !late.keys().others.iter().any(kept), "after a pause of weeks");
    }

    #[test]
    fn keys_that_nobody_rotates_are_not_used_for_longer_than_tickets_may_live() {
        let ring = KeyRing::new(&mut random(), at(0));
        assert!(!ring.is_stale(at(5 * 24)) && !ring.is_stale(at(-1)));
        assert!(ring.is_stale(at(5 * 24 + 1)));
    }

    #[test]
    fn a_secret_that_is_not_ours_or_not_valid_is_refused_by_name() {
        let good = secret(&KeyRing::new(&mut random(), at(0)));
        let opaque = v1::Secret { type_: None, ..good.clone() };
        let problem = KeyRing::read(opaque).unwrap_err();
        assert_eq!(problem, Unusable::Foreign("Opaque".to_owned()));
        for name in ["current", "oldest", ROTATED] {
            let mut broken = good.clone();
            broken.data.as_mut().unwrap().insert(name.to_owned(), ByteString(vec![0; 47]));
            assert_eq!(KeyRing::read(broken), Err(Unusable::Malformed(name)));
        }
        let empty = v1::Secret { data: None, ..good };
        assert_eq!(KeyRing::read(empty), Ok(Content::Empty));
    }
}
