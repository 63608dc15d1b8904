//! Reads one ManageSieve command, or one response to a challenge (RFC 5804 section 4).
//!
//! Any command is read with its literals, also one that is not accepted, so that the bytes of a script are never taken
//! for commands. Where this is not possible, because the literal is too long or the line is unreadable, the session ends.

use crate::protocol::frontend::core::with_response;
use crate::protocol::input::Input;
use crate::protocol::sasl::MAX_RESPONSE;
use crate::protocol::strings::{Looked, Scanner, Stop};
use crate::secret::Secret;

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) verb: Verb,
    /// Secrets, because one of them may contain the password.
    pub(crate) arguments: Vec<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Capability,
    Noop,
    Logout,
    StartTls,
    Authenticate,
    /// A command that needs a login.
    AfterLogin,
    Unknown,
}

/// The result of reading.
#[derive(Debug)]
pub(crate) enum Received<T> {
    Incomplete,
    TooLong,
    Whole(T),
    Rejected {
        /// The line ends like a literal, so that the next bytes are its content, not a command.
        literal_follows: bool,
    },
}

/// Progress in the command at the front of the input.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    looked: Looked,
}

impl Reader {
    /// Takes a command. AUTHENTICATE may be longer by a SASL response if `takes_response` is set.
    pub(crate) fn command(&mut self, takes_response: bool, input: &mut Input) -> Received<Command> {
        let limit = input.limit();
        let is_long = takes_response && begins_authenticate(input.peek());
        self.read(input, if is_long { with_response(limit) } else { limit }, command)
    }

    /// Takes the response to a challenge.
    pub(crate) fn answer(&mut self, input: &mut Input) -> Received<Secret> {
        let most = MAX_RESPONSE.saturating_add(AROUND_RESPONSE).max(input.limit());
        self.read(input, most, answer)
    }

    /// `most`: bytes of all lines and literals together.
    fn read<T>(
        &mut self,
        input: &mut Input,
        most: usize,
        parse: fn(&mut Scanner<'_>) -> Result<T, Stop>,
    ) -> Received<T> {
        if !self.looked.has_new_line(input.peek()) {
            return self.wait(input, most);
        }
        // Clients send only literals that need no permission (RFC 5804 section 4: literal-c2s).
        let mut scanner = Scanner::new(input.peek(), most).without_synchronising();
        let (received, end) = match parse(&mut scanner) {
            Ok(whole) => (Received::Whole(whole), scanner.at),
            Err(Stop::Incomplete { literal_end }) => {
                self.looked.note_literal(literal_end);
                return self.wait(input, most);
            }
            Err(Stop::Invalid) => {
                let (line, end) = scanner.rest_of_line();
                (Received::Rejected { literal_follows: line.ends_with(b"}") }, end)
            }
        };
        // A longer command before it allowed the input to hold this one.
        if end > most {
            return Received::TooLong;
        }
        input.consume(end);
        *self = Self::default();
        received
    }

    fn wait<T>(&mut self, input: &mut Input, most: usize) -> Received<T> {
        self.looked.note_searched(input.len());
        input.allow(most);
        if input.is_full() { Received::TooLong } else { Received::Incomplete }
    }
}

fn command(scanner: &mut Scanner<'_>) -> Result<Command, Stop> {
    let from = scanner.at;
    while scanner.peek_is(|byte| byte.is_ascii_alphanumeric())? {
        scanner.advance(1);
    }
    let name = scanner.since(from);
    if name.is_empty() || !scanner.peek_is(|byte| matches!(byte, b' ' | b'\r' | b'\n'))? {
        return Err(Stop::Invalid);
    }
    let known = VERBS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    let verb = known.map_or(Verb::Unknown, |(_, verb)| *verb);
    let mut arguments = Vec::new();
    while scanner.has_argument(b" ")? {
        if arguments.len() >= MAX_ARGUMENTS {
            return Err(Stop::Invalid);
        }
        arguments.push(argument(scanner)?);
    }
    Ok(Command { verb, arguments })
}

fn answer(scanner: &mut Scanner<'_>) -> Result<Secret, Stop> {
    if !scanner.has_argument(b" ")? {
        return Ok(Secret::default());
    }
    let answer = argument(scanner)?;
    if scanner.has_argument(b" ")? { Err(Stop::Invalid) } else { Ok(answer) }
}

/// Reads a string or a number. A word without quotes is taken as a string, unless it could be read in another way.
fn argument(scanner: &mut Scanner<'_>) -> Result<Secret, Stop> {
    match scanner.peek()? {
        b'"' => {
            let text = scanner.quoted()?;
            if scanner.peek_is(|byte| matches!(byte, b' ' | b'\r' | b'\n'))? {
                Ok(text)
            } else {
                Err(Stop::Invalid)
            }
        }
        b'{' => scanner.literal(b" "),
        _ => {
            let word = scanner.atom(b" ")?;
            let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'{' | b'}' | b'\\');
            if word.expose().iter().all(is_plain) { Ok(word) } else { Err(Stop::Invalid) }
        }
    }
}

fn begins_authenticate(bytes: &[u8]) -> bool {
    bytes.get(..AUTHENTICATE.len()).is_some_and(|start| start.eq_ignore_ascii_case(AUTHENTICATE))
}

const AUTHENTICATE: &[u8] = b"AUTHENTICATE ";
/// Arguments of a command; RFC 5804 has at most two.
const MAX_ARGUMENTS: usize = 3;
/// Bytes of a literal's size and of the line ends around a response.
const AROUND_RESPONSE: usize = "{12288+}\r\n\r\n".len();

const VERBS: [(&[u8], Verb); 14] = [
    (b"CAPABILITY", Verb::Capability),
    (b"NOOP", Verb::Noop),
    (b"LOGOUT", Verb::Logout),
    (b"STARTTLS", Verb::StartTls),
    (b"AUTHENTICATE", Verb::Authenticate),
    (b"HAVESPACE", Verb::AfterLogin),
    (b"PUTSCRIPT", Verb::AfterLogin),
    (b"LISTSCRIPTS", Verb::AfterLogin),
    (b"SETACTIVE", Verb::AfterLogin),
    (b"GETSCRIPT", Verb::AfterLogin),
    (b"DELETESCRIPT", Verb::AfterLogin),
    (b"RENAMESCRIPT", Verb::AfterLogin),
    (b"CHECKSCRIPT", Verb::AfterLogin),
    (b"UNAUTHENTICATE", Verb::AfterLogin),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Received<Command> {
        let mut input = Input::new(256);
        input.append(bytes).unwrap();
        Reader::default().command(true, &mut input)
    }

    fn arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
        match read(bytes) {
            Received::Whole(command) => command.arguments.iter().map(|a| a.expose().to_vec()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_quoted_strings_and_literals() {
        assert_eq!(arguments(b"NOOP \"a\\\"b\\\\\"\r\n"), [b"a\"b\\".to_vec()]);
        assert_eq!(arguments(b"noop {5+}\r\na\r\nb{\r\n"), [b"a\r\nb{".to_vec()]);
        assert_eq!(arguments(b"PUTSCRIPT \"x\" {3+}\r\n\0\xff}\r\n"), [b"x".to_vec(), b"\0\xff}".to_vec()]);
        assert_eq!(arguments(b"HAVESPACE \"x\" 999999\n"), [b"x".to_vec(), b"999999".to_vec()]);
        assert_eq!(arguments(b"AUTHENTICATE {5+}\r\nPLAIN {0+}\r\n\r\n"), [b"PLAIN".to_vec(), vec![]]);
    }

    #[test]
    fn a_refused_line_that_may_announce_a_literal_ends_the_session() {
        for line in [
            &b"NOOP {3}\r\nabc"[..],
            b"NOOP {999+}\r\n",
            b"NOOP {99999999999999999999+}\r\n",
            b"PUTSCRIPT \"x{3+}\r\nabc\r\n",
            b"PUTSCRIPT x{3+}\r\nabc\r\n",
            b"PUTSCRIPT \"x\"{3+}\r\nabc\r\n",
            b"PUTSCRIPT a b c {3+}\r\nabc\r\n",
            b"}\r\n",
        ] {
            let follows = matches!(read(line), Received::Rejected { literal_follows: true });
            assert!(follows, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn only_authenticate_may_be_long() {
        let long = |verb: &str, size: usize| read(format!("{verb} \"PLAIN\" {{{size}+}}\r\n").as_bytes());
        assert!(matches!(long("AUTHENTICATE", 12_000), Received::Incomplete));
        assert!(matches!(long("AUTHENTICATE", 13_000), Received::Rejected { literal_follows: true }));
        assert!(matches!(long("PUTSCRIPT", 12_000), Received::Rejected { literal_follows: true }));
    }
}
