//! The capabilities of an IMAP backend, and the choice of the login command.

use crate::protocol::backend::BackendError;
use crate::protocol::backend::sasl::{Credentials, SaslLogin, suits_login};
use crate::protocol::sasl::Mechanism;

/// The capabilities that affect our commands.
#[derive(Clone, Debug, Default)]
pub(in crate::protocol::backend) struct Offers {
    /// The backend offers STARTTLS.
    pub(super) start_tls: bool,
    /// The backend offers ID.
    pub(super) id: bool,
    /// The backend refuses LOGIN.
    pub(super) login_disabled: bool,
    /// AUTHENTICATE accepts an initial response.
    initial_response: bool,
    /// Names of SASL mechanisms in upper case.
    mechanisms: Vec<Vec<u8>>,
}

impl Offers {
    /// Reads the text of an untagged response that starts with `CAPABILITY`.
    pub(super) fn in_response(text: &[u8]) -> Option<Self> {
        let mut words = text.split(u8::is_ascii_whitespace);
        words.next().filter(|word| word.eq_ignore_ascii_case(b"CAPABILITY"))?;
        let mut offers = Self::default();
        for word in words {
            offers.start_tls |= word.eq_ignore_ascii_case(b"STARTTLS");
            offers.id |= word.eq_ignore_ascii_case(b"ID");
            offers.login_disabled |= word.eq_ignore_ascii_case(b"LOGINDISABLED");
            offers.initial_response |= word.eq_ignore_ascii_case(b"SASL-IR");
            let (name, mechanism) = word.split_at_checked(AUTH.len()).unwrap_or_default();
            if name.eq_ignore_ascii_case(AUTH) {
                offers.mechanisms.push(mechanism.to_ascii_uppercase());
            }
        }
        Some(offers)
    }

    pub(super) fn has(&self, mechanism: Mechanism) -> bool {
        self.mechanisms.iter().any(|offered| offered == mechanism.name().as_bytes())
    }

    /// Tells whether the initial response may be sent with AUTHENTICATE. Not for a mechanism that is not listed: see
    /// [`SaslLogin::is_untried`].
    pub(super) fn takes_initial(&self, mechanism: Mechanism) -> bool {
        self.initial_response && self.has(mechanism)
    }

    /// Chooses the command for a password. LOGIN must not be sent if it is disabled (RFC 9051 section 6.2.3). PLAIN is
    /// preferred where LOGIN may fail: it is UTF-8 (RFC 4616), and servers accept longer credentials with it.
    pub(super) fn choose(&self, credentials: Credentials) -> Result<Credentials, BackendError> {
        let Credentials::Password { login, password } = credentials else { return Ok(credentials) };
        if suits_login(&login, &password) && !self.login_disabled {
            return Ok(Credentials::Password { login, password });
        }
        if self.has(Mechanism::Plain) {
            return Ok(Credentials::Sasl(SaslLogin::plain(&[], &login, &password)));
        }
        if !self.login_disabled {
            return Ok(Credentials::Password { login, password });
        }
        if self.has(Mechanism::Login) {
            return Ok(Credentials::Sasl(SaslLogin::login(&login, &password)));
        }
        Err(BackendError::LoginDisabled)
    }

    /// Reads `[CAPABILITY …]` in a greeting, if present.
    pub(super) fn in_greeting(text: &[u8]) -> Option<Self> {
        let code = text.splitn(2, |&byte| byte == b'[').nth(1)?;
        Self::in_response(code.split(|&byte| byte == b']').next()?)
    }
}

/// The prefix of a SASL mechanism's capability.
const AUTH: &[u8] = b"AUTH=";
