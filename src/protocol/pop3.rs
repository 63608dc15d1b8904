//! The POP3 frontend before the login (RFC 1939, RFC 2449, RFC 2595, RFC 5034): NGINX section 6, with fixed quirks.

mod command;

use std::ops::ControlFlow;

use crate::secret::Secret;

use self::command::Command;
use super::frontend::core::{Core, Line};
use super::frontend::{CloseReason, PendingLogin, StartTls, Step, Waiting};
use super::input::Input;
use super::login::LoginRequest;
use super::sasl::Mechanism;
use super::sasl::dialogue::{Dialogue, Progress, first_word};

#[derive(Debug)]
pub(crate) struct Pop3 {
    core: Core,
    state: Pop3State,
}

#[derive(Debug)]
enum Pop3State {
    /// Any command may follow.
    Start,
    /// USER was accepted; PASS may follow.
    User { login: Vec<u8> },
    /// The next line is a response to our challenge.
    Answer(Dialogue),
}

/// Either the machine for the next line, or a step for the caller.
type Flow = ControlFlow<Step, Pop3>;

impl Pop3 {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, state: Pop3State::Start }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Appends the greeting, with a challenge if APOP or CRAM-MD5 is enabled and not relayed to the backend.
    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"+OK POP3 ready");
        let digests = [Mechanism::Apop, Mechanism::CramMd5];
        if !self.core.config.relay_sasl && digests.into_iter().any(|digest| self.core.is_enabled(digest)) {
            out.push(b' ');
            out.extend_from_slice(&self.core.greeting_challenge());
        }
        out.extend_from_slice(b"\r\n");
    }

    pub(crate) fn receive(mut self, input: &mut Input, out: &mut Vec<u8>) -> Step {
        loop {
            match self.next(input, out) {
                Flow::Continue(next) => self = next,
                Flow::Break(step) => return step,
            }
        }
    }

    pub(crate) fn append_invalid(out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR invalid command\r\n");
    }

    fn next(mut self, input: &mut Input, out: &mut Vec<u8>) -> Flow {
        let line = match &self.state {
            Pop3State::Answer(_) => self.core.take_answer(input),
            Pop3State::Start | Pop3State::User { .. } => self.core.take_command(input),
        };
        let line = match line {
            Line::Incomplete => return Flow::Break(Step::Read(self.into())),
            Line::TooLong => return close(CloseReason::TooLong, out),
            Line::Whole(line) => line,
        };
        if self.core.exceeds_commands() {
            return close(CloseReason::TooManyCommands, out);
        }
        let Self { mut core, state } = self;
        let user = match state {
            Pop3State::Answer(dialogue) => {
                return Self::proceed(core, dialogue.answer(first_word(line.expose())), out);
            }
            Pop3State::Start => None,
            Pop3State::User { login } => Some(login),
        };
        match command::parse(line.expose()) {
            Some(command) => match user {
                None => Self::run(core, command, out),
                Some(login) => Self::run_after_user(core, login, command, out),
            },
            None if core.exhausts_errors() => close(CloseReason::TooManyErrors, out),
            None => Self::go_on(core, out),
        }
    }

    fn run(mut core: Core, command: Command<'_>, out: &mut Vec<u8>) -> Flow {
        match command {
            Command::Noop => out.extend_from_slice(b"+OK\r\n"),
            Command::Quit => return quit(out),
            Command::Capa => append_capabilities(&core, true, out),
            Command::Stls if core.offers_start_tls() => {
                out.extend_from_slice(b"+OK\r\n");
                return Flow::Break(Step::StartTls(StartTls::new(core)));
            }
            // All commands below log in.
            _ if core.lacks_tls() => return Self::invalid(core, out),
            Command::User(login) if !login.is_empty() && core.config.takes_passwords() => {
                out.extend_from_slice(b"+OK\r\n");
                return Flow::Continue(Self { core, state: Pop3State::User { login: login.to_vec() } });
            }
            Command::Auth(arguments) if arguments.is_empty() => append_mechanisms(&core, out),
            Command::Auth(arguments) => {
                let progress = Dialogue::begin(&mut core, &arguments);
                return Self::proceed(core, progress, out);
            }
            Command::Apop(arguments) => return Self::apop(core, &arguments, out),
            Command::User(_) | Command::Pass(_) | Command::Stls => return Self::invalid(core, out),
        }
        Flow::Continue(Self::new(core))
    }

    /// Commands that are not accepted here return to the start state (NGINX section 6.2).
    fn run_after_user(core: Core, login: Vec<u8>, command: Command<'_>, out: &mut Vec<u8>) -> Flow {
        match command {
            Command::Noop => out.extend_from_slice(b"+OK\r\n"),
            Command::Quit => return quit(out),
            Command::Capa => append_capabilities(&core, false, out),
            Command::Pass(password) if !password.is_empty() => {
                let password = Secret::from(password);
                let request = LoginRequest::Password { login, password, authzid: Vec::new() };
                return Flow::Break(PendingLogin::begin(core, request, Waiting::Pop3, out));
            }
            _ => return Self::invalid(core, out),
        }
        Flow::Continue(Self { core, state: Pop3State::User { login } })
    }

    /// APOP is not relayed, because the greeting's challenge was ours and not the backend's.
    fn apop(core: Core, arguments: &[&[u8]], out: &mut Vec<u8>) -> Flow {
        let [login, digest] = arguments else { return Self::invalid(core, out) };
        if !core.is_enabled(Mechanism::Apop) || core.config.relay_sasl {
            return Self::invalid(core, out);
        }
        let request = LoginRequest::Digest {
            mechanism: Mechanism::Apop,
            login: login.to_vec(),
            digest: Secret::from(*digest),
            salt: core.greeting_challenge(),
        };
        Flow::Break(PendingLogin::begin(core, request, Waiting::Pop3, out))
    }

    fn proceed(core: Core, progress: Progress, out: &mut Vec<u8>) -> Flow {
        match progress {
            Progress::Challenge(text, dialogue) => {
                out.extend_from_slice(b"+ ");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
                Flow::Continue(Self { core, state: Pop3State::Answer(dialogue) })
            }
            Progress::Complete(request) => {
                Flow::Break(PendingLogin::begin(core, request, Waiting::Pop3, out))
            }
            Progress::Cancelled => Self::go_on(core, out),
            Progress::Invalid | Progress::Unsupported => Self::invalid(core, out),
        }
    }

    /// Refuses a known command as invalid in this state.
    fn invalid(mut core: Core, out: &mut Vec<u8>) -> Flow {
        if core.exhausts_errors_with_refusal() {
            return close(CloseReason::TooManyErrors, out);
        }
        Self::go_on(core, out)
    }

    /// Refuses a command without counting an error.
    fn go_on(core: Core, out: &mut Vec<u8>) -> Flow {
        Self::append_invalid(out);
        Flow::Continue(Self::new(core))
    }
}

fn close(reason: CloseReason, out: &mut Vec<u8>) -> Flow {
    Pop3::append_invalid(out);
    Flow::Break(Step::Close(reason))
}

fn quit(out: &mut Vec<u8>) -> Flow {
    out.extend_from_slice(b"+OK\r\n");
    Flow::Break(Step::Close(CloseReason::Quit))
}

/// Appends the capabilities (NGINX section 6.3). STLS is announced only in the start state, where it is accepted.
fn append_capabilities(core: &Core, at_start: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK Capability list follows\r\n");
    let takes_user = !core.lacks_tls() && core.config.takes_passwords();
    for capability in &core.config.capabilities {
        if takes_user || !capability.eq_ignore_ascii_case("USER") {
            out.extend_from_slice(capability.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    if !core.lacks_tls() {
        out.extend_from_slice(b"SASL");
        for mechanism in mechanisms(core) {
            out.push(b' ');
            out.extend_from_slice(mechanism.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    if at_start && core.offers_start_tls() {
        out.extend_from_slice(b"STLS\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

/// Appends the reply to AUTH without an argument.
fn append_mechanisms(core: &Core, out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK methods supported:\r\n");
    for mechanism in mechanisms(core) {
        out.extend_from_slice(mechanism.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

/// nginx announces LOGIN to POP3 clients if PLAIN is enabled.
fn mechanisms(core: &Core) -> impl Iterator<Item = &'static str> {
    let implied = core.is_enabled(Mechanism::Plain) && !core.is_enabled(Mechanism::Login);
    core.announced().flat_map(move |name| {
        let login = (implied && name == Mechanism::Plain.name()).then_some(Mechanism::Login.name());
        std::iter::once(name).chain(login)
    })
}
