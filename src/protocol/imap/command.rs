//! Reads one IMAP command: tag, verb, arguments with quoted strings and literals (RFC 9051 section 4).

use crate::protocol::frontend::core::with_response;
use crate::protocol::input::Input;
use crate::protocol::strings::Looked;
use crate::secret::Secret;

use super::id::ClientId;
use super::parser::{Parser, Stop};

#[derive(Debug)]
pub(crate) struct Command {
    /// With one trailing space, as replies need it.
    pub(crate) tag: Vec<u8>,
    pub(crate) verb: Verb,
    /// Secrets, because one of them may be the password.
    pub(crate) arguments: Vec<Secret>,
    /// The arguments of ID, which has no others.
    pub(crate) id: ClientId,
}

/// The commands that are known before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Noop,
    Capability,
    Id,
    Enable,
    Logout,
    StartTls,
    Login,
    Authenticate,
}

/// The result of reading a command.
#[derive(Debug)]
pub(crate) enum Received {
    Incomplete,
    TooLong { tag: Vec<u8> },
    Command(Command),
    Rejected(Rejected),
}

/// A line that is not an accepted command.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// Empty if the line has no valid tag.
    pub(crate) tag: Vec<u8>,
    /// The line ends with `+}`, so that the next bytes are a literal's content, not a command.
    pub(crate) literal_follows: bool,
    pub(crate) reason: Rejection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    Syntax,
    /// LOGIN or AUTHENTICATE in cleartext, where TLS is required.
    NeedsTls,
    /// LOGIN, where passwords are not accepted.
    NoPasswords,
}

/// Which login commands are accepted. The others are rejected before their literals are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logins {
    Taken,
    /// AUTHENTICATE is accepted, LOGIN is not.
    ByAuthenticate,
    NeedTls,
}

impl Logins {
    pub(super) fn rejection(self, verb: Verb) -> Option<Rejection> {
        match (self, verb) {
            (Self::NeedTls, Verb::Login | Verb::Authenticate) => Some(Rejection::NeedsTls),
            (Self::ByAuthenticate, Verb::Login) => Some(Rejection::NoPasswords),
            _ => None,
        }
    }
}

/// Progress in the command at the front of the input.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    looked: Looked,
    /// Number of synchronising literals that were answered.
    continued: usize,
}

impl Reader {
    /// Takes a command from `input`. Appends `+ OK` for each synchronising literal.
    pub(crate) fn read(&mut self, logins: Logins, input: &mut Input, out: &mut Vec<u8>) -> Received {
        let bytes = input.peek();
        if !self.looked.has_new_line(bytes) {
            return self.wait(logins, input);
        }
        let mut parser = Parser::new(bytes, input.limit());
        let outcome = parser.command(logins);
        for _ in self.continued..parser.scanner.synchronising {
            out.extend_from_slice(b"+ OK\r\n");
        }
        self.continued = parser.scanner.synchronising;
        let (received, length) = match outcome {
            // A longer command before it allowed the input to hold this one.
            Ok((verb, _)) if parser.scanner.at > input.limit() && verb != Verb::Authenticate => {
                return Received::TooLong { tag: parser.tag };
            }
            Ok((verb, arguments)) => {
                let Parser { tag, id, scanner } = parser;
                (Received::Command(Command { tag, verb, arguments, id }), scanner.at)
            }
            Err(Stop::Incomplete { literal_end }) => {
                self.looked.note_literal(literal_end);
                return self.wait(logins, input);
            }
            Err(Stop::Rejected(reason)) => {
                let (line, end) = parser.scanner.rest_of_line();
                let literal_follows = line.ends_with(b"+}");
                (Received::Rejected(Rejected { tag: parser.tag, literal_follows, reason }), end)
            }
        };
        input.consume(length);
        *self = Self::default();
        received
    }

    /// AUTHENTICATE may be longer by a SASL response.
    fn wait(&mut self, logins: Logins, input: &mut Input) -> Received {
        self.looked.note_searched(input.len());
        if input.len() < input.limit() {
            return Received::Incomplete;
        }
        let mut parser = Parser::new(input.peek(), input.limit());
        let verb = parser.tag_and_verb();
        let tag = parser.tag;
        if matches!(verb, Ok(Verb::Authenticate)) && logins.rejection(Verb::Authenticate).is_none() {
            input.allow(with_response(input.limit()));
        }
        if input.is_full() { Received::TooLong { tag } } else { Received::Incomplete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Received, Vec<u8>) {
        let mut input = Input::new(4096);
        input.append(bytes).unwrap();
        let mut out = Vec::new();
        let received = Reader::default().read(Logins::Taken, &mut input, &mut out);
        (received, out)
    }

    fn arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
        match read(bytes).0 {
            Received::Command(command) => command.arguments.iter().map(|a| a.expose().to_vec()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn literal_follows(bytes: &[u8]) -> bool {
        matches!(read(bytes).0, Received::Rejected(Rejected { literal_follows: true, .. }))
    }

    fn is_invalid(bytes: &[u8]) -> bool {
        matches!(read(bytes).0, Received::Rejected(_))
    }

    #[test]
    fn unescapes_quoted_strings_and_not_literals() {
        assert_eq!(arguments(b"a LOGIN \"o\\k1\" \"p\\w\"\r\n"), [b"ok1".to_vec(), b"pw".to_vec()]);
        assert_eq!(
            arguments(b"a LOGIN {18+}\r\nte\\\"st@example.com \"se\\\\\\\"cret\"\r\n"),
            [b"te\\\"st@example.com".to_vec(), b"se\\\"cret".to_vec()]
        );
        assert_eq!(arguments(b"a LOGIN \"a\"\"b\"\n"), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(arguments(b"a LOGIN a\"b c\\d\n"), [b"a\"b".to_vec(), b"c\\d".to_vec()]);
    }

    #[test]
    fn an_empty_literal_is_empty() {
        assert_eq!(arguments(b"a LOGIN me {0+}\r\n\r\n"), [b"me".to_vec(), vec![]]);
        assert_eq!(arguments(b"a LOGIN {0+}\r\n {+}\r\n\r\n"), [vec![], Vec::<u8>::new()]);
    }

    #[test]
    fn literals_hold_anything() {
        assert_eq!(arguments(b"a LOGIN {4+}\r\n\0\r\n\xff pw\r\n"), [b"\0\r\n\xff".to_vec(), b"pw".to_vec()]);
    }

    #[test]
    fn a_line_end_ends_no_quoted_string() {
        assert!(is_invalid(b"a LOGIN me \"pw\r\n"));
        assert!(is_invalid(b"a LOGIN me \"pw\\\r\n"));
    }

    #[test]
    fn rejects_what_nginx_rejects() {
        for line in [
            &b"\r\n"[..],
            b"a\r\n",
            b"a \r\n",
            b"a NOOP\rx\r\n",
            b"a FOO\r\n",
            b"a NOOP1\r\n",
            b"a+ NOOP\r\n",
            b"a\xfc NOOP\r\n",
            b"a NOOP 1 2 3 4\r\n",
            b"a LOGIN {-1}\r\n",
            b"a LOGIN {1} x\r\n",
            b"a LOGIN {1+}\r\nab\r\n",
            b"a LOGIN {99999999999999999999}\r\n",
            b"a LOGIN {18446744073709551615}\r\n",
        ] {
            assert!(is_invalid(line), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_literal_that_does_not_fit_into_the_buffer_is_not_asked_for() {
        for size in ["4096", "4077", "99999999999", "18446744073709551600"] {
            let (received, out) = read(format!("a LOGIN me {{{size}}}\r\n").as_bytes());
            assert!(
                matches!(received, Received::Rejected(Rejected { literal_follows: false, .. })),
                "{size}"
            );
            assert_eq!(out, b"", "{size}");
            assert!(literal_follows(format!("a LOGIN me {{{size}+}}\r\nx").as_bytes()), "{size}");
        }
        for fits in ["a LOGIN me {4076}\r\n", "a AUTHENTICATE PLAIN {12000}\r\n"] {
            assert_eq!(read(fits.as_bytes()).1, b"+ OK\r\n", "{fits}");
        }
    }

    #[test]
    fn a_tag_is_of_every_astring_char_but_plus_at_any_length() {
        for byte in 0..=u8::MAX {
            let is_atom_special = byte <= b' '
                || byte >= 0x7f
                || matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\');
            let command = [b"a", &[byte][..], b"b NOOP\r\n"].concat();
            // The tag is `a`, and no command is named `b`.
            let refused = byte == b' ' || is_atom_special || byte == b'+';
            assert_eq!(is_invalid(&command), refused, "{}", byte.escape_ascii());
        }
        assert!(!is_invalid(&[&b"t".repeat(4000)[..], b" NOOP\r\n"].concat()));
    }

    #[test]
    fn tells_that_a_refused_line_announces_a_literal() {
        for line in [&b"a FOO {10+}\r\n0123456789"[..], b"a NOOP 1 2 3 {3+}\r\nabc", b"x{3+}\n"] {
            assert!(literal_follows(line));
        }
        assert!(!literal_follows(b"a FOO {10}\r\n"));
    }

    #[test]
    fn id_takes_its_list() {
        let id = |bytes: &[u8]| match read(bytes).0 {
            Received::Command(command) => command.id.quoted().collect::<Vec<_>>().join(", "),
            other => panic!("{other:?}"),
        };
        assert_eq!(id(b"a ID (\"name\" \"x y\" \"os\" NIL)\r\n"), r#""name" "x y", "os" NIL"#);
        assert_eq!(id(b"a ID ({4+}\r\nname {1+}\r\nx)\r\n"), r#""name" "x""#);
        assert_eq!(id(b"a ID (\"odd\")\r\n") + &id(b"a ID NIL\r\n") + &id(b"a ID (NIL \"x\")\r\n"), "");
        assert!(arguments(b"a ID (\"name\" \"x y\" \"version\" NIL \"os\" \"z\")\r\n").is_empty());
        assert!(arguments(b"a ID ({4+}\r\nname {1+}\r\nx)\r\n").is_empty());
        let (received, out) = read(b"a ID ({4}\r\n");
        assert!(matches!(received, Received::Incomplete));
        assert_eq!(out, b"+ OK\r\n");
    }

    #[test]
    fn answers_each_synchronising_literal_once() {
        let mut input = Input::new(4096);
        let mut out = Vec::new();
        let mut reader = Reader::default();
        for &byte in b"a LOGIN {2}\r\nme {2}\r\npw\r\n" {
            input.append(&[byte]).unwrap();
            if let Received::Command(command) = reader.read(Logins::Taken, &mut input, &mut out) {
                assert_eq!(command.verb, Verb::Login);
                assert_eq!(command.tag, b"a ");
            }
        }
        assert!(input.is_empty());
        assert_eq!(out, b"+ OK\r\n+ OK\r\n");
    }
}
