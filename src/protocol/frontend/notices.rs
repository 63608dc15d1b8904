//! Lines that a session sends outside the state machines: closing messages, and refusals before the first command.

use crate::protocol::Protocol;
use crate::protocol::sieve::response::{append_response, refusal_text};

/// Why a client certificate is refused. The texts are nginx's (NGINX section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// The client's certificate does not verify.
    #[error("SSL certificate error")]
    Invalid,
    /// The client sent no certificate, but one is required.
    #[error("No required SSL certificate")]
    Missing,
}

/// Returns the line for a client whose certificate is refused. Close the session after it.
#[must_use]
pub fn certificate_refusal(protocol: Protocol, problem: CertificateProblem) -> String {
    match protocol {
        Protocol::Imap => format!("* BYE {problem}\r\n"),
        Protocol::Pop3 => format!("-ERR {problem}\r\n"),
        Protocol::Smtp => format!("421 4.7.1 {problem}\r\n"),
        Protocol::Sieve => format!("BYE \"{problem}\"\r\n"),
    }
}

/// Returns the line for a client that exceeds a connection limit or is banned. Close the session after it.
#[must_use]
pub const fn too_many_connections(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Imap => b"* BYE Too many connections, try again later\r\n",
        Protocol::Pop3 => b"-ERR Too many connections, try again later\r\n",
        Protocol::Smtp => b"421 4.7.0 Too many connections, try again later\r\n",
        Protocol::Sieve => b"BYE (TRYLATER) \"Too many connections, try again later\"\r\n",
    }
}

/// Returns nginx's internal-error line. Close the session after it.
#[must_use]
pub const fn internal_error(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Imap => b"* BAD internal server error\r\n",
        Protocol::Pop3 => b"-ERR internal server error\r\n",
        Protocol::Smtp => b"451 4.3.2 Internal server error\r\n",
        Protocol::Sieve => b"BYE (TRYLATER) \"internal server error\"\r\n",
    }
}

/// A refusal without its tag: the text, and the code of SMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalText {
    /// The code with its enhanced status code (RFC 3463), for SMTP.
    pub code: &'static str,
    /// The text, with the response code of IMAP (RFC 5530), POP3 (RFC 3206) or ManageSieve (RFC 5804).
    pub text: &'static str,
}

/// Returns the refusal of a wrong password, in the words of Dovecot and Postfix.
#[must_use]
pub const fn wrong_password(protocol: Protocol) -> RefusalText {
    let text = match protocol {
        Protocol::Imap => "[AUTHENTICATIONFAILED] Authentication failed.",
        Protocol::Pop3 => "[AUTH] Authentication failed.",
        Protocol::Smtp => "Error: authentication failed: (reason unavailable)",
        Protocol::Sieve => "Authentication failed.",
    };
    RefusalText { code: "535 5.7.8", text }
}

/// Returns the refusal of a login that fails now for a reason that the client cannot change (RFC 5530, RFC 3206, RFC
/// 4954, RFC 5804).
#[must_use]
pub const fn unavailable(protocol: Protocol) -> RefusalText {
    let text = match protocol {
        Protocol::Imap => "[UNAVAILABLE] Temporary authentication failure.",
        Protocol::Pop3 => "[SYS/TEMP] Temporary authentication failure.",
        Protocol::Smtp => "Temporary authentication failure",
        Protocol::Sieve => "(TRYLATER) Temporary authentication failure.",
    };
    RefusalText { code: "454 4.7.0", text }
}

/// ManageSieve: returns the text of a refusal as `PendingLogin::refuse` takes it, if the refusal is one line.
#[must_use]
pub fn sieve_refusal_text(line: &[u8]) -> Option<Vec<u8>> {
    refusal_text(line)
}

/// The answer to a cancelled SASL exchange.
pub const CANCELLED: RefusalText = RefusalText { code: "501 5.7.0", text: "Authentication cancelled" };

/// SMTP: the refusal of a recipient whose backend is not known now, or cannot be used.
pub const UNAVAILABLE_RECIPIENT: RefusalText =
    RefusalText { code: "451 4.4.3", text: "Temporary routing failure, try again later" };

/// SMTP: the refusal of a recipient whose backend is not that of the message (RFC 5321 section 4.5.3.1.10).
pub const OTHER_DESTINATION: RefusalText =
    RefusalText { code: "452 4.5.3", text: "recipient of another destination; send it separately" };

/// The answer to a recipient of a transaction that has 100 of them (RFC 5321 section 4.5.3.1.10).
pub const TOO_MANY_RECIPIENTS: RefusalText =
    RefusalText { code: "452 4.5.3", text: "Too many recipients; send it to the others separately" };

/// SMTP: the refusal of a recipient without a backend.
pub const UNKNOWN_RECIPIENT: RefusalText = RefusalText { code: "554 5.7.1", text: "Relay access denied" };

/// SMTP: the line for a client that sends before the delayed greeting. Close the session after it.
pub const EARLY_TALKER: &[u8] = b"503 5.5.0 Improper use of SMTP command pipelining\r\n";

/// Appends the protocol's closing message with a reason.
pub(crate) fn goodbye(protocol: Protocol, server_name: &str, text: &str, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Imap => out.extend_from_slice(b"* BYE "),
        Protocol::Pop3 => out.extend_from_slice(b"-ERR "),
        Protocol::Smtp => {
            out.extend_from_slice(b"421 4.3.2 ");
            append_text(server_name.as_bytes(), out);
            out.push(b' ');
        }
        Protocol::Sieve => return append_response(b"BYE", text.as_bytes(), out),
    }
    append_text(text.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
}

/// Appends text from others without line ends and NULs, so that it cannot start another reply.
pub(crate) fn append_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goodbye_of(protocol: Protocol, text: &str) -> String {
        let mut out = Vec::new();
        goodbye(protocol, "mail.test", text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn goodbyes_are_each_protocols_own() {
        assert_eq!(goodbye_of(Protocol::Imap, "bye now"), "* BYE bye now\r\n");
        assert_eq!(goodbye_of(Protocol::Pop3, "bye now"), "-ERR bye now\r\n");
        assert_eq!(goodbye_of(Protocol::Smtp, "bye now"), "421 4.3.2 mail.test bye now\r\n");
        assert_eq!(goodbye_of(Protocol::Sieve, "bye now"), "BYE \"bye now\"\r\n");
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(goodbye_of(Protocol::Imap, "a\r\nb OK"), "* BYE a  b OK\r\n");
    }

    #[test]
    fn notices_are_one_line_each() {
        for protocol in Protocol::ALL {
            for notice in [
                certificate_refusal(protocol, CertificateProblem::Invalid).as_bytes(),
                certificate_refusal(protocol, CertificateProblem::Missing).as_bytes(),
                too_many_connections(protocol),
                internal_error(protocol),
            ] {
                assert!(notice.ends_with(b"\r\n"));
                assert_eq!(notice.iter().filter(|&&byte| byte == b'\n').count(), 1);
            }
        }
    }
}
