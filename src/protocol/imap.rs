//! The IMAP frontend before the login (RFC 9051 sections 6.1 and 6.2): NGINX section 5, with fixed quirks.

mod command;
pub(crate) mod id;
mod parser;

use std::ops::ControlFlow;

use crate::secret::Secret;

use self::command::{Command, Logins, Reader, Received, Rejected, Rejection, Verb};
use super::frontend::core::{Core, Line};
use super::frontend::{CloseReason, PendingLogin, StartTls, Step, Waiting};
use super::input::Input;
use super::login::LoginRequest;
use super::sasl::dialogue::{Dialogue, Progress, first_word};

#[derive(Debug)]
pub(crate) struct Imap {
    core: Core,
    state: ImapState,
}

#[derive(Debug)]
enum ImapState {
    /// The next line starts a command.
    Command(Reader),
    /// The next line is a response to our challenge.
    Answer { tag: Vec<u8>, dialogue: Dialogue },
}

/// Either the machine for the next command, or a step for the caller.
type Flow = ControlFlow<Step, Imap>;

impl Imap {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, state: ImapState::Command(Reader::default()) }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"* OK IMAP4 ready\r\n");
    }

    pub(crate) fn receive(mut self, input: &mut Input, out: &mut Vec<u8>) -> Step {
        loop {
            let flow = match self.state {
                ImapState::Command(reader) => Self::read_command(self.core, reader, input, out),
                ImapState::Answer { tag, dialogue } => {
                    Self::read_answer(self.core, tag, dialogue, input, out)
                }
            };
            match flow {
                Flow::Continue(next) => self = next,
                Flow::Break(step) => return step,
            }
        }
    }

    /// Appends `BAD` with the command's tag, or with `*` if it has no valid tag.
    pub(crate) fn append_invalid(tag: &[u8], out: &mut Vec<u8>) {
        append_refusal(tag, INVALID_COMMAND, out);
    }

    fn read_command(mut core: Core, mut reader: Reader, input: &mut Input, out: &mut Vec<u8>) -> Flow {
        let command = match reader.read(logins(&core), input, out) {
            Received::Incomplete => {
                return Flow::Break(Step::Read(Self { core, state: ImapState::Command(reader) }.into()));
            }
            Received::TooLong { tag } => return close(&tag, INVALID_COMMAND, CloseReason::TooLong, out),
            Received::Command(command) => Ok(command),
            Received::Rejected(rejected) => Err(rejected),
        };
        if core.exceeds_commands() {
            let (Ok(Command { tag, .. }) | Err(Rejected { tag, .. })) = &command;
            return close(tag, INVALID_COMMAND, CloseReason::TooManyCommands, out);
        }
        match command {
            Ok(command) => Self::run(core, command, out),
            Err(rejected) => Self::reject(core, &rejected, out),
        }
    }

    fn reject(mut core: Core, rejected: &Rejected, out: &mut Vec<u8>) -> Flow {
        let Rejected { tag, literal_follows, reason } = rejected;
        let text = match reason {
            Rejection::Syntax => INVALID_COMMAND,
            Rejection::NeedsTls => NEEDS_TLS,
            Rejection::NoPasswords => NO_PASSWORDS,
        };
        if *literal_follows {
            return close(tag, text, CloseReason::RefusedLiteral, out);
        }
        match reason {
            Rejection::Syntax if core.exhausts_errors() => close(tag, text, CloseReason::TooManyErrors, out),
            Rejection::Syntax => Self::go_on(core, tag, out),
            Rejection::NeedsTls | Rejection::NoPasswords => Self::refuse(core, tag, text, out),
        }
    }

    fn read_answer(
        mut core: Core,
        tag: Vec<u8>,
        dialogue: Dialogue,
        input: &mut Input,
        out: &mut Vec<u8>,
    ) -> Flow {
        let line = match core.take_answer(input) {
            Line::Incomplete => {
                return Flow::Break(Step::Read(
                    Self { core, state: ImapState::Answer { tag, dialogue } }.into(),
                ));
            }
            Line::TooLong => return close(&tag, INVALID_COMMAND, CloseReason::TooLong, out),
            Line::Whole(line) => line,
        };
        if core.exceeds_commands() {
            return close(&tag, INVALID_COMMAND, CloseReason::TooManyCommands, out);
        }
        let progress = dialogue.answer(first_word(line.expose()));
        let refused = matches!(progress, Progress::Invalid | Progress::Cancelled);
        if refused && line.expose().ends_with(b"+}") {
            return close(&tag, INVALID_COMMAND, CloseReason::RefusedLiteral, out);
        }
        Self::proceed(core, tag, progress, out)
    }

    fn run(mut core: Core, command: Command, out: &mut Vec<u8>) -> Flow {
        let Command { tag, verb, arguments, id } = command;
        match verb {
            Verb::Noop => {}
            Verb::Capability => append_capabilities(&core, out),
            // RFC 2971 allows ID in any state, and clients send it first (quirk Q-31).
            Verb::Id => {
                core.client_id = id;
                out.extend_from_slice(b"* ID NIL\r\n");
            }
            Verb::Logout => {
                out.extend_from_slice(b"* BYE\r\n");
                append_ok(&tag, out);
                return Flow::Break(Step::Close(CloseReason::Quit));
            }
            Verb::StartTls if core.offers_start_tls() => {
                append_ok(&tag, out);
                return Flow::Break(Step::StartTls(StartTls::new(core)));
            }
            Verb::Login => return Self::log_in(core, tag, &arguments, out),
            Verb::Authenticate => {
                let arguments: Vec<&[u8]> = arguments.iter().map(Secret::expose).collect();
                let progress = Dialogue::begin(&mut core, &arguments);
                return Self::proceed(core, tag, progress, out);
            }
            Verb::StartTls => return Self::invalid(core, &tag, out),
            // RFC 5161 allows ENABLE only after the login. It does not count as an error (quirk Q-31).
            Verb::Enable => return Self::go_on(core, &tag, out),
        }
        append_ok(&tag, out);
        Flow::Continue(Self::new(core))
    }

    fn log_in(core: Core, tag: Vec<u8>, arguments: &[Secret], out: &mut Vec<u8>) -> Flow {
        let [login, password] = arguments else { return Self::invalid(core, &tag, out) };
        if login.is_empty() {
            return Self::invalid(core, &tag, out);
        }
        let request = LoginRequest::Password {
            login: login.expose().to_vec(),
            password: password.clone(),
            authzid: Vec::new(),
        };
        Flow::Break(PendingLogin::begin(core, request, Waiting::Imap { tag }, out))
    }

    fn proceed(core: Core, tag: Vec<u8>, progress: Progress, out: &mut Vec<u8>) -> Flow {
        match progress {
            Progress::Challenge(text, dialogue) => {
                out.extend_from_slice(b"+ ");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
                Flow::Continue(Self { core, state: ImapState::Answer { tag, dialogue } })
            }
            Progress::Complete(request) => {
                Flow::Break(PendingLogin::begin(core, request, Waiting::Imap { tag }, out))
            }
            Progress::Cancelled => Self::go_on(core, &tag, out),
            Progress::Invalid => Self::invalid(core, &tag, out),
            Progress::Unsupported => Self::refuse(core, &tag, UNKNOWN_MECHANISM, out),
        }
    }

    /// Refuses a known command as invalid in this state.
    fn invalid(core: Core, tag: &[u8], out: &mut Vec<u8>) -> Flow {
        Self::refuse(core, tag, INVALID_COMMAND, out)
    }

    /// Refuses a known command with this text.
    fn refuse(mut core: Core, tag: &[u8], text: &[u8], out: &mut Vec<u8>) -> Flow {
        if core.exhausts_errors_with_refusal() {
            return close(tag, text, CloseReason::TooManyErrors, out);
        }
        append_refusal(tag, text, out);
        Flow::Continue(Self::new(core))
    }

    /// Refuses a command without counting an error.
    fn go_on(core: Core, tag: &[u8], out: &mut Vec<u8>) -> Flow {
        Self::append_invalid(tag, out);
        Flow::Continue(Self::new(core))
    }
}

fn close(tag: &[u8], text: &[u8], reason: CloseReason, out: &mut Vec<u8>) -> Flow {
    append_refusal(tag, text, out);
    Flow::Break(Step::Close(reason))
}

fn append_refusal(tag: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if tag.is_empty() { b"* " } else { tag });
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Returns which login commands are accepted.
fn logins(core: &Core) -> Logins {
    if core.lacks_tls() {
        Logins::NeedTls
    } else if core.config.takes_passwords() {
        Logins::Taken
    } else {
        Logins::ByAuthenticate
    }
}

fn append_ok(tag: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(tag);
    out.extend_from_slice(b"OK completed\r\n");
}

/// Appends the capabilities (NGINX section 5.6).
fn append_capabilities(core: &Core, out: &mut Vec<u8>) {
    out.extend_from_slice(b"* CAPABILITY");
    for capability in &core.config.capabilities {
        out.push(b' ');
        out.extend_from_slice(capability.as_bytes());
    }
    if core.lacks_tls() {
        out.extend_from_slice(b" STARTTLS LOGINDISABLED");
    } else {
        for mechanism in core.announced() {
            out.extend_from_slice(b" AUTH=");
            out.extend_from_slice(mechanism.as_bytes());
        }
        if core.offers_start_tls() {
            out.extend_from_slice(b" STARTTLS");
        }
        if !core.config.takes_passwords() {
            out.extend_from_slice(b" LOGINDISABLED");
        }
    }
    out.extend_from_slice(b"\r\n");
}

const INVALID_COMMAND: &[u8] = b"BAD invalid command";
/// RFC 5530 section 3 and RFC 9051 section 6.2.3.
const NEEDS_TLS: &[u8] = b"NO [PRIVACYREQUIRED] STARTTLS is required before a login";
const NO_PASSWORDS: &[u8] = b"NO [CANNOT] LOGIN is disabled";
/// RFC 9051 section 6.2.2.
const UNKNOWN_MECHANISM: &[u8] = b"NO [CANNOT] unsupported authentication mechanism";
