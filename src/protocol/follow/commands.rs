//! Reads the client's commands of IMAP or ManageSieve, to find LOGOUT and those after which the backend's bytes are
//! something else than responses.

use memchr::{memchr, memchr2};

use super::line::Bytes;
use super::responses::Grammar;

/// How far the client's line matches one of these commands.
#[derive(Debug)]
pub(super) struct Commands {
    place: Place,
    grammar: Grammar,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Tag,
    Verb(Bytes<14>),
    Rest,
}

impl Commands {
    pub(super) const fn new(grammar: Grammar) -> Self {
        Self { place: grammar.first(), grammar }
    }

    /// Returns `None` after a command that changes the stream. Sets `asks_for_end` after LOGOUT.
    pub(super) fn read(&mut self, bytes: &[u8], asks_for_end: &mut bool) -> Option<()> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match &mut self.place {
                Place::Rest => {
                    let Some(end) = memchr(b'\n', rest) else { break };
                    self.place = self.grammar.first();
                    rest = rest.get(end.saturating_add(1)..)?;
                    continue;
                }
                Place::Tag => {
                    let Some(end) = memchr2(b' ', b'\n', rest) else { break };
                    if rest.get(end) == Some(&b' ') {
                        self.place = Place::Verb(Bytes::new());
                    }
                    rest = rest.get(end.saturating_add(1)..)?;
                    continue;
                }
                Place::Verb(_) if byte == b'\n' => self.place = self.grammar.first(),
                Place::Verb(verb) if byte == b' ' && verb.is_empty() => {}
                Place::Verb(verb) => {
                    verb.fill(&[byte]);
                    let verb = verb.as_slice();
                    if self.grammar.changes().iter().any(|change| verb.eq_ignore_ascii_case(change)) {
                        return None;
                    }
                    *asks_for_end |= verb.eq_ignore_ascii_case(LOGOUT);
                    let may_become = |known: &&[u8]| {
                        known.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb))
                    };
                    if !self.grammar.changes().iter().chain([&LOGOUT]).any(may_become) {
                        self.place = Place::Rest;
                    }
                }
            }
            rest = after;
        }
        Some(())
    }
}

impl Grammar {
    /// Where a line begins.
    const fn first(self) -> Place {
        match self {
            Self::Imap => Place::Tag,
            Self::Sieve => Place::Verb(Bytes::new()),
        }
    }

    const fn changes(self) -> &'static [&'static [u8]] {
        match self {
            Self::Imap => &IMAP_CHANGES,
            Self::Sieve => &SIEVE_CHANGES,
        }
    }
}

/// After these commands the stream is compressed or encrypted (RFC 4978, RFC 9051 section 6.2, RFC 8437).
const IMAP_CHANGES: [&[u8]; 3] = [b"COMPRESS", b"STARTTLS", b"AUTHENTICATE"];
/// After these commands the backend may send challenges or encrypt the stream (RFC 5804 sections 2.1, 2.2 and 2.14.1).
const SIEVE_CHANGES: [&[u8]; 3] = [b"STARTTLS", b"AUTHENTICATE", b"UNAUTHENTICATE"];
const LOGOUT: &[u8] = b"LOGOUT";
