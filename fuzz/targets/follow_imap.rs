//! The follower of IMAP sessions: any client and any backend.

use mailgress::protocol::Protocol;
use mailgress::protocol::follow::{Follower, Passage, SmtpStart};

use super::choices::{Choices, SEPARATOR, sizes};

/// Invariants:
/// * where a closing message may be inserted, a parser of responses is between two responses;
/// * never after a command that changes the stream;
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
    let mut follower = Follower::new(Protocol::Imap, SmtpStart::default());
    let (mut responses, mut commands) = (Responses::default(), Commands::default());
    let mut known = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut rest = *part;
        while !rest.is_empty() {
            let (now, next) = rest.split_at(chunk(rest.len()));
            rest = next;
            if index % 2 == 0 {
                assert_eq!(follower.client(now, |_| None), Passage::Pass(now.len()));
                commands.read(now);
            } else {
                follower.backend(now);
                responses.read(now);
            }
            if follower.is_between_responses() {
                assert!(responses.is_between(), "within {:?}", responses.line.escape_ascii().to_string());
                assert!(!commands.has_changed, "after a command that changes the stream");
            }
        }
        known.push(format!("{} {:?}", follower.is_between_responses(), follower.interrupted()));
    }
    known
}

/// Finds the ends of responses (RFC 9051 section 7), one byte after another.
#[derive(Default)]
struct Responses {
    line: Vec<u8>,
    literal: u64,
    /// The response continues after a literal.
    is_continued: bool,
}

impl Responses {
    fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.literal > 0 {
                self.literal -= 1;
                continue;
            }
            self.line.push(byte);
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let takes_literal = self.is_continued || has_data(&line);
                match literal(&line).filter(|_| takes_literal) {
                    Some(size) => (self.literal, self.is_continued) = (size, true),
                    None => self.is_continued = false,
                }
            }
        }
    }

    fn is_between(&self) -> bool {
        self.line.is_empty() && self.literal == 0 && !self.is_continued
    }
}

/// Tells whether a response is one with data; a status has only text.
fn has_data(line: &[u8]) -> bool {
    let Some(text) = line.strip_prefix(b"* ") else { return false };
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default().to_ascii_uppercase();
    !matches!(word.as_slice(), b"OK" | b"NO" | b"BAD" | b"BYE" | b"PREAUTH")
}

/// Returns the size of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.get(line.iter().rposition(|byte| *byte == b'{')?..)?).ok()?;
    let digits = text.strip_suffix('\n')?;
    let digits = digits.strip_suffix('\r').unwrap_or(digits);
    let digits = digits.strip_prefix('{')?.strip_suffix('}')?;
    let digits = digits.strip_suffix('+').unwrap_or(digits);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Finds commands after which the stream is not IMAP any more, outside of literals.
#[derive(Default)]
struct Commands {
    line: Vec<u8>,
    literal: u64,
    is_continued: bool,
    has_changed: bool,
}

impl Commands {
    fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            debug_assert_ne!(byte, SEPARATOR);
            if self.literal > 0 {
                self.literal -= 1;
                continue;
            }
            self.line.push(byte);
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
                let has_tag = words.next().is_some_and(|tag| !tag.is_empty());
                let verb = words.next().unwrap_or_default().to_ascii_uppercase();
                let changes = matches!(verb.as_slice(), b"COMPRESS" | b"STARTTLS" | b"AUTHENTICATE");
                self.has_changed |= changes && has_tag && !self.is_continued;
                let size = literal(&line);
                (self.literal, self.is_continued) = (size.unwrap_or(0), size.is_some());
            }
        }
    }
}
