//! The login to a POP3 backend: NGINX section 9.3, and in addition STLS and AUTH.

use crate::protocol::Protocol;
use crate::protocol::input::Input;
use crate::protocol::sasl::Mechanism;
use crate::secret::Secret;

use super::reply::{take_dotted, take_line};
use super::sasl::{Credentials, Reaction, SaslLogin, append_answer};
use super::{
    BackendError, BackendExchange, BackendPlan, BackendStartTls, BackendStep, Flow, GREETING, Secured, ready,
    refusal, refused,
};

/// The state machine for a POP3 backend; each state waits for one reply.
#[derive(Debug)]
pub(super) enum Pop3 {
    Greeting(Box<BackendPlan>),
    Capa(Preparation),
    Stls(Preparation),
    /// CAPA, to learn whether the mechanism is offered.
    Offers(SaslLogin),
    User(Secret),
    Pass,
    Auth(Exchange),
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

impl Pop3 {
    pub(super) fn new(plan: BackendPlan) -> Self {
        Self::Greeting(Box::new(plan))
    }

    pub(super) fn next(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.step();
        let reply = match self {
            Self::Capa(_) | Self::Offers(_) => take_dotted(input, step)?,
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
            Self::User(password) if accepted => {
                out.extend_from_slice(b"PASS ");
                append_answer(&password, out);
                Ok(Self::Pass.into())
            }
            Self::Pass | Self::Auth(_) if accepted => Ok(ready(reply)),
            Self::Auth(Exchange { sasl, is_offered: false })
                if reply.starts_with(b"-ERR")
                    && !sasl.was_challenged()
                    && !refusal::is_no_refusal_of_mechanism(Protocol::Pop3, &reply) =>
            {
                Err(BackendError::not_offered("AUTH", sasl.mechanism(), &reply))
            }
            Self::User(_) | Self::Pass | Self::Auth(_) if reply.starts_with(b"-ERR") => {
                Ok(refused(Protocol::Pop3, reply))
            }
            Self::Auth(exchange) => Self::challenged(exchange, reply, out),
            Self::Greeting(_) | Self::Stls(_) | Self::User(_) | Self::Pass => {
                Err(BackendError::at(step, reply))
            }
        }
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Greeting(_) => GREETING,
            Self::Capa(_) | Self::Offers(_) => "CAPA",
            Self::Stls(_) => "STLS",
            Self::User(_) => "USER",
            Self::Pass => "PASS",
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
                out.extend_from_slice(b"USER ");
                out.extend_from_slice(&login);
                out.extend_from_slice(b"\r\n");
                Pop3::User(password)
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
