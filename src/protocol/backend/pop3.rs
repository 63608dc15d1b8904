//! The login to a POP3 backend: NGINX section 9.3, and in addition STLS and AUTH.

use crate::protocol::Protocol;
use crate::protocol::input::Input;
use crate::protocol::sasl::Mechanism;
use crate::secret::Secret;

use super::reply::{take_dotted, take_line};
use super::sasl::{Credentials, Reaction, SaslLogin, append_answer};
use super::{
    BackendError, BackendExchange, BackendPlan, BackendStartTls, BackendStep, Flow, GREETING, Refusal,
    RefusalCause, Secured, ready, refusal, refused,
};

/// The state machine for a POP3 backend; each state waits for one reply.
#[derive(Debug)]
pub(super) enum Pop3 {
    Greeting(Box<BackendPlan>),
    Capa(Preparation),
    Stls(Preparation),
    /// CAPA, to learn whether the mechanism is offered.
    Offers(SaslLogin),
    /// CAPA, to learn whether PLAIN is offered, because USER or PASS would be too long.
    OffersPlain(Vec<u8>, Secret),
    User(Secret, Length),
    Pass(Length),
    Auth(Exchange),
}

/// The length of PASS. That of USER does not matter: the client chooses it, and could guess uncounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// As every server accepts it.
    Usual,
    /// Longer than [`MAX_COMMAND_LINE`]: a refusal may be about the length.
    Beyond,
}

#[derive(Debug)]
pub(super) struct Exchange {
    sasl: SaslLogin,
    /// Whether CAPA names the mechanism.
    is_offered: bool,
}

/// The data needed for the login.
#[derive(Debug)]
pub(super) struct Preparation {
    credentials: Credentials,
}

impl Length {
    fn of(password: &Secret) -> Self {
        if is_usual(password.expose()) { Self::Usual } else { Self::Beyond }
    }
}

/// Tells whether every server accepts USER or PASS with this argument.
fn is_usual(argument: &[u8]) -> bool {
    argument.len().saturating_add(AROUND_ARGUMENT) <= MAX_COMMAND_LINE
}

impl Pop3 {
    pub(super) fn new(plan: BackendPlan) -> Self {
        Self::Greeting(Box::new(plan))
    }

    pub(super) fn next(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.step();
        let reply = match self {
            Self::Capa(_) | Self::Offers(_) | Self::OffersPlain(..) => take_dotted(input, step)?,
            _ => take_line(input, step)?,
        };
        let Some(reply) = reply else { return Ok(Flow::Outside(BackendStep::Read(self.into()))) };
        let accepted = reply.starts_with(b"+OK");
        match self {
            Self::Greeting(plan) if accepted => {
                let preparation = Preparation::new(plan.login)?;
                if !plan.start_tls {
                    return Ok(preparation.secured(out).into());
                }
                out.extend_from_slice(b"CAPA\r\n");
                Ok(Self::Capa(preparation).into())
            }
            Self::Capa(preparation) => {
                if !accepted || !offers_stls(&reply) {
                    return Err(BackendError::NoStartTls);
                }
                out.extend_from_slice(b"STLS\r\n");
                Ok(Self::Stls(preparation).into())
            }
            Self::Stls(preparation) if accepted => {
                Ok(Flow::Outside(BackendStep::StartTls(BackendStartTls(Secured::Pop3(preparation)))))
            }
            Self::Offers(sasl) => {
                let is_offered = accepted && offers_mechanism(&reply, sasl.mechanism());
                sasl.append_command(b"AUTH", out);
                Ok(Self::Auth(Exchange { sasl, is_offered }).into())
            }
            Self::OffersPlain(login, password) => {
                if accepted && offers_mechanism(&reply, Mechanism::Plain) {
                    let sasl = SaslLogin::plain(&[], &login, &password);
                    sasl.append_command(b"AUTH", out);
                    return Ok(Self::Auth(Exchange { sasl, is_offered: true }).into());
                }
                let length = Length::of(&password);
                Ok(Self::user(&login, password, length, out).into())
            }
            Self::User(password, length) if accepted => {
                out.extend_from_slice(b"PASS ");
                append_answer(&password, out);
                Ok(Self::Pass(length).into())
            }
            Self::Pass(_) | Self::Auth(_) if accepted => Ok(ready(reply)),
            Self::User(..) | Self::Pass(_) | Self::Auth(_) if reply.starts_with(b"-ERR") => {
                self.refused(reply)
            }
            Self::Auth(exchange) => Self::challenged(exchange, reply, out),
            Self::Greeting(_) | Self::Stls(_) | Self::User(..) | Self::Pass(_) => {
                Err(BackendError::at(step, reply))
            }
        }
    }

    /// A refusal may concern the mechanism or the length of the line, not the credentials.
    fn refused(self, reply: Vec<u8>) -> Result<Flow, BackendError> {
        match self {
            Self::Auth(Exchange { sasl, is_offered: false }) if sasl.is_untried(Protocol::Pop3, &reply) => {
                Err(BackendError::not_offered("AUTH", sasl.mechanism(), &reply))
            }
            Self::User(_, Length::Beyond) | Self::Pass(Length::Beyond) if !refusal::has_code(&reply) => {
                let cause = RefusalCause::Client;
                Ok(Flow::Outside(BackendStep::Refused(Refusal { reply, cause })))
            }
            _ => Ok(refused(Protocol::Pop3, reply)),
        }
    }

    fn user(login: &[u8], password: Secret, length: Length, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"USER ");
        out.extend_from_slice(login);
        out.extend_from_slice(b"\r\n");
        Self::User(password, length)
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Greeting(_) => GREETING,
            Self::Capa(_) | Self::Offers(_) | Self::OffersPlain(..) => "CAPA",
            Self::Stls(_) => "STLS",
            Self::User(..) => "USER",
            Self::Pass(_) => "PASS",
            Self::Auth(_) => "AUTH",
        }
    }

    fn challenged(mut exchange: Exchange, reply: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Some(challenge) = reply.strip_prefix(b"+") else { return Err(BackendError::at("AUTH", reply)) };
        let challenge = challenge.trim_ascii();
        match exchange.sasl.challenged() {
            Reaction::Answer(answer) => {
                append_answer(&answer, out);
                Ok(Self::Auth(exchange).into())
            }
            Reaction::Relay => {
                let waiting = BackendExchange(Self::Auth(exchange).into());
                Ok(Flow::Outside(BackendStep::Challenge(challenge.to_vec(), waiting)))
            }
            Reaction::None => Err(BackendError::at("AUTH", reply)),
        }
    }
}

impl Preparation {
    /// USER and PASS are separate lines, so control characters could inject commands (quirk Q-21).
    fn new(login: super::BackendLogin) -> Result<Self, BackendError> {
        let credentials = Credentials::new(login, "POP3")?;
        if let Credentials::Password { login, password } = &credentials
            && login.iter().chain(password.expose()).any(u8::is_ascii_control)
        {
            return Err(BackendError::ControlCharacters { protocol: "POP3" });
        }
        Ok(Self { credentials })
    }

    /// Starts the login, after TLS if it is configured.
    pub(super) fn secured(self, out: &mut Vec<u8>) -> Pop3 {
        match self.credentials {
            Credentials::Password { login, password } => {
                if is_usual(&login) && is_usual(password.expose()) {
                    return Pop3::user(&login, password, Length::Usual, out);
                }
                out.extend_from_slice(b"CAPA\r\n");
                Pop3::OffersPlain(login, password)
            }
            Credentials::Sasl(sasl) => {
                out.extend_from_slice(b"CAPA\r\n");
                Pop3::Offers(sasl)
            }
        }
    }
}

impl From<Pop3> for Flow {
    fn from(pop3: Pop3) -> Self {
        Self::Next(pop3.into())
    }
}

/// Looks for the line `SASL` with names of mechanisms (RFC 5034 section 3).
fn offers_mechanism(capabilities: &[u8], mechanism: Mechanism) -> bool {
    capabilities.split(|&byte| byte == b'\n').any(|line| {
        let mut words = line.trim_ascii().split(|&byte| byte == b' ');
        words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"SASL"))
            && words.any(|word| word.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    })
}

fn offers_stls(capabilities: &[u8]) -> bool {
    capabilities.split(|&byte| byte == b'\n').any(|line| line.trim_ascii().eq_ignore_ascii_case(b"STLS"))
}

/// Bytes of a command line with its CRLF that every server accepts (RFC 2449 section 4). Dovecot accepts 1,024.
const MAX_COMMAND_LINE: usize = 255;
/// Bytes of USER and PASS around their argument.
const AROUND_ARGUMENT: usize = "USER \r\n".len();
