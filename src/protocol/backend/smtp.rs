//! Brings an SMTP backend to the client's state: NGINX section 9.4, with XCLIENT as the backend offers it or as nginx
//! sends it (quirk Q-22), and in addition STARTTLS and relayed SASL.

mod offer;
mod xclient;

use crate::protocol::Protocol;
use crate::protocol::input::Input;
use crate::protocol::login::{Envelope, Hello, LoginRequest};
use crate::secret::Secret;

use super::reply::{SmtpReply, take_smtp};
use super::sasl::{Reaction, SaslLogin, append_answer, checked};
use super::{
    BackendError, BackendExchange, BackendLogin, BackendPlan, BackendStartTls, BackendStep, ClientInfo, Flow,
    GREETING, Refusal, RefusalCause, Secured, XclientNegotiation, refused,
};
use offer::{Offer, offers};

/// The state machine for an SMTP backend; each state waits for one reply.
#[derive(Debug)]
pub(super) enum Smtp {
    Greeting(Box<BackendPlan>),
    Hello {
        preparation: Preparation,
        start_tls: bool,
        /// The reply that rejected the EHLO before this one.
        rejected: Option<Vec<u8>>,
    },
    StartTls(Preparation),
    XClient(Preparation),
    /// The client's EHLO after XCLIENT. `own` has our name, for a backend that rejects the client's.
    ClientHello {
        login: Login,
        own: Option<Hello>,
        /// The reply that rejected the client's name.
        rejected: Option<Vec<u8>>,
    },
    LoggingIn(LoggingIn),
}

#[derive(Debug)]
pub(super) struct LoggingIn {
    login: Login,
    /// The backend's last reply to EHLO offers CHUNKING.
    takes_chunks: bool,
    /// What this reply says about the mechanism in use.
    offer: Offer,
}

/// The data that is needed before and for the login.
#[derive(Debug)]
pub(super) struct Preparation {
    /// The name in EHLO and HELO.
    name: Vec<u8>,
    /// `serverName`, for a backend that rejects `name`.
    own: Vec<u8>,
    /// Send EHLO, not HELO.
    extended: bool,
    client_hello: Option<Hello>,
    xclient: Option<(ClientInfo, XclientNegotiation)>,
    login: Login,
}

/// How the backend accepts the session.
#[derive(Debug)]
pub(super) enum Login {
    /// Without a login: the backend trusts us.
    Trusted {
        login: Vec<u8>,
    },
    /// With a mechanism that the backend offers.
    Password {
        login: Vec<u8>,
        password: Secret,
        authzid: Vec<u8>,
        verbatim: bool,
    },
    Auth {
        sasl: SaslLogin,
        verbatim: bool,
    },
    Mail {
        mail: Vec<u8>,
        rcpt: Vec<u8>,
    },
    Rcpt,
}

impl Smtp {
    pub(super) fn new(plan: BackendPlan) -> Self {
        Self::Greeting(Box::new(plan))
    }

    /// Starts with MAIL, on a connection that has had another mail.
    pub(super) fn next_mail(envelope: Envelope, takes_chunks: bool, out: &mut Vec<u8>) -> Self {
        let Envelope { mail, rcpt, .. } = envelope;
        let (mail, rcpt) = (mail.unwrap_or_default(), rcpt.unwrap_or_default());
        append_line(&mail, out);
        Self::LoggingIn(LoggingIn { login: Login::Mail { mail, rcpt }, takes_chunks, offer: Offer::Named })
    }

    pub(super) fn next(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let flow = self.take_reply(input, out)?;
        if matches!(&flow, Flow::Outside(BackendStep::Ready { reply, .. }) if reply == AUTHENTICATED) {
            // As in nginx. Other bytes of the backend would be taken for replies to the client's next commands.
            input.consume(input.len());
        }
        Ok(flow)
    }

    fn take_reply(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let step = self.step();
        let Some(reply) = take_smtp(input, step)? else {
            return Ok(Flow::Outside(BackendStep::Read(self.into())));
        };
        match (self, reply.code) {
            (Self::Greeting(plan), 220) => {
                let start_tls = plan.start_tls;
                Ok(Preparation::new(*plan)?.hello(start_tls, None, out).into())
            }
            (Self::Hello { preparation, start_tls: true, .. }, 250) => {
                if !reply.texts().any(|text| text.eq_ignore_ascii_case(b"STARTTLS")) {
                    return Err(BackendError::NoStartTls);
                }
                out.extend_from_slice(b"STARTTLS\r\n");
                Ok(Self::StartTls(preparation).into())
            }
            (Self::StartTls(preparation), 220) => {
                Ok(Flow::Outside(BackendStep::StartTls(BackendStartTls(Secured::Smtp(preparation)))))
            }
            (Self::Hello { preparation, start_tls: false, .. }, 250) => preparation.announce(&reply, out),
            (Self::XClient(preparation), 220 | 250) => preparation.replay_hello(&reply, out),
            (Self::ClientHello { login, .. }, 250) => login.begin(&reply, out),
            (Self::Hello { preparation, start_tls, .. }, 500..=599) => {
                preparation.rejected(start_tls, reply, out)
            }
            (Self::ClientHello { login, own: Some(own), .. }, 500..=599) => {
                append_hello(own.extended, &own.name, out);
                Ok(Self::ClientHello { login, own: None, rejected: Some(reply.lines) }.into())
            }
            (Self::LoggingIn(logging_in), _) => logging_in.answered(reply, out),
            (Self::XClient(preparation), _) => Err(preparation.xclient_refused(reply)),
            _ => Err(BackendError::at(step, reply.lines)),
        }
    }

    /// Returns the error of an EHLO that was rejected, if the backend has not answered the next one.
    pub(super) fn unanswered(self) -> Option<BackendError> {
        match self {
            Self::Hello { rejected, .. } | Self::ClientHello { rejected, .. } => {
                rejected.map(|reply| BackendError::at("EHLO", reply))
            }
            _ => None,
        }
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Greeting(_) => GREETING,
            Self::Hello { preparation, .. } if !preparation.extended => "HELO",
            Self::Hello { .. } | Self::ClientHello { .. } => "EHLO",
            Self::StartTls(_) => "STARTTLS",
            Self::XClient(_) => "XCLIENT",
            Self::LoggingIn(logging_in) => logging_in.login.name(),
        }
    }
}

impl Preparation {
    fn new(plan: BackendPlan) -> Result<Self, BackendError> {
        let BackendPlan { server_name, client_hello: as_client, login, envelope, xclient, .. } = plan;
        let BackendPlan { start_tls, verbatim, .. } = plan;
        let Envelope { hello: client_hello, mail, rcpt } = envelope;
        let login = match checked(login, "SMTP")? {
            BackendLogin::Trusted { login } => Login::Trusted { login },
            BackendLogin::Request(LoginRequest::Anonymous) => {
                Login::Mail { mail: mail.unwrap_or_default(), rcpt: rcpt.unwrap_or_default() }
            }
            BackendLogin::Request(LoginRequest::Password { login, password, authzid }) => {
                Login::Password { login, password, authzid, verbatim }
            }
            BackendLogin::Request(LoginRequest::Relayed { mechanism, initial_response }) => {
                Login::Auth { sasl: SaslLogin::relayed(mechanism, initial_response), verbatim }
            }
            BackendLogin::Request(_) => return Err(BackendError::NoPassword),
        };
        let own = server_name.into_bytes();
        let name = match &client_hello {
            Some(hello) if as_client => hello.name.clone(),
            _ => own.clone(),
        };
        let is_clients = client_hello.as_ref().is_some_and(|hello| hello.extended);
        let preparation = Self { name, own, extended: is_clients, client_hello, xclient, login };
        let extended = is_clients || preparation.needs_extensions(start_tls).is_some();
        Ok(Self { extended, ..preparation })
    }

    /// Tries again after a rejected EHLO or HELO. 500 and 502 mean that the backend does not know EHLO: it gets HELO if
    /// nothing needs EHLO (RFC 5321 section 3.2). Otherwise the name may be wrong: it gets ours, once.
    fn rejected(
        mut self,
        start_tls: bool,
        reply: SmtpReply,
        out: &mut Vec<u8>,
    ) -> Result<Flow, BackendError> {
        let needed_by = self.needs_extensions(start_tls);
        let is_unknown = self.extended && matches!(reply.code, 500 | 502);
        self = match needed_by {
            None if is_unknown => Self { extended: false, ..self },
            _ if self.name != self.own => self.with_own_name(),
            Some(needed_by) if is_unknown => return Err(BackendError::no_ehlo(needed_by, reply.lines)),
            _ => return Err(BackendError::at(if self.extended { "EHLO" } else { "HELO" }, reply.lines)),
        };
        Ok(self.hello(start_tls, Some(reply.lines), out).into())
    }

    /// Returns what cannot work without EHLO.
    fn needs_extensions(&self, start_tls: bool) -> Option<&'static str> {
        if start_tls {
            Some("upstream.tls.mode: StartTLS")
        } else if self.xclient.is_some() {
            Some("upstream.xclient")
        } else {
            self.login.is_sasl().then_some("the login")
        }
    }

    /// For a backend that has rejected the client's name, such as `501 syntactically invalid EHLO argument(s)`.
    fn with_own_name(mut self) -> Self {
        self.name.clone_from(&self.own);
        if let Some(hello) = &mut self.client_hello {
            hello.name.clone_from(&self.own);
        }
        self
    }

    /// `rejected`: the reply to the EHLO before this one.
    fn hello(self, start_tls: bool, rejected: Option<Vec<u8>>, out: &mut Vec<u8>) -> Smtp {
        append_hello(self.extended, &self.name, out);
        Smtp::Hello { preparation: self, start_tls, rejected }
    }

    /// Sends EHLO again, after TLS if it is configured (RFC 3207 section 4.2).
    pub(super) fn secured(self, out: &mut Vec<u8>) -> Smtp {
        self.hello(false, None, out)
    }

    fn announce(self, extensions: &SmtpReply, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let attributes = self.xclient.as_ref().map(|(client, negotiation)| match negotiation {
            XclientNegotiation::Auto => self.attributes(client, Some(extensions)),
            XclientNegotiation::Always => self.attributes(client, None),
        });
        match attributes {
            Some(attributes) if !attributes.is_empty() => {
                out.extend_from_slice(b"XCLIENT");
                out.extend_from_slice(attributes.as_bytes());
                out.extend_from_slice(b"\r\n");
                Ok(Smtp::XClient(self).into())
            }
            _ => self.login.begin(extensions, out),
        }
    }

    /// XCLIENT resets the backend to the state before EHLO, and AUTH needs an EHLO.
    fn replay_hello(self, reply: &SmtpReply, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let needs_extensions = self.login.is_sasl();
        let own = match self.client_hello {
            Some(hello) => {
                let extended = hello.extended || needs_extensions;
                append_hello(extended, &hello.name, out);
                (hello.name != self.own).then_some(Hello { extended, name: self.own })
            }
            None if needs_extensions => {
                append_hello(true, &self.name, out);
                None
            }
            None => return self.login.begin(reply, out),
        };
        Ok(Smtp::ClientHello { login: self.login, own, rejected: None }.into())
    }
}

impl Login {
    fn name(&self) -> &'static str {
        match self {
            Self::Trusted { .. } | Self::Password { .. } | Self::Auth { .. } => "AUTH",
            Self::Mail { .. } => "MAIL",
            Self::Rcpt => "RCPT",
        }
    }

    fn is_sasl(&self) -> bool {
        matches!(self, Self::Password { .. } | Self::Auth { .. })
    }

    /// Starts the login. `extensions` is the backend's last reply to EHLO.
    fn begin(self, extensions: &SmtpReply, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let takes_chunks = extensions.texts().any(|text| text.trim_ascii().eq_ignore_ascii_case(b"CHUNKING"));
        let login = match self {
            Self::Trusted { .. } => return Ok(authenticated(takes_chunks)),
            Self::Password { login, password, authzid, verbatim } => {
                let has = |mechanism| offers(extensions, "AUTH", mechanism);
                let sasl = if has("LOGIN") && !has("PLAIN") && authzid.is_empty() {
                    SaslLogin::login(&login, &password)
                } else {
                    SaslLogin::plain(&authzid, &login, &password)
                };
                return Self::Auth { sasl, verbatim }.begin(extensions, out);
            }
            Self::Auth { mut sasl, verbatim } => {
                let offer = Offer::authenticate(&mut sasl, extensions, out);
                return Ok(LoggingIn { login: Self::Auth { sasl, verbatim }, takes_chunks, offer }.into());
            }
            Self::Mail { mail, rcpt } => {
                append_line(&mail, out);
                Self::Mail { mail, rcpt }
            }
            Self::Rcpt => Self::Rcpt,
        };
        Ok(LoggingIn { login, takes_chunks, offer: Offer::Named }.into())
    }
}

impl LoggingIn {
    fn answered(self, reply: SmtpReply, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Self { login, takes_chunks, offer } = self;
        let name = login.name();
        match (login, reply.code) {
            (Login::Auth { verbatim: false, .. }, 235) => Ok(authenticated(takes_chunks)),
            (Login::Auth { mut sasl, verbatim }, 334) => match sasl.challenged() {
                Reaction::Answer(answer) => {
                    append_answer(&answer, out);
                    Ok(Self { login: Login::Auth { sasl, verbatim }, takes_chunks, offer }.into())
                }
                Reaction::Relay => {
                    let challenge = reply.texts().next().unwrap_or_default().to_vec();
                    let login = Login::Auth { sasl, verbatim };
                    let waiting = Self { login, takes_chunks, offer };
                    let exchange = BackendExchange(Smtp::LoggingIn(waiting).into());
                    Ok(Flow::Outside(BackendStep::Challenge(challenge, exchange)))
                }
                Reaction::None => Err(BackendError::at(name, reply.lines)),
            },
            (Login::Mail { rcpt, .. }, 250) => {
                append_line(&rcpt, out);
                Ok(Self { login: Login::Rcpt, takes_chunks, offer }.into())
            }
            // The client gets the backend's own reply to the first recipient (NGINX section 7.5).
            (Login::Rcpt, _) => {
                let refused = RefusalCause::of_envelope(&reply.lines);
                Ok(Flow::Outside(BackendStep::Ready { reply: reply.lines, takes_chunks, refused }))
            }
            (Login::Auth { verbatim: true, .. }, 235) => {
                Ok(Flow::Outside(BackendStep::Ready { reply: reply.lines, takes_chunks, refused: None }))
            }
            (Login::Auth { sasl, .. }, 400..=599) => match offer.refused(&sasl, &reply) {
                Some(error) => Err(error),
                None => Ok(refused(Protocol::Smtp, reply.lines)),
            },
            (Login::Mail { .. }, 400..=599) => {
                let cause = RefusalCause::of_envelope(&reply.lines).unwrap_or(RefusalCause::Client);
                Ok(Flow::Outside(BackendStep::Refused(Refusal { reply: reply.lines, cause })))
            }
            _ => Err(BackendError::at(name, reply.lines)),
        }
    }
}

impl From<LoggingIn> for Flow {
    fn from(logging_in: LoggingIn) -> Self {
        Smtp::LoggingIn(logging_in).into()
    }
}

impl From<Smtp> for Flow {
    fn from(smtp: Smtp) -> Self {
        Self::Next(smtp.into())
    }
}

/// As in nginx, the client gets a fixed reply instead of the backend's.
fn authenticated(takes_chunks: bool) -> Flow {
    Flow::Outside(BackendStep::Ready { reply: AUTHENTICATED.to_vec(), takes_chunks, refused: None })
}

const AUTHENTICATED: &[u8] = b"235 2.0.0 OK\r\n";

fn append_hello(extended: bool, name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if extended { b"EHLO " } else { b"HELO " });
    append_line(name, out);
}

fn append_line(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
