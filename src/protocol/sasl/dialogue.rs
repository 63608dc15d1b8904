//! The SASL exchange of a frontend with its client, which is the same in all protocols.

use crate::protocol::frontend::core::Core;
use crate::protocol::login::LoginRequest;
use crate::secret::Secret;

use super::{
    Mechanism, decode_base64, decode_cram_md5, decode_external, decode_oauthbearer, decode_plain,
    decode_xoauth2, encode_base64, is_message,
};

/// An exchange that the frontend conducts. The state says what the client's next line contains.
#[derive(Debug)]
pub(crate) enum Dialogue {
    Plain,
    LoginName,
    LoginPassword { login: Vec<u8> },
    CramMd5 { salt: Vec<u8> },
    External,
    XOAuth2,
    OAuthBearer,
}

/// The result of a client's message.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Send this challenge (base64, may be empty).
    Challenge(String, Dialogue),
    /// The credentials are complete.
    Complete(LoginRequest),
    /// The client cancelled (`*`). It gets the reply to an invalid command, but no error is counted.
    Cancelled,
    /// The message is invalid, and the exchange has ended.
    Invalid,
    /// The mechanism is not accepted here.
    Unsupported,
}

impl Dialogue {
    /// Starts with the arguments of AUTH or AUTHENTICATE: the mechanism's name and an optional initial response.
    pub(crate) fn begin(core: &mut Core, arguments: &[&[u8]]) -> Progress {
        let (name, initial) = match arguments {
            [name] => (*name, None),
            [name, initial] => (*name, Some(*initial)),
            _ => return Progress::Invalid,
        };
        // A mechanism that is not accepted is refused before its argument is checked (quirk Q-01).
        let taken = Mechanism::from_sasl_name(name).filter(|mechanism| core.takes(*mechanism));
        let Some(mechanism) = taken else { return Progress::Unsupported };
        if core.config.relay_sasl && !mechanism.is_password() {
            return relayed(mechanism, initial);
        }
        Self::local(core, mechanism, initial)
    }

    fn local(core: &mut Core, mechanism: Mechanism, initial: Option<&[u8]>) -> Progress {
        let (challenge, dialogue) = match mechanism {
            Mechanism::Plain => (String::new(), Self::Plain),
            Mechanism::Login => (USERNAME.to_owned(), Self::LoginName),
            Mechanism::External => (USERNAME.to_owned(), Self::External),
            Mechanism::XOAuth2 => (String::new(), Self::XOAuth2),
            Mechanism::OAuthBearer => (String::new(), Self::OAuthBearer),
            // RFC 2195: the server speaks first, so there is no initial response.
            Mechanism::CramMd5 if initial.is_none() => {
                let salt = core.fresh_challenge();
                (encode_base64(&salt), Self::CramMd5 { salt })
            }
            Mechanism::CramMd5 | Mechanism::Apop | Mechanism::None => return Progress::Invalid,
        };
        match initial {
            None => Progress::Challenge(challenge, dialogue),
            // There is nothing to cancel yet.
            Some(CANCELLATION) => Progress::Invalid,
            Some(message) => dialogue.answer(message),
        }
    }

    /// Takes the client's response, in base64 as received.
    pub(crate) fn answer(self, message: &[u8]) -> Progress {
        if message == CANCELLATION {
            return Progress::Cancelled;
        }
        let request = match self {
            Self::LoginName => {
                return decode_base64(message).map_or(Progress::Invalid, |login| {
                    Progress::Challenge(PASSWORD.to_owned(), Self::LoginPassword { login: login.to_vec() })
                });
            }
            Self::LoginPassword { login } => decode_base64(message).map(|password| LoginRequest::Password {
                login,
                password: Secret::from(password.as_slice()),
                authzid: Vec::new(),
            }),
            Self::Plain => decode_plain(message),
            Self::CramMd5 { salt } => decode_cram_md5(message, salt),
            Self::External => decode_external(message),
            Self::XOAuth2 => decode_xoauth2(message),
            Self::OAuthBearer => decode_oauthbearer(message),
        };
        request.map_or(Progress::Invalid, Progress::Complete)
    }
}

fn relayed(mechanism: Mechanism, initial: Option<&[u8]>) -> Progress {
    if initial.is_some_and(|message| !is_message(message)) {
        return Progress::Invalid;
    }
    Progress::Complete(LoginRequest::Relayed { mechanism, initial_response: initial.map(Secret::from) })
}

/// Returns the first word of a line. nginx ignores the rest of a response too.
pub(crate) fn first_word(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b' ').find(|word| !word.is_empty()).unwrap_or_default()
}

/// RFC 4422 section 3.1; not base64.
const CANCELLATION: &[u8] = b"*";
/// `Username:` in base64.
const USERNAME: &str = "VXNlcm5hbWU6";
/// `Password:` in base64.
const PASSWORD: &str = "UGFzc3dvcmQ6";
