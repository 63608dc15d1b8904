//! The follower of SMTP sessions: any client, with a server that reads as Postfix does.

use mailgress::protocol::CloseReason;
use mailgress::protocol::Protocol;
use mailgress::protocol::follow::{Follower, Interrupted, MAX_COMMAND_LINE, Passage, SmtpStart};

use super::choices::{Choices, bit, sizes};
use super::postfix::{Ends, Mode, Postfix, Settings};

/// Invariants:
/// * the server never runs a command that clients must not send, with neither of Postfix's ways to read a message;
/// * what the follower calls a message is one for the server, unless the follower is in doubt or ends the session;
/// * what reaches the server and the client is the same for any chunking;
/// * all bytes pass, except the lines that were refused; at most a command line is held back;
/// * nothing waits for ever.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let [flags, accepts, chunks, delays] = choices.bytes();
    let stream = choices.rest();
    for ends in [Ends::AnyNewline, Ends::Standard] {
        let settings = Settings { ends, takes_chunks: bit(flags, 0), accepts, is_verbose: bit(flags, 1) };
        let session = || Session::new(settings, bit(flags, 2));
        let whole = session().talk(stream, |available| available, usize::MAX);
        whole.check();
        let bytewise = session().talk(stream, |_| 1, usize::MAX);
        bytewise.check();
        assert_eq!(whole.outcome(), bytewise.outcome(), "the result depends on the chunks");
        let cut = session().talk(stream, sizes(chunks), usize::MAX);
        assert_eq!(whole.outcome(), cut.outcome(), "the result depends on the chunks");
        let late = session().talk(stream, sizes(chunks), usize::from(delays));
        late.check();
        if bit(flags, 3) {
            check_unasked(session(), stream, accepts);
        }
    }
}

/// Whatever else the server says, and wherever, it runs no refused command.
fn check_unasked(mut session: Session, stream: &[u8], choice: u8) {
    let replies: [&[u8]; 8] = [
        b"250 what\r\n",
        b"354 go\r\n",
        b"334 bWU=\r\n",
        b"421 4.7.0 bye\r\n",
        b"\r\n",
        b"250-",
        b"999999999999 x\r\n",
        b"250-CHUNKING\r\n250 x\r\n",
    ];
    let (before, after) = stream.split_at(stream.len() / 2);
    session.send(before);
    session.unsent.extend_from_slice(replies[usize::from(choice >> 5)]);
    session.deliver(usize::MAX);
    session.send(after);
    session.deliver_all();
    session.check_commands();
}

/// What must not depend on the chunks.
#[derive(Debug, PartialEq)]
struct Outcome<'a> {
    commands: &'a [Vec<u8>],
    text: &'a [u8],
    heard: &'a [u8],
    closed: Option<CloseReason>,
}

/// A client's session with a server, and the follower between them.
struct Session {
    follower: Follower,
    server: Postfix,
    is_logged_in: bool,
    /// Sent by the client and not passed yet.
    held: Vec<u8>,
    /// Sent by the server and not seen by the follower yet.
    unsent: Vec<u8>,
    /// What the client got.
    heard: Vec<u8>,
    /// Bytes of the client, and those of them that were dropped.
    sent: usize,
    dropped: usize,
    passed: usize,
    closed: Option<CloseReason>,
}

impl Session {
    fn new(settings: Settings, is_logged_in: bool) -> Self {
        let start = SmtpStart { takes_chunks: settings.takes_chunks, is_logged_in, is_routed: false };
        let mut session = Self {
            follower: Follower::new(Protocol::Smtp, start),
            server: Postfix::new(settings),
            is_logged_in,
            held: Vec::new(),
            unsent: b"250 2.1.5 Ok\r\n".to_vec(),
            heard: Vec::new(),
            sent: 0,
            dropped: 0,
            passed: 0,
            closed: None,
        };
        session.deliver_all();
        session
    }

    /// Sends in chunks. After each, the follower gets at most `most` bytes of the replies; at the end, all of them.
    fn talk(mut self, bytes: &[u8], mut chunk: impl FnMut(usize) -> usize, most: usize) -> Self {
        let mut rest = bytes;
        while !rest.is_empty() && self.closed.is_none() {
            let (now, next) = rest.split_at(chunk(rest.len()));
            rest = next;
            self.send(now);
            if most == usize::MAX {
                self.deliver_all();
                self.compare();
            } else {
                self.deliver(most);
            }
        }
        self.deliver_all();
        self.compare();
        self
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent += bytes.len();
        self.held.extend_from_slice(bytes);
        self.pump();
    }

    fn deliver_all(&mut self) {
        while !self.unsent.is_empty() {
            self.deliver(usize::MAX);
        }
    }

    /// Gives the follower at most this many bytes of the server's replies.
    fn deliver(&mut self, most: usize) {
        let bytes: Vec<u8> = self.unsent.drain(..most.min(self.unsent.len())).collect();
        self.follower.backend(&bytes);
        self.heard.extend_from_slice(&bytes);
        self.pump();
    }

    fn pump(&mut self) {
        loop {
            if let Some(answer) = self.follower.take_answer() {
                self.heard.extend_from_slice(answer);
            }
            if self.held.is_empty() || self.closed.is_some() {
                return;
            }
            match self.follower.client(&self.held, |_| None) {
                Passage::Pass(count) => {
                    assert!(count > 0, "nothing is passed");
                    let passed: Vec<u8> = self.held.drain(..count).collect();
                    self.passed += count;
                    let replies = self.server.take(&passed);
                    self.unsent.extend_from_slice(&replies);
                }
                Passage::Drop(count) => {
                    assert!(count > 0, "nothing is dropped");
                    self.held.drain(..count);
                    self.dropped += count;
                }
                Passage::More => {
                    assert!(self.held.len() <= MAX_COMMAND_LINE, "{} bytes are held", self.held.len());
                    return;
                }
                Passage::Wait => {
                    assert!(!self.follower.may_go_on(), "it waits for nothing");
                    return;
                }
                Passage::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    /// Compares the follower with the server, when the server has read what was passed, and the follower all replies.
    fn compare(&self) {
        let interrupted = self.follower.interrupted();
        let is_message = match self.server.mode() {
            Mode::Message | Mode::Chunk(_) => true,
            Mode::Command | Mode::Response => false,
            // Postfix does not read on.
            Mode::Closed => return,
        };
        if self.closed.is_some() {
            return;
        }
        if is_message {
            assert!(
                matches!(interrupted, None | Some(Interrupted::Message)),
                "the server reads a message, and the follower expects {interrupted:?}"
            );
        } else {
            assert_ne!(interrupted, Some(Interrupted::Message), "the server reads commands");
        }
    }

    fn check(&self) {
        self.check_commands();
        assert_eq!(self.passed + self.dropped + self.held.len(), self.sent, "bytes are lost");
        let is_waiting = self.closed.is_none() && !self.follower.may_go_on();
        assert!(!is_waiting || self.server.mode() == Mode::Closed, "it waits for ever");
    }

    fn check_commands(&self) {
        let is_refused = |command: &&Vec<u8>| {
            matches!(command.as_slice(), b"XCLIENT" | b"XFORWARD" | b"STARTTLS")
                || command.as_slice() == b"AUTH" && !self.is_logged_in
        };
        let ran = self.server.commands.iter().find(is_refused);
        assert!(ran.is_none(), "the server runs {}", ran.map_or(&[][..], Vec::as_slice).escape_ascii());
    }

    fn outcome(&self) -> Outcome<'_> {
        let Postfix { commands, text, .. } = &self.server;
        Outcome { commands, text, heard: &self.heard, closed: self.closed }
    }
}
