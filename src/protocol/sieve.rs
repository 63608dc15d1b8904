//! The ManageSieve frontend before the login (RFC 5804). nginx has no such proxy, so the replies are Dovecot Pigeonhole's
//! where the RFC leaves a choice.

pub(crate) mod command;
pub(crate) mod response;

use std::ops::ControlFlow;

use crate::secret::Secret;

use self::command::{Command, Reader, Received, Verb};
use self::response::{Sender, append_response, append_string};
use super::frontend::core::Core;
use super::frontend::{CloseReason, PendingLogin, StartTls, Step, Waiting};
use super::input::Input;
use super::login::holds_line_breaks_or_nul;
use super::sasl::Mechanism;
use super::sasl::dialogue::{Dialogue, Progress};

#[derive(Debug)]
pub(crate) struct Sieve {
    core: Core,
    reader: Reader,
    state: SieveState,
}

#[derive(Debug)]
enum SieveState {
    /// The next line starts a command.
    Command,
    /// The next string is a response to our challenge.
    Answer(Dialogue),
}

/// Either the machine for the next command, or a step for the caller.
type Flow = ControlFlow<Step, Sieve>;

impl Sieve {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, reader: Reader::default(), state: SieveState::Command }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Appends the capabilities. The server sends them first, and again after STARTTLS (RFC 5804 sections 1.7 and 2.2).
    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        append_capabilities(&self.core, out);
        append_response(b"OK", b"ManageSieve ready", out);
    }

    pub(crate) fn receive(mut self, input: &mut Input, out: &mut Vec<u8>) -> Step {
        loop {
            let flow = match self.state {
                SieveState::Command => Self::read_command(self.core, self.reader, input, out),
                SieveState::Answer(dialogue) => {
                    Self::read_answer(self.core, self.reader, dialogue, input, out)
                }
            };
            match flow {
                Flow::Continue(next) => self = next,
                Flow::Break(step) => return step,
            }
        }
    }

    pub(crate) fn append_invalid(out: &mut Vec<u8>) {
        append_response(b"NO", INVALID_COMMAND, out);
    }

    /// Appends the reply before the connection closes (RFC 5804 section 1.3).
    pub(crate) fn append_closing(reason: CloseReason, out: &mut Vec<u8>) {
        let text: &[u8] = match reason {
            CloseReason::TooManyErrors => b"Too many invalid commands",
            CloseReason::TooManyCommands => b"Too many commands",
            CloseReason::TooManyAuthFailures => b"Too many refused logins",
            CloseReason::TooLong => b"The command is too long",
            CloseReason::RefusedLiteral => b"The literal is too long, or not accepted here",
            CloseReason::ControlCharacters
            | CloseReason::Quit
            | CloseReason::SpeaksTls
            | CloseReason::DoubtfulCommand => INVALID_COMMAND,
        };
        append_response(b"BYE", text, out);
    }

    fn read_command(mut core: Core, mut reader: Reader, input: &mut Input, out: &mut Vec<u8>) -> Flow {
        let takes_response = !core.lacks_tls() && core.takes_sasl();
        let received = match reader.command(takes_response, input) {
            Received::Incomplete => {
                return Flow::Break(Step::Read(Self { core, reader, state: SieveState::Command }.into()));
            }
            Received::TooLong => return close(CloseReason::TooLong, out),
            received => received,
        };
        if core.exceeds_commands() {
            return close(CloseReason::TooManyCommands, out);
        }
        match received {
            Received::Whole(command) => Self::run(core, &command, out),
            Received::Rejected { literal_follows: true } => close(CloseReason::RefusedLiteral, out),
            _ => Self::unknown(core, out),
        }
    }

    fn read_answer(
        mut core: Core,
        mut reader: Reader,
        dialogue: Dialogue,
        input: &mut Input,
        out: &mut Vec<u8>,
    ) -> Flow {
        let received = match reader.answer(input) {
            Received::Incomplete => {
                return Flow::Break(Step::Read(
                    Self { core, reader, state: SieveState::Answer(dialogue) }.into(),
                ));
            }
            Received::TooLong => return close(CloseReason::TooLong, out),
            received => received,
        };
        if core.exceeds_commands() {
            return close(CloseReason::TooManyCommands, out);
        }
        match received {
            Received::Whole(answer) => Self::proceed(core, dialogue.answer(answer.expose()), out),
            Received::Rejected { literal_follows: true } => close(CloseReason::RefusedLiteral, out),
            _ => Self::refuse(core, INVALID_COMMAND, out),
        }
    }

    fn run(core: Core, command: &Command, out: &mut Vec<u8>) -> Flow {
        let Command { verb, arguments } = command;
        match (verb, arguments.as_slice()) {
            // A client that sends many commands at once and reads nothing.
            (Verb::Capability, []) if out.len() > MAX_REPLIES => {
                return close(CloseReason::TooManyCommands, out);
            }
            (Verb::Capability, []) => {
                append_capabilities(&core, out);
                append_response(b"OK", b"Capability completed", out);
            }
            (Verb::Noop, []) => append_response(b"OK", b"NOOP completed", out),
            // A reply stays on its line, whatever the client has sent.
            (Verb::Noop, [tag]) if !holds_line_breaks_or_nul(tag.expose()) => {
                out.extend_from_slice(b"OK (TAG ");
                append_string(tag.expose(), Sender::Server, out);
                out.extend_from_slice(b") \"NOOP completed\"\r\n");
            }
            (Verb::Logout, []) => {
                append_response(b"OK", b"Logout completed", out);
                return Flow::Break(Step::Close(CloseReason::Quit));
            }
            (Verb::StartTls, []) if core.offers_start_tls() => {
                append_response(b"OK", b"Begin TLS negotiation now", out);
                return Flow::Break(Step::StartTls(StartTls::new(core)));
            }
            (Verb::Authenticate, _) if core.lacks_tls() => return Self::refuse(core, NEEDS_TLS, out),
            (Verb::Authenticate, arguments) => return Self::authenticate(core, arguments, out),
            (Verb::Unknown, _) => return Self::unknown(core, out),
            (Verb::AfterLogin, _) => return Self::refuse(core, LOG_IN_FIRST, out),
            (Verb::Capability | Verb::Noop | Verb::Logout | Verb::StartTls, _) => {
                return Self::refuse(core, INVALID_COMMAND, out);
            }
        }
        Flow::Continue(Self::new(core))
    }

    fn authenticate(mut core: Core, arguments: &[Secret], out: &mut Vec<u8>) -> Flow {
        let mut words: Vec<&[u8]> = arguments.iter().map(Secret::expose).collect();
        // An empty initial response is an empty string here, and `=` in the other protocols.
        if let [_, initial @ b""] = words.as_mut_slice() {
            *initial = b"=";
        }
        let progress = Dialogue::begin(&mut core, &words);
        let is_password = || {
            let mechanism = words.first().and_then(|name| Mechanism::from_sasl_name(name));
            mechanism.is_some_and(Mechanism::is_password)
        };
        match progress {
            Progress::Unsupported if is_password() => Self::refuse(core, NO_PASSWORDS, out),
            progress => Self::proceed(core, progress, out),
        }
    }

    fn proceed(core: Core, progress: Progress, out: &mut Vec<u8>) -> Flow {
        match progress {
            Progress::Challenge(text, dialogue) => {
                append_string(text.as_bytes(), Sender::Server, out);
                out.extend_from_slice(b"\r\n");
                Flow::Continue(Self { core, reader: Reader::default(), state: SieveState::Answer(dialogue) })
            }
            Progress::Complete(request) => {
                Flow::Break(PendingLogin::begin(core, request, Waiting::Sieve(Reader::default()), out))
            }
            Progress::Cancelled => {
                append_response(b"NO", CANCELLED, out);
                Flow::Continue(Self::new(core))
            }
            Progress::Invalid => Self::refuse(core, INVALID_COMMAND, out),
            Progress::Unsupported => Self::refuse(core, UNKNOWN_MECHANISM, out),
        }
    }

    /// Refuses what is no command.
    fn unknown(mut core: Core, out: &mut Vec<u8>) -> Flow {
        if core.exhausts_errors() {
            return close(CloseReason::TooManyErrors, out);
        }
        Self::append_invalid(out);
        Flow::Continue(Self::new(core))
    }

    /// Refuses a known command with this text.
    fn refuse(mut core: Core, text: &[u8], out: &mut Vec<u8>) -> Flow {
        if core.exhausts_errors_with_refusal() {
            return close(CloseReason::TooManyErrors, out);
        }
        append_response(b"NO", text, out);
        Flow::Continue(Self::new(core))
    }
}

fn close(reason: CloseReason, out: &mut Vec<u8>) -> Flow {
    Sieve::append_closing(reason, out);
    Flow::Break(Step::Close(reason))
}

/// Appends the capabilities: a name, and a value behind the first space of a configured entry.
fn append_capabilities(core: &Core, out: &mut Vec<u8>) {
    for capability in &core.config.capabilities {
        let (name, value) = match capability.split_once(' ') {
            Some((name, value)) => (name, Some(value)),
            None => (capability.as_str(), None),
        };
        append_capability(name, value, out);
    }
    // The list is empty where STARTTLS has to come first (RFC 5804 section 1.7).
    let mechanisms: Vec<&str> = core.announced().filter(|_| !core.lacks_tls()).collect();
    append_capability("SASL", Some(&mechanisms.join(" ")), out);
    if core.offers_start_tls() {
        append_capability("STARTTLS", None, out);
    }
}

fn append_capability(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    append_string(name.as_bytes(), Sender::Server, out);
    if let Some(value) = value {
        out.push(b' ');
        append_string(value.as_bytes(), Sender::Server, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Replies that may wait while further commands are read, in bytes. One list of capabilities may be as long again.
const MAX_REPLIES: usize = 64 << 10;
const INVALID_COMMAND: &[u8] = b"Invalid command";
const LOG_IN_FIRST: &[u8] = b"Log in first";
const CANCELLED: &[u8] = b"Authentication cancelled";
/// RFC 5804 section 1.3.
const NEEDS_TLS: &[u8] = b"(ENCRYPT-NEEDED) STARTTLS is required before a login";
const NO_PASSWORDS: &[u8] = b"(AUTH-TOO-WEAK) Passwords are not accepted here";
const UNKNOWN_MECHANISM: &[u8] = b"Unsupported authentication mechanism";
