//! IMAP, POP3, SMTP, ManageSieve, SASL and the PROXY protocol as pure state machines.
//!
//! Bytes in, events and bytes out: no tokio, no clock, no randomness, no Kubernetes. Every state machine has the same
//! interface, in both directions:
//!
//! * **Frontend** (to the client, before the login): [`Frontend::receive`] consumes `self`, takes whole commands from
//!   an [`Input`] and appends replies to a byte vector. It returns when the caller has to act: [`Step::Read`] more,
//!   [`Step::StartTls`], [`Step::Login`], [`Step::Close`]. With every step, the caller first writes the replies, in one
//!   write.
//! * **Backend** (to the selected server): [`Backend::receive`] works in the same way.
//!
//! A state holds only its own data, and a transition consumes it. For example, a frontend that waits for the decision
//! on a login ([`PendingLogin`]) has no `receive`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod backend;
pub mod follow;
pub mod frontend;
mod imap;
pub mod input;
pub mod login;
mod pop3;
pub mod proxy_header;
pub mod sasl;
mod sieve;
mod smtp;
mod strings;
pub mod user;

use serde::Serialize;

pub use backend::{Backend, BackendError, BackendPlan, BackendStep};
pub use frontend::notices;
pub use frontend::{
    CloseReason, CountedErrors, Exchange, ExchangeStep, Frontend, FrontendConfig, OwnExtensions,
    PasswordLogins, PendingLogin, Refused, SmtpRules, StartTls, StartTlsOffer, Step, begins_tls,
    own_extensions,
};
pub use imap::id::ClientId;
pub use input::{Cleartext, HandshakeProof, Input};
pub use login::{Attempt, Envelope, Hello, LoginRequest};
pub use sasl::Mechanism;
pub use user::{User, UserRules};

/// The protocols that a listener can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9051 / RFC 3501.
    Imap,
    /// RFC 1939.
    Pop3,
    /// RFC 5321.
    Smtp,
    /// ManageSieve, RFC 5804.
    Sieve,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Imap, Self::Pop3, Self::Smtp, Self::Sieve];

    /// Returns the protocol of a well-known port.
    #[must_use]
    pub const fn of_port(port: u16) -> Option<Self> {
        match port {
            25 | 465 | 587 => Some(Self::Smtp),
            110 | 995 => Some(Self::Pop3),
            143 | 993 => Some(Self::Imap),
            4190 => Some(Self::Sieve),
            _ => None,
        }
    }

    /// Tells whether a well-known port uses implicit TLS (RFC 8314).
    #[must_use]
    pub const fn is_implicit_tls(port: u16) -> bool {
        matches!(port, 465 | 993 | 995)
    }

    /// Returns the port for TLS from the first byte (RFC 8314 section 3), if one is registered.
    #[must_use]
    pub const fn implicit_tls_port(self) -> Option<u16> {
        match self {
            Self::Imap => Some(993),
            Self::Pop3 => Some(995),
            Self::Smtp => Some(465),
            Self::Sieve => None,
        }
    }

    /// The name in lower case: the value of nginx's `Auth-Protocol` and of metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Smtp => "smtp",
            Self::Sieve => "sieve",
        }
    }

    /// Returns the protocol with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The name that people read, which is also the value of a listener's `protocol`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Smtp => "SMTP",
            Self::Sieve => "Sieve",
        }
    }

    /// The ALPN identifier. The registry of RFC 7301 has `imap`, `pop3` and `managesieve`; nginx also uses `smtp`.
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Sieve => "managesieve",
            Self::Imap | Self::Pop3 | Self::Smtp => self.name(),
        }
    }
}
