//! Parses one IMAP command (RFC 9051 section 9).

use crate::protocol::frontend::core::with_response;
use crate::protocol::strings::{self, Scanner};
use crate::secret::Secret;

use super::command::{Logins, Rejection, Verb};
use super::id::{ClientId, MAX_PARAMETERS};

/// Why parsing ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Rejected(Rejection),
    Incomplete { literal_end: usize },
}

impl From<strings::Stop> for Stop {
    fn from(stop: strings::Stop) -> Self {
        match stop {
            strings::Stop::Invalid => INVALID,
            strings::Stop::Incomplete { literal_end } => Self::Incomplete { literal_end },
        }
    }
}

const INVALID: Stop = Stop::Rejected(Rejection::Syntax);

/// How an argument was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Atom,
    String,
}

/// Parses the command at the front of `bytes`.
pub(super) struct Parser<'a> {
    pub(super) scanner: Scanner<'a>,
    /// Empty until a valid tag was read.
    pub(super) tag: Vec<u8>,
    pub(super) id: ClientId,
}

impl<'a> Parser<'a> {
    /// A command of more than `limit` bytes is invalid, unless it may contain a SASL response.
    pub(super) fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { scanner: Scanner::new(bytes, limit), tag: Vec::new(), id: ClientId::default() }
    }

    pub(super) fn command(&mut self, logins: Logins) -> Result<(Verb, Vec<Secret>), Stop> {
        let verb = self.tag_and_verb()?;
        if let Some(rejection) = logins.rejection(verb) {
            return Err(Stop::Rejected(rejection));
        }
        if verb == Verb::Authenticate {
            self.scanner.limit = with_response(self.scanner.limit);
        }
        let arguments = if verb == Verb::Id { self.id_list()? } else { self.arguments()? };
        Ok((verb, arguments))
    }

    pub(super) fn tag_and_verb(&mut self) -> Result<Verb, Stop> {
        self.tag()?;
        self.scanner.skip(b" ")?;
        self.verb()
    }

    /// Reads the tag: one or more ASTRING-CHAR except `+` (RFC 9051 section 9). An empty tag is accepted too (NGINX
    /// section 5.3); the reply then starts with its space.
    fn tag(&mut self) -> Result<(), Stop> {
        let from = self.scanner.at;
        while self.scanner.peek()? != b' ' {
            if !self.scanner.peek_is(is_tag_char)? {
                return Err(INVALID);
            }
            self.scanner.advance(1);
        }
        self.scanner.advance(1);
        self.tag = self.scanner.since(from).to_vec();
        Ok(())
    }

    fn verb(&mut self) -> Result<Verb, Stop> {
        let from = self.scanner.at;
        while self.scanner.peek_is(|byte| byte.is_ascii_alphabetic())? {
            self.scanner.advance(1);
        }
        let name = self.scanner.since(from);
        let known = VERBS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        let (_, verb) = *known.ok_or(INVALID)?;
        if self.scanner.peek_is(|byte| matches!(byte, b' ' | b'\r' | b'\n'))? {
            Ok(verb)
        } else {
            Err(INVALID)
        }
    }

    /// Reads the arguments and the line end (NGINX section 5.4).
    fn arguments(&mut self) -> Result<Vec<Secret>, Stop> {
        let mut arguments = Vec::new();
        while self.scanner.has_argument(b" ")? {
            if arguments.len() >= MAX_ARGUMENTS {
                return Err(INVALID);
            }
            arguments.push(self.argument(b" ")?.0);
        }
        Ok(arguments)
    }

    /// Reads ID's parameter list (RFC 2971) leniently.
    fn id_list(&mut self) -> Result<Vec<Secret>, Stop> {
        let mut strings = Vec::new();
        while self.scanner.has_argument(b" ()")? {
            let (argument, form) = self.argument(b" ()")?;
            if strings.len() < MAX_ID_STRINGS {
                // NIL is the only atom in ID's grammar.
                strings.push((form == Form::String).then_some(argument));
            }
        }
        let parameters = strings.chunks_exact(2).filter_map(|pair| match pair {
            [Some(field), value] => Some((field.expose(), value.as_ref().map(Secret::expose))),
            _ => None,
        });
        self.id = ClientId::new(parameters);
        Ok(Vec::new())
    }

    fn argument(&mut self, separators: &[u8]) -> Result<(Secret, Form), Stop> {
        Ok(match self.scanner.peek()? {
            b'"' => (self.scanner.quoted()?, Form::String),
            b'{' => (self.scanner.literal(separators)?, Form::String),
            _ => (self.scanner.atom(separators)?, Form::Atom),
        })
    }
}

fn is_tag_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b'+')
}

/// nginx's limit for the arguments of a command.
const MAX_ARGUMENTS: usize = 3;
/// Strings of an ID list that are read: twice as many pairs as are kept, because some are dropped.
const MAX_ID_STRINGS: usize = 4 * MAX_PARAMETERS;

const VERBS: [(&[u8], Verb); 8] = [
    (b"NOOP", Verb::Noop),
    (b"CAPABILITY", Verb::Capability),
    (b"ID", Verb::Id),
    (b"ENABLE", Verb::Enable),
    (b"LOGOUT", Verb::Logout),
    (b"STARTTLS", Verb::StartTls),
    (b"LOGIN", Verb::Login),
    (b"AUTHENTICATE", Verb::Authenticate),
];
