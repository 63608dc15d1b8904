//! The lines of IMAP's responses (RFC 9051 section 7).

use super::line::LineEnd;
use super::responses::Next;

/// Returns what follows the line that begins and ends so. `None` if this is not known.
pub(super) fn next(start: &[u8], end: LineEnd) -> Option<Next> {
    if start.is_empty() || !start.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\t' | 0x80..)) {
        return None;
    }
    match end {
        LineEnd::Plain => Some(Next::Response),
        // Human-readable text (RFC 9051 section 7.1) may look like this without announcing a literal.
        LineEnd::Literal(size) if start.starts_with(b"* ") && !is_status(start) => Some(Next::Literal(size)),
        LineEnd::Literal(_) | LineEnd::Unreadable => None,
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
    use crate::protocol::follow::Interrupted;
    use crate::protocol::follow::responses::{Grammar, ResponseFollower};
    use proptest::prelude::*;

    fn follow(backend: &[u8]) -> ResponseFollower {
        let mut follower = ResponseFollower::new(Grammar::Imap);
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
            let mut follower = ResponseFollower::new(Grammar::Imap);
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
            let mut chunked = ResponseFollower::new(Grammar::Imap);
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
