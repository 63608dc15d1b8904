//! The follower of ManageSieve sessions: any client and any backend.

use mailgress::protocol::Protocol;
use mailgress::protocol::follow::{Follower, Passage, SmtpStart};

use super::choices::{Choices, sizes};

/// Invariants:
/// * where a closing message may be inserted, a parser of responses is behind the result of one;
/// * the same for any chunking, and all bytes of the client pass.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let chunks = choices.byte();
    let parts = choices.parts();
    let whole = follow(&parts, |available| available);
    assert_eq!(whole, follow(&parts, sizes(chunks)), "the result depends on the chunks");
    assert_eq!(whole, follow(&parts, |_| 1), "the result depends on the chunks");
}

/// Gives a follower the parts: of the client and of the backend in turn. Returns what is known after each.
fn follow(parts: &[&[u8]], mut chunk: impl FnMut(usize) -> usize) -> Vec<String> {
    let mut follower = Follower::new(Protocol::Sieve, SmtpStart::default());
    let mut heard = Vec::new();
    let mut known = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut rest = *part;
        while !rest.is_empty() {
            let (now, next) = rest.split_at(chunk(rest.len()));
            rest = next;
            if index % 2 == 0 {
                assert_eq!(follower.client(now, |_| None), Passage::Pass(now.len()));
            } else {
                follower.backend(now);
                heard.extend_from_slice(now);
            }
            if follower.is_between_responses() {
                assert!(is_between(&heard), "within {:?}", heard.escape_ascii().to_string());
            }
        }
        known.push(format!("{} {:?}", follower.is_between_responses(), follower.interrupted()));
    }
    known
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
            Some(size) => rest = after.get(size..)?,
            None => return Some(after),
        }
    }
}

/// Returns the size of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line.get(line.iter().rposition(|byte| *byte == b'{')?..)?).ok()?;
    let digits = text.strip_suffix('\n')?;
    let digits = digits.strip_suffix('\r').unwrap_or(digits);
    let digits = digits.strip_prefix('{')?.strip_suffix('}')?;
    let digits = digits.strip_suffix('+').unwrap_or(digits);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
