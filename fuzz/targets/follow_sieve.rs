//! The follower of ManageSieve sessions: any client and any backend.

use mailgress::protocol::Protocol;

use super::responses::{self, Oracle, literal};

/// Invariant, beside those of [`responses::target`]: where a closing message may be inserted, a parser of responses is
/// behind the result of one.
pub(super) fn target(data: &[u8]) {
    responses::target::<Sieve>(data);
}

/// All that the backend has sent.
#[derive(Default)]
struct Sieve(Vec<u8>);

impl Oracle for Sieve {
    const PROTOCOL: Protocol = Protocol::Sieve;

    fn client(&mut self, _: &[u8]) {}

    fn backend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn check_between(&self) {
        assert!(is_between(&self.0), "within {:?}", self.0.escape_ascii().to_string());
    }
}

/// Reads all responses (RFC 5804 section 1.2) from the first one. Tells whether the last one is whole.
fn is_between(mut bytes: &[u8]) -> bool {
    let mut is_between = true;
    while !bytes.is_empty() {
        let is_string = matches!(bytes.first(), Some(b'"' | b'{'));
        let Some(rest) = behind_line(bytes) else { return false };
        bytes = rest;
        is_between = !is_string;
    }
    is_between
}

/// Returns what follows a line and its literals.
fn behind_line(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')? + 1;
        let (line, after) = rest.split_at(end);
        match literal(line) {
            Some(size) => rest = after.get(usize::try_from(size).ok()?..)?,
            None => return Some(after),
        }
    }
}
