//! The side of the machines that faces the client, before the login.
//!
//! What is public here is the same for all protocols; each has its own machine (`imap`, `pop3`, `smtp`).
//! What happens once credentials are complete is in `pending`.

pub(crate) mod core;
mod extensions;
pub mod notices;
mod pending;

use std::net::IpAddr;
use std::sync::Arc;

use self::core::Core;
use super::Protocol;
use super::imap::Imap;
use super::input::{HandshakeProof, Input};
use super::login::Attempt;
use super::pop3::Pop3;
use super::sasl::Mechanism;
use super::smtp::Smtp;

pub use self::extensions::{OwnExtensions, own_extensions};
pub(crate) use self::pending::Waiting;
pub use self::pending::{Exchange, ExchangeStep, PendingLogin, Refused};

/// What a listener announces and accepts before the login. Two listeners that are told apart only after
/// STARTTLS must have equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendConfig {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// The name in greetings, EHLO replies and challenges.
    pub server_name: String,
    /// Capabilities announced before the login, verbatim and in order; without our own ([`own_extensions`]), but for
    /// POP3's USER, which is left out where USER is refused.
    pub capabilities: Vec<String>,
    /// Mechanisms enabled, in the order of [`Mechanism`], without duplicates.
    pub mechanisms: Vec<Mechanism>,
    /// Which logins with a password are taken.
    pub password_logins: PasswordLogins,
    /// Whether STARTTLS / STLS is offered on a connection that is not yet TLS.
    pub start_tls: StartTlsOffer,
    /// `passthrough`: the mechanisms other than PLAIN and LOGIN are relayed to the backend as they are.
    pub relay_sasl: bool,
    /// `limits.maxErrors`: the error at which the session ends.
    pub max_errors: u32,
    /// `limits.countedErrors`: what is such an error.
    pub counted_errors: CountedErrors,
    /// `limits.maxCommands`: lines that a client may send before its login succeeds.
    pub max_commands: u32,
    /// `limits.maxAuthFailures`: the refused login with which the session ends.
    pub max_auth_failures: u32,
    /// SMTP only.
    pub smtp: SmtpRules,
}

/// The defaults of the API, for an IMAP listener without TLS that takes no logins.
impl Default for FrontendConfig {
    fn default() -> Self {
        Self {
            protocol: Protocol::Imap,
            server_name: String::new(),
            capabilities: Vec::new(),
            mechanisms: Vec::new(),
            password_logins: PasswordLogins::Listed,
            start_tls: StartTlsOffer::Disabled,
            relay_sasl: false,
            max_errors: 5,
            counted_errors: CountedErrors::All,
            max_commands: 1000,
            max_auth_failures: 10,
            smtp: SmtpRules::default(),
        }
    }
}

/// How strict SMTP is; the default is Mailgress's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmtpRules {
    /// `smtp.anonymousBeforeTLS`: mail without a login is taken before a STARTTLS that is required (quirk Q-06).
    pub anonymous_before_tls: bool,
    /// `smtp.strictSequence`: AUTH and MAIL only where RFC 5321 and RFC 4954 have them (quirk Q-27).
    pub strict_sequence: bool,
}

/// What counts towards `limits.maxErrors` (quirk Q-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedErrors {
    /// Every command that is answered with an error, but for IMAP's ENABLE (quirk Q-31).
    All,
    /// Lines that the parser rejects, as in nginx.
    Syntax,
}

/// Which logins with a password are taken: SASL PLAIN and LOGIN, IMAP's LOGIN command, POP3's USER and PASS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordLogins {
    /// All of them where PLAIN or LOGIN is enabled, and none elsewhere.
    Listed,
    /// All of them everywhere, as in nginx.
    Always,
}

impl FrontendConfig {
    /// Whether logins with a password are taken.
    #[must_use]
    pub fn takes_passwords(&self) -> bool {
        let listed = || self.mechanisms.iter().any(|mechanism| mechanism.is_password());
        self.password_logins == PasswordLogins::Always || listed()
    }

    /// Whether anybody can log in at all.
    #[must_use]
    pub fn takes_logins(&self) -> bool {
        self.takes_passwords() || self.mechanisms.iter().any(|mechanism| *mechanism != Mechanism::None)
    }
}

/// STARTTLS as nginx's `starttls off | on | only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTlsOffer {
    /// Not offered.
    Disabled,
    /// Offered.
    Optional,
    /// Nothing that needs TLS is accepted without it.
    Required,
}

/// The machine that reads commands.
#[derive(Debug)]
pub struct Frontend(Machine);

#[derive(Debug)]
enum Machine {
    Imap(Imap),
    Pop3(Pop3),
    Smtp(Smtp),
}

/// What has to happen next. The replies appended so far are written first.
#[derive(Debug)]
pub enum Step {
    /// The input holds no whole command: read more.
    Read(Frontend),
    /// STARTTLS was accepted: do the handshake with a [`super::Cleartext`] and go on with [`StartTls::secured`].
    StartTls(StartTls),
    /// Credentials are complete.
    Login(Attempt),
    /// Close after writing.
    Close(CloseReason),
}

/// Why a frontend wants the connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// LOGOUT or QUIT.
    Quit,
    /// `maxErrors` reached.
    TooManyErrors,
    /// `maxCommands` exceeded.
    TooManyCommands,
    /// `maxAuthFailures` reached.
    TooManyAuthFailures,
    /// A command longer than the buffer.
    TooLong,
    /// A refused command carries a non-synchronising literal, whose bytes must not be read as commands.
    RefusedLiteral,
    /// A login or password holds NUL, CR or LF.
    ControlCharacters,
    /// After the login, SMTP: XCLIENT, XFORWARD or STARTTLS where it cannot be told whether the backend reads a
    /// command or a message.
    DoubtfulCommand,
}

impl Frontend {
    /// A machine for a new connection. `secured`: the bytes come through TLS (implicit TLS).
    #[must_use]
    pub fn new(config: Arc<FrontendConfig>, secured: bool) -> Self {
        Self::with_core(Core::new(config, secured))
    }

    fn with_core(core: Core) -> Self {
        Self(match core.config.protocol {
            Protocol::Imap => Machine::Imap(Imap::new(core)),
            Protocol::Pop3 => Machine::Pop3(Pop3::new(core)),
            Protocol::Smtp => Machine::Smtp(Smtp::new(core)),
        })
    }

    /// The unique part of challenges: random, printable ASCII without `<>@`, fresh for each session; the
    /// machine derives a fresh challenge for each attempt from it (quirk Q-15).
    #[must_use]
    pub fn with_nonce(mut self, nonce: &str) -> Self {
        match &mut self.0 {
            Machine::Imap(imap) => imap.core_mut().set_nonce(nonce),
            Machine::Pop3(pop3) => pop3.core_mut().set_nonce(nonce),
            Machine::Smtp(smtp) => smtp.core_mut().set_nonce(nonce),
        }
        self
    }

    /// Who the client is where its own name cannot be passed on (RFC 5321 section 4.1.3); `None`: it is on this host.
    #[must_use]
    pub fn with_client(mut self, client: Option<IpAddr>) -> Self {
        if let Machine::Smtp(smtp) = &mut self.0 {
            smtp.core_mut().client = client;
        }
        self
    }

    /// Appends the greeting. Not called after STARTTLS.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        match &self.0 {
            Machine::Imap(imap) => imap.greet(out),
            Machine::Pop3(pop3) => pop3.greet(out),
            Machine::Smtp(smtp) => smtp.greet(out),
        }
    }

    /// Takes as many commands from `input` as it can; stops consuming at the first that needs the outside.
    #[must_use]
    pub fn receive(self, input: &mut Input, out: &mut Vec<u8>) -> Step {
        match self.0 {
            Machine::Imap(imap) => imap.receive(input, out),
            Machine::Pop3(pop3) => pop3.receive(input, out),
            Machine::Smtp(smtp) => smtp.receive(input, out),
        }
    }

    /// Appends the protocol's goodbye (`* BYE`, `-ERR`, `421`) with a reason; then the session closes.
    pub fn goodbye(protocol: Protocol, server_name: &str, text: &str, out: &mut Vec<u8>) {
        notices::goodbye(protocol, server_name, text, out);
    }
}

impl From<Imap> for Frontend {
    fn from(imap: Imap) -> Self {
        Self(Machine::Imap(imap))
    }
}

impl From<Pop3> for Frontend {
    fn from(pop3: Pop3) -> Self {
        Self(Machine::Pop3(pop3))
    }
}

impl From<Smtp> for Frontend {
    fn from(smtp: Smtp) -> Self {
        Self(Machine::Smtp(smtp))
    }
}

/// STARTTLS was accepted and its reply appended; nothing is left of the state before.
#[derive(Debug)]
pub struct StartTls(Core);

impl StartTls {
    pub(crate) fn new(core: Core) -> Self {
        Self(core)
    }

    /// The machine after the handshake; the acceptor returned the proof. Counters of errors and commands go on.
    #[must_use]
    pub fn secured(self, config: Arc<FrontendConfig>, _proof: HandshakeProof) -> Frontend {
        Frontend::with_core(self.0.secured(config))
    }
}

#[cfg(test)]
mod tests;
