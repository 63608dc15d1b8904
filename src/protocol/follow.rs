//! Follows a session after its login, while the relay moves its bytes.
//!
//! For IMAP and ManageSieve it knows whether the backend is between two responses, so that a closing message can be inserted at the end
//! of a drain. For SMTP it knows the same, and keeps the client's XCLIENT away from a backend that trusts us, and a
//! second AUTH. POP3 is not followed: without reading the commands, the end of a multi-line reply is
//! unknown, so a session ends without a closing message.
//!
//! It also knows what the end of a connection interrupts, so that the log can name who is at fault.
//!
//! Nothing here stores bytes of the session; the state has a few words.

mod commands;
mod ending;
mod imap;
mod line;
mod replies;
mod responses;
mod sieve;
mod smtp;
mod text;

use self::responses::{Grammar, ResponseFollower};
use self::smtp::SmtpFollower;
use super::{CloseReason, Protocol};

/// Follows one session from the first byte after its login.
#[derive(Debug)]
pub struct Follower(Kind);

#[derive(Debug)]
enum Kind {
    Responses(ResponseFollower),
    Pop3,
    Smtp(SmtpFollower),
}

/// What the relay may do with bytes of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Pass this many bytes from the front, at least one, then ask again for the rest.
    Pass(usize),
    /// Drop this many bytes from the front, at least one, then ask again for the rest.
    Drop(usize),
    /// Pass nothing until more bytes have arrived, because the command is incomplete. The remaining bytes fit into
    /// [`MAX_COMMAND_LINE`].
    More,
    /// Pass nothing until the backend has replied, or until [`Follower::take_answer`] has been sent; or for ever, see
    /// [`Follower::may_leave`].
    Wait,
    /// End the session.
    Close(CloseReason),
}

/// What the end of the connection interrupts, as far as this is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// SMTP: the client has sent a part of a message.
    Message,
    /// The backend has not replied to a command (SMTP only), or has sent a part of a reply.
    Reply,
    /// The backend has said that it closes (SMTP's 421) without a command that asks for it.
    Notice,
    /// SMTP: the backend has refused a message with a temporary error, and has replied to nothing since.
    Delivery,
}

/// What is known of an SMTP session when the relay starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmtpStart {
    /// The backend offers CHUNKING.
    pub takes_chunks: bool,
    /// Mail without a login whose recipients are placed by routes, each of them.
    pub is_routed: bool,
}

/// Bytes of an SMTP command line after the login. No command needs more: RFC 4954 section 4.5.3 allows 12,288 bytes of base64
/// in AUTH.
pub const MAX_COMMAND_LINE: usize = 12_288 + 256;

impl Follower {
    /// Starts after the login. Only SMTP uses `smtp`.
    #[must_use]
    pub const fn new(protocol: Protocol, smtp: SmtpStart) -> Self {
        Self(match protocol {
            Protocol::Imap => Kind::Responses(ResponseFollower::new(Grammar::Imap)),
            Protocol::Pop3 => Kind::Pop3,
            Protocol::Smtp => Kind::Smtp(SmtpFollower::new(smtp)),
            Protocol::Sieve => Kind::Responses(ResponseFollower::new(Grammar::Sieve)),
        })
    }

    /// Decides about `bytes` of the client. They start with the first byte that was neither passed nor dropped, and are
    /// not empty. `refusal` is called once for each RCPT line of [`SmtpStart::is_routed`], without its end, and returns the
    /// answer if the recipient is refused.
    pub fn client(&mut self, bytes: &[u8], refusal: impl FnMut(&[u8]) -> Option<&'static [u8]>) -> Passage {
        match &mut self.0 {
            Kind::Responses(responses) => {
                responses.client(bytes);
                Passage::Pass(bytes.len())
            }
            Kind::Pop3 => Passage::Pass(bytes.len()),
            Kind::Smtp(smtp) => smtp.client(bytes, refusal),
        }
    }

    /// Reads bytes of the backend; all of them are passed.
    pub fn backend(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Responses(responses) => responses.backend(bytes),
            Kind::Pop3 => {}
            Kind::Smtp(smtp) => smtp.backend(bytes),
        }
    }

    /// Returns our own reply, if one is due. Send it after the bytes that the backend has sent so far.
    pub fn take_answer(&mut self) -> Option<&'static [u8]> {
        match &mut self.0 {
            Kind::Smtp(smtp) => smtp.take_answer(),
            Kind::Responses(_) | Kind::Pop3 => None,
        }
    }

    /// Tells whether [`Self::client`] would now return something else than [`Passage::Wait`].
    #[must_use]
    pub const fn may_go_on(&self) -> bool {
        match &self.0 {
            Kind::Smtp(smtp) => smtp.may_go_on(),
            Kind::Responses(_) | Kind::Pop3 => true,
        }
    }

    /// Tells whether the client's next command is for another backend, or for us: the MAIL of the next transaction, EHLO or
    /// HELO of [`SmtpStart::is_routed`]. It is neither passed nor dropped, and the backend owes nothing.
    #[must_use]
    pub const fn may_leave(&self) -> bool {
        match &self.0 {
            Kind::Smtp(smtp) => smtp.may_leave(),
            Kind::Responses(_) | Kind::Pop3 => false,
        }
    }

    /// SMTP: tells whether the backend may have a sender and recipients for the next message.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        match &self.0 {
            Kind::Smtp(smtp) => smtp.is_open(),
            Kind::Responses(_) | Kind::Pop3 => false,
        }
    }

    /// Tells whether a closing message after the backend's bytes so far would be read as a separate response.
    #[must_use]
    pub const fn is_between_responses(&self) -> bool {
        match &self.0 {
            Kind::Responses(responses) => responses.is_between_responses(),
            Kind::Pop3 => false,
            Kind::Smtp(smtp) => smtp.is_between_replies(),
        }
    }

    /// Returns what an end of the connection would interrupt now.
    #[must_use]
    pub const fn interrupted(&self) -> Option<Interrupted> {
        match &self.0 {
            Kind::Responses(responses) => responses.interrupted(),
            Kind::Pop3 => None,
            Kind::Smtp(smtp) => smtp.interrupted(),
        }
    }
}
