//! Tells whether a ManageSieve backend is between two responses (RFC 5804 section 1.2): strings, each on a line, and the
//! result. Also notices LOGOUT, to tell who ends the session.
//!
//! Gives up for good after AUTHENTICATE, UNAUTHENTICATE and STARTTLS of the client, and after an unreadable response.

use memchr::memchr;

use super::Interrupted;
use super::commands::Commands;
use super::line::{Bytes, LineEnd};

/// Follows both directions.
#[derive(Debug)]
pub(super) struct SieveFollower {
    responses: Responses,
    commands: Commands,
    /// The client has sent LOGOUT, or a line of a script that looks like it.
    asks_for_end: bool,
    /// The position can no longer be known.
    is_lost: bool,
}

/// The backend's direction.
#[derive(Debug)]
struct Responses {
    /// Remaining bytes of a literal.
    literal: u64,
    /// The first bytes of the line, as many as have arrived. Literals are a part of their line.
    start: Bytes<4>,
    /// The last bytes of the line; enough for a literal's size and a CR.
    tail: Bytes<24>,
    /// Strings have arrived, and the result has not.
    is_within: bool,
}

impl SieveFollower {
    pub(super) const fn new() -> Self {
        let responses = Responses { literal: 0, start: Bytes::new(), tail: Bytes::new(), is_within: false };
        Self { responses, commands: Commands::of_sieve(), asks_for_end: false, is_lost: false }
    }

    pub(super) const fn is_between_responses(&self) -> bool {
        !self.is_lost && !self.responses.is_within && self.responses.start.is_empty()
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
            self.is_lost = self.responses.read(bytes).is_none();
        }
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.is_lost = self.commands.read(bytes, &mut self.asks_for_end).is_none();
        }
    }
}

impl Responses {
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
            let end = memchr(b'\n', rest);
            let (line, next) = match end {
                Some(end) => (rest.get(..end)?, rest.get(end.saturating_add(1)..)?),
                None => (rest, &[][..]),
            };
            self.start.fill(line);
            self.tail.keep_last(line);
            if end.is_some() {
                self.end_line()?;
            }
            rest = next;
        }
        Some(())
    }

    fn end_line(&mut self) -> Option<()> {
        let is_string = match self.start.as_slice() {
            [b'"' | b'{', ..] => true,
            start if is_result(start) => false,
            _ => return None,
        };
        match LineEnd::of(self.tail.as_slice()) {
            LineEnd::Plain => {
                self.start = Bytes::new();
                self.is_within = is_string;
            }
            LineEnd::Literal(size) => self.literal = size,
            LineEnd::Unreadable => return None,
        }
        self.tail = Bytes::new();
        Some(())
    }
}

/// Tells whether a line is the result of a command.
fn is_result(start: &[u8]) -> bool {
    let word = start.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    RESULTS.iter().any(|result| word.eq_ignore_ascii_case(result))
}

const RESULTS: [&[u8]; 3] = [b"OK", b"NO", b"BYE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(backend: &[u8]) -> SieveFollower {
        let mut follower = SieveFollower::new();
        for byte in backend {
            follower.backend(&[*byte]);
        }
        follower
    }

    #[test]
    fn is_between_responses_only_behind_a_result() {
        for between in [
            &b""[..],
            b"OK\r\n",
            b"ok \"in\"\r\n",
            b"NO (QUOTA) {4}\r\nOK\r\n\r\n",
            b"\"main\" ACTIVE\r\n\"b\"\r\nOK\r\n",
            b"{6}\r\nOK\r\n\r\n\r\nOK\r\n",
        ] {
            assert!(follow(between).is_between_responses(), "{}", between.escape_ascii());
        }
        for within in [
            &b"O"[..],
            b"OK\r",
            b"\"main\" ACTIVE\r\n",
            b"{6}\r\nOK\r\n",
            b"{6}\r\nOK\r\n\r\n\r\n",
            b"NO {4}\r\nOK\r\n",
        ] {
            assert!(!follow(within).is_between_responses(), "{}", within.escape_ascii());
            assert_eq!(follow(within).interrupted(), Some(Interrupted::Reply));
        }
    }

    #[test]
    fn gives_up_where_responses_cannot_be_followed() {
        for lost in [&b"+ go\r\nOK\r\n"[..], b"\r\nOK\r\n", b"{99999999999999999999999999}\r\nOK\r\n"] {
            let follower = follow(lost);
            assert!(!follower.is_between_responses(), "{}", lost.escape_ascii());
            assert_eq!(follower.interrupted(), None);
        }
        for (commands, lost) in [
            (&b"NOOP\r\nUnauthenticate\r\n"[..], true),
            (b"AUTHENTICATE \"PLAIN\"\r\n", true),
            (b"NOOP \"STARTTLS\"\r\n", false),
        ] {
            let mut follower = SieveFollower::new();
            follower.client(commands);
            assert_eq!(!follower.is_between_responses(), lost, "{}", commands.escape_ascii());
        }
    }

    #[test]
    fn an_end_after_logout_interrupts_nothing() {
        let mut follower = follow(b"OK");
        follower.client(b"PUTSCRIPT \"x\" {3+}\r\nabc\r\nlogout\r\n");
        assert_eq!(follower.interrupted(), None);
    }
}
