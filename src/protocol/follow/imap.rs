//! Tells whether an IMAP backend is between two responses (RFC 9051 section 7), by counting literals and finding line
//! ends. Also notices LOGOUT, to tell who ends the session.
//!
//! Gives up for good if this can no longer be known: after COMPRESS, STARTTLS or AUTHENTICATE of the client, which
//! change the stream, and after an unreadable response.

use memchr::memchr;

use super::Interrupted;
use super::commands::Commands;
use super::line::{Bytes, LineEnd};

/// Follows both directions.
#[derive(Debug)]
pub(super) struct ImapFollower {
    responses: Responses,
    commands: Commands,
    /// The client has sent LOGOUT, or a line of a literal that looks like it.
    asks_for_end: bool,
    /// The position can no longer be known.
    is_lost: bool,
}

/// The backend's direction.
#[derive(Debug)]
struct Responses {
    /// Remaining bytes of a literal.
    literal: u64,
    /// The first bytes of the response, as many as have arrived.
    start: Bytes<8>,
    /// The last bytes of the line; enough for a literal's size and a CR.
    tail: Bytes<24>,
}

impl ImapFollower {
    pub(super) const fn new() -> Self {
        let responses = Responses { literal: 0, start: Bytes::new(), tail: Bytes::new() };
        Self { responses, commands: Commands::of_imap(), asks_for_end: false, is_lost: false }
    }

    pub(super) const fn is_between_responses(&self) -> bool {
        !self.is_lost && self.responses.literal == 0 && self.responses.start.is_empty()
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
        let start = self.start.as_slice();
        if !start.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\t' | 0x80..)) || start.is_empty()
        {
            return None;
        }
        match LineEnd::of(self.tail.as_slice()) {
            LineEnd::Plain => self.start = Bytes::new(),
            // Human-readable text (RFC 9051 section 7.1) may look like this without announcing a literal.
            LineEnd::Literal(size) if start.starts_with(b"* ") && !is_status(start) => self.literal = size,
            LineEnd::Literal(_) | LineEnd::Unreadable => return None,
        }
        self.tail = Bytes::new();
        Some(())
    }
}

/// Tells whether an untagged response is `OK`, `NO`, `BAD`, `BYE` or `PREAUTH`.
fn is_status(start: &[u8]) -> bool {
    let word = start.get(2..).unwrap_or_default();
    STATUS.iter().any(|status| word.get(..status.len()).is_some_and(|word| word.eq_ignore_ascii_case(status)))
}

const STATUS: [&[u8]; 5] = [b"OK ", b"NO ", b"BAD ", b"BYE ", b"PREAUT"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(backend: &[u8]) -> ImapFollower {
        let mut follower = ImapFollower::new();
        follower.backend(backend);
        follower
    }

    #[test]
    fn is_between_responses_only_at_the_start_of_a_line_outside_literals() {
        for between in [
            &b""[..],
            b"a OK done\r\n",
            b"* 1 FETCH (BODY[] {4}\r\na\r\nb)\r\n",
            b"* 1 FETCH (BINARY[] ~{3}\r\n\0\r\n UID 1)\r\na OK\r\n",
            b"* 1 FETCH (BODY[1] {0}\r\n BODY[2] {2}\r\n\r\n)\r\n",
            b"* LIST () \"/\" \"a{5}\"\r\n",
            b"+ idling\r\n",
            b"a OK {x}\r\n",
        ] {
            assert!(follow(between).is_between_responses(), "{}", between.escape_ascii());
        }
        for within in [
            &b"a OK"[..],
            b"* 1 FETCH (BODY[] {20}\r\n",
            b"* 1 FETCH (BODY[] {20}\r\nSubject: x\r\n\r\n",
            b"* 1 FETCH (BODY[] {4}\r\nabcd",
            b"* 1 FETCH (BODY[] {0}\r\n",
            b"* 1 FETCH (BODY[] {4}\r\nabcd BODY[1] {3}\r\n\r\n",
        ] {
            assert!(!follow(within).is_between_responses(), "{}", within.escape_ascii());
        }
    }

    #[test]
    fn gives_up_where_a_response_cannot_be_followed() {
        for lost in [
            &b"* OK [ALERT] see {5}\r\n* 1 EXISTS\r\n"[..],
            b"a NO over {99999}\r\na OK\r\n",
            b"* 1 FETCH (BODY[] {99999999999999999999999999}\r\na OK\r\n",
            b"\x02\x01\r\na OK\r\n",
            b"\n",
        ] {
            assert!(!follow(lost).is_between_responses(), "{}", lost.escape_ascii());
        }
    }

    #[test]
    fn gives_up_behind_a_command_that_changes_the_stream() {
        for (commands, lost) in [
            (&b"a NOOP\r\nb COMPRESS DEFLATE\r\n"[..], true),
            (b"b  compress deflate\r\n", true),
            (b"a UNAUTHENTICATE\r\nb AUTHENTICATE PLAIN\r\n", true),
            (b"a APPEND x {9}\r\ncompress\r\n\r\nc NOOP\r\n", false),
            (b"a COMPRES\r\nb COMPRE SS\r\n", false),
        ] {
            let mut follower = ImapFollower::new();
            for byte in commands {
                follower.client(&[*byte]);
            }
            assert_eq!(!follower.is_between_responses(), lost, "{}", commands.escape_ascii());
        }
    }

    #[test]
    fn an_end_interrupts_a_response_unless_the_client_logged_out() {
        for (commands, responses, expected) in [
            (&b"a NOOP\r\n"[..], &b"a OK done\r\n"[..], None),
            (b"a NOOP\r\n", b"a OK", Some(Interrupted::Reply)),
            (b"a FETCH 1 BODY[]\r\n", b"* 1 FETCH (BODY[] {20}\r\nabc\r\n", Some(Interrupted::Reply)),
            (b"a FETCH 1 BODY[]\r\n", b"* 1 FETCH (BODY[] {9}\r\n* BYE x\r\n", Some(Interrupted::Reply)),
            // Backends also say BYE to a client that sends too many invalid commands.
            (b"a FOO\r\n", b"* BYE Too many invalid IMAP commands.\r\n", None),
            (b"a logout\r\n", b"* BYE\r\n", None),
            (b"a LOGOUT\r\n", b"* BYE so long\r\na O", None),
            (b"a COMPRESS DEFLATE\r\n", b"* BYE so long\r\n", None),
        ] {
            let mut follower = follow(responses);
            for byte in commands {
                follower.client(&[*byte]);
            }
            assert_eq!(follower.interrupted(), expected, "{}", responses.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_chunking_is_followed_alike(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
            cuts in prop::collection::vec(1_usize..9, 1..40),
        ) {
            let stream = pieces.concat();
            let mut chunked = ImapFollower::new();
            let mut rest = stream.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (chunk, next) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                chunked.backend(chunk);
                rest = next;
                let (seen, _) = stream.split_at(stream.len().saturating_sub(rest.len()));
                let whole = follow(seen);
                prop_assert_eq!(chunked.is_between_responses(), whole.is_between_responses());
            }
        }
    }

    const PIECES: &[&[u8]] = &[
        b"* 1 FETCH (BODY[] {6}\r\n",
        b"a\r\nb\r\n",
        b" UID 1)\r\n",
        b"a OK done\r\n",
        b"* OK x {3}\r\n",
        b"* X ~{12}\r\n",
        b"{1}\r\n",
        b"\r",
        b"\n",
        b"+ go\r\n",
    ];
}
