//! Parses one line of an SMTP client (NGINX section 7.2).

/// A command line, borrowed. It has no `Debug`, because it may contain a password.
pub(crate) struct Line<'a> {
    pub(crate) verb: Verb,
    /// The words after the verb, at most 11.
    pub(crate) arguments: Vec<&'a [u8]>,
    /// From the verb to the end of the last argument, unchanged.
    pub(crate) raw: &'a [u8],
}

/// The verbs that are known before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Helo,
    Ehlo,
    Auth,
    Quit,
    Noop,
    Mail,
    Rset,
    Rcpt,
    StartTls,
    /// VRFY, EXPN or HELP: known, but always refused.
    Unimplemented,
}

impl Line<'_> {
    /// Tells whether a MAIL line has the parameter that allows bytes beyond ASCII (RFC 6531 section 3.4).
    pub(crate) fn asks_for_utf8(&self) -> bool {
        self.arguments.iter().any(|argument| argument.eq_ignore_ascii_case(b"SMTPUTF8"))
    }
}

/// Returns the command on a line, or `None` if it is invalid. The rules are nginx's, but control characters are invalid
/// too, because they would reach the auth service and the backend (quirk Q-16).
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    if line.iter().any(u8::is_ascii_control) {
        return None;
    }
    let trailing = line.iter().rev().take_while(|&&byte| byte == b' ').count();
    let raw = line.get(..line.len().checked_sub(trailing)?)?;
    let mut words = raw.split(|&byte| byte == b' ');
    let verb = match words.next()?.to_ascii_uppercase().as_slice() {
        b"HELO" => Verb::Helo,
        b"EHLO" => Verb::Ehlo,
        b"AUTH" => Verb::Auth,
        b"QUIT" => Verb::Quit,
        b"NOOP" => Verb::Noop,
        b"MAIL" => Verb::Mail,
        b"RSET" => Verb::Rset,
        b"RCPT" => Verb::Rcpt,
        b"STARTTLS" => Verb::StartTls,
        b"VRFY" | b"EXPN" | b"HELP" => Verb::Unimplemented,
        _ => return None,
    };
    let arguments: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    (arguments.len() <= MAX_ARGUMENTS).then_some(Line { verb, arguments, raw })
}

/// Tells whether a rejected line is a BDAT with a size above 0, so that message content follows.
pub(crate) fn announces_chunk(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let size = words.next().unwrap_or_default();
    let digits = size.iter().all(u8::is_ascii_digit);
    verb.eq_ignore_ascii_case(b"BDAT") && digits && size.iter().any(|&digit| digit != b'0')
}

/// nginx's limit for the arguments of a command.
const MAX_ARGUMENTS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_line_as_it_stood_without_trailing_spaces() {
        let line = parse(b"mail FROM:<a@b>  SIZE=1 ").unwrap();
        assert_eq!(line.raw, b"mail FROM:<a@b>  SIZE=1");
        assert_eq!(line.arguments, [&b"FROM:<a@b>"[..], b"SIZE=1"]);
    }

    #[test]
    fn bounds_the_arguments() {
        assert!(parse(b"NOOP 1 2 3 4 5 6 7 8 9 10 11").is_some());
        assert!(parse(b"NOOP 1 2 3 4 5 6 7 8 9 10 11 12").is_none());
    }

    #[test]
    fn rejects_control_characters_everywhere() {
        for line in [&b"EHLO a\tb"[..], b"MAIL FROM:<a\0@b>", b"NOOP \x7f", b"NOOP\rQUIT", b"", b" NOOP"] {
            assert!(parse(line).is_none(), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn tells_that_a_refused_bdat_announces_content() {
        assert!(announces_chunk(b"bdat 10 LAST"));
        for line in [&b"BDAT"[..], b"BDAT 0 LAST", b"BDAT x", b"DATA 10"] {
            assert!(!announces_chunk(line));
        }
    }
}
