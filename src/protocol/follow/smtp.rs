//! Follows an SMTP session after its login, so that a client's XCLIENT or XFORWARD never reaches a backend that trusts
//! us.
//!
//! Command lines are passed whole, after their verb was checked. Messages and chunks are passed as they arrive. The
//! backend decides what is a message, so nothing is passed after DATA or AUTH before their reply; for this, replies are
//! counted. BDAT is followed by its bytes whatever the reply (RFC 3030 section 2), if the backend offers CHUNKING.
//!
//! In a session that started without a login, AUTH is refused: the proxy would not see its password, could not count
//! failed logins, and could not require TLS.
//!
//! Sometimes it is not known how the backend reads the bytes ([`SmtpState::Doubt`]): after a possible end of a message that
//! servers disagree about, or after a reply that answers no command. Then all bytes are passed for the rest of the
//! session, except that a line starting with a refused command ends the session. So does a line starting with BDAT: a
//! chunk may end within a line, and a command could follow there that does not start a line.

use memchr::{memchr, memchr2};

use super::ending::{Asked, CLOSING, Ending};
use super::replies::{Replies, Reply};
use super::text::{Extent, Place};
use super::{CloseReason, Interrupted, MAX_COMMAND_LINE, Passage, SmtpStart};

/// Follows both directions.
#[derive(Debug)]
pub(super) struct SmtpFollower {
    state: SmtpState,
    replies: Replies,
    ending: Ending,
    answer: Option<&'static [u8]>,
    start: SmtpStart,
}

/// How the client's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SmtpState {
    Commands,
    /// DATA was passed; its reply decides.
    Data,
    /// AUTH, or a response to a challenge, was passed; the reply decides.
    Auth,
    /// The next line is a response to a challenge.
    Response,
    Message(Place),
    /// Remaining bytes of a chunk.
    Chunk(u64),
    /// A command was refused. The answer waits until the backend has replied to the commands before it.
    Refusing(&'static [u8]),
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
        }
    }

    pub(super) const fn take_answer(&mut self) -> Option<&'static [u8]> {
        self.answer.take()
    }

    pub(super) const fn may_go_on(&self) -> bool {
        !matches!(self.state, SmtpState::Data | SmtpState::Auth | SmtpState::Refusing(_))
            && self.answer.is_none()
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
    /// between.
    pub(super) fn client(&mut self, bytes: &[u8]) -> Passage {
        let mut passed = 0_usize;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            let look = if rest.is_empty() { Look::Other(Passage::More) } else { self.look(rest) };
            match look {
                Look::Turn(state) => self.state = state,
                Look::Pass { length, state, asked } => {
                    self.state = state;
                    self.ending.asked(asked);
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
    }

    /// Continues if the last expected reply has arrived, with this code.
    fn settle(&mut self, code: u16) {
        let is_last = self.ending.outstanding() == 0;
        match (self.state, code) {
            (SmtpState::Data, GO_AHEAD) if is_last => self.state = SmtpState::Message(Place::FIRST),
            (SmtpState::Auth, CHALLENGE) if is_last => self.state = SmtpState::Response,
            // These replies belong to no known command.
            (_, GO_AHEAD | CHALLENGE) => self.doubt(),
            (SmtpState::Data | SmtpState::Auth, _) if is_last => self.state = SmtpState::Commands,
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

    fn look(&self, bytes: &[u8]) -> Look {
        let pass = |length, state| Look::Pass { length, state, asked: Asked::Nothing };
        match self.state {
            _ if !self.may_go_on() => Look::Other(Passage::Wait),
            SmtpState::Data | SmtpState::Auth | SmtpState::Refusing(_) => Look::Other(Passage::Wait),
            SmtpState::Commands => self.look_at_command(bytes),
            SmtpState::Overlong => look_at_overlong(bytes),
            SmtpState::Response => match whole_line(bytes) {
                Ok(line) => Look::Pass { length: line.len(), state: SmtpState::Auth, asked: Asked::Command },
                Err(passage) => Look::Other(passage),
            },
            SmtpState::Message(place) => match place.read(bytes) {
                Extent::All(place) => pass(bytes.len(), SmtpState::Message(place)),
                Extent::End(length) => {
                    Look::Pass { length, state: SmtpState::Commands, asked: Asked::Content }
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
            SmtpState::Doubt { at_start: true } => look_in_doubt(bytes, self.auth()),
            SmtpState::Doubt { at_start: false } => {
                let end = memchr2(b'\r', b'\n', bytes).map(|end| end.saturating_add(1));
                pass(end.unwrap_or(bytes.len()), SmtpState::Doubt { at_start: end.is_some() })
            }
        }
    }

    fn look_at_command(&self, bytes: &[u8]) -> Look {
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
        if let Resemblance::Is(answer) = resemblance(text, true, [XCLIENT, XFORWARD, STARTTLS, self.auth()]) {
            return Look::Refuse { length, answer };
        }
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (state, asked) = match words.next().unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"DATA" => (SmtpState::Data, Asked::Content),
            b"AUTH" => (SmtpState::Auth, Asked::Command),
            b"QUIT" => (SmtpState::Commands, Asked::Goodbye),
            b"BDAT" => match chunk_size(words).filter(|_| self.takes_chunks()) {
                Some(size) => (SmtpState::Chunk(size), Asked::Content),
                // Some backends read the following bytes as commands.
                None => return Look::Other(Passage::Close(CloseReason::RefusedLiteral)),
            },
            _ => (SmtpState::Commands, Asked::Command),
        };
        Look::Pass { length, state, asked }
    }

    /// If the login used HELO, the reply to a later EHLO tells.
    const fn takes_chunks(&self) -> bool {
        self.start.takes_chunks || self.replies.offers_chunking()
    }

    const fn auth(&self) -> Verb {
        if self.start.is_logged_in { NONE } else { AUTH }
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
fn look_in_doubt(bytes: &[u8], auth: Verb) -> Look {
    let end = memchr2(b'\r', b'\n', bytes);
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let candidates = [XCLIENT, XFORWARD, STARTTLS, BDAT, auth];
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

/// Whether the start of a line is a refused command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resemblance {
    /// It is; this is the answer.
    Is(&'static [u8]),
    /// It may be, depending on the next letters.
    MayBecome,
    No,
}

/// Compares letters only, ignoring case. Backends may skip white space, quotes or NULs before or within a verb, but no
/// letters. `is_whole`: the line has ended.
fn resemblance<const N: usize>(line: &[u8], is_whole: bool, mut candidates: [Verb; N]) -> Resemblance {
    let mut read = 0_usize;
    let ended = |candidates: &[Verb; N], read: usize| {
        let verb = candidates.iter().find(|verb| read > 0 && verb.letters.len() == read);
        verb.map(|verb| Resemblance::Is(verb.answer))
    };
    for byte in line {
        if !byte.is_ascii_alphabetic() {
            match ended(&candidates, read) {
                Some(is) => return is,
                None => continue,
            }
        }
        let mut is_open = false;
        for verb in &mut candidates {
            if verb.letters.get(read).is_some_and(|expected| expected.eq_ignore_ascii_case(byte)) {
                is_open = true;
                if !verb.is_word && verb.letters.len() == read.saturating_add(1) {
                    return Resemblance::Is(verb.answer);
                }
            } else {
                verb.letters = b"";
            }
        }
        if !is_open {
            return Resemblance::No;
        }
        read = read.saturating_add(1);
    }
    ended(&candidates, read).filter(|_| is_whole).unwrap_or(Resemblance::MayBecome)
}

/// Reads the arguments of BDAT: a size of digits only, small enough that all backends read the same number, and
/// perhaps LAST. After anything else, backends disagree whether a chunk follows.
fn chunk_size<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    let (word, last) = (arguments.next()?, arguments.next());
    if last.is_some_and(|last| !last.eq_ignore_ascii_case(b"LAST")) || arguments.next().is_some() {
        return None;
    }
    let digits = word.iter().all(u8::is_ascii_digit);
    let size = std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()?;
    (size <= MAX_CHUNK).then_some(size)
}

/// Replies that change how the client's bytes are read.
const GO_AHEAD: u16 = 354;
const CHALLENGE: u16 = 334;
/// A backend with 32-bit sizes would read the rest of a larger chunk as commands.
const MAX_CHUNK: u64 = i32::MAX as u64;

/// A refused command.
#[derive(Clone, Copy, Debug)]
struct Verb {
    letters: &'static [u8],
    /// The verb must end here; text with further letters is not this command.
    is_word: bool,
    answer: &'static [u8],
}

impl Verb {
    const fn new(letters: &'static [u8], answer: &'static [u8]) -> Self {
        Self { letters, is_word: false, answer }
    }
}

const XCLIENT: Verb = Verb::new(b"XCLIENT", b"503 5.5.1 XCLIENT is not for clients\r\n");
const XFORWARD: Verb = Verb::new(b"XFORWARD", b"503 5.5.1 XFORWARD is not for clients\r\n");
/// After STARTTLS, the stream could not be followed.
const STARTTLS: Verb = Verb::new(b"STARTTLS", b"503 5.5.1 STARTTLS is not possible after the login\r\n");
/// Only as a whole word, because header lines may start with `Authentication-Results`.
const AUTH: Verb =
    Verb { letters: b"AUTH", is_word: true, answer: b"503 5.5.1 AUTH is not possible after RCPT\r\n" };
/// Refused only in doubt, without an answer.
const BDAT: Verb = Verb::new(b"BDAT", b"");
const NONE: Verb = Verb::new(b"", b"");
const CONTROL_CHARACTERS: &[u8] = b"500 5.5.2 Control characters in a command\r\n";
const TOO_LONG: &[u8] = b"500 5.5.2 Line too long\r\n";

#[cfg(test)]
mod tests;
