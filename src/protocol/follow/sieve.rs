//! The lines of ManageSieve's responses (RFC 5804 section 1.2): strings, each on a line, and the result.

use super::line::LineEnd;
use super::responses::Next;

/// Returns what follows the line that begins and ends so. `None` if this is not known.
pub(super) fn next(start: &[u8], end: LineEnd) -> Option<Next> {
    let whole = match start {
        [b'"' | b'{', ..] => Next::Line,
        start if is_result(start) => Next::Response,
        _ => return None,
    };
    match end {
        LineEnd::Plain => Some(whole),
        LineEnd::Literal(size) => Some(Next::Literal(size)),
        LineEnd::Unreadable => None,
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
    use crate::protocol::follow::Interrupted;
    use crate::protocol::follow::responses::{Grammar, ResponseFollower};

    fn follow(backend: &[u8]) -> ResponseFollower {
        let mut follower = ResponseFollower::new(Grammar::Sieve);
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
            let mut follower = ResponseFollower::new(Grammar::Sieve);
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
