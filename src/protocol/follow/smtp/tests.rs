//! Tests of the follower with simulated servers that read messages as real servers do, and with sentences.

use proptest::prelude::*;

use super::*;
use crate::protocol::Protocol;
use crate::protocol::follow::Follower;
use player::Player;

mod player;

/// A server that records the commands it ran.
#[derive(Debug)]
struct Server {
    rules: Rules,
    mode: Mode,
    input: Vec<u8>,
    /// The last line of a message ended with CRLF.
    behind_crlf: bool,
    verbs: Vec<String>,
    recipients: Vec<String>,
    messages: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Accepts bare LFs around the final dot too (Postfix before 3.9).
    takes_bare_lf: bool,
    takes_chunks: bool,
    /// Routes place the recipients; those with `other` belong to another backend.
    is_routed: bool,
    /// DATA is accepted only every n-th time.
    accepts_data: usize,
}

impl Rules {
    const fn start(self) -> SmtpStart {
        let Self { takes_chunks, is_routed, .. } = self;
        SmtpStart { takes_chunks, is_routed }
    }
}

#[derive(Debug, PartialEq)]
enum Mode {
    Command,
    Message,
    Chunk(usize),
}

impl Server {
    fn new(rules: Rules) -> Self {
        let (verbs, recipients, messages) = (Vec::new(), Vec::new(), Vec::new());
        let input = Vec::new();
        Self { rules, mode: Mode::Command, input, behind_crlf: true, verbs, recipients, messages }
    }

    fn line(&mut self, line: &[u8]) -> &'static [u8] {
        if self.mode == Mode::Message {
            return self.text(line);
        }
        let line = String::from_utf8_lossy(line).to_uppercase();
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default().to_owned();
        self.verbs.push(verb.clone());
        if line.replace(|letter: char| !letter.is_ascii_alphabetic(), "").starts_with("RCPT") {
            self.recipients.push(line.clone());
        }
        match verb.as_str() {
            "DATA" if self.verbs.len().is_multiple_of(self.rules.accepts_data) => {
                (self.mode, self.behind_crlf) = (Mode::Message, true);
                self.messages.push(Vec::new());
                b"354 go\r\n"
            }
            "DATA" => b"503-no\r\n503 recipients\r\n",
            "BDAT" if self.rules.takes_chunks => {
                self.mode = Mode::Chunk(words.next().unwrap_or_default().parse().unwrap_or_default());
                b""
            }
            "EHLO" if self.rules.takes_chunks => b"250-server\r\n250-chunking\r\n250 SIZE\r\n",
            _ => b"250-multi\r\n250 line\r\n",
        }
    }

    fn text(&mut self, line: &[u8]) -> &'static [u8] {
        let bare = line.strip_suffix(b"\n").unwrap();
        let mut stripped = bare;
        while let Some(shorter) = stripped.strip_suffix(b"\r") {
            stripped = shorter;
        }
        let ends = match self.rules.takes_bare_lf {
            true => stripped == b".",
            false => self.behind_crlf && line == b".\r\n",
        };
        self.behind_crlf = line.ends_with(b"\r\n");
        if ends {
            self.mode = Mode::Command;
            return b"250 queued\r\n";
        }
        self.messages.last_mut().unwrap().extend_from_slice(line);
        b""
    }
}

impl player::Server for Server {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let mut replies = Vec::new();
        loop {
            if let Mode::Chunk(size) = self.mode {
                if self.input.len() < size {
                    return replies;
                }
                self.input.drain(..size);
                self.mode = Mode::Command;
                replies.extend_from_slice(b"250 chunk\r\n");
            }
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { return replies };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            replies.extend_from_slice(self.line(&line));
        }
    }
}

/// A session with such a server.
type Session = Player<Server>;

impl Session {
    fn new(rules: Rules) -> Self {
        Self::begin(Server::new(rules), rules.start())
    }

    /// Sends in chunks of these sizes, and delivers the replies after each.
    fn talk(mut self, bytes: &[u8], sizes: &[usize]) -> Self {
        let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
        while !rest.is_empty() {
            let (chunk, next) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            self.send(chunk);
            self.deliver_all();
            rest = next;
        }
        self
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).replace("250-multi\r\n250 line\r\n", "250\r\n")
    }
}

fn talk(bytes: &[u8]) -> Session {
    Session::new(STRICT).talk(bytes, &[usize::MAX])
}

#[test]
fn a_clients_xclient_is_answered_in_its_place_and_never_passed() {
    let session = talk(b"RSET\r\nXCLIENT LOGIN=bob\r\nNOOP\r\n \t xforward NAME=x\nQUIT\r\n");
    assert_eq!(session.server.verbs, ["RSET", "NOOP", "QUIT"]);
    let (xclient, xforward) =
        ("503 5.5.1 XCLIENT is not for clients\r\n", "503 5.5.1 XFORWARD is not for clients\r\n");
    assert_eq!(session.heard(), format!("250 first recipient\r\n250\r\n{xclient}250\r\n{xforward}250\r\n"));
}

#[test]
fn no_disguise_of_xclient_is_passed() {
    for line in [
        &b"xclient LOGIN=bob\r\n"[..],
        b"\x0b\x0cXCLIENT LOGIN=bob\r\n",
        b"\"XCLIENT\" LOGIN=bob\r\n",
        b"X\\CLIENT LOGIN=bob\n",
        b"\0XCLIENT LOGIN=bob\r\n",
        b"NOOP\rXCLIENT LOGIN=bob\r\n",
        b"STARTTLS\r\n",
    ] {
        let session = talk(line);
        assert!(session.server.verbs.is_empty(), "{}: {:?}", line.escape_ascii(), session.server.verbs);
        assert!(session.heard().contains("\r\n50"), "{}", session.heard());
    }
}

#[test]
fn a_message_may_talk_about_xclient() {
    let session = talk(b"DATA\r\nXCLIENT LOGIN=bob\r\n..\r\n.\r\nXCLIENT LOGIN=eve\r\nQUIT\r\n");
    assert_eq!(session.server.messages, [b"XCLIENT LOGIN=bob\r\n..\r\n".to_vec()]);
    assert_eq!(session.server.verbs, ["DATA", "QUIT"]);
    let chunks = talk(b"BDAT 9\r\nXCLIENT \nBDAT 3 LAST\r\na\r\nXCLIENT A=B\r\nQUIT\r\n");
    assert_eq!(chunks.server.verbs, ["BDAT", "BDAT", "QUIT"]);
}

#[test]
fn what_follows_a_refused_data_is_no_message() {
    let session = Session::new(Rules { accepts_data: usize::MAX, ..STRICT });
    let session = session.talk(b"DATA\r\nXCLIENT LOGIN=bob\r\nQUIT\r\n", &[usize::MAX]);
    assert_eq!(session.server.verbs, ["DATA", "QUIT"]);
}

#[test]
fn bdat_ends_a_session_whose_backend_would_read_its_content_as_commands() {
    for (line, takes_chunks) in [
        (&b"BDAT 20\r\n"[..], false),
        (b"BDAT +20\r\n", true),
        (b"BDAT\r\n", true),
        (b"BDAT 20 x\r\n", true),
        (b"BDAT 20 LASTX\r\n", true),
        (b"BDAT 20 LAST x\r\n", true),
        // This is 20 in 32 bits.
        (b"BDAT 4294967316\r\n", true),
    ] {
        let session = Session::new(Rules { takes_chunks, ..STRICT });
        let session = session.talk(&[line, b"XCLIENT LOGIN=bob\r\n"].concat(), &[usize::MAX]);
        assert_eq!(session.closed, Some(CloseReason::RefusedLiteral), "{}", line.escape_ascii());
        assert!(session.server.verbs.is_empty());
    }
}

#[test]
fn behind_a_doubtful_end_of_a_message_all_passes_but_xclient() {
    let session = talk(b"DATA\r\na\n.\nMAIL FROM:<a@b>\r\nXCLIENT LOGIN=bob\r\n");
    assert_eq!(session.closed, Some(CloseReason::DoubtfulCommand));
    assert_eq!(session.server.messages, [b"a\n.\nMAIL FROM:<a@b>\r\n".to_vec()]);
    let harmless = talk(b"DATA\r\na\n.\nXylophone\r\n\r\n.\r\nQUIT\r\n");
    assert_eq!((harmless.closed, harmless.server.verbs.len()), (None, 2));
}

/// A chunk that ends within a line would turn the rest of that line into a command.
#[test]
fn behind_a_doubtful_end_of_a_message_no_chunk_hides_a_command() {
    let hidden = b"BDAT 4\r\nabcdXCLIENT LOGIN=bob\r\n";
    for end in [&b"a\n.\n"[..], b"hi\n.\r\n", b"hi\r\n.\rx\r\n.\r\n"] {
        for takes_bare_lf in [true, false] {
            let session = Session::new(Rules { takes_bare_lf, ..STRICT });
            let session = session.talk(&[b"DATA\r\n", end, hidden].concat(), &[usize::MAX]);
            assert_eq!(session.closed, Some(CloseReason::DoubtfulCommand), "{}", end.escape_ascii());
            assert!(!session.server.verbs.iter().any(|verb| verb == "XCLIENT"), "{:?}", session.server.verbs);
        }
    }
}

#[test]
fn a_reply_that_nothing_asked_for_within_a_chunk_ends_the_session() {
    let mut follower = SmtpFollower::new(STRICT.start());
    follower.backend(b"250 ok\r\n");
    assert_eq!(follower.client(b"BDAT 9\r\nabcd", |_| None), Passage::Pass(12));
    follower.backend(b"250 chunk\r\n250 what\r\n");
    assert_eq!(follower.client(b"efgh", |_| None), Passage::Close(CloseReason::DoubtfulCommand));
}

#[test]
fn a_command_line_that_is_too_long_is_refused_and_the_session_goes_on() {
    for letters in [MAX_COMMAND_LINE - 1, MAX_COMMAND_LINE, 3 * MAX_COMMAND_LINE] {
        let line = [vec![b'x'; letters], b"\r\nNOOP\r\n".to_vec()].concat();
        for size in [usize::MAX, 1000] {
            let session = Session::new(STRICT).talk(&line, &[size]);
            assert_eq!(session.heard(), "250 first recipient\r\n500 5.5.2 Line too long\r\n250\r\n");
            assert_eq!(session.server.verbs, ["NOOP"]);
        }
    }
}

#[test]
fn a_session_cannot_log_in_later() {
    let session =
        Session::new(STRICT).talk(b"RSET\r\nAUTH PLAIN AGEAYg==\r\n auth\r\nQUIT\r\n", &[usize::MAX]);
    assert_eq!(session.server.verbs, ["RSET", "QUIT"]);
    assert_eq!(session.heard().matches("503 5.5.1 AUTH is not possible now\r\n").count(), 2);
    for line in [&b"AUTH PLAIN AGEAYg==\r\n"[..], b"auth\r\n", b"AUTH\tLOGIN\r\n"] {
        for size in [usize::MAX, 1] {
            let stream = [b"DATA\r\na\n.\n", line].concat();
            let session = Session::new(STRICT).talk(&stream, &[size]);
            assert_eq!(session.closed, Some(CloseReason::DoubtfulCommand), "{}", line.escape_ascii());
        }
    }
    for text in ["Authentication-Results: x", "Auth: x", "\"auth\": {", "> auth", "// auth", "Auth-User: x"] {
        let harmless = format!("DATA\r\na\n.\n{text}\r\n\r\n.\r\nQUIT\r\n");
        for size in [usize::MAX, 1] {
            assert_eq!(Session::new(STRICT).talk(harmless.as_bytes(), &[size]).closed, None, "{text}");
        }
    }
}

/// The login used HELO, to which backends offer no extensions.
#[test]
fn chunks_are_followed_once_a_later_ehlo_offers_them() {
    let mut session = Session::new(STRICT);
    session.follower = Follower::new(Protocol::Smtp, SmtpStart::default());
    session.follower.backend(b"250 first recipient\r\n");
    let session = session.talk(b"EHLO a\r\n", &[usize::MAX]);
    let session = session.talk(b"BDAT 9 LAST\r\nXCLIENT \nQUIT\r\n", &[usize::MAX]);
    assert_eq!(
        (session.closed, session.server.verbs),
        (None, vec!["EHLO".into(), "BDAT".into(), "QUIT".into()])
    );
}

#[test]
fn a_reply_that_nothing_asked_for_is_in_doubt_and_a_goodbye_is_not() {
    let follow = |replies: &[u8]| {
        let mut follower = SmtpFollower::new(SmtpStart::default());
        follower.backend(replies);
        follower.state
    };
    assert_eq!(follow(b"250 ok\r\n421 bye\r\n"), SmtpState::Commands);
    assert_eq!(follow(b"250 ok\r\n250 what\r\n"), SmtpState::Doubt { at_start: true });
    assert_eq!(follow(b"354 go\r\n"), SmtpState::Doubt { at_start: true });
}

#[test]
fn is_between_replies_only_behind_a_whole_one() {
    let between = |replies: &[u8]| {
        let mut follower = SmtpFollower::new(SmtpStart::default());
        follower.backend(replies);
        follower.is_between_replies()
    };
    for whole in [&b""[..], b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"250\r\n", b"ok\n"] {
        assert!(between(whole), "{}", whole.escape_ascii());
    }
    for part in [&b"2"[..], b"250 ok\r", b"250-a\r\n", b"250-a\r\n250"] {
        assert!(!between(part), "{}", part.escape_ascii());
    }
}

fn routed(bytes: &[u8]) -> Session {
    Session::new(ROUTED).talk(bytes, &[usize::MAX])
}

#[test]
fn a_recipient_of_another_backend_is_answered_in_its_place_and_not_passed() {
    let session = routed(
        b"RCPT TO:<a@own>\r\nRCPT TO:<b@other>\r\nNOOP\r\nRCPT TO:<c@other>\r\n\
          DATA\r\nRCPT TO:<d@other>\r\n.\r\n",
    );
    assert_eq!(session.server.verbs, ["RCPT", "NOOP", "DATA"]);
    assert_eq!(session.server.messages, [b"RCPT TO:<d@other>\r\n".to_vec()]);
    let heard = "250 first recipient\r\n250\r\n452 other\r\n250\r\n452 other\r\n354 go\r\n250 queued\r\n";
    assert_eq!(session.heard(), heard);
}

#[test]
fn no_disguise_of_a_recipient_is_passed() {
    for line in [
        &b" RCPT TO:<b@other>\r\n"[..],
        b"\"RCPT\" TO:<b@other>\r\n",
        b"RCPT\tTO:<b@other>\r\n",
        b"R\\CPT TO:<b@other>\n",
        b"rcptTO:<b@other>\r\n",
        b"RCPT\r\n",
        b"NOOP\rRCPT TO:<b@other>\r\n",
        b"RCPT TO:<b@other> a a a a a a a a a a a\r\n",
    ] {
        let session = routed(line);
        assert!(session.server.verbs.is_empty(), "{}: {:?}", line.escape_ascii(), session.server.verbs);
        assert!(session.heard().contains("\r\n50"), "{}", session.heard());
    }
    // Without routes, all of them are the backend's.
    assert_eq!(talk(b" RCPT TO:<b@other>\r\nRCPT TO:<b@other>\r\n").server.recipients.len(), 2);
}

/// The session would not leave, or would take along a connection with a transaction.
#[test]
fn no_disguise_of_a_sender_or_a_greeting_is_passed() {
    for line in [
        &b" MAIL FROM:<a@b>\r\n"[..],
        b"\tmail FROM:<a@b>\r\n",
        b"MAIL\tFROM:<a@b>\r\n",
        b"\"MAIL\" FROM:<a@b>\n",
        b"MAIL FROM:<a@b> a a a a a a a a a a a\r\n",
        b" EHLO a\r\n",
        b"HELO\ta\r\n",
    ] {
        let session = routed(&[b"RSET\r\n", line].concat());
        assert_eq!(session.server.verbs, ["RSET"], "{}", line.escape_ascii());
        assert!(session.heard().ends_with("\r\n500 5.5.1 Invalid command\r\n"), "{}", session.heard());
        assert!(!session.has_left);
        assert_eq!(talk(line).server.verbs.len(), 1, "without routes, it is the backend's");
    }
}

/// The size of a chunk decides what is a command.
#[test]
fn a_session_leaves_at_the_next_transaction_with_everything_that_follows() {
    let next = "MAIL FROM:<a@b>\r\nRCPT TO:<b@other>\r\nDATA\r\n";
    for (transaction, replies) in [
        ("DATA\r\nMAIL FROM:<x>\r\nEHLO a\r\n..\r\n.\r\n", "354 go\r\n250 queued\r\n"),
        ("BDAT 6\r\nMAIL\r\nBDAT 7 last\r\nEHLO a\n", "250 chunk\r\n250 chunk\r\n"),
        ("BDAT 0 LAST\r\n", "250 chunk\r\n"),
        ("RSET\r\nNOOP\r\n", "250\r\n250\r\n"),
    ] {
        let stream = [transaction, next].concat();
        for size in (1..=stream.len()).chain([usize::MAX]) {
            let session = Session::new(ROUTED).talk(stream.as_bytes(), &[size]);
            assert!(
                session.has_left && session.closed.is_none(),
                "{transaction}: {:?}",
                session.server.verbs
            );
            assert_eq!(session.held, next.as_bytes(), "{transaction}");
            assert_eq!(session.heard(), format!("250 first recipient\r\n{replies}"));
            assert!(!session.follower.is_in_transaction());
        }
        assert!(!talk([transaction, next].concat().as_bytes()).has_left, "without routes");
    }
}

#[test]
fn a_session_stays_while_the_backend_has_a_transaction() {
    for open in ["NOOP\r\n", "BDAT 3\r\nabc", "RSET now\r\n", "RCPT TO:<a@own>\r\n"] {
        let session = routed([open, "MAIL FROM:<a@b>\r\n"].concat().as_bytes());
        assert!(!session.has_left && session.held.is_empty(), "{open}");
        assert_eq!(session.server.verbs.last().unwrap(), "MAIL", "the backend answers");
    }
    let refused = Session::new(Rules { accepts_data: usize::MAX, ..ROUTED });
    let refused = refused.talk(b"DATA\r\nMAIL FROM:<a@b>\r\n", &[usize::MAX]);
    assert_eq!(refused.server.verbs, ["DATA", "MAIL"]);
}

#[test]
fn ehlo_and_helo_are_not_for_the_backend() {
    for hello in ["EHLO a\r\n", "helo a\n"] {
        let session = routed(format!("NOOP\r\n{hello}MAIL FROM:<a@b>\r\n").as_bytes());
        assert!(session.has_left && session.follower.is_in_transaction());
        assert_eq!(session.held, format!("{hello}MAIL FROM:<a@b>\r\n").as_bytes());
    }
    assert!(routed(b"EHLO\r\n").heard().ends_with("501 5.5.4 Invalid argument\r\n"));
}

#[test]
fn a_session_leaves_only_when_the_backend_owes_nothing() {
    let mut session = Session::new(ROUTED);
    session.send(b"RSET\r\nNOOP\r\nMAIL FROM:<a@b>\r\n");
    for _ in 0..session.unsent.len() {
        assert!(!session.has_left && !session.follower.may_go_on());
        session.deliver(1);
    }
    assert!(session.has_left);
    // A backend that has said that it closes keeps the session.
    let mut closing = Session::new(ROUTED);
    closing.send(b"RSET\r\nMAIL FROM:<a@b>\r\n");
    closing.unsent = b"421 bye\r\n".to_vec();
    closing.deliver(usize::MAX);
    assert!(!closing.has_left && closing.server.verbs == ["RSET", "MAIL"]);
}

#[test]
fn behind_a_doubtful_end_of_a_message_a_recipient_ends_the_session() {
    for end in [&b"a\n.\n"[..], b"hi\n.\r\n", b"hi\r\n.\rx\r\n.\r\n"] {
        for size in [usize::MAX, 1] {
            let stream = [b"DATA\r\n", end, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@other>\r\n"].concat();
            let session = Session::new(Rules { takes_bare_lf: true, ..ROUTED }).talk(&stream, &[size]);
            assert_eq!(session.closed, Some(CloseReason::DoubtfulCommand), "{}", end.escape_ascii());
            assert!(session.server.recipients.is_empty(), "{:?}", session.server.recipients);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_server_ever_runs_a_clients_xclient(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        sizes in prop::collection::vec(1_usize..30, 1..30),
        delays in prop::collection::vec(0_usize..20, 1..30),
        rules in rules(),
    ) {
        let is_routed = rules.is_routed;
        let mut session = Session::new(rules);
        let stream = pieces.concat();
        let (mut rest, mut sizes, mut delays) = (stream.as_slice(), sizes.iter().cycle(), delays.iter().cycle());
        while !rest.is_empty() {
            let (chunk, next) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            session.send(chunk);
            session.deliver(*delays.next().unwrap());
            rest = next;
        }
        session.deliver_all();
        let never = |verb: &&String| {
            ["XCLIENT", "XFORWARD", "STARTTLS", "AUTH"].contains(&verb.as_str())
        };
        let ran = session.server.verbs.iter().find(never);
        prop_assert!(ran.is_none(), "{:?}", session.server.verbs);
        let others = session.server.recipients.iter().filter(|line| line.contains("OTHER")).count();
        prop_assert!(!is_routed || others == 0, "{:?}", session.server.recipients);
        prop_assert!(is_routed || !session.has_left);
        prop_assert!(session.goes_on(), "it waits for ever");
        prop_assert!(session.has_all_bytes(), "bytes are lost");
    }

    #[test]
    fn any_chunking_of_a_session_is_followed_alike(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        sizes in prop::collection::vec(1_usize..9, 1..30),
        rules in rules(),
    ) {
        let stream = pieces.concat();
        let whole = Session::new(rules).talk(&stream, &[usize::MAX]);
        let chunked = Session::new(rules).talk(&stream, &sizes);
        prop_assert_eq!(&whole.server.verbs, &chunked.server.verbs);
        prop_assert_eq!(&whole.server.messages, &chunked.server.messages);
        prop_assert_eq!(whole.heard(), chunked.heard());
        prop_assert_eq!(&whole.shown, &chunked.shown);
        prop_assert_eq!(whole.closed, chunked.closed);
        prop_assert_eq!(whole.has_left, chunked.has_left);
        prop_assert!(!whole.has_left || whole.held == chunked.held);
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let rules = (any::<bool>(), any::<bool>(), any::<bool>(), 1_usize..4);
    rules.prop_map(|(takes_bare_lf, takes_chunks, is_routed, accepts_data)| Rules {
        takes_bare_lf,
        takes_chunks,
        is_routed,
        accepts_data,
    })
}

const STRICT: Rules = Rules { takes_bare_lf: false, takes_chunks: true, is_routed: false, accepts_data: 1 };

const ROUTED: Rules = Rules { is_routed: true, ..STRICT };

const PIECES: &[&[u8]] = &[
    b"NOOP\r\n",
    b"RSET\n",
    b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
    b"RCPT TO:<c@other>\r\n",
    b" rcpt TO:<c@other>\n",
    b"BDAT 5\r\nabcdeRCPT TO:<c@other>\r\n",
    b"mail from:<>\n",
    b"DATA\r\n",
    b" data\n",
    b"text\r\n",
    b"..\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b".\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b".\r\r\n",
    b"\r",
    b"\n",
    b".",
    b"XCLIENT LOGIN=bob\r\n",
    b"XCLIENT LOGIN=bob\n",
    b" \txforward A=b\n",
    b"X",
    b"STARTTLS\r\n",
    b"EHLO a\r\n",
    b"BDAT 5\r\n",
    b"BDAT 25 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 4\r\nabcd",
    b"BDAT 4\r\nabcdXCLIENT LOGIN=bob\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH PLAIN AA==\r\n",
    b"eA==\r\n",
];
