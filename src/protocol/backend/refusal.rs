//! Decides who has to act when a login is refused, from the reply codes of the protocols.
//!
//! The codes decide, never the text after them, because the text may repeat what the client sent.

use crate::protocol::Protocol;

/// Who has to act before a refused login can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// The client: the credentials are wrong. Only this cause counts towards a ban.
    Credentials,
    /// The client or its user, but the credentials may be correct: the account is in use, over a limit or expired, or
    /// the mail is not accepted.
    Client,
    /// The operator of the server that refused: it is out of order, shutting down, or its setup does not match the
    /// listener.
    Server,
}

impl RefusalCause {
    /// Reads a backend's reply to the login. SMTP: RFC 4954 section 6 and RFC 5321 section 4.2; IMAP: RFC 5530; POP3:
    /// RFC 3206 and RFC 2449 section 8.1; ManageSieve: RFC 5804 section 1.3. A refusal without a code means wrong
    /// credentials.
    #[must_use]
    pub fn of_login(protocol: Protocol, reply: &[u8]) -> Self {
        let line = last_line(reply);
        match protocol {
            Protocol::Smtp => Self::of_smtp_login(line),
            Protocol::Imap => Self::of_imap_login(line),
            Protocol::Pop3 => response_code(line).map_or(Self::Credentials, Self::of_code),
            Protocol::Sieve => sieve_code(reply).map_or(Self::Credentials, Self::of_code),
        }
    }

    /// Reads an SMTP backend's reply to MAIL or RCPT of a session without a login. `None` if it accepts.
    ///
    /// Servers use 450 and 451 for greylisting (RFC 6647), so most temporary replies are meant for the client.
    /// Exceptions are 421, 452 (insufficient storage) and the enhanced codes 4.3 (mail system) and 4.4 (network) of RFC
    /// 3463, but not 450 4.3.2, which postscreen sends for greylisting.
    #[must_use]
    pub fn of_envelope(reply: &[u8]) -> Option<Self> {
        let line = last_line(reply);
        let enhanced = line.get(4..).unwrap_or_default();
        match smtp_code(line)? {
            200..=299 => None,
            // A policy (RFC 3463 section 3.8): the client has made too many errors, or sends too much.
            421 if enhanced.starts_with(b"4.7.") => Some(Self::Client),
            421 => Some(Self::Server),
            452 if !enhanced.starts_with(b"4.") => Some(Self::Server),
            451..=499 if enhanced.starts_with(b"4.3.") || enhanced.starts_with(b"4.4.") => Some(Self::Server),
            _ => Some(Self::Client),
        }
    }

    /// Reads an auth service's refusal: `Auth-Error-Code`, and `Auth-Status`, which may start with a response code of
    /// IMAP, POP3 or ManageSieve.
    #[must_use]
    pub fn of_auth_service(text: &[u8], code: Option<&str>) -> Self {
        match code {
            Some(code) if code.starts_with('4') => Self::of_smtp_login(code.as_bytes()),
            _ => bracketed(text).or_else(|| in_parentheses(text)).map_or(Self::Credentials, Self::of_code),
        }
    }

    fn of_smtp_login(line: &[u8]) -> Self {
        let is_mail_system = line.get(4..).is_some_and(|enhanced| enhanced.starts_with(b"5.3."));
        match smtp_code(line) {
            // Greylisting, a password transition (RFC 4954), a disabled account (RFC 5248).
            Some(450 | 432 | 525) => Self::Client,
            // The server does not support AUTH or the mechanism, finds it too weak, or requires TLS from us.
            Some(400..=499 | 500 | 502..=504 | 530 | 534 | 538) => Self::Server,
            Some(500..=599) if is_mail_system => Self::Server,
            _ => Self::Credentials,
        }
    }

    /// BAD and CANNOT refuse the command, not the credentials.
    fn of_imap_login(line: &[u8]) -> Self {
        let code = response_code(line);
        let refuses_command = is_bad(line) || code.is_some_and(|code| code.eq_ignore_ascii_case(b"CANNOT"));
        match code.map_or(Self::Credentials, Self::of_code) {
            Self::Credentials if refuses_command => Self::Server,
            cause => cause,
        }
    }

    fn of_code(code: &[u8]) -> Self {
        let is_in = |codes: &[&str]| codes.iter().any(|known| code.eq_ignore_ascii_case(known.as_bytes()));
        if is_in(&SERVER_CODES) {
            Self::Server
        } else if is_in(&CLIENT_CODES) {
            Self::Client
        } else {
            Self::Credentials
        }
    }
}

/// Tells whether the server accepts nobody at present, at any step.
pub(super) fn is_unavailable(reply: &[u8]) -> bool {
    let line = last_line(reply);
    let is_server = |code| RefusalCause::of_code(code) == RefusalCause::Server;
    let code = response_code(line).or_else(|| sieve_code(reply));
    matches!(smtp_code(line), Some(400..=499))
        || is_bye(reply)
        || is_sieve_bye(reply)
        || code.is_some_and(is_server)
}

/// Tells whether the backend closes after this reply: SMTP 421 (RFC 5321 section 3.8), IMAP BYE (RFC 9051 section
/// 7.1.5), ManageSieve BYE (RFC 5804 section 1.3).
#[must_use]
pub fn is_closing(protocol: Protocol, reply: &[u8]) -> bool {
    match protocol {
        Protocol::Smtp => reply.starts_with(b"421"),
        Protocol::Imap => is_bye(reply),
        Protocol::Pop3 => false,
        Protocol::Sieve => is_sieve_bye(reply),
    }
}

/// Tells whether an IMAP or POP3 reply has a response code.
pub(super) fn has_code(reply: &[u8]) -> bool {
    response_code(last_line(reply)).is_some()
}

/// Tells whether the reply's code names another cause than wrong credentials or an unknown command.
pub(super) fn names_another_cause(protocol: Protocol, reply: &[u8]) -> bool {
    let line = last_line(reply);
    let cause = match protocol {
        Protocol::Imap | Protocol::Pop3 => RefusalCause::of_code(response_code(line).unwrap_or_default()),
        Protocol::Sieve => RefusalCause::of_code(sieve_code(reply).unwrap_or_default()),
        Protocol::Smtp => RefusalCause::of_smtp_login(line),
    };
    cause != RefusalCause::Credentials
}

/// Tells whether an SMTP server refused AUTH or the mechanism without checking credentials.
pub(super) fn is_without_judgement(code: u16) -> bool {
    matches!(code, 500 | 502..=504 | 530 | 538)
}

/// Tells whether the last line is IMAP's `tag BAD`.
pub(super) fn is_bad(reply: &[u8]) -> bool {
    let status =
        next_word(last_line(reply)).map(|(_, rest)| next_word(rest).map_or(rest, |(status, _)| status));
    status.is_some_and(|status| status.eq_ignore_ascii_case(b"BAD"))
}

fn is_bye(reply: &[u8]) -> bool {
    let (start, rest) = reply.split_at_checked(5).unwrap_or_default();
    start.eq_ignore_ascii_case(b"* BYE") && rest.first().is_none_or(u8::is_ascii_whitespace)
}

fn is_sieve_bye(reply: &[u8]) -> bool {
    let word = reply.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    word.eq_ignore_ascii_case(b"BYE")
}

/// Returns the response code in `NO (CODE arguments) "text"`. The text may be a literal, so the first line has the code.
fn sieve_code(reply: &[u8]) -> Option<&[u8]> {
    let (word, rest) = next_word(reply)?;
    in_parentheses(rest).filter(|_| word.eq_ignore_ascii_case(b"NO"))
}

/// Returns `CODE` from `(CODE arguments) text`.
fn in_parentheses(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"(")?;
    let end = inside.iter().position(|byte| matches!(byte, b' ' | b')'))?;
    inside.get(..end)
}

fn last_line(reply: &[u8]) -> &[u8] {
    reply.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default().trim_ascii_end()
}

fn smtp_code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the response code in `tag NO [CODE] text` or `-ERR [CODE] text`.
fn response_code(line: &[u8]) -> Option<&[u8]> {
    let (first, rest) = next_word(line)?;
    if first.eq_ignore_ascii_case(b"-ERR") {
        return bracketed(rest);
    }
    let (status, rest) = next_word(rest)?;
    let refuses = status.eq_ignore_ascii_case(b"NO") || status.eq_ignore_ascii_case(b"BAD");
    bracketed(rest).filter(|_| refuses)
}

fn next_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((text.get(..end)?, text.get(end..)?.trim_ascii_start()))
}

/// Returns `CODE` from `[CODE arguments] text`.
fn bracketed(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"[")?;
    let end = inside.iter().position(|byte| matches!(byte, b' ' | b']'))?;
    inside.get(..end)
}

/// The server cannot decide, or expects a different setup of the proxy.
const SERVER_CODES: [&str; 9] = [
    "UNAVAILABLE",
    "SERVERBUG",
    "CONTACTADMIN",
    "PRIVACYREQUIRED",
    "SYS/TEMP",
    "SYS/PERM",
    "TRYLATER",
    "ENCRYPT-NEEDED",
    "AUTH-TOO-WEAK",
];
/// The client has to wait, close another session, be fixed, or get a new password.
const CLIENT_CODES: [&str; 7] =
    ["INUSE", "LIMIT", "EXPIRED", "CLIENTBUG", "IN-USE", "LOGIN-DELAY", "TRANSITION-NEEDED"];

#[cfg(test)]
mod tests {
    use super::RefusalCause::{Client, Credentials, Server};
    use super::*;

    #[test]
    fn a_server_that_is_out_of_order_is_told_from_wrong_credentials() {
        for (protocol, reply, cause) in [
            (Protocol::Smtp, "454 4.7.0 Temporary authentication failure\r\n", Server),
            (Protocol::Smtp, "421-4.3.2 going\r\n421 4.3.2 away\r\n", Server),
            (Protocol::Smtp, "503 5.5.1 Error: authentication not enabled\r\n", Server),
            (Protocol::Smtp, "504 5.5.4 Unrecognized authentication type\r\n", Server),
            (Protocol::Smtp, "538 5.7.11 Encryption required\r\n", Server),
            (Protocol::Smtp, "534 5.7.9 Authentication mechanism is too weak\r\n", Server),
            (Protocol::Smtp, "554 5.3.0 mail system\r\n", Server),
            (Protocol::Smtp, "554 5.7.0 no\r\n", Credentials),
            (Protocol::Smtp, "450 4.7.1 too much auth commands\r\n", Client),
            (Protocol::Smtp, "432 4.7.12 A password transition is needed\r\n", Client),
            (Protocol::Smtp, "535 5.7.8 wrong, 4 attempts left\r\n", Credentials),
            (Protocol::Smtp, "501 5.5.2 cancelled\r\n", Credentials),
            (Protocol::Imap, "* OK still here\r\na NO [UNAVAILABLE] try later\r\n", Server),
            (Protocol::Imap, "a no [serverbug] oops\r\n", Server),
            (Protocol::Imap, "a NO [CONTACTADMIN] call us\r\n", Server),
            (Protocol::Imap, "a NO [PRIVACYREQUIRED] not in clear\r\n", Server),
            (Protocol::Imap, "a NO [CANNOT] not so\r\n", Server),
            (Protocol::Imap, "a BAD unknown command\r\n", Server),
            (Protocol::Imap, "a bad\r\n", Server),
            (Protocol::Imap, "a BAD [CLIENTBUG] what\r\n", Client),
            (Protocol::Imap, "a NO [ALERT] BAD\r\n", Credentials),
            (Protocol::Imap, "a NO [NOPERM] not you\r\n", Credentials),
            (Protocol::Imap, "a NO [INUSE] another session\r\n", Client),
            (Protocol::Imap, "a NO [LIMIT] too many connections\r\n", Client),
            (Protocol::Imap, "a NO [EXPIRED] choose a new password\r\n", Client),
            (Protocol::Imap, "a NO [AUTHENTICATIONFAILED] wrong\r\n", Credentials),
            (Protocol::Imap, "a NO [AUTHORIZATIONFAILED] not as her\r\n", Credentials),
            (Protocol::Imap, "a NO wrong\r\n", Credentials),
            (Protocol::Pop3, "-ERR [SYS/TEMP] try later\r\n", Server),
            (Protocol::Pop3, "-ERR [SYS/PERM] out of order\r\n", Server),
            (Protocol::Pop3, "-ERR [in-use] locked\r\n", Client),
            (Protocol::Pop3, "-ERR [LOGIN-DELAY] not so often\r\n", Client),
            (Protocol::Pop3, "-ERR [AUTH] wrong\r\n", Credentials),
            (Protocol::Pop3, "-ERR wrong\r\n", Credentials),
            (Protocol::Pop3, "", Credentials),
            (Protocol::Sieve, "NO (TRYLATER) \"later\"\r\n", Server),
            (Protocol::Sieve, "no (trylater) {7}\r\nNO (X) \r\n", Server),
            (Protocol::Sieve, "NO (ENCRYPT-NEEDED) \"not in clear\"\r\n", Server),
            (Protocol::Sieve, "NO (AUTH-TOO-WEAK) \"not so\"\r\n", Server),
            (Protocol::Sieve, "NO (TRANSITION-NEEDED) \"use PLAIN once\"\r\n", Client),
            (Protocol::Sieve, "NO \"wrong\"\r\n", Credentials),
        ] {
            assert_eq!(RefusalCause::of_login(protocol, reply.as_bytes()), cause, "{reply}");
        }
    }

    #[test]
    fn a_code_that_the_client_chose_as_its_name_is_no_code() {
        for (protocol, reply) in [
            (Protocol::Imap, "a NO [AUTHENTICATIONFAILED] no user [UNAVAILABLE]\r\n"),
            (Protocol::Imap, "a NO no user [UNAVAILABLE]\r\n"),
            (Protocol::Pop3, "-ERR no user [SYS/TEMP]\r\n"),
            (Protocol::Smtp, "535 5.7.8 no user 454 4.7.0\r\n"),
            (Protocol::Sieve, "NO \"no user (TRYLATER)\"\r\n"),
        ] {
            assert_eq!(RefusalCause::of_login(protocol, reply.as_bytes()), Credentials, "{reply}");
        }
    }

    #[test]
    fn mail_that_is_postponed_is_the_clients_and_a_full_disk_is_the_servers() {
        for (reply, cause) in [
            ("250 2.1.5 Ok\r\n", None),
            ("550 5.1.1 no such user\r\n", Some(Client)),
            ("450 4.7.1 greylisted\r\n", Some(Client)),
            ("450 4.3.2 Service currently unavailable\r\n", Some(Client)),
            ("451 4.7.1 greylisted\r\n", Some(Client)),
            ("451 greylisted\r\n", Some(Client)),
            ("452 4.5.3 too many recipients\r\n", Some(Client)),
            ("452 4.3.1 Insufficient system storage\r\n", Some(Server)),
            ("452 Insufficient system storage\r\n", Some(Server)),
            ("451 4.3.0 Temporary lookup failure\r\n", Some(Server)),
            ("421 4.3.2 going away\r\n", Some(Server)),
            ("421 4.7.0 too many errors\r\n", Some(Client)),
        ] {
            assert_eq!(RefusalCause::of_envelope(reply.as_bytes()), cause, "{reply}");
        }
    }

    #[test]
    fn an_auth_service_that_cannot_tell_says_so_by_code_or_in_brackets() {
        for (text, code, cause) in [
            ("Temporary server problem, try again later", Some("451 4.3.0"), Server),
            ("[UNAVAILABLE] later", None, Server),
            ("[SYS/TEMP] later", None, Server),
            ("[LIMIT] too often", None, Client),
            ("(TRYLATER) later", None, Server),
            ("postponed", Some("450 4.7.1"), Client),
            ("[AUTHENTICATIONFAILED] no", None, Credentials),
            ("Invalid login or password", Some("535 5.7.8 "), Credentials),
            ("Invalid login or password", None, Credentials),
        ] {
            assert_eq!(RefusalCause::of_auth_service(text.as_bytes(), code), cause, "{text} {code:?}");
        }
    }

    #[test]
    fn a_server_that_takes_nobody_says_so_at_any_step() {
        for reply in [
            "421 busy\r\n",
            "* BYE full\r\n",
            "* BYE\r\n",
            "* bye",
            "-ERR [SYS/TEMP] full\r\n",
            "mailgress NO [UNAVAILABLE] no\r\n",
            "BYE \"full\"\r\n",
            "NO (TRYLATER) \"full\"\r\n",
        ] {
            assert!(is_unavailable(reply.as_bytes()), "{reply}");
        }
        for reply in [
            "554 no\r\n",
            "* BYEBYE\r\n",
            "* PREAUTH hi\r\n",
            "-ERR no\r\n",
            "mailgress NO what\r\n",
            "SSH-2.0\r\n",
        ] {
            assert!(!is_unavailable(reply.as_bytes()), "{reply}");
        }
        assert!(is_closing(Protocol::Smtp, b"421 bye\r\n") && is_closing(Protocol::Imap, b"* Bye then\r\n"));
        assert!(is_closing(Protocol::Imap, b"* BYE\r\n"));
        assert!(is_closing(Protocol::Sieve, b"BYE\r\n") && !is_closing(Protocol::Sieve, b"NO \"BYE\"\r\n"));
        assert!(!is_closing(Protocol::Imap, b"a NO 421\r\n") && !is_closing(Protocol::Pop3, b"-ERR bye\r\n"));
    }
}
