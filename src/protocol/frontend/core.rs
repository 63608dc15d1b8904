//! The common part of the three frontends: configuration, counters, lines and challenges.

use std::net::IpAddr;
use std::sync::Arc;

use crate::protocol::frontend::{CountedErrors, FrontendConfig, StartTlsOffer};
use crate::protocol::imap::id::ClientId;
use crate::protocol::input::Input;
use crate::protocol::sasl::{MAX_RESPONSE, Mechanism};
use crate::secret::Secret;

/// State that survives each command, and in part STARTTLS.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<FrontendConfig>,
    pub(crate) secured: bool,
    /// IMAP: the parameters of the client's ID.
    pub(crate) client_id: ClientId,
    /// SMTP: the client's address; `None` for this host.
    pub(crate) client: Option<IpAddr>,
    nonce: String,
    challenges: u32,
    errors: u32,
    commands: u32,
    attempts: u32,
    auth_failures: u32,
    /// Bytes of the input without a line end, so that they are not searched again.
    searched: usize,
}

/// The result of reading a line.
#[derive(Debug)]
pub(crate) enum Line {
    /// No line end has arrived.
    Incomplete,
    /// The line is longer than allowed.
    TooLong,
    /// The line without LF or CRLF. It may contain a password.
    Whole(Secret),
}

impl Core {
    pub(crate) fn new(config: Arc<FrontendConfig>, secured: bool) -> Self {
        Self {
            config,
            secured,
            client_id: ClientId::default(),
            client: None,
            nonce: String::new(),
            challenges: 0,
            errors: 0,
            commands: 0,
            attempts: 0,
            auth_failures: 0,
            searched: 0,
        }
    }

    pub(crate) fn set_nonce(&mut self, nonce: String) {
        self.nonce = nonce;
    }

    /// Returns the state after STARTTLS. Counters continue; everything else is reset.
    pub(crate) fn secured(self, config: Arc<FrontendConfig>) -> Self {
        Self { config, secured: true, client_id: ClientId::default(), searched: 0, ..self }
    }

    /// Returns the state after mail was accepted: what it took to get there does not count against the next mail.
    pub(crate) fn renewed(self) -> Self {
        Self { errors: 0, commands: 0, ..self }
    }

    /// Tells whether logins are refused because TLS is required and missing.
    pub(crate) fn lacks_tls(&self) -> bool {
        !self.secured && self.config.start_tls == StartTlsOffer::Required
    }

    pub(crate) fn offers_start_tls(&self) -> bool {
        !self.secured && self.config.start_tls != StartTlsOffer::Disabled
    }

    pub(crate) fn is_enabled(&self, mechanism: Mechanism) -> bool {
        self.config.mechanisms.contains(&mechanism)
    }

    /// Tells whether a login with the mechanism is accepted. Passwords may be accepted without being announced, as in
    /// nginx.
    pub(crate) fn takes(&self, mechanism: Mechanism) -> bool {
        if mechanism.is_password() { self.config.takes_passwords() } else { self.is_enabled(mechanism) }
    }

    /// Tells whether AUTH accepts any mechanism.
    pub(crate) fn takes_sasl(&self) -> bool {
        Mechanism::ALL.into_iter().any(|mechanism| mechanism.is_sasl() && self.takes(mechanism))
    }

    /// Returns the names of the announced SASL mechanisms, in order.
    pub(crate) fn announced(&self) -> impl Iterator<Item = &'static str> {
        let enabled = self.config.mechanisms.iter().filter(|mechanism| mechanism.is_sasl());
        enabled.map(|mechanism| mechanism.name())
    }

    /// Returns the challenge of the greeting, which every APOP of the session answers (RFC 1939 section 7).
    pub(crate) fn greeting_challenge(&self) -> Vec<u8> {
        self.challenge(0)
    }

    /// Returns a challenge that this session has not used yet (quirk Q-15).
    pub(crate) fn fresh_challenge(&mut self) -> Vec<u8> {
        self.challenges = self.challenges.saturating_add(1);
        self.challenge(self.challenges)
    }

    fn challenge(&self, number: u32) -> Vec<u8> {
        format!("<{}.{number}@{}>", self.nonce, self.config.server_name).into_bytes()
    }

    /// Counts a line for the parser. Returns true if it exceeds the limit.
    #[must_use]
    pub(crate) fn exceeds_commands(&mut self) -> bool {
        self.commands = self.commands.saturating_add(1);
        self.commands > self.config.max_commands
    }

    /// Counts a line that the parser rejected. Returns true if the session must end.
    #[must_use]
    pub(crate) fn exhausts_errors(&mut self) -> bool {
        self.errors = self.errors.saturating_add(1);
        self.errors >= self.config.max_errors
    }

    /// Counts a known command that is refused (quirk Q-05). Returns true if the session must end.
    #[must_use]
    pub(crate) fn exhausts_errors_with_refusal(&mut self) -> bool {
        self.config.counted_errors == CountedErrors::All && self.exhausts_errors()
    }

    /// Counts a refused login. Returns true if the session must end.
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

    /// Takes the next line, a response to our challenge.
    pub(crate) fn take_answer(&mut self, input: &mut Input) -> Line {
        self.take_line(input, MAX_RESPONSE.saturating_add(LINE_END), |_| true)
    }

    /// Takes the next line, a command. AUTH may be longer by a SASL response.
    pub(crate) fn take_command(&mut self, input: &mut Input) -> Line {
        let takes_response = !self.lacks_tls() && self.takes_sasl();
        let most = if takes_response { with_response(input.limit()) } else { 0 };
        self.take_line(input, most, begins_auth)
    }

    /// LF ends a line, and a CR directly before it belongs to the end (NGINX section 4.1). A line for which `is_long`
    /// is true may have `most` bytes, if that is more than the normal limit.
    fn take_line(&mut self, input: &mut Input, most: usize, is_long: fn(&[u8]) -> bool) -> Line {
        let bytes = input.peek();
        let most = if is_long(bytes) { most.max(input.limit()) } else { input.limit() };
        let unsearched = bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|&byte| byte == b'\n') else {
            self.searched = bytes.len();
            input.allow(most);
            return if input.is_full() { Line::TooLong } else { Line::Incomplete };
        };
        let end = self.searched.saturating_add(found);
        // A longer line before it allowed the input to hold this one.
        if end >= most {
            return Line::TooLong;
        }
        let line = bytes.get(..end).unwrap_or_default();
        let line = Secret::from(line.strip_suffix(b"\r").unwrap_or(line));
        self.searched = 0;
        input.consume(end.saturating_add(1));
        Line::Whole(line)
    }
}

/// Returns the limit for a command that may contain a SASL response.
pub(crate) fn with_response(limit: usize) -> usize {
    limit.saturating_add(MAX_RESPONSE)
}

fn begins_auth(line: &[u8]) -> bool {
    line.get(..AUTH.len()).is_some_and(|start| start.eq_ignore_ascii_case(AUTH))
}

/// In SMTP and POP3.
const AUTH: &[u8] = b"AUTH ";
/// Bytes of CRLF.
const LINE_END: usize = 2;
