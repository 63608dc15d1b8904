//! State machines for the backend: greeting, STARTTLS, XCLIENT or ID, and the login.
//!
//! Each protocol has its own machine (NGINX section 9). They send one command at a time and wait for its reply. A reply
//! must fit into the input.

mod error;
pub mod header;
mod imap;
mod pop3;
mod probe;
mod refusal;
mod reply;
mod sasl;
mod sieve;
mod smtp;
pub mod visit;

use crate::secret::Secret;

pub use self::error::BackendError;
use self::error::GREETING;
pub use self::error::first_line;
use self::imap::Imap;
use self::pop3::Pop3;
pub use self::probe::{Probe, ProbeStep};
pub use self::refusal::{RefusalCause, is_closing};
use self::sieve::Sieve;
use self::smtp::Smtp;
use super::Protocol;
use super::imap::id::ClientId;
use super::input::Input;
use super::login::{Envelope, LoginRequest};

/// The input of a [`Backend`], decided before the first byte is exchanged.
#[derive(Debug)]
pub struct BackendPlan {
    /// The protocol of the backend; it equals the client's.
    pub protocol: Protocol,
    /// `upstream.tls.mode: StartTLS`: send nothing in cleartext except what STARTTLS needs.
    pub start_tls: bool,
    /// Our name in EHLO and HELO.
    pub server_name: String,
    /// SMTP: send the client's name in EHLO and HELO instead, if it has sent one.
    pub client_hello: bool,
    /// IMAP: the client's tag with its trailing space.
    pub tag: Vec<u8>,
    /// The login to send.
    pub login: BackendLogin,
    /// SMTP: the client's commands, to be sent to the backend.
    pub envelope: Envelope,
    /// SMTP: send the client's identity with XCLIENT.
    pub xclient: Option<(ClientInfo, XclientNegotiation)>,
    /// IMAP: if the backend offers ID (RFC 2971), send the client's identity in Dovecot's fields (`x-originating-ip`
    /// …), with the parameters of the client's own ID.
    pub imap_id: Option<(ClientInfo, ClientId)>,
    /// `passthrough`: the client gets the backend's own reply to an accepted login. This is always so except
    /// for SMTP. For SMTP with an auth service, the reply is nginx's.
    pub verbatim: bool,
}

/// When XCLIENT is sent (quirk Q-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum XclientNegotiation {
    /// Send the attributes that the backend's EHLO offers.
    Auto,
    /// Send all attributes without looking at EHLO, as nginx does.
    Always,
}

/// How to log in to the backend.
#[derive(Debug)]
pub enum BackendLogin {
    /// Credentials from the client or from the auth service. Never [`LoginRequest::Digest`], [`LoginRequest::Token`] or
    /// [`LoginRequest::External`]: for these, the auth service names a password.
    Request(LoginRequest),
    /// SMTP with `smtpAuth: false`: the backend trusts us. It gets the login with XCLIENT or not at all, and the client
    /// gets our own `235 2.0.0 OK`.
    Trusted {
        /// The value of XCLIENT's LOGIN attribute.
        login: Vec<u8>,
    },
}

/// The client's identity for XCLIENT and ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Address and port; `None` for a client on a UNIX socket.
    pub address: Option<std::net::SocketAddr>,
    /// The address that the client connected to.
    pub destination: Option<std::net::SocketAddr>,
    /// SMTP: the verified host name, or `[UNAVAILABLE]` / `[TEMPUNAVAIL]`.
    pub host: String,
}

/// The state machine that talks to the backend until the login is decided.
#[derive(Debug)]
pub struct Backend(Machine);

#[derive(Debug)]
enum Machine {
    Imap(Imap),
    Pop3(Pop3),
    Smtp(Smtp),
    Sieve(Sieve),
}

/// What the caller has to do next, after writing the commands appended so far.
#[derive(Debug)]
pub enum BackendStep {
    /// Read more bytes into the input.
    Read(Backend),
    /// The backend accepted STARTTLS. Prove that the input is empty (bytes injected before the handshake are refused),
    /// do the handshake, then call [`BackendStartTls::secured`].
    StartTls(BackendStartTls),
    /// Relayed SASL: send the client this challenge of the backend (base64, as received).
    Challenge(Vec<u8>, BackendExchange),
    /// Logged in: send `reply` to the client, then the rest of the input, then start the relay.
    Ready {
        /// The final reply for the client, in whole lines.
        reply: Vec<u8>,
        /// SMTP: the backend offers CHUNKING, so it reads the bytes after BDAT as content.
        takes_chunks: bool,
        /// Mail without a login: why the backend refused the first recipient. The session continues.
        refused: Option<RefusalCause>,
    },
    /// The backend refused the login itself, not an earlier step.
    Refused(Refusal),
    /// Any other failure.
    Failed(BackendError),
}

/// A refused login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whole lines as received; for the client with `passthrough` or `passErrorMessage`.
    pub reply: Vec<u8>,
    /// Who has to act before the login can succeed.
    pub cause: RefusalCause,
}

impl Backend {
    /// Creates a machine that waits for the greeting.
    #[must_use]
    pub fn new(plan: BackendPlan) -> Self {
        Self(match plan.protocol {
            Protocol::Imap => Machine::Imap(Imap::new(plan)),
            Protocol::Pop3 => Machine::Pop3(Pop3::new(plan)),
            Protocol::Smtp => Machine::Smtp(Smtp::new(plan)),
            Protocol::Sieve => Machine::Sieve(Sieve::new(plan)),
        })
    }

    /// SMTP: creates a machine for the next mail on a connection that has no open transaction. `takes_chunks`: as
    /// [`BackendStep::Ready`] has told of this connection.
    #[must_use]
    pub fn next_mail(envelope: Envelope, takes_chunks: bool, out: &mut Vec<u8>) -> Self {
        Smtp::next_mail(envelope, takes_chunks, out).into()
    }

    /// Takes whole replies from `input` until the caller has to act.
    #[must_use]
    pub fn receive(mut self, input: &mut Input, out: &mut Vec<u8>) -> BackendStep {
        loop {
            let said = out.len();
            let flow = match self.0 {
                Machine::Imap(imap) => imap.next(input, out),
                Machine::Pop3(pop3) => pop3.next(input, out),
                Machine::Smtp(smtp) => smtp.next(input, out),
                Machine::Sieve(sieve) => sieve.next(input, out),
            };
            match flow {
                Ok(Flow::Next(next)) => {
                    self = next;
                    if out.len() > said {
                        input.note_question();
                    }
                }
                Ok(Flow::Outside(step)) => return step,
                Err(error) => return BackendStep::Failed(error),
            }
        }
    }

    /// Returns the refusal or error that was already received, if only a later question about it is unanswered.
    #[must_use]
    pub fn unanswered(self) -> Option<Result<Refusal, BackendError>> {
        match self.0 {
            Machine::Imap(imap) => imap.unanswered().map(Ok),
            Machine::Smtp(smtp) => smtp.unanswered().map(Err),
            Machine::Pop3(_) | Machine::Sieve(_) => None,
        }
    }
}

/// Returns the step for a refused login.
fn refused(protocol: Protocol, reply: Vec<u8>) -> Flow {
    let cause = RefusalCause::of_login(protocol, &reply);
    Flow::Outside(BackendStep::Refused(Refusal { reply, cause }))
}

/// Returns the step for an accepted login.
fn ready(reply: Vec<u8>) -> Flow {
    Flow::Outside(BackendStep::Ready { reply, takes_chunks: false, refused: None })
}

/// The result of one reply.
#[derive(Debug)]
enum Flow {
    /// Continue with the next reply.
    Next(Backend),
    /// The caller has to act first.
    Outside(BackendStep),
}

impl From<Imap> for Backend {
    fn from(imap: Imap) -> Self {
        Self(Machine::Imap(imap))
    }
}

impl From<Pop3> for Backend {
    fn from(pop3: Pop3) -> Self {
        Self(Machine::Pop3(pop3))
    }
}

impl From<Smtp> for Backend {
    fn from(smtp: Smtp) -> Self {
        Self(Machine::Smtp(smtp))
    }
}

impl From<Sieve> for Backend {
    fn from(sieve: Sieve) -> Self {
        Self(Machine::Sieve(sieve))
    }
}

/// The backend has accepted STARTTLS.
#[derive(Debug)]
pub struct BackendStartTls(Secured);

/// The state that survives STARTTLS. Nothing that the backend announced before does.
#[derive(Debug)]
enum Secured {
    Imap(imap::Preparation),
    Pop3(pop3::Preparation),
    Smtp(smtp::Preparation),
    Sieve(sieve::Preparation),
}

impl BackendStartTls {
    /// Continues after the handshake. Appends the next command, if there is one.
    #[must_use]
    pub fn secured(self, out: &mut Vec<u8>) -> Backend {
        match self.0 {
            Secured::Imap(preparation) => preparation.secured(out).into(),
            Secured::Pop3(preparation) => preparation.secured(out).into(),
            Secured::Smtp(preparation) => preparation.secured(out).into(),
            Secured::Sieve(preparation) => preparation.secured().into(),
        }
    }
}

/// The backend waits for the client's response to its challenge.
#[derive(Debug)]
pub struct BackendExchange(Backend);

impl BackendExchange {
    /// Appends the client's response (base64, `=`, empty or `*`), in ManageSieve as a string. Bytes that `input` holds now
    /// arrived before the response.
    #[must_use]
    pub fn answer(self, answer: &Secret, input: &mut Input, out: &mut Vec<u8>) -> Backend {
        input.note_question();
        match &self.0.0 {
            Machine::Sieve(_) => sieve::append_answer(answer, out),
            Machine::Imap(_) | Machine::Pop3(_) | Machine::Smtp(_) => sasl::append_answer(answer, out),
        }
        self.0
    }
}
