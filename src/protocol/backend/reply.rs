//! Takes whole replies from a backend's input.

use crate::protocol::input::Input;

use super::GREETING;
use super::error::{BackendError, first_line};

#[derive(Debug)]
pub(super) struct SmtpReply {
    /// The code of the first line. nginx looks at no other line.
    pub(super) code: u16,
    /// All lines as received.
    pub(super) lines: Vec<u8>,
}

impl SmtpReply {
    /// Returns the text after the code of each line.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.split(|&byte| byte == b'\n');
        lines.map(|line| line.get(4..).unwrap_or_default().trim_ascii_end())
    }
}

/// Takes a line with its line end.
pub(super) fn take_line(input: &mut Input, step: &'static str) -> Result<Option<Vec<u8>>, BackendError> {
    let end = line_end(input.peek(), 0);
    take(input, end, step)
}

/// Takes an IMAP response: a line, or several with literals between them (RFC 9051 section 4.3).
pub(super) fn take_response(input: &mut Input, step: &'static str) -> Result<Option<Vec<u8>>, BackendError> {
    let bytes = input.peek();
    let mut end = line_end(bytes, 0);
    while let Some(literal) = end.and_then(|end| announced_literal(bytes.get(..end).unwrap_or_default())) {
        end = end.and_then(|end| end.checked_add(literal)).and_then(|end| line_end(bytes, end));
    }
    take(input, end, step)
}

/// Takes a POP3 reply that has several lines if it is positive, up to the line with a dot (RFC 1939 section 3).
pub(super) fn take_dotted(input: &mut Input, step: &'static str) -> Result<Option<Vec<u8>>, BackendError> {
    let bytes = input.peek();
    let first = line_end(bytes, 0);
    if !bytes.starts_with(b"+OK") {
        return take(input, first, step);
    }
    let mut end = first;
    let mut start = 0;
    while let Some(next) = end {
        let line = bytes.get(start..next).unwrap_or_default();
        if start > 0 && line.trim_ascii_end() == b"." {
            break;
        }
        start = next;
        end = line_end(bytes, next);
    }
    take(input, end, step)
}

/// Takes a ManageSieve response: lines with their literals, up to the one that begins with OK, NO or BYE (RFC 5804
/// section 1.2). Another line that is no string ends it too, because it is no response.
pub(super) fn take_sieve(input: &mut Input, step: &'static str) -> Result<Option<Vec<u8>>, BackendError> {
    let bytes = input.peek();
    let mut start = 0;
    let mut end = sieve_line_end(bytes, start);
    while let Some(next) = end
        && matches!(bytes.get(start), Some(b'"' | b'{'))
    {
        start = next;
        end = sieve_line_end(bytes, start);
    }
    take(input, end, step)
}

/// Takes one line of a ManageSieve response with its literals: a challenge, or the result.
pub(super) fn take_sieve_line(
    input: &mut Input,
    step: &'static str,
) -> Result<Option<Vec<u8>>, BackendError> {
    let end = sieve_line_end(input.peek(), 0);
    take(input, end, step)
}

/// Returns the lines of a ManageSieve response, each with its literals and its line end.
pub(super) fn sieve_lines(response: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = response;
    std::iter::from_fn(move || {
        let (line, next) = rest.split_at_checked(sieve_line_end(rest, 0)?)?;
        rest = next;
        Some(line)
    })
}

/// Returns the position after the line at `from` and its literals.
fn sieve_line_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut end = line_end(bytes, from);
    let mut start = from;
    while let Some(literal) = end.and_then(|end| literal_at_end(bytes.get(start..end).unwrap_or_default())) {
        start = end?.checked_add(literal)?;
        end = line_end(bytes, start);
    }
    end
}

/// Takes an SMTP reply with all its lines (RFC 5321 section 4.2.1).
pub(super) fn take_smtp(input: &mut Input, step: &'static str) -> Result<Option<SmtpReply>, BackendError> {
    let bytes = input.peek();
    let mut start = 0;
    let mut end = line_end(bytes, start);
    while let Some(next) = end
        && bytes.get(start..next).and_then(|line| line.get(3)) == Some(&b'-')
    {
        start = next;
        end = line_end(bytes, start);
    }
    let Some(lines) = take(input, end, step)? else { return Ok(None) };
    let code = lines.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let code =
        code.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    match code {
        Some(code) => Ok(Some(SmtpReply { code, lines })),
        None => Err(unexpected(step, lines)),
    }
}

/// Creates the error for a reply that does not allow the step to continue.
pub(super) fn unexpected(step: &'static str, verbatim: Vec<u8>) -> BackendError {
    BackendError::Unexpected { step, reply: first_line(&verbatim), verbatim }
}

fn take(input: &mut Input, end: Option<usize>, step: &'static str) -> Result<Option<Vec<u8>>, BackendError> {
    if step == GREETING && is_tls_record(input.peek()) {
        return Err(BackendError::SpeaksTls);
    }
    match end {
        // Only IMAP has responses that answer no command (RFC 9051 section 7).
        Some(end) if input.is_unasked() && !input.peek().starts_with(b"* ") => {
            let reply = first_line(input.peek().get(..end).unwrap_or_default());
            Err(BackendError::Unasked { step, reply })
        }
        Some(end) => {
            let reply = input.peek().get(..end).unwrap_or_default().to_vec();
            input.consume(end);
            Ok(Some(reply))
        }
        None if input.is_full() => Err(BackendError::TooLong { step }),
        None => Ok(None),
    }
}

/// Detects a TLS alert or handshake record (RFC 8446 section 5.1): the reply of a TLS server to cleartext.
fn is_tls_record(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 3, ..])
}

/// Returns the position after the first LF at or after `from`.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.iter().position(|&byte| byte == b'\n')?;
    from.checked_add(found)?.checked_add(1)
}

/// Returns the size of the literal that an untagged response announces at its end.
fn announced_literal(response: &[u8]) -> Option<usize> {
    if !response.starts_with(b"* ") {
        return None;
    }
    literal_at_end(response)
}

/// Returns the size of the literal that a line announces at its end.
fn literal_at_end(line: &[u8]) -> Option<usize> {
    let text = line.trim_ascii_end().strip_suffix(b"}")?;
    let digits = text.rsplit(|&byte| byte == b'{').next().filter(|digits| digits.len() < text.len())?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        let mut input = Input::new(64);
        input.append(bytes).unwrap();
        input
    }

    #[test]
    fn takes_no_more_than_the_reply() {
        let mut smtp = input(b"250-a\r\n250 b\r\n220 c\r\n");
        assert_eq!(take_smtp(&mut smtp, "EHLO").unwrap().unwrap().lines, b"250-a\r\n250 b\r\n");
        assert_eq!(smtp.peek(), b"220 c\r\n");
        let mut pop3 = input(b"+OK\r\nSTLS\r\n.\r\n+OK\r\n");
        assert_eq!(take_dotted(&mut pop3, "CAPA").unwrap().unwrap(), b"+OK\r\nSTLS\r\n.\r\n");
        assert_eq!(pop3.peek(), b"+OK\r\n");
        let mut imap = input(b"* ID (\"a\" {3}\r\nb\nc)\r\na OK\r\n");
        assert_eq!(take_response(&mut imap, "ID").unwrap().unwrap(), b"* ID (\"a\" {3}\r\nb\nc)\r\n");
        assert_eq!(imap.peek(), b"a OK\r\n");
    }

    #[test]
    fn takes_a_managesieve_response_with_its_literals() {
        let mut sieve = input(b"\"A\"\r\n{2}\r\nOK \"b\"\r\nOK (X {1}\r\ny) \"in\"\r\nNO\r\n");
        let taken = take_sieve(&mut sieve, "CAPABILITY").unwrap().unwrap();
        assert_eq!(taken, b"\"A\"\r\n{2}\r\nOK \"b\"\r\nOK (X {1}\r\ny) \"in\"\r\n");
        assert_eq!(sieve_lines(&taken).count(), 3);
        assert_eq!(sieve.peek(), b"NO\r\n");
        assert_eq!(take_sieve(&mut input(b"220 smtp\r\n"), GREETING).unwrap().unwrap(), b"220 smtp\r\n");
        for part in [&b"\"A\"\r\n"[..], b"OK {9}\r\nab\r\n", b"\"A\" {99999999999999999999}\r\n"] {
            assert!(take_sieve(&mut input(part), "CAPABILITY").unwrap().is_none());
        }
    }

    #[test]
    fn a_reply_that_is_not_whole_waits() {
        assert!(take_smtp(&mut input(b"250-a\r\n250"), "EHLO").unwrap().is_none());
        assert!(take_dotted(&mut input(b"+OK\r\nSTLS\r\n"), "CAPA").unwrap().is_none());
        assert!(take_response(&mut input(b"* ID {9}\r\nab\r\n"), "ID").unwrap().is_none());
    }

    #[test]
    fn a_reply_that_came_before_its_question_is_an_error() {
        let replies = |bytes: &[u8], question_behind: usize| {
            let mut input = Input::of_replies(64);
            input.append(bytes.get(..question_behind).unwrap()).unwrap();
            input.note_question();
            input.append(bytes.get(question_behind..).unwrap()).unwrap();
            input
        };
        let early = |result: Result<Option<Vec<u8>>, BackendError>| matches!(result, Err(BackendError::Unasked { step: "USER", reply }) if reply == "-ERR what");
        assert!(early(take_line(&mut replies(b"-ERR what\r\n+OK\r\n", 11), "USER")));
        assert!(early(take_line(&mut replies(b"-ERR what\r\n", 3), "USER")), "it began before the question");
        assert!(take_line(&mut replies(b"-ERR what\r\n", 0), "USER").unwrap().is_some());
        assert!(take_smtp(&mut replies(b"502 what\r\n", 10), "EHLO").is_err());
        assert!(take_response(&mut replies(b"PROXY BAD what\r\n", 16), "LOGIN").is_err());
        assert!(take_response(&mut replies(b"* OK later\r\n", 12), "LOGIN").unwrap().is_some());
    }

    #[test]
    fn a_tls_record_instead_of_a_greeting_is_told() {
        let alert = [0x15, 3, 1, 0, 2, 2, b'\n'];
        assert!(matches!(take_line(&mut input(&alert), GREETING), Err(BackendError::SpeaksTls)));
        assert!(matches!(take_smtp(&mut input(&alert[..2]), GREETING), Err(BackendError::SpeaksTls)));
        assert!(take_response(&mut input(&alert), "LOGIN").unwrap().is_some());
    }

    #[test]
    fn a_reply_that_cannot_become_whole_is_an_error() {
        assert!(matches!(take_line(&mut input(&[b'x'; 64]), "USER"), Err(BackendError::TooLong { .. })));
        let endless = b"* ID {18446744073709551615}\r\n";
        assert!(take_response(&mut input(endless), "ID").unwrap().is_none());
        assert!(take_smtp(&mut input(b"hello\r\n"), "EHLO").is_err());
    }
}
