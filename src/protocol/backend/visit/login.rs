//! The login of a visit: the lines to send, for the mechanism that the server offers.

use std::collections::VecDeque;

use crate::protocol::Protocol;
use crate::protocol::sasl::encode_base64;
use crate::protocol::sieve::response::{Sender, append_string};
use crate::secret::Secret;

use super::{Offers, ReplyKind};

/// A login with a password, with the best mechanism that the server offers.
#[derive(Debug)]
pub struct Login {
    /// The command and mechanism, such as `AUTHENTICATE PLAIN` or `USER`.
    pub mechanism: &'static str,
    /// The lines that are still to be sent.
    lines: VecDeque<Secret>,
    /// POP3's USER: a positive reply is not final.
    in_steps: bool,
}

/// Why a login cannot be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// The server offers no mechanism that needs only a password.
    #[error("the server offers no way to log in with a password here")]
    NoMechanism,
    /// No protocol can transfer these characters.
    #[error("user name and password must not contain line breaks or NUL")]
    ControlCharacters,
}

impl Login {
    /// Chooses the mechanism from what the server offers.
    ///
    /// # Errors
    /// [`NoLogin`] if the server offers no suitable mechanism, or the credentials contain line breaks or NUL.
    pub fn choose(offers: &Offers, user: &[u8], password: &Secret) -> Result<Self, NoLogin> {
        let forbidden = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        if user.iter().any(forbidden) || password.expose().iter().any(forbidden) {
            return Err(NoLogin::ControlCharacters);
        }
        let plain = encoded(&[b"", user, password.expose()].join(&0));
        let answers = [encoded(user), encoded(password.expose())];
        let sasl = |mechanism, command: &str, first: Option<&Secret>, rest: Vec<Secret>| {
            let head = [command.as_bytes()].into_iter().chain(first.map(Secret::expose));
            let mut lines = VecDeque::from([line(&head.collect::<Vec<_>>())]);
            lines.extend(rest.iter().map(|answer| line(&[answer.expose()])));
            Ok(Self { mechanism, lines, in_steps: false })
        };
        let (has_plain, has_login) = (offers.has_mechanism("PLAIN"), offers.has_mechanism("LOGIN"));
        match offers.protocol {
            Some(Protocol::Imap) if has_plain && offers.has("SASL-IR") => {
                sasl("AUTHENTICATE PLAIN", "visit AUTHENTICATE PLAIN ", Some(&plain), Vec::new())
            }
            Some(Protocol::Imap) if has_plain => {
                sasl("AUTHENTICATE PLAIN", "visit AUTHENTICATE PLAIN", None, vec![plain])
            }
            Some(Protocol::Imap) if !offers.has("LOGINDISABLED") => Ok(Self::imap(user, password)),
            // Servers without CAPA support USER, because USER is older.
            Some(Protocol::Pop3) if !has_plain && (offers.words.is_empty() || offers.has("USER")) => {
                let lines = VecDeque::from([line(&[b"USER ", user]), line(&[b"PASS ", password.expose()])]);
                Ok(Self { mechanism: "USER", lines, in_steps: true })
            }
            Some(Protocol::Pop3 | Protocol::Smtp) if has_plain => {
                sasl("AUTH PLAIN", "AUTH PLAIN ", Some(&plain), Vec::new())
            }
            Some(Protocol::Pop3 | Protocol::Smtp) if has_login => {
                sasl("AUTH LOGIN", "AUTH LOGIN", None, answers.into())
            }
            Some(Protocol::Sieve) if has_plain => {
                let plain = in_string(&plain);
                sasl("AUTHENTICATE PLAIN", "AUTHENTICATE \"PLAIN\" ", Some(&plain), Vec::new())
            }
            Some(Protocol::Sieve) if has_login => {
                let answers = answers.iter().map(in_string).collect();
                sasl("AUTHENTICATE LOGIN", "AUTHENTICATE \"LOGIN\"", None, answers)
            }
            _ => Err(NoLogin::NoMechanism),
        }
    }

    /// Uses literals, which can carry any bytes, unlike quoted strings (RFC 9051 section 4.3).
    fn imap(user: &[u8], password: &Secret) -> Self {
        let password = password.expose();
        let announced = |bytes: &[u8]| format!("{{{}}}", bytes.len()).into_bytes();
        let lines = [
            line(&[b"visit LOGIN ", &announced(user)]),
            line(&[user, b" ", &announced(password)]),
            line(&[password]),
        ];
        Self { mechanism: "LOGIN", lines: lines.into(), in_steps: false }
    }

    /// Appends the next line. Returns `false` if there is none.
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let next = self.lines.pop_front();
        out.extend_from_slice(next.as_ref().map(Secret::expose).unwrap_or_default());
        next.is_some()
    }

    /// Tells whether the login continues after an answer of this kind.
    #[must_use]
    pub fn goes_on(&self, kind: ReplyKind) -> bool {
        match kind {
            ReplyKind::GoOn => true,
            ReplyKind::Yes => self.in_steps && !self.lines.is_empty(),
            ReplyKind::No | ReplyKind::Foreign => false,
        }
    }
}

fn in_string(message: &Secret) -> Secret {
    let mut quoted = Vec::new();
    append_string(message.expose(), Sender::Client, &mut quoted);
    Secret::new(quoted)
}

fn encoded(message: &[u8]) -> Secret {
    Secret::new(encode_base64(message).into_bytes())
}

fn line(parts: &[&[u8]]) -> Secret {
    Secret::new([parts, &[b"\r\n"]].concat().concat())
}
