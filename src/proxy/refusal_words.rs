//! The words with which the backends of a listener refuse a wrong password. A login without a backend is refused with
//! them, so that the words do not tell which users exist.
//!
//! Clients get words that other clients have got. Therefore words are used only if they are the same for two logins, and
//! contain neither a login nor a client's address.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::net::ClientAddress;
use crate::protocol::{Protocol, notices};

/// What is known about the words.
#[derive(Debug, Default)]
pub(crate) struct RefusalWords {
    hasher: RandomState,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The last different words, with the hash of the login that got them.
    candidates: VecDeque<(u64, Words)>,
    learnt: Option<Arc<Words>>,
}

/// A refusal without its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// SMTP: the code of three digits. Empty for other protocols.
    pub(crate) code: Box<str>,
    /// The text after it, with its response code or enhanced status code.
    pub(crate) text: Box<[u8]>,
}

impl RefusalWords {
    /// Adds a backend's refusal of a wrong password, for this login and client. The login may have several `@`.
    pub(crate) fn hear(&self, protocol: Protocol, (login, client): (&str, ClientAddress), reply: &[u8]) {
        let Some(words) = Words::read(protocol, reply) else { return };
        if login.is_empty() || words.name(login, client) {
            return;
        }
        let hash = self.hasher.hash_one(login.to_lowercase());
        let mut heard = self.heard.lock();
        match heard.candidates.iter().find(|(_, known)| *known == words) {
            None => {
                if heard.candidates.len() == MAX_CANDIDATES {
                    heard.candidates.pop_front();
                }
                heard.candidates.push_back((hash, words));
            }
            Some((other, _)) if *other != hash && heard.learnt.as_deref() != Some(&words) => {
                heard.learnt = Some(Arc::new(words));
            }
            Some(_) => {}
        }
    }

    /// Returns the words. `None` until two logins have got the same.
    pub(crate) fn learnt(&self) -> Option<Arc<Words>> {
        self.heard.lock().learnt.clone()
    }
}

impl Words {
    /// Reads a refusal of one line.
    fn read(protocol: Protocol, reply: &[u8]) -> Option<Self> {
        let line = reply.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LENGTH || line.contains(&b'\n') {
            return None;
        }
        let unquoted;
        let mut parts = line.splitn(2, |byte| *byte == b' ');
        let (first, rest) = (parts.next()?, parts.next()?);
        let (code, text) = match protocol {
            Protocol::Imap => {
                let status = rest.get(..3).filter(|status| status.eq_ignore_ascii_case(b"NO "));
                ("", status.and_then(|status| rest.get(status.len()..))?)
            }
            Protocol::Pop3 => ("", Some(rest).filter(|_| first.eq_ignore_ascii_case(b"-ERR"))?),
            Protocol::Smtp => {
                let is_code = first.len() == 3 && first.iter().all(u8::is_ascii_digit);
                (std::str::from_utf8(first).ok().filter(|_| is_code)?, rest)
            }
            Protocol::Sieve => {
                unquoted = notices::sieve_refusal_text(line)?;
                ("", unquoted.as_slice())
            }
        };
        Some(Self { code: code.into(), text: text.into() })
    }

    /// Tells whether the text contains a part of the login, or the client's address.
    fn name(&self, login: &str, client: ClientAddress) -> bool {
        let text = String::from_utf8_lossy(&self.text).to_lowercase();
        let login = login.to_lowercase();
        let address = client.ip().map(|ip| ip.to_string());
        login.split('@').chain(address.as_deref()).any(|part| !part.is_empty() && text.contains(part))
    }
}

/// The number of different words that are remembered: a listener may have backends of several kinds.
const MAX_CANDIDATES: usize = 4;
/// The longest refusal in bytes: a reply line of SMTP (RFC 5321 section 4.5.3.1.5).
const MAX_LENGTH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7";

    fn hear(words: &RefusalWords, protocol: Protocol, login: &str, reply: &str) {
        words.hear(
            protocol,
            (login, ClientAddress::Ip((CLIENT.parse::<std::net::IpAddr>().unwrap(), 1).into())),
            reply.as_bytes(),
        );
    }

    fn learnt(words: &RefusalWords) -> Option<String> {
        let words = words.learnt()?;
        Some(format!("{}|{}", words.code, String::from_utf8_lossy(&words.text)))
    }

    #[test]
    fn words_that_two_logins_get_are_learnt() {
        for (protocol, one, other, known) in [
            (Protocol::Imap, "a NO [AUTH] Wrong.\r\n", "b2 no [AUTH] Wrong.\r\n", "|[AUTH] Wrong."),
            (Protocol::Pop3, "-ERR [AUTH] Wrong.\r\n", "-ERR [AUTH] Wrong.\n", "|[AUTH] Wrong."),
            (Protocol::Smtp, "535 Incorrect data\r\n", "535 Incorrect data\r\n", "535|Incorrect data"),
            (Protocol::Sieve, "NO \"Wrong \\\"it\\\".\"\r\n", "no \"Wrong \\\"it\\\".\"\n", "|Wrong \"it\"."),
        ] {
            let words = RefusalWords::default();
            hear(&words, protocol, "bob@x.example", one);
            hear(&words, protocol, "bob@x.example", one);
            hear(&words, protocol, "Bob@X.example", one);
            assert_eq!(learnt(&words), None, "one login is not enough, whatever its case");
            hear(&words, protocol, "joe@x.example", other);
            assert_eq!(learnt(&words).as_deref(), Some(known));
        }
    }

    #[test]
    fn words_about_one_client_are_not_learnt() {
        for text in [
            "no BOB, JOE or AL here",
            "nothing at X.example",
            "198.51.100.1 and 192.0.2.7",
            "two\r\n535 lines",
        ] {
            let words = RefusalWords::default();
            for login in ["bob@x.example", "joe@x.example", "al@X.EXAMPLE", ""] {
                hear(&words, Protocol::Smtp, login, &format!("535 {text}\r\n"));
            }
            assert_eq!(learnt(&words), None, "{text}");
        }
    }

    #[test]
    fn backends_of_two_kinds_do_not_hide_each_other() {
        let words = RefusalWords::default();
        for (login, text) in [("a@1", "one"), ("b@1", "other"), ("c@1", "one"), ("d@1", "other")] {
            hear(&words, Protocol::Pop3, login, &format!("-ERR {text}\r\n"));
        }
        assert_eq!(learnt(&words).as_deref(), Some("|other"));
        for number in 0..100 {
            hear(&words, Protocol::Pop3, "z@9", &format!("-ERR {number}\r\n"));
        }
        assert_eq!(words.heard.lock().candidates.len(), MAX_CANDIDATES);
    }
}
