//! What a backend did wrong, as an error for the operator.

use super::XclientNegotiation;
use super::refusal::{self, is_closing};
use crate::protocol::Protocol;
use crate::protocol::sasl::Mechanism;

/// What a backend did wrong, and at which step.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A reply that does not allow the step to continue.
    #[error("the backend answered {step} with \"{reply}\"")]
    Unexpected {
        /// The name of the command, without its arguments.
        step: &'static str,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// All lines, for `passErrorMessage`.
        verbatim: Vec<u8>,
    },
    /// The backend accepts nobody at present: SMTP 4yz, IMAP BYE or UNAVAILABLE, POP3 SYS/TEMP, ManageSieve BYE
    /// or TRYLATER.
    #[error("the backend is not available: it answered {step} with \"{reply}\"")]
    Unavailable {
        /// As for [`Self::Unexpected`].
        step: &'static str,
        /// As for [`Self::Unexpected`].
        reply: String,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// A reply is longer than the buffer.
    #[error("the backend's answer to {step} does not fit into the buffer")]
    TooLong {
        /// The command that the reply answers.
        step: &'static str,
    },
    /// Bytes arrived before the command was sent that they seem to answer. They are never taken as a reply to it.
    #[error("the backend sent \"{reply}\" before {step}")]
    Unasked {
        /// The command that was about to be sent.
        step: &'static str,
        /// The first line, escaped, at most 200 characters.
        reply: String,
    },
    /// A refusal that does not answer the login.
    #[error("the backend's answer \"{reply}\" is not about the login")]
    OutOfStep {
        /// The first line, escaped, at most 200 characters.
        reply: String,
    },
    /// The backend sent a TLS record instead of a greeting.
    #[error("the backend uses TLS from the first byte; set upstream.tls.mode: Implicit")]
    SpeaksTls,
    /// The backend does not announce the mechanism and refused the command, without checking the credentials.
    #[error("the backend does not offer {mechanism} and answered it with \"{reply}\"; {remedy}")]
    NotOffered {
        /// The command with its mechanism, such as `AUTH PLAIN`.
        mechanism: String,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// What the operator can change.
        remedy: &'static str,
    },
    /// IMAP: `LOGINDISABLED`, and no mechanism with a password is offered.
    #[error(
        "the backend accepts no passwords: it announces LOGINDISABLED without AUTH=PLAIN; enable a mechanism there, or \
         set upstream.tls.mode if it accepts passwords only under TLS"
    )]
    LoginDisabled,
    /// STARTTLS is configured, but the backend does not offer it.
    #[error("the backend does not offer STARTTLS, which upstream.tls.mode asks for")]
    NoStartTls,
    /// SMTP: the backend does not know EHLO (RFC 5321 section 4.1.1.1).
    #[error("{needed_by} needs EHLO, but the backend rejected it with \"{reply}\"")]
    NoEhlo {
        /// The setting or step that needs it.
        needed_by: &'static str,
        /// As for [`Self::Unexpected`].
        reply: String,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// SMTP: the backend refused XCLIENT for good.
    #[error("the backend refused XCLIENT with \"{reply}\"; {remedy}")]
    XclientRefused {
        /// As for [`Self::Unexpected`].
        reply: String,
        /// What the operator can change.
        remedy: &'static str,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// The protocol cannot transfer these credentials (quirk Q-21).
    #[error("the login or password contains control characters, which {protocol} cannot carry")]
    ControlCharacters {
        /// The protocol's name for the message.
        protocol: &'static str,
    },
    /// The auth service accepted a digest, token or certificate, but named no password for the backend.
    #[error("no password for the backend: the auth service must answer with Auth-Pass")]
    NoPassword,
}

impl BackendError {
    /// Creates the error for a reply that does not allow the step to continue.
    pub(super) fn at(step: &'static str, verbatim: Vec<u8>) -> Self {
        let reply = first_line(&verbatim);
        if refusal::is_unavailable(&verbatim) {
            Self::Unavailable { step, reply, verbatim }
        } else {
            Self::Unexpected { step, reply, verbatim }
        }
    }

    /// Creates the error for a refusal that does not answer the login.
    #[must_use]
    pub fn out_of_step(reply: &[u8]) -> Self {
        Self::OutOfStep { reply: first_line(reply) }
    }

    /// Creates the error for a refused mechanism that was not announced.
    pub(super) fn not_offered(command: &str, mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("{command} {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: ENABLE }
    }

    pub(super) fn no_ehlo(needed_by: &'static str, verbatim: Vec<u8>) -> Self {
        Self::NoEhlo { needed_by, reply: first_line(&verbatim), verbatim }
    }

    /// Creates the error for an XCLIENT that the backend does not accept.
    pub(super) fn xclient(negotiation: XclientNegotiation, verbatim: Vec<u8>) -> Self {
        if refusal::is_unavailable(&verbatim) {
            return Self::at("XCLIENT", verbatim);
        }
        let remedy = match negotiation {
            XclientNegotiation::Auto => TRUST_US,
            XclientNegotiation::Always => TRUST_US_OR_ASK,
        };
        Self::XclientRefused { reply: first_line(&verbatim), remedy, verbatim }
    }

    /// As [`Self::not_offered`], where no mechanism is offered but STARTTLS is (RFC 4954 section 4, RFC 5804 section
    /// 1.7).
    pub(super) fn not_offered_in_clear(command: &str, mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("{command} {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: USE_START_TLS }
    }

    /// Returns the backend's closing reply if it answers the login: with `passthrough`, the client gets it. A closing
    /// greeting answers nothing that the client sent.
    #[must_use]
    pub fn goodbye(&self, protocol: Protocol) -> Option<&[u8]> {
        match self {
            Self::Unexpected { step, verbatim, .. } | Self::Unavailable { step, verbatim, .. }
                if *step != GREETING && is_closing(protocol, verbatim) =>
            {
                Some(verbatim)
            }
            Self::XclientRefused { verbatim, .. } if is_closing(protocol, verbatim) => Some(verbatim),
            _ => None,
        }
    }
}

/// The remedy for a mechanism that is not announced.
const ENABLE: &str = "enable it there, or set upstream.tls.mode if it is only offered under TLS";
/// The remedy if the backend offers STARTTLS and no AUTH in cleartext.
const USE_START_TLS: &str = "it offers STARTTLS and no login without it, so it accepts logins only under TLS: set upstream.tls.mode: StartTLS";
/// The remedy if the backend offers XCLIENT and refuses it.
const TRUST_US: &str = "configure it to accept XCLIENT from this address (Postfix: smtpd_authorized_xclient_hosts), or set upstream.xclient: false";
/// The remedy if XCLIENT was sent without a look at the backend's EHLO.
const TRUST_US_OR_ASK: &str = "upstream.xclientNegotiation: Always sends it even if the backend does not offer it; configure it to \
                               accept XCLIENT from this address (Postfix: smtpd_authorized_xclient_hosts), or set \
                               upstream.xclientNegotiation: Auto or upstream.xclient: false";
/// The name of the greeting's step in errors.
pub(super) const GREETING: &str = "the connection";

/// Returns the first line of a reply for logs and errors: escaped, at most 200 characters.
#[must_use]
pub fn first_line(reply: &[u8]) -> String {
    let first = reply.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    first.escape_ascii().map(char::from).take(SHOWN).collect()
}

/// Characters of a reply that are shown.
const SHOWN: usize = 200;
