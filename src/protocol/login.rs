//! What a frontend has learned from the client when it asks for a login to be checked.

use crate::secret::Secret;

use super::frontend::PendingLogin;
use super::sasl::Mechanism;

/// A login that the client asks for, and the state that waits for the verdict.
#[derive(Debug)]
pub struct Attempt {
    /// What has to be checked.
    pub request: LoginRequest,
    /// What answers the client.
    pub pending: PendingLogin,
}

/// The credentials of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginRequest {
    /// PLAIN, LOGIN, IMAP LOGIN, POP3 USER/PASS. `Auth-Method: plain`.
    Password {
        /// The authentication identity; raw bytes as the client sent them.
        login: Vec<u8>,
        /// The password.
        password: Secret,
        /// The authorization identity of SASL PLAIN; empty when none was sent.
        authzid: Vec<u8>,
    },
    /// CRAM-MD5 or APOP checked by an auth service.
    Digest {
        /// [`Mechanism::CramMd5`] or [`Mechanism::Apop`].
        mechanism: Mechanism,
        /// The authentication identity.
        login: Vec<u8>,
        /// The digest, as sent.
        digest: Secret,
        /// The challenge that the digest answers, with its angle brackets.
        salt: Vec<u8>,
    },
    /// EXTERNAL: the client certificate stands for the password.
    External {
        /// The identity the client asks for; may be empty.
        login: Vec<u8>,
    },
    /// XOAUTH2 or OAUTHBEARER checked by an auth service.
    Token {
        /// [`Mechanism::XOAuth2`] or [`Mechanism::OAuthBearer`].
        mechanism: Mechanism,
        /// The user.
        login: Vec<u8>,
        /// The bearer token.
        token: Secret,
    },
    /// `passthrough`: the exchange itself goes to the backend, message by message.
    Relayed {
        /// The mechanism, announced as configured.
        mechanism: Mechanism,
        /// The client's initial response as it stood on the wire (base64, or `=`), if it sent one.
        initial_response: Option<Secret>,
    },
    /// SMTP `NONE`: a transaction without a login; see [`PendingLogin::envelope`].
    Anonymous,
}

impl LoginRequest {
    /// The user, as the client named it; empty where it named none that we can read.
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

    /// nginx's `Auth-Method`.
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

/// What an SMTP client said before the login; replayed to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// HELO or EHLO, if any was said.
    pub hello: Option<Hello>,
    /// The MAIL line from its verb to its last argument, without CRLF.
    pub mail: Option<Vec<u8>>,
    /// The RCPT line, likewise.
    pub rcpt: Option<Vec<u8>>,
}

/// The client's HELO or EHLO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whether the client said EHLO (once in the session is enough, as in nginx).
    pub extended: bool,
    /// Its argument.
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
    fn what_is_printed_holds_no_password() {
        let password = Secret::from(&b"hunter2"[..]);
        let request = LoginRequest::Password { login: b"me".to_vec(), password, authzid: Vec::new() };
        let bytes = format!("{:?}", b"hunter2");
        assert!(!format!("{request:?}").contains(&bytes) && !format!("{request:?}").contains("hunter2"));
    }
}
