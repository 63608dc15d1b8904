//! Credentials for a backend, and the SASL exchange, which is the same in all protocols.

use std::collections::VecDeque;

use crate::protocol::Protocol;
use crate::protocol::login::{LoginRequest, holds_line_breaks_or_nul};
use crate::protocol::sasl::{Mechanism, encode_base64};
use crate::secret::Secret;

use super::{BackendError, BackendLogin, refusal};

/// How to log in to an IMAP, POP3 or ManageSieve backend.
#[derive(Debug)]
pub(super) enum Credentials {
    /// With LOGIN, with USER and PASS, or in ManageSieve with the SASL mechanism that the backend offers.
    Password { login: Vec<u8>, password: Secret },
    /// With AUTHENTICATE or AUTH.
    Sasl(SaslLogin),
}

impl Credentials {
    /// `protocol` is for the error.
    pub(super) fn new(login: BackendLogin, protocol: &'static str) -> Result<Self, BackendError> {
        match checked(login, protocol)? {
            BackendLogin::Request(LoginRequest::Password { login, password, authzid }) => {
                if authzid.is_empty() {
                    return Ok(Self::Password { login, password });
                }
                // LOGIN and USER cannot carry an authorization identity.
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
    /// Tells whether the IMAP command depends on what the backend offers.
    pub(super) fn depend_on_offers(&self) -> bool {
        match self {
            Self::Password { login, password } => !suits_login(login, password),
            Self::Sasl(_) => true,
        }
    }
}

/// Tells whether every IMAP server accepts LOGIN with these credentials. Servers differ in the character set of LOGIN
/// beyond ASCII, and limit its length.
pub(super) fn suits_login(login: &[u8], password: &Secret) -> bool {
    let length = login.len().saturating_add(password.expose().len());
    login.is_ascii() && password.expose().is_ascii() && length <= MAX_LOGIN
}

/// A SASL exchange with a backend: PLAIN or LOGIN from us, or an exchange relayed from the client.
#[derive(Debug)]
pub(super) struct SaslLogin {
    mechanism: Mechanism,
    /// Base64 responses to the next challenges, at most two. The first may be sent with the command instead.
    answers: VecDeque<Secret>,
    relayed: bool,
    /// The backend has sent a challenge, so it supports the mechanism.
    was_challenged: bool,
}

/// How to react to a challenge.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Send this response.
    Answer(Secret),
    /// Relay the challenge to the client.
    Relay,
    /// There is no response: the exchange has failed.
    None,
}

impl SaslLogin {
    pub(super) fn relayed(mechanism: Mechanism, initial: Option<Secret>) -> Self {
        Self { mechanism, answers: initial.into_iter().collect(), relayed: true, was_challenged: false }
    }

    /// PLAIN (RFC 4616). No field contains a NUL; see [`checked`].
    pub(super) fn plain(authzid: &[u8], login: &[u8], password: &Secret) -> Self {
        let message = Secret::new([authzid, login, password.expose()].join(&0));
        let answers = VecDeque::from([encoded(message.expose())]);
        Self { mechanism: Mechanism::Plain, answers, relayed: false, was_challenged: false }
    }

    /// LOGIN, for a backend without PLAIN.
    pub(super) fn login(login: &[u8], password: &Secret) -> Self {
        let answers = VecDeque::from([encoded(login), encoded(password.expose())]);
        Self { mechanism: Mechanism::Login, answers, relayed: false, was_challenged: false }
    }

    pub(super) fn was_challenged(&self) -> bool {
        self.was_challenged
    }

    /// Tells whether the backend refused the mechanism and not the credentials, where it does not list the mechanism. It
    /// gets no initial response then, so it has seen credentials only if it sent a challenge. A code for another cause
    /// than wrong credentials is taken as such.
    pub(super) fn is_untried(&self, protocol: Protocol, reply: &[u8]) -> bool {
        !self.was_challenged && !refusal::names_another_cause(protocol, reply)
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

    /// Appends `command`, the mechanism's name and the initial response. The response is omitted if there is none or if
    /// the line would reach `limit` bytes.
    pub(super) fn append_command_with_initial(&mut self, command: &[u8], limit: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.append_command(command, out);
        let bare = out.len().saturating_sub(start);
        let fits = |initial: &Secret| bare.saturating_add(initial.expose().len()) < limit;
        if self.answers.front().is_some_and(fits)
            && let Some(initial) = self.take_initial()
        {
            out.truncate(out.len().saturating_sub(LINE_END.len()));
            out.push(b' ');
            out.extend_from_slice(initial.expose());
            out.extend_from_slice(LINE_END);
        }
    }

    /// Takes the initial response, if the mechanism has one.
    pub(super) fn take_initial(&mut self) -> Option<Secret> {
        // LOGIN's responses answer two separate challenges.
        if self.mechanism == Mechanism::Login { None } else { self.answers.pop_front() }
    }

    /// Returns the reaction to the next challenge. An initial response of `=` stands for an empty one, which is an
    /// empty line here.
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

/// Fails if the login contains NUL, CR or LF, whether it comes from the client or the auth service.
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

/// Appends a response with its line end.
pub(super) fn append_answer(answer: &Secret, out: &mut Vec<u8>) {
    out.extend_from_slice(answer.expose());
    out.extend_from_slice(LINE_END);
}

const LINE_END: &[u8] = b"\r\n";
/// Bytes of a login and a password in IMAP's LOGIN. Dovecot takes 1,024 bytes for all arguments of a command before the
/// login, including the sizes of literals (`LOGIN_MAX_INBUF_SIZE`), and RFC 2683 section 3.2.1.5 recommends lines of at
/// most 1,000. Both leave room for the sizes.
const MAX_LOGIN: usize = 980;
