//! What an SMTP backend's EHLO reply offers, and what a refused AUTH means with it.

use crate::protocol::Protocol;
use crate::protocol::backend::reply::SmtpReply;
use crate::protocol::backend::sasl::SaslLogin;
use crate::protocol::backend::{BackendError, RefusalCause, refusal};

/// What an EHLO reply says about a SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Named,
    /// AUTH lists other mechanisms.
    Missing,
    /// AUTH is missing.
    NoAuth,
    /// AUTH is missing, but STARTTLS is offered.
    BehindStartTls,
}

impl Offer {
    pub(super) fn of(mechanism: &str, extensions: &SmtpReply) -> Self {
        let has = |name: &[u8]| {
            extensions.texts().any(|text| {
                text.split(|byte| *byte == b' ').next().is_some_and(|word| word.eq_ignore_ascii_case(name))
            })
        };
        if offers(extensions, "AUTH", mechanism) {
            Self::Named
        } else if has(b"AUTH") {
            Self::Missing
        } else if has(b"STARTTLS") {
            Self::BehindStartTls
        } else {
            Self::NoAuth
        }
    }

    /// Returns the error if the backend refused the mechanism and not the credentials. Postfix answers a mechanism that
    /// it does not list with 535.
    pub(super) fn refused(self, sasl: &SaslLogin, reply: &SmtpReply) -> Option<BackendError> {
        let blames_credentials =
            || RefusalCause::of_login(Protocol::Smtp, &reply.lines) == RefusalCause::Credentials;
        let is_unknown = self == Self::Missing && !sasl.was_challenged() && blames_credentials();
        if !is_unknown && !refusal::is_without_judgement(reply.code) {
            return None;
        }
        match self {
            Self::Named => None,
            Self::BehindStartTls => Some(BackendError::not_offered_in_clear(sasl.mechanism(), &reply.lines)),
            Self::Missing | Self::NoAuth => {
                Some(BackendError::not_offered("AUTH", sasl.mechanism(), &reply.lines))
            }
        }
    }
}

/// Tells whether an EHLO reply lists `extension` with `parameter`.
pub(super) fn offers(extensions: &SmtpReply, extension: &str, parameter: &str) -> bool {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    extensions.texts().any(|text| {
        let mut words = text.split(|&byte| byte == b' ');
        words.next().is_some_and(|name| is(name, extension)) && words.any(|word| is(word, parameter))
    })
}
