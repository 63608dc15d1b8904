//! Whether a refusal answers our first command, or the PROXY header that was sent in front of it.
//!
//! A server that does not know PROXY takes the header for a command and complains. Where that comes before our own
//! command is sent, [`super::BackendError::Unasked`] tells. Where both are under way at once, replies have to be counted.
//! Only POP3 needs it: IMAP's replies have tags, and SMTP's first command is no login.

use crate::protocol::Protocol;

/// What is asked after a refusal, if its place is in doubt: the last command, after which the server closes.
#[must_use]
pub const fn question(protocol: Protocol) -> Option<&'static [u8]> {
    match protocol {
        Protocol::Pop3 => Some(b"QUIT\r\n"),
        Protocol::Imap | Protocol::Smtp => None,
    }
}

/// Whether the refusal answered our command: QUIT was then answered by one more line. After a complaint about the
/// header, the answer to our command comes first; and a server that closes without an answer may have closed because of
/// the header.
#[must_use]
pub fn is_in_step(heard: &[u8]) -> bool {
    let lines = heard.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.count() == 1
}

/// Bytes that are heard after the question.
pub const MAX_HEARD: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_to_quit_says_that_the_refusal_was_meant() {
        assert!(is_in_step(b"+OK bye\r\n"));
        assert!(is_in_step(b"-ERR what\r\n"));
        assert!(!is_in_step(b"+OK\r\n+OK bye\r\n"), "the first one is for USER");
        // A version 2 header is four lines.
        assert!(!is_in_step(b"-ERR\r\n-ERR\r\n+OK bye\r\n"));
        assert!(!is_in_step(b""));
        assert!(!is_in_step(b"+OK by"));
    }
}
