//! Tells whether a backend is between two responses, in the protocols whose responses are lines with literals: IMAP and
//! ManageSieve. Counts literals and finds line ends. Also notices LOGOUT, to tell who ends the session.
//!
//! Gives up for good if this can no longer be known: after a command of the client that changes the stream
//! (`commands`), and after an unreadable response.

use memchr::memchr;

use super::commands::Commands;
use super::line::{Bytes, LineEnd};
use super::{Interrupted, imap, sieve};

/// Follows both directions.
#[derive(Debug)]
pub(super) struct ResponseFollower {
    grammar: Grammar,
    /// Remaining bytes of a literal.
    literal: u64,
    /// The first bytes of the line, as many as have arrived. Literals are a part of their line.
    start: Bytes<8>,
    /// The last bytes of the line; enough for a literal's size and a CR.
    tail: Bytes<24>,
    /// The response continues on the next line.
    is_within: bool,
    commands: Commands,
    /// The client has sent LOGOUT, or a line of a literal that looks like it.
    asks_for_end: bool,
    /// The position can no longer be known.
    is_lost: bool,
}

/// The protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    Imap,
    Sieve,
}

/// What follows a line of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next response.
    Response,
    /// Another line of the same response.
    Line,
    /// This many bytes of a literal, and the rest of the line.
    Literal(u64),
}

impl ResponseFollower {
    pub(super) const fn new(grammar: Grammar) -> Self {
        Self {
            grammar,
            literal: 0,
            start: Bytes::new(),
            tail: Bytes::new(),
            is_within: false,
            commands: Commands::new(grammar),
            asks_for_end: false,
            is_lost: false,
        }
    }

    pub(super) const fn is_between_responses(&self) -> bool {
        !self.is_lost && !self.is_within && self.start.is_empty()
    }

    pub(super) const fn interrupted(&self) -> Option<Interrupted> {
        if self.is_lost || self.asks_for_end || self.is_between_responses() {
            None
        } else {
            Some(Interrupted::Reply)
        }
    }

    pub(super) fn backend(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.is_lost = self.read(bytes).is_none();
        }
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.is_lost = self.commands.read(bytes, &mut self.asks_for_end).is_none();
        }
    }

    /// Returns `None` if it is not known how the response continues.
    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.literal > 0 {
                let taken = usize::try_from(self.literal).unwrap_or(usize::MAX).min(rest.len());
                self.literal = self.literal.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
                rest = rest.get(taken..)?;
                continue;
            }
            let (line, next, is_whole) = match memchr(b'\n', rest) {
                Some(end) => (rest.get(..end)?, rest.get(end.saturating_add(1)..)?, true),
                None => (rest, &[][..], false),
            };
            self.start.fill(line);
            self.tail.keep_last(line);
            if is_whole {
                self.end_line()?;
            }
            rest = next;
        }
        Some(())
    }

    fn end_line(&mut self) -> Option<()> {
        let (start, end) = (self.start.as_slice(), LineEnd::of(self.tail.as_slice()));
        let next = match self.grammar {
            Grammar::Imap => imap::next(start, end),
            Grammar::Sieve => sieve::next(start, end),
        };
        match next? {
            Next::Literal(size) => self.literal = size,
            whole => {
                self.start = Bytes::new();
                self.is_within = whole == Next::Line;
            }
        }
        self.tail = Bytes::new();
        Some(())
    }
}
