//! Encrypts what replicas tell each other with the keys that they share, so that others on the network can neither read
//! an answer nor make one.
//!
//! An answer is sealed for the query of its request, in which the asker puts a new random number. So an answer to
//! another request does not open. Anybody may ask; only replicas understand the answer.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::model::{Purpose, SharedTicketKeys, TicketKeys};

/// The media type of a sealed answer.
pub const SEALED: &str = "application/vnd.mailgress.sealed";

/// The parameter of the query with the asker's random number.
pub const NONCE: &str = "nonce";

/// Why an answer is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The other replica has keys, this one does not.
    #[error(
        "its answer is encrypted, and this replica has no keys of session tickets; allow it get, list and watch of their Secret"
    )]
    NoKeys,
    /// This replica has keys, the other one does not.
    #[error(
        "its answer is not encrypted with the keys of session tickets; allow it get, list and watch of their Secret"
    )]
    NotSealed,
    /// The other replica has other keys, or it is no replica.
    #[error("its answer is encrypted with unknown keys; check that it uses the same --lease as this replica")]
    OtherKeys,
}

/// Encrypts the answer to a request with this query. `None` if there is no randomness.
#[must_use]
pub fn seal(keys: &TicketKeys, query: &str, answer: Vec<u8>) -> Option<Vec<u8>> {
    keys.seal(Purpose::ReplicaAnswer, &context(query), answer)
}

/// Returns the content of the answer to a request with this query. While this replica has no keys, it accepts an answer
/// that is not sealed.
///
/// # Errors
/// The answer is from something that does not have the same keys.
pub fn open(
    shared: &SharedTicketKeys,
    query: &str,
    is_sealed: bool,
    answer: Vec<u8>,
) -> Result<Vec<u8>, Refused> {
    match (shared.load(), is_sealed) {
        (None, false) => Ok(answer),
        (None, true) => Err(Refused::NoKeys),
        (Some(_), false) => Err(Refused::NotSealed),
        (Some(keys), true) => opened(&keys, query, &answer),
    }
}

fn opened(keys: &Arc<TicketKeys>, query: &str, answer: &[u8]) -> Result<Vec<u8>, Refused> {
    keys.open(Purpose::ReplicaAnswer, &context(query), answer).ok_or(Refused::OtherKeys)
}

/// The query may be longer than the context of a cipher.
fn context(query: &str) -> Vec<u8> {
    digest(&SHA256, query.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TicketKey;

    fn shared(byte: u8) -> SharedTicketKeys {
        let shared = SharedTicketKeys::default();
        let current = TicketKey::from_bytes(&[byte; 48]).unwrap();
        shared.store(Some(TicketKeys { current, others: Vec::new() }));
        shared
    }

    #[test]
    fn an_answer_opens_with_the_same_keys_for_the_same_request_only() {
        let query = format!("wait=3&instance={}&nonce=1", "x".repeat(200));
        let sealed = seal(&shared(1).load().unwrap(), &query, b"page".to_vec()).unwrap();
        assert_eq!(open(&shared(1), &query, true, sealed.clone()).as_deref(), Ok(&b"page"[..]));
        assert_eq!(
            open(&shared(1), &query.replace("nonce=1", "nonce=2"), true, sealed.clone()),
            Err(Refused::OtherKeys)
        );
        assert_eq!(open(&shared(2), &query, true, sealed.clone()), Err(Refused::OtherKeys));
        assert_eq!(open(&SharedTicketKeys::default(), &query, true, sealed), Err(Refused::NoKeys));
        assert_eq!(open(&shared(1), &query, false, b"page".to_vec()), Err(Refused::NotSealed));
        assert_eq!(open(&SharedTicketKeys::default(), &query, false, b"page".to_vec()), Ok(b"page".to_vec()));
    }
}
