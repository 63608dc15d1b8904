//! The frontend machines: any client, with any settings.

use std::collections::VecDeque;

use mailgress::protocol::frontend::StartTlsOffer;
use mailgress::protocol::{
    CountedErrors, FrontendConfig, LoginRequest, Mechanism, PasswordLogins, Protocol, SmtpRules,
};

use super::choices::{Choices, bit, pick, sizes};
use super::client::{Login, Session};

/// Invariants:
/// * the same events for any chunking;
/// * replies are whole lines, and their size is bounded by the size of the input;
/// * a login has only what its settings allow, and neither line breaks nor NUL;
/// * nothing happens after the end;
/// * nothing from before STARTTLS has an effect after it.
pub(super) fn target(protocol: Protocol, data: &[u8]) {
    let mut choices = Choices::new(data);
    let settings = Settings { protocol, bytes: choices.bytes() };
    let turns = choices.parts();
    let whole = settings.play(&turns, |available| available);
    assert_eq!(whole, settings.play(&turns, sizes(settings.bytes[5])), "the result depends on the chunks");
    assert_eq!(whole, settings.play(&turns, |_| 1), "the result depends on the chunks");
    whole.check(&settings, data.len());
    settings.check_start_tls(&turns);
}

/// The first bytes of an input: flags, mechanisms, limits, two of verdicts, sizes of chunks.
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) bytes: [u8; 6],
}

/// What happened.
#[derive(Debug, PartialEq)]
struct Played {
    /// The events of each turn.
    events: Vec<Vec<String>>,
    logins: Vec<Login>,
}

impl Settings {
    pub(super) fn config(&self) -> FrontendConfig {
        let [flags, mechanisms, limits, ..] = self.bytes;
        let allowed = Mechanism::ALL.into_iter().enumerate();
        FrontendConfig {
            protocol: self.protocol,
            server_name: "mail.test".to_owned(),
            capabilities: vec!["USER".to_owned(), "SIZE 100".to_owned()],
            mechanisms: allowed
                .filter(|(index, _)| mechanisms >> index & 1 == 1)
                .map(|(_, mechanism)| mechanism)
                .collect(),
            password_logins: pick(flags & 1, [PasswordLogins::Listed, PasswordLogins::Always]),
            start_tls: pick(
                flags >> 1 & 3,
                [
                    StartTlsOffer::Disabled,
                    StartTlsOffer::Optional,
                    StartTlsOffer::Required,
                    StartTlsOffer::Required,
                ],
            ),
            relay_sasl: bit(flags, 4),
            counted_errors: pick(flags >> 5 & 1, [CountedErrors::Syntax, CountedErrors::All]),
            smtp: SmtpRules { anonymous_before_tls: bit(flags, 6), strict_sequence: bit(flags, 7) },
            max_errors: u32::from(limits & 7).max(1),
            max_commands: pick(limits >> 3 & 1, [1000, 7]),
            max_auth_failures: pick(limits >> 4 & 1, [10, 2]),
        }
    }

    fn is_implicit(&self) -> bool {
        bit(self.bytes[0], 3)
    }

    fn limit(&self) -> usize {
        pick(self.bytes[2] >> 5, [4096, 64, 128, 300])
    }

    fn verdicts(&self) -> VecDeque<String> {
        let number = u16::from_be_bytes([self.bytes[3], self.bytes[4]]);
        let verdict = |index: u32| VERDICTS[usize::from(number >> (3 * index) & 7)].to_owned();
        (0..5).map(verdict).collect()
    }

    fn session(&self, config: FrontendConfig) -> Session {
        let mut session = Session::new(config, self.is_implicit(), self.verdicts());
        session.nonce("nonce");
        session.limit(self.limit());
        session
    }

    fn play(&self, turns: &[&[u8]], chunk: impl FnMut(usize) -> usize) -> Played {
        play(self.session(self.config()), turns, chunk)
    }

    /// After STARTTLS a session is as one whose client has sent nothing else before. Counters continue, so they have no
    /// limits here, and only sessions without an earlier login are compared.
    fn check_start_tls(&self, turns: &[&[u8]]) {
        let no_limits = || FrontendConfig {
            max_errors: u32::MAX,
            max_commands: u32::MAX,
            max_auth_failures: u32::MAX,
            ..self.config()
        };
        let played = play(self.session(no_limits()), turns, |available| available);
        let Some(at) = played.events.iter().position(|events| events.iter().any(|event| is_handshake(event)))
        else {
            return;
        };
        let (before, after) = played.events.split_at(at + 1);
        if before.iter().flatten().any(|event| has_logged_in(event)) {
            return;
        }
        let begin: &[u8] = match self.protocol {
            Protocol::Imap => b"x STARTTLS\r\n",
            Protocol::Pop3 => b"STLS\r\n",
            Protocol::Smtp => b"EHLO x\r\nSTARTTLS\r\n",
            Protocol::Sieve => b"STARTTLS\r\n",
        };
        let fresh: Vec<&[u8]> = [begin].into_iter().chain(turns.iter().skip(at + 1).copied()).collect();
        let fresh = play(self.session(no_limits()), &fresh, |available| available);
        assert_eq!(
            fresh.events.get(1..).unwrap_or_default(),
            after,
            "something from before STARTTLS is left"
        );
    }
}

/// Sends each part after the events of the one before.
fn play(mut session: Session, turns: &[&[u8]], mut chunk: impl FnMut(usize) -> usize) -> Played {
    let mut events = Vec::new();
    for turn in turns {
        if session.is_over() {
            break;
        }
        session.send(turn, &mut chunk);
        events.push(session.take_events());
    }
    Played { events, logins: session.logins }
}

impl Played {
    fn check(&self, settings: &Settings, sent: usize) {
        let events = || self.events.iter().flatten();
        let cut = events().find(|event| event.starts_with("s: "));
        assert_eq!(cut, None, "a reply is not made of whole lines");
        let replied: usize = events().filter(|event| event.starts_with("S: ")).map(String::len).sum();
        assert!(replied <= 1024 + 64 * sent, "{replied} bytes of replies to {sent} bytes");
        let end = events().position(|event| event.starts_with("close: "));
        assert!(end.is_none_or(|end| end + 1 == events().count()), "something happens after the end");
        let config = settings.config();
        for login in &self.logins {
            check_login(login, &config);
        }
    }
}

/// Checks that the settings allow a login, and that no part of it can break out of a command.
pub(super) fn check_login(login: &Login, config: &FrontendConfig) {
    let has = |mechanism| config.mechanisms.contains(&mechanism);
    let takes_passwords = config.password_logins == PasswordLogins::Always
        || config.mechanisms.iter().any(|mechanism| mechanism.is_password());
    let is_anonymous = login.request == LoginRequest::Anonymous;
    let is_allowed = match &login.request {
        LoginRequest::Password { .. } => takes_passwords,
        LoginRequest::Digest { mechanism, .. } | LoginRequest::Token { mechanism, .. } => has(*mechanism),
        LoginRequest::External { .. } => has(Mechanism::External),
        LoginRequest::Relayed { mechanism, .. } => config.relay_sasl && has(*mechanism),
        LoginRequest::Anonymous => has(Mechanism::None) && config.protocol == Protocol::Smtp,
    };
    assert!(is_allowed, "the settings do not allow this login: {login:?}");
    if config.start_tls == StartTlsOffer::Required && !login.secured {
        assert!(is_anonymous && config.smtp.anonymous_before_tls, "a login before TLS: {login:?}");
    }
    assert!(!login.request.holds_line_breaks_or_nul(), "{login:?}");
    let envelope = &login.envelope;
    let hello = envelope.hello.as_ref().map(|hello| hello.name.as_slice());
    let lines = [Some(login.tag.as_slice()), hello, envelope.mail.as_deref(), envelope.rcpt.as_deref()];
    for line in lines.into_iter().flatten() {
        assert!(!line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')), "{login:?}");
    }
}

fn is_handshake(event: &str) -> bool {
    event.starts_with("starttls")
}

/// Tells whether an event shows a login or a challenge, which later ones are numbered after.
fn has_logged_in(event: &str) -> bool {
    ["login:", "answer:", "S: + ", "S: 334", SIEVE_CHALLENGE].iter().any(|start| event.starts_with(start))
}

/// The start of a challenge of CRAM-MD5 in ManageSieve: the nonce in base64. Capabilities look like challenges too.
const SIEVE_CHALLENGE: &str = "S: \\\"PG5vbmNl";

/// What an auth service and a backend decide.
pub(super) const VERDICTS: [&str; 8] = [
    "refuse no",
    "ok",
    "refuse [ALERT] no",
    "refuse code=451 4.3.0; later",
    "verbatim a NO no",
    "error",
    "challenge eyJ9",
    "refuse-answered no",
];
