//! Sessions as operators see and select them.

use std::fmt::{self, Write};
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifies a session over all replicas and restarts: 64 random bits of the process, and a number in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Random, one for each process.
    pub process: u64,
    /// Counted from 1 in the process.
    pub number: u64,
}

/// Formats the id as 13 digits and a number in base 32, such as `0h5x1zq7k2m9c-4f`.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..PROCESS_DIGITS).rev() {
            f.write_char(digit(self.process >> (place * DIGIT_BITS)))?;
        }
        f.write_char('-')?;
        let digits = (u64::BITS - self.number.leading_zeros()).div_ceil(DIGIT_BITS).max(1);
        for place in (0..digits).rev() {
            f.write_char(digit(self.number >> (place * DIGIT_BITS)))?;
        }
        Ok(())
    }
}

/// Why a text is not a session's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the ID of a session, such as 0h5x1zq7k2m9c-4f")]
pub struct NoSessionId;

impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        let (process, number) = text.split_once('-').ok_or(NoSessionId)?;
        let id = Self { process: value(process)?, number: value(number)? };
        // One id has one text.
        if id.to_string() == text { Ok(id) } else { Err(NoSessionId) }
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Selects sessions: those that match all of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// The login name. The case of its domain does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The backend: its endpoint with or without the port, its Pod, or its Service as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The listener as `namespace/object/listener`, or its beginning `namespace/object`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

impl SessionFilter {
    /// Tells whether it selects all sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A session after its login, or one that sends mail without a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenSession {
    /// The session's id.
    pub id: SessionId,
    /// `mail/example/imaps`, or `mail/example` for a `MailListener`.
    pub listener: String,
    /// `imap`, `pop3`, `smtp` or `sieve`.
    pub protocol: String,
    /// The client's address, or the source in a trusted PROXY header; `unix:` for UNIX sockets.
    pub client: String,
    /// `off`, `starttls` or `implicit`.
    pub tls: String,
    /// `TLSv1.3`, for example; empty without TLS.
    pub tls_version: String,
    /// The login name, shortened to 256 bytes and escaped; empty without a login.
    pub login: String,
    /// The endpoint's address.
    pub backend: String,
    /// The name of the endpoint's Pod, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The backend in the manifest, such as `Service mail/dovecot:143`; empty if the auth service named it.
    pub service: String,
    /// When the client connected.
    pub since: Timestamp,
    /// Seconds since bytes moved last.
    pub idle_seconds: u64,
    /// Bytes relayed to the backend.
    pub to_backend: u64,
    /// Bytes relayed to the client.
    pub to_client: u64,
}

/// The sessions of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// The replica's name.
    pub replica: String,
    /// The oldest first.
    pub sessions: Vec<OpenSession>,
}

/// How many sessions one replica has told to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// The replica's name.
    pub replica: String,
    /// The number of sessions.
    pub ended: usize,
}

/// Returns the digit for the lowest bits.
fn digit(value: u64) -> char {
    let index = usize::try_from(value % DIGITS.len() as u64).unwrap_or_default();
    DIGITS.get(index).copied().map_or('0', char::from)
}

fn value(text: &str) -> Result<u64, NoSessionId> {
    text.bytes().try_fold(0_u64, |value, byte| {
        let digit = DIGITS.iter().position(|digit| *digit == byte).ok_or(NoSessionId)?;
        let shifted = value.checked_mul(DIGITS.len() as u64).ok_or(NoSessionId)?;
        Ok(shifted | digit as u64)
    })
}

/// Without letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGIT_BITS: u32 = 5;
/// Digits of 64 bits.
const PROCESS_DIGITS: u32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_short_and_read_back() {
        let known = [
            (0, 1, "0000000000000-1"),
            (1, 32, "0000000000001-10"),
            (u64::MAX, u64::MAX, "fzzzzzzzzzzzz-fzzzzzzzzzzzz"),
            (0x0123_4567_89ab_cdef, 1000, "028t5cy4tqkff-z8"),
        ];
        for (process, number, text) in known {
            let id = SessionId { process, number };
            assert_eq!((id.to_string().as_str(), text.parse()), (text, Ok(id)));
        }
    }

    #[test]
    fn other_texts_are_no_session_ids() {
        for text in [
            "",
            "-",
            "1-1",
            "0000000000000-",
            "0000000000000-01",
            "0000000000000_1",
            "000000000000O-1",
            "0000000000000-L",
            "gzzzzzzzzzzzz-1",
            "0000000000000-1-1",
            "00000000000000-1",
            "zzzzzzzzzzzzz-1",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(NoSessionId), "{text}");
        }
    }
}
