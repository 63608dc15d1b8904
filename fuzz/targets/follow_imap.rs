//! The follower of IMAP sessions: any client and any backend.

use mailgress::protocol::Protocol;

use super::choices::SEPARATOR;
use super::responses::{self, Oracle, literal};

/// Invariants, beside those of [`responses::target`]:
/// * where a closing message may be inserted, a parser of responses is between two responses;
/// * never after a command that changes the stream.
pub(super) fn target(data: &[u8]) {
    responses::target::<Imap>(data);
}

#[derive(Default)]
struct Imap {
    responses: Responses,
    commands: Commands,
}

impl Oracle for Imap {
    const PROTOCOL: Protocol = Protocol::Imap;

    fn client(&mut self, bytes: &[u8]) {
        self.commands.read(bytes);
    }

    fn backend(&mut self, bytes: &[u8]) {
        self.responses.read(bytes);
    }

    fn check_between(&self) {
        let Responses { line, .. } = &self.responses;
        assert!(self.responses.is_between(), "within {:?}", line.escape_ascii().to_string());
        assert!(!self.commands.has_changed, "after a command that changes the stream");
    }
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
