//! The follower of protocols whose responses are lines with literals, beside an oracle of its protocol.

use mailgress::protocol::Protocol;
use mailgress::protocol::follow::{Follower, Passage, SmtpStart};

use super::choices::{Choices, sizes};

/// Reads both directions of a session, slowly and simply.
pub(super) trait Oracle: Default {
    const PROTOCOL: Protocol;

    /// Reads bytes of the client.
    fn client(&mut self, bytes: &[u8]);

    /// Reads bytes of the backend.
    fn backend(&mut self, bytes: &[u8]);

    /// Panics if a closing message may not be inserted here.
    fn check_between(&self);
}

/// Invariants:
/// * where a closing message may be inserted, the oracle agrees;
/// * the same for any chunking, and all bytes of the client pass.
pub(super) fn target<O: Oracle>(data: &[u8]) {
    let mut choices = Choices::new(data);
    let chunks = choices.byte();
    let parts = choices.parts();
    let whole = follow::<O>(&parts, |available| available);
    assert_eq!(whole, follow::<O>(&parts, sizes(chunks)), "the result depends on the chunks");
    assert_eq!(whole, follow::<O>(&parts, |_| 1), "the result depends on the chunks");
}

/// Gives a follower the parts: of the client and of the backend in turn. Returns what is known after each.
fn follow<O: Oracle>(parts: &[&[u8]], mut chunk: impl FnMut(usize) -> usize) -> Vec<String> {
    let mut follower = Follower::new(O::PROTOCOL, SmtpStart::default());
    let mut oracle = O::default();
    let mut known = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut rest = *part;
        while !rest.is_empty() {
            let (now, next) = rest.split_at(chunk(rest.len()));
            rest = next;
            if index % 2 == 0 {
                assert_eq!(follower.client(now, |_| None), Passage::Pass(now.len()));
                oracle.client(now);
            } else {
                follower.backend(now);
                oracle.backend(now);
            }
            if follower.is_between_responses() {
                oracle.check_between();
            }
        }
        known.push(format!("{} {:?}", follower.is_between_responses(), follower.interrupted()));
    }
    known
}

/// Returns the size of the literal that a line announces at its end.
pub(super) fn literal(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.get(line.iter().rposition(|byte| *byte == b'{')?..)?).ok()?;
    let digits = text.strip_suffix('\n')?;
    let digits = digits.strip_suffix('\r').unwrap_or(digits);
    let digits = digits.strip_prefix('{')?.strip_suffix('}')?;
    let digits = digits.strip_suffix('+').unwrap_or(digits);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
