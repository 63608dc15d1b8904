//! The SMTP frontend before the login, or before the first recipient (RFC 5321, RFC 4954, RFC 3207): NGINX section 7,
//! with fixed quirks.

pub(super) mod command;
mod name;

use std::ops::ControlFlow;

use self::command::{Line as CommandLine, Verb};
use super::frontend::core::{Core, Line};
use super::frontend::{CloseReason, PendingLogin, StartTls, Step, Waiting};
use super::input::Input;
use super::login::{Envelope, Hello, LoginRequest};
use super::sasl::Mechanism;
use super::sasl::dialogue::{Dialogue, Progress, first_word};

#[derive(Debug)]
pub(crate) struct Smtp {
    core: Core,
    said: Said,
    state: SmtpState,
}

/// What the next line is.
#[derive(Debug)]
enum SmtpState {
    Command,
    /// A response to our challenge.
    Answer(Dialogue),
}

/// What the client sent that survives a command.
#[derive(Debug, Default)]
struct Said {
    hello: Option<Hello>,
    mail: Option<Vec<u8>>,
}

/// Either the machine for the next line, or a step for the caller.
type Flow = ControlFlow<Step, Smtp>;

impl Smtp {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, said: Said::default(), state: SmtpState::Command }
    }

    /// Continues after a refused login. HELO and MAIL are kept, so that the client can try another RCPT.
    pub(crate) fn resume(core: Core, envelope: Envelope) -> Self {
        let Envelope { hello, mail, rcpt: _ } = envelope;
        Self { core, said: Said { hello, mail }, state: SmtpState::Command }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        append_named("220 ", &self.core, " ESMTP ready\r\n", out);
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
        out.extend_from_slice(INVALID_COMMAND);
    }

    fn next(mut self, input: &mut Input, out: &mut Vec<u8>) -> Flow {
        let line = match self.state {
            SmtpState::Answer(_) => self.core.take_answer(input),
            SmtpState::Command => self.core.take_command(input),
        };
        let line = match line {
            Line::Incomplete => return Flow::Break(Step::Read(self.into())),
            Line::TooLong => return close(CloseReason::TooLong, out),
            Line::Whole(line) => line,
        };
        if self.core.exceeds_commands() {
            return close(CloseReason::TooManyCommands, out);
        }
        if let SmtpState::Answer(dialogue) = std::mem::replace(&mut self.state, SmtpState::Command) {
            return self.proceed(dialogue.answer(first_word(line.expose())), out);
        }
        match command::parse(line.expose()) {
            Some(command) => self.run(&command, out),
            // The chunk follows at once (RFC 3030), and must not be read as commands.
            None if command::announces_chunk(line.expose()) => close(CloseReason::RefusedLiteral, out),
            None if self.core.exhausts_errors() => close(CloseReason::TooManyErrors, out),
            None => self.reply(INVALID_COMMAND, out),
        }
    }

    fn run(self, command: &CommandLine<'_>, out: &mut Vec<u8>) -> Flow {
        match command.verb {
            Verb::Helo => self.hello(command, false, out),
            Verb::Ehlo => self.hello(command, true, out),
            Verb::Auth => self.auth(command, out),
            Verb::Mail => self.mail(command, out),
            Verb::Rcpt => self.rcpt(command, out),
            Verb::Rset => {
                let said = Said { mail: None, ..self.said };
                Self { said, ..self }.reply(OK, out)
            }
            Verb::Noop => self.reply(OK, out),
            Verb::Quit => {
                out.extend_from_slice(b"221 2.0.0 Bye\r\n");
                Flow::Break(Step::Close(CloseReason::Quit))
            }
            Verb::StartTls if self.core.offers_start_tls() => {
                out.extend_from_slice(b"220 2.0.0 Start TLS\r\n");
                Flow::Break(Step::StartTls(StartTls::new(self.core)))
            }
            Verb::StartTls | Verb::Unimplemented => self.refuse(INVALID_COMMAND, out),
        }
    }

    fn hello(self, command: &CommandLine<'_>, extended: bool, out: &mut Vec<u8>) -> Flow {
        let [name] = command.arguments.as_slice() else { return self.refuse(INVALID_ARGUMENT, out) };
        if extended {
            append_extensions(&self.core, out);
        } else {
            append_named("250 ", &self.core, "\r\n", out);
        }
        // A client that sent EHLO once stays an ESMTP client (NGINX section 7.3).
        let extended = extended || self.said.hello.is_some_and(|hello| hello.extended);
        let name = name::in_ascii(name, self.core.client);
        let said = Said { hello: Some(Hello { extended, name }), mail: None };
        Flow::Continue(Self { core: self.core, said, state: SmtpState::Command })
    }

    fn auth(mut self, command: &CommandLine<'_>, out: &mut Vec<u8>) -> Flow {
        if self.core.lacks_tls() {
            return self.refuse(NEEDS_TLS, out);
        }
        if !self.core.takes_sasl() {
            return self.refuse(NO_LOGINS, out);
        }
        // RFC 4954 section 4: AUTH is not allowed in a transaction.
        if self.is_out_of_sequence() || (self.is_strict() && self.said.mail.is_some()) {
            return self.refuse(BAD_SEQUENCE, out);
        }
        if command.arguments.is_empty() {
            return self.refuse(INVALID_ARGUMENT, out);
        }
        let progress = Dialogue::begin(&mut self.core, &command.arguments);
        self.proceed(progress, out)
    }

    fn mail(self, command: &CommandLine<'_>, out: &mut Vec<u8>) -> Flow {
        // RFC 3207 section 4. nginx accepts MAIL (quirk Q-06).
        if self.core.lacks_tls() && !self.core.config.smtp.anonymous_before_tls {
            return self.refuse(NEEDS_TLS, out);
        }
        if !self.core.is_enabled(Mechanism::None) {
            return self.refuse(b"530 5.7.1 Authentication required\r\n", out);
        }
        if self.is_out_of_sequence() || self.said.mail.is_some() {
            return self.refuse(BAD_SEQUENCE, out);
        }
        if command.arguments.is_empty() || !(command.raw.is_ascii() || command.asks_for_utf8()) {
            return self.refuse(INVALID_ARGUMENT, out);
        }
        let said = Said { mail: Some(command.raw.to_vec()), ..self.said };
        Self { said, ..self }.reply(OK, out)
    }

    fn rcpt(self, command: &CommandLine<'_>, out: &mut Vec<u8>) -> Flow {
        let Some(mail) = &self.said.mail else { return self.refuse(BAD_SEQUENCE, out) };
        let utf8 = command::parse(mail).is_some_and(|mail| mail.asks_for_utf8());
        if command.arguments.is_empty() || !(command.raw.is_ascii() || utf8) {
            return self.refuse(INVALID_ARGUMENT, out);
        }
        let Said { hello, mail } = self.said;
        let envelope = Envelope { hello, mail, rcpt: Some(command.raw.to_vec()) };
        Flow::Break(PendingLogin::begin(self.core, LoginRequest::Anonymous, Waiting::Smtp { envelope }, out))
    }

    /// Tells whether HELO or EHLO is missing (RFC 5321 section 4.1.4, quirk Q-27).
    fn is_out_of_sequence(&self) -> bool {
        self.is_strict() && self.said.hello.is_none()
    }

    fn is_strict(&self) -> bool {
        self.core.config.smtp.strict_sequence
    }

    fn proceed(self, progress: Progress, out: &mut Vec<u8>) -> Flow {
        match progress {
            Progress::Challenge(text, dialogue) => {
                out.extend_from_slice(b"334 ");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
                Flow::Continue(Self { state: SmtpState::Answer(dialogue), ..self })
            }
            Progress::Complete(request) => {
                let Said { hello, mail } = self.said;
                let waiting = Waiting::Smtp { envelope: Envelope { hello, mail, rcpt: None } };
                Flow::Break(PendingLogin::begin(self.core, request, waiting, out))
            }
            Progress::Cancelled => self.reply(INVALID_COMMAND, out),
            Progress::Invalid => self.refuse(INVALID_COMMAND, out),
            Progress::Unsupported => self.refuse(UNKNOWN_MECHANISM, out),
        }
    }

    /// Refuses a known command with this reply.
    fn refuse(mut self, line: &[u8], out: &mut Vec<u8>) -> Flow {
        if self.core.exhausts_errors_with_refusal() {
            out.extend_from_slice(line);
            return Flow::Break(Step::Close(CloseReason::TooManyErrors));
        }
        self.reply(line, out)
    }

    fn reply(self, line: &[u8], out: &mut Vec<u8>) -> Flow {
        out.extend_from_slice(line);
        Flow::Continue(self)
    }
}

fn close(reason: CloseReason, out: &mut Vec<u8>) -> Flow {
    Smtp::append_invalid(out);
    Flow::Break(Step::Close(reason))
}

fn append_named(before: &str, core: &Core, after: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(core.config.server_name.as_bytes());
    out.extend_from_slice(after.as_bytes());
}

/// Appends the reply to EHLO (NGINX section 7.4).
fn append_extensions(core: &Core, out: &mut Vec<u8>) {
    let mut lines = vec![core.config.server_name.clone()];
    lines.extend(core.config.capabilities.iter().cloned());
    let mechanisms: Vec<&str> = core.announced().collect();
    if !core.lacks_tls() && !mechanisms.is_empty() {
        lines.push(format!("AUTH {}", mechanisms.join(" ")));
    }
    if core.offers_start_tls() {
        lines.push("STARTTLS".to_owned());
    }
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        out.extend_from_slice(if lines.peek().is_some() { b"250-" } else { b"250 " });
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

const OK: &[u8] = b"250 2.0.0 OK\r\n";
/// The reply to a command that is not known or cannot be read.
pub(super) const INVALID_COMMAND: &[u8] = b"500 5.5.1 Invalid command\r\n";
/// The reply to a known command with wrong arguments.
pub(super) const INVALID_ARGUMENT: &[u8] = b"501 5.5.4 Invalid argument\r\n";
/// RFC 3207 section 4.
const NEEDS_TLS: &[u8] = b"530 5.7.0 Must issue a STARTTLS command first\r\n";
const NO_LOGINS: &[u8] = b"503 5.5.1 Authentication is not enabled\r\n";
/// RFC 4954 section 4.
const UNKNOWN_MECHANISM: &[u8] = b"504 5.5.4 Unrecognized authentication type\r\n";
const BAD_SEQUENCE: &[u8] = b"503 5.5.1 Bad sequence of commands\r\n";
