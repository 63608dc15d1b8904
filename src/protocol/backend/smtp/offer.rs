//! What an SMTP backend's EHLO reply offers, and what a refused AUTH means with it.

use crate::protocol::Protocol;
use crate::protocol::backend::reply::SmtpReply;
use crate::protocol::backend::sasl::SaslLogin;
use crate::protocol::backend::{BackendError, refusal};

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
    /// Sends AUTH. A mechanism that AUTH does not list gets no initial response: see [`SaslLogin::is_untried`].
    pub(super) fn authenticate(sasl: &mut SaslLogin, extensions: &SmtpReply, out: &mut Vec<u8>) -> Self {
        let offer = Self::of(sasl.mechanism().name(), extensions);
        match offer {
            Self::Missing => sasl.append_command(b"AUTH", out),
            Self::Named | Self::NoAuth | Self::BehindStartTls => {
                sasl.append_command_with_initial(b"AUTH", MAX_COMMAND_LINE, out);
            }
        }
        offer
    }

    fn of(mechanism: &str, extensions: &SmtpReply) -> Self {
        let has = |name: &str| parameters(extensions, name).next().is_some();
        if offers(extensions, "AUTH", mechanism) {
            Self::Named
        } else if has("AUTH") {
            Self::Missing
        } else if has("STARTTLS") {
            Self::BehindStartTls
        } else {
            Self::NoAuth
        }
    }

    /// Returns the error if the backend refused the mechanism and not the credentials. Postfix answers a mechanism that
    /// it does not list with 535 5.7.8.
    pub(super) fn refused(self, sasl: &SaslLogin, reply: &SmtpReply) -> Option<BackendError> {
        let is_unknown = self == Self::Missing && sasl.is_untried(Protocol::Smtp, &reply.lines);
        if !is_unknown && !refusal::is_without_judgement(reply.code) {
            return None;
        }
        match self {
            Self::Named => None,
            Self::BehindStartTls => {
                Some(BackendError::not_offered_in_clear("AUTH", sasl.mechanism(), &reply.lines))
            }
            Self::Missing | Self::NoAuth => {
                Some(BackendError::not_offered("AUTH", sasl.mechanism(), &reply.lines))
            }
        }
    }
}

/// Tells whether an EHLO reply lists `extension` with `parameter`.
pub(super) fn offers(extensions: &SmtpReply, extension: &str, parameter: &str) -> bool {
    parameters(extensions, extension).flatten().any(|word| word.eq_ignore_ascii_case(parameter.as_bytes()))
}

/// Returns the parameters of each line of an EHLO reply that announces the extension.
fn parameters<'a>(
    extensions: &'a SmtpReply,
    extension: &str,
) -> impl Iterator<Item = impl Iterator<Item = &'a [u8]>> {
    extensions.texts().filter_map(move |text| {
        let mut words = text.split(|byte| *byte == b' ');
        words.next()?.eq_ignore_ascii_case(extension.as_bytes()).then_some(words)
    })
}

/// Bytes of a command line with its CRLF (RFC 5321 section 4.5.3.1.4). An initial response must not exceed it (RFC 4954
/// section 4).
const MAX_COMMAND_LINE: usize = 512;
