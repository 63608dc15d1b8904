//! Follows an SMTP session after its login, so that a client's XCLIENT or XFORWARD reaches no backend that trusts us.
//!
//! Command lines are passed whole, after their verb was checked. Messages and chunks are passed as they arrive. The
//! backend decides what is a message, so nothing is passed after DATA before its reply; for this, replies are
//! counted. BDAT is followed by its bytes whatever the reply (RFC 3030 section 2), if the backend offers CHUNKING.
//!
//! AUTH is refused: the proxy would not see its password, could not count failed logins, and could not require TLS. After
//! a login, RFC 4954 section 4 asks for this too; but a backend that the proxy does not log in to would accept it.
//!
//! Sometimes it is not known how the backend reads the bytes ([`SmtpState::Doubt`]): after a possible end of a message that
//! servers disagree about, or after a reply that answers no command. Then all bytes are passed for the rest of the
//! session, except that a line starting with a refused command ends the session. So does a line starting with BDAT: a
//! chunk may end within a line, and a command could follow there that does not start a line.
//!
//! Where routes place every recipient ([`SmtpStart::is_routed`]), the caller may refuse each RCPT. The session leaves
//! ([`SmtpState::Leaving`]) at the MAIL of the next transaction, which may belong to another backend, and at EHLO or
//! HELO, which the proxy answers for all backends. In doubt, RCPT is a refused command.

mod refused;

use memchr::{memchr, memchr2};

use crate::protocol::smtp::command::{self, Verb};
use crate::protocol::smtp::{INVALID_ARGUMENT, INVALID_COMMAND};

use super::ending::{Asked, CLOSING, Ending};
use super::replies::{Replies, Reply};
use super::text::{Extent, Place, chunk_size};
use super::{CloseReason, Interrupted, MAX_COMMAND_LINE, Passage, SmtpStart};
use refused::{
    AUTH, BDAT, CONTROL_CHARACTERS, EHLO, HELO, MAIL, NONE, RCPT, Refused, Resemblance, STARTTLS, TOO_LONG,
    XCLIENT, XFORWARD, resemblance,
};

/// Follows both directions.
#[derive(Debug)]
pub(super) struct SmtpFollower {
    state: SmtpState,
    replies: Replies,
    ending: Ending,
    answer: Option<&'static [u8]>,
    start: SmtpStart,
    /// The backend may have a sender and recipients for the next message.
    is_open: bool,
}

/// How the client's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SmtpState {
    Commands,
    /// DATA was passed; its reply decides.
    Data,
    Message(Place),
    /// Remaining bytes of a chunk.
    Chunk(u64),
    /// A command was refused. The answer waits until the backend has replied to the commands before it.
    Refusing(&'static [u8]),
    /// The next command is not for the backend. The session leaves when the backend has replied to the commands before.
    Leaving,
    /// `at_start`: at the start of a line.
    Doubt {
        at_start: bool,
    },
    /// Within a command line that is too long; its rest is dropped.
    Overlong,
    /// In doubt within a chunk: it is not known where the next command starts.
    Lost,
}

/// What the client's next bytes are.
enum Look {
    /// Bytes to pass, the state after them, and what the backend replies to.
    Pass {
        length: usize,
        state: SmtpState,
        asked: Asked,
    },
    /// Nothing to pass; only the state changes.
    Turn(SmtpState),
    /// A command to drop, with the answer for the client.
    Refuse {
        length: usize,
        answer: &'static [u8],
    },
    /// This many bytes of a command line that is too long.
    Skip(usize),
    Other(Passage),
}

impl SmtpFollower {
    /// The backend's reply to the login is still expected.
    pub(super) const fn new(start: SmtpStart) -> Self {
        Self {
            state: SmtpState::Commands,
            replies: Replies::new(),
            ending: Ending::new(),
            answer: None,
            start,
            is_open: true,
        }
    }

    pub(super) const fn take_answer(&mut self) -> Option<&'static [u8]> {
        self.answer.take()
    }

    pub(super) const fn may_go_on(&self) -> bool {
        let waits = matches!(self.state, SmtpState::Data | SmtpState::Refusing(_) | SmtpState::Leaving);
        !waits && self.answer.is_none()
    }

    /// Tells whether the next command is not for the backend, and the backend owes no reply.
    pub(super) const fn may_leave(&self) -> bool {
        matches!(self.state, SmtpState::Leaving)
            && self.ending.outstanding() == 0
            && self.replies.is_between()
            && self.answer.is_none()
    }

    /// Tells whether the backend may have a sender and recipients for the next message.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) const fn is_between_replies(&self) -> bool {
        self.replies.is_between()
    }

    pub(super) const fn interrupted(&self) -> Option<Interrupted> {
        match self.state {
            SmtpState::Doubt { .. } | SmtpState::Lost => None,
            _ if self.ending.is_agreed() => None,
            SmtpState::Message(_) | SmtpState::Chunk(1..) => Some(Interrupted::Message),
            _ => self.ending.interrupted(self.replies.is_between()),
        }
    }

    /// Decides about the client's bytes. Passes several commands and messages at once as long as they need no reply in
    /// between. `refusal` gets RCPT lines and returns the answer for those that are refused.
    pub(super) fn client(
        &mut self,
        bytes: &[u8],
        mut refusal: impl FnMut(&[u8]) -> Option<&'static [u8]>,
    ) -> Passage {
        let mut passed = 0_usize;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            // A recipient is shown to the caller only once, so only as the first of the bytes.
            if passed > 0 && self.start.is_routed && self.state == SmtpState::Commands {
                return Passage::Pass(passed);
            }
            let look =
                if rest.is_empty() { Look::Other(Passage::More) } else { self.look(rest, &mut refusal) };
            match look {
                Look::Turn(state) => self.state = state,
                Look::Pass { length, state, asked } => {
                    self.state = state;
                    self.ending.asked(asked);
                    self.is_open &= !asked.ends_transaction();
                    passed = passed.saturating_add(length);
                }
                Look::Refuse { .. } | Look::Skip(_) | Look::Other(_) if passed > 0 => {
                    return Passage::Pass(passed);
                }
                Look::Refuse { length, answer } => {
                    self.state = SmtpState::Refusing(answer);
                    self.settle(0);
                    return Passage::Drop(length);
                }
                Look::Skip(length) => {
                    self.state = SmtpState::Overlong;
                    return Passage::Drop(length);
                }
                Look::Other(passage) => return passage,
            }
        }
    }

    pub(super) fn backend(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((reply, next)) = self.replies.next(rest) {
            rest = next;
            self.replied(reply);
        }
    }

    fn replied(&mut self, reply: Reply) {
        if matches!(self.state, SmtpState::Doubt { .. } | SmtpState::Lost) {
            return;
        }
        if self.ending.replied(reply) {
            self.settle(reply.code);
        } else if reply.code != CLOSING {
            self.doubt();
        }
        // The backend ends the session, and the client has been told.
        if self.state == SmtpState::Leaving && self.ending.is_announced() {
            self.state = SmtpState::Commands;
        }
    }

    /// Continues if the last expected reply has arrived, with this code.
    fn settle(&mut self, code: u16) {
        let is_last = self.ending.outstanding() == 0;
        match (self.state, code) {
            (SmtpState::Data, GO_AHEAD) if is_last => self.state = SmtpState::Message(Place::FIRST),
            // These replies belong to no known command.
            (_, GO_AHEAD | CHALLENGE) => self.doubt(),
            (SmtpState::Data, _) if is_last => self.state = SmtpState::Commands,
            (SmtpState::Refusing(answer), _) if is_last => {
                self.answer = Some(answer);
                self.state = SmtpState::Commands;
            }
            _ => {}
        }
    }

    /// Changes to doubt. The client gets no answer to a command that was refused meanwhile, because it is not known
    /// which replies are due.
    const fn doubt(&mut self) {
        self.state = match self.state {
            SmtpState::Chunk(1..) | SmtpState::Lost => SmtpState::Lost,
            _ => SmtpState::Doubt { at_start: true },
        };
    }

    fn look(&self, bytes: &[u8], refusal: impl FnMut(&[u8]) -> Option<&'static [u8]>) -> Look {
        let pass = |length, state| Look::Pass { length, state, asked: Asked::Nothing };
        match self.state {
            _ if !self.may_go_on() => Look::Other(Passage::Wait),
            SmtpState::Data | SmtpState::Refusing(_) | SmtpState::Leaving => Look::Other(Passage::Wait),
            SmtpState::Commands => self.look_at_command(bytes, refusal),
            SmtpState::Overlong => look_at_overlong(bytes),
            SmtpState::Message(place) => match place.read(bytes) {
                Extent::All(place) => pass(bytes.len(), SmtpState::Message(place)),
                Extent::End(length) => {
                    Look::Pass { length, state: SmtpState::Commands, asked: Asked::LastContent }
                }
                Extent::Doubt(0) => Look::Turn(SmtpState::Doubt { at_start: true }),
                Extent::Doubt(length) => pass(length, SmtpState::Doubt { at_start: true }),
            },
            SmtpState::Chunk(0) => Look::Turn(SmtpState::Commands),
            SmtpState::Chunk(size) => {
                let length = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                let left = size.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                pass(length, SmtpState::Chunk(left))
            }
            SmtpState::Lost => Look::Other(Passage::Close(CloseReason::DoubtfulCommand)),
            SmtpState::Doubt { at_start: true } => look_in_doubt(bytes, self.rcpt()),
            SmtpState::Doubt { at_start: false } => {
                let end = memchr2(b'\r', b'\n', bytes).map(|end| end.saturating_add(1));
                pass(end.unwrap_or(bytes.len()), SmtpState::Doubt { at_start: end.is_some() })
            }
        }
    }

    fn look_at_command(&self, bytes: &[u8], refusal: impl FnMut(&[u8]) -> Option<&'static [u8]>) -> Look {
        let line = match whole_line(bytes) {
            Ok(line) => line,
            Err(Passage::Close(CloseReason::TooLong)) => return look_at_overlong(bytes),
            Err(passage) => return Look::Other(passage),
        };
        let length = line.len();
        let text = line.trim_ascii_end();
        if text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Look::Refuse { length, answer: CONTROL_CHARACTERS };
        }
        if let Resemblance::Is(answer) = resemblance(text, true, [XCLIENT, XFORWARD, STARTTLS, AUTH]) {
            return Look::Refuse { length, answer };
        }
        if self.start.is_routed
            && let Some(look) = self.look_at_envelope(length, text, refusal)
        {
            return look;
        }
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (state, asked) = match words.next().unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"DATA" => (SmtpState::Data, Asked::Content),
            b"QUIT" => (SmtpState::Commands, Asked::Goodbye),
            b"BDAT" => match chunk_size(words).filter(|_| self.takes_chunks()) {
                Some((size, true)) => (SmtpState::Chunk(size), Asked::LastContent),
                Some((size, false)) => (SmtpState::Chunk(size), Asked::Content),
                // Some backends read the following bytes as commands.
                None => return Look::Other(Passage::Close(CloseReason::RefusedLiteral)),
            },
            b"RSET" if words.next().is_none() => (SmtpState::Commands, Asked::Reset),
            _ => (SmtpState::Commands, Asked::Command),
        };
        Look::Pass { length, state, asked }
    }

    /// Handles a command that concerns the envelope, where routes place its recipients. `None`: it is passed as without
    /// routes.
    fn look_at_envelope(
        &self,
        length: usize,
        text: &[u8],
        mut refusal: impl FnMut(&[u8]) -> Option<&'static [u8]>,
    ) -> Option<Look> {
        // Backends may read more spellings than we do. What we cannot read of the envelope is not passed.
        let Some(line) = command::parse(text) else {
            let is_envelope = matches!(resemblance(text, true, [RCPT, MAIL, HELO, EHLO]), Resemblance::Is(_));
            return is_envelope.then_some(Look::Refuse { length, answer: INVALID_COMMAND });
        };
        let is_leaving = match line.verb {
            Verb::Rcpt if line.arguments.is_empty() => {
                return Some(Look::Refuse { length, answer: INVALID_ARGUMENT });
            }
            Verb::Rcpt => {
                return Some(match refusal(line.raw) {
                    Some(answer) => Look::Refuse { length, answer },
                    None => Look::Pass { length, state: SmtpState::Commands, asked: Asked::Command },
                });
            }
            Verb::Helo | Verb::Ehlo if line.arguments.len() != 1 => {
                return Some(Look::Refuse { length, answer: INVALID_ARGUMENT });
            }
            Verb::Helo | Verb::Ehlo => true,
            Verb::Mail => !self.is_open,
            _ => false,
        };
        (is_leaving && !self.ending.is_announced()).then_some(Look::Turn(SmtpState::Leaving))
    }

    /// If the login used HELO, the reply to a later EHLO tells.
    const fn takes_chunks(&self) -> bool {
        self.start.takes_chunks || self.replies.offers_chunking()
    }

    /// In doubt, a recipient cannot be refused in its place.
    const fn rcpt(&self) -> Refused {
        if self.start.is_routed { RCPT } else { NONE }
    }
}

/// Handles a command line that is too long, up to its end.
fn look_at_overlong(bytes: &[u8]) -> Look {
    match memchr(b'\n', bytes) {
        Some(end) => Look::Refuse { length: end.saturating_add(1), answer: TOO_LONG },
        None => Look::Skip(bytes.len()),
    }
}

/// Returns the line at the front, with its LF.
fn whole_line(bytes: &[u8]) -> Result<&[u8], Passage> {
    let length = memchr(b'\n', bytes).map(|end| end.saturating_add(1));
    match length {
        Some(length) if length <= MAX_COMMAND_LINE => Ok(bytes.get(..length).unwrap_or_default()),
        None if bytes.len() < MAX_COMMAND_LINE => Err(Passage::More),
        Some(_) | None => Err(Passage::Close(CloseReason::TooLong)),
    }
}

/// Handles the start of a line that may be a command or text.
fn look_in_doubt(bytes: &[u8], rcpt: Refused) -> Look {
    let end = memchr2(b'\r', b'\n', bytes);
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let auth = if may_be_auth(line) { AUTH } else { NONE };
    let candidates = [XCLIENT, XFORWARD, STARTTLS, BDAT, auth, rcpt];
    match (resemblance(line, end.is_some(), candidates), end) {
        (Resemblance::Is(_), _) => Look::Other(Passage::Close(CloseReason::DoubtfulCommand)),
        (Resemblance::MayBecome, None) if bytes.len() >= MAX_COMMAND_LINE => {
            Look::Other(Passage::Close(CloseReason::TooLong))
        }
        (Resemblance::MayBecome, None) => Look::Other(Passage::More),
        (Resemblance::No | Resemblance::MayBecome, _) => {
            let length = end.map_or(line.len(), |end| end.saturating_add(1));
            let state = SmtpState::Doubt { at_start: end.is_some() };
            Look::Pass { length, state, asked: Asked::Nothing }
        }
    }
}

/// Tells whether the start of a line may be the command AUTH and no text, such as `Auth: x`, `"auth": 1` or `> auth`.
fn may_be_auth(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let (verb, rest) = line.split_at(line.len().min(4));
    b"AUTH".get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb))
        && rest.first().is_none_or(u8::is_ascii_whitespace)
}

/// Replies that change how the client's bytes are read.
const GO_AHEAD: u16 = 354;
const CHALLENGE: u16 = 334;

#[cfg(test)]
mod tests;
