//! What a frontend knows about a login that has to be decided.

use crate::secret::Secret;

use super::frontend::PendingLogin;
use super::sasl::{self, Mechanism};

/// A login that the client requests, and the state that waits for the decision.
#[derive(Debug)]
pub struct Attempt {
    /// The credentials.
    pub request: LoginRequest,
    /// Sends the decision to the client.
    pub pending: PendingLogin,
}

/// The credentials of one login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginRequest {
    /// PLAIN, LOGIN, IMAP's LOGIN, POP3's USER and PASS. `Auth-Method: plain`.
    Password {
        /// The authentication identity as the client sent it.
        login: Vec<u8>,
        /// The password.
        password: Secret,
        /// The authorization identity of SASL PLAIN; empty if none was sent.
        authzid: Vec<u8>,
    },
    /// CRAM-MD5 or APOP, checked by an auth service.
    Digest {
        /// [`Mechanism::CramMd5`] or [`Mechanism::Apop`].
        mechanism: Mechanism,
        /// The authentication identity.
        login: Vec<u8>,
        /// The digest as sent, in hexadecimal.
        digest: Secret,
        /// The challenge that the digest answers, with its angle brackets.
        salt: Vec<u8>,
    },
    /// EXTERNAL: the client certificate replaces the password.
    External {
        /// The requested identity; may be empty.
        login: Vec<u8>,
    },
    /// XOAUTH2 or OAUTHBEARER, checked by an auth service.
    Token {
        /// [`Mechanism::XOAuth2`] or [`Mechanism::OAuthBearer`].
        mechanism: Mechanism,
        /// The user name.
        login: Vec<u8>,
        /// The bearer token.
        token: Secret,
    },
    /// `passthrough`: the SASL exchange is relayed to the backend, message by message.
    Relayed {
        /// A mechanism other than PLAIN and LOGIN.
        mechanism: Mechanism,
        /// The client's initial response as received (base64, or `=`), if it sent one.
        initial_response: Option<Secret>,
    },
    /// SMTP mechanism `NONE`: mail without a login; see [`PendingLogin::envelope`].
    Anonymous,
}

impl LoginRequest {
    /// Returns the user name that the client sent. Empty if there is none, or if it is part of a relayed exchange.
    #[must_use]
    pub fn login(&self) -> &[u8] {
        match self {
            Self::Password { login, .. }
            | Self::Digest { login, .. }
            | Self::External { login }
            | Self::Token { login, .. } => login,
            Self::Relayed { .. } | Self::Anonymous => &[],
        }
    }

    /// Tells whether a field contains NUL, CR or LF. No protocol can carry these safely: CR and LF end a command, and
    /// NUL separates the fields of SASL PLAIN. The message of `Relayed` is read.
    #[must_use]
    pub fn holds_line_breaks_or_nul(&self) -> bool {
        let fields: [&[u8]; 3] = match self {
            Self::Password { login, password, authzid } => [login, password.expose(), authzid],
            Self::Digest { login, digest, .. } => [login, digest.expose(), &[]],
            Self::Token { login, token, .. } => [login, token.expose(), &[]],
            Self::External { login } => [login, &[], &[]],
            Self::Relayed { initial_response, .. } => {
                let message = initial_response.as_ref();
                return message.is_some_and(|message| sasl::holds_line_breaks_or_nul(message.expose()));
            }
            Self::Anonymous => return false,
        };
        fields.into_iter().any(holds_line_breaks_or_nul)
    }

    /// Returns the value of nginx's `Auth-Method`.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Password { .. } => Mechanism::Plain.auth_method(),
            Self::External { .. } => Mechanism::External.auth_method(),
            Self::Digest { mechanism, .. }
            | Self::Token { mechanism, .. }
            | Self::Relayed { mechanism, .. } => mechanism.auth_method(),
            Self::Anonymous => Mechanism::None.auth_method(),
        }
    }
}

pub(crate) fn holds_line_breaks_or_nul(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// The commands of an SMTP client before its login, for the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// HELO or EHLO, if the client sent one.
    pub hello: Option<Hello>,
    /// The MAIL line from its verb to its last argument, without CRLF.
    pub mail: Option<Vec<u8>>,
    /// The RCPT line in the same form.
    pub rcpt: Option<Vec<u8>>,
}

impl Envelope {
    /// Returns the address of the first recipient: `user@domain` of `RCPT TO:<user@domain> …`. Empty if there is none.
    #[must_use]
    pub fn recipient(&self) -> &[u8] {
        recipient_of(self.rcpt.as_deref().unwrap_or_default())
    }
}

/// Returns the address in a RCPT line; see [`Envelope::recipient`].
#[must_use]
pub fn recipient_of(line: &[u8]) -> &[u8] {
    let path = line.splitn(2, |&byte| byte == b':').nth(1).unwrap_or_default().trim_ascii_start();
    let Some(inside) = path.strip_prefix(b"<") else {
        return path.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    };
    // A quoted local part may contain the bracket (RFC 5321 section 4.1.2).
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = inside.iter().position(|byte| {
        let is_plain = !std::mem::take(&mut is_escaped);
        is_quoted ^= is_plain && *byte == b'"';
        is_escaped = is_plain && is_quoted && *byte == b'\\';
        *byte == b'>' && !is_quoted
    });
    let end = end.or_else(|| inside.iter().position(|byte| *byte == b'>'));
    end.and_then(|end| inside.get(..end)).unwrap_or(inside)
}

/// The client's HELO or EHLO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whether the client has sent EHLO, in this or an earlier command, as in nginx.
    pub extended: bool,
    /// The argument of the command.
    pub name: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_as_nginx_names_them() {
        let token =
            |mechanism| LoginRequest::Token { mechanism, login: b"me".to_vec(), token: Secret::default() };
        let external = LoginRequest::External { login: b"me".to_vec() };
        assert_eq!(external.method(), "external");
        assert_eq!(external.login(), b"me");
        assert_eq!(token(Mechanism::XOAuth2).method(), "xoauth2");
        assert_eq!(token(Mechanism::OAuthBearer).method(), "oauthbearer");
        assert_eq!(LoginRequest::Anonymous.method(), "none");
        assert_eq!(LoginRequest::Anonymous.login(), b"");
    }

    #[test]
    fn the_recipient_is_the_address_alone() {
        for (line, recipient) in [
            ("RCPT TO:<me@example.org>", "me@example.org"),
            ("rcpt to: <me@example.org> NOTIFY=NEVER ORCPT=rfc822;a@b", "me@example.org"),
            ("RCPT TO:me@example.org NOTIFY=NEVER", "me@example.org"),
            ("RCPT TO:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
            (r#"RCPT TO:<"a>b"@example.org>"#, r#""a>b"@example.org"#),
            (r#"RCPT TO:<"a\">b"@example.org> X"#, r#""a\">b"@example.org"#),
            (r#"RCPT TO:<"a@example.org> X"#, r#""a@example.org"#),
            ("RCPT", ""),
        ] {
            let envelope = Envelope { rcpt: Some(line.as_bytes().to_vec()), ..Envelope::default() };
            assert_eq!(envelope.recipient(), recipient.as_bytes(), "{line}");
        }
        assert_eq!(Envelope::default().recipient(), b"");
    }

    #[test]
    fn sees_nul_cr_and_lf_in_every_field() {
        let secret = |text: &[u8]| Secret::from(text);
        let password = |login: &[u8], password: &[u8], authzid: &[u8]| LoginRequest::Password {
            login: login.to_vec(),
            password: secret(password),
            authzid: authzid.to_vec(),
        };
        let token = |login: &[u8], token: &[u8]| LoginRequest::Token {
            mechanism: Mechanism::XOAuth2,
            login: login.to_vec(),
            token: secret(token),
        };
        let digest = |login: &[u8], digest: &[u8]| LoginRequest::Digest {
            mechanism: Mechanism::CramMd5,
            login: login.to_vec(),
            digest: secret(digest),
            salt: Vec::new(),
        };
        for bad in [&b"a\0b"[..], b"a\rb", b"a\n", b"\r\nQUIT"] {
            for request in [
                password(bad, b"pw", b""),
                password(b"me", bad, b""),
                password(b"me", b"pw", bad),
                token(bad, b"tok"),
                token(b"me", bad),
                digest(bad, b"d"),
                digest(b"me", bad),
                LoginRequest::External { login: bad.to_vec() },
            ] {
                assert!(request.holds_line_breaks_or_nul(), "{request:?}");
            }
        }
        let relayed = |message: &[u8]| {
            let initial_response = Some(Secret::from(message));
            LoginRequest::Relayed { mechanism: Mechanism::XOAuth2, initial_response }
        };
        assert!(relayed(b"dXNlcj1ibw1i").holds_line_breaks_or_nul());
        assert!(!relayed(b"dXNlcj1ib2I=").holds_line_breaks_or_nul());
        assert!(!password(b"m\te", b"p\x1b w", b"").holds_line_breaks_or_nul());
        assert!(!LoginRequest::Anonymous.holds_line_breaks_or_nul());
    }

    #[test]
    fn what_is_printed_holds_no_password() {
        let password = Secret::from(&b"hunter2"[..]);
        let request = LoginRequest::Password { login: b"me".to_vec(), password, authzid: Vec::new() };
        let bytes = format!("{:?}", b"hunter2");
        assert!(!format!("{request:?}").contains(&bytes) && !format!("{request:?}").contains("hunter2"));
    }
}
