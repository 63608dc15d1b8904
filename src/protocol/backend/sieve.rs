//! The login to a ManageSieve backend (RFC 5804): greeting, STARTTLS, AUTHENTICATE.

use crate::protocol::Protocol;
use crate::protocol::input::Input;
use crate::protocol::sasl::Mechanism;
use crate::protocol::sieve::response::{Sender, append_string, first_string, string};
use crate::secret::Secret;

use super::reply::{sieve_lines, take_sieve, take_sieve_line};
use super::sasl::{Credentials, Reaction, SaslLogin};
use super::{
    BackendError, BackendExchange, BackendPlan, BackendStartTls, BackendStep, Flow, GREETING, Secured, ready,
    refused,
};

/// The state machine for a ManageSieve backend; each state waits for one response.
#[derive(Debug)]
pub(super) enum Sieve {
    Greeting(Box<BackendPlan>),
    StartTls(Preparation),
    /// The capabilities after STARTTLS, which the backend sends unasked.
    Capabilities(Preparation),
    Authenticate(Exchange),
}

/// The data needed for the login.
#[derive(Debug)]
pub(super) struct Preparation {
    credentials: Credentials,
}

/// An AUTHENTICATE in progress.
#[derive(Debug)]
pub(super) struct Exchange {
    sasl: SaslLogin,
    /// Whether the backend's capabilities name the mechanism.
    is_offered: bool,
    /// Whether they name STARTTLS and no mechanism at all.
    needs_tls: bool,
}

/// The capabilities that affect our commands.
#[derive(Debug, Default)]
struct Offers {
    start_tls: bool,
    /// Names of SASL mechanisms in upper case.
    mechanisms: Vec<Vec<u8>>,
}

impl Sieve {
    pub(super) fn new(plan: BackendPlan) -> Self {
        Self::Greeting(Box::new(plan))
    }

    pub(super) fn next(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.step();
        let reply = match self {
            Self::Authenticate(_) => take_sieve_line(input, step)?,
            Self::Greeting(_) | Self::StartTls(_) | Self::Capabilities(_) => take_sieve(input, step)?,
        };
        let Some(reply) = reply else { return Ok(Flow::Outside(BackendStep::Read(self.into()))) };
        match (self, Status::of(&reply)) {
            (Self::Greeting(plan), Status::Ok) => Self::greeted(*plan, &reply, out),
            (Self::StartTls(preparation), Status::Ok) => {
                Ok(Flow::Outside(BackendStep::StartTls(BackendStartTls(Secured::Sieve(preparation)))))
            }
            (Self::Capabilities(preparation), Status::Ok) => {
                Ok(preparation.log_in(&Offers::read(&reply), out).into())
            }
            (Self::Authenticate(_), Status::Ok) => Ok(ready(reply)),
            (Self::Authenticate(exchange), Status::No) => exchange.refused(reply),
            (Self::Authenticate(exchange), Status::None) => exchange.challenged(reply, out),
            _ => Err(BackendError::at(step, reply)),
        }
    }

    fn greeted(plan: BackendPlan, reply: &[u8], out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let offers = Offers::read(reply);
        let preparation = Preparation { credentials: Credentials::new(plan.login, "ManageSieve")? };
        if !plan.start_tls {
            return Ok(preparation.log_in(&offers, out).into());
        }
        if !offers.start_tls {
            return Err(BackendError::NoStartTls);
        }
        out.extend_from_slice(b"STARTTLS\r\n");
        Ok(Self::StartTls(preparation).into())
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Greeting(_) => GREETING,
            Self::StartTls(_) => "STARTTLS",
            Self::Capabilities(_) => "the TLS handshake",
            Self::Authenticate(_) => "AUTHENTICATE",
        }
    }
}

impl Preparation {
    /// Waits for the capabilities after TLS. What was offered before no longer counts.
    pub(super) fn secured(self) -> Sieve {
        Sieve::Capabilities(self)
    }

    /// Sends AUTHENTICATE. The initial response is sent with it if the backend lists the mechanism; otherwise a refusal
    /// would not tell whether it has seen the credentials.
    fn log_in(self, offers: &Offers, out: &mut Vec<u8>) -> Sieve {
        let mut sasl = match self.credentials {
            Credentials::Sasl(sasl) => sasl,
            Credentials::Password { login, password } => {
                if !offers.has(Mechanism::Plain) && offers.has(Mechanism::Login) {
                    SaslLogin::login(&login, &password)
                } else {
                    SaslLogin::plain(&[], &login, &password)
                }
            }
        };
        let is_offered = offers.has(sasl.mechanism());
        out.extend_from_slice(b"AUTHENTICATE ");
        append_string(sasl.mechanism().name().as_bytes(), Sender::Client, out);
        if let Some(initial) = Some(&mut sasl).filter(|_| is_offered).and_then(|sasl| sasl.take_initial()) {
            out.push(b' ');
            append_message(&initial, out);
        }
        out.extend_from_slice(b"\r\n");
        let needs_tls = offers.start_tls && offers.mechanisms.is_empty();
        Sieve::Authenticate(Exchange { sasl, is_offered, needs_tls })
    }
}

impl Exchange {
    /// A refusal may concern the mechanism, not the credentials.
    fn refused(self, reply: Vec<u8>) -> Result<Flow, BackendError> {
        let Self { sasl, is_offered, needs_tls } = self;
        if is_offered || !sasl.is_untried(Protocol::Sieve, &reply) {
            return Ok(refused(Protocol::Sieve, reply));
        }
        Err(if needs_tls {
            BackendError::not_offered_in_clear("AUTHENTICATE", sasl.mechanism(), &reply)
        } else {
            BackendError::not_offered("AUTHENTICATE", sasl.mechanism(), &reply)
        })
    }

    fn challenged(mut self, reply: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Some(challenge) = string(reply.strip_suffix(b"\n").unwrap_or(&reply).trim_ascii_end()) else {
            return Err(BackendError::at("AUTHENTICATE", reply));
        };
        match self.sasl.challenged() {
            Reaction::Answer(answer) => {
                append_answer(&answer, out);
                Ok(Sieve::Authenticate(self).into())
            }
            Reaction::Relay => {
                let exchange = BackendExchange(Sieve::Authenticate(self).into());
                Ok(Flow::Outside(BackendStep::Challenge(challenge, exchange)))
            }
            Reaction::None => Err(BackendError::at("AUTHENTICATE", reply)),
        }
    }
}

/// Appends a response to a challenge, with its line end.
pub(super) fn append_answer(answer: &Secret, out: &mut Vec<u8>) {
    append_message(answer, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a message. An empty one is an empty string here, and `=` in the other protocols.
fn append_message(message: &Secret, out: &mut Vec<u8>) {
    let message = message.expose();
    append_string(if message == b"=" { b"" } else { message }, Sender::Client, out);
}

impl From<Sieve> for Flow {
    fn from(sieve: Sieve) -> Self {
        Self::Next(sieve.into())
    }
}

impl Offers {
    fn read(reply: &[u8]) -> Self {
        let mut offers = Self::default();
        for (name, value) in sieve_lines(reply).filter_map(first_string) {
            offers.start_tls |= name.eq_ignore_ascii_case(b"STARTTLS");
            if name.eq_ignore_ascii_case(b"SASL")
                && let Some(listed) = string(value)
            {
                let names = listed.split(|byte| *byte == b' ').filter(|name| !name.is_empty());
                offers.mechanisms = names.map(<[u8]>::to_ascii_uppercase).collect();
            }
        }
        offers
    }

    fn has(&self, mechanism: Mechanism) -> bool {
        self.mechanisms.iter().any(|offered| offered == mechanism.name().as_bytes())
    }
}

/// The first word of a response's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    No,
    Bye,
    /// A challenge.
    None,
}

impl Status {
    fn of(reply: &[u8]) -> Self {
        let last = sieve_lines(reply).last().unwrap_or_default();
        let word = last.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        match word.to_ascii_uppercase().as_slice() {
            b"OK" => Self::Ok,
            b"NO" => Self::No,
            b"BYE" => Self::Bye,
            _ => Self::None,
        }
    }
}
