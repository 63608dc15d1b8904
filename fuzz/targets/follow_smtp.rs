//! The follower of SMTP sessions: any client, with a server that reads as Postfix does.

use mailgress::protocol::follow::{Follower, Interrupted, MAX_COMMAND_LINE, Passage, SmtpStart};
use mailgress::protocol::{CloseReason, Protocol};

use super::choices::{Choices, bit, sizes};
use super::postfix::{Ends, Mode, Postfix, Settings};
use player::{Player, Server};

#[path = "../../src/protocol/follow/smtp/tests/player.rs"]
mod player;

/// Invariants:
/// * the server never runs a command that clients must not send, with neither of Postfix's ways to read a message;
/// * what the follower calls a message is one for the server, unless the follower is in doubt or ends the session;
/// * what reaches the server and the client is the same for any chunking;
/// * all bytes pass, except the lines that were refused; at most a command line is held back;
/// * nothing waits for ever.
///
/// Where routes place the recipients, also:
/// * the server gets no recipient that the follower has not shown, and none that was refused;
/// * a session leaves only when the server has replied to all that it got; at MAIL, only if the server has no transaction;
/// * a session without routes never leaves.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let [flags, accepts, chunks, delays] = choices.bytes();
    let stream = choices.rest();
    for ends in [Ends::AnyNewline, Ends::Standard] {
        let settings = Settings { ends, takes_chunks: bit(flags, 0), accepts, is_verbose: bit(flags, 1) };
        let start = SmtpStart { takes_chunks: settings.takes_chunks, is_routed: bit(flags, 4) };
        let session = || Session::new(settings, start);
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
    session.player.send(before);
    session.player.unsent.extend_from_slice(replies[usize::from(choice >> 5)]);
    session.player.deliver(usize::MAX);
    session.player.send(after);
    session.player.deliver_all();
    session.check_commands();
}

/// What must not depend on the chunks.
#[derive(Debug, PartialEq)]
struct Outcome<'a> {
    commands: &'a [Vec<u8>],
    text: &'a [u8],
    heard: &'a [u8],
    shown: &'a [(Vec<u8>, bool)],
    closed: Option<CloseReason>,
    /// What the session has taken along.
    left: Option<&'a [u8]>,
}

impl Server for Postfix {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        Self::take(self, bytes)
    }
}

/// A session, and what it began with.
struct Session {
    player: Player<Postfix>,
    start: SmtpStart,
}

impl Session {
    fn new(settings: Settings, start: SmtpStart) -> Self {
        Self { player: Player::begin(Postfix::new(settings), start), start }
    }

    /// Sends in chunks. After each, the follower gets at most `most` bytes of the replies; at the end, all of them.
    fn talk(mut self, bytes: &[u8], mut chunk: impl FnMut(usize) -> usize, most: usize) -> Self {
        let mut rest = bytes;
        while !rest.is_empty() && self.player.closed.is_none() {
            let (now, next) = rest.split_at(chunk(rest.len()));
            rest = next;
            self.player.send(now);
            if most == usize::MAX {
                self.player.deliver_all();
                self.compare();
            } else {
                self.player.deliver(most);
            }
        }
        self.player.deliver_all();
        self.compare();
        self
    }

    /// Compares the follower with the server, when the server has read what was passed, and the follower all replies.
    fn compare(&self) {
        let interrupted = self.player.follower.interrupted();
        let is_message = match self.player.server.mode() {
            Mode::Message | Mode::Chunk(_) => true,
            Mode::Command | Mode::Response => false,
            // Postfix does not read on.
            Mode::Closed => return,
        };
        if self.player.closed.is_some() {
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
        self.check_leaving();
        assert!(self.player.has_all_bytes(), "bytes are lost");
        let is_closed = self.player.server.mode() == Mode::Closed;
        assert!(self.player.goes_on() || is_closed, "it waits for ever");
    }

    fn check_commands(&self) {
        let Postfix { commands, recipients, .. } = &self.player.server;
        let is_refused = |command: &&Vec<u8>| {
            matches!(command.as_slice(), b"XCLIENT" | b"XFORWARD" | b"STARTTLS" | b"AUTH")
        };
        let ran = commands.iter().find(is_refused);
        assert!(ran.is_none(), "the server runs {}", ran.map_or(&[][..], Vec::as_slice).escape_ascii());
        if self.start.is_routed {
            let shown = self.player.shown.iter().filter(|(_, is_refused)| !is_refused).count();
            assert!(*recipients <= shown, "the server gets {recipients} recipients, and {shown} were shown");
        }
    }

    fn check_leaving(&self) {
        let Player { follower, server, has_left, .. } = &self.player;
        if *has_left {
            assert!(self.start.is_routed, "a session without routes leaves");
            assert!(server.is_idle(), "the session leaves within a line or a message");
            assert!(follower.is_in_transaction() || !server.has_transaction, "it leaves a transaction");
        }
    }

    fn outcome(&self) -> Outcome<'_> {
        let Player { server, heard, shown, closed, has_left, held, .. } = &self.player;
        let Postfix { commands, text, .. } = server;
        let left = has_left.then_some(&held[..]);
        Outcome { commands, text, heard, shown, closed: *closed, left }
    }
}
