//! Logging in to a backend: what it takes, and the SASL exchange, the same in all protocols.

use std::collections::VecDeque;

use crate::protocol::login::{LoginRequest, holds_line_breaks_or_nul};
use crate::protocol::sasl::{Mechanism, encode_base64};
use crate::secret::Secret;

use super::{BackendError, BackendLogin};

/// How an IMAP or POP3 backend is logged in to.
#[derive(Debug)]
pub(super) enum Credentials {
    /// LOGIN, or USER and PASS.
    Password { login: Vec<u8>, password: Secret },
    /// AUTHENTICATE, or AUTH.
    Sasl(SaslLogin),
}

impl Credentials {
    /// `protocol` is the backend's, for the error.
    pub(super) fn new(login: BackendLogin, protocol: &'static str) -> Result<Self, BackendError> {
        match checked(login, protocol)? {
            BackendLogin::Request(LoginRequest::Password { login, password, authzid }) => {
                if authzid.is_empty() {
                    return Ok(Self::Password { login, password });
                }
                // Neither LOGIN nor USER can carry an authorization identity.
                Ok(Self::Sasl(SaslLogin::plain(&authzid, &login, &password)))
            }
            BackendLogin::Request(LoginRequest::Relayed { mechanism, initial_response }) => {
                Ok(Self::Sasl(SaslLogin::relayed(mechanism, initial_response)))
            }
            BackendLogin::Request(_) | BackendLogin::Trusted { .. } => Err(BackendError::NoPassword),
        }
    }
}

impl Credentials {
    /// Whether the way to log in depends on what the backend offers: LOGIN carries ASCII to every server.
    pub(super) fn depend_on_offers(&self) -> bool {
        match self {
            Self::Password { login, password } => !login.is_ascii() || !password.expose().is_ascii(),
            Self::Sasl(_) => true,
        }
    }
}

/// A SASL exchange with a backend: our own PLAIN or LOGIN, or the client's, relayed.
#[derive(Debug)]
pub(super) struct SaslLogin {
    mechanism: Mechanism,
    /// Base64, for the challenges to come; at most two. The first may go along with the command instead.
    answers: VecDeque<Secret>,
    relayed: bool,
    /// The backend has asked something, so it has the mechanism.
    was_challenged: bool,
}

/// What a challenge is answered with.
#[derive(Debug)]
pub(super) enum Reaction {
    /// This.
    Answer(Secret),
    /// What the client answers.
    Relay,
    /// Nothing: the backend asks for what nobody has.
    None,
}

impl SaslLogin {
    pub(super) fn relayed(mechanism: Mechanism, initial: Option<Secret>) -> Self {
        Self { mechanism, answers: initial.into_iter().collect(), relayed: true, was_challenged: false }
    }

    /// PLAIN (RFC 4616); no field holds a NUL ([`checked`]).
    pub(super) fn plain(authzid: &[u8], login: &[u8], password: &Secret) -> Self {
        let message = Secret::new([authzid, login, password.expose()].join(&0));
        let answers = VecDeque::from([encoded(message.expose())]);
        Self { mechanism: Mechanism::Plain, answers, relayed: false, was_challenged: false }
    }

    /// LOGIN, for a backend that has no PLAIN.
    pub(super) fn login(login: &[u8], password: &Secret) -> Self {
        let answers = VecDeque::from([encoded(login), encoded(password.expose())]);
        Self { mechanism: Mechanism::Login, answers, relayed: false, was_challenged: false }
    }

    /// Whether the backend has asked anything.
    pub(super) fn was_challenged(&self) -> bool {
        self.was_challenged
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Appends `command` and the mechanism's name.
    pub(super) fn append_command(&self, command: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(command);
        out.push(b' ');
        out.extend_from_slice(self.mechanism.name().as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends `command`, the name and the initial response, if there is one and the line stays within
    /// `limit` bytes; without it otherwise.
    pub(super) fn append_command_with_initial(&mut self, command: &[u8], limit: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.append_command(command, out);
        let bare = out.len().saturating_sub(start);
        let fits = |initial: &Secret| bare.saturating_add(initial.expose().len()) < limit;
        // LOGIN's answers are for its two questions.
        if self.mechanism != Mechanism::Login
            && self.answers.front().is_some_and(fits)
            && let Some(initial) = self.answers.pop_front()
        {
            out.truncate(out.len().saturating_sub(LINE_END.len()));
            out.push(b' ');
            out.extend_from_slice(initial.expose());
            out.extend_from_slice(LINE_END);
        }
    }

    /// `=` is how an initial response says that it is empty; as an answer that is an empty line.
    pub(super) fn challenged(&mut self) -> Reaction {
        self.was_challenged = true;
        match self.answers.pop_front() {
            Some(initial) if initial.expose() == b"=" => Reaction::Answer(Secret::default()),
            Some(initial) => Reaction::Answer(initial),
            None if self.relayed => Reaction::Relay,
            None => Reaction::None,
        }
    }
}

/// Refuses a login with NUL, CR or LF, whoever named it: the client or the auth service.
pub(super) fn checked(login: BackendLogin, protocol: &'static str) -> Result<BackendLogin, BackendError> {
    let is_bad = match &login {
        BackendLogin::Request(request) => request.holds_line_breaks_or_nul(),
        BackendLogin::Trusted { login } => holds_line_breaks_or_nul(login),
    };
    if is_bad { Err(BackendError::ControlCharacters { protocol }) } else { Ok(login) }
}

fn encoded(message: &[u8]) -> Secret {
    Secret::new(encode_base64(message).into_bytes())
}

/// Appends an answer's line.
pub(super) fn append_answer(answer: &Secret, out: &mut Vec<u8>) {
    out.extend_from_slice(answer.expose());
    out.extend_from_slice(LINE_END);
}

const LINE_END: &[u8] = b"\r\n";
