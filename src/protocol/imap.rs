//! IMAP before the login (RFC 9051 section 6.1 and 6.2): NGINX section 5, with its repairs.

mod command;
pub(crate) mod id;

use std::ops::ControlFlow;

use crate::secret::Secret;

use self::command::{Command, Reader, Received, Rejected, Rejection, Verb};
use super::frontend::core::{Core, Line};
use super::frontend::{CloseReason, PendingLogin, StartTls, Step, Waiting};
use super::input::Input;
use super::login::LoginRequest;
use super::sasl::dialogue::{Dialogue, Progress, first_word};

/// The IMAP frontend.
#[derive(Debug)]
pub(crate) struct Imap {
    core: Core,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The next line begins a command.
    Command(Reader),
    /// The next line answers our challenge.
    Answer { tag: Vec<u8>, dialogue: Dialogue },
}

/// Either the machine for the next command, or what has to happen outside first.
type Flow = ControlFlow<Step, Imap>;

impl Imap {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, state: State::Command(Reader::default()) }
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
                State::Command(reader) => Self::read_command(self.core, reader, input, out),
                State::Answer { tag, dialogue } => Self::read_answer(self.core, tag, dialogue, input, out),
            };
            match flow {
                Flow::Continue(next) => self = next,
                Flow::Break(step) => return step,
            }
        }
    }

    /// `BAD`, with the command's tag, or `*` where it has none that can be used.
    pub(crate) fn append_invalid(tag: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(if tag.is_empty() { b"* " } else { tag });
        out.extend_from_slice(b"BAD invalid command\r\n");
    }

    fn read_command(mut core: Core, mut reader: Reader, input: &mut Input, out: &mut Vec<u8>) -> Flow {
        let command = match reader.read(core.lacks_tls(), input, out) {
            Received::Incomplete => {
                return Flow::Break(Step::Read(Self { core, state: State::Command(reader) }.into()));
            }
            Received::TooLong { tag } => return close(&tag, CloseReason::TooLong, out),
            Received::Command(command) => Ok(command),
            Received::Rejected(rejected) => Err(rejected),
        };
        if core.exceeds_commands() {
            let (Ok(Command { tag, .. }) | Err(Rejected { tag, .. })) = &command;
            return close(tag, CloseReason::TooManyCommands, out);
        }
        match command {
            Ok(command) => Self::run(core, command, out),
            Err(Rejected { tag, literal_follows: true, .. }) => close(&tag, CloseReason::RefusedLiteral, out),
            Err(Rejected { tag, reason: Rejection::NeedsTls, .. }) => Self::invalid(core, &tag, out),
            Err(Rejected { tag, .. }) if core.exhausts_errors() => {
                close(&tag, CloseReason::TooManyErrors, out)
            }
            Err(Rejected { tag, .. }) => Self::go_on(core, &tag, out),
        }
    }

    fn read_answer(
        mut core: Core,
        tag: Vec<u8>,
        dialogue: Dialogue,
        input: &mut Input,
        out: &mut Vec<u8>,
    ) -> Flow {
        let line = match core.take_line(input) {
            Line::Incomplete => {
                return Flow::Break(Step::Read(Self { core, state: State::Answer { tag, dialogue } }.into()));
            }
            Line::TooLong => return close(&tag, CloseReason::TooLong, out),
            Line::Whole(line) => line,
        };
        if core.exceeds_commands() {
            return close(&tag, CloseReason::TooManyCommands, out);
        }
        let progress = dialogue.answer(first_word(line.expose()));
        let refused = matches!(progress, Progress::Invalid | Progress::Cancelled);
        if refused && line.expose().ends_with(b"+}") {
            return close(&tag, CloseReason::RefusedLiteral, out);
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
            // RFC 5161 allows ENABLE after the login only; it is no mistake that counts (quirk Q-31).
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
                Flow::Continue(Self { core, state: State::Answer { tag, dialogue } })
            }
            Progress::Complete(request) => {
                Flow::Break(PendingLogin::begin(core, request, Waiting::Imap { tag }, out))
            }
            Progress::Cancelled => Self::go_on(core, &tag, out),
            Progress::Invalid => Self::invalid(core, &tag, out),
        }
    }

    /// A command that is known and wrong here.
    fn invalid(mut core: Core, tag: &[u8], out: &mut Vec<u8>) -> Flow {
        if core.exhausts_errors_with_refusal() {
            return close(tag, CloseReason::TooManyErrors, out);
        }
        Self::go_on(core, tag, out)
    }

    /// Refused, and not counted here.
    fn go_on(core: Core, tag: &[u8], out: &mut Vec<u8>) -> Flow {
        Self::append_invalid(tag, out);
        Flow::Continue(Self::new(core))
    }
}

fn close(tag: &[u8], reason: CloseReason, out: &mut Vec<u8>) -> Flow {
    Imap::append_invalid(tag, out);
    Flow::Break(Step::Close(reason))
}

fn append_ok(tag: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(tag);
    out.extend_from_slice(b"OK completed\r\n");
}

/// NGINX section 5.6.
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
    }
    out.extend_from_slice(b"\r\n");
}
