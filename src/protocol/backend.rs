//! The side of the machines that faces the backend: greeting, STARTTLS, XCLIENT or ID, and the login.
//!
//! Each protocol has its own machine below this one (NGINX section 9). They go in lock-step: one command,
//! one reply; a reply has to fit into the input.

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

/// Everything a backend is told, decided before the first byte.
#[derive(Debug)]
pub struct BackendPlan {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// `upstream.tls.mode: StartTLS`: nothing but the upgrade is sent in clear.
    pub start_tls: bool,
    /// The name in EHLO / HELO.
    pub server_name: String,
    /// SMTP: the client's name in EHLO / HELO instead, where it has said one.
    pub client_hello: bool,
    /// IMAP: the client's tag with its trailing space.
    pub tag: Vec<u8>,
    /// How to log in.
    pub login: BackendLogin,
    /// SMTP: what the client said, replayed.
    pub envelope: Envelope,
    /// SMTP: announce the client with XCLIENT.
    pub xclient: Option<(ClientInfo, XclientNegotiation)>,
    /// IMAP: announce the client with ID (RFC 2971) as Dovecot understands it (`x-originating-ip` …), with what
    /// it said of itself, when the backend offers it.
    pub imap_id: Option<(ClientInfo, ClientId)>,
    /// `passthrough`: the backend's own words for a login that it accepts are the client's. IMAP and POP3 do so
    /// always; for SMTP with an auth service nginx words the reply itself.
    pub verbatim: bool,
}

/// How XCLIENT is agreed on (quirk Q-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XclientNegotiation {
    /// Sent as far as the backend's EHLO offers it.
    Auto,
    /// Sent without looking, as nginx does.
    Always,
}

/// How the backend is asked to accept the user.
#[derive(Debug)]
pub enum BackendLogin {
    /// The credentials, from the client or from the auth service. Never [`LoginRequest::Digest`],
    /// [`LoginRequest::Token`] or [`LoginRequest::External`]: those are resolved by the auth service into a
    /// password.
    Request(LoginRequest),
    /// SMTP with `smtpAuth: false`: the backend trusts us; the login travels in XCLIENT, if at all, and
    /// the client gets our own `235 2.0.0 OK`.
    Trusted {
        /// The login for XCLIENT's LOGIN attribute.
        login: Vec<u8>,
    },
}

/// The client, for XCLIENT and ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Address and port; `None` for a `unix:` client.
    pub address: Option<std::net::SocketAddr>,
    /// The address the client connected to.
    pub destination: Option<std::net::SocketAddr>,
    /// SMTP: its verified host name, or `[UNAVAILABLE]` / `[TEMPUNAVAIL]`.
    pub host: String,
}

/// The machine that talks to the backend until the login is decided.
#[derive(Debug)]
pub struct Backend(Machine);

#[derive(Debug)]
enum Machine {
    Imap(Imap),
    Pop3(Pop3),
    Smtp(Smtp),
}

/// What has to happen next. The commands appended so far are written first.
#[derive(Debug)]
pub enum BackendStep {
    /// Read more.
    Read(Backend),
    /// The backend agreed to STARTTLS: prove that the input is empty (a backend that injects before the
    /// handshake is refused), handshake, then [`BackendStartTls::secured`].
    StartTls(BackendStartTls),
    /// Relayed SASL: the backend's challenge, base64 as it stood on the wire.
    Challenge(Vec<u8>, BackendExchange),
    /// Logged in. `reply` is for the client; what is left in the input comes after it; then the relay.
    Ready {
        /// The client's final reply, whole lines.
        reply: Vec<u8>,
        /// SMTP: the backend's EHLO offers CHUNKING, so that it reads what follows BDAT as content.
        takes_chunks: bool,
        /// Mail without a login: the backend refused the first recipient, which the session outlives.
        refused: Option<RefusalCause>,
    },
    /// The backend refused the login itself (not an earlier step).
    Refused(Refusal),
    /// Anything else that is not as it must be.
    Failed(BackendError),
}

/// A backend's refusal of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whole lines, verbatim; for the client in `passthrough` and with `passErrorMessage`.
    pub reply: Vec<u8>,
    /// Who has to change something.
    pub cause: RefusalCause,
}

/// What a backend did wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A reply that the step cannot go on with.
    #[error("the backend answered {step} with \"{reply}\"")]
    Unexpected {
        /// The command that was answered, by name; never its arguments.
        step: &'static str,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// All lines, for `passErrorMessage`.
        verbatim: Vec<u8>,
    },
    /// A reply that says that the backend takes nobody now: SMTP 4yz, IMAP BYE or UNAVAILABLE, POP3 SYS/TEMP.
    #[error("the backend is not available: it answered {step} with \"{reply}\"")]
    Unavailable {
        /// As for [`Self::Unexpected`].
        step: &'static str,
        /// As for [`Self::Unexpected`].
        reply: String,
        /// As for [`Self::Unexpected`].
        verbatim: Vec<u8>,
    },
    /// A reply longer than the buffer.
    #[error("the backend's answer to {step} does not fit into the buffer")]
    TooLong {
        /// The command that was answered.
        step: &'static str,
    },
    /// Bytes that were there before the command was sent that they would answer: never a verdict on it.
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
    /// A TLS record in place of the greeting.
    #[error("the backend speaks TLS from the first byte; set upstream.tls.mode: Implicit")]
    SpeaksTls,
    /// A login by a mechanism that the backend does not announce, which it refuses without having judged anything.
    #[error("the backend does not offer {mechanism} and answered it with \"{reply}\"; {remedy}")]
    NotOffered {
        /// `AUTH`, `AUTH PLAIN`.
        mechanism: String,
        /// The first line, escaped, at most 200 characters.
        reply: String,
        /// What helps.
        remedy: &'static str,
    },
    /// IMAP: `LOGINDISABLED`, and no mechanism for a password.
    #[error(
        "the backend takes no passwords: it announces LOGINDISABLED without AUTH=PLAIN; enable a mechanism there, or \
         set upstream.tls.mode if it only takes passwords under TLS"
    )]
    LoginDisabled,
    /// STARTTLS is configured and not offered.
    #[error("the backend does not offer STARTTLS, which upstream.tls.mode asks for")]
    NoStartTls,
    /// Credentials that the protocol cannot carry (quirk Q-21).
    #[error("the login or password holds control characters, which {protocol} cannot carry")]
    ControlCharacters {
        /// The protocol's name.
        protocol: &'static str,
    },
    /// The auth service accepted a digest, token or certificate and named no password for the backend.
    #[error("no password for the backend: the auth service must answer with Auth-Pass")]
    NoPassword,
}

impl BackendError {
    /// For a reply that the step cannot go on with.
    fn at(step: &'static str, verbatim: Vec<u8>) -> Self {
        let reply = first_line(&verbatim);
        if refusal::is_unavailable(&verbatim) {
            Self::Unavailable { step, reply, verbatim }
        } else {
            Self::Unexpected { step, reply, verbatim }
        }
    }

    /// For a refusal that answers something else than the login.
    #[must_use]
    pub fn out_of_step(reply: &[u8]) -> Self {
        Self::OutOfStep { reply: first_line(reply) }
    }

    /// For a mechanism that is refused and was never announced.
    fn not_offered(command: &str, mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("{command} {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: ENABLE }
    }

    /// The same where AUTH is missing and STARTTLS is offered (RFC 4954 section 4).
    fn not_offered_in_clear(mechanism: Mechanism, reply: &[u8]) -> Self {
        let mechanism = format!("AUTH {}", mechanism.name());
        Self::NotOffered { mechanism, reply: first_line(reply), remedy: USE_START_TLS }
    }

    /// The backend's goodbye, where it is its answer to the login itself: the client's answer with
    /// `passthrough`. A goodbye in the greeting is no answer to anything the client said.
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

/// For a mechanism that is not announced.
const ENABLE: &str = "enable it there, or set upstream.tls.mode if it is only offered under TLS";
/// For AUTH that is not announced in clear, where STARTTLS is.
const USE_START_TLS: &str =
    "it offers STARTTLS and no AUTH, so it takes logins under TLS only: set upstream.tls.mode: StartTLS";
/// The name of the step that the greeting answers.
const GREETING: &str = "the connection";

impl Backend {
    /// A machine that waits for the greeting.
    #[must_use]
    pub fn new(plan: BackendPlan) -> Self {
        Self(match plan.protocol {
            Protocol::Imap => Machine::Imap(Imap::new(plan)),
            Protocol::Pop3 => Machine::Pop3(Pop3::new(plan)),
            Protocol::Smtp => Machine::Smtp(Smtp::new(plan)),
        })
    }

    /// Takes replies from `input`.
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
}

impl Backend {
    /// The verdict that was reached already, where a question about it is left without an answer.
    #[must_use]
    pub fn unanswered(self) -> Option<Refusal> {
        match self.0 {
            Machine::Imap(imap) => imap.unanswered(),
            Machine::Pop3(_) | Machine::Smtp(_) => None,
        }
    }
}

/// The backend's verdict on the login itself.
fn refused(protocol: Protocol, reply: Vec<u8>) -> Flow {
    let cause = RefusalCause::of_login(protocol, &reply);
    Flow::Outside(BackendStep::Refused(Refusal { reply, cause }))
}

/// Logged in; the client gets this reply.
fn ready(reply: Vec<u8>) -> Flow {
    Flow::Outside(BackendStep::Ready { reply, takes_chunks: false, refused: None })
}

/// What a protocol's machine makes of a reply.
#[derive(Debug)]
enum Flow {
    /// Goes on with the next reply.
    Next(Backend),
    /// Something has to happen outside first.
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

/// The backend agreed to STARTTLS.
#[derive(Debug)]
pub struct BackendStartTls(Secured);

/// What each protocol goes on with behind TLS; nothing that was said before counts.
#[derive(Debug)]
enum Secured {
    Imap(imap::Preparation),
    Pop3(pop3::Preparation),
    Smtp(smtp::Preparation),
}

impl BackendStartTls {
    /// Goes on after the handshake; appends what has to be said first, if anything.
    #[must_use]
    pub fn secured(self, out: &mut Vec<u8>) -> Backend {
        match self.0 {
            Secured::Imap(preparation) => preparation.secured(out).into(),
            Secured::Pop3(preparation) => preparation.secured(out).into(),
            Secured::Smtp(preparation) => preparation.secured(out).into(),
        }
    }
}

/// The backend waits for the client's answer to its challenge.
#[derive(Debug)]
pub struct BackendExchange(Backend);

impl BackendExchange {
    /// Appends the client's answer (base64, `=`, empty or `*`) as it stood on the wire. What `input` holds now came
    /// before it.
    #[must_use]
    pub fn answer(self, answer: &Secret, input: &mut Input, out: &mut Vec<u8>) -> Backend {
        input.note_question();
        out.extend_from_slice(answer.expose());
        out.extend_from_slice(b"\r\n");
        self.0
    }
}
