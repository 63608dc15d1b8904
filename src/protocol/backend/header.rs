//! Decides whether a refusal answers our first command or the PROXY header before it.
//!
//! A server that does not support the PROXY protocol reads the header as a command and sends an error. If the error
//! arrives before our command is sent, [`super::BackendError::Unasked`] reports it. If both are in flight, replies have
//! to be counted. Only POP3 and ManageSieve need this: IMAP replies have tags, and SMTP's first command is not the login.

use crate::protocol::Protocol;

/// Returns the command to send after a doubtful refusal. The server closes after it.
#[must_use]
pub const fn question(protocol: Protocol) -> Option<&'static [u8]> {
    match protocol {
        Protocol::Pop3 => Some(b"QUIT\r\n"),
        Protocol::Sieve => Some(b"LOGOUT\r\n"),
        Protocol::Imap | Protocol::Smtp => None,
    }
}

/// Tells whether the refusal answered our command. In this case, exactly one more line follows, the reply to the question. If
/// the refusal answered the header, the reply to our command comes first. A server that closes without a reply may have
/// closed because of the header.
#[must_use]
pub fn is_in_step(heard: &[u8]) -> bool {
    let lines = heard.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.count() == 1
}

/// Bytes that are read after the question at most.
pub const MAX_HEARD: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_to_quit_says_that_the_refusal_was_meant() {
        assert!(is_in_step(b"+OK bye\r\n"));
        assert!(is_in_step(b"-ERR what\r\n"));
        assert!(!is_in_step(b"+OK\r\n+OK bye\r\n"), "the first one is for USER");
        // A server reads a version 2 header as four lines.
        assert!(!is_in_step(b"-ERR\r\n-ERR\r\n+OK bye\r\n"));
        assert!(!is_in_step(b""));
        assert!(!is_in_step(b"+OK by"));
    }
}
