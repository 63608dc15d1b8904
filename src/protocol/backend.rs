//! State machines for the backend: greeting, STARTTLS, XCLIENT or ID, and the login.
//!
//! Each protocol has its own machine (NGINX section 9). They send one command at a time and wait for its reply. A reply
//! must fit into the input.

pub mod header;
mod imap;
mod pop3;
mod probe;
mod refusal;
mod reply;
mod sasl;
mod smtp;
pub mod visit;

use crate::secret::Secret;

use self::imap::Imap;
use self::pop3::Pop3;
pub use self::probe::{Probe, ProbeStep};
pub use self::refusal::{RefusalCause, is_closing};
pub use self::reply::first_line;
use self::smtp::Smtp;
use super::Protocol;
use super::imap::id::ClientId;
use super::input::Input;
use super::login::{Envelope, LoginRequest};
use super::sasl::Mechanism;

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
    /// `passthrough`: the client gets the backend's own reply to an accepted login. This is always so for IMAP and
    /// POP3. For SMTP with an auth service, the reply is nginx's.
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

/// What a backend did wrong, and at which step.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A reply that does not allow the step to continue.
    #[error("the backend answered {step} with \"{reply}\"")]
    Unexpected {
        /// The name of the command, without its arguments.
        step: &'static str,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// All lines, for `passErrorMessage`.
        verbatim: Vec<u8>,
    },
    /// The backend accepts nobody at present: SMTP 4yz, IMAP BYE or UNAVAILABLE, POP3 SYS/TEMP.
    #[error("the backend is not available: it answered {step} with \"{reply}\"")]
    Unavailable {
        /// As for [`Self::Unexpected`].
        step: &'static str,
        /// As for [`Self::Unexpected`].
        reply: String,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// A reply is longer than the buffer.
    #[error("the backend's answer to {step} does not fit into the buffer")]
    TooLong {
        /// The command that the reply answers.
        step: &'static str,
    },
    /// Bytes arrived before the command was sent that they seem to answer. They are never taken as a reply to it.
    #[error("the backend sent \"{reply}\" before it was sent {step}")]
    Unasked {
        /// The command that was about to be sent.
        step: &'static str,
        /// The first line, escaped, at most 200 characters.
        reply: String,
    },
    /// A refusal that does not answer the login.
    #[error("the backend's answer \"{reply}\" is not about the login")]
    OutOfStep {
        /// The first line, escaped, at most 200 characters.
        reply: String,
    },
    /// The backend sent a TLS record instead of a greeting.
    #[error("the backend speaks TLS from the first byte; set upstream.tls.mode: Implicit")]
    SpeaksTls,
    /// The backend does not announce the mechanism and refused the command, without checking the credentials.
    #[error("the backend does not offer {mechanism} and answered it with \"{reply}\"; {remedy}")]
    NotOffered {
        /// The command with its mechanism, such as `AUTH PLAIN`.
        mechanism: String,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// What the operator can change.
        remedy: &'static str,
    },
    /// IMAP: `LOGINDISABLED`, and no mechanism with a password is offered.
    #[error(
        "the backend takes no passwords: it announces LOGINDISABLED without AUTH=PLAIN; enable a mechanism there, or \
         set upstream.tls.mode if it only takes passwords under TLS"
    )]
    LoginDisabled,
    /// STARTTLS is configured, but the backend does not offer it.
    #[error("the backend does not offer STARTTLS, which upstream.tls.mode asks for")]
    NoStartTls,
    /// SMTP: the backend does not know EHLO (RFC 5321 section 4.1.1.1).
    #[error("the backend does not know EHLO, which {needed_by} needs: it answered it with \"{reply}\"")]
    NoEhlo {
        /// The setting or step that needs it.
        needed_by: &'static str,
        /// As for [`Self::Unexpected`].
        reply: String,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// The protocol cannot transfer these credentials (quirk Q-21).
    #[error("the login or password holds control characters, which {protocol} cannot carry")]
    ControlCharacters {
        /// The protocol's name for the message.
        protocol: &'static str,
    },
    /// The auth service accepted a digest, token or certificate, but named no password for the backend.
    #[error("no password for the backend: the auth service must answer with Auth-Pass")]
    NoPassword,
}

impl BackendError {
    /// Creates the error for a reply that does not allow the step to continue.
    fn at(step: &'static str, verbatim: Vec<u8>) -> Self {
        let reply = first_line(&verbatim);
        if refusal::is_unavailable(&verbatim) {
            Self::Unavailable { step, reply, verbatim }
        } else {
            Self::Unexpected { step, reply, verbatim }
        }
    }

    /// Creates the error for a refusal that does not answer the login.
    #[must_use]
    pub fn out_of_step(reply: &[u8]) -> Self {
        Self::OutOfStep { reply: first_line(reply) }
    }

    /// Creates the error for a refused mechanism that was not announced.
    fn not_offered(command: &str, mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("{command} {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: ENABLE }
    }

    fn no_ehlo(needed_by: &'static str, verbatim: Vec<u8>) -> Self {
        Self::NoEhlo { needed_by, reply: first_line(&verbatim), verbatim }
    }

    /// As [`Self::not_offered`], where AUTH is not offered but STARTTLS is (RFC 4954 section 4).
    fn not_offered_in_clear(mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("AUTH {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: USE_START_TLS }
    }

    /// Returns the backend's closing reply if it answers the login: with `passthrough`, the client gets it. A closing
    /// greeting answers nothing that the client sent.
    #[must_use]
    pub fn goodbye(&self, protocol: Protocol) -> Option<&[u8]> {
        match self {
            Self::Unexpected { step, verbatim, .. } | Self::Unavailable { step, verbatim, .. }
                if *step != GREETING && is_closing(protocol, verbatim) =>
            {
                Some(verbatim)
            }
            _ => None,
        }
    }
}

/// The remedy for a mechanism that is not announced.
const ENABLE: &str = "enable it there, or set upstream.tls.mode if it is only offered under TLS";
/// The remedy if the backend offers STARTTLS and no AUTH in cleartext.
const USE_START_TLS: &str =
    "it offers STARTTLS and no AUTH, so it takes logins under TLS only: set upstream.tls.mode: StartTLS";
/// The name of the greeting's step in errors.
const GREETING: &str = "the connection";

impl Backend {
    /// Creates a machine that waits for the greeting.
    #[must_use]
    pub fn new(plan: BackendPlan) -> Self {
        Self(match plan.protocol {
            Protocol::Imap => Machine::Imap(Imap::new(plan)),
            Protocol::Pop3 => Machine::Pop3(Pop3::new(plan)),
            Protocol::Smtp => Machine::Smtp(Smtp::new(plan)),
        })
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
            Machine::Pop3(_) => None,
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

/// The backend has accepted STARTTLS.
#[derive(Debug)]
pub struct BackendStartTls(Secured);

/// The state that survives STARTTLS. Nothing that the backend announced before does.
#[derive(Debug)]
enum Secured {
    Imap(imap::Preparation),
    Pop3(pop3::Preparation),
    Smtp(smtp::Preparation),
}

impl BackendStartTls {
    /// Continues after the handshake. Appends the next command, if there is one.
    #[must_use]
    pub fn secured(self, out: &mut Vec<u8>) -> Backend {
        match self.0 {
            Secured::Imap(preparation) => preparation.secured(out).into(),
            Secured::Pop3(preparation) => preparation.secured(out).into(),
            Secured::Smtp(preparation) => preparation.secured(out).into(),
        }
    }
}

/// The backend waits for the client's response to its challenge.
#[derive(Debug)]
pub struct BackendExchange(Backend);

impl BackendExchange {
    /// Appends the client's response (base64, `=`, empty or `*`) as received. Bytes that `input` holds now arrived
    /// before the response.
    #[must_use]
    pub fn answer(self, answer: &Secret, input: &mut Input, out: &mut Vec<u8>) -> Backend {
        input.note_question();
        out.extend_from_slice(answer.expose());
        out.extend_from_slice(b"\r\n");
        self.0
    }
}
