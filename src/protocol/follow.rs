//! What is followed of a session after its login, while the relay passes its bytes.
//!
//! IMAP: whether the backend is between two responses, for the goodbye at the end of a drain. SMTP: the same, and that
//! a client's own XCLIENT never reaches a backend that trusts us, nor AUTH one of a session without a login. POP3 is not followed: the end of a multi-line answer
//! cannot be told without the commands, so that a session ends without a goodbye.
//!
//! Nothing here holds bytes of the session; the state is a few words.

mod imap;
mod replies;
mod smtp;
mod text;

use self::imap::ImapFollower;
use self::smtp::SmtpFollower;
use super::{CloseReason, Protocol};

/// Follows one session from the first byte behind its login.
#[derive(Debug)]
pub struct Follower(Kind);

#[derive(Debug)]
enum Kind {
    Imap(ImapFollower),
    Pop3,
    Smtp(SmtpFollower),
}

/// What may be done with the bytes that the client has sent and that were not passed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Pass so many from the front, at least one; ask again for the rest.
    Pass(usize),
    /// Throw so many away from the front, at least one; ask again for the rest.
    Drop(usize),
    /// Pass nothing until more has come: the command is not whole. So few bytes are left that they fit into
    /// [`MAX_COMMAND_LINE`].
    More,
    /// Pass nothing until the backend has replied, or until [`Follower::take_answer`] has been sent.
    Wait,
    /// End the session.
    Close(CloseReason),
}

/// What is known of an SMTP session when the relay begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmtpStart {
    /// The backend offers CHUNKING.
    pub takes_chunks: bool,
    /// The client has logged in; it began with mail otherwise.
    pub is_logged_in: bool,
}

/// Bytes of a command line of SMTP behind the login. RFC 4954 section 4.5.3 allows base64 of 12288 bytes in AUTH.
pub const MAX_COMMAND_LINE: usize = 12_288 + 256;

impl Follower {
    /// Begins behind the login; `smtp` matters to SMTP only.
    #[must_use]
    pub const fn new(protocol: Protocol, smtp: SmtpStart) -> Self {
        Self(match protocol {
            Protocol::Imap => Kind::Imap(ImapFollower::new()),
            Protocol::Pop3 => Kind::Pop3,
            Protocol::Smtp => Kind::Smtp(SmtpFollower::new(smtp)),
        })
    }

    /// What may be done with `bytes` of the client. They begin with the first byte that was neither passed nor
    /// dropped, and are not empty.
    pub fn client(&mut self, bytes: &[u8]) -> Passage {
        match &mut self.0 {
            Kind::Imap(imap) => {
                imap.client(bytes);
                Passage::Pass(bytes.len())
            }
            Kind::Pop3 => Passage::Pass(bytes.len()),
            Kind::Smtp(smtp) => smtp.client(bytes),
        }
    }

    /// Takes note of bytes from the backend; all of them are passed.
    pub fn backend(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Imap(imap) => imap.backend(bytes),
            Kind::Pop3 => {}
            Kind::Smtp(smtp) => smtp.backend(bytes),
        }
    }

    /// A reply of our own, to be sent behind what the backend has said so far.
    pub fn take_answer(&mut self) -> Option<&'static [u8]> {
        match &mut self.0 {
            Kind::Smtp(smtp) => smtp.take_answer(),
            Kind::Imap(_) | Kind::Pop3 => None,
        }
    }

    /// Whether [`Self::client`] would answer something else than [`Passage::Wait`] now.
    #[must_use]
    pub const fn may_go_on(&self) -> bool {
        match &self.0 {
            Kind::Smtp(smtp) => smtp.may_go_on(),
            Kind::Imap(_) | Kind::Pop3 => true,
        }
    }

    /// Whether a goodbye behind what the backend has said so far is read as a response of its own.
    #[must_use]
    pub const fn is_between_responses(&self) -> bool {
        match &self.0 {
            Kind::Imap(imap) => imap.is_between_responses(),
            Kind::Pop3 => false,
            Kind::Smtp(smtp) => smtp.is_between_replies(),
        }
    }
}
