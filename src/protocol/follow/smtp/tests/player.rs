//! A client's session with a server, and the follower between them, for the tests beside this folder and for
//! `fuzz/targets/follow_smtp.rs`. Therefore the parent module imports what this one needs of the crate.

use super::{CloseReason, Follower, MAX_COMMAND_LINE, Passage, Protocol, SmtpStart};

/// A mail server, as far as it decides what is a command.
pub(super) trait Server {
    /// Reads bytes, and returns the replies.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8>;
}

/// The session. Recipients with `other` in their line belong to another backend.
pub(super) struct Player<S> {
    pub(super) follower: Follower,
    pub(super) server: S,
    /// Sent by the client and not passed yet. A session that leaves takes it along.
    pub(super) held: Vec<u8>,
    /// Sent by the server and not seen by the follower yet.
    pub(super) unsent: Vec<u8>,
    /// What the client got.
    pub(super) heard: Vec<u8>,
    pub(super) closed: Option<CloseReason>,
    /// The session left the follower.
    pub(super) has_left: bool,
    /// The lines of recipients that the follower has shown, and whether they were refused.
    pub(super) shown: Vec<(Vec<u8>, bool)>,
    /// Bytes that the client has sent, and those of them that are not held any more.
    sent: usize,
    taken: usize,
}

impl<S: Server> Player<S> {
    /// Begins a session whose first recipient the server has accepted.
    pub(super) fn begin(server: S, start: SmtpStart) -> Self {
        let mut player = Self {
            follower: Follower::new(Protocol::Smtp, start),
            server,
            held: Vec::new(),
            unsent: b"250 first recipient\r\n".to_vec(),
            heard: Vec::new(),
            closed: None,
            has_left: false,
            shown: Vec::new(),
            sent: 0,
            taken: 0,
        };
        player.deliver_all();
        player
    }

    /// Sends bytes of the client.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.sent = self.sent.saturating_add(bytes.len());
        self.held.extend_from_slice(bytes);
        self.pump();
    }

    /// Gives the follower at most this many bytes of the server's replies.
    pub(super) fn deliver(&mut self, most: usize) {
        let bytes: Vec<u8> = self.unsent.drain(..most.min(self.unsent.len())).collect();
        self.follower.backend(&bytes);
        self.heard.extend_from_slice(&bytes);
        self.pump();
    }

    /// Gives the follower all replies, also those to what it passes meanwhile.
    pub(super) fn deliver_all(&mut self) {
        while !self.unsent.is_empty() {
            self.deliver(usize::MAX);
        }
    }

    /// Tells whether the session is over, or takes more bytes of the client.
    pub(super) fn goes_on(&self) -> bool {
        self.closed.is_some() || self.has_left || self.follower.may_go_on()
    }

    /// Tells whether all bytes were passed, refused, or are still held.
    pub(super) fn has_all_bytes(&self) -> bool {
        self.taken.saturating_add(self.held.len()) == self.sent
    }

    fn pump(&mut self) {
        loop {
            if let Some(answer) = self.follower.take_answer() {
                self.heard.extend_from_slice(answer);
            }
            self.has_left |= self.follower.may_leave();
            if self.held.is_empty() || self.closed.is_some() || self.has_left {
                return;
            }
            let shown = &mut self.shown;
            let passage = self.follower.client(&self.held, |line| {
                let is_other = line.to_ascii_lowercase().windows(5).any(|word| word == b"other");
                shown.push((line.to_vec(), is_other));
                is_other.then_some(&b"452 other\r\n"[..])
            });
            match passage {
                Passage::Pass(count) => {
                    let passed = self.take(count);
                    let replies = self.server.take(&passed);
                    self.unsent.extend_from_slice(&replies);
                }
                Passage::Drop(count) => drop(self.take(count)),
                Passage::More => {
                    assert!(self.held.len() <= MAX_COMMAND_LINE, "{} bytes are held", self.held.len());
                    return;
                }
                Passage::Wait => {
                    assert!(!self.follower.may_go_on(), "it waits for nothing");
                    self.has_left |= self.follower.may_leave();
                    return;
                }
                Passage::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        assert!(count > 0, "nothing is taken");
        self.taken = self.taken.saturating_add(count);
        self.held.drain(..count).collect()
    }
}
