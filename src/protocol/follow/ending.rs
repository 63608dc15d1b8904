//! Counts the replies that an SMTP backend owes, to know what its end would interrupt.

use super::Interrupted;
use super::replies::Reply;

/// What the backend owes, and whether it has said that it closes.
#[derive(Debug)]
pub(super) struct Ending {
    /// Replies that the backend has not sent yet.
    outstanding: u32,
    /// Replies that are due before the one to QUIT.
    before_goodbye: Option<u32>,
    /// Replies that are due before the one to the last DATA, BDAT or message.
    before_content: Option<u32>,
    announced: Announced,
}

/// What the backend replies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Bytes without a reply.
    Nothing,
    Command,
    /// RSET.
    Reset,
    /// DATA, or BDAT that is not the last one.
    Content,
    /// The end of a message, or the last BDAT.
    LastContent,
    /// QUIT.
    Goodbye,
}

impl Asked {
    /// Tells whether the backend has no sender and no recipients afterwards.
    pub(super) const fn ends_transaction(self) -> bool {
        matches!(self, Self::Reset | Self::LastContent)
    }
}

/// Whether the backend has announced the end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    No,
    /// In the reply to a command (221, 421 or 521), or with any 421 that is the client's fault.
    InReply,
    /// With a 421 that answers no command, for another reason than its policy.
    Unasked,
    /// With a temporary refusal of a message, if nothing follows.
    Postponed,
}

impl Ending {
    /// The backend's reply to the login is still expected.
    pub(super) const fn new() -> Self {
        Self { outstanding: 1, before_goodbye: None, before_content: None, announced: Announced::No }
    }

    pub(super) const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    pub(super) const fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Nothing => return,
            Asked::Command | Asked::Reset => {}
            Asked::Content | Asked::LastContent => self.before_content = Some(self.outstanding),
            Asked::Goodbye => self.before_goodbye = Some(self.outstanding),
        }
        self.outstanding = self.outstanding.saturating_add(1);
    }

    /// Takes a reply. Returns false if no command was waiting for it.
    pub(super) fn replied(&mut self, Reply { code, is_policy }: Reply) -> bool {
        let Some(left) = self.outstanding.checked_sub(1) else {
            // The backend may announce at any time that it closes (RFC 5321 section 3.8).
            if code == CLOSING {
                // Postfix does so when the client has made too many errors.
                self.announced = if is_policy { Announced::InReply } else { Announced::Unasked };
            }
            return false;
        };
        self.outstanding = left;
        self.announced = match (self.before_content, code) {
            (Some(0), 400..=499) if !is_policy => Announced::Postponed,
            (_, CLOSING | GOODBYE | NO_SERVICE) => Announced::InReply,
            _ if self.announced == Announced::Postponed => Announced::No,
            _ => self.announced,
        };
        let one_less = |before: Option<u32>| before.and_then(|before| before.checked_sub(1));
        self.before_goodbye = one_less(self.before_goodbye);
        self.before_content = one_less(self.before_content);
        true
    }

    /// Tells whether the backend has said that it closes, as an answer or on its own.
    pub(super) const fn is_announced(&self) -> bool {
        matches!(self.announced, Announced::InReply | Announced::Unasked)
    }

    /// Tells whether the session ends as it should: the backend has said goodbye, or owes only the reply to QUIT.
    pub(super) const fn is_agreed(&self) -> bool {
        matches!(self.announced, Announced::InReply) || matches!(self.before_goodbye, Some(0))
    }

    /// Returns what an end would interrupt. `is_between`: no part of an incomplete reply has arrived.
    pub(super) const fn interrupted(&self, is_between: bool) -> Option<Interrupted> {
        match self.announced {
            Announced::Unasked => Some(Interrupted::Notice),
            _ if self.outstanding > 0 || !is_between => Some(Interrupted::Reply),
            Announced::Postponed => Some(Interrupted::Delivery),
            Announced::No | Announced::InReply => None,
        }
    }
}

/// Replies after which the backend closes.
const GOODBYE: u16 = 221;
/// Postfix sends it with a syntax error after which it cannot know where the next command begins (RFC 7504).
const NO_SERVICE: u16 = 521;
pub(super) const CLOSING: u16 = 421;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_521_announces_the_end_of_the_session() {
        let mut ending = Ending::new();
        ending.replied(Reply { code: 235, is_policy: false });
        ending.asked(Asked::Content);
        ending.asked(Asked::Command);
        assert!(ending.replied(Reply { code: NO_SERVICE, is_policy: false }));
        assert!(ending.is_agreed());
    }

    #[test]
    fn a_421_because_of_the_clients_behaviour_ends_the_session_as_it_should() {
        let reply = |code, is_policy| Reply { code, is_policy };
        for (asked, is_policy, interrupted) in [
            (Asked::Nothing, true, None),
            (Asked::Nothing, false, Some(Interrupted::Notice)),
            (Asked::Command, true, None),
            (Asked::Command, false, None),
            (Asked::Content, true, None),
            (Asked::Content, false, Some(Interrupted::Delivery)),
        ] {
            let mut ending = Ending::new();
            ending.replied(reply(220, false));
            ending.asked(asked);
            assert_eq!(ending.replied(reply(CLOSING, is_policy)), asked != Asked::Nothing);
            assert_eq!(ending.interrupted(true), interrupted, "{asked:?} {is_policy}");
        }
    }
}
