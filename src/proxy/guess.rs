//! Recognises a repeated login, so that a device with an outdated password does not look like an attacker who guesses.
//! Only a hash with a key that never leaves the process is stored, never a password.

use std::hash::{BuildHasher, RandomState};

use crate::protocol::LoginRequest;
use crate::protocol::sasl::Mechanism;

/// The keyed hash of a login and its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess(u64);

/// The random key of one listener. A hash of one listener means nothing to another.
#[derive(Debug, Default)]
pub(crate) struct GuessKey(RandomState);

/// The last wrong logins of one client, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried([Option<Guess>; REMEMBERED]);

impl GuessKey {
    /// Returns `None` if the same password does not always produce the same bytes (challenge-response), or if the bytes
    /// are not known to contain the password. Such logins always count.
    pub(crate) fn guess(&self, request: &LoginRequest) -> Option<Guess> {
        let hash = match request {
            LoginRequest::Password { login, password, authzid } => {
                self.hash(Mechanism::Plain, [login, password.expose(), authzid])
            }
            LoginRequest::Token { mechanism, login, token } => {
                self.hash(*mechanism, [login, token.expose(), &[]])
            }
            LoginRequest::External { login } => self.hash(Mechanism::External, [login, &[], &[]]),
            LoginRequest::Relayed { mechanism, initial_response: Some(response) } if is_whole(*mechanism) => {
                self.hash(*mechanism, [response.expose(), &[], &[]])
            }
            LoginRequest::Relayed { .. } | LoginRequest::Digest { .. } | LoginRequest::Anonymous => {
                return None;
            }
        };
        Some(Guess(hash))
    }

    /// `hash_one` includes the length of each slice, so that moving bytes between fields changes the hash.
    fn hash(&self, mechanism: Mechanism, fields: [&[u8]; 3]) -> u64 {
        self.0.hash_one((mechanism, fields))
    }
}

/// Tells whether the mechanism's first message is the complete login and depends on no challenge.
const fn is_whole(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::External | Mechanism::XOAuth2 | Mechanism::OAuthBearer)
}

impl Tried {
    /// Remembers a wrong login. Returns true if it was already remembered.
    pub(crate) fn again(&mut self, guess: Guess) -> bool {
        let known = self.0.iter().position(|tried| *tried == Some(guess));
        let last = known.unwrap_or(REMEMBERED - 1);
        if let Some(moved) = self.0.get_mut(..=last) {
            moved.rotate_right(1);
        }
        if let Some(first) = self.0.first_mut() {
            *first = Some(guess);
        }
        known.is_some()
    }
}

/// Wrong logins remembered for each client; enough for several devices behind one address.
const REMEMBERED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn password(login: &[u8], password: &[u8], authzid: &[u8]) -> LoginRequest {
        let password = Secret::from(password);
        LoginRequest::Password { login: login.to_vec(), password, authzid: authzid.to_vec() }
    }

    #[test]
    fn every_field_of_a_login_makes_another_guess() {
        let key = GuessKey::default();
        let one = key.guess(&password(b"ada", b"pw", b"")).unwrap();
        assert_eq!(key.guess(&password(b"ada", b"pw", b"")), Some(one));
        for other in [
            password(b"ada", b"pW", b""),
            password(b"adap", b"w", b""),
            password(b"ada", b"pw", b"bob"),
            password(b"ada", b"", b"pw"),
            LoginRequest::External { login: b"ada".to_vec() },
        ] {
            assert_ne!(key.guess(&other), Some(one), "{other:?}");
        }
        assert_ne!(GuessKey::default().guess(&password(b"ada", b"pw", b"")), Some(one), "another key");
    }

    #[test]
    fn an_answer_to_a_challenge_is_never_known_again() {
        let key = GuessKey::default();
        let digest = LoginRequest::Digest {
            mechanism: Mechanism::CramMd5,
            login: b"ada".to_vec(),
            digest: Secret::from(&b"d"[..]),
            salt: Vec::new(),
        };
        assert_eq!(key.guess(&digest), None);
        let relayed = |mechanism| LoginRequest::Relayed {
            mechanism,
            initial_response: Some(Secret::from(&b"YQ=="[..])),
        };
        assert_eq!(key.guess(&relayed(Mechanism::CramMd5)), None);
        assert!(key.guess(&relayed(Mechanism::XOAuth2)).is_some());
        assert_eq!(key.guess(&LoginRequest::Anonymous), None);
    }

    #[test]
    fn only_the_last_few_guesses_are_recognised() {
        let mut tried = Tried::default();
        let guess = |number| Guess(number);
        let many = u64::try_from(REMEMBERED).unwrap();
        assert!(!tried.again(guess(0)));
        for number in 1..=many {
            assert!(!tried.again(guess(number)));
            assert!(tried.again(guess(number)));
            // A login that is repeated stays in the list.
            assert!(tried.again(guess(0)), "{number}");
        }
        assert!(!tried.again(guess(1)), "pushed out by newer ones");
    }
}
