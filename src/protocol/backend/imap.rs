//! The login to an IMAP backend: NGINX section 9.2, and in addition STARTTLS, ID and AUTHENTICATE.

mod login;
mod offers;

use crate::protocol::imap::id::{ClientId, MAX_PARAMETERS};
use crate::protocol::input::Input;

use super::reply::take_response;
use super::sasl::Credentials;
use super::{
    BackendError, BackendPlan, BackendStartTls, BackendStep, ClientInfo, Flow, GREETING, Refusal, Secured,
};
use login::{LoggingIn, Refused};
use offers::Offers;

/// The state machine for an IMAP backend.
#[derive(Debug)]
pub(super) enum Imap {
    Greeting(Box<BackendPlan>),
    Preparing(Preparation, Question),
    LoggingIn(LoggingIn),
    /// The login was refused without a reason, and it is not known what the backend offers.
    Refused(Refused),
}

/// The data that is needed before and for the login.
#[derive(Debug)]
pub(super) struct Preparation {
    tag: Vec<u8>,
    id: Option<(ClientInfo, ClientId)>,
    credentials: Credentials,
}

/// Which of our own commands is unanswered.
#[derive(Debug)]
pub(super) enum Question {
    /// CAPABILITY, to learn whether STARTTLS is offered.
    OffersStartTls(Offers),
    StartTls,
    /// CAPABILITY, to choose the login. `None` until the list has arrived.
    Offers(Option<Offers>),
    /// ID; keeps what the backend offers for the login.
    Id(Offers),
}

/// A response, classified by its first word.
enum Response<'a> {
    Untagged(&'a [u8]),
    Challenge(&'a [u8]),
    Accepted,
    Refused,
    Unknown,
}

impl Imap {
    pub(super) fn new(plan: BackendPlan) -> Self {
        Self::Greeting(Box::new(plan))
    }

    pub(super) fn next(self, input: &mut Input, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Some(line) = take_response(input, self.step())? else {
            return Ok(Flow::Outside(BackendStep::Read(self.into())));
        };
        match self {
            Self::Greeting(plan) => Self::greeted(*plan, line, out),
            Self::Preparing(preparation, question) => preparation.answered(question, line, out),
            Self::LoggingIn(login) => login.answered(line, out),
            Self::Refused(refused) => refused.answered(line, out),
        }
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Greeting(_) => GREETING,
            Self::Preparing(_, question) => question.name(),
            Self::LoggingIn(login) => login.name(),
            Self::Refused(_) => "CAPABILITY",
        }
    }

    pub(super) fn unanswered(self) -> Option<Refusal> {
        match self {
            Self::Refused(refused) => Some(refused.refusal()),
            _ => None,
        }
    }

    fn greeted(plan: BackendPlan, line: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let Response::Untagged(text) = classify(&line, OUR_TAG) else {
            return Err(BackendError::at(GREETING, line));
        };
        if !has_first_word(text, b"OK") {
            return Err(BackendError::at(GREETING, line));
        }
        let offers = Offers::in_greeting(text);
        let BackendPlan { tag, login, start_tls, imap_id, .. } = plan;
        let preparation = Preparation { tag, id: imap_id, credentials: Credentials::new(login, "IMAP")? };
        if start_tls {
            return match offers {
                Some(offers) => preparation.start_tls(offers, out),
                None => Ok(preparation.ask_capabilities(Question::OffersStartTls, out).into()),
            };
        }
        match offers {
            Some(offers) => preparation.announce(offers, out),
            None if preparation.id.is_some() || preparation.credentials.depend_on_offers() => {
                Ok(preparation.ask_capabilities(Question::Offers, out).into())
            }
            // nginx does not ask the backend either.
            None => Ok(preparation.log_in(None, out)?.into()),
        }
    }
}

impl Preparation {
    /// What was offered before TLS no longer counts (RFC 9051 section 6.2.1).
    pub(super) fn secured(self, out: &mut Vec<u8>) -> Imap {
        self.ask_capabilities(Question::Offers, out)
    }

    fn answered(self, question: Question, line: Vec<u8>, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let response = classify(&line, OUR_TAG);
        if let Response::Untagged(text) = response {
            if is_fatal(text) {
                return Err(BackendError::at(question.name(), line));
            }
            return Ok(Imap::Preparing(self, question.noting(text)).into());
        }
        match (question, response) {
            (Question::OffersStartTls(offers), Response::Accepted | Response::Refused) => {
                self.start_tls(offers, out)
            }
            (Question::StartTls, Response::Accepted) => {
                Ok(Flow::Outside(BackendStep::StartTls(BackendStartTls(Secured::Imap(self)))))
            }
            (Question::Offers(Some(offers)), Response::Accepted | Response::Refused) => {
                self.announce(offers, out)
            }
            (Question::Offers(None), Response::Accepted | Response::Refused) => {
                Ok(self.log_in(None, out)?.into())
            }
            // ID is for information only. A backend that refuses it still accepts logins.
            (Question::Id(offers), Response::Accepted | Response::Refused) => {
                Ok(self.log_in(Some(offers), out)?.into())
            }
            (question, _) => Err(BackendError::at(question.name(), line)),
        }
    }

    fn ask_capabilities<T: Default>(self, question: fn(T) -> Question, out: &mut Vec<u8>) -> Imap {
        append_own(b"CAPABILITY", out);
        Imap::Preparing(self, question(T::default()))
    }

    fn start_tls(self, offers: Offers, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        if !offers.start_tls {
            return Err(BackendError::NoStartTls);
        }
        append_own(b"STARTTLS", out);
        Ok(Imap::Preparing(self, Question::StartTls).into())
    }

    fn announce(self, offers: Offers, out: &mut Vec<u8>) -> Result<Flow, BackendError> {
        let id = self.id.as_ref().filter(|_| offers.id);
        let parameters = id.map(|(client, own)| id_parameters(client, own)).unwrap_or_default();
        if parameters.is_empty() {
            return Ok(self.log_in(Some(offers), out)?.into());
        }
        append_own(format!("ID ({parameters})").as_bytes(), out);
        Ok(Imap::Preparing(self, Question::Id(offers)).into())
    }

    fn log_in(self, offers: Option<Offers>, out: &mut Vec<u8>) -> Result<Imap, BackendError> {
        let Self { tag, credentials, .. } = self;
        LoggingIn::begin(tag, credentials, offers, out).map(Imap::LoggingIn)
    }
}

impl Question {
    const fn name(&self) -> &'static str {
        match self {
            Self::OffersStartTls(_) | Self::Offers(_) => "CAPABILITY",
            Self::StartTls => "STARTTLS",
            Self::Id(_) => "ID",
        }
    }

    fn noting(self, text: &[u8]) -> Self {
        let Some(offers) = Offers::in_response(text) else { return self };
        match self {
            Self::OffersStartTls(_) => Self::OffersStartTls(offers),
            Self::Offers(_) => Self::Offers(Some(offers)),
            Self::StartTls | Self::Id(_) => self,
        }
    }
}

impl From<Imap> for Flow {
    fn from(imap: Imap) -> Self {
        Self::Next(imap.into())
    }
}

fn append_own(command: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(OUR_TAG);
    out.extend_from_slice(command);
    out.extend_from_slice(b"\r\n");
}

fn classify<'a>(line: &'a [u8], tag: &[u8]) -> Response<'a> {
    if let Some(text) = line.strip_prefix(b"* ") {
        return Response::Untagged(text);
    }
    if let Some(challenge) = line.strip_prefix(b"+") {
        return Response::Challenge(challenge.trim_ascii());
    }
    match line.strip_prefix(tag) {
        Some(text) if has_first_word(text, b"OK") => Response::Accepted,
        Some(text) if has_first_word(text, b"NO") || has_first_word(text, b"BAD") => Response::Refused,
        _ => Response::Unknown,
    }
}

/// BYE ends the session. An untagged BAD answers a command without naming it (RFC 9051 section 7.1).
fn is_fatal(text: &[u8]) -> bool {
    has_first_word(text, b"BYE") || has_first_word(text, b"BAD")
}

fn has_first_word(text: &[u8], word: &[u8]) -> bool {
    text.split(u8::is_ascii_whitespace).next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// Returns the parameters for ID: the client's addresses in the fields that Dovecot accepts from trusted networks, then
/// as many of the client's own parameters as fit.
fn id_parameters(client: &ClientInfo, own: &ClientId) -> String {
    let ends = [("originating", client.address), ("connected", client.destination)];
    let known = ends.into_iter().filter_map(|(end, address)| Some((end, address?)));
    let ours = known.flat_map(|(end, address)| {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        [format!("\"x-{end}-ip\" \"{ip}\""), format!("\"x-{end}-port\" \"{port}\"")]
    });
    let mut parameters = String::new();
    for parameter in ours.chain(own.quoted()).take(MAX_PARAMETERS) {
        if parameters.len().saturating_add(parameter.len()) > MAX_ID {
            continue;
        }
        if !parameters.is_empty() {
            parameters.push(' ');
        }
        parameters.push_str(&parameter);
    }
    parameters
}

/// The tag of our own commands, which the client never sees.
const OUR_TAG: &[u8] = b"mailgress ";
/// Bytes of the parameters in an ID. Keeps the command line below 8,000 bytes, which every server accepts (RFC 2683
/// section 3.2.1.5).
const MAX_ID: usize = 7900;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_of_itself_leaves_room_for_us_and_for_the_line() {
        let address = "192.0.2.7:4000".parse().ok();
        let client = ClientInfo { address, destination: address, host: String::new() };
        let fields: Vec<String> = (0..30).map(|number| format!("field{number}")).collect();
        let said = |value: &[u8]| {
            ClientId::new(fields.iter().map(|field| (field.as_bytes(), Some(value))).collect::<Vec<_>>())
        };
        let short = id_parameters(&client, &said(b"v"));
        assert!(short.starts_with("\"x-originating-ip\" \"192.0.2.7\""), "{short}");
        assert_eq!(short.matches('"').count(), 4 * 30, "30 pairs, each of two strings");
        let long = id_parameters(&client, &said(&[b'v'; 1024]));
        assert!((7000..8000 - "mailgress ID ()\r\n".len()).contains(&long.len()), "{}", long.len());
    }
}
