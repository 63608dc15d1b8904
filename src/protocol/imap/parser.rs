//! Parses one IMAP command (RFC 9051 section 9).

use crate::protocol::frontend::core::with_response;
use crate::secret::{Secret, Wiped};

use super::command::{Logins, Rejection, Verb};
use super::id::{ClientId, MAX_PARAMETERS};

/// Why parsing ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Rejected(Rejection),
    Incomplete { literal_end: usize },
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
    bytes: &'a [u8],
    /// The position of the next byte; of the offending one if the command is invalid.
    pub(super) at: usize,
    /// Empty until a valid tag was read.
    pub(super) tag: Vec<u8>,
    pub(super) synchronising: usize,
    literal_end: usize,
    /// The maximum length of a command that has no SASL response.
    limit: usize,
    pub(super) id: ClientId,
}

impl<'a> Parser<'a> {
    /// A command of more than `limit` bytes is invalid, unless it may contain a SASL response.
    pub(super) fn new(bytes: &'a [u8], limit: usize) -> Self {
        let id = ClientId::default();
        Self { bytes, at: 0, tag: Vec::new(), synchronising: 0, literal_end: 0, limit, id }
    }

    pub(super) fn command(&mut self, logins: Logins) -> Result<(Verb, Vec<Secret>), Stop> {
        let verb = self.tag_and_verb()?;
        if let Some(rejection) = logins.rejection(verb) {
            return Err(Stop::Rejected(rejection));
        }
        if verb == Verb::Authenticate {
            self.limit = with_response(self.limit);
        }
        let arguments = if verb == Verb::Id { self.id_list()? } else { self.arguments()? };
        Ok((verb, arguments))
    }

    pub(super) fn tag_and_verb(&mut self) -> Result<Verb, Stop> {
        self.tag()?;
        self.skip(b" ")?;
        self.verb()
    }

    /// Reads the tag: one or more ASTRING-CHAR except `+` (RFC 9051 section 9). An empty tag is accepted too (NGINX
    /// section 5.3); the reply then starts with its space.
    fn tag(&mut self) -> Result<(), Stop> {
        let from = self.at;
        while self.peek()? != b' ' {
            if !self.peek_is(is_tag_char)? {
                return Err(INVALID);
            }
            self.advance(1);
        }
        self.advance(1);
        self.tag = self.since(from).to_vec();
        Ok(())
    }

    fn verb(&mut self) -> Result<Verb, Stop> {
        let from = self.at;
        while self.peek_is(|byte| byte.is_ascii_alphabetic())? {
            self.advance(1);
        }
        let name = self.since(from);
        let known = VERBS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        let (_, verb) = *known.ok_or(INVALID)?;
        if self.peek_is(|byte| matches!(byte, b' ' | b'\r' | b'\n'))? { Ok(verb) } else { Err(INVALID) }
    }

    /// Reads the arguments and the line end (NGINX section 5.4).
    fn arguments(&mut self) -> Result<Vec<Secret>, Stop> {
        let mut arguments = Vec::new();
        while self.has_argument(b" ")? {
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
        while self.has_argument(b" ()")? {
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

    /// Tells whether an argument follows. If not, takes the line end.
    fn has_argument(&mut self, separators: &[u8]) -> Result<bool, Stop> {
        self.skip(separators)?;
        let ends = matches!(self.peek()?, b'\r' | b'\n');
        if ends {
            self.line_end()?;
        }
        Ok(!ends)
    }

    fn argument(&mut self, separators: &[u8]) -> Result<(Secret, Form), Stop> {
        Ok(match self.peek()? {
            b'"' => (self.quoted()?, Form::String),
            b'{' => (self.literal(separators)?, Form::String),
            _ => (self.atom(separators)?, Form::Atom),
        })
    }

    fn atom(&mut self, separators: &[u8]) -> Result<Secret, Stop> {
        let from = self.at;
        while !self.peek_is(|byte| matches!(byte, b'\r' | b'\n') || separators.contains(&byte))? {
            self.advance(1);
        }
        Ok(Secret::from(self.since(from)))
    }

    /// A line end within the quotes is an error (quirk Q-34).
    fn quoted(&mut self) -> Result<Secret, Stop> {
        self.advance(1);
        // Allocated once, so that no unwiped copy of a password remains.
        let mut text = Wiped::with_capacity(self.line_length());
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.advance(1),
                _ => {}
            }
            match self.peek()? {
                b'\r' | b'\n' => return Err(INVALID),
                byte => text.push(byte),
            }
            self.advance(1);
        }
        self.advance(1);
        Ok(Secret::from(text.as_slice()))
    }

    /// Reads `{n}` or `{n+}` (RFC 7888), a line end and n bytes. A separator must follow. A literal that is too long for
    /// the limit is refused before the client is asked for it.
    fn literal(&mut self, separators: &[u8]) -> Result<Secret, Stop> {
        self.advance(1);
        let mut size = 0_usize;
        while self.peek_is(|byte| byte.is_ascii_digit())? {
            let digit = usize::from(self.peek()?.saturating_sub(b'0'));
            let longer = size.checked_mul(10).and_then(|size| size.checked_add(digit));
            size = longer.ok_or(INVALID)?;
            self.advance(1);
        }
        let synchronising = self.peek()? != b'+';
        if !synchronising {
            self.advance(1);
        }
        if self.peek()? != b'}' {
            return Err(INVALID);
        }
        let brace = self.at;
        self.advance(1);
        self.line_end()?;
        // The line end behind the literal is a part of the command.
        let Some(end) = self.at.checked_add(size).filter(|end| *end < self.limit) else {
            self.at = brace;
            return Err(INVALID);
        };
        if synchronising {
            self.synchronising = self.synchronising.saturating_add(1);
        }
        self.literal_end = end;
        // Wait for the rest of the line, so that the result does not depend on how many bytes have arrived.
        let rest = self.bytes.get(end..).filter(|rest| rest.contains(&b'\n'));
        let content = rest.and_then(|_| self.bytes.get(self.at..end));
        let content = content.ok_or(Stop::Incomplete { literal_end: end })?;
        self.at = end;
        let ends = self.peek_is(|byte| matches!(byte, b'\r' | b'\n') || separators.contains(&byte))?;
        if ends { Ok(Secret::from(content)) } else { Err(INVALID) }
    }

    /// Takes LF or CRLF. A CR alone is an error.
    fn line_end(&mut self) -> Result<(), Stop> {
        let length = match (self.peek()?, self.bytes.get(self.at.saturating_add(1))) {
            (b'\n', _) => 1,
            (b'\r', Some(b'\n')) => 2,
            (b'\r', None) => return Err(Stop::Incomplete { literal_end: self.literal_end }),
            _ => return Err(INVALID),
        };
        self.advance(length);
        Ok(())
    }

    fn skip(&mut self, separators: &[u8]) -> Result<(), Stop> {
        while self.peek_is(|byte| separators.contains(&byte))? {
            self.advance(1);
        }
        Ok(())
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Incomplete { literal_end: self.literal_end })
    }

    fn peek_is(&self, accepted: impl Fn(u8) -> bool) -> Result<bool, Stop> {
        self.peek().map(accepted)
    }

    fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Returns the number of bytes before the next LF.
    fn line_length(&self) -> usize {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
    }

    /// Tells whether the rejected line ends with `+}` (a non-synchronising literal), and returns the start of the next
    /// line.
    pub(super) fn rest_of_line(&self) -> (bool, usize) {
        let end = self.at.saturating_add(self.line_length());
        let line = self.bytes.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (line.ends_with(b"+}"), end.saturating_add(1))
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
