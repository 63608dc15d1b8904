//! A client that waits: for the verdict on its login, or for our taking its answer to a challenge.

use crate::protocol::Protocol;
use crate::protocol::imap::Imap;
use crate::protocol::imap::id::ClientId;
use crate::protocol::input::Input;
use crate::protocol::login::{Attempt, Envelope, LoginRequest};
use crate::protocol::pop3::Pop3;
use crate::protocol::sasl::dialogue::first_word;
use crate::protocol::sasl::{Mechanism, is_message};
use crate::protocol::smtp::Smtp;
use crate::secret::Secret;

use super::core::{Core, Line};
use super::notices::{append_text, internal_error};
use super::{CloseReason, Frontend, Step};

/// A client that waits for the verdict on its login. There is no `receive`: its input stays unread.
#[derive(Debug)]
pub struct PendingLogin {
    core: Core,
    waiting: Waiting,
    /// What was used, where the answer to a refusal depends on it (RFC 7628 section 3.2.3).
    mechanism: Option<Mechanism>,
    /// Whether a refusal counts towards `maxAuthFailures`. Mail without a login has no credentials to guess.
    counts: bool,
}

/// How a session goes on after a refused login.
pub type Refused = Result<Frontend, CloseReason>;

/// What a protocol keeps while its client waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    Imap { tag: Vec<u8> },
    Pop3,
    Smtp { envelope: Envelope },
}

impl Waiting {
    fn append_invalid(&self, out: &mut Vec<u8>) {
        match self {
            Self::Imap { tag } => Imap::append_invalid(tag, out),
            Self::Pop3 => Pop3::append_invalid(out),
            Self::Smtp { .. } => Smtp::append_invalid(out),
        }
    }
}

impl PendingLogin {
    /// The step that hands complete credentials out, unless they hold NUL, CR or LF: such a login ends the
    /// session before anybody else sees it.
    pub(crate) fn begin(mut core: Core, request: LoginRequest, waiting: Waiting, out: &mut Vec<u8>) -> Step {
        if request.holds_line_breaks_or_nul() {
            waiting.append_invalid(out);
            return Step::Close(CloseReason::ControlCharacters);
        }
        core.count_attempt();
        let mechanism = match &request {
            LoginRequest::Token { mechanism, .. } => Some(*mechanism),
            _ => None,
        };
        let counts = !matches!(request, LoginRequest::Anonymous);
        Step::Login(Attempt { request, pending: Self { core, waiting, mechanism, counts } })
    }

    /// SMTP: what has to be replayed to the backend. Empty for IMAP and POP3.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        match &self.waiting {
            Waiting::Smtp { envelope } => envelope,
            Waiting::Imap { .. } | Waiting::Pop3 => &NO_ENVELOPE,
        }
    }

    /// IMAP: the tag of the command, including its trailing space; empty for the others.
    #[must_use]
    pub fn tag(&self) -> &[u8] {
        match &self.waiting {
            Waiting::Imap { tag } => tag,
            Waiting::Pop3 | Waiting::Smtp { .. } => &[],
        }
    }

    /// IMAP: what the client said of itself; empty for the others.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.core.client_id
    }

    /// Counts from 1: nginx's `Auth-Login-Attempt`.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.core.attempts()
    }

    /// The same attempt; its refusal does not count towards `maxAuthFailures`, since the server that was asked is
    /// at fault.
    #[must_use]
    pub fn uncounted(self) -> Self {
        Self { counts: false, ..self }
    }

    /// Whether a refusal may begin with a challenge (`Auth-Error-SASL`): XOAUTH2 and OAUTHBEARER only.
    #[must_use]
    pub fn takes_error_challenge(&self) -> bool {
        self.mechanism.is_some()
    }

    /// Appends the refusal as nginx words it (`tag NO text`, `-ERR text`, `code text`); the machine goes
    /// on with the next command (the session may drop it and close instead). `code` is for SMTP;
    /// `535 5.7.0` when absent.
    ///
    /// # Errors
    /// When it was the last of `maxAuthFailures`: the session closes after writing.
    pub fn refuse(self, text: &[u8], code: Option<&str>, out: &mut Vec<u8>) -> Refused {
        match &self.waiting {
            Waiting::Imap { tag } => {
                out.extend_from_slice(tag);
                out.extend_from_slice(b"NO ");
            }
            Waiting::Pop3 => out.extend_from_slice(b"-ERR "),
            Waiting::Smtp { .. } => {
                append_text(code.unwrap_or("535 5.7.0").as_bytes(), out);
                out.push(b' ');
            }
        }
        append_text(text, out);
        out.extend_from_slice(b"\r\n");
        self.resume()
    }

    /// After the challenge of a refusal was answered: the ordinary refusal when the client acknowledged it
    /// as its mechanism has it (XOAUTH2: an empty line; OAUTHBEARER: `AQ==`), else an invalid command.
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
        let acknowledgement: &[u8] = match self.mechanism {
            Some(Mechanism::OAuthBearer) => b"AQ==",
            _ => b"",
        };
        if answer.expose() == acknowledgement {
            return self.refuse(text, code, out);
        }
        self.waiting.append_invalid(out);
        self.resume()
    }

    /// `passthrough`: appends the backend's own refusal, whole lines as they came; goes on.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub fn refuse_verbatim(self, reply: &[u8], out: &mut Vec<u8>) -> Refused {
        out.extend_from_slice(reply);
        self.resume()
    }

    /// Appends the protocol's internal-error line. The session closes.
    pub fn internal_error(self, out: &mut Vec<u8>) {
        out.extend_from_slice(internal_error(self.protocol()));
    }

    /// Appends a challenge (base64 text, without CRLF) and waits for one line of answer: relayed SASL and
    /// `Auth-Error-SASL`.
    #[must_use]
    pub fn challenge(self, base64: &[u8], out: &mut Vec<u8>) -> Exchange {
        out.extend_from_slice(match self.protocol() {
            Protocol::Imap | Protocol::Pop3 => b"+ ",
            Protocol::Smtp => b"334 ",
        });
        out.extend(base64.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        out.extend_from_slice(b"\r\n");
        Exchange(self)
    }

    fn protocol(&self) -> Protocol {
        self.core.config.protocol
    }

    /// The next command. Only an SMTP client's HELO and MAIL outlive the attempt (NGINX section 7.5).
    fn resume(mut self) -> Refused {
        if self.counts && self.core.exhausts_auth_failures() {
            return Err(CloseReason::TooManyAuthFailures);
        }
        Ok(match self.waiting {
            Waiting::Imap { .. } => Imap::new(self.core).into(),
            Waiting::Pop3 => Pop3::new(self.core).into(),
            Waiting::Smtp { envelope } => Smtp::resume(self.core, envelope).into(),
        })
    }
}

/// A challenge was sent; the next line is the client's answer, not a command.
#[derive(Debug)]
pub struct Exchange(PendingLogin);

/// What came of reading the answer.
#[derive(Debug)]
pub enum ExchangeStep {
    /// No whole line yet.
    Read(Exchange),
    /// The line as it stood on the wire, without its line end (base64, `=`, empty, or `*` for a
    /// cancellation, which is relayed like any answer). A line that is nothing of these cancels too.
    Answer(Secret, PendingLogin),
    /// Too long, or too many commands; the reply is appended.
    Close(CloseReason),
}

impl Exchange {
    /// Takes one line from `input`.
    #[must_use]
    pub fn receive(self, input: &mut Input, out: &mut Vec<u8>) -> ExchangeStep {
        let Self(mut pending) = self;
        let line = match pending.core.take_answer(input) {
            Line::Incomplete => return ExchangeStep::Read(Self(pending)),
            Line::TooLong => return pending.close(CloseReason::TooLong, out),
            Line::Whole(line) => line,
        };
        if pending.core.exceeds_commands() {
            return pending.close(CloseReason::TooManyCommands, out);
        }
        let answer = first_word(line.expose());
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
    fn close(self, reason: CloseReason, out: &mut Vec<u8>) -> ExchangeStep {
        self.waiting.append_invalid(out);
        ExchangeStep::Close(reason)
    }
}

const NO_ENVELOPE: Envelope = Envelope { hello: None, mail: None, rcpt: None };
