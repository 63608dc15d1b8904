//! States of a client that waits: for the decision on its login, or for a challenge to be answered.

use crate::protocol::Protocol;
use crate::protocol::imap::Imap;
use crate::protocol::imap::id::ClientId;
use crate::protocol::input::Input;
use crate::protocol::login::{Attempt, Envelope, LoginRequest};
use crate::protocol::pop3::Pop3;
use crate::protocol::sasl::dialogue::first_word;
use crate::protocol::sasl::{Mechanism, holds_line_breaks_or_nul, is_message};
use crate::protocol::sieve::Sieve;
use crate::protocol::sieve::command::{Reader, Received};
use crate::protocol::sieve::response::{Sender, append_response, append_string};
use crate::protocol::smtp::Smtp;
use crate::secret::Secret;

use super::core::{Core, Line};
use super::notices::{append_text, internal_error};
use super::{CloseReason, Frontend, Step};

/// A client that waits for the decision on its login. It has no `receive`, so its input stays unread. In memory of its own,
/// because every function that takes part in the decision would have room for it twice in its future.
#[derive(Debug)]
pub struct PendingLogin(Box<Pending>);

#[derive(Debug)]
struct Pending {
    core: Core,
    waiting: Waiting,
    /// The mechanism, if the reply to a refusal depends on it (RFC 7628 section 3.2.3).
    mechanism: Option<Mechanism>,
    /// Whether a refusal counts towards `maxAuthFailures`. Mail without a login does not count, because it has no
    /// credentials to guess.
    counts: bool,
}

/// How a session continues after a refused login.
pub type Refused = Result<Frontend, CloseReason>;

/// State of a protocol while its client waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    Imap {
        tag: Vec<u8>,
    },
    Pop3,
    Smtp {
        envelope: Envelope,
    },
    /// Progress in the string that answers a challenge.
    Sieve(Reader),
}

impl Waiting {
    fn append_invalid(&self, out: &mut Vec<u8>) {
        match self {
            Self::Imap { tag } => Imap::append_invalid(tag, out),
            Self::Pop3 => Pop3::append_invalid(out),
            Self::Smtp { .. } => Smtp::append_invalid(out),
            Self::Sieve(_) => Sieve::append_invalid(out),
        }
    }

    /// Appends the reply after which the session is closed.
    fn append_closing(&self, reason: CloseReason, out: &mut Vec<u8>) {
        match self {
            Self::Sieve(_) => Sieve::append_closing(reason, out),
            Self::Imap { .. } | Self::Pop3 | Self::Smtp { .. } => self.append_invalid(out),
        }
    }
}

impl PendingLogin {
    /// Returns the step with complete credentials. If they contain NUL, CR or LF, the session ends before the auth
    /// service or backend sees them.
    pub(crate) fn begin(mut core: Core, request: LoginRequest, waiting: Waiting, out: &mut Vec<u8>) -> Step {
        if request.holds_line_breaks_or_nul() {
            waiting.append_closing(CloseReason::ControlCharacters, out);
            return Step::Close(CloseReason::ControlCharacters);
        }
        core.count_attempt();
        let mechanism = match &request {
            LoginRequest::Token { mechanism, .. } => Some(*mechanism),
            _ => None,
        };
        let counts = !matches!(request, LoginRequest::Anonymous);
        let pending = Self(Box::new(Pending { core, waiting, mechanism, counts }));
        Step::Login(Attempt { request, pending })
    }

    /// SMTP: the commands to send to the backend. Empty for other protocols.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        match &self.0.waiting {
            Waiting::Smtp { envelope } => envelope,
            Waiting::Imap { .. } | Waiting::Pop3 | Waiting::Sieve(_) => &NO_ENVELOPE,
        }
    }

    /// Tells whether this is mail without a login, not a login.
    #[must_use]
    pub fn is_mail(&self) -> bool {
        self.envelope().rcpt.is_some()
    }

    /// IMAP: the command's tag with its trailing space. Empty for other protocols.
    #[must_use]
    pub fn tag(&self) -> &[u8] {
        match &self.0.waiting {
            Waiting::Imap { tag } => tag,
            Waiting::Pop3 | Waiting::Smtp { .. } | Waiting::Sieve(_) => &[],
        }
    }

    /// IMAP: the parameters of the client's ID. Empty for other protocols.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.0.core.client_id
    }

    /// The value of nginx's `Auth-Login-Attempt`; counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.core.attempts()
    }

    /// Returns the same attempt, whose refusal does not count towards `maxAuthFailures`, because the backend or auth
    /// service is at fault.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.0.counts = false;
        self
    }

    /// Tells whether a refusal may start with a challenge (`Auth-Error-SASL`): only with XOAUTH2 and OAUTHBEARER.
    #[must_use]
    pub fn takes_error_challenge(&self) -> bool {
        self.0.mechanism.is_some()
    }

    /// Appends a refusal as nginx does (`tag NO text`, `-ERR text`, `code text`, and ManageSieve's `NO "text"`) and
    /// returns the frontend for the next command. The caller may close the session instead. `code` is for SMTP, by
    /// default `535 5.7.0`.
    ///
    /// # Errors
    /// `maxAuthFailures` is reached: close the session after writing.
    pub fn refuse(self, text: &[u8], code: Option<&str>, out: &mut Vec<u8>) -> Refused {
        match &self.0.waiting {
            Waiting::Imap { tag } => {
                out.extend_from_slice(tag);
                out.extend_from_slice(b"NO ");
            }
            Waiting::Pop3 => out.extend_from_slice(b"-ERR "),
            Waiting::Smtp { .. } => {
                append_text(code.unwrap_or("535 5.7.0").as_bytes(), out);
                out.push(b' ');
            }
            Waiting::Sieve(_) => {
                append_response(b"NO", text, out);
                return self.resume(out);
            }
        }
        append_text(text, out);
        out.extend_from_slice(b"\r\n");
        self.resume(out)
    }

    /// Continues after the client's response to a refusal's challenge. The client gets the refusal if it acknowledged
    /// the challenge as its mechanism requires (XOAUTH2: an empty line; OAUTHBEARER: `AQ==`). Otherwise it gets the
    /// reply to an invalid command.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub fn refuse_answered(
        self,
        answer: &Secret,
        text: &[u8],
        code: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Refused {
        let acknowledgement: &[u8] = match self.0.mechanism {
            Some(Mechanism::OAuthBearer) => b"AQ==",
            _ => b"",
        };
        if answer.expose() == acknowledgement {
            return self.refuse(text, code, out);
        }
        self.0.waiting.append_invalid(out);
        self.resume(out)
    }

    /// `passthrough`: appends the backend's refusal, in whole lines as received, and continues.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub fn refuse_verbatim(self, reply: &[u8], out: &mut Vec<u8>) -> Refused {
        out.extend_from_slice(reply);
        self.resume(out)
    }

    /// SMTP: returns the frontend for the next mail of a client whose first recipient was accepted. Its HELO or EHLO is
    /// kept, and the counts of commands and errors start again. `None` for other protocols.
    #[must_use]
    pub fn next_mail(self) -> Option<Frontend> {
        let Pending { core, waiting, .. } = *self.0;
        let Waiting::Smtp { envelope } = waiting else { return None };
        let envelope = Envelope { hello: envelope.hello, mail: None, rcpt: None };
        Some(Smtp::resume(core.renewed(), envelope).into())
    }

    /// Appends the protocol's internal-error line. Close the session after it.
    pub fn internal_error(self, out: &mut Vec<u8>) {
        out.extend_from_slice(internal_error(self.protocol()));
    }

    /// Appends a challenge (base64, without CRLF) and waits for one line: for relayed SASL and `Auth-Error-SASL`.
    #[must_use]
    pub fn challenge(self, base64: &[u8], out: &mut Vec<u8>) -> Exchange {
        let text: Vec<u8> = base64.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        match self.protocol() {
            Protocol::Imap | Protocol::Pop3 => out.extend_from_slice(&[b"+ ", text.as_slice()].concat()),
            Protocol::Smtp => out.extend_from_slice(&[b"334 ", text.as_slice()].concat()),
            Protocol::Sieve => append_string(&text, Sender::Server, out),
        }
        out.extend_from_slice(b"\r\n");
        Exchange(self)
    }

    fn protocol(&self) -> Protocol {
        self.0.core.config.protocol
    }

    /// Returns the frontend for the next command. HELO and MAIL of an SMTP client are kept (NGINX section 7.5).
    fn resume(self, out: &mut Vec<u8>) -> Refused {
        let Pending { mut core, waiting, counts, .. } = *self.0;
        if counts && core.exhausts_auth_failures() {
            let reason = CloseReason::TooManyAuthFailures;
            if let Waiting::Sieve(_) = waiting {
                Sieve::append_closing(reason, out);
            }
            return Err(reason);
        }
        Ok(match waiting {
            Waiting::Imap { .. } => Imap::new(core).into(),
            Waiting::Pop3 => Pop3::new(core).into(),
            Waiting::Smtp { envelope } => Smtp::resume(core, envelope).into(),
            Waiting::Sieve(_) => Sieve::new(core).into(),
        })
    }
}

/// A challenge was sent. The next line is the client's response, not a command.
#[derive(Debug)]
pub struct Exchange(PendingLogin);

/// The result of reading a response.
#[derive(Debug)]
pub enum ExchangeStep {
    /// Read more bytes: no whole line has arrived.
    Read(Exchange),
    /// The response as received, without its line end: base64, `=`, empty, or `*` to cancel, which is relayed too. Any
    /// other line is replaced by `*`.
    Answer(Secret, PendingLogin),
    /// The line is too long, or one command too many. The reply is appended.
    Close(CloseReason),
}

impl Exchange {
    /// Takes one line from `input`.
    #[must_use]
    pub fn receive(self, input: &mut Input, out: &mut Vec<u8>) -> ExchangeStep {
        let Self(mut pending) = self;
        let line = match pending.take_answer(input) {
            Ok(None) => return ExchangeStep::Read(Self(pending)),
            Ok(Some(line)) => line,
            Err(reason) => return pending.close(reason, out),
        };
        if pending.0.core.exceeds_commands() {
            return pending.close(CloseReason::TooManyCommands, out);
        }
        let answer = first_word(line.expose());
        // The answer to our own challenge about a refused token goes nowhere.
        if !pending.takes_error_challenge() && holds_line_breaks_or_nul(answer) {
            return pending.close(CloseReason::ControlCharacters, out);
        }
        if is_message(answer) {
            return ExchangeStep::Answer(Secret::from(answer), pending);
        }
        if pending.protocol() == Protocol::Imap && line.expose().ends_with(b"+}") {
            return pending.close(CloseReason::RefusedLiteral, out);
        }
        ExchangeStep::Answer(Secret::from(&b"*"[..]), pending)
    }
}

impl PendingLogin {
    /// Takes a line, or a string in ManageSieve. `None` until it is complete.
    fn take_answer(&mut self, input: &mut Input) -> Result<Option<Secret>, CloseReason> {
        if let Waiting::Sieve(reader) = &mut self.0.waiting {
            return match reader.answer(input) {
                Received::Incomplete => Ok(None),
                Received::TooLong => Err(CloseReason::TooLong),
                Received::Whole(answer) => Ok(Some(answer)),
                Received::Rejected { literal_follows: true } => Err(CloseReason::RefusedLiteral),
                Received::Rejected { literal_follows: false } => Ok(Some(Secret::from(&b"*"[..]))),
            };
        }
        match self.0.core.take_answer(input) {
            Line::Incomplete => Ok(None),
            Line::TooLong => Err(CloseReason::TooLong),
            Line::Whole(line) => Ok(Some(line)),
        }
    }

    fn close(self, reason: CloseReason, out: &mut Vec<u8>) -> ExchangeStep {
        self.0.waiting.append_closing(reason, out);
        ExchangeStep::Close(reason)
    }
}

const NO_ENVELOPE: Envelope = Envelope { hello: None, mail: None, rcpt: None };
