//! State machines for the client before the login.
//!
//! The public items are the same for all protocols. Each protocol has its own machine (`imap`, `pop3`, `smtp`, `sieve`).
//! `pending` has the states after the credentials are complete.

pub(crate) mod core;
mod extensions;
pub mod notices;
mod pending;

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use self::core::Core;
use super::Protocol;
use super::imap::Imap;
use super::input::{Cleartext, HandshakeProof, Input};
use super::login::Attempt;
use super::pop3::Pop3;
use super::sasl::Mechanism;
use super::sieve::Sieve;
use super::smtp::Smtp;

pub use self::extensions::{OwnExtensions, own_extensions};
pub(crate) use self::pending::Waiting;
pub use self::pending::{Exchange, ExchangeStep, PendingLogin, Refused};

/// What a listener announces and accepts before the login. Listeners that can only be distinguished after STARTTLS must
/// have equal configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendConfig {
    /// The protocol of the listener.
    pub protocol: Protocol,
    /// The name in greetings, EHLO replies and challenges.
    pub server_name: String,
    /// Capabilities announced before the login, verbatim and in this order, without those that depend on the state
    /// ([`own_extensions`]). POP3's USER may be listed; it is omitted where USER is refused. ManageSieve:
    /// a name, and a value behind the first space.
    pub capabilities: Vec<String>,
    /// Enabled mechanisms, sorted as in [`Mechanism`], without duplicates.
    pub mechanisms: Vec<Mechanism>,
    /// Whether logins with a password are accepted.
    pub password_logins: PasswordLogins,
    /// Whether STARTTLS (POP3: STLS) is offered on a connection without TLS.
    pub start_tls: StartTlsOffer,
    /// `passthrough`: mechanisms other than PLAIN and LOGIN are relayed to the backend.
    pub relay_sasl: bool,
    /// `limits.maxErrors`: the session ends at this error.
    pub max_errors: u32,
    /// `limits.countedErrors`: which errors count.
    pub counted_errors: CountedErrors,
    /// `limits.maxCommands`: lines that a client may send before its login is accepted.
    pub max_commands: u32,
    /// `limits.maxAuthFailures`: the session ends at this refused login.
    pub max_auth_failures: u32,
    /// Rules for SMTP; ignored for other protocols.
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

/// How strict SMTP is. The defaults are Mailgress's, not nginx's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SmtpRules {
    /// `smtp.anonymousBeforeTLS`: accept mail without a login before a required STARTTLS (quirk Q-06).
    #[serde(rename = "anonymousBeforeTLS")]
    pub anonymous_before_tls: bool,
    /// `smtp.strictSequence`: accept AUTH and MAIL only where RFC 5321 and RFC 4954 allow them (quirk Q-27).
    pub strict_sequence: bool,
}

/// What counts towards `limits.maxErrors` (quirk Q-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum CountedErrors {
    /// Every command that gets an error reply, except IMAP's ENABLE (quirk Q-31).
    All,
    /// Lines that the parser rejects, as in nginx.
    Syntax,
}

/// Whether logins with a password are accepted: SASL PLAIN and LOGIN, IMAP's LOGIN command, POP3's USER and PASS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PasswordLogins {
    /// All of them if PLAIN or LOGIN is enabled; otherwise none.
    Listed,
    /// All of them always, as in nginx.
    Always,
}

impl FrontendConfig {
    /// Tells whether logins with a password are accepted.
    #[must_use]
    pub fn takes_passwords(&self) -> bool {
        let listed = || self.mechanisms.iter().any(|mechanism| mechanism.is_password());
        self.password_logins == PasswordLogins::Always || listed()
    }

    /// Tells whether any login is possible.
    #[must_use]
    pub fn takes_logins(&self) -> bool {
        self.takes_passwords() || self.mechanisms.iter().any(|mechanism| *mechanism != Mechanism::None)
    }
}

/// The values of nginx's `starttls`: `off`, `on` and `only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum StartTlsOffer {
    /// Not offered and not accepted.
    Disabled,
    /// Offered, not required.
    Optional,
    /// Required: commands that need TLS are refused without it.
    Required,
}

/// The state machine that reads the client's commands.
#[derive(Debug)]
pub struct Frontend(Machine);

#[derive(Debug)]
enum Machine {
    Imap(Imap),
    Pop3(Pop3),
    Smtp(Smtp),
    Sieve(Sieve),
}

/// What the caller has to do next, after writing the replies appended so far.
#[derive(Debug)]
pub enum Step {
    /// Read more bytes: the input holds no whole command.
    Read(Frontend),
    /// STARTTLS was accepted: do the handshake with a [`super::Cleartext`] and continue with [`StartTls::secured`].
    StartTls(StartTls),
    /// Decide about a login: the credentials are complete.
    Login(Attempt),
    /// Close the connection after writing.
    Close(CloseReason),
}

/// Why a frontend closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent LOGOUT or QUIT.
    Quit,
    /// `limits.maxErrors` is reached.
    TooManyErrors,
    /// `limits.maxCommands` is exceeded.
    TooManyCommands,
    /// `limits.maxAuthFailures` is reached.
    TooManyAuthFailures,
    /// A line is longer than allowed.
    TooLong,
    /// A refused command has a non-synchronising literal (or BDAT a chunk), whose bytes must not be read as commands.
    RefusedLiteral,
    /// A login or password contains NUL, CR or LF.
    ControlCharacters,
    /// The client sent a TLS handshake where a command was expected, on a connection without TLS.
    SpeaksTls,
    /// SMTP after the login: a refused command where it is not known whether the backend reads a command or a message.
    DoubtfulCommand,
}

impl Frontend {
    /// Creates a machine for a new connection. `secured`: the connection uses implicit TLS.
    #[must_use]
    pub fn new(config: Arc<FrontendConfig>, secured: bool) -> Self {
        Self::with_core(Core::new(config, secured))
    }

    fn with_core(core: Core) -> Self {
        Self(match core.config.protocol {
            Protocol::Imap => Machine::Imap(Imap::new(core)),
            Protocol::Pop3 => Machine::Pop3(Pop3::new(core)),
            Protocol::Smtp => Machine::Smtp(Smtp::new(core)),
            Protocol::Sieve => Machine::Sieve(Sieve::new(core)),
        })
    }

    /// Tells whether the client may get challenges of our own, which need [`Self::with_nonce`].
    #[must_use]
    pub fn sends_challenges(&self) -> bool {
        let mechanisms = &self.core().config.mechanisms;
        mechanisms.iter().any(|mechanism| matches!(mechanism, Mechanism::Apop | Mechanism::CramMd5))
    }

    /// Sets the unique part of challenges: random, printable ASCII without `<>@`, new for each session. Each attempt
    /// gets its own challenge derived from it (quirk Q-15).
    #[must_use]
    pub fn with_nonce(mut self, nonce: String) -> Self {
        match &mut self.0 {
            Machine::Imap(imap) => imap.core_mut().set_nonce(nonce),
            Machine::Pop3(pop3) => pop3.core_mut().set_nonce(nonce),
            Machine::Smtp(smtp) => smtp.core_mut().set_nonce(nonce),
            Machine::Sieve(sieve) => sieve.core_mut().set_nonce(nonce),
        }
        self
    }

    /// SMTP: sets the client's address, used if its own name cannot be passed on (RFC 5321 section 4.1.3). `None` is a
    /// client on this host.
    #[must_use]
    pub fn with_client(mut self, client: Option<IpAddr>) -> Self {
        if let Machine::Smtp(smtp) = &mut self.0 {
            smtp.core_mut().client = client;
        }
        self
    }

    /// Appends the greeting. After STARTTLS, [`StartTls::secured`] does what the protocol needs.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        match &self.0 {
            Machine::Imap(imap) => imap.greet(out),
            Machine::Pop3(pop3) => pop3.greet(out),
            Machine::Smtp(smtp) => smtp.greet(out),
            Machine::Sieve(sieve) => sieve.greet(out),
        }
    }

    /// Takes as many commands from `input` as possible, until the caller has to act.
    #[must_use]
    pub fn receive(self, input: &mut Input, out: &mut Vec<u8>) -> Step {
        let is_clear = !self.core().secured;
        let speaks_tls = |input: &Input| is_clear && begins_tls(input.peek());
        if speaks_tls(input) {
            return Step::Close(CloseReason::SpeaksTls);
        }
        let step = match self.0 {
            Machine::Imap(imap) => imap.receive(input, out),
            Machine::Pop3(pop3) => pop3.receive(input, out),
            Machine::Smtp(smtp) => smtp.receive(input, out),
            Machine::Sieve(sieve) => sieve.receive(input, out),
        };
        match step {
            // The machine waits for the end of a command, but these bytes are a TLS record.
            Step::Read(_) if speaks_tls(input) => Step::Close(CloseReason::SpeaksTls),
            step => step,
        }
    }

    fn core(&self) -> &Core {
        match &self.0 {
            Machine::Imap(imap) => imap.core(),
            Machine::Pop3(pop3) => pop3.core(),
            Machine::Smtp(smtp) => smtp.core(),
            Machine::Sieve(sieve) => sieve.core(),
        }
    }

    /// Appends the protocol's closing message (`* BYE`, `-ERR`, `421`, `BYE`) with a reason. Close the session after it.
    pub fn goodbye(protocol: Protocol, server_name: &str, text: &str, out: &mut Vec<u8>) {
        notices::goodbye(protocol, server_name, text, out);
    }
}

/// Tells whether these bytes start a TLS record with a handshake. No command and no response to a challenge starts so.
#[must_use]
pub fn begins_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 3, ..])
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

impl From<Sieve> for Frontend {
    fn from(sieve: Sieve) -> Self {
        Self(Machine::Sieve(sieve))
    }
}

/// STARTTLS was accepted and its reply appended. Only counters survive of the state before.
#[derive(Debug)]
pub struct StartTls(Core);

impl StartTls {
    pub(crate) fn new(core: Core) -> Self {
        Self(core)
    }

    /// Returns the machine after the handshake. The TLS acceptor returned the proof. The counts of errors and commands
    /// continue. Appends what the server says first: in ManageSieve, its capabilities.
    #[must_use]
    pub fn secured(self, config: Arc<FrontendConfig>, _proof: HandshakeProof, out: &mut Vec<u8>) -> Frontend {
        let frontend = Frontend::with_core(self.0.secured(config));
        if let Machine::Sieve(sieve) = &frontend.0 {
            sieve.greet(out);
        }
        frontend
    }

    /// Returns the machine after a handshake that does not take place, for drivers without a connection. Wipes `input`
    /// as [`Cleartext`] does, and returns the number of wiped bytes.
    #[must_use]
    pub fn without_connection(
        self,
        config: Arc<FrontendConfig>,
        input: Input,
        out: &mut Vec<u8>,
    ) -> (Frontend, usize) {
        let cleartext = Cleartext::new((), input);
        let refused = cleartext.refused();
        let ((), proof) = cleartext.into_parts();
        (self.secured(config, proof, out), refused)
    }
}

#[cfg(test)]
mod tests;
