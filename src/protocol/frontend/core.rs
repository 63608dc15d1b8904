//! What the three frontends have in common: configuration, counters, lines and challenges.

use std::sync::Arc;

use crate::protocol::frontend::{CountedErrors, FrontendConfig, StartTlsOffer};
use crate::protocol::imap::id::ClientId;
use crate::protocol::input::Input;
use crate::protocol::sasl::Mechanism;
use crate::secret::Secret;

/// What is carried from command to command, and over STARTTLS.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<FrontendConfig>,
    pub(crate) secured: bool,
    /// IMAP: what the client said of itself.
    pub(crate) client_id: ClientId,
    nonce: String,
    challenges: u32,
    errors: u32,
    commands: u32,
    attempts: u32,
    auth_failures: u32,
    /// Bytes of the input that were searched for a line end in vain, so that slow lines cost no more.
    searched: usize,
}

/// A line, if there is one.
#[derive(Debug)]
pub(crate) enum Line {
    /// Not yet.
    Incomplete,
    /// The input is full and holds no line end.
    TooLong,
    /// Without its LF or CRLF; it may hold a password.
    Whole(Secret),
}

impl Core {
    pub(crate) fn new(config: Arc<FrontendConfig>, secured: bool) -> Self {
        Self {
            config,
            secured,
            client_id: ClientId::default(),
            nonce: String::new(),
            challenges: 0,
            errors: 0,
            commands: 0,
            attempts: 0,
            auth_failures: 0,
            searched: 0,
        }
    }

    pub(crate) fn set_nonce(&mut self, nonce: &str) {
        nonce.clone_into(&mut self.nonce);
    }

    /// The same client behind TLS: counters go on, everything else begins anew.
    pub(crate) fn secured(self, config: Arc<FrontendConfig>) -> Self {
        Self { config, secured: true, client_id: ClientId::default(), searched: 0, ..self }
    }

    /// Whether every command that logs in is refused for want of TLS.
    pub(crate) fn lacks_tls(&self) -> bool {
        !self.secured && self.config.start_tls == StartTlsOffer::Required
    }

    pub(crate) fn offers_start_tls(&self) -> bool {
        !self.secured && self.config.start_tls != StartTlsOffer::Disabled
    }

    pub(crate) fn is_enabled(&self, mechanism: Mechanism) -> bool {
        self.config.mechanisms.contains(&mechanism)
    }

    /// The names of the SASL mechanisms to announce, in order.
    pub(crate) fn announced(&self) -> impl Iterator<Item = &'static str> {
        let enabled = self.config.mechanisms.iter().filter(|mechanism| mechanism.is_sasl());
        enabled.map(|mechanism| mechanism.name())
    }

    /// The challenge of the greeting, which every APOP of the session answers (RFC 1939 section 7).
    pub(crate) fn greeting_challenge(&self) -> Vec<u8> {
        self.challenge(0)
    }

    /// A challenge that this session has not used yet (quirk Q-15).
    pub(crate) fn fresh_challenge(&mut self) -> Vec<u8> {
        self.challenges = self.challenges.saturating_add(1);
        self.challenge(self.challenges)
    }

    fn challenge(&self, number: u32) -> Vec<u8> {
        format!("<{}.{number}@{}>", self.nonce, self.config.server_name).into_bytes()
    }

    /// Counts a line that was handed to the parser; true when it is one too many.
    #[must_use]
    pub(crate) fn exceeds_commands(&mut self) -> bool {
        self.commands = self.commands.saturating_add(1);
        self.commands > self.config.max_commands
    }

    /// Counts a line that the parser rejected; true when it is the last one that is answered.
    #[must_use]
    pub(crate) fn exhausts_errors(&mut self) -> bool {
        self.errors = self.errors.saturating_add(1);
        self.errors >= self.config.max_errors
    }

    /// Counts a command that the parser knows and that is refused (quirk Q-05); true when it is the last one
    /// that is answered.
    #[must_use]
    pub(crate) fn exhausts_errors_with_refusal(&mut self) -> bool {
        self.config.counted_errors == CountedErrors::All && self.exhausts_errors()
    }

    /// Counts a refused login; true when it is the last one that is answered.
    #[must_use]
    pub(crate) fn exhausts_auth_failures(&mut self) -> bool {
        self.auth_failures = self.auth_failures.saturating_add(1);
        self.auth_failures >= self.config.max_auth_failures
    }

    pub(crate) fn count_attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Takes the next line. LF ends it; a CR directly before belongs to the end (NGINX section 4.1).
    pub(crate) fn take_line(&mut self, input: &mut Input) -> Line {
        let bytes = input.peek();
        let unsearched = bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|&byte| byte == b'\n') else {
            self.searched = bytes.len();
            return if input.is_full() { Line::TooLong } else { Line::Incomplete };
        };
        let end = self.searched.saturating_add(found);
        let line = bytes.get(..end).unwrap_or_default();
        let line = Secret::from(line.strip_suffix(b"\r").unwrap_or(line));
        self.searched = 0;
        input.consume(end.saturating_add(1));
        Line::Whole(line)
    }
}
