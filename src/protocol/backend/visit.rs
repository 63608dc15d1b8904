//! A visit to a mail server as a client: greeting, capabilities, STARTTLS, a login, a goodbye; for `mailgress probe`.
//!
//! The caller writes what [`Visit::ask`] appends, then reads until [`Visit::take`] returns the whole answer. The visit
//! does not judge answers; the caller decides what they mean.

mod login;

use crate::protocol::Protocol;
use crate::protocol::input::Input;
use crate::protocol::sieve::response::{first_string, string};

use super::error::first_line;
use super::reply::{
    sieve_lines, take_dotted, take_line, take_response, take_sieve, take_sieve_line, take_smtp,
};
use super::{BackendError, GREETING};

pub use self::login::{Login, NoLogin};

/// A conversation with a server, one question at a time.
#[derive(Debug)]
pub struct Visit {
    protocol: Protocol,
    /// IMAP: untagged responses before the tagged one.
    held: Vec<u8>,
    /// ManageSieve: the server is about to send its capabilities unasked.
    announces: bool,
}

/// What to ask the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: the server speaks first.
    Greeting,
    /// CAPABILITY, CAPA or EHLO.
    Capabilities,
    /// STARTTLS or STLS.
    StartTls,
    /// One line of a [`Login`].
    Login,
    /// LOGOUT or QUIT.
    Goodbye,
}

/// The server's answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReply {
    /// The kind of answer.
    pub kind: ReplyKind,
    /// The whole answer as received. ManageSieve: of other answers than that about capabilities, the last line.
    pub lines: Vec<u8>,
}

/// The kind of an answer, in any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// `OK`, `+OK`, 2yz.
    Yes,
    /// `NO`, `BAD`, `BYE`, `-ERR`, 4yz, 5yz.
    No,
    /// `+`, 3yz.
    GoOn,
    /// Not a reply of this protocol.
    Foreign,
}

impl Visit {
    /// Starts a visit to a server of this protocol.
    #[must_use]
    pub const fn new(protocol: Protocol) -> Self {
        Self { protocol, held: Vec::new(), announces: false }
    }

    /// Continues after the handshake of STARTTLS.
    #[must_use]
    pub fn secured(protocol: Protocol) -> Self {
        Self { announces: protocol == Protocol::Sieve, ..Self::new(protocol) }
    }

    /// Appends the question. `name` is our name for an SMTP server.
    pub fn ask(&mut self, question: Question, name: &str, out: &mut Vec<u8>) {
        let is_announced = std::mem::take(&mut self.announces) && question == Question::Capabilities;
        let line = match (question, self.protocol) {
            (Question::Greeting | Question::Login, _) => return,
            _ if is_announced => return,
            (Question::Capabilities, Protocol::Imap) => "visit CAPABILITY\r\n",
            (Question::Capabilities, Protocol::Pop3) => "CAPA\r\n",
            (Question::Capabilities, Protocol::Sieve) => "CAPABILITY\r\n",
            (Question::Capabilities, Protocol::Smtp) => &format!("EHLO {name}\r\n"),
            (Question::StartTls, Protocol::Imap) => "visit STARTTLS\r\n",
            (Question::StartTls, Protocol::Pop3) => "STLS\r\n",
            (Question::StartTls, Protocol::Smtp | Protocol::Sieve) => "STARTTLS\r\n",
            (Question::Goodbye, Protocol::Imap) => "visit LOGOUT\r\n",
            (Question::Goodbye, Protocol::Sieve) => "LOGOUT\r\n",
            (Question::Goodbye, Protocol::Pop3 | Protocol::Smtp) => "QUIT\r\n",
        };
        out.extend_from_slice(line.as_bytes());
    }

    /// Returns the line that cancels a login (RFC 4422 section 3.5).
    #[must_use]
    pub const fn cancellation(&self) -> &'static [u8] {
        match self.protocol {
            Protocol::Imap | Protocol::Pop3 | Protocol::Smtp => b"*\r\n",
            Protocol::Sieve => b"\"*\"\r\n",
        }
    }

    /// Takes the answer if it is complete.
    ///
    /// # Errors
    /// The answer does not fit into the input.
    pub fn take(
        &mut self,
        question: Question,
        input: &mut Input,
    ) -> Result<Option<ServerReply>, BackendError> {
        let step = question.name();
        match self.protocol {
            Protocol::Imap => self.imap(question, input),
            Protocol::Pop3 => {
                let taken = match question {
                    Question::Capabilities => take_dotted(input, step)?,
                    _ => take_line(input, step)?,
                };
                Ok(taken.map(|lines| ServerReply { kind: pop3_kind(&lines), lines }))
            }
            Protocol::Smtp => smtp(step, input),
            Protocol::Sieve => {
                let taken = match question {
                    Question::Login => take_sieve_line(input, step)?,
                    _ => take_sieve(input, step)?,
                };
                Ok(taken.map(|lines| sieve(question, lines)))
            }
        }
    }

    fn imap(&mut self, question: Question, input: &mut Input) -> Result<Option<ServerReply>, BackendError> {
        let step = question.name();
        while let Some(line) = take_response(input, step)? {
            let kind = imap_kind(question, &line);
            self.held.extend_from_slice(&line);
            if self.held.len() > MAX_HELD {
                return Err(BackendError::TooLong { step });
            }
            if let Some(kind) = kind {
                return Ok(Some(ServerReply { kind, lines: std::mem::take(&mut self.held) }));
            }
        }
        Ok(None)
    }
}

impl Question {
    /// The name of the question in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greeting => GREETING,
            Self::Capabilities => "the capability request",
            Self::StartTls => "STARTTLS",
            Self::Login => "the login",
            Self::Goodbye => "the goodbye",
        }
    }
}

impl ServerReply {
    /// The last line, which has the result; escaped, at most 200 characters.
    #[must_use]
    pub fn decisive(&self) -> String {
        let mut lines = self.lines.split(|&byte| byte == b'\n');
        first_line(lines.rfind(|line| !line.is_empty()).unwrap_or_default())
    }

    /// The first line, escaped, at most 200 characters.
    #[must_use]
    pub fn first(&self) -> String {
        first_line(&self.lines)
    }
}

/// The capabilities of a server, as it names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    protocol: Option<Protocol>,
    /// IMAP: words. Other protocols: lines.
    pub words: Vec<String>,
}

impl Offers {
    /// Reads the answer to [`Question::Capabilities`].
    #[must_use]
    pub fn read(protocol: Protocol, answer: &ServerReply) -> Self {
        let lines = answer.lines.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let words = match protocol {
            _ if answer.kind != ReplyKind::Yes => Vec::new(),
            Protocol::Imap => {
                let listed = lines.filter_map(|line| strip_word(line.strip_prefix(b"* ")?, b"CAPABILITY"));
                listed.flat_map(|rest| rest.split(u8::is_ascii_whitespace)).map(first_line).collect()
            }
            // Skip the status line and the final dot.
            Protocol::Pop3 => {
                lines.skip(1).filter(|line| !line.is_empty() && *line != b".").map(first_line).collect()
            }
            // The first line contains the server's name.
            Protocol::Smtp => lines.skip(1).filter_map(|line| line.get(4..)).map(first_line).collect(),
            Protocol::Sieve => {
                sieve_lines(&answer.lines).filter_map(first_string).map(sieve_capability).collect()
            }
        };
        Self { protocol: Some(protocol), words }
    }

    /// Tells whether the server offers STARTTLS or STLS.
    #[must_use]
    pub fn start_tls(&self) -> bool {
        let word = if self.protocol == Some(Protocol::Pop3) { "STLS" } else { "STARTTLS" };
        self.has(word)
    }

    /// Returns the names of the SASL mechanisms.
    #[must_use]
    pub fn mechanisms(&self) -> Vec<&str> {
        let head = match self.protocol {
            Some(Protocol::Imap) => "AUTH=",
            Some(Protocol::Pop3 | Protocol::Sieve) => "SASL ",
            _ => "AUTH ",
        };
        let behind_head =
            |line: &'_ String| line.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head));
        let rests =
            self.words.iter().filter(|line| behind_head(line)).filter_map(|line| line.get(head.len()..));
        rests.flat_map(str::split_ascii_whitespace).collect()
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|offered| offered.eq_ignore_ascii_case(word))
    }

    fn has_mechanism(&self, name: &str) -> bool {
        self.mechanisms().iter().any(|mechanism| mechanism.eq_ignore_ascii_case(name))
    }
}

/// Guesses the protocol of a server that was asked in a different one, from its first bytes.
#[must_use]
pub fn spoken_instead(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 10] = [
        (b"* OK", "IMAP"),
        (b"* PREAUTH", "IMAP"),
        (b"* BYE", "IMAP"),
        (b"+OK", "POP3"),
        (b"-ERR", "POP3"),
        (b"220", "SMTP (or FTP)"),
        (b"\"", "ManageSieve"),
        (b"OK ", "ManageSieve"),
        (b"SSH-", "SSH"),
        (b"HTTP/", "HTTP"),
    ];
    // A TLS alert or handshake record (RFC 8446 section 5.1).
    if matches!(bytes, [0x15 | 0x16, 3, ..]) {
        return Some("TLS");
    }
    known.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name)
}

fn imap_kind(question: Question, response: &[u8]) -> Option<ReplyKind> {
    let word =
        |text: &[u8]| text.split(u8::is_ascii_whitespace).next().unwrap_or_default().to_ascii_uppercase();
    if let Some(text) = response.strip_prefix(b"* ") {
        return match (question, word(text).as_slice()) {
            (Question::Greeting, b"OK" | b"PREAUTH") => Some(ReplyKind::Yes),
            (Question::Goodbye, b"BYE") => None,
            (_, b"BYE" | b"BAD") => Some(ReplyKind::No),
            (Question::Greeting, _) => Some(ReplyKind::Foreign),
            _ => None,
        };
    }
    if response.starts_with(b"+") && question != Question::Greeting {
        return Some(ReplyKind::GoOn);
    }
    let kind = strip_word(response, b"visit").map(|text| match word(text).as_slice() {
        b"OK" => ReplyKind::Yes,
        b"NO" | b"BAD" => ReplyKind::No,
        _ => ReplyKind::Foreign,
    });
    Some(kind.filter(|_| question != Question::Greeting).unwrap_or(ReplyKind::Foreign))
}

fn pop3_kind(line: &[u8]) -> ReplyKind {
    match line {
        [b'+', b'O', b'K', ..] => ReplyKind::Yes,
        [b'-', b'E', b'R', b'R', ..] => ReplyKind::No,
        [b'+', ..] => ReplyKind::GoOn,
        _ => ReplyKind::Foreign,
    }
}

/// Keeps the last line of an answer, unless its other lines were asked for.
fn sieve(question: Question, lines: Vec<u8>) -> ServerReply {
    let last = sieve_lines(&lines).last().unwrap_or_default();
    let word = last.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let kind = match word.to_ascii_uppercase().as_slice() {
        b"OK" => ReplyKind::Yes,
        b"NO" | b"BYE" => ReplyKind::No,
        [b'"' | b'{', ..] => ReplyKind::GoOn,
        _ => ReplyKind::Foreign,
    };
    let lines = if question == Question::Capabilities { lines } else { last.to_vec() };
    ServerReply { kind, lines }
}

/// Returns a capability as a line of a configured list: the name, and the value if there is one.
fn sieve_capability((name, value): (Vec<u8>, &[u8])) -> String {
    let value = string(value).map(|value| [b" ", value.as_slice()].concat()).unwrap_or_default();
    first_line(&[name, value].concat())
}

fn smtp(step: &'static str, input: &mut Input) -> Result<Option<ServerReply>, BackendError> {
    match take_smtp(input, step) {
        Ok(None) => Ok(None),
        Ok(Some(reply)) => {
            let kind = match reply.code {
                200..=299 => ReplyKind::Yes,
                300..=399 => ReplyKind::GoOn,
                400..=599 => ReplyKind::No,
                _ => ReplyKind::Foreign,
            };
            Ok(Some(ServerReply { kind, lines: reply.lines }))
        }
        Err(BackendError::Unexpected { verbatim, .. }) => {
            Ok(Some(ServerReply { kind: ReplyKind::Foreign, lines: verbatim }))
        }
        Err(error) => Err(error),
    }
}

/// Returns the text after the first word, if this is `word`.
fn strip_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = text.split_at_checked(word.len())?;
    (first.eq_ignore_ascii_case(word) && rest.first().is_none_or(u8::is_ascii_whitespace))
        .then(|| rest.trim_ascii())
}

/// Bytes of an IMAP answer with its untagged responses.
const MAX_HELD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn answer(protocol: Protocol, question: Question, text: &str) -> ServerReply {
        let mut input = Input::new(4096);
        input.append(text.as_bytes()).unwrap();
        Visit::new(protocol).take(question, &mut input).unwrap().unwrap()
    }

    fn offers(protocol: Protocol, text: &str) -> Offers {
        Offers::read(protocol, &answer(protocol, Question::Capabilities, text))
    }

    /// Returns the mechanism and all lines of a login for `me` with the password `secret`.
    fn login(offers: &Offers) -> (&'static str, String) {
        let mut login = Login::choose(offers, b"me", &Secret::from(&b"secret"[..])).unwrap();
        let mut out = Vec::new();
        while login.next(&mut out) {}
        (login.mechanism, String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_protocol_says_yes_no_and_go_on_in_its_own_way() {
        use Protocol::{Imap, Pop3, Sieve, Smtp};
        use Question::{Capabilities, Goodbye, Greeting, Login, StartTls};
        for (protocol, question, text, expected) in [
            (Imap, Greeting, "* OK ready\r\n", ReplyKind::Yes),
            (Imap, Greeting, "* PREAUTH hello\r\n", ReplyKind::Yes),
            (Imap, Greeting, "* BYE full\r\n", ReplyKind::No),
            (Imap, Greeting, "220 smtp\r\n", ReplyKind::Foreign),
            (Imap, Greeting, "+OK pop\r\n", ReplyKind::Foreign),
            (Imap, Login, "+ \r\n", ReplyKind::GoOn),
            (Imap, Login, "* CAPABILITY A\r\nvisit NO wrong\r\n", ReplyKind::No),
            (Imap, StartTls, "* BYE away\r\n", ReplyKind::No),
            (Imap, Goodbye, "* BYE\r\nvisit OK\r\n", ReplyKind::Yes),
            (Pop3, Greeting, "+OK\r\n", ReplyKind::Yes),
            (Pop3, Greeting, "* OK\r\n", ReplyKind::Foreign),
            (Pop3, Capabilities, "-ERR what\r\n", ReplyKind::No),
            (Pop3, Login, "+ \r\n", ReplyKind::GoOn),
            (Smtp, Greeting, "220-a\r\n220 b\r\n", ReplyKind::Yes),
            (Smtp, Greeting, "554 no\r\n", ReplyKind::No),
            (Smtp, Greeting, "* OK\r\n", ReplyKind::Foreign),
            (Smtp, Login, "334 UGFzc3dvcmQ6\r\n", ReplyKind::GoOn),
            (Sieve, Greeting, "\"SASL\" \"\"\r\nOK \"ready\"\r\n", ReplyKind::Yes),
            (Sieve, Greeting, "BYE \"full\"\r\n", ReplyKind::No),
            (Sieve, Greeting, "* OK imap\r\n", ReplyKind::Foreign),
            (Sieve, Login, "\"\"\r\n", ReplyKind::GoOn),
            (Sieve, Login, "NO \"wrong\"\r\n", ReplyKind::No),
        ] {
            assert_eq!(answer(protocol, question, text).kind, expected, "{text}");
        }
        assert_eq!(answer(Imap, Login, "* CAPABILITY A\r\nvisit OK in\r\n").decisive(), "visit OK in");
    }

    #[test]
    fn reads_what_is_offered() {
        let imap =
            offers(Protocol::Imap, "* CAPABILITY IMAP4rev1 StartTLS AUTH=PLAIN AUTH=LOGIN\r\nvisit OK\r\n");
        assert_eq!(imap.words, ["IMAP4rev1", "StartTLS", "AUTH=PLAIN", "AUTH=LOGIN"]);
        assert!(imap.start_tls() && imap.mechanisms() == ["PLAIN", "LOGIN"]);
        let pop3 = offers(Protocol::Pop3, "+OK\r\nSTLS\r\nSASL PLAIN LOGIN\r\nUSER\r\n.\r\n");
        assert_eq!(pop3.words, ["STLS", "SASL PLAIN LOGIN", "USER"]);
        assert!(pop3.start_tls() && pop3.mechanisms() == ["PLAIN", "LOGIN"]);
        let smtp = offers(Protocol::Smtp, "250-mail.test\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n");
        assert_eq!(smtp.words, ["STARTTLS", "AUTH PLAIN LOGIN"]);
        assert!(smtp.start_tls() && smtp.mechanisms() == ["PLAIN", "LOGIN"]);
        assert!(offers(Protocol::Smtp, "502 what\r\n").words.is_empty());
        let sieve = "\"SASL\" \"PLAIN LOGIN\"\r\n\"SIEVE\" {4}\r\na b \r\n\"STARTTLS\"\r\nOK\r\n";
        let sieve = offers(Protocol::Sieve, sieve);
        assert_eq!(sieve.words, ["SASL PLAIN LOGIN", "SIEVE a b", "STARTTLS"]);
        assert!(sieve.start_tls() && sieve.mechanisms() == ["PLAIN", "LOGIN"]);
    }

    #[test]
    fn capabilities_after_starttls_are_not_asked_for_in_managesieve() {
        for (protocol, expected) in [(Protocol::Sieve, ""), (Protocol::Pop3, "CAPA\r\n")] {
            let mut out = Vec::new();
            let mut visit = Visit::secured(protocol);
            visit.ask(Question::Capabilities, "", &mut out);
            assert_eq!(out, expected.as_bytes());
            visit.ask(Question::Capabilities, "", &mut out);
            assert!(out.ends_with(b"\r\n"), "{protocol:?}");
        }
    }

    #[test]
    fn logs_in_as_the_server_offers() {
        let imap = |words: &str| offers(Protocol::Imap, &format!("* CAPABILITY {words}\r\nvisit OK\r\n"));
        let plain = "AG1lAHNlY3JldA==";
        assert_eq!(
            login(&imap("AUTH=PLAIN SASL-IR")),
            ("AUTHENTICATE PLAIN", format!("visit AUTHENTICATE PLAIN {plain}\r\n"))
        );
        assert_eq!(
            login(&imap("AUTH=PLAIN")),
            ("AUTHENTICATE PLAIN", format!("visit AUTHENTICATE PLAIN\r\n{plain}\r\n"))
        );
        assert_eq!(login(&imap("")), ("LOGIN", "visit LOGIN {2}\r\nme {6}\r\nsecret\r\n".to_owned()));
        let none = Login::choose(&imap("LOGINDISABLED"), b"me", &Secret::default());
        assert_eq!(none.unwrap_err(), NoLogin::NoMechanism);
        let user = ("USER", "USER me\r\nPASS secret\r\n".to_owned());
        assert_eq!(login(&offers(Protocol::Pop3, "-ERR\r\n")), user);
        assert_eq!(login(&offers(Protocol::Pop3, "+OK\r\nUSER\r\n.\r\n")), user);
        let sasl = offers(Protocol::Pop3, "+OK\r\nSASL PLAIN\r\n.\r\n");
        assert_eq!(login(&sasl), ("AUTH PLAIN", format!("AUTH PLAIN {plain}\r\n")));
        let smtp = offers(Protocol::Smtp, "250-a\r\n250 AUTH LOGIN\r\n");
        assert_eq!(login(&smtp), ("AUTH LOGIN", "AUTH LOGIN\r\nbWU=\r\nc2VjcmV0\r\n".to_owned()));
        let sieve = offers(Protocol::Sieve, "\"SASL\" \"LOGIN PLAIN\"\r\nOK\r\n");
        assert_eq!(login(&sieve), ("AUTHENTICATE PLAIN", format!("AUTHENTICATE \"PLAIN\" \"{plain}\"\r\n")));
        let sieve = offers(Protocol::Sieve, "\"SASL\" \"LOGIN\"\r\nOK\r\n");
        let lines = "AUTHENTICATE \"LOGIN\"\r\n\"bWU=\"\r\n\"c2VjcmV0\"\r\n".to_owned();
        assert_eq!(login(&sieve), ("AUTHENTICATE LOGIN", lines));
        let forged = Login::choose(&sasl, b"me\r\nDELE 1", &Secret::default());
        assert_eq!(forged.unwrap_err(), NoLogin::ControlCharacters);
    }

    #[test]
    fn an_answer_without_an_end_is_an_error() {
        let mut input = Input::new(64);
        input.append(&[b'x'; 64]).unwrap();
        assert!(Visit::new(Protocol::Imap).take(Question::Greeting, &mut input).is_err());
    }

    #[test]
    fn knows_what_else_servers_speak() {
        assert_eq!(spoken_instead(b"220 mail ESMTP\r\n"), Some("SMTP (or FTP)"));
        assert_eq!(spoken_instead(&[0x15, 3, 1, 0, 2]), Some("TLS"));
        assert_eq!(spoken_instead(b"hello"), None);
    }
}
