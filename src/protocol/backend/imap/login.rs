//! The login command to an IMAP backend, LOGIN or AUTHENTICATE, until the backend has decided.

use crate::protocol::Protocol;
use crate::protocol::backend::sasl::{Credentials, Reaction, SaslLogin, append_answer};
use crate::protocol::backend::{
    BackendError, BackendExchange, BackendStep, Flow, Refusal, RefusalCause, ready, refusal, refused,
};
use crate::secret::Secret;

use super::offers::Offers;
use super::{Imap, OUR_TAG, Response, append_own, classify, is_fatal};

/// The login command is in progress.
#[derive(Debug)]
pub(in crate::protocol::backend) struct LoggingIn {
    tag: Vec<u8>,
    /// Untagged responses so far; they are part of the client's reply (quirk Q-32).
    held: Vec<u8>,
    stage: Stage,
    offers: Option<Offers>,
    /// For a second attempt with AUTHENTICATE if LOGIN turns out to be disabled.
    password: Option<(Vec<u8>, Secret)>,
}

/// A refusal that is final, unless the backend's capabilities show that LOGIN is disabled.
#[derive(Debug)]
pub(in crate::protocol::backend) struct Refused {
    tag: Vec<u8>,
    reply: Vec<u8>,
    password: (Vec<u8>, Secret),
    offers: Option<Offers>,
}

#[derive(Debug)]
enum Stage {
    Login(Vec<u8>, Secret),
    Password(Secret),
    Verdict,
    Sasl(SaslLogin),
}

impl LoggingIn {
    /// Sends LOGIN with literals, as nginx does, or AUTHENTICATE if the backend accepts nothing else.
    pub(super) fn begin(
        tag: Vec<u8>,
        credentials: Credentials,
        offers: Option<Offers>,
        out: &mut Vec<u8>,
    ) -> Result<Self, BackendError> {
        let credentials = match &offers {
            Some(offers) => offers.choose(credentials)?,
            None => credentials,
        };
        out.extend_from_slice(&tag);
        let (stage, password) = match credentials {
            Credentials::Password { login, password } => {
                out.extend_from_slice(format!("LOGIN {{{}}}\r\n", login.len()).as_bytes());
                let again = offers.is_none().then(|| (login.clone(), password.clone()));
                (Stage::Login(login, password), again)
            }
            Credentials::Sasl(mut sasl) => {
                if offers.as_ref().is_some_and(|offers| offers.takes_initial(sasl.mechanism())) {
                    sasl.append_command_with_initial(b"AUTHENTICATE", MAX_COMMAND, out);
                } else {
                    sasl.append_command(b"AUTHENTICATE", out);
                }
                (Stage::Sasl(sasl), None)
            }
        };
        Ok(Self { tag, held: Vec::new(), stage, offers, password })
    }

    pub(super) fn name(&self) -> &'static str {
        if matches!(self.stage, Stage::Sasl(_)) { "AUTHENTICATE" } else { "LOGIN" }
    }

    pub(super) fn answered(mut self, line: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.name();
        match classify(&line, &self.tag) {
            Response::Untagged(text) if !is_fatal(text) => {
                self.held.extend_from_slice(&line);
                if self.held.len() > MAX_HELD {
                    return Err(BackendError::TooLong { step });
                }
                Ok(Imap::LoggingIn(self).into())
            }
            Response::Challenge(challenge) => self.challenged(challenge, &line, out),
            Response::Accepted if matches!(self.stage, Stage::Verdict | Stage::Sasl(_)) => {
                self.held.extend_from_slice(&line);
                Ok(ready(self.held))
            }
            Response::Refused => {
                self.held.extend_from_slice(&line);
                self.refused(out)
            }
            _ => Err(BackendError::at(step, [self.held, line].concat())),
        }
    }

    /// A refusal may concern the command, not the credentials.
    fn refused(self, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Self { tag, held: reply, stage, offers, password } = self;
        if let Stage::Sasl(sasl) = &stage {
            let is_offered = offers.as_ref().is_some_and(|offers| offers.has(sasl.mechanism()));
            if !is_offered && sasl.is_untried(Protocol::Imap, &reply) {
                return Err(BackendError::not_offered("AUTHENTICATE", sasl.mechanism(), &reply));
            }
            if sasl.was_challenged() && refusal::is_bad(&reply) {
                // The client's response to the challenge is at fault, or the client cancelled.
                let cause = RefusalCause::Credentials;
                return Ok(Flow::Outside(BackendStep::Refused(Refusal { reply, cause })));
            }
        }
        match password.filter(|_| !refusal::has_code(&reply)) {
            Some(password) => {
                append_own(b"CAPABILITY", out);
                Ok(Imap::Refused(Refused { tag, reply, password, offers: None }).into())
            }
            None => Ok(refused(Protocol::Imap, reply)),
        }
    }

    fn challenged(self, challenge: &[u8], line: &[u8], out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.name();
        let Self { tag, held, stage, offers, password: again } = self;
        let stage = match stage {
            Stage::Login(login, password) => {
                out.extend_from_slice(&login);
                out.extend_from_slice(format!(" {{{}}}\r\n", password.expose().len()).as_bytes());
                Stage::Password(password)
            }
            Stage::Password(password) => {
                append_answer(&password, out);
                Stage::Verdict
            }
            Stage::Sasl(mut sasl) => match sasl.challenged() {
                Reaction::Answer(answer) => {
                    append_answer(&answer, out);
                    Stage::Sasl(sasl)
                }
                Reaction::Relay => {
                    let stage = Stage::Sasl(sasl);
                    let waiting = Imap::LoggingIn(Self { tag, held, stage, offers, password: again });
                    let exchange = BackendExchange(waiting.into());
                    return Ok(Flow::Outside(BackendStep::Challenge(challenge.to_vec(), exchange)));
                }
                Reaction::None => return Err(BackendError::at(step, line.to_vec())),
            },
            Stage::Verdict => return Err(BackendError::at(step, line.to_vec())),
        };
        Ok(Imap::LoggingIn(Self { tag, held, stage, offers, password: again }).into())
    }
}

impl Refused {
    pub(super) fn refusal(self) -> Refusal {
        let cause = RefusalCause::of_login(Protocol::Imap, &self.reply);
        Refusal { reply: self.reply, cause }
    }

    /// Tries AUTHENTICATE if LOGIN is disabled.
    pub(super) fn answered(mut self, line: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        match classify(&line, OUR_TAG) {
            Response::Untagged(text) if !is_fatal(text) => {
                self.offers = Offers::in_response(text).or(self.offers);
                Ok(Imap::Refused(self).into())
            }
            Response::Accepted if self.offers.as_ref().is_some_and(|offers| offers.login_disabled) => {
                let Self { tag, password: (login, password), offers, .. } = self;
                let credentials = Credentials::Password { login, password };
                LoggingIn::begin(tag, credentials, offers, out).map(|again| Imap::LoggingIn(again).into())
            }
            _ => Ok(Flow::Outside(BackendStep::Refused(self.refusal()))),
        }
    }
}

/// Bytes of AUTHENTICATE with an initial response. A longer response is sent after the challenge.
const MAX_COMMAND: usize = 8000;
/// Bytes of untagged responses before the tagged one.
const MAX_HELD: usize = 16 * 1024;
